"""The URL of a database as its caller wrote it, kept out of sight until it is read."""

from __future__ import annotations

import re
from urllib.parse import unquote

from sqlalchemy import Engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from roleplay.domain.values import text_problem
from roleplay.errors import SettingsError
from roleplay.store.access.sqlite import url_of

DatabaseUrl = str | URL | Engine
"""A URL of SQLAlchemy's or a ``file:`` URI of SQLite's, or an engine, which its maker closes."""

_UNREADABLE = "the database URL cannot be read; write for example sqlite:///chats.db or postgresql://user@host/name"
_AFTER_LOGIN = re.compile(r"[\w+]+://[^:/]*:[^@]*@(?P<rest>.*)", re.DOTALL)
#: Parameters of PostgreSQL's drivers whose values may hold an ``@`` as it is.
_MAY_HOLD_AT = {
    "application_name",
    "host",
    "options",
    "passfile",
    "service",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "user",
}


class Address:
    """A URL that shows nothing of itself: it may hold a password, and what handles it may stand in a traceback."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __repr__(self) -> str:
        return "Address(***)"

    def read(self) -> URL:
        """Take the URL apart. Raises ``SettingsError``, with no part of the URL in it or in what it hangs on."""
        problem = _problem(self._url)
        parsed = None if problem else _parsed(self._url)
        if parsed is None:
            raise SettingsError(problem or _UNREADABLE)
        return parsed


def private(url: DatabaseUrl | Address) -> URL | Engine | Address:
    """Give a URL that is text as an ``Address``, and anything else as it is."""
    return Address(url) if isinstance(url, str) else url


def read(url: str | URL | Address) -> URL:
    """Take a URL apart, however it is given. Raises ``SettingsError``."""
    hidden = url if isinstance(url, URL | Address) else Address(url)
    del url
    parsed = hidden.read() if isinstance(hidden, Address) else hidden
    password = parsed.query.get("password")
    if isinstance(password, str):  # where SQLAlchemy would show it
        parsed = parsed.difference_update_query(["password"]).set(password=password)
    return parsed


def _problem(url: object) -> str | None:
    """Say why a URL would be read otherwise than it was meant: what follows the first ``@`` is no host then, and would
    be named in the errors of a driver."""
    if not isinstance(url, str):
        return _UNREADABLE
    if problem := text_problem(url) or text_problem(unquote(url)):
        return f"the database URL {problem}"
    after = None if url.startswith(("sqlite", "file:")) else _AFTER_LOGIN.match(url)
    if after is None:
        return None
    place, _, query = after["rest"].partition("?")
    strays = [part for part in query.split("&") if "@" in part and part.partition("=")[0] not in _MAY_HOLD_AT]
    if "@" in place or strays:
        return (
            "the password in the database URL holds an @; write %40 in its place (and %3A for :, %2F for /, %3F for ?)"
        )
    return None


def _parsed(url: str) -> URL | None:
    try:
        return url_of(url) if url.startswith("file:") else make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number, with the text around it
        return None

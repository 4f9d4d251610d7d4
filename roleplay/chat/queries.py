"""Keeps the secrets of endpoints out of what the HTTP libraries log, and out of the errors behind ours."""

from __future__ import annotations

import logging
from typing import TypeVar
from urllib.parse import urlsplit

from roleplay.domain.endpoint import Endpoint
from roleplay.errors import without_frames
from roleplay.wire.secrets import Secrets, secrets_of

ErrorT = TypeVar("ErrorT", bound=BaseException)

_LOGGERS = (
    "httpx",
    "httpcore.connection",  # a filter holds for its own logger alone, not for those below it
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
)
_CAUSES = 8


class _Mask(logging.Filter):
    """Takes known secrets out of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[tuple[str, ...], Secrets] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without the secrets."""
        record.msg = self._masked(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._masked, record.args))
        return True

    def _masked(self, value: object) -> object:
        text = str(value)
        found = [secrets for ways, secrets in list(self.known.items()) if any(way in text for way in ways)]
        for secrets in found:
            text = secrets.in_words(text)
        return text if found else value


_MASK = _Mask()


def hide(endpoint: Endpoint, sent: str) -> None:
    """Let no log of the HTTP libraries show the secrets of an endpoint, neither as they were given nor as they stand in
    ``sent``, the URL as the HTTP library writes it."""
    for secrets in (secrets_of(endpoint), Secrets([urlsplit(sent).query])):
        _MASK.known[secrets.ways] = secrets
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_MASK)  # a second time changes nothing


class NetworkError(Exception):
    """Names what a library said of a failure, and what the system said: without its frames and its request, which hold
    the key."""


def caused(ours: ErrorT, endpoint: Endpoint, error: BaseException) -> ErrorT:
    """Give ``ours`` with a cause that tells of ``error``.

    Raise it outside of the ``except`` that handles ``error``: there, Python would note ``error`` as its context.
    """
    said: list[str] = []
    behind: BaseException | None = error
    while behind is not None and len(said) < _CAUSES:
        kind = type(behind)
        name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        told = f": {behind}" if isinstance(behind, OSError) and behind.errno is not None else ""
        said.append(f"{name}{told}")
        behind = behind.__cause__ or behind.__context__
    ours = without_frames(ours)
    ours.__cause__ = NetworkError(secrets_of(endpoint).in_words("; from ".join(said)))
    return ours

"""The commands that are printed to be typed next: by the name that this one was called by, on the same database."""

from __future__ import annotations

import re
import shlex
from contextvars import ContextVar
from dataclasses import dataclass

PROGRAM = "roleplay"
#: As SQLAlchemy reads a URL, in which a password may hold signs that end a host elsewhere.
_LOGIN = re.compile(r"([\w+]+)://(?:([^:/]*)(?::[^@]*)?@)?(.*)", re.DOTALL)


@dataclass
class Call:
    """How the program was called: by which words, and on which database if the command line names one."""

    program: str = PROGRAM
    db: str | None = None
    traces: bool = False


current: ContextVar[Call] = ContextVar("current")


def command(words: str) -> str:
    """Give a command such as ``chat --continue`` as it can be typed. What stands in ``words`` is quoted already."""
    call = current.get(Call())
    flag = f" --db {shlex.quote(without_password(call.db))}" if call.db else ""
    return f"{call.program} {words}{flag}"


def without_password(db: str) -> str:
    """Give a database as it may be printed: a URL of a server without its password and its parameters."""
    if "://" not in db or db.startswith(("sqlite:", "file:")):
        return db
    login = _LOGIN.match(db)
    scheme, user, place = login.groups() if login else (db.partition("://")[0], None, "***")
    place = place.partition("?")[0]
    if "@" in place:  # the password goes on, or so it seems
        place = "***"
    return f"{scheme}://{place}" if user is None else f"{scheme}://{user}@{place}"

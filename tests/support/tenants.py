"""Whether the engine's statements keep to one tenant."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import sqlalchemy
from sqlalchemy import Connection, Engine, event

import roleplay

#: Whether nothing listens to statements in this run, so that those of a turn go straight to SQLite's driver.
UNWATCHED = os.environ.get("ROLEPLAY_TESTS") == "unwatched"
PACKAGE = str(Path(roleplay.__file__).parent)
LIBRARY = str(Path(sqlalchemy.__file__).parent)
#: What works on the schema itself, and tables that belong to nobody.
EXEMPT = ("CREATE ", "DROP ", "ALTER ", "PRAGMA ", "EXPLAIN ")
EXEMPT_TABLES = ("roleplay_alembic_version", "pg_catalog", "sqlite_master")
VALUE = r"(?:\?|:\w+|\$\d+|%s|%\(\w+\)s)"
#: A condition that the tenant is the one given; as a result, in SET or beside OR it would hold nothing.
HELD = re.compile(rf"\b(?:WHERE|ON|AND)\s+\(*(?:\w+\.)?tenant\s*=\s*{VALUE}", re.IGNORECASE)
WRITTEN = re.compile(r"\s*INSERT\s+INTO\s+\w+\s*\(([^)]*)\)\s*VALUES", re.IGNORECASE)


def keeps_to_its_tenant(sql: str) -> bool:
    """Whether a statement on our tables is bound to a given tenant: by a condition, or in the row that it writes."""
    if "roleplay_" not in sql or sql.lstrip().startswith(EXEMPT) or any(name in sql for name in EXEMPT_TABLES):
        return True
    if written := WRITTEN.match(sql):
        return "tenant" in re.split(r"[\s,]+", written[1].strip())
    return HELD.search(sql) is not None


def runs_for_the_engine() -> bool:
    """Whether the statement that SQLAlchemy runs at this moment is the engine's own: tests look at every tenant."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith((LIBRARY, __file__, "<")):
        frame = frame.f_back
    if frame is None:
        return False
    where = Path(frame.f_code.co_filename)
    # A revision of the schema, which a wheel holds among its files, works for all tenants.
    return str(where).startswith(PACKAGE) and "migrations" not in where.parts


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect the statements of the engine that do not keep to a tenant."""
    bare: list[str] = []

    def look(_c: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        if not keeps_to_its_tenant(statement) and runs_for_the_engine():
            bare.append(statement)

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield bare
    finally:
        event.remove(Engine, "before_cursor_execute", look)

"""Model calls that an erasure deletes or blanks, and that can be rebuilt no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Delete, select

from roleplay.store.access.tables import ModelCallRow, table
from roleplay.store.upkeep import blanking

CALLS = table(ModelCallRow)


@contextmanager
def deleted(digests: set[str]) -> Iterator[None]:
    """Collect the digests of the requests whose calls are deleted or blanked, as they were stored.

    It stands in the way of the statements instead of listening to them: where something listens, those of a turn do
    not go straight to SQLite's driver.
    """
    plain = Connection.execute

    def execute(self: Connection, statement: Any, parameters: Any = None, **options: Any) -> Any:
        if statement is blanking.GIVE_UP or (isinstance(statement, Delete) and statement.table is CALLS):
            gone = select(CALLS.c.request_digest).where(statement.whereclause)
            digests.update(plain(self, gone, parameters).scalars())
        return plain(self, statement, parameters, **options)

    Connection.execute = execute
    try:
        yield
    finally:
        Connection.execute = plain

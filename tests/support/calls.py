"""Model calls that an erasure deletes, and that can be rebuilt no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

DELETED = "DELETE FROM roleplay_model_calls"


@contextmanager
def deleted(digests: set[str]) -> Iterator[None]:
    """Collect the digests of the requests whose calls are deleted, as they were stored."""

    def look(_connection: Connection, cursor: Any, sql: str, values: Any, *_rest: object) -> None:
        if sql.startswith(DELETED):
            cursor.execute(sql.replace(DELETED, "SELECT request_digest FROM roleplay_model_calls"), values)
            digests.update(row[0] for row in cursor.fetchall())

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", look)

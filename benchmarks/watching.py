"""What a benchmark sees of databases that others open: their connections, their rows, their bytes on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
CONNECT = sqlite3.connect


class Watched(sqlite3.Connection):
    """A connection that can be found by its file, whoever opened it."""

    opened: WeakSet[Watched] = WeakSet()
    factories: dict[str, Callable[[Any], Any]] = {}

    def __init__(self, database: Any, *values: Any, **named: Any) -> None:
        super().__init__(database, *values, **named)
        self.file = Path(str(database)).name
        if made := Watched.factories.get(self.file):
            self.row_factory = made(None)
        Watched.opened.add(self)

    @classmethod
    def of(cls, path: Path) -> list[Watched]:
        """Find the open connections to a file."""
        return [one for one in cls.opened if one.file == path.name and _is_open(one)]


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        return connection.execute("SELECT 1").fetchone() is not None
    except sqlite3.ProgrammingError:
        return False


def watch() -> None:
    """Let every connection that is opened from now on be a watched one."""

    def connect(database: Any, *values: Any, **named: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = CONNECT(database, *values, **{"factory": Watched} | named)
        return made

    sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[assignment]


def used(path: Path) -> int:
    """Give the bytes of the pages that a database uses, with those that its log still holds."""
    with closing(sqlite3.Connection(path)) as looking:
        pages, free, size = (
            looking.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


def settle(path: Path) -> None:
    """Bring what was filled from the log into the database, so that no turn has to."""
    with closing(sqlite3.Connection(path)) as looking:
        looking.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def disk_written() -> int:
    """Give the bytes that this process made the disk write, where the system tells; else 0."""
    told = Path("/proc/self/io")
    lines = told.read_text(encoding="ascii").splitlines() if told.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes")), 0)


def settings_of(connections: Sequence[sqlite3.Connection]) -> str:
    """Say which journal connections keep, and how they wait for the disk."""
    found = {
        f"{one.execute('PRAGMA journal_mode').fetchone()[0]}, "
        f"{SYNCHRONOUS[one.execute('PRAGMA synchronous').fetchone()[0]]}"
        for one in connections
    }
    return " and ".join(sorted(found))


@contextmanager
def counting_rows(path: Path) -> Iterator[list[int]]:
    """Count the rows that the connections to a file give, whenever they are opened, and the bytes of text in them."""
    seen = [0, 0]
    connections = Watched.of(path)
    before = [one.row_factory for one in connections]

    def factory(made: Any) -> Callable[[sqlite3.Cursor, tuple[Any, ...]], Any]:
        def row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Any:
            seen[0] += 1
            seen[1] += sum(len(value) for value in values if isinstance(value, str | bytes))
            return values if made is None else made(cursor, values)

        return row

    for one, made in zip(connections, before, strict=True):
        one.row_factory = factory(made)
    Watched.factories[path.name] = factory
    try:
        yield seen
    finally:
        del Watched.factories[path.name]
        for one, made in zip(connections, before, strict=True):
            one.row_factory = made

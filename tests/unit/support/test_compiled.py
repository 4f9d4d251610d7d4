"""One cache of compiled statements for all engines of a test process."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, create_engine, event, select
from sqlalchemy.dialects import postgresql, sqlite

from tests.support.compiled import SharedCache

THINGS = Table("things", MetaData(), Column("id", Integer, primary_key=True))


def test_the_second_engine_compiles_nothing(tmp_path: Path) -> None:
    """What one engine compiled, the next takes, and it is told of as found."""
    engines = [create_engine(f"sqlite:///{tmp_path}/{number}.db") for number in range(2)]
    found = []
    for engine in engines:
        event.listen(engine, "after_cursor_execute", lambda *given: found.append(given[4].cache_hit.name))
        with engine.connect() as connection:
            THINGS.create(connection)
            found.clear()
            assert connection.execute(select(THINGS).where(THINGS.c.id == 77)).all() == []
        engine.dispose()
    assert found == ["CACHE_HIT"]


def test_an_engine_without_a_cache_has_none() -> None:
    """Who switches the cache off compiles each time."""
    assert create_engine("sqlite://", query_cache_size=0)._compiled_cache is None


def test_what_differs_is_compiled_apart() -> None:
    """Another kind of database, or another version of its server, has other statements."""
    cache = SharedCache()
    older, newer = postgresql.dialect(), postgresql.dialect()
    older.server_version_info, newer.server_version_info = (14, 1), (15, 2)
    for number, dialect in enumerate([sqlite.dialect(), older, newer]):
        cache[dialect, "SELECT 1"] = number
    assert len(cache) == 3
    assert cache[sqlite.dialect(), "SELECT 1"] == 0
    assert cache.get((newer, "SELECT 1")) == 2
    del cache[older, "SELECT 1"]
    assert len(list(cache)) == 2

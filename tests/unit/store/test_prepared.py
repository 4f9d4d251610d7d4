"""Statements that are compiled once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    insert,
    select,
    update,
)

from roleplay.store.access.prepared import Prepared
from roleplay.store.access.tables import UtcDateTime

THINGS = Table(
    "things", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text), Column("at", UtcDateTime)
)
NOW = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)


@pytest.fixture(params=["watched", "unwatched"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """An empty database in memory with one table, whose statements somebody listens to, or nobody."""
    if request.param == "unwatched":
        request.getfixturevalue("unwatched")
    engine = create_engine("sqlite://")
    with engine.connect() as one:
        THINGS.create(one)
        yield one
    engine.dispose()


def rows(connection: Connection) -> list[tuple[Any, ...]]:
    """Every row, as SQLAlchemy reads it."""
    return [tuple(row) for row in connection.execute(select(THINGS).order_by(THINGS.c.id))]


def test_it_writes_what_execute_would(connection: Connection) -> None:
    """Values are converted for the driver, again at every execution."""
    add = Prepared(insert(THINGS))
    for number in (1, 2):
        add.run(connection, {"id": number, "name": "one", "at": NOW})
    assert rows(connection) == [(1, "one", NOW), (2, "one", NOW)]


def test_moments_that_a_clock_shows_twice(connection: Connection) -> None:
    """Where summer time ends, one time of day is two moments, which Python finds equal."""
    zone = ZoneInfo("America/New_York")
    add = Prepared(insert(THINGS))
    for fold in (0, 1):
        add.run(connection, {"id": fold, "name": "", "at": datetime(2025, 11, 2, 1, 30, tzinfo=zone, fold=fold)})
    assert [at.hour for _, _, at in rows(connection)] == [5, 6]


def test_values_of_its_own(connection: Connection) -> None:
    """A statement keeps the values that it was built with, and takes one given name in many places."""
    Prepared(insert(THINGS)).run(connection, {"id": 4, "name": "old", "at": NOW})
    where = (THINGS.c.at <= bindparam("of_time")) & (THINGS.c.at >= bindparam("of_time"))
    change = Prepared(update(THINGS).where(where).values(id=THINGS.c.id + 1, name="new", at=None))
    assert change.run(connection, {"of_time": NOW}).rowcount == 1
    assert change.run(connection, {"of_time": NOW}).rowcount == 0
    assert rows(connection) == [(5, "new", None)]


def test_rows_come_as_the_driver_gives_them(connection: Connection) -> None:
    """A query gives rows; nothing in them is converted."""
    Prepared(insert(THINGS)).run(connection, {"id": 1, "name": "one", "at": NOW})
    found = Prepared(select(THINGS.c.name, THINGS.c.at).where(THINGS.c.id == bindparam("of_id")))
    assert [tuple(row) for row in found.run(connection, {"of_id": 1}).all()] == [("one", "2026-05-01 12:30:00.000000")]


@pytest.mark.parametrize("values", [{"id": 1}, {"id": 1, "name": "one", "at": NOW}, {}])
def test_other_values_than_at_first(connection: Connection, values: dict[str, Any]) -> None:
    """A statement takes the same names each time."""
    add = Prepared(insert(THINGS))
    add.run(connection, {"id": 7, "name": "one"})
    with pytest.raises(TypeError, match="takes 2 values"):
        add.run(connection, values)


def test_a_value_that_is_missing_at_first(connection: Connection) -> None:
    """What is missing is not taken for ``None``."""
    find = Prepared(select(THINGS.c.id).where(THINGS.c.id == bindparam("of_id"), THINGS.c.name == bindparam("of_name")))
    with pytest.raises(TypeError, match="takes 2 values"):
        find.run(connection, {"of_id": 1})

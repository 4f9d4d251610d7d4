"""Revision 0005 with data: old rows mean the defaults, down and up keeps what is left, and a killed upgrade changes
nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text

from roleplay import Endpoint, Persona, PlayedBy, Roleplay, Seat, TurnOptions
from roleplay.store.access import schema
from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel
from tests.migrations.test_states_by_seat import KILLED, Old, kept_until, opened_before, rows

MODEL = Endpoint("MiniMax-M2.7")
BEFORE = "0004"
INDEX = "ix_roleplay_participants_of_owner"
#: The columns of this revision, by table.
COLUMNS = {
    "roleplay_participants": ["owner"],
    "roleplay_participant_revisions": ["aliases", "place", "talkativeness", "muted", "present"],
    "roleplay_turns": ["audience", "ends_round"],
    "roleplay_model_calls": ["cut"],
}

pytestmark = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    """Opens what a kept database holds, as it was before this revision, in a database of each kind in turn."""
    with opened_before(BEFORE, request, tmp_path) as open_it:
        yield open_it


def columns(database: Database, name: str) -> list[str]:
    """The columns of a table."""
    return database.read(lambda db: [one["name"] for one in inspect(db).get_columns(name)])


def indexes(database: Database) -> set[str | None]:
    """The indexes of seats."""
    return database.read(lambda db: {one["name"] for one in inspect(db).get_indexes("roleplay_participants")})


def values(database: Database, name: str) -> set[tuple[Any, ...]]:
    """What stands in the new columns of a table."""
    sql = f"SELECT {', '.join(COLUMNS[name])} FROM {name}"
    return database.read(lambda db: {tuple(row) for row in db.execute(text(sql))})


@pytest.mark.parametrize("name", kept_until(BEFORE))
def test_up_down_and_up_with_data(old: Old, name: str) -> None:
    """The columns come and go and nothing else does; a row that is there means the defaults."""
    database = old(name)
    before = rows(database)
    assert INDEX not in indexes(database)
    schema.upgrade(database)
    after = rows(database)
    assert INDEX in indexes(database)
    for table, names in COLUMNS.items():
        assert columns(database, table)[-len(names) :] == names
        assert values(database, table) == {(None,) * len(names)}
    schema.downgrade(database, BEFORE)
    assert INDEX not in indexes(database)
    assert rows(database) == before
    schema.upgrade(database)
    assert rows(database) == after


def test_old_rows_mean_the_defaults(old: Old) -> None:
    """Everybody sits in the order of the seats, speaks as by default and is heard by all; nobody's seat is anybody's;
    the session takes others in and is whispered in."""
    database = old("0004_conversation")
    schema.upgrade(database)
    url = database.engine.url.render_as_string(hide_password=False)
    with Roleplay.open(url, model=MODEL, chat=ScriptedModel()) as rp:
        for info in rp.sessions.list():
            session = rp.sessions.get(info.id, owner="user-17")
            seats = [(one.seat, one.order, one.talkativeness, one.muted, one.aliases, one.owner) for one in info.cast]
            assert seats == [(1, 1, 0.5, False, (), None), (2, 2, 0.5, False, (), None)]
            turns = session.turns(limit=100).items
            assert {one.audience for one in turns} == {None}
            assert {call.cut for one in turns for call in one.calls} == {None}
            joined = session.cast.join(Seat(name="Anna", owner="anna"), played_by=PlayedBy.HUMAN)
            assert (joined.seat, joined.order) == (3, 3)
            whisper = session.add("Psst.", speaker=3, options=TurnOptions(audience=[1]))
            assert session.turn(whisper.id).audience == (1, 3)
            assert rp.sessions.get(info.id, owner="anna").id == info.id
        assert rp.doctor() == []
        assert list(rp.replay.verify())


def test_what_is_of_this_revision_is_lost_downwards_alone(old: Old) -> None:
    """Down, what the columns held is gone, and every row is there; up again, it means the defaults."""
    database = old("0004_conversation")
    schema.upgrade(database)
    url = database.engine.url.render_as_string(hide_password=False)
    with Roleplay.open(url, model=MODEL, chat=ScriptedModel()) as rp:
        nova, kit = (rp.personas.put(Persona(name)) for name in ("Nova", "Kit"))
        anna = Seat(name="Anna", owner="anna", aliases=("A.",), muted=True, talkativeness=0.25)
        session = rp.sessions.create(cast=[nova, kit], users=[anna, Seat(name="Ben")], owner="ben")
        session.cast.leave("Ben")
        session.add("Psst.", speaker="Anna", options=TurnOptions(audience=["Nova"]))
    counts = {name: len(found) for name, found in rows(database).items()}
    for table in ("roleplay_participants", "roleplay_participant_revisions", "roleplay_turns"):
        assert len(values(database, table)) > 1
    schema.downgrade(database, BEFORE)
    assert {name: len(found) for name, found in rows(database).items()} == counts
    schema.upgrade(database)
    for table, names in COLUMNS.items():
        assert values(database, table) == {(None,) * len(names)}


POINTS = ("ADD COLUMN owner", "ADD COLUMN talkativeness", "ADD COLUMN cut", f"CREATE INDEX {INDEX}")


def test_a_killed_upgrade_changes_nothing(old: Old) -> None:
    """Wherever its process is killed, also right before the commit, all is as it was, and the next one succeeds."""
    database = old("0004_conversation")
    before = rows(database)
    url = database.engine.url.render_as_string(hide_password=False)
    for point in (*POINTS, f"UPDATE {schema.VERSION_TABLE}"):
        database.engine.dispose()
        done = subprocess.run([sys.executable, "-c", KILLED, url, point], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, (point, done.stderr)
        assert schema.revision(database) == BEFORE, point
        assert rows(database) == before, point
    schema.upgrade(database)
    assert INDEX in indexes(database)


def test_the_index_is_of_seats_with_an_owner_alone(old: Old) -> None:
    """A seat of nobody's takes no room in it."""
    database = old("0004_conversation")
    schema.upgrade(database)

    def look(db: Connection) -> str:
        if db.dialect.name == "sqlite":
            sql = "SELECT sql FROM sqlite_master WHERE name = :name"
        else:
            sql = "SELECT indexdef FROM pg_catalog.pg_indexes WHERE indexname = :name"
        return str(db.execute(text(sql), {"name": INDEX}).scalar_one())

    assert "owner IS NOT NULL" in database.read(look)

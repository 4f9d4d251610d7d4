"""Revision 0004 with data: each state is kept and found again, down and up, and a killed upgrade changes nothing."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, MetaData, inspect, text

from roleplay import Endpoint, Roleplay, StoreError
from roleplay.store.access import schema
from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel
from tests.support.postgres import PostgresServer

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODEL = Endpoint("MiniMax-M2.7")
BEFORE = "0003"
#: Of a path state that is one of several seats' here, and of one that is damaged.
SEVERAL = '{"1":[7,"front","settings"],"3":[9,"other","others","keep-a:0:1"]}'
Old = Callable[[str], Database]

pytestmark = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")


def kept_until(revision: str) -> list[str]:
    """Name the kept databases whose schema is of a revision or an earlier one."""
    found = []
    for path in sorted(FIXTURES.glob("*.db")):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            if db.execute(f"SELECT version_num FROM {schema.VERSION_TABLE}").fetchone()[0] <= revision:
                found.append(path.stem)
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    """Opens what a kept database holds, as it was before this revision, in a database of each kind in turn."""
    with opened_before(BEFORE, request, tmp_path) as open_it:
        yield open_it


@contextmanager
def opened_before(revision: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    """Give what opens a kept database at an earlier revision, in a database of the kind that is asked for."""
    opened: list[Database] = []

    def open_it(name: str) -> Database:
        shutil.copy(FIXTURES / f"{name}.db", tmp_path / "old.db")
        found = Database.open(f"sqlite:///{tmp_path / 'old.db'}")
        opened.append(found)
        to_revision(found, revision)
        if request.param == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            other = Database.open(server.create())
            opened.append(other)
            to_revision(other, revision)
            pour(found, other)
            found = other
        return found

    yield open_it
    for one in opened:
        one.close()


def to_revision(database: Database, revision: str) -> None:
    """Upgrade to a revision that is not the last."""

    def work(db: Connection) -> None:
        config = schema.alembic_config()
        config.attributes["connection"] = db
        command.upgrade(config, revision)

    database.migrate(work)


def pour(source: Database, target: Database) -> None:
    """Copy all rows from one database into another of the same revision."""
    metadata = MetaData()
    source.read(lambda db: metadata.reflect(db, only=lambda name, _: name.startswith("roleplay_")))
    tables = [one for one in metadata.sorted_tables if one.name != schema.VERSION_TABLE]
    rows = {one.name: source.read(lambda db, one=one: db.execute(one.select()).mappings().all()) for one in tables}

    def work(db: Connection) -> None:
        db.execute(text("SET LOCAL session_replication_role = replica"))
        for one in tables:
            values = [{name: moved(value) for name, value in row.items()} for row in rows[one.name]]
            if values:
                db.execute(one.insert(), values)

    target.write(work)


def moved(value: Any) -> Any:
    """A value of SQLite, which keeps moments in UTC without saying so."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def rows(database: Database) -> dict[str, list[str]]:
    """Every row of our tables, column by column."""

    def look(db: Connection) -> dict[str, list[str]]:
        found = {}
        for name in inspect(db).get_table_names():
            if name.startswith("roleplay_"):
                values = db.execute(text(f"SELECT * FROM {name}")).mappings().all()
                found[name] = sorted(repr(sorted(one.items())) for one in values)
        return found

    return database.read(look)


def change(database: Database, sql: str, **values: Any) -> None:
    database.write(lambda db: db.execute(text(sql), values))


def handed_on_before(database: Database) -> dict[tuple[str, int], dict[str, list[Any]]]:
    """What each turn hands on, by seat, as it was stored before."""
    sql = """SELECT t.session_id, t.seq, p.state FROM roleplay_turns t LEFT JOIN roleplay_path_states p
    ON p.session_id = t.session_id AND p.seq = t.state_seq"""
    found = database.read(lambda db: db.execute(text(sql)).all())
    return {(session_id, seq): json.loads(state or "{}") for session_id, seq, state in found}


def handed_on(database: Database) -> dict[tuple[str, int], dict[str, list[Any]]]:
    """What each turn hands on, by seat, in the same words."""
    states = {
        (one.session_id, one.seat, one.seq): json.loads(one.state)
        for one in database.read(lambda db: db.execute(text("SELECT * FROM roleplay_path_states")).all())
    }
    turns = database.read(lambda db: db.execute(text("SELECT session_id, seq, states FROM roleplay_turns")).all())
    return {
        (session_id, seq): {
            seat: in_order(states[session_id, int(seat), writer]) for seat, writer in json.loads(named or "{}").items()
        }
        for session_id, seq, named in turns
    }


def in_order(state: dict[str, Any]) -> list[Any]:
    whole = {"window_start": 0} | state
    return [whole[name] for name in ("window_start", "front", "settings", "examples") if name in whole]


@pytest.mark.parametrize("name", kept_until(BEFORE))
def test_every_state_is_kept(old: Old, name: str) -> None:
    """Each turn hands on what it did; every request is rebuilt, each session goes on; down again, every row is as it
    was, and up again as after the first time."""
    database = old(name)
    before, states = rows(database), handed_on_before(database)
    assert any(states.values())
    schema.upgrade(database)
    assert schema.revision(database) == schema.HEAD
    assert handed_on(database) == states
    after = rows(database)
    schema.downgrade(database, BEFORE)
    assert rows(database) == before
    schema.upgrade(database)
    assert rows(database) == after
    url = database.engine.url.render_as_string(hide_password=False)
    with Roleplay.open(url, model=MODEL, chat=ScriptedModel()) as rp:
        assert rp.doctor() == []
        assert list(rp.replay.verify())
        for info in rp.sessions.list():
            assert rp.sessions.get(info.id).send("Still there?").reply
        assert rp.doctor() == []


def test_states_of_several_seats_and_damaged_ones(old: Old) -> None:
    """A state of several seats is split, and gathered again; what cannot be read stays, and the doctor tells of it."""
    database = old("0003_conversation")
    [session_id, other] = database.read(
        lambda db: db.execute(text("SELECT DISTINCT session_id FROM roleplay_path_states ORDER BY 1")).scalars().all()
    )
    damage = "UPDATE roleplay_path_states SET state = :state WHERE session_id = :session"
    change(database, damage, state=SEVERAL, session=session_id)
    change(database, damage, state="{", session=other)
    before, states = rows(database), handed_on_before_of(database, session_id)
    schema.upgrade(database)
    found = {place: state for place, state in by_seat(database).items() if place[0] == session_id}
    assert {seat for _, _, seat in found} == {1, 3}
    assert {state["window_start"] for (_, _, seat), state in found.items() if seat == 3} == {9}
    assert states == {turn: json.loads(SEVERAL) if state else {} for turn, state in states.items()}
    with Roleplay(database, ScriptedModel(), endpoint=MODEL) as rp:
        kinds = {(one.session_id, one.kind, one.mendable) for one in rp.doctor()}
        assert (other, "unreadable path state", True) in kinds
    schema.downgrade(database, BEFORE)
    assert rows(database) == before


def handed_on_before_of(database: Database, session_id: str) -> dict[tuple[str, int], dict[str, list[Any]]]:
    sql = """SELECT t.session_id, t.seq, p.state FROM roleplay_turns t LEFT JOIN roleplay_path_states p
    ON p.session_id = t.session_id AND p.seq = t.state_seq WHERE t.session_id = :session"""
    found = database.read(lambda db: db.execute(text(sql), {"session": session_id}).all())
    return {(one, seq): json.loads(state or "{}") for one, seq, state in found}


def by_seat(database: Database) -> dict[tuple[str, int, int], Any]:
    sql = "SELECT session_id, seq, seat, state FROM roleplay_path_states WHERE state <> '{'"
    found = database.read(lambda db: db.execute(text(sql)).all())
    return {(one.session_id, one.seq, one.seat): json.loads(one.state) for one in found}


KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from roleplay.store.access import schema
from roleplay.store.access.database import Database
point = sys.argv[2]
def look(_c, _cursor, sql, *_rest):
    if point in sql:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, "after_cursor_execute", look)
schema.upgrade(Database.open(sys.argv[1]))
"""
POINTS = {
    "sqlite": (
        "INSERT INTO roleplay_path_states",
        "DROP TABLE roleplay_turns",
        "RENAME TO roleplay_turns",
        "ADD COLUMN draws",
    ),
    "postgresql": ("DROP TABLE roleplay_path_states_old", "UPDATE roleplay_turns", "DROP COLUMN state_seq"),
}


def test_a_killed_upgrade_changes_nothing(old: Old) -> None:
    """Wherever its process is killed, also right before the commit, all is as it was, and the next one succeeds."""
    database = old("0003_conversation")
    before = rows(database)
    url = database.engine.url.render_as_string(hide_password=False)
    for point in (*POINTS[database.dialect], f"UPDATE {schema.VERSION_TABLE}"):
        database.engine.dispose()
        done = subprocess.run([sys.executable, "-c", KILLED, url, point], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, (point, done.stderr)
        assert schema.revision(database) == BEFORE, point
        assert rows(database) == before, point
    schema.upgrade(database)
    assert handed_on(database)


def test_links_are_followed_again(old: Old) -> None:
    """An upgrade leaves no connection behind on which SQLite follows no foreign key, and loses no row that others
    refer to; under a connection that follows them the revision refuses to begin."""
    database = old("0003_conversation")

    def as_others_would(db: Connection) -> None:
        config = schema.alembic_config()
        config.attributes["connection"] = db
        command.upgrade(config, schema.HEAD)

    before = rows(database)
    if database.dialect == "sqlite":
        with pytest.raises(RuntimeError, match="foreign_keys = OFF"):
            database.write(as_others_would)
        assert rows(database) == before
    to_revision(database, "0004")
    after = rows(database)
    kept = set(before) - {"roleplay_path_states", "roleplay_turns", "roleplay_messages", "roleplay_model_calls"}
    assert {name: after[name] for name in kept - {schema.VERSION_TABLE}} == {
        name: before[name] for name in kept - {schema.VERSION_TABLE}
    }
    assert all(len(after[name]) == len(before[name]) for name in before)
    for _ in range(3):
        with pytest.raises(StoreError):
            change(database, "UPDATE roleplay_turns SET speaker = 99")

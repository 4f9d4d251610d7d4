"""Rows that are lost or hold nonsense: no door lets a raw exception out, and the doctor calls no such database healthy.

SQLite alone lets a row be damaged like this; on PostgreSQL the types and constraints stand before it.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from roleplay import (
    ChatError,
    ChatQuotaError,
    ChatSession,
    Persona,
    Roleplay,
    RoleplayError,
    StoreError,
    Turn,
    TurnOptions,
)
from roleplay.store.access.tables import Base
from roleplay.testing import ScriptedModel

MODEL = "MiniMax-M2.7"
#: What a driver, a disk or a hand may leave in a column of numbers or moments, and in one of texts.
NUMBERS, TEXTS = ("99", "'{'"), ("'{'", "x'00ff'")
ROWS_LOST = 3
#: These tell of a call whose rows do not give the request that was sent, which is not looked for by the doctor.
VERIFYING = {"verify"}


class Lived:
    """A database with one session of some past, and its rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        model = ScriptedModel(*["I see. " * 9] * 4, ChatQuotaError("no"), "As I was saying, " * 9, "And so on.")
        with Roleplay.open(f"sqlite:///{path}", model=MODEL, chat=model) as rp:
            persona = Persona(
                "Hua Tuo",
                "A surgeon.",
                key="hua",
                greetings=["Come in.", "Sit."],
                examples=["{{user}}: Deep?\n{{char}}: Hm."],
            )
            session = rp.sessions.create(cast=[rp.personas.put(persona)], scene="A tent", metadata={"bed": 4})
            self.session_id = session.id
            turns = [
                session.send(f"It hurts {number}.", options=TurnOptions(metadata={"n": number})) for number in range(3)
            ]
            list(session.regenerate())
            session.tree.edit(turns[1].id, "Let me look.")
            session.tree.choose(turns[2].id)
            with pytest.raises(ChatError):
                session.send("Here.")
            with session.stream("And there.") as reply:
                next(iter(reply))
            session.send("Well?")
            session.tree.undo()
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            tables = [name for name in Base.metadata.tables if "alembic" not in name]
            self.columns = {
                name: [(row[1], row[2]) for row in db.execute(f"PRAGMA table_info({name})") if row[1] != "tenant"]
                for name in tables
            }
            self.rows = {name: [row[0] for row in db.execute(f"SELECT rowid FROM {name}")] for name in tables}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """A database to damage copies of."""
    return Lived(tmp_path_factory.mktemp("lived") / "chats.db")


@contextmanager
def damaged(lived: Lived, statement: str) -> Iterator[Roleplay | None]:
    """An engine on a damaged copy, or nothing where SQLite would not have it."""
    copy = lived.path.with_name("copy.db")
    for one in lived.path.parent.glob("copy.db*"):
        one.unlink()
    shutil.copy(lived.path, copy)
    try:
        with closing(sqlite3.connect(copy)) as db, db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            if not db.execute(statement).rowcount:
                yield None
                return
    except sqlite3.IntegrityError:
        yield None
        return
    with Roleplay.open(f"sqlite:///{copy}", model=MODEL, chat=ScriptedModel()) as rp:
        engine = rp._runtime.database.engine
        event.listen(engine, "connect", lambda driver, _record: driver.execute("PRAGMA synchronous = OFF"))
        engine.dispose()  # the power does not fail here, and there are hundreds of copies
        yield rp


def whole(stream: Any) -> None:
    """Take a stream to its end."""
    with stream:
        list(stream)


def each_turn(session: ChatSession, door: Callable[[Turn], object]) -> None:
    """Knock for the last turns of the path."""
    for turn in session.turns().items[-2:]:
        door(turn)


#: In this order: what reads, and then what writes.
DOORS: dict[str, Callable[[Roleplay, ChatSession], object]] = {
    "sessions": lambda rp, _: rp.sessions.list(),
    "personas": lambda rp, _: [rp.personas.versions(one.id) for one in rp.personas.list()],
    "usage": lambda rp, _: rp.usage.report(by="day"),
    "verify": lambda rp, _: list(rp.replay.verify()),
    "info": lambda _, session: session.info(),
    "turns": lambda _, session: session.turns(),
    "iter_turns": lambda _, session: list(session.iter_turns()),
    "turn": lambda _, session: [session.turn(seq) for seq in range(1, 8)],
    "branches": lambda _, session: session.tree.branches(),
    "variants": lambda _, session: each_turn(session, lambda turn: session.tree.variants(turn.id)),
    "verdicts": lambda _, session: each_turn(session, lambda turn: session.verdicts(turn.id)),
    "follow": lambda _, session: each_turn(session, lambda turn: whole(session.follow(turn.id))),
    "preview": lambda _, session: session.preview("And now?"),
    "recover": lambda rp, _: rp.recover(),
    "send": lambda _, session: session.send("And now?"),
    "regenerate": lambda _, session: whole(session.regenerate()),
    "undo": lambda _, session: session.tree.undo(),
    "retry": lambda _, session: whole(session.retry()),
    "resume": lambda _, session: whole(session.resume()),
    "edit": lambda _, session: each_turn(session, lambda turn: session.tree.edit(turn.id, "Or so.")),
    "hide": lambda _, session: each_turn(session, lambda turn: session.tree.hide(turn.id)),
    "rewind": lambda _, session: session.tree.rewind(),
    "add": lambda _, session: session.add("A dog barks.", speaker="narrator"),
    "update": lambda _, session: session.update(scene="A hall"),
}


def knock(rp: Roleplay, session_id: str) -> dict[str, Exception]:
    """Try every door; gives the errors of those that do not open."""
    told: dict[str, Exception] = {}
    try:
        session = rp.sessions.get(session_id)
    except RoleplayError as error:
        return {"get": error}
    for name, door in DOORS.items():
        try:
            door(rp, session)
        except Exception as error:  # noqa: BLE001 - which is what is looked at
            told[name] = error
    return told


MENDED = (
    "DELETE FROM roleplay_path_states",
    "UPDATE roleplay_path_states SET state = '{'",
    "UPDATE roleplay_path_states SET state = '[5]'",
    "UPDATE roleplay_sessions SET revision = 9",
    "UPDATE roleplay_sessions SET last_turn = 1",
    "UPDATE roleplay_sessions SET head_seq = 99, last_seq = 99",
    "UPDATE roleplay_turns SET reply_seq = NULL WHERE seq = 4",
    "UPDATE roleplay_turns SET reply_seq = NULL WHERE status = 'completed' AND kind = 'reply'",
    "DELETE FROM roleplay_personas",
    "UPDATE roleplay_personas SET version = 9",
)


def statements(lived: Lived, table: str) -> Iterator[str]:
    """Damages to a table: the last rows lost, one by one, and nonsense in each column of the last."""
    rows = lived.rows[table]
    for row in rows[-ROWS_LOST:]:
        yield f"DELETE FROM {table} WHERE rowid = {row}"
    for column, kind in lived.columns[table]:
        for value in TEXTS if kind.startswith(("TEXT", "VARCHAR")) else NUMBERS:
            yield f"UPDATE {table} SET {column} = {value} WHERE rowid = {max(rows, default=0)}"


def test_a_healthy_one(lived: Lived) -> None:
    """Undamaged, every door opens, or says what is not to be had."""
    with damaged(lived, "UPDATE roleplay_sessions SET version = version") as rp:
        assert rp is not None
        assert rp.doctor() == []
        assert not [error for error in knock(rp, lived.session_id).values() if isinstance(error, StoreError)]
        assert rp.doctor() == []


@pytest.mark.parametrize("table", sorted(set(Base.metadata.tables)))
def test_no_raw_exception_and_no_false_health(lived: Lived, table: str) -> None:
    """Whatever is wrong with one row, errors are ours, and where there are any, the doctor has told something."""
    raw, unseen = [], []
    for statement in statements(lived, table):
        with damaged(lived, statement) as rp:
            if rp is None:
                continue
            try:
                found = rp.doctor()
            except StoreError:
                found = None
            for door, error in knock(rp, lived.session_id).items():
                told = statement, door, repr(error)
                if not isinstance(error, RoleplayError):
                    raw.append(told)
                elif isinstance(error, StoreError) and found == [] and door not in VERIFYING:
                    unseen.append(told)
    assert not raw
    assert not unseen


@pytest.mark.parametrize("statement", MENDED)
def test_what_is_mended_is_whole(lived: Lived, statement: str) -> None:
    """A repair after which nothing is found leaves no door that fails for the database's sake."""
    with damaged(lived, statement) as rp:
        assert rp is not None
        assert rp.doctor()
        assert {one.mended for one in rp.doctor(repair=True)} == {True}
        assert rp.doctor() == []
        told = {door: error for door, error in knock(rp, lived.session_id).items() if door not in VERIFYING}
        assert not [
            one for one in told.items() if not isinstance(one[1], RoleplayError) or isinstance(one[1], StoreError)
        ]
        assert rp.doctor() == []

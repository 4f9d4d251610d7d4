"""Laws that the database itself keeps: a bad row is refused whoever writes it, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from roleplay import Checked, Endpoint, Persona, Roleplay, StoreError, Verdict
from roleplay.store.access.database import Database
from roleplay.store.access.tables import (
    Base,
    ExampleDialogueRow,
    ExampleLineRow,
    HeadMoveRow,
    MessageRow,
    ModelCallRow,
    ParticipantRevisionRow,
    ParticipantRow,
    PathStateRow,
    PersonaRow,
    PersonaVersionRow,
    PieceRow,
    SessionRevisionRow,
    SessionRow,
    TurnRow,
    VerdictRow,
    table,
)
from roleplay.testing import ScriptedModel

NOW = datetime(2026, 5, 1, tzinfo=UTC)
Row = type[Base]


class House:
    """A database with two sessions of one turn each, whose rows are copied with one thing wrong."""

    def __init__(self, rp: Roleplay) -> None:
        self.database: Database = rp._runtime.database
        nova = rp.personas.put(Persona("Nova", greetings=["Welcome."], examples=["{{char}}: Aye."], key="nova"))
        self.persona_id = nova.id
        self.first, self.second = (rp.sessions.create(cast=[nova]) for _ in range(2))
        for session in (self.first, self.second):
            session.send("Where to?")
        rp._remember()

    @cached_property
    def rows(self) -> dict[Row, dict[str, Any]]:
        """The last row of each table, in the first session where it has sessions, as it was at first."""
        kinds: list[Row] = [one.class_ for one in Base.registry.mappers]
        return {kind: self.row(kind) for kind in kinds}

    def row(self, kind: Row, /) -> dict[str, Any]:
        """The last row of a table as it is now."""
        columns = table(kind).c
        statement = select(table(kind)).where(columns.tenant == "default")
        if "session_id" in columns:
            statement = statement.where(columns.session_id == self.first.id)
        if kind is SessionRow:
            statement = statement.where(columns.id == self.first.id)
        rows = self.database.read(lambda db: db.execute(statement.order_by(*table(kind).primary_key)).mappings().all())
        return dict(rows[-1])

    def add(self, kind: Row, /, **changes: Any) -> None:
        """Add a copy of the last row with changes."""
        row = self.rows[kind] | changes
        self.database.write(lambda db: db.execute(insert(table(kind)), row))

    def change(self, kind: Row, /, **changes: Any) -> None:
        """Change the last row."""
        row = self.rows[kind]
        keys = [column.name for column in table(kind).primary_key]

        def work(db: Connection) -> None:
            statement = update(table(kind)).where(table(kind).c.tenant == "default")
            for name in keys:
                statement = statement.where(table(kind).c[name] == row[name])
            assert db.execute(statement.values(**changes)).rowcount == 1

        self.database.write(work)

    def count(self, kind: Row, /) -> int:
        """How many rows a table has."""
        return len(self.database.read(lambda db: db.execute(select(table(kind).c.tenant)).all()))


@pytest.fixture
def house(database_url: str, scripted: Callable[..., ScriptedModel]) -> Iterator[House]:
    """Two sessions on each database in turn."""

    def guard(what: Checked) -> Verdict | None:
        return Verdict.replace("Where?") if what.side == "human" else None

    model = Endpoint("MiniMax-M2.7")
    with Roleplay.open(database_url, model=model, chat=scripted(), guards=[guard]) as rp:
        yield House(rp)


TURN = {"seq": 3, "id": "turn-3", "parent_turn": 2, "states": None, "from_head": 3}
LIVE: dict[str, Any] = TURN | {
    "status": "pending",
    "lease_owner": "me",
    "lease_until": NOW + timedelta(minutes=5),
    "ended_at": None,
    "moves_head": True,
}
MESSAGE = {"seq": 4, "parent_seq": 3, "depth": 4, "human_ordinal": 2, "model_ordinal": 2, "role": "user", "seat": 2}
CALL = {"id": "call-2", "attempt": 2}
ALONE: dict[str, Any] = CALL | {
    "turn_seq": None,
    "total_s": None,
    "error": None,
    "lease_owner": "me",
    "lease_until": NOW + timedelta(minutes=5),
}

BAD: list[tuple[str, Row, dict[str, Any]]] = [
    # whose rows: every row of a session has the session's tenant
    *(
        (f"{kind.__tablename__} of another tenant", kind, {"tenant": "other"} | fresh)
        for kind, fresh in (
            (SessionRevisionRow, {"revision": 2}),
            (ParticipantRow, {"seat": 3}),
            (PathStateRow, {"seq": 9}),
            (TurnRow, TURN),
            (MessageRow, MESSAGE),
            (HeadMoveRow, {"version": 99}),
            (PieceRow, {"digest": "d" * 32}),
            (ModelCallRow, CALL),
            (PersonaVersionRow, {"version": 2}),
        )
    ),
    # orphans: nothing stands without what it belongs to
    *(
        (f"{kind.__tablename__} without a session", kind, {"session_id": "no-such-session"})
        for kind in (
            SessionRevisionRow,
            ParticipantRow,
            ParticipantRevisionRow,
            PathStateRow,
            TurnRow,
            MessageRow,
            HeadMoveRow,
            PieceRow,
            ModelCallRow,
        )
    ),
    ("a message without a turn", MessageRow, MESSAGE | {"turn_seq": 77}),
    ("a message of nobody", MessageRow, MESSAGE | {"seat": 9}),
    ("a message under none", MessageRow, MESSAGE | {"seq": 90, "parent_seq": 80}),
    ("a message under a later one", MessageRow, MESSAGE | {"parent_seq": 5}),
    ("a message under itself", MessageRow, MESSAGE | {"parent_seq": 4}),
    ("a message twice", MessageRow, MESSAGE | {"seq": 3, "parent_seq": 2}),
    ("a message 0", MessageRow, MESSAGE | {"seq": 0, "parent_seq": None}),
    ("a turn after none", TurnRow, TURN | {"seq": 90, "parent_turn": 80}),
    ("a turn after a later one", TurnRow, TURN | {"parent_turn": 4}),
    ("a turn after itself", TurnRow, TURN | {"parent_turn": 3}),
    ("a turn of an unknown revision", TurnRow, TURN | {"revision": 9}),
    ("a turn that nobody speaks", TurnRow, TURN | {"speaker": 9}),
    ("a turn with another's id", TurnRow, TURN | {"id": ...}),
    ("a call without a turn", ModelCallRow, CALL | {"turn_seq": 77}),
    ("a call without its front", ModelCallRow, CALL | {"front_digest": "d" * 32}),
    ("a call for the same attempt", ModelCallRow, CALL | {"attempt": 1}),
    ("an attempt 0", ModelCallRow, CALL | {"attempt": 0}),
    ("a call of a turn with an owner of its own", ModelCallRow, CALL | {"lease_owner": "me"}),
    ("a call of a turn with a lease of its own", ModelCallRow, CALL | {"lease_until": NOW}),
    ("a call in flight that nobody holds", ModelCallRow, ALONE | {"lease_owner": None}),
    ("a call in flight without a lease", ModelCallRow, ALONE | {"lease_until": None}),
    ("a head move to nowhere", HeadMoveRow, {"version": 99, "to_seq": 77}),
    ("a head move from nowhere", HeadMoveRow, {"version": 99, "from_seq": 77}),
    ("two head moves of one version", HeadMoveRow, {}),
    ("a seat revision without a seat", ParticipantRevisionRow, {"seat": 9}),
    ("a seat revision without a revision", ParticipantRevisionRow, {"revision": 9}),
    ("an example of no version", ExampleDialogueRow, {"version": 9}),
    ("an example line of no dialogue", ExampleLineRow, {"dialogue": 9}),
    ("a version of no persona", PersonaVersionRow, {"persona_id": "x"}),
    ("a persona's key twice", PersonaRow, {"id": "x"}),
    # unknown words
    ("an unknown status", TurnRow, TURN | {"status": "done"}),
    ("an unknown kind", TurnRow, TURN | {"kind": "joke"}),
    ("an unknown role", MessageRow, MESSAGE | {"role": "system"}),
    ("an unknown player", ParticipantRow, {"seat": 3, "played_by": "ghost"}),
    ("a verdict of nobody's turn", VerdictRow, {"turn_seq": 77}),
    ("a verdict on an unknown side", VerdictRow, {"ordinal": 2, "side": "other"}),
    ("a verdict to allow", VerdictRow, {"ordinal": 2, "action": "allow"}),
    ("an unknown cause", HeadMoveRow, {"version": 99, "cause": "boredom"}),
    # numbers
    ("negative tokens", MessageRow, MESSAGE | {"tokens": -1}),
    ("ordinals that do not add up", MessageRow, MESSAGE | {"depth": 5}),
    ("version 0 of a persona", PersonaVersionRow, {"version": 0}),
    ("revision 0", SessionRevisionRow, {"revision": 0}),
    ("seat 0", ParticipantRow, {"seat": 0}),
    ("attempt 0", TurnRow, TURN | {"attempt": 0}),
    ("ordinal 0", TurnRow, TURN | {"ordinal": 0}),
    ("a path state over 8 KB", PathStateRow, {"seq": 9, "state": "x" * 8193}),
    ("a path state of nobody", PathStateRow, {"seat": -1}),
    ("a path state twice", PathStateRow, {}),
    # the course of a turn
    ("a completed reply without its message's place", TurnRow, TURN | {"reply_seq": None}),
    ("a turn in flight that has ended", TurnRow, LIVE | {"ended_at": NOW}),
    ("a turn in flight that nobody holds", TurnRow, LIVE | {"lease_owner": None}),
    ("an ended turn without its end", TurnRow, TURN | {"ended_at": None}),
    ("a key without what was asked", TurnRow, TURN | {"idempotency_key": "k", "body_digest": None}),
    ("what was asked without a key", TurnRow, TURN | {"idempotency_key": None, "body_digest": "d" * 64}),
]


def refused(house: House, kind: Row, write: Callable[[], None]) -> str:
    """Which law refuses a row (unique, foreign key, check), leaving the table as it was; nothing when none does."""
    before = house.count(kind)
    try:
        write()
    except StoreError as error:
        assert isinstance(error.__cause__, IntegrityError)
        assert house.count(kind) == before
        return next(law for law in ("unique", "foreign key", "check") if law in str(error).lower())
    return ""


def test_bad_rows_are_refused(house: House) -> None:
    """The database refuses each of these rows, and its table is as it was."""
    missing = []
    for what, kind, changes in BAD:
        kept = {name: value for name, value in changes.items() if value is not ...}
        law = refused(house, kind, lambda kind=kind, kept=kept: house.add(kind, **kept))  # type: ignore[misc]
        if not law or (law == "unique") != (what in TWICE):
            missing.append((what, law))
    assert not missing


def test_good_rows_are_taken(house: House) -> None:
    """The rows that the bad ones are made from are refused for nothing else."""
    house.add(SessionRevisionRow, revision=2)
    house.add(ParticipantRow, seat=3)
    house.add(ParticipantRevisionRow, seat=3, revision=1, persona_id=None, persona_version=None)
    house.add(PathStateRow, seq=9, state="x" * 8192)
    house.add(PathStateRow, seat=0)
    house.add(TurnRow, **TURN)
    house.add(MessageRow, **MESSAGE)
    house.add(ModelCallRow, **CALL)
    house.add(ModelCallRow, **CALL | {"id": "call-3", "purpose": "another"})
    house.add(ModelCallRow, **ALONE | {"id": "call-4"})
    house.add(ModelCallRow, **ALONE | {"id": "call-5", "lease_until": None, "error": "{}"})
    house.add(VerdictRow, ordinal=2)
    house.add(HeadMoveRow, version=99)
    house.add(PieceRow, digest="d" * 32)
    house.add(PersonaVersionRow, version=2)
    house.add(ExampleDialogueRow, ordinal=2)
    house.add(ExampleLineRow, ordinal=2)
    house.add(PersonaRow, id="x", key=None)
    house.add(PersonaRow, id="y", tenant="other")


def test_one_turn_in_flight_on_a_head(house: House) -> None:
    """A second turn in flight on the same head is refused, at the root too; on another head or session it is not."""
    for head in (3, None):
        seq = 10 if head else 20
        house.add(TurnRow, **LIVE | {"seq": seq, "id": f"t{seq}", "from_head": head})
        for status in ("pending", "streaming"):
            with pytest.raises(StoreError):
                house.add(TurnRow, **LIVE | {"seq": seq + 1, "id": f"t{seq + 1}", "from_head": head, "status": status})
        house.add(TurnRow, **TURN | {"seq": seq + 2, "id": f"t{seq + 2}", "from_head": head})
        house.add(TurnRow, **LIVE | {"seq": seq + 3, "id": f"t{seq + 3}", "from_head": head, "moves_head": False})
    house.add(TurnRow, **LIVE | {"seq": 30, "id": "t30", "from_head": 2})
    house.add(TurnRow, **LIVE | {"session_id": house.second.id})


def test_an_idempotency_key_is_used_once(house: House) -> None:
    """A key names one turn of a round in a session; another session may use it too."""
    keyed = TURN | {"idempotency_key": "k", "body_digest": "d" * 64}
    house.add(TurnRow, **keyed)
    with pytest.raises(StoreError):
        house.add(TurnRow, **keyed | {"seq": 4, "id": "t4"})
    house.add(TurnRow, **keyed | {"seq": 5, "id": "t5", "ordinal": 2})
    house.add(TurnRow, **keyed | {"session_id": house.second.id})


CHANGES: list[tuple[Row, dict[str, Any]]] = [
    (SessionRow, {"version": 0}),
    (SessionRow, {"revision": 0}),
    (SessionRow, {"last_seq": -1}),
    (SessionRow, {"last_turn": -1}),
    (SessionRow, {"head_seq": 99}),
    (SessionRow, {"tenant": "other"}),
    (TurnRow, {"status": "pending"}),
    (TurnRow, {"status": "unknown"}),
    (TurnRow, {"reply_seq": None}),
    (TurnRow, {"ended_at": None}),
    (TurnRow, {"parent_turn": 2}),
    (TurnRow, {"seq": 99}),
    (MessageRow, {"parent_seq": 3}),
    (MessageRow, {"tokens": -1}),
    (MessageRow, {"turn_seq": 99}),
    (MessageRow, {"seq": 99}),
    (PathStateRow, {"state": "x" * 8193}),
    (PathStateRow, {"seat": -1}),
    (PersonaRow, {"version": 0}),
    (PersonaRow, {"tenant": "other"}),
    (PersonaVersionRow, {"version": 9}),
    (ParticipantRow, {"seat": 9}),
    (ParticipantRevisionRow, {"tenant": "other"}),
    (ParticipantRevisionRow, {"persona_id": "x", "persona_version": 1}),
    (ParticipantRevisionRow, {"persona_version": 1}),
]
TWICE = {
    "a message twice",
    "a turn with another's id",
    "a call for the same attempt",
    "two head moves of one version",
    "a path state twice",
    "a persona's key twice",
}


def test_bad_changes_are_refused(house: House) -> None:
    """No row can be changed into one that would not be taken, nor away from what stands on it."""
    missing = []
    for kind, changes in CHANGES:
        before = house.row(kind)
        law = refused(house, kind, lambda kind=kind, changes=changes: house.change(kind, **changes))  # type: ignore[misc]
        if not law or house.row(kind) != before:
            missing.append((kind.__name__, changes))
    assert not missing


def test_what_others_stand_on_stays(house: House) -> None:
    """A row that others need cannot be removed alone."""
    for kind in (MessageRow, SessionRevisionRow, ParticipantRow, PieceRow, PersonaVersionRow):
        columns = table(kind).c
        statement = delete(table(kind)).where(columns.tenant == "default")
        if kind is MessageRow:
            statement = statement.where(columns.seq == 1)
        before = house.count(kind)
        with pytest.raises(StoreError):
            house.database.write(lambda db, statement=statement: db.execute(statement))
        assert house.count(kind) == before


def test_a_session_goes_whole(house: House) -> None:
    """Removing a session removes every row of it, and none of another's."""
    sessions = table(SessionRow)
    house.database.write(
        lambda db: db.execute(delete(sessions).where(sessions.c.id == house.first.id, sessions.c.tenant == "default"))
    )

    def left(db: Connection) -> dict[str, set[str]]:
        of_sessions = [one for one in Base.metadata.sorted_tables if "session_id" in one.c]
        return {one.name: {row[0] for row in db.execute(select(one.c.session_id, one.c.tenant))} for one in of_sessions}

    found = house.database.read(left)
    assert len(found) >= 9
    assert all(ids == {house.second.id} for ids in found.values()), found


def test_equal_ids_in_two_sessions_do_not_meet(house: House) -> None:
    """Numbers and ids are a session's own: the same in another session is another row."""
    house.add(TurnRow, **TURN | {"session_id": house.second.id, "id": house.rows[TurnRow]["id"]})
    house.add(ModelCallRow, **CALL | {"id": house.rows[ModelCallRow]["id"], "session_id": house.second.id})

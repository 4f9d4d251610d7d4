"""Erasure: what is meant goes from every table and, on SQLite, from every byte of the files; nothing else does."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import roleplay
from roleplay import (
    ConflictError,
    Counts,
    Endpoint,
    ExampleDialogue,
    InvalidInputError,
    NotFoundError,
    Persona,
    Roleplay,
    SessionSettings,
    TurnOptions,
)
from roleplay.operations import erasure as operation
from roleplay.store.access import database as stored
from roleplay.store.access.database import Database
from roleplay.store.access.tables import Base
from roleplay.store.upkeep import erasure
from roleplay.testing import ScriptedModel
from tests.support import files, shells

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
MARK = "XyzzyPlugh"
# What was learned of models' tokens says nothing of anybody.
TABLES = sorted(Base.metadata.tables.keys() - {"roleplay_calibrations"})
EXAMPLES = [ExampleDialogue.parse("{{user}}: Who?\n{{char}}: Me.")]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NOVA = Counts(personas=1, persona_versions=2, example_dialogues=2, example_lines=4)


class House:
    """A tenant with sessions of two owners, in a database that a second tenant uses in the same way."""

    def __init__(self, url: str, rp: Any, database: Database) -> None:
        self.url, self.rp, self.database = url, rp, database
        self.one = Counts()  # what a session of ``session`` is made of, as it was counted beside
        rp.personas.put(Persona("Nova", "A pilot.", key="nova", greetings=["Hm?", "Yes?"], examples=EXAMPLES))
        self.nova = rp.personas.put(
            Persona("Nova", "A calm pilot.", key="nova", greetings=["Hm?", "Yes?"], examples=EXAMPLES)
        )
        self.ben = rp.personas.put(Persona("Ben", "A mechanic.", key="ben"))

    def session(self, owner: str | None = None, *, spoken: bool = True, cast: Any = None) -> Any:
        """A session in which somebody spoke."""
        one = self.rp.sessions.create(cast=[cast or self.nova], user=self.ben if cast is None else None, owner=owner)
        if spoken:
            one.send("Well?")
        return one

    def rows(self, tenant: str = "default") -> dict[str, int]:
        """How many rows of a tenant are in each table."""
        sql = "SELECT count(*) FROM {} WHERE tenant = :tenant"
        return self.database.read(
            lambda db: {name: db.execute(text(sql.format(name)), {"tenant": tenant}).scalar_one() for name in TABLES}
        )

    def sessions(self) -> set[str]:
        """The ids of the sessions that are there."""
        return {one.id for one in self.rp.sessions.list()}


def lost(before: dict[str, int], after: dict[str, int]) -> Counts:
    """How many of each went between two counts of rows."""
    counted: dict[str, int] = {}
    for row, name in (*erasure.OF_SESSION, *erasure.OF_PERSONA):
        rows = before[row.__tablename__] - after[row.__tablename__]
        counted[name] = counted.get(name, 0) + rows
    return Counts(**counted)


@pytest.fixture
def house(database_url: str, scripted: Scripted) -> Iterator[House]:
    """A house of each kind; the tenant beside it has lost nothing at the end, and nothing is damaged."""
    model = scripted()
    with roleplay.Roleplay.open(database_url, model=MODEL, chat=model, migrate="auto") as blocking:
        database = blocking._runtime.database
        beside = House(database_url, Roleplay(database, model, endpoint=MODEL, tenant="beside"), database)
        empty = beside.rows("beside")
        beside.session("anna")
        had = beside.rows("beside")
        with shells.Roleplay.open(database_url, model=MODEL, chat=model) as rp:
            house = House(database_url, rp, database)
            house.one = lost(had, empty)
            assert (house.one.sessions, house.one.turns, house.one.messages, house.one.model_calls) == (1, 3, 4, 1)
            yield house
            assert list(rp.doctor()) == []
        assert beside.rows("beside") == had
        assert list(beside.rp.doctor()) == []


def test_every_table_is_erased() -> None:
    """No table of the schema is forgotten, and each is deleted before those that its rows point to."""
    order = [row.__tablename__ for row, _ in (*erasure.OF_SESSION, *erasure.OF_PERSONA)]
    assert sorted(order) == TABLES
    for number, name in enumerate(order):
        for link in Base.metadata.tables[name].foreign_key_constraints:
            assert order.index(link.referred_table.name) >= number


def test_an_owner_is_erased(house: House) -> None:
    """All sessions of the owner go, those of others stay, and the receipt counts every row."""
    kept = [house.session("ben"), house.session()]
    before = house.rows()
    for _ in range(2):
        house.session("anna")
    receipt = house.rp.erase(owner="anna")
    assert receipt.erased == house.one.plus(house.one)
    assert (receipt.dry_run, receipt.files) == (False, "wiped" if "sqlite" in house.url else None)
    assert house.rows() == before
    assert house.sessions() == {one.id for one in kept}
    assert receipt.not_ours[0] == "what api.minimax.io keeps of the requests that it was sent"
    assert not {"anna", "Nova", "Well?"} & set(receipt.model_dump_json().split('"'))
    assert kept[0].send("Still there?").reply


def test_an_owner_is_erased_twice(house: House) -> None:
    """The second time there is nothing, which is no error: a job may be run again."""
    house.session("anna")
    assert house.rp.erase(owner="anna").erased == house.one
    again = house.rp.erase(owner="anna")
    assert again.erased == Counts()
    assert again.files == ("wiped" if "sqlite" in house.url else None)


def test_a_session_is_erased(house: House) -> None:
    """It is not found afterwards, by handle or id, and this engine keeps nothing of it in memory."""
    one, other = house.session("anna"), house.session("anna")
    assert house.rp.erase(session=one.id).erased == house.one
    assert house.sessions() == {other.id}
    for work in (lambda: one.send("Hm?"), one.info, one.turns, lambda: house.rp.sessions.get(one.id)):
        with pytest.raises(NotFoundError):
            work()
    with pytest.raises(NotFoundError):
        house.rp.erase(session=one.id)
    scope = house.rp._scope
    assert not [key for key in (*scope.rendered, *scope.last_spoke) if one.id in key]
    assert [key for key in scope.rendered if other.id in key]


def test_a_beginning_of_an_id_erases_nothing(house: House) -> None:
    """Who erases names the whole thing."""
    one = house.session()
    for wrong in ({"session": one.id[:8]}, {"persona": house.nova.id[:8]}):
        with pytest.raises(NotFoundError):
            house.rp.erase(**wrong)
    assert house.sessions() == {one.id}


def test_another_tenants_things_are_not_found(house: House) -> None:
    """Its ids erase nothing here, and its owners and keys are other people's."""
    sql = "SELECT id FROM roleplay_{} WHERE tenant = 'beside'"
    session_id, persona_id = (
        house.database.read(lambda db, name=name: db.execute(text(sql.format(name))).scalars().first())
        for name in ("sessions", "personas")
    )
    with pytest.raises(NotFoundError):
        house.rp.erase(session=session_id)
    with pytest.raises(NotFoundError):
        house.rp.erase(persona=persona_id, cascade=True)
    assert house.rp.erase(owner="anna").erased == Counts()
    assert house.rp.erase(persona="nova", cascade=True).erased == NOVA
    assert house.rp.erase(idle_since=datetime.now(UTC) + timedelta(days=1)).erased == Counts()


def test_a_pinned_persona_stays(house: House) -> None:
    """It is refused with the number of its sessions, played by the model or a human; nothing is written."""
    for _ in range(2):
        house.session("anna")
    before = house.rows()
    for name in ("nova", "ben", house.nova.id):
        for dry_run in (True, False):
            with pytest.raises(InvalidInputError, match=r"persona: 2 sessions pin it .*cascade"):
                house.rp.erase(persona=name, dry_run=dry_run)
    house.session("anna", cast=house.ben)
    with pytest.raises(InvalidInputError, match="3 sessions"):
        house.rp.erase(persona="ben")
    house.rp.erase(session=house.session(cast=house.ben).id)
    assert house.rp.erase(persona="ben", cascade=True).erased.sessions == 3
    assert house.rows()["roleplay_sessions"] == before["roleplay_sessions"] - 2


def test_a_persona_is_erased(house: House) -> None:
    """All its versions go; with ``cascade``, the sessions that pin any of them too, and no other."""
    house.session("anna")
    mechanics = house.session("anna", cast=house.ben)
    receipt = house.rp.erase(persona="nova", cascade=True)
    assert receipt.erased == house.one.plus(NOVA)
    assert house.sessions() == {mechanics.id}
    with pytest.raises(NotFoundError):
        house.rp.personas.get("nova")
    with pytest.raises(NotFoundError):
        house.rp.erase(persona="nova", cascade=True)
    house.rp.erase(session=mechanics.id)
    assert house.rp.erase(persona=house.ben.id).erased == Counts(personas=1, persona_versions=1)
    assert set(house.rows().values()) == {0}


def test_idle_sessions_are_erased(house: House) -> None:
    """Those whose last turn began before the moment; one that was never spoken in counts from its creation."""
    house.session("anna"), house.session(spoken=False)
    moment = datetime.now(UTC) + timedelta(seconds=1)
    late = house.session("anna")
    sql = "UPDATE roleplay_sessions SET last_turn_at = :at WHERE id = :id AND tenant = 'default'"
    later = (moment + timedelta(seconds=1)).replace(tzinfo=None if "sqlite" in house.url else UTC)
    house.database.write(
        lambda db: db.execute(text(sql), {"id": late.id, "at": str(later) if "sqlite" in house.url else later})
    )
    assert house.rp.erase(idle_since=LONG_AGO).erased == Counts()
    elsewhere = moment.astimezone(datetime.now().astimezone().tzinfo)
    assert house.rp.erase(idle_since=elsewhere).erased.sessions == 2
    assert house.sessions() == {late.id}


def test_what_is_used_is_not_idle(house: House) -> None:
    """Whoever speaks in a session, edits it or steps back in it uses it."""
    asleep, spoken, edited, rewound = (house.session("anna") for _ in range(4))
    long_ago = "2020-01-01 00:00:00" if "sqlite" in house.url else LONG_AGO
    sql = "UPDATE roleplay_sessions SET last_turn_at = :at WHERE tenant = 'default'"
    house.database.write(lambda db: db.execute(text(sql), {"at": long_ago}))
    spoken.send("And now?")
    *_, turn = edited.turns()
    edited.tree.edit(turn.id, "Said otherwise.")
    rewound.tree.rewind(1)
    assert house.rp.erase(idle_since=LONG_AGO + timedelta(days=365)).erased.sessions == 1
    assert house.sessions() == {spoken.id, edited.id, rewound.id}
    assert asleep.id not in house.sessions()


@pytest.mark.parametrize("by", ["owner", "session", "persona", "idle_since"])
def test_a_dry_run_writes_nothing(house: House, by: str) -> None:
    """It counts what the erasure then deletes."""
    sessions = [house.session("anna") for _ in range(3)]
    what = {"owner": "anna", "session": sessions[0].id, "persona": "nova"}.get(by, datetime.now(UTC) + timedelta(1))
    options = {by: what, "cascade": by == "persona"}
    before = house.rows()
    would = house.rp.erase(**options, dry_run=True)
    assert house.rows() == before
    assert (would.dry_run, would.files) == (True, None)
    done = house.rp.erase(**options)
    assert done.erased == would.erased
    assert done.erased == lost(before, house.rows())
    assert set(would.not_ours) <= set(done.not_ours)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"owner": "anna", "session": "x"},
        {"owner": "anna", "idle_since": LONG_AGO},
        {"owner": ""},
        {"owner": 7},
        {"session": " "},
        {"idle_since": datetime(2020, 1, 1)},  # noqa: DTZ001 - the one that is refused
        {"idle_since": "2020-01-01"},
        {"owner": "anna", "cascade": True},
    ],
)
def test_what_is_not_clear_erases_nothing(house: House, wrong: dict[str, Any]) -> None:
    """Nothing, two things, blanks, naive times and a cascade of no persona are refused."""
    one = house.session("anna")
    with pytest.raises(InvalidInputError):
        house.rp.erase(**wrong)
    assert house.sessions() == {one.id}


def test_a_running_reply_is_not_erased(house: House) -> None:
    """The refusal names the turn, and nothing is erased; the idle ones go without it; when it has ended, it may go."""
    house.session("anna")
    running = house.session("anna")
    before = house.rows()
    with running.stream("And now?") as reply:
        for what in ({"owner": "anna"}, {"session": running.id}, {"persona": "nova", "cascade": True}):
            for dry_run in (True, False):
                with pytest.raises(ConflictError, match="nothing was erased") as refused:
                    house.rp.erase(**what, dry_run=dry_run)
                assert refused.value.turn_id == reply.turn_id
        future = datetime.now(UTC) + timedelta(days=1)
        assert house.rp.erase(idle_since=future, dry_run=True).erased.sessions == 1
        assert house.rp.erase(idle_since=future).erased.sessions == 1
        assert house.sessions() == {running.id}
        list(reply)
    assert reply.turn.reply.text
    assert house.rp.erase(owner="anna").erased.sessions == 1
    assert house.rows()["roleplay_personas"] == before["roleplay_personas"]


def test_a_turn_that_nobody_holds_is_erased(house: House) -> None:
    """A turn in flight whose lease has run out, or whose process is gone, stops nobody."""
    one = house.session("anna")
    sql = """UPDATE roleplay_turns SET status = 'streaming', ended_at = NULL, lease_owner = 'another/1/1',
    lease_until = '2020-01-01 00:00:00' WHERE seq = 3 AND session_id = :id AND tenant = 'default'"""
    house.database.write(lambda db: db.execute(text(sql), {"id": one.id}))
    assert house.rp.erase(owner="anna").erased == house.one


def test_whoever_comes_late_finds_nothing(house: House) -> None:
    """An owner whose turn was erased, because its lease had run out, changes nothing any more and is told so."""
    one = house.session("anna")
    sql = """UPDATE roleplay_turns SET lease_owner = 'another/1/1', lease_until = '2020-01-01 00:00:00'
    WHERE lease_until IS NOT NULL AND tenant = 'default'"""
    with pytest.raises((ConflictError, NotFoundError)), one.stream("And now?") as reply:
        house.database.write(lambda db: db.execute(text(sql)))
        assert house.rp.erase(owner="anna").erased.sessions == 1
        list(reply)
    assert house.rows()["roleplay_messages"] == 0


def test_sessions_go_one_by_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends an erasure between or in sessions leaves whole sessions, and the next call goes on."""
    for _ in range(4):
        house.session("anna")
    delete, calls = erasure._delete, []

    def dies(db: Any, tenant: str, whose: str, rows: Any) -> Counts:
        calls.append(whose)
        if len(calls) == 3:
            delete(db, tenant, whose, rows[:3])
            raise RuntimeError("died")
        return delete(db, tenant, whose, rows)

    monkeypatch.setattr(erasure, "_delete", dies)
    with pytest.raises(RuntimeError, match="died"):
        house.rp.erase(owner="anna")
    monkeypatch.undo()
    assert len(house.sessions()) == 2
    assert list(house.rp.doctor()) == []
    for one in house.rp.sessions.list():
        assert house.rp.sessions.get(one.id).send("Still there?").reply
    assert house.rp.erase(owner="anna").erased.sessions == 2


def test_sessions_that_begin_meanwhile(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that seats the persona when its sessions have been erased goes with it; without ``cascade`` it keeps
    the persona."""
    erase_persona = operation._erase_persona

    def late(*arguments: Any, **options: Any) -> Any:
        with roleplay.Roleplay.open(house.url, model=MODEL, chat=ScriptedModel()) as rp:
            rp.sessions.create(cast=["nova"], user="ben")
        return (yield from erase_persona(*arguments, **options))

    monkeypatch.setattr(operation, "_erase_persona", late)
    with pytest.raises(InvalidInputError, match="1 session pins it"):
        house.rp.erase(persona="nova")
    house.session("anna")
    assert house.rp.erase(persona="nova", cascade=True).erased.sessions == 3
    assert house.sessions() == set()


class Marked:
    """A database in a file, in which a marker stands wherever a caller's or a model's text can."""

    def __init__(self, url: str, rp: Any, model: ScriptedModel) -> None:
        self.url, self.rp, self.model = url, rp, model

    def fill(self) -> None:
        """Speak in sessions with and without the marker, turn about, so that their rows share pages."""
        persona = Persona(
            MARK,
            f"{MARK} the pilot. " * 300,
            key=f"{MARK}-key",
            personality=MARK,
            scenario=MARK,
            greetings=[f"{MARK}?"],
            examples=[ExampleDialogue.parse(f"{{{{user}}}}: {MARK}\n{{{{char}}}}: {MARK}")],
            note=MARK,
            tags=[MARK],
            metadata={MARK: MARK},
        )
        plain = self.rp.personas.put(Persona("Ben", "The mechanic. " * 300))
        marked = self.rp.personas.put(persona)
        sessions = [
            (word, self.rp.sessions.create(cast=[cast], owner=f"{number:03} {word}", scene=word, metadata={"a": word}))
            for number in range(20)
            for word, cast in ((MARK, marked), ("Clear-----", plain))
        ]
        for round_ in range(3):
            for number, (word, session) in enumerate(sessions):
                self.model.say(f"<think>{word} thinks</think>" + f"{word} says. " * (1 + 40 * ((number + round_) % 9)))
                key = TurnOptions(idempotency_key=f"{hash((number, round_)) % 997} {word}")
                with session.stream(f"{word} asks. " * (1 + number % 7), options=key) as reply:
                    list(reply)

    def traces(self) -> int:
        """How often the marker stands in the files, byte by byte."""
        path = Path(self.url.removeprefix("sqlite:///"))
        return sum(one.read_bytes().count(MARK.encode()) for one in path.parent.glob(f"{path.name}*"))


SETTINGS = SessionSettings(budget_tokens=4000)


@pytest.fixture(scope="module")
def full(current_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A file full of markers, to be copied, and the requests that were sent to fill it."""
    path = Path(shutil.copy(current_sqlite, tmp_path_factory.mktemp("full") / "chats.db"))
    model = ScriptedModel()
    with roleplay.Roleplay.open(f"sqlite:///{path}", model=MODEL, chat=model, settings=SETTINGS) as rp:
        Marked(f"sqlite:///{path}", rp, model).fill()
    assert list(path.parent.glob(f"{path.name}*")) == [path]
    return path, model.bodies


@pytest.fixture
def marked(sqlite_url: str, scripted: Scripted, full: tuple[Path, list[bytes]]) -> Iterator[Marked]:
    """A file full of markers, of this test alone."""
    model = scripted()
    path, bodies = full
    shutil.copy(path, sqlite_url.removeprefix("sqlite:///"))
    model.bodies += bodies
    with shells.Roleplay.open(sqlite_url, model=MODEL, chat=model, settings=SETTINGS) as rp:
        one = Marked(sqlite_url, rp, model)
        assert (one.traces() > 1000) is not files.ENCRYPTED
        yield one
        assert list(rp.doctor()) == []


def test_no_byte_is_left(marked: Marked) -> None:
    """Main file, log and free pages hold nothing of what was erased, while other connections are open; all else is
    there, and can be spoken in."""
    receipt = marked.rp.erase(persona=f"{MARK}-key", cascade=True)
    assert (receipt.erased.sessions, receipt.files) == (20, "wiped")
    assert marked.traces() == 0
    left = marked.rp.sessions.list(limit=100)
    assert len(left.items) == 20
    assert marked.rp.sessions.get(left.items[0].id).send("Still there?").reply


def test_zeroes_alone_would_not_do(marked: Marked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is too large to be rewritten is said to be so. Parts may be in it; the next rewriting ends them."""
    monkeypatch.setattr(stored, "REWRITE_LIMIT_BYTES", 1)
    receipt = marked.rp.erase(persona=f"{MARK}-key", cascade=True)
    assert receipt.files == "too large"
    assert any("VACUUM" in one for one in receipt.not_ours)
    monkeypatch.undo()
    assert marked.rp.erase(owner="nobody").files == "wiped"
    assert marked.traces() == 0


def test_a_reader_in_the_way_is_told_of(marked: Marked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that reads an old state keeps the log from being emptied; the receipt says so, and the next
    erasure ends it."""
    monkeypatch.setattr(stored, "WIPE_PATIENCE_S", 0.3)
    with closing(files.connect(marked.url, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM roleplay_sessions").fetchall()
        receipt = marked.rp.erase(persona=f"{MARK}-key", cascade=True)
        assert (receipt.erased.sessions, receipt.files) == (20, "busy")
        assert any("erase again" in one for one in receipt.not_ours)
        assert (marked.traces() > 0) is not files.ENCRYPTED
        reader.execute("COMMIT")
    assert marked.rp.erase(owner="nobody").files == "wiped"
    assert marked.traces() == 0


def test_a_short_reader_is_waited_for(marked: Marked) -> None:
    """A read that ends soon delays the wiping and no more."""
    reader = files.connect(marked.url, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM roleplay_sessions").fetchall()
    timer = threading.Timer(1.0, reader.close)
    timer.start()
    assert marked.rp.erase(persona=f"{MARK}-key", cascade=True).files == "wiped"
    timer.join()
    assert marked.traces() == 0

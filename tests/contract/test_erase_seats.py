"""Erasure of an owner who sits in sessions of others: the seat is left, what was said there is gone with all that was
computed from it, what others said stays, and the session goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import roleplay
from roleplay import (
    ChatRequestError,
    Checked,
    ConflictError,
    Counts,
    Endpoint,
    Fact,
    InvalidInputError,
    NotFoundError,
    Persona,
    PlayedBy,
    Roleplay,
    Seat,
    SessionSettings,
    StoreError,
    TurnOptions,
    Verdict,
)
from roleplay.store.access.database import Database
from roleplay.store.access.tables import Base
from roleplay.store.upkeep import blanking
from roleplay.testing import ScriptedModel
from roleplay.turns import speaking
from tests.support import shells

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
MARK = "XyzzyPlugh"
TABLES = sorted(Base.metadata.tables.keys() - {"roleplay_calibrations"})


def guard(what: Checked) -> Verdict | None:
    """Replaces a word of the human's line; its reason quotes it."""
    if what.side == "human" and "plover" in what.text:
        return Verdict.replace(what.text.replace("plover", "***"), reason=what.text)
    return None


class House:
    """A tenant in which Anna sits in sessions of Ben's, and another tenant that has an Anna of its own."""

    def __init__(self, rp: Any, database: Database, model: ScriptedModel, mark: str = MARK) -> None:
        self.rp, self.database, self.model, self.mark = rp, database, model, mark
        self.nova, self.kit = (rp.personas.put(Persona(name, "A pilot.", key=name.lower())) for name in ("Nova", "Kit"))
        self.anna = rp.personas.put(Persona(f"{self.mark} Anna", f"{self.mark} the cook.", key="anna"))

    def session(self, *users: Seat, **options: Any) -> Any:
        """A session of Ben's with two of the model's seats and, beside Ben, other humans."""
        humans = [Seat(name="Ben", owner="ben"), *users]
        options = {"settings": SessionSettings(speaking="list")} | options
        return self.rp.sessions.create(cast=[self.nova, self.kit], users=humans, owner="ben", **options)

    @property
    def annas(self) -> Seat:
        """The seat of Anna's."""
        return Seat(self.anna, owner="anna", aliases=(f"{self.mark} A.",))

    def say(self, session: Any, words: str = "says plover.") -> Any:
        """Anna says something with everything that a line may bring with it; the model's reply does not repeat it, its
        reasoning does."""
        self.model.say(f"<think>{self.mark}?</think>I see.")
        facts = [Fact(f"{self.mark} is late.", name="late"), Fact(f"{self.mark} again.", name="again", depth=None)]
        key = f"{self.mark}-{len(self.model.requests)}"
        options = TurnOptions(metadata={"from": self.mark}, idempotency_key=key, facts=facts)
        return session.send(f"{self.mark} {words}", speaker=f"{self.mark} Anna", options=options)

    def everything(self, tenant: str = "default") -> dict[str, list[str]]:
        """Every row of a tenant."""
        sql = "SELECT * FROM {} WHERE tenant = :tenant"
        return self.database.read(
            lambda db: {
                name: sorted(str(tuple(row)) for row in db.execute(text(sql.format(name)), {"tenant": tenant}))
                for name in TABLES
            }
        )

    def holding(self, what: str = MARK) -> set[str]:
        """The tables in which something stands."""
        return {name for name, rows in self.everything().items() if any(what in row for row in rows)}

    def change(self, sql: str, **values: Any) -> None:
        self.database.write(lambda db: db.execute(text(sql), values))

    def calls(self, session: Any) -> list[str]:
        """The ids of the calls of a session that can be rebuilt."""
        return [call for where, call in self.rp.replay.verify() if where == session.id]


@pytest.fixture
def house(database_url: str, scripted: Scripted) -> Iterator[House]:
    """A house of each kind; nothing is damaged at the end, and the tenant beside it has lost nothing."""
    model = scripted()
    with roleplay.Roleplay.open(database_url, model=MODEL, chat=model, migrate="auto") as blocking:
        database = blocking._runtime.database
        beside = Roleplay(database, model, endpoint=MODEL, tenant="beside")
        theirs = House(beside, database, model, "Another")
        theirs.say(theirs.session(theirs.annas))
        had = theirs.everything("beside")
        watch: dict[str, Any] = {"guards": [guard], "keep_originals": True}
        with shells.Roleplay.open(database_url, model=MODEL, chat=model, **watch) as rp:
            yield House(rp, database, model)
            assert list(rp.doctor()) == []
        assert theirs.everything("beside") == had
        assert list(beside.doctor()) == []


def test_nothing_is_left_of_what_was_said(house: House) -> None:
    """No row of any table holds a word, name, key, alias, sheet, reason or reasoning any more, and on SQLite no byte of
    the files does; the rows of others' words are as they were."""
    session = house.session(house.annas)
    session.send("Who is there?", speaker="Ben")
    turn = house.say(session)
    house.model.say(ChatRequestError(f"{MARK} is refused", code=2013))
    with pytest.raises(ChatRequestError):
        house.say(session)
    with session.regenerate(turn.id, options=TurnOptions(metadata={"of": MARK})) as other:
        list(other)
    session.add(f"{MARK} whispers.", speaker=f"{MARK} Anna", options=TurnOptions(audience=["Nova"]))
    house.model.say("Now?")
    session.send("And now?", speaker="Ben")
    lines = [message for one in session.turns() for message in (one.human, one.reply) if message]
    kept = [one for one in lines if one.role == "assistant" or one.name == "Ben"]
    said_in = ("messages", "turns", "model_calls", "pieces", "verdicts", "participant_revisions")
    assert house.holding() == {f"roleplay_{name}" for name in (*said_in, "persona_versions")}
    receipt = house.rp.erase(owner="anna")
    assert (receipt.erased.sessions, receipt.erased.blanked_seats, receipt.erased.blanked_lines) == (0, 1, 3)
    assert receipt.erased.blanked_verdicts == 2
    assert house.holding() == {"roleplay_persona_versions"}
    assert house.rp.erase(persona="anna").erased.personas == 1  # nothing pins it any more
    assert house.holding() == house.holding("anna") == set()
    assert receipt.files == ("wiped" if house.database.dialect == "sqlite" else None)
    if receipt.files:
        path = Path(str(house.database.engine.url.database))
        assert not any(MARK.encode() in one.read_bytes() for one in path.parent.glob(f"{path.name}*"))
    after = [message for one in session.turns() for message in (one.human, one.reply) if message]
    assert [one for one in after if one.text] == kept
    assert {(one.text, one.name, one.tokens) for one in after if one not in kept} == {("", "", 0)}


def test_the_seat_is_left(house: House) -> None:
    """By a revision of its own, in which the others sit as before; the session goes on, and no request holds the lines
    that are gone."""
    session = house.session(house.annas)
    house.say(session)
    session.send("And now?", speaker="Ben")
    before = session.info()
    house.rp.erase(owner="anna")
    info = session.info()
    assert [one.seat for one in info.cast] == [1, 2, 3]
    assert info.cast == before.cast[:3]
    assert (info.scene, info.settings, info.head_seq) == (before.scene, before.settings, before.head_seq)
    turn = session.send("Still there?")
    assert turn.revision == 2
    [call] = house.calls(session)
    body = house.rp.replay.request(session.id, call)
    assert MARK.encode() not in body
    assert b"And now?" in body
    assert session.report().shared_tokens is None


def test_requests_that_held_it_say_so(house: House) -> None:
    """Those from before somebody joined are rebuilt as before; the others, also one from after the seat was left, whose
    history holds a line, say that something was erased, which is no damage."""
    session = house.session()
    early = session.send("Anybody?").call.id
    session.cast.join(house.annas, played_by=PlayedBy.HUMAN)
    during = session.send("Hello!", speaker="Ben").call.id
    said = house.say(session)
    session.cast.leave(f"{MARK} Anna")
    late = session.send("Well.").call.id
    session.tree.rewind(3)
    aside = session.send("And without her?").call.id
    bodies = {one: house.rp.replay.request(session.id, one) for one in (early, aside)}
    receipt = house.rp.erase(owner="anna")
    assert (receipt.erased.blanked_seats, receipt.erased.blanked_lines, receipt.erased.blanked_calls) == (1, 1, 3)
    assert {one: house.rp.replay.request(session.id, one) for one in house.calls(session)} == bodies
    for call in (during, said.call.id, late):
        with pytest.raises(NotFoundError, match="erased") as failure:
            house.rp.replay.request(session.id, call)
        assert not isinstance(failure.value, StoreError)
    stored = session.turn(said.id)
    assert (stored.call.request_digest, stored.call.reasoning, stored.reply.text) == ("erased", None, "I see.")
    assert stored.call.usage == said.call.usage
    with pytest.raises(NotFoundError):
        session.report(said.id)
    assert session.info().cast == session.info().cast[:3]  # the seat was left before
    assert house.holding() == {"roleplay_persona_versions"}


def test_an_attempt_from_before_the_seat_was_left(house: House) -> None:
    """Its request held the sheet, though the turn names the revision of its last attempt, which can be rebuilt."""
    session = house.session(house.annas)
    house.model.say(ChatRequestError("no", code=2013), "I see.")
    with pytest.raises(ChatRequestError):
        session.send("Hm?", speaker="Ben")
    session.cast.leave(f"{MARK} Anna")
    with session.retry() as again:
        list(again)
    first, second = (call.id for call in session.turn(again.turn.id).calls)
    house.rp.erase(owner="anna")
    assert house.calls(session) == [second]
    with pytest.raises(NotFoundError, match="erased"):
        house.rp.replay.request(session.id, first)
    assert house.holding() == {"roleplay_persona_versions"}


def test_a_line_that_is_gone_is_answered_no_more(house: House) -> None:
    """No other variant, and no other attempt, can be had of a reply to it; what can be, is refused in words."""
    session = house.session(house.annas)
    turn = house.say(session)
    house.rp.erase(owner="anna")
    for again in (session.regenerate, session.resume):
        with pytest.raises(InvalidInputError, match="was erased"), again(turn.id) as reply:
            list(reply)
    assert session.tree.edit(turn.id, "I saw.").human.text == ""
    assert house.rp.sessions.get(session.id).send("Go on.").reply


def test_the_last_human_leaves_a_seat_without_a_name(house: House) -> None:
    """So that the session can be read and goes on; who sits there next hears nothing that was whispered to the one
    before, and who joins without a name gets no seat that was blanked."""
    session = house.rp.sessions.create(cast=[house.nova, house.kit], user=house.annas, owner="ben")
    house.say(session)
    whisper = session.add(f"{MARK}, come.", speaker="Nova", options=TurnOptions(audience=[f"{MARK} Anna"]))
    house.rp.erase(owner="anna")
    assert [(one.seat, one.display_name, one.owner) for one in session.info().humans] == [(4, "User", None)]
    assert session.send("Hello?").human.seat == 4
    joined = session.cast.join(Seat(), played_by=PlayedBy.HUMAN)
    assert joined.seat == 5
    assert session.turn(whisper.id).audience == (1, 3)
    session.cast.leave(4)
    assert session.send("And now?").human.seat == 5


def talk(house: House, session: Any) -> list[Any]:
    """Anna and Ben speak in turn, every third line is Ben's."""
    turns = []
    for number in range(14):
        house.model.say(f"Reply {number}.")
        said, who = (f"{MARK} {number}.", f"{MARK} Anna") if number % 3 else (f"Line {number}.", "Ben")
        turns.append(session.send(said, speaker=who))
    return turns


def test_requests_step_over_lines_that_are_gone(house: House) -> None:
    """Wherever they stand, also at the head, among lines that are hidden and lines that are kept; each request that is
    made then holds the others, and is rebuilt."""
    session = house.session(house.annas)
    turns = talk(house, session)
    for number in (10, 12):
        session.tree.hide(turns[number].id)
    house.model.say("Another 13.")
    with session.regenerate() as other:
        list(other)
    session.add(f"{MARK} at last.", speaker=f"{MARK} Anna")
    house.rp.erase(owner="anna")
    replies = {f"Reply {number}." for number in range(14)} - {"Reply 10.", "Reply 12.", "Reply 13."} | {"Another 13."}
    lines = {f"Line {number}." for number in range(0, 12, 3)}
    for hidden in ((), (4, 11), (0,)):
        for number in hidden:
            session.tree.hide(turns[number].id)
            replies, lines = replies - {f"Reply {number}."}, lines - {f"Line {number}."}
        house.model.say("Hm.")
        session.send("Well?")
        body = house.model.bodies[-1].decode()
        assert MARK not in body
        assert set(re.findall(r"(?:Reply|Another) \d+\.", body)) == replies
        assert set(re.findall(r"Line \d+\.", body)) == lines
    assert len(house.calls(session)) == 3


def test_a_window_that_starts_with_what_is_gone(house: House) -> None:
    """It moves on as ever: what the path hands on names messages, which are there, and no text that is gone."""
    for skipped in range(3):
        session = house.session(house.annas, settings=SessionSettings(budget_tokens=250))
        talk(house, session)
        for number in range(skipped):
            house.model.say("Hm.")
            session.send(f"So {number}.", speaker="Ben")
        start = session.report().window_start
        assert start > 1
        house.rp.erase(owner="anna")
        for number in range(12):
            house.model.say("Hm.")
            session.send(f"And {number}?")
            assert MARK.encode() not in house.model.bodies[-1]
        assert session.report().window_start > start
        assert len(house.calls(session)) == 12


def test_narration_stays(house: House) -> None:
    """The narrator has no seat: its lines are nobody's, though the first human's seat keeps them."""
    session = house.rp.sessions.create(cast=[house.nova], user=house.annas, owner="ben")
    told = session.add("The rain stops.", speaker="narrator")
    house.say(session)
    receipt = house.rp.erase(owner="anna")
    assert receipt.erased.blanked_lines == 1
    assert session.turn(told.id).human.text == "The rain stops."


def test_two_of_one_name(house: House) -> None:
    """Texts that the one who stays needs are there: those of requests before, and those that are rendered again."""
    session = house.session(house.annas)
    session.cast.leave("Ben")
    session.cast.join(Seat(house.anna, owner="carl"), played_by=PlayedBy.HUMAN)
    house.model.say(*["I see."] * 4)
    session.send(f"{MARK} of Carl.", speaker=5)
    session.send("Hers.", speaker=4)
    house.rp.erase(owner="anna")
    assert session.send("His.").human.name == f"{MARK} Anna"
    assert session.send("His again.").human.seat == 5
    assert len(house.calls(session)) == 2
    house.rp.erase(owner="carl")
    assert house.calls(session) == []
    assert house.holding() == {"roleplay_persona_versions"}


def test_a_whole_round_forgets_its_key(house: House) -> None:
    """Each turn of a round has the key and what was asked with it, which tell of the line."""
    session = house.session(house.annas)
    options = TurnOptions(idempotency_key=f"{MARK}-round", metadata={"of": MARK})
    house.model.say("I see.", "I see, too.")
    with session.round("Nova, Kit?", speaker=f"{MARK} Anna", options=options) as round_:
        list(round_)
    assert len(session.turns().items) == 2
    house.rp.erase(owner="anna")
    keys = "SELECT count(*) FROM roleplay_turns WHERE tenant = 'default' AND body_digest IS NOT NULL"
    assert house.database.read(lambda db: db.execute(text(keys)).scalar_one()) == 0
    assert house.holding() == {"roleplay_persona_versions"}


def test_own_sessions_and_seats_in_one_call(house: House) -> None:
    """The receipt counts both; the owner finds nothing afterwards, others find what is theirs; the second time there is
    nothing to do."""
    mine = house.rp.sessions.create(cast=[house.nova], user=house.annas, owner="anna")
    house.say(mine)
    theirs = [house.session(house.annas) for _ in range(3)]
    for one in theirs[:2]:
        house.say(one)
    alone = house.session()
    assert {one.id for one in house.rp.sessions.list(owner="anna")} == {mine.id, *(one.id for one in theirs)}
    before = house.everything()
    would = house.rp.erase(owner="anna", dry_run=True)
    assert house.everything() == before
    done = house.rp.erase(owner="anna")
    assert done.erased == would.erased
    assert (done.erased.sessions, done.erased.blanked_seats, done.erased.blanked_lines) == (1, 3, 2)
    assert set(would.not_ours) <= set(done.not_ours)
    assert not house.rp.sessions.list(owner="anna").items
    assert not list(house.rp.sessions.iter(owner="anna"))
    with pytest.raises(NotFoundError):
        house.rp.sessions.get(theirs[0].id, owner="anna")
    assert {one.id for one in house.rp.sessions.list(owner="ben")} == {alone.id, *(one.id for one in theirs)}
    assert house.rp.erase(owner="anna").erased == Counts()


def test_this_engine_forgets_the_session(house: House) -> None:
    """What it keeps in memory of a session is read anew, so that no request is planned with a name that is gone."""
    session, other = house.session(house.annas), house.session()
    house.say(session)
    other.send("Hm?")
    scope = house.rp._scope
    scope.recounts[session.id] = ()
    house.rp.erase(owner="anna")
    assert not [key for key in (*scope.rendered, *scope.last_spoke, *scope.recounts) if session.id in key]
    assert [key for key in scope.rendered if other.id in key]


def test_a_running_reply_is_waited_for(house: House) -> None:
    """While one runs in a session of somebody else's in which the owner sits, nothing is erased at all."""
    mine = house.rp.sessions.create(cast=[house.nova], owner="anna")
    session = house.session(house.annas)
    with session.stream("And now?", speaker="Ben") as reply:
        for dry_run in (True, False):
            with pytest.raises(ConflictError, match="nothing was erased") as refused:
                house.rp.erase(owner="anna", dry_run=dry_run)
            assert refused.value.turn_id == reply.turn_id
        list(reply)
    assert house.rp.sessions.get(mine.id).info().owner == "anna"
    receipt = house.rp.erase(owner="anna")
    assert (receipt.erased.sessions, receipt.erased.blanked_seats) == (1, 1)


def test_whoever_comes_late_brings_nothing_back(house: House) -> None:
    """A turn whose lease has run out stops nobody; its owner, who comes to its end after all, writes no word of what
    the request held."""
    session = house.session(house.annas)
    house.model.say(f"<think>{MARK} thinks.</think>" + "I see. " * 9)
    lost = """UPDATE roleplay_turns SET lease_owner = 'another/1/1', lease_until = '2020-01-01 00:00:00'
    WHERE lease_until IS NOT NULL AND tenant = 'default'"""
    live = "SELECT count(*) FROM roleplay_turns WHERE tenant = 'default' AND ended_at IS NULL"
    with pytest.raises(ConflictError), session.stream(f"{MARK}?", speaker=f"{MARK} Anna") as reply:
        next(iter(reply))
        house.change(lost)
        receipt = house.rp.erase(owner="anna")
        left = house.database.read(lambda db: db.execute(text(live)).scalar_one())
        list(reply)
    assert (receipt.erased.blanked_lines, left) == (1, 0)
    assert house.holding() == {"roleplay_persona_versions"}
    assert session.send("Hello?").reply


def test_a_turn_that_was_planned_before_is_planned_anew(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was built while the erasure ran is not sent: what it was built from is gone."""
    session = house.session(house.annas)
    house.say(session)
    claim, times = speaking._claimed, []

    def late(*arguments: Any) -> Any:
        if not times:
            times.append(1)
            Roleplay(house.database, ScriptedModel(), endpoint=MODEL).erase(owner="anna")
        return (yield from claim(*arguments))

    monkeypatch.setattr(speaking, "_claimed", late)
    assert session.send("Hm?", speaker="Ben").reply
    assert MARK.encode() not in house.model.bodies[-1]


def test_sessions_go_one_by_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends an erasure in a session leaves that one as it was and the others blanked; the next call goes on."""
    sessions = [house.session(house.annas) for _ in range(4)]
    for one in sessions:
        house.say(one)
    blank, calls = blanking.blank, []

    def dies(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        blank(*arguments, **options)
        if len(calls) == 3:
            raise RuntimeError("died")

    monkeypatch.setattr(blanking, "blank", dies)
    with pytest.raises(RuntimeError, match="died"):
        house.rp.erase(owner="anna")
    monkeypatch.undo()
    assert [one.id for one in house.rp.sessions.iter(owner="anna")] == [one.id for one in sessions[2:]]
    assert list(house.rp.doctor()) == []
    assert len(house.calls(sessions[2])) == 1
    assert house.rp.erase(owner="anna").erased.blanked_seats == 2
    assert house.holding() == {"roleplay_persona_versions"}


def test_other_ways_to_erase_blank_nothing(house: House) -> None:
    """A session, a persona and idle sessions go with all that is in them, whoever sits there."""
    session = house.session(house.annas)
    house.say(session)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert house.rp.erase(idle_since=tomorrow, dry_run=True).erased.blanked_seats == 0
    with pytest.raises(InvalidInputError, match="1 session pins it"):
        house.rp.erase(persona="anna")
    assert house.rp.erase(session=session.id).erased.sessions == 1
    assert house.holding() == {"roleplay_persona_versions"}


def test_a_damaged_session_is_blanked_too(house: House) -> None:
    """Where the language of a session cannot be told, since its persona is lost, the seat that stays is called as in
    English; what cannot be read of a call is taken for what must go."""
    session = house.rp.sessions.create(cast=[house.nova], user=house.annas, owner="ben")
    house.say(session)
    if house.database.dialect == "sqlite":
        house.change("UPDATE roleplay_session_revisions SET settings = '{' WHERE tenant = 'default'")
        house.change("UPDATE roleplay_model_calls SET recipe = '{' WHERE tenant = 'default'")
    receipt = house.rp.erase(owner="anna")
    assert (receipt.erased.blanked_lines, receipt.erased.blanked_calls) == (1, 1)
    assert house.holding() == {"roleplay_persona_versions"}
    house.change("UPDATE roleplay_session_revisions SET settings = '{}' WHERE tenant = 'default'")
    assert session.info().human.display_name == "User"

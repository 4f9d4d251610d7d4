"""Rounds: everybody who is next, one after the other; chosen once, resumed by a key, ended when another speaks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

import roleplay
from roleplay import (
    ChatUnavailableError,
    ConflictError,
    Endpoint,
    IdempotencyError,
    InvalidInputError,
    Persona,
    Seat,
    SessionSettings,
    TurnOptions,
    TurnStatus,
)
from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"attempts": 1})
LIST = SessionSettings(speaking="list")
KEYED = TurnOptions(idempotency_key="round-1")


def table(rp: Any, **options: Any) -> Any:
    """Anna, Ben and Cara, whom the model plays, and Max and Eva."""
    cast = [rp.personas.put(Persona(name, f"{name} by day.")) for name in ("Anna", "Ben", "Cara")]
    humans = [Seat(name="Max"), Seat(name="Eva")]
    return rp.sessions.create(**{"cast": cast, "users": humans, "settings": LIST} | options)


def turns_of(stream: Any) -> list[Any]:
    with stream as opened:
        return list(opened.turns())


def told(turns: Any) -> list[tuple[int, int, str]]:
    """Of each turn: its round, its place there, and who speaks."""
    return [(one.round, one.ordinal, one.reply.name) for one in turns]


def test_everybody_speaks_in_turn(database_url: str, scripted: Scripted) -> None:
    """The turns come as they end, in order, each on the one before; pieces name their seat and turn."""
    model = scripted("One.", "Two.", "Three.", "Four.", "Five.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        turns = turns_of(session.round("Hello, all.", speaker="Max"))
        assert told(turns) == [(1, 1, "Anna"), (1, 2, "Ben"), (1, 3, "Cara")]
        assert [one.text for one in turns] == ["One.", "Two.", "Three."]
        assert [None if one.human is None else one.human.name for one in turns] == ["Max", None, None]
        assert list(session.turns()) == turns
        said = model.requests[2]["messages"][-1]["content"]
        assert said == "Max: Hello, all.\n\nAnna: One.\n\nBen: Two."
        with session.round(max_turns=2) as again:
            pieces = [(one.seat, one.text, one.turn_id) for one in again]
        assert [(seat, text) for seat, text, _ in pieces] == [(1, "Four."), (2, "Five.")]
        assert [one.id for one in session.turns()][3:] == [turn for _, _, turn in pieces]
        assert list(rp.doctor()) == []


def test_a_send_is_one_reply(database_url: str, scripted: Scripted) -> None:
    """The first speaker's; a stream likewise."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp)
        assert session.send("Hello.", speaker="Max").reply.name == "Anna"
        with session.stream("Hello.", speaker="Eva") as reply:
            assert {one.speaker for one in reply} == {"Anna"}
        assert [one.round for one in session.turns()] == [1, 2]


def test_a_round_is_bounded(database_url: str, scripted: Scripted) -> None:
    """By the setting, by the call, and by nobody being left; a bound that cannot be is refused."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp, settings=SessionSettings(speaking="list", round_turns=2))
        assert len(turns_of(session.round("Hello.", speaker="Max"))) == 2
        assert len(turns_of(session.round("Hello.", speaker="Max", max_turns=1))) == 1
        assert len(turns_of(session.round("Hello.", speaker="Max", max_turns=50))) == 3
        before = list(session.turns())
        for wrong in (0, 101, "two", True):
            with pytest.raises(InvalidInputError) as failure:
                session.round("Hello.", speaker="Max", max_turns=wrong)
            assert failure.value.field == "max_turns"
        assert list(session.turns()) == before


def test_a_key_names_the_round(database_url: str, scripted: Scripted) -> None:
    """Again with the key, all of it is given again and no model is called; with another line it is refused."""
    model = scripted("One.", "Two.", "Three.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        turns = turns_of(session.round("Hello.", speaker="Max", options=KEYED))
        with session.round("Hello.", speaker="Max", options=KEYED) as again:
            assert [one.text for one in again] == ["One.", "Two.", "Three."]
            assert list(again.turns()) == turns
        assert len(model.bodies) == 3
        for other in ({"text": "Hello?", "speaker": "Max"}, {"text": "Hello.", "speaker": "Eva"}, {"max_turns": 2}):
            with pytest.raises(IdempotencyError):
                session.round(**{"text": "Hello.", "speaker": "Max"} | other, options=KEYED)
        with pytest.raises(IdempotencyError):
            session.send("Hello.", speaker="Max", options=KEYED)
        assert list(session.turns()) == turns


def test_a_round_that_was_cut_goes_on(database_url: str, scripted: Scripted) -> None:
    """Where it stopped: what failed is tried again, what was said stays, the order is the one that was drawn."""
    model = scripted("One.", ChatUnavailableError("busy"), "Two.", "Three.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        with pytest.raises(ChatUnavailableError), session.round("Hello.", speaker="Max", options=KEYED) as opened:
            list(opened)
        assert [one.status for one in session.turns()] == [TurnStatus.COMPLETED, TurnStatus.FAILED]
        session.cast.move("Cara", 0)
        turns = turns_of(session.round("Hello.", speaker="Max", options=KEYED))
        assert told(turns) == [(1, 1, "Anna"), (1, 2, "Ben"), (1, 3, "Cara")]
        assert [one.text for one in turns] == ["One.", "Two.", "Three."]
        assert [len(one.calls) for one in turns] == [1, 2, 1]
        assert list(session.turns()) == turns
        assert list(rp.doctor()) == []


def test_a_round_that_somebody_spoke_after_stays_as_it_was(database_url: str, scripted: Scripted) -> None:
    """Asked for again by its key, it gives what was said, and says nothing more."""
    model = scripted("One.", ChatUnavailableError("busy"), "Later.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        with pytest.raises(ChatUnavailableError), session.round("Hello.", speaker="Max", options=KEYED) as opened:
            list(opened)
        session.send("Enough.", speaker="Eva")
        turns = turns_of(session.round("Hello.", speaker="Max", options=KEYED))
        assert [one.text for one in turns] == ["One."]
        assert len(model.bodies) == 3


def test_leaving_ends_it(database_url: str, scripted: Scripted) -> None:
    """The turn that speaks is interrupted with its text so far, and nobody speaks after it."""
    model = scripted("One.", "The second reply, which is longer than a piece of it.", "Three.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        with session.round("Hello.", speaker="Max") as opened:
            seen = 0
            for one in opened:
                seen += one.seat == 2
                if seen == 2:
                    break
        statuses = [(one.speaker, one.status) for one in session.turns()]
        assert statuses == [(1, TurnStatus.COMPLETED), (2, TurnStatus.INTERRUPTED)]
        with session.retry() as again:
            list(again)
        with session.round(max_turns=3) as opened:
            next(iter(opened))
            ended = opened.cancel()
        assert [one.status for one in ended] == [TurnStatus.INTERRUPTED]
        assert list(rp.doctor()) == []


@pytest.mark.parametrize("door", ["send", "add", "round"])
def test_who_waits_ends_a_round(database_url: str, scripted: Scripted, door: str) -> None:
    """After its present turn; then they speak, and the round says nothing more."""
    began, go_on = threading.Event(), threading.Event()

    def slow(_messages: object) -> str:
        began.set()
        assert go_on.wait(20)
        return "One."

    model = scripted(slow, "Two.", "Three.", "Four.", "Five.")
    wait = TurnOptions(on_conflict="wait")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        found: list[Any] = []

        def speak_up() -> None:
            call = getattr(session, door)("My turn.", speaker="Eva", options=wait)
            found.extend(turns_of(call) if door == "round" else [call])

        running = threading.Thread(target=lambda: found.extend(turns_of(session.round("Hello.", speaker="Max"))))
        running.start()
        assert began.wait(20)
        other = threading.Thread(target=speak_up)
        other.start()
        for _ in range(400):
            if asked_to_end(database_url):
                break
            threading.Event().wait(0.02)
        go_on.set()
        for thread in (running, other):
            thread.join(30)
            assert not thread.is_alive()
        path = [(one.round, one.human.name if one.human else None) for one in session.turns()]
        assert path[:2] == [(1, "Max"), (2, "Eva")]
        assert [turn for turn, _ in path] == [1, 2, *([2, 2] if door == "round" else [])]
        assert len(found) == len(path)
        assert list(rp.doctor()) == []


def asked_to_end(url: str) -> bool:
    """Whether somebody asked that a round ends with the turn that runs."""
    sql = "SELECT count(*) FROM roleplay_turns WHERE tenant = 'default' AND ends_round"
    database = Database.open(url)
    try:
        return bool(database.read(lambda db: db.execute(text(sql)).scalar_one()))
    finally:
        database.close()


def test_a_round_does_not_wait_for_others(database_url: str, scripted: Scripted) -> None:
    """One that is to begin while another runs is refused, as a send is."""
    began, go_on = threading.Event(), threading.Event()

    def slow(_messages: object) -> str:
        began.set()
        assert go_on.wait(20)
        return "One."

    with Roleplay.open(database_url, model=MODEL, chat=scripted(slow)) as rp:
        session = table(rp)
        running = threading.Thread(target=lambda: turns_of(session.round("Hello.", speaker="Max", max_turns=1)))
        running.start()
        assert began.wait(20)
        with pytest.raises(ConflictError):
            session.round("And I.", speaker="Eva")
        go_on.set()
        running.join(30)
        assert [one.round for one in session.turns()] == [1]


def test_a_whispered_round_is_its_audiences(database_url: str, scripted: Scripted) -> None:
    """Only seats of the audience speak in it, and every reply has the audience."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("One.", "Two.")) as rp:
        session = table(rp)
        options = TurnOptions(audience=["Ben", "Cara"])
        turns = turns_of(session.round("Hush.", speaker="Max", options=options))
        assert told(turns) == [(1, 1, "Ben"), (1, 2, "Cara")]
        assert {one.audience for one in turns} == {one.reply.audience for one in turns} == {(2, 3, 4)}


def test_what_goes_on_is_said_when_it_goes_on(database_url: str, scripted: Scripted) -> None:
    """A reply that goes on under a later revision is not for who had left by then, and is for who is there."""
    model = scripted(
        "The beginning of it, which is long enough to be kept when the stream breaks. " * 6, "The end of it."
    )
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        with session.stream("Hello.", speaker="Max") as reply:
            next(iter(reply))
        cut = reply.turn
        assert cut.status is TurnStatus.INTERRUPTED
        session.cast.leave("Cara")
        with session.resume(cut.id) as reply:
            list(reply)
        assert reply.turn.id == cut.id
        assert reply.turn.revision == 2
        assert session.seen_by("Ben").turn(cut.id).reply is not None
        assert "The end of it" not in str(list(session.seen_by(3).turns()))


def test_what_was_begun_is_given_again_after_others_spoke(database_url: str, scripted: Scripted) -> None:
    """A reply that was cut off is given with its round before and after somebody else has spoken."""
    model = scripted("One.", "The second reply, which is longer than a piece of it.", "Later.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        with session.round("Hello.", speaker="Max", options=KEYED) as opened:
            for one in opened:
                if one.seat == 2:
                    break
        before = turns_of(session.round("Hello.", speaker="Max", options=KEYED))
        assert [one.status for one in before] == [TurnStatus.COMPLETED, TurnStatus.INTERRUPTED]
        session.send("Enough.", speaker="Eva")
        assert turns_of(session.round("Hello.", speaker="Max", options=KEYED)) == before
        assert len(model.bodies) == 3


@pytest.mark.parametrize("door", ["accept", "retry", "resume"])
def test_a_round_goes_on_behind_a_reply_that_was_cut_off(database_url: str, scripted: Scripted, door: str) -> None:
    """Once the reply is complete, the call with the round's key has the rest said."""
    model = scripted("One.", "The second reply, which is longer than a piece of it.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        with session.round("Hello.", speaker="Max", options=KEYED) as opened:
            for one in opened:
                if one.seat == 2:
                    break
        cut = session.turns().items[-1]
        if door == "accept":
            session.accept(cut.id)
        else:
            model.say(" Two.")
            with getattr(session, door)(cut.id) as reply:
                list(reply)
        model.say("Three.")
        turns = turns_of(session.round("Hello.", speaker="Max", options=KEYED))
        assert told(turns) == [(1, 1, "Anna"), (1, 2, "Ben"), (1, 3, "Cara")]
        texts = {"accept": cut.text, "retry": "Two.", "resume": f"{cut.text} Two."}
        assert [one.text.strip() for one in turns] == ["One.", texts[door].strip(), "Three."]
        assert list(session.turns()) == turns


@pytest.mark.parametrize("reads", [1, 2], ids=["the look at the round", "the look at the session"])
def test_a_round_takes_nobody_off_the_path(database_url: str, scripted: Scripted, reads: int) -> None:
    """Where somebody speaks between a look and the next attempt at the turn of a round that was cut, it has ended."""
    model = scripted("One.", ChatUnavailableError("busy"), "Two.")
    with (
        Roleplay.open(database_url, model=MODEL, chat=model) as rp,
        roleplay.Roleplay.open(database_url, model=MODEL, chat=scripted()) as beside,  # held up by no event loop
    ):
        session = table(rp)
        with pytest.raises(ChatUnavailableError), session.round("Hello.", speaker="Max", options=KEYED) as opened:
            list(opened)
        since: list[str] = []
        spoken: list[str] = []

        def has_looked(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
            if statement.split("FROM", maxsplit=1)[0].split() == ["SELECT", "roleplay_turns.ends_round"]:
                since.append("looked")

        def speak_up(*_connection: object) -> None:
            if since and not spoken:
                since.append("read")
                if len(since) > reads:
                    spoken.append("Enough.")
                    other = threading.Thread(target=add)
                    other.start()
                    other.join(20)
                    assert not other.is_alive()

        def add() -> None:
            beside.sessions.get(session.id).add("Enough.", speaker="Eva")

        event.listen(Engine, "after_cursor_execute", has_looked)
        event.listen(Engine, "checkin", speak_up)
        try:
            turns = turns_of(session.round("Hello.", speaker="Max", options=KEYED))
        finally:
            event.remove(Engine, "after_cursor_execute", has_looked)
            event.remove(Engine, "checkin", speak_up)
        assert [one.text for one in turns] == ["One."]
        assert [one.human.text for one in session.turns() if one.human] == ["Hello.", "Enough."]
        assert len(model.bodies) == 2


def test_who_gave_up_waiting_ends_no_round(database_url: str, scripted: Scripted) -> None:
    """A round that was cut goes on to its end with its key, where somebody waited for its turn and never spoke."""
    began, go_on = threading.Event(), threading.Event()

    def busy(_messages: object) -> str:
        began.set()
        assert go_on.wait(20)
        raise ChatUnavailableError("busy")

    model = scripted("One.", busy, "Two.", "Three.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)

        def call() -> None:
            with pytest.raises(ChatUnavailableError):
                turns_of(session.round("Hello.", speaker="Max", options=KEYED))

        running = threading.Thread(target=call)
        running.start()
        assert began.wait(20)
        with pytest.raises(ConflictError):
            session.send("My turn.", speaker="Eva", options=TurnOptions(on_conflict="wait", wait_s=0.1))
        assert asked_to_end(database_url)
        go_on.set()
        running.join(30)
        turns = turns_of(session.round("Hello.", speaker="Max", options=KEYED))
        assert [one.text for one in turns] == ["One.", "Two.", "Three."]


def test_who_left_or_was_muted_is_passed_over(database_url: str, scripted: Scripted) -> None:
    """The others keep their places in the round."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("One.", "Two.", "Three.")) as rp:
        cast = [rp.personas.put(Persona(name)) for name in ("Anna", "Ben", "Cara", "Dan")]
        session = rp.sessions.create(cast=cast, settings=LIST)
        with session.round("Hello.") as opened:
            turns = []
            for turn in opened.turns():
                turns.append(turn)
                if len(turns) == 1:
                    session.cast.mute("Ben")
                    session.cast.leave("Cara")
        assert told(turns) == [(1, 1, "Anna"), (1, 4, "Dan")]
        assert list(rp.doctor()) == []


@pytest.mark.parametrize("wrong", [{"speaker": "Nobody"}, {"speaker": "Eva", "options": {"audience": ["Max"]}}, {}])
def test_a_call_that_cannot_be_ends_no_round(database_url: str, scripted: Scripted, wrong: dict[str, Any]) -> None:
    """It is refused before it waits; and who does not wait at all ends none either."""
    began, go_on = threading.Event(), threading.Event()

    def slow(_messages: object) -> str:
        began.set()
        assert go_on.wait(20)
        return "One."

    with Roleplay.open(database_url, model=MODEL, chat=scripted(slow, "Two.", "Three.")) as rp:
        session = table(rp)
        found: list[Any] = []
        running = threading.Thread(target=lambda: found.extend(turns_of(session.round("Hello.", speaker="Max"))))
        running.start()
        assert began.wait(20)
        options = TurnOptions(on_conflict="wait", wait_s=0 if not wrong else 20, **wrong.get("options", {}))
        with pytest.raises(InvalidInputError if wrong else ConflictError):
            session.send("And I?", speaker=wrong.get("speaker", "Eva"), options=options)
        go_on.set()
        running.join(30)
        assert told(found) == [(1, 1, "Anna"), (1, 2, "Ben"), (1, 3, "Cara")]

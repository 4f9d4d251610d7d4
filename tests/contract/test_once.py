"""One call, one turn: idempotency keys, and what happens to those who speak at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from roleplay import (
    BudgetError,
    ChatUnavailableError,
    ConflictError,
    Endpoint,
    IdempotencyError,
    InvalidInputError,
    Persona,
    Sampling,
    SessionSettings,
    TurnOptions,
    TurnStatus,
)
from roleplay.testing import ScriptedModel
from tests.support import files
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell", "unwatched")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"attempts": 1})
KEYED = TurnOptions(idempotency_key="order-1")
WAITING = TurnOptions(idempotency_key="order-1", on_conflict="wait", wait_s=30)
BUSY = ChatUnavailableError("busy", code=1002)
WORDS = "word " * 100


class Gate:
    """A model's reply that comes when it is let through."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, _messages: object) -> str:
        self.reached.set()
        assert self._open.wait(30)
        return self._text

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as one:
        yield one


@pytest.fixture
def model(scripted: Scripted) -> ScriptedModel:
    return scripted()


@pytest.fixture
def rp(database_url: str, model: ScriptedModel) -> Iterator[Any]:
    with Roleplay.open(database_url, model=MODEL, chat=model) as one:
        yield one


@pytest.fixture
def session(rp: Any) -> Any:
    return rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])


def say(session: Any, door: str, text: str, options: TurnOptions) -> Any:
    """Speak by one of the two doors and give the turn; a stream's pieces are its reply."""
    if door == "send":
        return session.send(text, options=options)
    with session.stream(text, options=options) as reply:
        shown = "".join(delta.text for delta in reply)
    assert shown == (reply.turn.reply.text if reply.turn.reply else "")
    return reply.turn


DOORS = pytest.mark.parametrize("door", ["send", "stream"])


@DOORS
def test_a_repeated_call_is_the_same_turn(session: Any, model: ScriptedModel, door: str) -> None:
    """The same key and arguments give the stored turn, by either door, without another model call."""
    turn = say(session, door, "Well?", KEYED)
    for again in ("send", "stream"):
        assert say(session, again, "Well?", KEYED).id == turn.id
    assert len(model.bodies) == 1
    assert len(session.turns()) == 1


@DOORS
def test_a_call_that_still_runs_is_refused_or_waited_for(
    session: Any, model: ScriptedModel, pool: ThreadPoolExecutor, door: str
) -> None:
    """While the first call runs, its repetition is a conflict that names the turn, or waits and gets that turn."""
    gate = Gate(WORDS)
    model.say(gate)
    first: Future[Any] = pool.submit(say, session, door, "Well?", KEYED)
    assert gate.reached.wait(30)
    with pytest.raises(ConflictError, match="order-1") as refused:
        say(session, door, "Well?", KEYED)
    with pytest.raises(ConflictError):
        say(session, door, "Well?", WAITING.evolve(wait_s=0.05))
    second = [pool.submit(say, session, door, "Well?", WAITING) for _ in range(3)]
    gate.open()
    turn = first.result()
    assert refused.value.turn_id == turn.id
    assert {one.result().id for one in second} == {turn.id}
    assert len(model.bodies) == 1


@DOORS
def test_a_call_that_failed_is_another_attempt_of_its_turn(session: Any, model: ScriptedModel, door: str) -> None:
    """A failed call repeated with its key is the same turn with one attempt more; the failed one is kept."""
    model.say(BUSY, "Now.")
    with pytest.raises(ChatUnavailableError) as failed:
        say(session, door, "Well?", KEYED)
    turn = say(session, door, "Well?", KEYED)
    assert turn.id == failed.value.turn_id
    assert (turn.status, turn.reply.text, turn.attempt) == (TurnStatus.COMPLETED, "Now.", 2)
    assert [call.error is None for call in turn.calls] == [False, True]
    assert say(session, door, "Well?", KEYED).id == turn.id
    assert len(model.bodies) == 2
    assert [one.human.text for one in session.turns()] == ["Well?"]


def test_many_repeat_a_call_that_failed(session: Any, model: ScriptedModel, pool: ThreadPoolExecutor) -> None:
    """Of many who repeat a failed call at once, one makes the attempt and all get its reply."""
    model.say(BUSY)
    with pytest.raises(ChatUnavailableError):
        session.send("Well?", options=KEYED)
    turns = list(pool.map(lambda _: session.send("Well?", options=WAITING), range(6)))
    assert len({turn.id for turn in turns}) == 1
    assert {turn.reply.text for turn in turns} == {"You said: Well?"}
    assert len(model.bodies) == 2


def test_a_hint_is_not_lost_with_a_failed_call(session: Any, model: ScriptedModel) -> None:
    """A variant that failed and is asked for again under its key still follows its hint."""
    session.send("Well?")
    model.say(BUSY, "Short.")
    for _ in range(2):
        try:
            with session.regenerate(hint="Be brief.", options=KEYED) as reply:
                list(reply)
        except ChatUnavailableError:
            pass
    assert (reply.turn.reply.text, reply.turn.variants) == ("Short.", 2)
    assert model.bodies[1] == model.bodies[2]
    assert b"Be brief." in model.bodies[2]


def test_an_interrupted_call_is_given_as_it_is(session: Any, model: ScriptedModel) -> None:
    """A call that ended after some text is not made again: its key gives the text that was kept, by either door."""
    model.say(WORDS)
    with session.stream("Well?", options=KEYED) as reply:
        next(iter(reply))
    assert reply.turn.status is TurnStatus.INTERRUPTED
    for door in ("send", "stream"):
        turn = say(session, door, "Well?", KEYED)
        assert (turn.id, turn.status, turn.reply.text) == (reply.turn_id, TurnStatus.INTERRUPTED, WORDS[:12])
    assert len(model.bodies) == 1


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("Other?", {}),
        ("Well?", {"sampling": Sampling(temperature=0.5)}),
        ("Well?", {"metadata": {"page": "2"}}),
    ],
)
def test_a_key_is_for_one_request(session: Any, model: ScriptedModel, text: str, change: dict[str, Any]) -> None:
    """Another text, sampling or metadata under a used key is refused, whether the first ended or still runs."""
    model.say(WORDS)
    with session.stream("Well?", options=KEYED) as reply:
        with pytest.raises(IdempotencyError):
            session.send(text, options=KEYED.evolve(**change))
        list(reply)
    with pytest.raises(IdempotencyError) as refused:
        session.send(text, options=KEYED.evolve(**change))
    assert refused.value.found == reply.turn_id
    assert len(model.bodies) == 1


def test_a_refused_call_uses_no_key(database_url: str, scripted: Scripted) -> None:
    """What was refused before anything was written leaves its key free."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=SessionSettings(budget_tokens=40)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        with pytest.raises(BudgetError):
            session.send("long " * 100, options=KEYED)
        with pytest.raises(InvalidInputError):
            session.send(" ", options=KEYED)
        assert session.send("Well?", options=KEYED).reply.text == "You said: Well?"
        assert len(model.bodies) == 1


@DOORS
def test_threads_that_reject_wait_or_fork(
    session: Any, model: ScriptedModel, pool: ThreadPoolExecutor, door: str
) -> None:
    """Beside a running turn: a refusal costs no call, a fork is a branch beside the head, a wait speaks afterwards."""
    session.send("Before.")
    gate = Gate(WORDS)
    model.say(gate)
    running = pool.submit(say, session, door, "First.", TurnOptions())
    assert gate.reached.wait(30)
    calls = len(model.bodies)
    for wait in (TurnOptions(), TurnOptions(on_conflict="wait", wait_s=0.05)):
        with pytest.raises(ConflictError):
            say(session, door, "Refused.", wait)
    assert len(model.bodies) == calls
    forked = say(session, door, "Beside.", TurnOptions(on_conflict="fork"))
    assert (forked.status, forked.reply.text) == (TurnStatus.COMPLETED, "You said: Beside.")
    assert session.info().head_seq == 2
    waiting = pool.submit(say, session, door, "After.", TurnOptions(on_conflict="wait"))
    gate.open()
    first, after = running.result(), waiting.result()
    assert forked.human.parent_seq == first.human.parent_seq == 2
    assert after.human.parent_seq == first.reply.seq
    assert [turn.human.text for turn in session.turns()] == ["Before.", "First.", "After."]
    assert {turn.human.text for turn in session.tree.branches()} == {"Beside.", "After."}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_key_is_asked_for_once_through_a_long_pause(
    database_url: str,
    scripted: Scripted,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: bool,
) -> None:
    """While its owner pauses before the next attempt, a turn stays his: for other threads as for other machines."""
    monkeypatch.setattr("roleplay.turns.claim.LEASE_MARGIN_S", 0.7)
    times = {"timeout_s": 1.0, "read_timeout_s": 1.0, "connect_timeout_s": 1.0}
    patient = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0, "total_s": 60.0}, **times)
    model = scripted(ChatUnavailableError("busy", code=1002, retry_after_s=2.5), "Here.", "Here again.")
    with Roleplay.open(database_url, model=patient, chat=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        first = pool.submit(session.send, "Well?", options=KEYED)
        while not model.bodies:
            time.sleep(0.01)
        if elsewhere:
            monkeypatch.setattr("roleplay.session.ports.this_owner", lambda: "elsewhere:1:1/1/1")
            monkeypatch.setattr("roleplay.session.ports._driven", {})
        with Roleplay.open(database_url, model=patient, chat=model) as other:
            second = other.sessions.get(session.id).send("Well?", options=WAITING)
        assert second == first.result()
    assert (second.status, second.reply.text, second.attempt) == (TurnStatus.COMPLETED, "Here.", 2)
    assert len(model.bodies) == 2


def test_a_lease_begins_when_the_lock_is_held(
    sqlite_url: str, scripted: Scripted, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for SQLite's lock loses nothing of the lease by that."""
    monkeypatch.setattr("roleplay.turns.claim.LEASE_MARGIN_S", 30.0)
    gate = Gate(WORDS)
    with Roleplay.open(sqlite_url, model=MODEL, chat=scripted(gate)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        with closing(files.connect(sqlite_url)) as other:
            other.execute("BEGIN IMMEDIATE")
            running = pool.submit(session.send, "Well?")
            time.sleep(1)
            other.rollback()
            freed = datetime.now(UTC)
            assert gate.reached.wait(30)
            [until] = other.execute("SELECT lease_until FROM roleplay_turns WHERE status = 'pending'").fetchone()
        gate.open()
        running.result()
    lasts = datetime.fromisoformat(until).replace(tzinfo=UTC) - freed
    assert lasts.total_seconds() > MODEL.timeout_s + 30 - 0.1


OTHER = """
import json, sys
from roleplay import ConflictError, Endpoint, Roleplay, TurnOptions
from roleplay.testing import ScriptedModel
url, session_id = sys.argv[1:]
model = ScriptedModel()
def tell(*what): print(json.dumps([*what, len(model.bodies)]), flush=True)
with Roleplay.open(url, model=Endpoint("MiniMax-M2.7"), chat=model) as rp:
    session = rp.sessions.get(session_id)
    for options in (TurnOptions(), TurnOptions(idempotency_key="order-1"), TurnOptions(on_conflict="wait", wait_s=0.1)):
        try:
            session.send("First.", options=options)
        except ConflictError as error:
            tell("refused", error.turn_id)
    tell("forked", session.send("Beside.", options=TurnOptions(on_conflict="fork")).reply.parent_seq)
    tell("same", session.send("First.", options=TurnOptions(idempotency_key="order-1", on_conflict="wait")).id)
    tell("after", session.send("After.", options=TurnOptions(on_conflict="wait")).reply.text)
print(json.dumps([body.decode() for body in model.bodies]))
"""


def test_processes_that_reject_wait_or_fork(
    database_url: str, session: Any, model: ScriptedModel, pool: ThreadPoolExecutor
) -> None:
    """The same between processes; a key is waited for there too, and its turn is not made twice."""
    gate = Gate(WORDS)
    model.say(gate)
    running = pool.submit(session.send, "First.", options=KEYED)
    assert gate.reached.wait(30)
    other = subprocess.Popen([sys.executable, "-c", OTHER, database_url, session.id], stdout=subprocess.PIPE, text=True)
    told = [json.loads(other.stdout.readline()) for _ in range(4)]
    gate.open()
    first = running.result()
    *rest, bodies = [json.loads(line) for line in other.communicate()[0].splitlines()]
    model.bodies += [body.encode() for body in bodies]
    assert other.returncode == 0
    assert told[:3] == [["refused", first.id, 0]] * 3
    assert told[3][0] == "forked"
    assert rest == [["same", first.id, 1], ["after", "You said: After.", 2]]
    assert [turn.human.text for turn in session.turns()] == ["First.", "After."]

"""Closing an engine: it waits for the turns that run, then ends them properly, whoever drives them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import roleplay
from roleplay import ConflictError, Endpoint, Persona, TurnOptions, TurnStatus
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator import EndlessStream, Fault, SlowDrip, SlowFirstByte
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
WORDS = "word " * 400


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as one:
        yield one


def talk(rp: Any) -> Any:
    """A new session."""
    return rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])


def stored(url: str, session_id: str) -> roleplay.Turn:
    """The only turn of a session, as another engine of this process reads it; it can speak there at once."""
    with roleplay.Roleplay.open(url, model=MODEL, chat=(model := ScriptedModel())) as rp:
        session = rp.sessions.get(session_id)
        [turn] = session.turns()
        options = TurnOptions(on_conflict="reject")
        session.preview("And now?", options=options)
        assert list(rp.recover()) == []
        assert list(rp.doctor()) == []
        assert model.bodies == []
    return turn


def test_closing_waits_for_a_running_turn(database_url: str, scripted: Scripted, pool: ThreadPoolExecutor) -> None:
    """A reply that comes within the grace is stored and given; no new turn begins meanwhile."""
    reached, gate = threading.Event(), threading.Event()

    def slow(_messages: object) -> str:
        reached.set()
        assert gate.wait(30)
        return "Here."

    with Roleplay.open(database_url, model=MODEL, chat=scripted(slow)) as rp:
        session = talk(rp)
        running = pool.submit(session.send, "Well?")
        assert reached.wait(30)
        closing = pool.submit(rp.close, grace_s=30)
        while not rp._backstage._closing:
            time.sleep(0.01)
        with pytest.raises(ConflictError, match="closed"):
            session.send("Another?")
        assert not closing.done()
        gate.set()
        closing.result()
        assert running.result().reply.text == "Here."
    assert stored(database_url, session.id).status is TurnStatus.COMPLETED


def test_closing_ends_a_stream_that_nobody_reads(database_url: str, scripted: Scripted) -> None:
    """A stream whose reader does something else is interrupted with its text; the reader finds it ended."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(WORDS)) as rp:
        session = talk(rp)
        with session.stream("Well?") as reply:
            pieces = iter(reply)
            heard = [next(pieces).text for _ in range(3)]
            rp.close(grace_s=0.05)
            assert list(pieces) == []
        assert reply.turn.status is TurnStatus.INTERRUPTED
        assert reply.turn.reply.text == "".join(heard)
    kept = stored(database_url, session.id)
    assert (kept.id, kept.status, kept.reply.text) == (reply.turn_id, TurnStatus.INTERRUPTED, "".join(heard))


@pytest.mark.parametrize(
    ("door", "fault"),
    [
        ("send", SlowFirstByte(30)),
        ("stream", SlowFirstByte(30)),
        ("send", SlowFirstByte(30, after_headers=True)),
        ("stream", SlowDrip(30)),
        ("stream", EndlessStream()),
    ],
)
def test_closing_interrupts_a_wait_for_the_network(
    database_url: str, simulator: Simulator, endpoint: Endpoint, pool: ThreadPoolExecutor, door: str, fault: Fault
) -> None:
    """A turn that waits for the service is interrupted within a moment of the grace, and says so to its caller."""
    simulator.next(fault)
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)

        def read() -> roleplay.Turn:
            if door == "send":
                turn: roleplay.Turn = session.send("Well?")
                return turn
            with session.stream("Well?") as reply:
                for _ in reply:
                    pass
            return reply.turn

        running = pool.submit(read)
        while not simulator.requests:
            time.sleep(0.01)
        time.sleep(0.1)
        began = time.monotonic()
        rp.close(grace_s=0.1)
        assert time.monotonic() - began < 3
        assert running.result(timeout=5).status is TurnStatus.INTERRUPTED
    assert stored(database_url, session.id).status is TurnStatus.INTERRUPTED


def test_closing_ends_a_wait_for_another_turn(database_url: str, scripted: Scripted, pool: ThreadPoolExecutor) -> None:
    """Who still waited for a turn to begin is told that the engine is closed; nothing was written."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(WORDS)) as rp:
        session = talk(rp)
        with session.stream("First."):
            waiting = pool.submit(session.send, "Second.", options=TurnOptions(on_conflict="wait", wait_s=60))
            while len(rp._backstage._on) < 2:
                time.sleep(0.01)
            time.sleep(0.1)
            rp.close(grace_s=0.05)
            with pytest.raises(ConflictError, match="closed"):
                waiting.result(timeout=5)
    assert stored(database_url, session.id).human.text == "First."

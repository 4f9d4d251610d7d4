"""Closing an engine: it waits for the turns that run, then ends them properly, whoever drives them."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import roleplay
from roleplay import ChatUnavailableError, ConflictError, Endpoint, Persona, StoreError, TurnOptions, TurnStatus
from roleplay.store.records import turns
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
        while not rp._runtime._closing:
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

        def read() -> None:
            if door == "send":
                with pytest.raises(ConflictError, match="closed") as refused:
                    session.send("Well?")
                ended.append(refused.value.turn_id)
                return
            with session.stream("Well?") as reply:
                for _ in reply:
                    pass
            ended.append(reply.turn.id)

        ended: list[str | None] = []
        running = pool.submit(read)
        while not simulator.requests:
            time.sleep(0.01)
        time.sleep(0.1)
        began = time.monotonic()
        rp.close(grace_s=0.1)
        assert time.monotonic() - began < 3
        running.result(timeout=5)
    turn = stored(database_url, session.id)
    assert (turn.status, [turn.id]) == (TurnStatus.INTERRUPTED, ended)


def test_closing_ends_a_wait_for_another_turn(database_url: str, scripted: Scripted, pool: ThreadPoolExecutor) -> None:
    """Who still waited for a turn to begin is told that the engine is closed; nothing was written."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(WORDS)) as rp:
        session = talk(rp)
        with session.stream("First."):
            waiting = pool.submit(session.send, "Second.", options=TurnOptions(on_conflict="wait", wait_s=60))
            while len(rp._runtime._on) < 2:
                time.sleep(0.01)
            time.sleep(0.1)
            rp.close(grace_s=0.05)
            with pytest.raises(ConflictError, match="closed"):
                waiting.result(timeout=5)
    assert stored(database_url, session.id).human.text == "First."


def test_closing_ends_a_pause_before_the_next_attempt(
    database_url: str, scripted: Scripted, pool: ThreadPoolExecutor
) -> None:
    """A turn that waits for a reset time is interrupted at once."""
    model = scripted(ChatUnavailableError("limit", code=1002, retry_after_s=40.0))
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = talk(rp)
        running = pool.submit(session.send, "Well?")
        while not model.bodies:
            time.sleep(0.01)
        time.sleep(0.1)
        began = time.monotonic()
        rp.close(grace_s=0.1)
        assert time.monotonic() - began < 3
        with pytest.raises(ConflictError, match="closed") as refused:
            running.result(timeout=5)
    turn = stored(database_url, session.id)
    assert (turn.id, turn.status) == (refused.value.turn_id, TurnStatus.INTERRUPTED)
    assert len(model.bodies) == 1


def test_closing_ends_every_turn_though_one_cannot_be_told(
    database_url: str, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the end of one turn cannot be written, the others are ended all the same, all is closed, and it is said."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(WORDS, WORDS, WORDS)) as rp:
        sessions = [talk(rp) for _ in range(3)]
        streams = [session.stream("Well?") for session in sessions]
        finish, refused = turns.finish, []

        def fails(db: Any, hold: Any, *rest: Any, **more: Any) -> bool:
            if not refused or refused == [hold.session_id]:
                refused.append(hold.session_id)
                raise StoreError("the disk is full")
            return finish(db, hold, *rest, **more)

        monkeypatch.setattr(turns, "finish", fails)
        with pytest.raises(StoreError, match="disk is full"):
            rp.close(grace_s=0.05)
        monkeypatch.undo()
        assert not rp._runtime._on
        assert not [one.name for one in threading.enumerate() if one.name.startswith("roleplay-")]
        del streams
    with roleplay.Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        states = {session.id: next(iter(rp.sessions.get(session.id).turns())).status for session in sessions}
        assert len(rp.recover()) == 1
    assert sorted(states.values()) == [TurnStatus.INTERRUPTED, TurnStatus.INTERRUPTED, TurnStatus.PENDING]
    assert states[refused[0]] is TurnStatus.PENDING


@pytest.mark.parametrize("shell", ["asyncio"], indirect=True)
def test_a_cancelled_close_closes_all_the_same(database_url: str, scripted: Scripted) -> None:
    """A time-out around ``close`` ends its grace: the turns are ended and the threads too, then it is raised."""

    async def meet() -> str:
        rp = await roleplay.AsyncRoleplay.open(database_url, model=MODEL, chat=scripted(WORDS).aio)
        session = await rp.sessions.create(cast=[await rp.personas.put(Persona("Huang"))])
        stream = await session.stream("Well?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await rp.close(grace_s=30)
        assert stream.turn.status is TurnStatus.INTERRUPTED
        assert not rp._runtime._on
        return session.id

    began = time.monotonic()
    session_id = asyncio.run(meet())
    assert time.monotonic() - began < 20
    assert not [one.name for one in threading.enumerate() if one.name.startswith("roleplay-")]
    assert stored(database_url, session_id).status is TurnStatus.INTERRUPTED


@pytest.mark.parametrize("shell", ["sync"], indirect=True)
def test_ctrl_c_ends_the_grace(database_url: str, scripted: Scripted) -> None:
    """Ctrl-C while ``close`` waits: the turns are ended, then it is raised."""
    rp = roleplay.Roleplay.open(database_url, model=MODEL, chat=scripted(WORDS))
    session = talk(rp)
    stream = session.stream("Well?")
    timer = threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        rp.close(grace_s=30)
    timer.join()
    assert stream.turn.status is TurnStatus.INTERRUPTED
    assert stored(database_url, session.id).status is TurnStatus.INTERRUPTED

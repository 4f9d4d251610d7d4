"""The asyncio shell between two who want a reply to end: the engine that closes, and the caller who is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roleplay import AsyncChatSession, AsyncReplyStream, AsyncRoleplay, ConflictError, Endpoint, Persona, TurnStatus
from roleplay.testing import ScriptedModel

MODEL = Endpoint("MiniMax-M2.7")
WORDS = "The ford is a mile below the mill, and the mill is where it always was. " * 8


class Slow:
    """A scripted model that stops after some pieces of each answer, or before its head, until it is told to go on."""

    def __init__(self, model: ScriptedModel, pieces: int) -> None:
        self._model = model.aio
        self._left = pieces
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()
        self.holds = False
        self.opened = 0
        self.closed = 0

    async def open(self, endpoint: Any, request: Any) -> Any:
        """As any transport."""
        if self._left < 0:
            await self.wait()
        self._answer = await self._model.open(endpoint, request)
        self.status, self.headers = self._answer.status, self._answer.headers
        self.opened += 1
        return self

    async def read(self) -> bytes:
        """The next piece."""
        self._left -= 1
        if self._left < 0:
            await self.wait()
        piece: bytes = await self._answer.read()
        return piece

    async def wait(self) -> None:
        """Wait to be told, or cut short."""
        self.waits.set()
        await self.go_on.wait()

    async def release(self) -> None:
        """Give the connection back, which may take its time."""
        if self.holds:
            await self.wait()

    async def close(self) -> None:
        """Count."""
        self.closed += 1


@asynccontextmanager
async def opened(
    url: str, scripted: Callable[..., ScriptedModel], pieces: int
) -> AsyncIterator[tuple[AsyncRoleplay, AsyncChatSession, Slow]]:
    """An engine, a session and a model that stops."""
    slow = Slow(scripted(WORDS, WORDS), pieces)
    async with await AsyncRoleplay.open(url, model=MODEL, chat=slow) as rp:
        yield rp, await rp.sessions.create(cast=[await rp.personas.put(Persona("Huang"))]), slow


async def take(session: AsyncChatSession) -> tuple[AsyncReplyStream, int]:
    """Take a stream to its end; gives it with the cancellations that are still asked of this task."""
    async with await session.stream("Where is the ford?") as reply:
        async for _ in reply:
            pass
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(0)
    return reply, task.cancelling()


def test_closing_ends_a_reply_and_cancels_nobody(sqlite_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """A task that waits for a piece while the engine closes sees its stream end, and goes on as if nothing was."""

    async def run() -> None:
        async with opened(sqlite_url, scripted, 10) as (rp, session, slow):
            taking = asyncio.create_task(take(session))
            await slow.waits.wait()
            await rp.close(grace_s=0.05)
            reply, cancellations = await taking
        assert cancellations == 0
        assert reply.turn.status is TurnStatus.INTERRUPTED
        assert reply.turn.reply is not None
        assert WORDS.startswith(reply.turn.reply.text)

    asyncio.run(run())


@pytest.mark.parametrize("first", ["closing", "cancelling"])
def test_closing_swallows_no_cancellation(sqlite_url: str, scripted: Callable[..., ScriptedModel], first: str) -> None:
    """A task that is cancelled at the moment at which the engine closes is cancelled; its turn is interrupted."""

    async def run() -> None:
        async with opened(sqlite_url, scripted, 10) as (rp, session, slow):
            taking = asyncio.create_task(take(session))
            await slow.waits.wait()
            [driver] = rp._runtime._on
            steps: list[Callable[[], object]] = [driver.signal_interrupt, taking.cancel]
            for step in steps if first == "closing" else reversed(steps):
                step()
            with pytest.raises(asyncio.CancelledError):
                await taking
            [turn] = (await session.turns()).items
            assert turn.status is TurnStatus.INTERRUPTED

    asyncio.run(run())


def test_a_whole_reply_is_kept_whole(sqlite_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """Whoever is cancelled after the last word, before it is stored, leaves a complete turn behind."""

    async def run() -> None:
        async with opened(sqlite_url, scripted, 1000) as (_, session, slow):
            slow.holds = True
            taking = asyncio.create_task(session.send("Where is the ford?"))
            await slow.waits.wait()
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
            [turn] = (await session.turns()).items
            assert (turn.status, turn.reply and turn.reply.text) == (TurnStatus.COMPLETED, WORDS)

    asyncio.run(run())


def test_a_reply_with_a_deadline_of_the_caller(sqlite_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """``asyncio.timeout`` around a stream raises ``TimeoutError``, with the turn interrupted, and stays usable."""

    async def run() -> None:
        async with opened(sqlite_url, scripted, 10) as (_, session, slow):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await take(session)
            [turn] = (await session.turns()).items
            assert turn.status is TurnStatus.INTERRUPTED
            slow.go_on.set()
            async with asyncio.timeout(10):
                reply, cancellations = await take(session)
            assert (reply.turn.status, cancellations) == (TurnStatus.COMPLETED, 0)

    asyncio.run(run())


@pytest.mark.parametrize("rounds", range(6))
def test_an_answer_that_comes_with_the_cancellation(
    sqlite_url: str, scripted: Callable[..., ScriptedModel], rounds: int
) -> None:
    """An answer that was opened is closed, also when its task is cancelled in the same round of the loop."""

    async def run() -> None:
        async with opened(sqlite_url, scripted, -1) as (_, session, slow):
            taking = asyncio.create_task(take(session))
            await slow.waits.wait()
            slow.go_on.set()
            for _ in range(rounds):
                await asyncio.sleep(0)
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
            assert slow.opened == min(slow.closed, 1)
            assert [turn.status for turn in await session.turns()] == [TurnStatus.INTERRUPTED]

    asyncio.run(run())


def test_what_was_stopped_begins_nothing(sqlite_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """An operation that is ended between its last reading and its claim writes none, though nothing is in its way."""

    async def run() -> None:
        async with opened(sqlite_url, scripted, 10) as (rp, session, _):
            database = rp._runtime.database
            read, reads = database.read, 0

            async def stopping(work: Any) -> Any:
                nonlocal reads
                reads += 1
                found = await read(work)
                if reads == 2:  # where the session stands, who is in it; it has no history yet
                    [driver] = rp._runtime._on
                    driver.signal_interrupt()
                return found

            database.read = stopping  # type: ignore[method-assign]
            with pytest.raises(ConflictError, match="closed"):
                await session.send("Where is the ford?")
            database.read = read  # type: ignore[method-assign]
            assert reads == 2
            assert (await session.turns()).items == ()

    asyncio.run(run())

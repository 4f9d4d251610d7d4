"""A reply, or a round of them, as it comes, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from roleplay.domain.conversation import Delta, Turn
from roleplay.domain.settings import OnDisconnect
from roleplay.errors import RoleplayError
from roleplay.session.aio.driver import AsyncDriver, AsyncRuntime
from roleplay.session.aio.relay import AsyncRelay
from roleplay.session.stream import BaseStream, OneReply, Turns
from roleplay.turns.effects import Steps

T = TypeVar("T")


class AsyncStream(BaseStream["AsyncDriver[T] | AsyncRelay[T]"], Generic[T]):
    """``Stream`` for asyncio."""

    def __init__(
        self,
        runtime: AsyncRuntime,
        operation: Steps[T],
        on_disconnect: OnDisconnect = "interrupt",
        *,
        at_once: bool = False,
    ) -> None:
        super().__init__(at_once=at_once)
        runtime.see_to_the_loop()
        if on_disconnect == "finish":
            self._driver = AsyncRelay(runtime, operation)
        else:
            self._driver = AsyncDriver(runtime, operation)
            weakref.finalize(self, runtime.end_dropped, self._driver, asyncio.get_running_loop())

    async def begin(self) -> Self:
        """Claim the turn and wait for the first piece, so that errors that can be known are raised here."""
        try:
            while not self._has_begun:
                self._take(await self._driver.until_emit())
        except BaseException:
            await self._discard()
            raise
        return self

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._driver.ended:
                return
            self._take(await self._driver.until_emit())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._driver.reader_left()

    async def _discard(self) -> None:
        """Leave before anybody has the stream; a turn that was not claimed yet shall not be."""
        with contextlib.suppress(RoleplayError):
            if self.turn_id:
                await self._driver.reader_left()
            else:
                await self._driver.interrupt()


class AsyncReplyStream(AsyncStream[Turn], OneReply["AsyncDriver[Turn] | AsyncRelay[Turn]"]):
    """``ReplyStream`` for asyncio: ``async with``, ``async for``, ``await reply.cancel()``."""

    async def cancel(self) -> Turn:
        """End the reply now and give the turn, interrupted with the text so far; ended already, give it as it is."""
        await self._driver.interrupt()
        return self.turn


class AsyncRoundStream(AsyncStream[Turns]):
    """``RoundStream`` for asyncio: ``async with``, ``async for``, ``await round.cancel()``."""

    async def turns(self) -> AsyncIterator[Turn]:
        """Give each turn of the round once it has ended, waiting for the next. What is not iterated of the replies is
        not kept."""
        while True:
            while self._finished:
                yield self._finished.popleft()
            if self._driver.ended:
                return
            self._waiting.clear()
            self._take(await self._driver.until_emit())

    async def cancel(self) -> Sequence[Turn]:
        """End the turn that speaks, interrupted with the text so far, and the round with it; gives its turns."""
        await self._driver.interrupt()
        return self._driver.result or ()

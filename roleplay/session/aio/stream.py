"""A reply as it comes, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from roleplay.domain.conversation import Delta, Turn
from roleplay.domain.settings import OnDisconnect
from roleplay.errors import RoleplayError
from roleplay.session.aio.driver import AsyncDriver, AsyncRuntime
from roleplay.session.aio.relay import AsyncRelay
from roleplay.session.stream import BaseStream
from roleplay.turns.effects import Operation


class AsyncReplyStream(BaseStream[AsyncDriver[Turn] | AsyncRelay[Turn]]):
    """``ReplyStream`` for asyncio: ``async with``, ``async for``, ``await reply.cancel()``."""

    def __init__(
        self,
        runtime: AsyncRuntime,
        operation: Operation,
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

    async def cancel(self) -> Turn:
        """End the reply now and give the turn, interrupted with the text so far; ended already, give it as it is."""
        await self._driver.interrupt()
        return self.turn

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

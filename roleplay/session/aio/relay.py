"""A reply that is driven to its end whether or not its reader stays: by a task of its own."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from roleplay.session.aio.driver import AsyncDriver, AsyncRuntime
from roleplay.session.relay import Queued, Reader
from roleplay.turns.effects import Emitted, Steps

T = TypeVar("T")


class AsyncRelay(Reader[T]):
    """An operation that is driven in a task of its own; for a stream it is as good as an ``AsyncDriver``."""

    def __init__(self, runtime: AsyncRuntime, steps: Steps[T]) -> None:
        self._driver = AsyncDriver(runtime, steps)
        super().__init__(self._driver)
        self._queue: asyncio.Queue[Queued] = asyncio.Queue()
        runtime.start(self._run())

    async def _run(self) -> None:
        try:
            while (what := await self._driver.until_emit()) is not None:
                self._queue.put_nowait(what)
        except asyncio.CancelledError:  # the loop is being ended, and has ended the reply with it
            raise
        except BaseException as error:  # noqa: BLE001 - it is the reader's
            self._queue.put_nowait(error)
            await self._driver.interrupt_quietly()
        finally:
            self._queue.put_nowait(None)

    async def until_emit(self) -> Emitted | None:
        """Wait for the next piece; ``None`` when there is no more."""
        return None if self.ended else self._take(await self._queue.get())

    async def interrupt(self) -> None:
        """As ``AsyncDriver.interrupt``. What was said before can still be taken."""
        await self._driver.interrupt()

    async def reader_left(self) -> None:
        """The reader has gone; the reply goes on."""

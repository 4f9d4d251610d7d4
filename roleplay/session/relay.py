"""A reply that is driven to its end whether or not its reader stays: by a thread, or by a task, of its own.

The reader takes what was said from a queue, so that Ctrl-C or a cancelled task reaches the reader alone.
"""

from __future__ import annotations

import asyncio
from queue import SimpleQueue
from typing import Generic, TypeVar

from roleplay.domain.conversation import Delta
from roleplay.session.driver import AsyncDriver, AsyncRuntime, Driver, Runtime
from roleplay.turns.effects import Claimed, Steps

T = TypeVar("T")
Said = Delta | Claimed | BaseException | None  # an error or nothing is the last of all


class _Heard(Generic[T]):
    """How far a reader has come. It has ended when the last piece was taken, which may be long after the reply."""

    def __init__(self, driver: Driver[T] | AsyncDriver[T]) -> None:
        self.ended = False
        self._of = driver

    @property
    def result(self) -> T | None:
        return self._of.result

    def _take(self, said: Said) -> Delta | Claimed | None:
        if isinstance(said, Delta | Claimed):
            return said
        self.ended = True
        if said is not None:
            raise said
        return None


class Relay(_Heard[T]):
    """An operation that is driven in a thread of its own; for a stream it is as good as a ``Driver``."""

    def __init__(self, runtime: Runtime, steps: Steps[T]) -> None:
        self._driver = Driver(runtime, steps)
        super().__init__(self._driver)
        self._said: SimpleQueue[Said] = SimpleQueue()
        try:
            runtime.start(self._run)
        except BaseException:
            self._driver.interrupt_quietly()
            raise

    def _run(self) -> None:
        try:
            while (what := self._driver.until_emit()) is not None:
                self._said.put(what)
        except BaseException as error:  # noqa: BLE001 - it is the reader's
            self._said.put(error)
            self._driver.interrupt_quietly()
        self._said.put(None)

    def until_emit(self) -> Delta | Claimed | None:
        """Wait for the next piece; ``None`` when there is no more."""
        return None if self.ended else self._take(self._said.get())

    def interrupt(self) -> None:
        """As ``Driver.interrupt``. What was said before can still be taken."""
        self._driver.interrupt()

    def reader_left(self) -> None:
        """The reader has gone; the reply goes on."""


class AsyncRelay(_Heard[T]):
    """An operation that is driven in a task of its own; for a stream it is as good as an ``AsyncDriver``."""

    def __init__(self, runtime: AsyncRuntime, steps: Steps[T]) -> None:
        self._driver = AsyncDriver(runtime, steps)
        super().__init__(self._driver)
        self._said: asyncio.Queue[Said] = asyncio.Queue()
        runtime.start(self._run())

    async def _run(self) -> None:
        try:
            while (what := await self._driver.until_emit()) is not None:
                self._said.put_nowait(what)
        except asyncio.CancelledError:  # the loop is being ended, and has ended the reply with it
            raise
        except BaseException as error:  # noqa: BLE001 - it is the reader's
            self._said.put_nowait(error)
            await self._driver.interrupt_quietly()
        finally:
            self._said.put_nowait(None)

    async def until_emit(self) -> Delta | Claimed | None:
        """Wait for the next piece; ``None`` when there is no more."""
        return None if self.ended else self._take(await self._said.get())

    async def interrupt(self) -> None:
        """As ``AsyncDriver.interrupt``. What was said before can still be taken."""
        await self._driver.interrupt()

    async def reader_left(self) -> None:
        """The reader has gone; the reply goes on."""

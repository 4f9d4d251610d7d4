"""A reply that is driven to its end whether or not its reader stays: by a thread, or by a task, of its own.

The reader takes what was said from a queue, so that Ctrl-C or a cancelled task reaches the reader alone.
"""

from __future__ import annotations

import asyncio
from queue import SimpleQueue
from typing import Generic, TypeVar

from roleplay.domain.conversation import Delta
from roleplay.session.drive import AsyncBackstage, AsyncDrive, Backstage, Drive
from roleplay.turns.effects import Claimed, Steps

T = TypeVar("T")
Said = Delta | Claimed | BaseException | None  # an error or nothing is the last of all


class _Heard(Generic[T]):
    """How far a reader has come. It has ended when the last piece was taken, which may be long after the reply."""

    def __init__(self, drive: Drive[T] | AsyncDrive[T]) -> None:
        self.ended = False
        self._of = drive

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
    """A course that is driven in a thread of its own; for a stream it is as good as a ``Drive``."""

    def __init__(self, backstage: Backstage, steps: Steps[T]) -> None:
        self._drive = Drive(backstage, steps)
        super().__init__(self._drive)
        self._said: SimpleQueue[Said] = SimpleQueue()
        try:
            backstage.start(self._run)
        except BaseException:
            self._drive.quit()
            raise

    def _run(self) -> None:
        try:
            while (what := self._drive.until_emit()) is not None:
                self._said.put(what)
        except BaseException as error:  # noqa: BLE001 - it is the reader's
            self._said.put(error)
            self._drive.quit()
        self._said.put(None)

    def until_emit(self) -> Delta | Claimed | None:
        """Wait for the next piece; ``None`` when there is no more."""
        return None if self.ended else self._take(self._said.get())

    def interrupt(self) -> None:
        """As ``Drive.interrupt``. What was said before can still be taken."""
        self._drive.interrupt()

    def leave(self) -> None:
        """The reader has gone; the reply goes on."""


class AsyncRelay(_Heard[T]):
    """A course that is driven in a task of its own; for a stream it is as good as an ``AsyncDrive``."""

    def __init__(self, backstage: AsyncBackstage, steps: Steps[T]) -> None:
        self._drive = AsyncDrive(backstage, steps)
        super().__init__(self._drive)
        self._said: asyncio.Queue[Said] = asyncio.Queue()
        backstage.start(self._run())

    async def _run(self) -> None:
        try:
            while (what := await self._drive.until_emit()) is not None:
                self._said.put_nowait(what)
        except asyncio.CancelledError:  # the loop is being ended, and has ended the reply with it
            raise
        except BaseException as error:  # noqa: BLE001 - it is the reader's
            self._said.put_nowait(error)
            await self._drive.quit()
        finally:
            self._said.put_nowait(None)

    async def until_emit(self) -> Delta | Claimed | None:
        """Wait for the next piece; ``None`` when there is no more."""
        return None if self.ended else self._take(await self._said.get())

    async def interrupt(self) -> None:
        """As ``AsyncDrive.interrupt``. What was said before can still be taken."""
        await self._drive.interrupt()

    async def leave(self) -> None:
        """The reader has gone; the reply goes on."""

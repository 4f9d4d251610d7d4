"""A reply that is driven to its end whether or not its reader stays: by a thread of its own.

The reader takes what was said from a queue, so that Ctrl-C reaches the reader alone.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from roleplay.domain.conversation import Delta
from roleplay.session.driver import Driver, Runtime
from roleplay.turns.effects import Claimed, Emitted, Finished, Steps

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Queued = Emitted | BaseException | None  # an error or nothing is the last of all


class HasResult(Protocol[T_co]):
    """What a reader asks of a driver."""

    @property
    def result(self) -> T_co | None:
        """What the operation gave, once it has ended."""
        ...


class Reader(Generic[T]):
    """How far a reader has come. It has ended when the last piece was taken, which may be long after the reply."""

    def __init__(self, driver: HasResult[T]) -> None:
        self.ended = False
        self._of = driver

    @property
    def result(self) -> T | None:
        return self._of.result

    def _take(self, queued: Queued) -> Emitted | None:
        if isinstance(queued, Delta | Claimed | Finished):
            return queued
        self.ended = True
        if queued is not None:
            raise queued
        return None


class Relay(Reader[T]):
    """An operation that is driven in a thread of its own; for a stream it is as good as a ``Driver``."""

    def __init__(self, runtime: Runtime, steps: Steps[T]) -> None:
        self._driver = Driver(runtime, steps)
        super().__init__(self._driver)
        self._queue: SimpleQueue[Queued] = SimpleQueue()
        try:
            runtime.start(self._run)
        except BaseException:
            self._driver.interrupt_quietly()
            raise

    def _run(self) -> None:
        try:
            while (what := self._driver.until_emit()) is not None:
                self._queue.put(what)
        except BaseException as error:  # noqa: BLE001 - it is the reader's
            self._queue.put(error)
            self._driver.interrupt_quietly()
        self._queue.put(None)

    def until_emit(self) -> Emitted | None:
        """Wait for the next piece; ``None`` when there is no more."""
        return None if self.ended else self._take(self._queue.get())

    def interrupt(self) -> None:
        """As ``Driver.interrupt``. What was said before can still be taken."""
        self._driver.interrupt()

    def reader_left(self) -> None:
        """The reader has gone; the reply goes on."""

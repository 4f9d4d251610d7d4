"""A reply, or a round of them, as it comes."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from roleplay.domain.conversation import Delta, Turn
from roleplay.domain.settings import OnDisconnect
from roleplay.errors import InvalidInputError, RoleplayError
from roleplay.session.driver import Driver, Runtime
from roleplay.session.relay import HasResult, Relay
from roleplay.turns.effects import Claimed, Emitted, Finished, Steps

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
D = TypeVar("D", bound="Ending[object]")
Turns = tuple[Turn, ...]


class Ending(HasResult[T_co], Protocol[T_co]):
    """What a stream asks of a driver or a relay."""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        ...


class BaseStream(Generic[D]):
    """What all streams know: the turn that speaks, by its id, from its claim on, and what waits to be taken."""

    _driver: D

    def __init__(self, *, at_once: bool) -> None:
        self.turn_id = ""
        self._at_once = at_once
        self._waiting: deque[Delta] = deque()
        self._finished: deque[Turn] = deque()

    def _take(self, what: Emitted | None) -> None:
        if isinstance(what, Claimed):
            self.turn_id = what.turn_id
        elif isinstance(what, Finished):
            self._finished.append(what.turn)
        elif what is not None:
            self._waiting.append(what)

    @property
    def _has_begun(self) -> bool:
        waits = bool(self._waiting) or bool(self._finished)
        return waits or self._driver.ended or (self._at_once and bool(self.turn_id))


class OneReply(BaseStream[D]):
    """A stream of one reply, after which there is its turn."""

    @property
    def turn(self) -> Turn:
        """The stored turn, after any end. Raises ``InvalidInputError`` while the stream still runs."""
        turn = self._driver.result
        if isinstance(turn, Turn):
            return turn
        if self._driver.ended:
            allowed = f"session.turn({self.turn_id!r})"
            raise InvalidInputError("turn", "is not known here: the stream ended without it", allowed=allowed)
        raise InvalidInputError("turn", "the stream has not ended", allowed="iterate to the end, or cancel()")


class Stream(BaseStream["Driver[T] | Relay[T]"], Generic[T]):
    """What comes of an operation, for a blocking reader."""

    def __init__(
        self,
        runtime: Runtime,
        operation: Steps[T],
        on_disconnect: OnDisconnect = "interrupt",
        *,
        at_once: bool = False,
    ) -> None:
        """Claim the turn and wait for the first piece, so that errors that can be known are raised here.

        ``at_once``: not for a piece, only until it is known which turn it is.
        """
        super().__init__(at_once=at_once)
        if on_disconnect == "finish":
            self._driver = Relay(runtime, operation)
        else:
            self._driver = Driver(runtime, operation)
            weakref.finalize(self, runtime.end_dropped, self._driver)
        try:
            while not self._has_begun:
                self._take(self._driver.until_emit())
        except BaseException:
            self._discard()  # Ctrl-C may come between any two lines, and nobody has this stream to leave it
            raise

    def __iter__(self) -> Iterator[Delta]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._driver.ended:
                return
            self._take(self._driver.until_emit())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._driver.reader_left()

    def _discard(self) -> None:
        """Leave before anybody has the stream; a turn that was not claimed yet shall not be."""
        with contextlib.suppress(RoleplayError):
            if self.turn_id:
                self._driver.reader_left()
            else:
                self._driver.interrupt()


class ReplyStream(Stream[Turn], OneReply["Driver[Turn] | Relay[Turn]"]):
    """A reply as it comes: iterate it for ``Delta`` values, inside ``with`` so that leaving ends the turn.

    Leaving the block early, an exception in the block, or dropping the stream stores the turn as ``interrupted`` with
    the text so far; with ``TurnOptions(on_disconnect="finish")`` the reply goes on without its reader. ``cancel()``
    interrupts in either case. ``turn_id`` is known from the start, ``turn`` after any end, also when the iteration
    raised. The text that counts is ``turn.reply``: what was given as speech may have proved to be reasoning since.
    """

    def cancel(self) -> Turn:
        """End the reply now and give the turn, interrupted with the text so far; ended already, give it as it is."""
        self._driver.interrupt()
        return self.turn


class RoundStream(Stream[Turns]):
    """A round as it comes: iterate it for the ``Delta`` values of all its replies, each with its ``seat`` and its
    ``turn_id``, or iterate ``turns()``; inside ``with``, so that leaving ends the turn that speaks and the round.

    ``turn_id`` is that of the turn that speaks. A turn that fails ends the round: the iteration raises, and the turns
    before stay.
    """

    def turns(self) -> Iterator[Turn]:
        """Give each turn of the round once it has ended, waiting for the next. What is not iterated of the replies is
        not kept."""
        while True:
            while self._finished:
                yield self._finished.popleft()
            if self._driver.ended:
                return
            self._waiting.clear()
            self._take(self._driver.until_emit())

    def cancel(self) -> Sequence[Turn]:
        """End the turn that speaks, interrupted with the text so far, and the round with it; gives its turns."""
        self._driver.interrupt()
        return self._driver.result or ()

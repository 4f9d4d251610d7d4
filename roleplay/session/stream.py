"""A reply as it comes."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from roleplay.domain.conversation import Delta, Turn
from roleplay.domain.settings import OnDisconnect
from roleplay.errors import InvalidInputError, RoleplayError
from roleplay.session.driver import Driver, Runtime
from roleplay.session.relay import HasResult, Relay
from roleplay.turns.effects import Claimed, Operation

D = TypeVar("D", bound="Ending")


class Ending(HasResult[Turn], Protocol):
    """What a stream asks of a driver or a relay."""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        ...


class BaseStream(Generic[D]):
    """What both streams know: the turn's id from its claim on, pieces that wait to be taken, the turn after the end."""

    _driver: D

    def __init__(self, *, at_once: bool) -> None:
        self.turn_id = ""
        self._at_once = at_once
        self._waiting: deque[Delta] = deque()

    @property
    def turn(self) -> Turn:
        """The stored turn, after any end. Raises ``InvalidInputError`` while the stream still runs."""
        turn = self._driver.result
        if turn is None and self._driver.ended:
            allowed = f"session.turn({self.turn_id!r})"
            raise InvalidInputError("turn", "is not known here: the stream ended without it", allowed=allowed)
        if turn is None:
            raise InvalidInputError("turn", "the stream has not ended", allowed="iterate to the end, or cancel()")
        return turn

    def _take(self, what: Delta | Claimed | None) -> None:
        if isinstance(what, Claimed):
            self.turn_id = what.turn_id
        elif what is not None:
            self._waiting.append(what)

    @property
    def _has_begun(self) -> bool:
        return bool(self._waiting) or self._driver.ended or (self._at_once and bool(self.turn_id))


class ReplyStream(BaseStream[Driver[Turn] | Relay[Turn]]):
    """A reply as it comes: iterate it for ``Delta`` values, inside ``with`` so that leaving ends the turn.

    Leaving the block early, an exception in the block, or dropping the stream stores the turn as ``interrupted`` with
    the text so far; with ``TurnOptions(on_disconnect="finish")`` the reply goes on without its reader. ``cancel()``
    interrupts in either case. ``turn_id`` is known from the start, ``turn`` after any end, also when the iteration
    raised. The text that counts is ``turn.reply``: what was given as speech may have proved to be reasoning since.
    """

    def __init__(
        self,
        runtime: Runtime,
        operation: Operation,
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

    def cancel(self) -> Turn:
        """End the reply now and give the turn, interrupted with the text so far; ended already, give it as it is."""
        self._driver.interrupt()
        return self.turn

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

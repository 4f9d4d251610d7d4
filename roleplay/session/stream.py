"""A reply as it comes, for both shells."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from roleplay.domain.conversation import Delta, Turn
from roleplay.domain.settings import OnDisconnect
from roleplay.errors import InvalidInputError, RoleplayError
from roleplay.session.drive import AsyncBackstage, AsyncDrive, Backstage, Drive
from roleplay.session.relay import AsyncRelay, Relay
from roleplay.turns.effects import Claimed, Course

D = TypeVar("D", bound="Drive[Turn] | Relay[Turn] | AsyncDrive[Turn] | AsyncRelay[Turn]")


class _Stream(Generic[D]):
    """What both streams know: the turn's id from its claim on, pieces that wait to be taken, the turn after the end."""

    _drive: D

    def __init__(self, *, at_once: bool) -> None:
        self.turn_id = ""
        self._at_once = at_once
        self._waiting: deque[Delta] = deque()

    @property
    def turn(self) -> Turn:
        """The stored turn, after any end. Raises ``InvalidInputError`` while the stream still runs."""
        turn = self._drive.result
        if turn is None and self._drive.ended:
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
        return bool(self._waiting) or self._drive.ended or (self._at_once and bool(self.turn_id))


class ReplyStream(_Stream[Drive[Turn] | Relay[Turn]]):
    """A reply as it comes: iterate it for ``Delta`` values, inside ``with`` so that leaving ends the turn.

    Leaving the block early, an exception in the block, or dropping the stream stores the turn as ``interrupted`` with
    the text so far; with ``TurnOptions(on_disconnect="finish")`` the reply goes on without its reader. ``cancel()``
    interrupts in either case. ``turn_id`` is known from the start, ``turn`` after any end, also when the iteration
    raised. The text that counts is ``turn.reply``: what was given as speech may have proved to be reasoning since.
    """

    def __init__(
        self, backstage: Backstage, course: Course, on_disconnect: OnDisconnect = "interrupt", *, at_once: bool = False
    ) -> None:
        """Claim the turn and wait for the first piece, so that errors that can be known are raised here.

        ``at_once``: not for a piece, only until it is known which turn it is.
        """
        super().__init__(at_once=at_once)
        if on_disconnect == "finish":
            self._drive = Relay(backstage, course)
        else:
            self._drive = Drive(backstage, course)
            weakref.finalize(self, backstage.see_off, self._drive)
        try:
            while not self._has_begun:
                self._take(self._drive.until_emit())
        except BaseException:
            self._leave()  # Ctrl-C may come between any two lines, and nobody has this stream to leave it
            raise

    def cancel(self) -> Turn:
        """End the reply now and give the turn, interrupted with the text so far; ended already, give it as it is."""
        self._drive.interrupt()
        return self.turn

    def __iter__(self) -> Iterator[Delta]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._drive.ended:
                return
            self._take(self._drive.until_emit())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drive.leave()

    def _leave(self) -> None:
        """Leave before anybody has the stream; a turn that was not claimed yet shall not be."""
        with contextlib.suppress(RoleplayError):
            if self.turn_id:
                self._drive.leave()
            else:
                self._drive.interrupt()


class AsyncReplyStream(_Stream[AsyncDrive[Turn] | AsyncRelay[Turn]]):
    """``ReplyStream`` for asyncio: ``async with``, ``async for``, ``await reply.cancel()``."""

    def __init__(
        self,
        backstage: AsyncBackstage,
        course: Course,
        on_disconnect: OnDisconnect = "interrupt",
        *,
        at_once: bool = False,
    ) -> None:
        super().__init__(at_once=at_once)
        backstage.see_to_the_loop()
        if on_disconnect == "finish":
            self._drive = AsyncRelay(backstage, course)
        else:
            self._drive = AsyncDrive(backstage, course)
            weakref.finalize(self, backstage.see_off, self._drive, asyncio.get_running_loop())

    async def begin(self) -> Self:
        """Claim the turn and wait for the first piece, so that errors that can be known are raised here."""
        try:
            while not self._has_begun:
                self._take(await self._drive.until_emit())
        except BaseException:
            await self._leave()
            raise
        return self

    async def cancel(self) -> Turn:
        """End the reply now and give the turn, interrupted with the text so far; ended already, give it as it is."""
        await self._drive.interrupt()
        return self.turn

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._drive.ended:
                return
            self._take(await self._drive.until_emit())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drive.leave()

    async def _leave(self) -> None:
        """Leave before anybody has the stream; a turn that was not claimed yet shall not be."""
        with contextlib.suppress(RoleplayError):
            if self.turn_id:
                await self._drive.leave()
            else:
                await self._drive.interrupt()

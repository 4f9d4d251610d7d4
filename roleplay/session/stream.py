"""A reply as it comes, for both shells."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from roleplay.domain.conversation import Delta, Turn
from roleplay.errors import InvalidInputError
from roleplay.session.drive import AsyncBackstage, AsyncDrive, Backstage, Drive
from roleplay.turns.effects import Claimed, Course

D = TypeVar("D", bound="Drive[Turn] | AsyncDrive[Turn]")


class _Stream(Generic[D]):
    """What both streams know: the turn's id from its claim on, pieces that wait to be taken, the turn after the end."""

    _drive: D

    def __init__(self) -> None:
        self.turn_id = ""
        self._turn: Turn | None = None
        self._waiting: deque[Delta] = deque()

    @property
    def turn(self) -> Turn:
        """The stored turn. Raises ``InvalidInputError`` while the stream still runs."""
        turn = self._turn or self._drive.result
        if turn is None:
            raise InvalidInputError("turn", "the stream has not ended", allowed="iterate to the end, or cancel()")
        return turn

    def _take(self, what: Delta | Claimed | None, result: Turn | None) -> None:
        if isinstance(what, Claimed):
            self.turn_id = what.turn_id
        elif what is not None:
            self._waiting.append(what)
        if self._turn is None and result is not None:
            self._turn = result
            self.turn_id = result.id


class ReplyStream(_Stream[Drive[Turn]]):
    """A reply as it comes: iterate it for ``Delta`` values, inside ``with`` so that leaving ends the turn.

    Leaving the block early, ``cancel()`` or an exception in the block stores the turn as ``interrupted`` with the text
    so far. ``turn_id`` is known from the start, ``turn`` after any end.
    """

    def __init__(self, backstage: Backstage, course: Course) -> None:
        """Claim the turn and wait for the first piece, so that errors that can be known are raised here."""
        super().__init__()
        self._drive = Drive(backstage, course)
        try:
            while not self._waiting and not self._drive.ended:
                self._take(self._drive.until_emit(), self._drive.result)
        except BaseException:
            self._drive.interrupt()  # Ctrl-C may come between any two lines, and nobody has this stream to leave it
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
            self._take(self._drive.until_emit(), self._drive.result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._drive.ended:
            self.cancel()


class AsyncReplyStream(_Stream[AsyncDrive[Turn]]):
    """``ReplyStream`` for asyncio: ``async with``, ``async for``, ``await reply.cancel()``."""

    def __init__(self, backstage: AsyncBackstage, course: Course) -> None:
        super().__init__()
        self._drive = AsyncDrive(backstage, course)

    async def begin(self) -> Self:
        """Claim the turn and wait for the first piece, so that errors that can be known are raised here."""
        while not self._waiting and not self._drive.ended:
            self._take(await self._drive.until_emit(), self._drive.result)
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
            self._take(await self._drive.until_emit(), self._drive.result)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._drive.ended:
            await self.cancel()

"""A session's handle for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from roleplay.domain.cast import Played, Seat
from roleplay.domain.context import ContextReport
from roleplay.domain.conversation import Participant, PlayedBy, SessionInfo, Turn
from roleplay.domain.guards import StoredVerdict
from roleplay.domain.page import Page
from roleplay.domain.settings import DEFAULT_OPTIONS, SeatRef, SessionSettings, TurnOptions
from roleplay.operations import casts
from roleplay.session.aio.driver import AsyncRuntime
from roleplay.session.aio.stream import AsyncReplyStream, AsyncRoundStream
from roleplay.session.handle import ITER_PAGE, Preview, preview_of
from roleplay.turns import explaining, following, reading, seated, tree
from roleplay.turns.arguments import Speaker, options_of
from roleplay.turns.scope import SessionScope


class AsyncChatSession:
    """``ChatSession`` for asyncio; every door does what its twin's does."""

    def __init__(self, runtime: AsyncRuntime, scope: SessionScope) -> None:
        self._runtime = runtime
        self._scope = scope
        self.tree = AsyncTree(runtime, scope)
        self.cast = AsyncCast(runtime, scope)

    @property
    def id(self) -> str:
        return self._scope.session_id

    def __repr__(self) -> str:
        seat = "" if self._scope.seat is None else f".seen_by({self._scope.seat!r})"
        return f"AsyncChatSession({self.id!r}){seat}"

    def seen_by(self, seat: SeatRef) -> AsyncChatSession:
        """As ``ChatSession.seen_by``."""
        return AsyncChatSession(self._runtime, self._scope.through(seat))

    async def info(self) -> SessionInfo:
        """As ``ChatSession.info``."""
        return await self._runtime.run(reading.info(self._scope))

    async def update(self, *, scene: str | None = None, settings: SessionSettings | None = None) -> SessionInfo:
        """As ``ChatSession.update``."""
        return await self._runtime.run(tree.update(self._scope, scene, settings))

    async def send(self, text: str, *, speaker: SeatRef | None = None, options: TurnOptions = DEFAULT_OPTIONS) -> Turn:
        """As ``ChatSession.send``."""
        return await self._runtime.run(seated.send(self._scope, text, speaker, options, stream=False), speaks=True)

    async def stream(
        self, text: str, *, speaker: SeatRef | None = None, options: TurnOptions = DEFAULT_OPTIONS
    ) -> AsyncReplyStream:
        """As ``ChatSession.stream``."""
        operation = seated.send(self._scope, text, speaker, options, stream=True)
        return await AsyncReplyStream(self._runtime, operation, options_of(options).on_disconnect).begin()

    async def round(
        self,
        text: str | None = None,
        *,
        speaker: SeatRef | None = None,
        max_turns: int | None = None,
        options: TurnOptions = DEFAULT_OPTIONS,
    ) -> AsyncRoundStream:
        """As ``ChatSession.round``."""
        operation = seated.speak_round(self._scope, text, speaker, max_turns, options)
        return await AsyncRoundStream(self._runtime, operation, options_of(options).on_disconnect).begin()

    async def regenerate(
        self, turn_id: str | None = None, *, hint: str = "", options: TurnOptions = DEFAULT_OPTIONS
    ) -> AsyncReplyStream:
        """As ``ChatSession.regenerate``."""
        operation = seated.regenerate(self._scope, turn_id, hint, options, stream=True)
        return await AsyncReplyStream(self._runtime, operation, options_of(options).on_disconnect).begin()

    async def speak(
        self, participant: SeatRef | None = None, *, hint: str = "", options: TurnOptions = DEFAULT_OPTIONS
    ) -> AsyncReplyStream:
        """As ``ChatSession.speak``."""
        operation = seated.speak(self._scope, participant, hint, options, stream=True)
        return await AsyncReplyStream(self._runtime, operation, options_of(options).on_disconnect).begin()

    async def add(self, text: str, *, speaker: Speaker = "user", options: TurnOptions = DEFAULT_OPTIONS) -> Turn:
        """As ``ChatSession.add``."""
        return await self._runtime.run(seated.add(self._scope, text, speaker, options))

    async def retry(self, turn_id: str | None = None, *, options: TurnOptions = DEFAULT_OPTIONS) -> AsyncReplyStream:
        """As ``ChatSession.retry``."""
        operation = seated.retry(self._scope, turn_id, options, stream=True)
        return await AsyncReplyStream(self._runtime, operation, options_of(options).on_disconnect).begin()

    async def resume(self, turn_id: str | None = None, *, options: TurnOptions = DEFAULT_OPTIONS) -> AsyncReplyStream:
        """As ``ChatSession.resume``."""
        operation = seated.resume(self._scope, turn_id, options, stream=True)
        return await AsyncReplyStream(self._runtime, operation, options_of(options).on_disconnect).begin()

    async def follow(self, turn_id: str, *, offset: int = 0) -> AsyncReplyStream:
        """As ``ChatSession.follow``."""
        operation = following.follow(self._scope, turn_id, offset)
        return await AsyncReplyStream(self._runtime, operation, at_once=True).begin()

    async def accept(self, turn_id: str) -> Turn:
        """As ``ChatSession.accept``."""
        return await self._runtime.run(tree.accept(self._scope, turn_id))

    async def preview(
        self, text: str, *, speaker: SeatRef | None = None, options: TurnOptions = DEFAULT_OPTIONS
    ) -> Preview:
        """As ``ChatSession.preview``."""
        return preview_of(await self._runtime.run(seated.preview(self._scope, text, speaker, options)))

    async def report(self, turn_id: str | None = None) -> ContextReport:
        """As ``ChatSession.report``."""
        return await self._runtime.run(explaining.report(self._scope, turn_id))

    async def turns(self, *, before: str | None = None, limit: int = 50) -> Page[Turn]:
        """As ``ChatSession.turns``."""
        return await self._runtime.run(reading.turns(self._scope, before, limit))

    async def iter_turns(self) -> AsyncIterator[Turn]:
        """As ``ChatSession.iter_turns``."""
        page = await self.turns(limit=ITER_PAGE)
        while True:
            for one in reversed(page.items):
                yield one
            if page.older is None:
                return
            page = await self.turns(before=page.older, limit=ITER_PAGE)

    async def verdicts(self, turn_id: str) -> Sequence[StoredVerdict]:
        """As ``ChatSession.verdicts``."""
        return await self._runtime.run(reading.verdicts(self._scope, turn_id))

    async def turn(self, turn_id: str | int) -> Turn:
        """As ``ChatSession.turn``."""
        return await self._runtime.run(reading.turn(self._scope, turn_id))


class AsyncCast:
    """``Cast`` for asyncio; every door does what its twin's does."""

    def __init__(self, runtime: AsyncRuntime, scope: SessionScope) -> None:
        self._runtime = runtime
        self._scope = scope

    async def list(self) -> Sequence[Participant]:
        """As ``Cast.list``."""
        return await self._runtime.run(casts.members(self._scope))

    async def join(self, seat: Played | Seat, *, played_by: PlayedBy = PlayedBy.MODEL) -> Participant:
        """As ``Cast.join``."""
        return await self._runtime.run(casts.join(self._scope, seat, played_by))

    async def leave(self, seat: SeatRef) -> Participant:
        """As ``Cast.leave``."""
        return await self._runtime.run(casts.leave(self._scope, seat))

    async def mute(self, seat: SeatRef, *, muted: bool = True) -> Participant:
        """As ``Cast.mute``."""
        return await self._runtime.run(casts.mute(self._scope, seat, muted=muted))

    async def move(self, seat: SeatRef, order: int) -> Participant:
        """As ``Cast.move``."""
        return await self._runtime.run(casts.move(self._scope, seat, order))

    async def use(self, seat: SeatRef, persona: Played, *, version: int | None = None) -> Participant:
        """As ``Cast.use``."""
        return await self._runtime.run(casts.use(self._scope, seat, persona, version))


class AsyncTree:
    """``Tree`` for asyncio; every door does what its twin's does."""

    def __init__(self, runtime: AsyncRuntime, scope: SessionScope) -> None:
        self._runtime = runtime
        self._scope = scope

    async def choose(self, turn_id: str) -> Turn:
        """As ``Tree.choose``."""
        return await self._runtime.run(tree.choose(self._scope, turn_id))

    async def fork(self, turn_id: str) -> Turn:
        """As ``Tree.fork``."""
        return await self._runtime.run(tree.fork(self._scope, turn_id))

    async def rewind(self, turns: int = 1) -> Turn | None:
        """As ``Tree.rewind``."""
        return await self._runtime.run(tree.rewind(self._scope, turns))

    async def edit(self, turn_id: str, text: str) -> Turn:
        """As ``Tree.edit``."""
        return await self._runtime.run(tree.edit(self._scope, turn_id, text))

    async def hide(self, turn_id: str) -> Turn:
        """As ``Tree.hide``."""
        return await self._runtime.run(tree.hide(self._scope, turn_id, hidden=True))

    async def show(self, turn_id: str) -> Turn:
        """As ``Tree.show``."""
        return await self._runtime.run(tree.hide(self._scope, turn_id, hidden=False))

    async def undo(self) -> Turn | None:
        """As ``Tree.undo``."""
        return await self._runtime.run(tree.undo(self._scope))

    async def branches(self) -> Sequence[Turn]:
        """As ``Tree.branches``."""
        return await self._runtime.run(tree.branches(self._scope))

    async def variants(self, turn_id: str) -> Sequence[Turn]:
        """As ``Tree.variants``."""
        return await self._runtime.run(tree.variants(self._scope, turn_id))

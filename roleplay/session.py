"""A session's handle, and the shell that drives courses with blocking calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from roleplay import turns
from roleplay.chat.transport import Answer, Transport
from roleplay.domain.context import ContextMessage, ContextReport
from roleplay.domain.conversation import Delta, SessionInfo, Turn
from roleplay.domain.page import Page
from roleplay.domain.settings import DEFAULT_OPTIONS, TurnOptions
from roleplay.domain.values import Value
from roleplay.errors import InvalidInputError
from roleplay.store import sessions, transcript
from roleplay.store.database import Database

T = TypeVar("T")
PAGE_LIMIT = 500


class Preview(Value):
    """What would be sent, and why. ``messages`` are (role, name, text) before the dialect writes them; ``body`` is the
    request, byte for byte."""

    report: ContextReport
    messages: tuple[ContextMessage, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Backstage:
    """What the handles of one engine share: the database and the network."""

    database: Database
    transport: Transport


class Drive:
    """Performs the effects of one course, blocking, until it has ended."""

    def __init__(self, backstage: Backstage, course: Generator[turns.Effect, Any, Any]) -> None:
        self._backstage = backstage
        self._course = course
        self._answer: Answer | None = None
        self._effect: turns.Effect | None = None
        self.result: Any = None
        self.ended = False
        self._advance(lambda: next(course))

    def until_emit(self) -> Delta | turns.Claimed | None:
        """Perform effects until something is handed to the caller; ``None`` when the course has ended."""
        while not self.ended:
            effect = self._effect
            if isinstance(effect, turns.Emit):
                self._advance(lambda: self._course.send(None))
                return effect.what
            self._perform(effect)
        return None

    def to_end(self) -> Any:
        """Perform everything that is left and give the course's result."""
        while not self.ended:
            self.until_emit()
        return self.result

    def throw(self, error: BaseException) -> None:
        """Let the course know that its caller has gone or failed; it then ends the turn properly."""
        if not self.ended:
            self._advance(lambda: self._course.throw(error))

    def _perform(self, effect: turns.Effect | None) -> None:
        try:
            result = self._do(effect)
        except BaseException as error:  # noqa: BLE001 - the course decides what every failure means, Ctrl-C too
            self.throw(error)
        else:
            self._advance(lambda: self._course.send(result))

    def _advance(self, step: Callable[[], turns.Effect]) -> None:
        try:
            self._effect = step()
        except StopIteration as stop:
            self._end(stop.value)
        except BaseException:
            self._end(None)
            raise

    def _end(self, result: Any) -> None:
        self.ended = True
        self.result = result
        if self._answer is not None:
            self._answer.close()

    def _do(self, effect: turns.Effect | None) -> Any:
        match effect:
            case turns.Read(work):
                return self._backstage.database.read(work)
            case turns.Write(work):
                return self._backstage.database.write(work)
            case turns.Open(endpoint, request):
                self._answer = self._backstage.transport.open(endpoint, request)
                return self._answer.status, self._answer.content_type
            case turns.Receive():
                assert self._answer is not None
                return self._answer.read()
            case turns.Release():
                if self._answer is not None:
                    self._answer.release()
            case turns.Pause(seconds):
                time.sleep(seconds)
        return None


class ReplyStream:
    """A reply as it comes: iterate it for ``Delta`` values, inside ``with`` so that leaving ends the turn.

    Leaving the block early, ``cancel()`` or an exception in the block stores the turn as ``interrupted`` with the text
    so far. ``turn_id`` is known from the start, ``turn`` after any end.
    """

    def __init__(self, backstage: Backstage, course: turns.Course) -> None:
        """Claim the turn and wait for the first piece, so that errors that can be known are raised here."""
        self.turn_id = ""
        self._turn: Turn | None = None
        self._waiting: list[Delta] = []
        self._drive = Drive(backstage, course)
        while not self._waiting and not self._drive.ended:
            self._take(self._drive.until_emit())

    @property
    def turn(self) -> Turn:
        """The stored turn. Raises ``InvalidInputError`` while the stream still runs."""
        if self._turn is None:
            raise InvalidInputError("turn", "the stream has not ended", allowed="iterate to the end, or cancel()")
        return self._turn

    def cancel(self) -> Turn:
        """End the reply now and give the turn, interrupted with the text so far; ended already, give it as it is."""
        self._drive.throw(turns.Interrupt())
        self._drive.to_end()
        self._note_end()
        return self.turn

    def __iter__(self) -> Iterator[Delta]:
        while True:
            while self._waiting:
                yield self._waiting.pop(0)
            if self._drive.ended:
                return
            self._take(self._drive.until_emit())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._drive.ended:
            self.cancel()

    def _take(self, what: Delta | turns.Claimed | None) -> None:
        if isinstance(what, turns.Claimed):
            self.turn_id = what.turn_id
        elif what is not None:
            self._waiting.append(what)
        self._note_end()

    def _note_end(self) -> None:
        if self._drive.ended and self._turn is None and isinstance(self._drive.result, Turn):
            self._turn = self._drive.result
            self.turn_id = self._turn.id


class ChatSession:
    """A stored conversation. The handle holds an id and no history; it may be shared by threads."""

    def __init__(self, backstage: Backstage, scene: turns.Scene) -> None:
        self._backstage = backstage
        self._scene = scene

    @property
    def id(self) -> str:
        return self._scene.session_id

    def __repr__(self) -> str:
        return f"ChatSession({self.id!r})"

    def info(self) -> SessionInfo:
        """Read the session as it stands. Raises ``NotFoundError``."""
        return self._read(lambda db: sessions.get(db, self._scene.tenant, self.id))

    def send(self, text: str, *, options: TurnOptions = DEFAULT_OPTIONS) -> Turn:
        """Say ``text`` and wait for the whole reply.

        Raises, with nothing written: ``InvalidInputError``, ``NotFoundError``, ``BudgetError``, ``ConflictError`` while
        another turn runs on this session. Raises ``ChatError`` when the service failed: the turn is stored as failed,
        its id is the error's ``turn_id``, and the session goes on from where it stood.
        """
        turn: Turn = Drive(self._backstage, turns.send(self._scene, text, options, stream=False)).to_end()
        return turn

    def stream(self, text: str, *, options: TurnOptions = DEFAULT_OPTIONS) -> ReplyStream:
        """Say ``text`` and give the reply as it comes. Raises like ``send``, before anything is iterated; an error in
        mid-reply is raised by the iteration, and the turn is stored as interrupted with the text so far."""
        return ReplyStream(self._backstage, turns.send(self._scene, text, options, stream=True))

    def preview(self, text: str, *, options: TurnOptions = DEFAULT_OPTIONS) -> Preview:
        """Give what ``send`` would send and why; calls nothing, writes nothing. Raises as ``send`` before it writes."""
        plan: turns.Plan = Drive(
            self._backstage, turns.plan_reply(self._scene, turns.checked(text), options.sampling, stream=False)
        ).to_end()
        return Preview(report=plan.draft.report, messages=tuple(plan.draft.messages), body=plan.body)

    def turns(self, *, before: str | None = None, limit: int = 50) -> Page[Turn]:
        """Give a page of the active path, oldest first; the newest page unless ``before`` is a page's ``older``.

        The newest page ends with the last attempt after the path when it has not become a reply: failed, interrupted
        or still in flight, as its ``status`` says. Raises ``NotFoundError`` and ``InvalidInputError``.
        """
        if not 1 <= limit <= PAGE_LIMIT:
            raise InvalidInputError("limit", f"is {limit}", allowed=f"1 to {PAGE_LIMIT}")
        return self._read(lambda db: transcript.page(db, self._scene.tenant, self.id, before=before, limit=limit))

    def turn(self, turn_id: str) -> Turn:
        """Give one turn, on the active path or not. Raises ``NotFoundError``."""
        return self._read(lambda db: transcript.by_id(db, self._scene.tenant, self.id, turn_id))

    def _read(self, work: Callable[[Any], T]) -> T:
        return self._backstage.database.read(work)

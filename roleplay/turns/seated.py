"""What is said through a handle that sees as a seat: that seat says it, and is given what it may see of what comes.

For a scope that looks through nobody's eyes, each operation is the plain one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from roleplay.domain.conversation import Delta, DeltaKind, Participant, PlayedBy, Turn
from roleplay.domain.settings import SeatRef, TurnOptions
from roleplay.domain.values import KEY_LIMIT
from roleplay.errors import BudgetError, ConflictError, InvalidInputError, NotFoundError, RoleplayError
from roleplay.store import Connection
from roleplay.store.records import transcript
from roleplay.turns import adding, explaining, rounds, speaking
from roleplay.turns.arguments import Speaker, options_of
from roleplay.turns.basis import read_position
from roleplay.turns.effects import Claimed, Emit, Ended, Finished, Interrupt, Operation, Steps, read
from roleplay.turns.explaining import PlanPreview
from roleplay.turns.scope import SessionScope, render_revision, viewer_in

T = TypeVar("T")


class _Terms(NamedTuple):
    """On which terms something is said: by whose handle (``None``: nobody's in particular), and with which options."""

    who: Participant | None
    options: TurnOptions


def send(scope: SessionScope, text: str, speaker: SeatRef | None, options: TurnOptions, *, stream: bool) -> Operation:
    """As ``speaking.send``; the seat says it."""

    def operation(terms: _Terms) -> Operation:
        return speaking.send(scope, text, terms.options, stream=stream, speaker=_speaker(terms.who, speaker))

    return _as_seat(scope, options, operation)


def speak_round(
    scope: SessionScope, text: str | None, speaker: SeatRef | None, max_turns: int | None, options: TurnOptions
) -> Steps[tuple[Turn, ...]]:
    """As ``rounds.speak_round``; the seat says it, which is a human's."""

    def operation(terms: _Terms) -> Steps[tuple[Turn, ...]]:
        if terms.who is not None and terms.who.played_by is PlayedBy.MODEL:
            problem = f"{terms.who.display_name!r} is played by the model, and begins no round"
            raise InvalidInputError("seen_by", problem, allowed="speak(), or the handle of a human's seat")
        return rounds.speak_round(scope, text, _speaker(terms.who, speaker), max_turns, terms.options)

    return _as_seat(scope, options, operation)


def regenerate(scope: SessionScope, turn_id: str | None, hint: str, options: TurnOptions, *, stream: bool) -> Operation:
    """As ``speaking.regenerate``, of a turn that the seat may see."""
    return _as_seat(
        scope, options, lambda terms: speaking.regenerate(scope, turn_id, hint, terms.options, stream=stream)
    )


def speak(scope: SessionScope, who: SeatRef | None, hint: str, options: TurnOptions, *, stream: bool) -> Operation:
    """As ``speaking.speak``; a seat of the model's lets only itself speak."""

    def operation(terms: _Terms) -> Operation:
        by_model = terms.who is not None and terms.who.played_by is PlayedBy.MODEL
        seat = _speaker(terms.who, who, "participant") if by_model else who
        return speaking.speak(scope, seat, hint, terms.options, stream=stream)

    return _as_seat(scope, options, operation)


def retry(scope: SessionScope, turn_id: str | None, options: TurnOptions, *, stream: bool) -> Operation:
    """As ``speaking.retry``, of a turn that the seat may see."""
    return _as_seat(scope, options, lambda terms: speaking.retry(scope, turn_id, terms.options, stream=stream))


def resume(scope: SessionScope, turn_id: str | None, options: TurnOptions, *, stream: bool) -> Operation:
    """As ``speaking.resume``, of a turn that the seat may see."""
    return _as_seat(scope, options, lambda terms: speaking.resume(scope, turn_id, terms.options, stream=stream))


def add(scope: SessionScope, text: str, speaker: Speaker, options: TurnOptions) -> Operation:
    """As ``adding.add``; the seat says it."""

    def operation(terms: _Terms) -> Operation:
        own = terms.who is not None and (
            speaker == "user" or (speaker == "model" and terms.who.played_by is PlayedBy.MODEL)
        )
        return adding.add(scope, text, _speaker(terms.who, None if own else speaker) or speaker, terms.options)

    return _as_seat(scope, options, operation)


def preview(scope: SessionScope, text: str, speaker: SeatRef | None, options: TurnOptions) -> Steps[PlanPreview]:
    """As ``explaining.preview``; nobody's who looks as a seat, since a request holds what its speaker may see."""
    if scope.seat is not None:
        problem = f"is what {scope.seat!r:.50} sees, and a request holds what another does"
        raise InvalidInputError("seen_by", problem, allowed="the session's own handle")
    return (yield from explaining.preview(scope, text, speaker, options))


def _speaker(who: Participant | None, named: SeatRef | None, field: str = "speaker") -> SeatRef | None:
    """Give who speaks: the seat whose handle it is, where it is one's. Raises ``InvalidInputError`` for another."""
    if who is None:
        return named
    names = {name.casefold() for name in (who.display_name, *who.aliases)}
    by_name = isinstance(named, str) and named.strip().casefold() in names
    if not (named is None or by_name or (type(named) is int and named == who.seat)):
        allowed = f"{who.seat} ({who.display_name}), whose handle this is"
        raise InvalidInputError(field, f"is {named!r:.50}", allowed=allowed)
    return who.seat


def _as_seat(scope: SessionScope, options: TurnOptions, operation: Callable[[_Terms], Steps[T]]) -> Steps[T]:
    """Let the scope's seat do something, and show it what it may see of that."""
    return operation(_Terms(None, options)) if scope.seat is None else _seated(scope, scope.seat, options, operation)


def _seated(
    scope: SessionScope, seat: SeatRef, options: TurnOptions, operation: Callable[[_Terms], Steps[T]]
) -> Steps[T]:
    options_of(options)
    position = yield from read_position(scope)
    rendered = yield from render_revision(scope, position.revision)
    who = rendered.seat_of(seat)
    if who not in rendered.present:
        raise InvalidInputError("seen_by", f"{who.display_name!r} has left, and sees only", allowed="cast.join() first")
    own = options
    if options.audience is not None:
        own = own.evolve(audience=(*options.audience, who.seat))
    if options.idempotency_key is not None:
        own = own.evolve(idempotency_key=_own_key(who.seat, options.idempotency_key))
    return (yield from _Shown(scope, who.seat).through(operation(_Terms(who, own))))


def _own_key(seat: int, key: str) -> str:
    """Give the key that is stored for a seat's: its own, so that it tells nothing of another's."""
    own = f"seat {seat}: {key}"
    return own if len(own) <= KEY_LIMIT else f"seat {seat}: sha256 {hashlib.sha256(key.encode()).hexdigest()}"


class _Shown:
    """Hands on what an operation gives, as far as the scope's seat may see it.

    Turns are read again as the seat sees them. A seat that is let go while it waits to speak sees nothing of what is
    said then, though it asked for it.
    """

    def __init__(self, scope: SessionScope, seat: int) -> None:
        self._scope = scope
        self._seat = seat
        self._unseen: set[str] = set()

    def through(self, steps: Steps[T]) -> Steps[T]:
        """Do the operation's steps, and give its result."""
        answer: Any = None
        failure: BaseException | None = None
        while True:
            try:
                effect = steps.send(answer) if failure is None else steps.throw(failure)
            except StopIteration as end:
                result: T = end.value
                return (yield from self._result(result))
            except ConflictError as error:
                yield from self._veil(error)
                raise
            except BudgetError as error:  # its sections name what the seat may not know of
                raise BudgetError({"request": error.needed_tokens}, error.budget_tokens) from None
            answer = failure = None
            try:
                match effect:
                    case Emit(what):
                        shown = yield from self._emitted(what)
                        if shown is not None:
                            yield Emit(shown)
                    case Ended(turn):
                        yield Ended((yield from self._ended(turn)))
                    case _:
                        answer = yield effect
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the operation decides what every failure means
                failure = error

    def _emitted(self, what: Any) -> Steps[Any]:
        if isinstance(what, Claimed):
            if not (yield from self._seen([what.turn_id])):
                self._unseen.add(what.turn_id)
        elif isinstance(what, Finished):
            found = yield from self._seen([what.turn.id])
            return Finished(found[0]) if found else None
        elif isinstance(what, Delta):
            theirs = what.kind is DeltaKind.REASONING and what.seat != self._seat
            return None if theirs or what.turn_id in self._unseen else what
        return what

    def _seen(self, turn_ids: list[str]) -> Steps[list[Turn]]:
        """Read turns again, those that the seat may see."""

        def work(db: Connection) -> list[Turn]:
            viewer, found = viewer_in(self._scope, db), []
            for turn_id in turn_ids:
                try:
                    found.append(transcript.by_id(db, *self._scope.place, turn_id, viewer))
                except NotFoundError:
                    continue
            return found

        return (yield from read("turns", work))

    def _result(self, result: T) -> Steps[T]:
        turns = [result] if isinstance(result, Turn) else list(cast("tuple[Turn, ...]", result))
        try:
            found = yield from self._seen([one.id for one in turns])
        except Interrupt:  # it is stored; who wants no more is told what is certain
            found = [self._bare(one) for one in turns if one.id not in self._unseen]
        if not isinstance(result, Turn):
            return cast("T", tuple(found))
        if not found:
            raise NotFoundError("turn", result.id)
        return cast("T", found[0])

    def _ended(self, turn: Turn) -> Steps[Turn]:
        """Give a turn that ended with an error. Whatever else goes wrong, the error is what counts."""
        try:
            found = yield from self._seen([turn.id])
        except (Interrupt, RoleplayError):
            found = []
        return found[0] if found else self._bare(turn)

    def _bare(self, turn: Turn) -> Turn:
        """Give a turn without what might be others'."""
        is_own = turn.speaker == self._seat
        said = turn.human is not None and turn.human.seat == self._seat
        return turn.model_copy(
            update={
                "human": turn.human if said else None,
                "reply": None if turn.id in self._unseen else turn.reply,
                "calls": turn.calls if is_own else (),
                "metadata": turn.metadata if is_own or said else {},
                "variant": 1,
                "variants": 1,
            }
        )

    def _veil(self, error: ConflictError) -> Steps[None]:
        """Take out of an error which turn of another's was in the way."""
        named = error.turn_id or (error.found if isinstance(error.found, str) else None)
        found = [] if named is None else (yield from self._seen([named]))
        if not found:
            error.turn_id = error.expected = error.found = None

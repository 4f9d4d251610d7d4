"""A round: the turns that one line causes, or the next ones without a line, one seat after the other.

Who speaks in it is chosen once, at its first claim, and stored with that turn. Each further turn stands on the one
before; where somebody else has spoken meanwhile, or waits to, the round has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Literal, NamedTuple

from roleplay.domain.conversation import Turn, TurnStatus
from roleplay.domain.settings import SeatRef, TurnOptions
from roleplay.errors import ConflictError, NotFoundError
from roleplay.store import Connection
from roleplay.store.records import sessions, stored_turns, transcript
from roleplay.store.records import turns as store
from roleplay.turns.arguments import number, options_of
from roleplay.turns.basis import Basis, RoundPlace, read_position
from roleplay.turns.effects import Emit, Finished, Interrupt, Steps, read
from roleplay.turns.order import read_order
from roleplay.turns.plan import ReplyOptions
from roleplay.turns.revisions import RenderedRevision
from roleplay.turns.scope import SessionScope, render_revision
from roleplay.turns.speaking import BasisOf, arguments_of, check_line, is_answered, speak_once, to_new_line, to_no_line

LIMIT = 100


class _Silent(Enum):
    """Nobody speaks at a place of a round."""

    SILENT = "silent"


_SILENT = _Silent.SILENT


class _EndedError(Exception):
    """Somebody else speaks now."""


def speak_round(
    scope: SessionScope, text: str | None, speaker: SeatRef | None, max_turns: int | None, options: TurnOptions
) -> Steps[tuple[Turn, ...]]:
    """Say ``text``, if any, let every seat speak that is next, and give the turns in order; each is handed on as soon
    as it has ended.

    With an idempotency key, what was said of the round is given again, and the rest of it goes on, where nobody has
    spoken since. Raises what a reply raises; the turns before stay.
    """
    if max_turns is not None:
        number("max_turns", max_turns, 1, LIMIT)
    arguments = arguments_of("round", options_of(options), text=text, speaker=speaker, max_turns=max_turns)
    basis = to_no_line(scope, None, options) if text is None else to_new_line(scope, text, speaker, options)
    check = None if text is None else partial(check_line, speaker=speaker, options=options)
    turns: list[Turn] = []
    began = scope.ports.now()
    try:
        order = yield from _first(scope, (basis, check), options, arguments, turns)
        limit = max_turns or (yield from _limit(scope, turns[0]))
        for place, seat in enumerate(order[1:limit], start=2):
            if turns[-1].status is not TurnStatus.COMPLETED:
                break
            given_again = turns[-1].ended_at is not None and turns[-1].ended_at < began
            known = RoundPlace(turns[0].seq, place)
            turn = yield from _next(scope, turns, known, seat, options, arguments, given_again=given_again)
            if turn is None:
                break
            if not isinstance(turn, _Silent):
                turns.append(turn)
                yield Emit(Finished(turn))
    except Interrupt:  # between two turns; in one, its reply has taken it
        pass
    return tuple(turns)


def _first(
    scope: SessionScope,
    first: tuple[BasisOf, Callable[[RenderedRevision], None] | None],
    options: TurnOptions,
    arguments: dict[str, Any],
    turns: list[Turn],
) -> Steps[list[int]]:
    """Speak the first turn of the round, and give the seats that are to speak, this one's first."""
    (basis, check), wanted = first, ReplyOptions(options)
    turn = yield from speak_once(scope, basis, wanted, options, arguments, stream=True, at_head=True, check=check)
    turns.append(turn)
    yield Emit(Finished(turn))
    stored: stored_turns.StoredTurn = yield from read(
        "turn", lambda db: stored_turns.read_turn(db, *scope.place, turn.id, None)
    )
    return read_order(stored.draws) or [stored.speaker]


def _limit(scope: SessionScope, first: Turn) -> Steps[int]:
    rendered: RenderedRevision = yield from render_revision(scope, first.revision)
    return rendered.rules.round_turns


def _next(
    scope: SessionScope,
    turns: list[Turn],
    place: RoundPlace,
    seat: int,
    options: TurnOptions,
    arguments: dict[str, Any],
    *,
    given_again: bool,
) -> Steps[Turn | _Silent | None]:
    """Speak the next turn of a round, or give it again; ``None`` where the round has ended, ``_SILENT`` where the seat
    has left or was muted since. ``given_again``: the turn before was not said now, so that nobody waits since then."""
    before, key = turns[-1], options.idempotency_key
    look, waited = yield from read("round", lambda db: _look(db, scope, before.seq, place, key))
    if look.state == "ended" or (look.state == "free" and waited and not given_again):
        return None
    who = {one.seat: one for one in (yield from render_revision(scope, look.revision)).models}.get(seat)
    if (who is None or who.muted) and look.state == "free":
        return _SILENT
    said = to_no_line(scope, seat, options, place, turns[0].audience)

    def basis(position: sessions.Position, rendered: RenderedRevision) -> Steps[Basis]:
        if seat not in rendered.speaking:
            raise _EndedError
        return (yield from said(position, rendered))

    def may_go_on(position: sessions.Position) -> None:
        if position.head_turn != before.seq:
            raise _EndedError

    try:
        return (
            yield from speak_once(
                scope,
                basis,
                ReplyOptions(options),
                options,
                arguments,
                stream=True,
                ordinal=place.ordinal,
                may_go_on=may_go_on,
            )
        )
    except _EndedError:
        return None
    except ConflictError as error:
        of_round = error.turn_id is not None and (yield from _is_of_round(scope, error.turn_id, place.first))
        moved = (yield from read_position(scope)).head_turn != before.seq
        if of_round or (error.turn_id is None and not moved):
            raise
        return None


class _Look(NamedTuple):
    """Whether the next turn of a round was said already (``said``) or may be (``free``), and the session's revision."""

    state: Literal["said", "free", "ended"]
    revision: int


def _look(db: Connection, scope: SessionScope, before: int, place: RoundPlace, key: str | None) -> tuple[_Look, bool]:
    """Look whether a round goes on behind a turn, and whether somebody waited for that turn."""
    known = [] if key is None else transcript.by_key(db, *scope.place, key)
    position = sessions.position(db, *scope.place)
    waited = store.ends_round(db, *scope.place, before)
    if any(turn.ordinal == place.ordinal and is_answered(turn) for turn, _ in known):
        return _Look("said", position.revision), waited
    return _Look("free" if position.head_turn == before else "ended", position.revision), waited


def _is_of_round(scope: SessionScope, turn_id: str, first: int) -> Steps[bool]:
    """Whether a turn is of the round: then another process drives the round, too."""

    def work(db: Connection) -> bool:
        try:
            return transcript.by_id(db, *scope.place, turn_id).round == first
        except NotFoundError:
            return False

    return (yield from read("turn", work))

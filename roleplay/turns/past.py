"""The history that a reply follows: read with the session's position where that is enough, else when it is planned."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from roleplay.context.weights import Weights
from roleplay.domain.settings import TurnOptions
from roleplay.store import Connection
from roleplay.store.records import history
from roleplay.store.records.audience import Viewer
from roleplay.store.records.path_states import read_state
from roleplay.store.records.sessions import Position
from roleplay.turns.basis import Basis, inherited
from roleplay.turns.effects import Steps, read
from roleplay.turns.layers import of_turn
from roleplay.turns.revisions import RenderedSeat
from roleplay.turns.scope import SessionScope, in_memory
from roleplay.turns.terms import RequestTerms, known_terms


class Ahead(NamedTuple):
    """The history before a session's head, read in one transaction with its position, and with which weights."""

    path: history.Path
    head: int
    start: int
    weights: Weights

    def serves(self, basis: Basis, weights: Weights) -> bool:
        """Whether it is the history of a reply, as far as the budget reaches by ``weights``."""
        return (basis.before, basis.inherited.start) == (self.head, self.start) and weights is self.weights


ReadAhead = Callable[[Connection, Position], Ahead | None]


def reads_ahead(scope: SessionScope, options: TurnOptions, *, stream: bool) -> ReadAhead:
    """Give what reads the history of a session's next reply, if all that says how far it reaches is in memory."""
    has_own = of_turn(options) is not None

    def work(db: Connection, position: Position) -> Ahead | None:
        rendered = in_memory(scope, position.revision)
        if rendered is None or has_own or len(rendered.models) > 1:  # of several, it is not known yet who speaks
            return None
        terms = known_terms(scope, rendered.first, stream=stream)
        tokens = None if terms is None else scope.tenant_scope.calibrations.get(terms.subject)
        if terms is None or tokens is None or position.head_seq is None or rendered.first.speaker.seat != position.seat:
            return None
        start, weights = inherited(read_state(position.state)).start, tokens.weights
        path = _back(db, scope, rendered.first.viewer, (position.head_seq, start), _bounds(terms, weights))
        return Ahead(path, position.head_seq, start, weights)

    return work


def past_of(
    scope: SessionScope, basis: Basis, seat: RenderedSeat, terms: RequestTerms, weights: Weights, ahead: Ahead | None
) -> Steps[history.Path]:
    """Give the path that a reply follows, as far as its seat sees it and its budget reaches, with the line that it
    answers."""
    past, before = history.Path(), basis.before
    if ahead is not None and ahead.serves(basis, weights):
        past = ahead.path
    elif before is not None:
        start, bounds = basis.inherited.start, _bounds(terms, weights)
        past = yield from read("path", lambda db: _back(db, scope, seat.viewer, (before, start), bounds))
    return past if basis.line is None else past.then(basis.line)


def _bounds(terms: RequestTerms, weights: Weights) -> tuple[int, int]:
    """Give how many counted tokens are read, and how many each message counts beside its text."""
    return weights.bounds(min(terms.limit.tokens, terms.room))


def _back(
    db: Connection, scope: SessionScope, viewer: Viewer, between: tuple[int, int], bounds: tuple[int, int]
) -> history.Path:
    (head, start), (cap, per_message) = between, bounds
    return history.path_back(db, *scope.place, head=head, start=start, cap=cap, per_message=per_message, viewer=viewer)

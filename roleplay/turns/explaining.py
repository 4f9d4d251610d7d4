"""Explaining a context: what a stored request held and why, and how much of it the one before held too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from roleplay.context.weights import Weights, size_of
from roleplay.domain.context import ContextReport
from roleplay.domain.endpoint import Dialect
from roleplay.domain.settings import SeatRef, TurnOptions
from roleplay.errors import NotFoundError, StoreError
from roleplay.store import Connection
from roleplay.store.records import calls
from roleplay.store.records.reports import read_report
from roleplay.turns import speaking
from roleplay.turns.basis import read_position, read_turn
from roleplay.turns.calibrating import calibration_for
from roleplay.turns.effects import Steps, read
from roleplay.turns.plan import Plan
from roleplay.turns.rebuilding import rebuild
from roleplay.turns.scope import SessionScope, viewer_in
from roleplay.wire.recipes import CURRENT


class PlanPreview(NamedTuple):
    """What would be sent, with its report."""

    plan: Plan
    report: ContextReport


def preview(scope: SessionScope, text: str, speaker: SeatRef | None, options: TurnOptions) -> Steps[PlanPreview]:
    """Plan a reply to ``text`` and compare it with the request before. Writes nothing."""
    made = yield from speaking.preview(scope, text, speaker, options)
    draft, seat = made.draft, made.speaker.seat
    before = made.basis.parent_turn
    weights = draft.weights

    def work(db: Connection) -> int | None:
        written = CURRENT.write(made.form.dialect, draft.messages, named=draft.recipe.history.named)
        return _shared(db, scope, (before, seat), (written, made.form.dialect), weights)

    shared = yield from read("shared prefix", work)
    return PlanPreview(made, draft.report.model_copy(update={"shared_tokens": shared}))


def report(scope: SessionScope, turn_id: str | None) -> Steps[ContextReport]:
    """Give the report of a turn's latest request (the head's turn without an id).

    Raises ``NotFoundError`` for a turn that called no model, or one that was stored before reports were kept; through a
    seat's eyes, for every turn but its own.
    """
    position = yield from read_position(scope)
    turn = yield from read_turn(scope, turn_id, position)
    viewer = None if scope.seat is None else (yield from read("viewer", lambda db: viewer_in(scope, db)))
    if viewer is not None and viewer.seat != turn.speaker:
        raise NotFoundError("report of turn", turn.id)
    tenant, session_id = scope.tenant, scope.session_id
    call = yield from read("latest call", lambda db: calls.latest(db, tenant, session_id, turn.seq))
    if call is None or call.report is None:
        raise NotFoundError("report of turn", turn.id)
    stored = read_report(call.report)
    known = yield from calibration_for(
        scope.tenant_scope.calibrations, scope.counter, call.subject(tenant, scope.counter.name)
    )

    def work(db: Connection) -> int | None:
        sent = rebuild(db, tenant, session_id, call.id)
        return _shared(db, scope, (turn.parent_turn, turn.speaker), (sent.written, sent.dialect), known.weights)

    shared = yield from read("shared prefix", work)
    return stored.model_copy(update={"shared_tokens": None if shared is None else min(shared, stored.prompt_tokens)})


def _shared(
    db: Connection,
    scope: SessionScope,
    after: tuple[int | None, int],
    sent: tuple[Sequence[Mapping[str, str]], Dialect],
    weights: Weights,
) -> int | None:
    """Count the tokens of the messages that a request begins with as the request before it of the same seat did.

    ``None`` where there was none, or where it cannot be rebuilt.
    """
    call_id = calls.before(db, scope.tenant, scope.session_id, *after)
    if call_id is None:
        return None
    try:
        before = rebuild(db, scope.tenant, scope.session_id, call_id)
    except (StoreError, NotFoundError):  # a damaged or erased past hinders no turn; who asks for it itself is told
        return None
    written, dialect = sent
    if before.dialect is not dialect:
        return 0
    tokens = 0
    for mine, other in zip(written, before.written, strict=False):
        if mine != other:
            break
        text = mine["content"]
        tokens += weights.message(size_of(text, weights.counter.count(text)), mine.get("name", mine["role"]))
    return tokens

"""The claim of a planned reply: everything that is written before the model is called."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from roleplay.domain.conversation import TurnKind, TurnStatus
from roleplay.store.records import recipes, reports
from roleplay.store.records.new_rows import CallerFields, Claim, NewCall, NewTurn
from roleplay.store.records.path_states import SHARED, SeatState, map_with
from roleplay.turns.plan import Plan
from roleplay.turns.scope import SessionScope
from roleplay.wire.recipes import RECIPE_VERSION
from roleplay.wire.request import parameters_json

LEASE_MARGIN_S = 30.0


def claim_of(scope: SessionScope, made: Plan, caller: CallerFields) -> Claim:
    """Give everything that claiming a planned reply writes."""
    basis, rows = made.basis, state_rows(made)
    position, again = basis.position, basis.again
    goes_on = again is not None and bool(basis.so_far)  # in the message that holds the text so far
    last_seq = position.last_seq + int(basis.human is not None) + int(not goes_on)
    turn = _turn(scope, made, caller, rows, reply_seq=again.reply_seq if again and goes_on else last_seq)
    call = call_of(scope, made, turn.seq, turn.attempt)
    return Claim(
        version=position.version,
        last_seq=last_seq,
        last_turn=max(position.last_turn, turn.seq),
        turn=turn,
        human=basis.human,
        call=call,
        lease=lease_of(made),
        verdicts=basis.verdicts,
        again=again is not None,
        earlier=again.reply_seq if again and again.reply_text and not goes_on else None,
        state_rows=rows,
        pieces=_pieces(made, same_epoch=not rows),
    )


def _turn(
    scope: SessionScope, made: Plan, caller: CallerFields, rows: dict[int, str], *, reply_seq: int | None
) -> NewTurn:
    """Give the turn to write: one of its own, or a stored one with another attempt."""
    basis, ports = made.basis, scope.ports
    again = basis.again
    seq = again.seq if again else basis.position.last_turn + 1
    turn = basis.position.new_turn(
        again.id if again else ports.new_id(),
        TurnKind.REPLY,
        made.speaker.seat,
        parent_turn=basis.parent_turn,
        states=map_with(basis.states, rows, seq),
        human_seq=basis.line.seq if basis.line else None,
        reply_seq=reply_seq,
        status=TurnStatus.PENDING,
        lease_owner=ports.owner,
        caller=caller._replace(audience=basis.audience),
        draws=made.draws.written(),
    )
    if again is not None:
        return turn._replace(seq=seq, round=again.round, ordinal=again.ordinal, attempt=again.attempt + 1)
    return turn if basis.of_round is None else turn._replace(round=basis.of_round.first, ordinal=basis.of_round.ordinal)


def call_of(scope: SessionScope, made: Plan, turn_seq: int, attempt: int) -> NewCall:
    """Give the model call of a planned reply, as it is written before it is made."""
    draft = made.draft
    return NewCall(
        id=scope.ports.new_id(),
        turn_seq=turn_seq,
        attempt=attempt,
        model_asked=made.endpoint.model,
        host=made.endpoint.host[:200],
        dialect=made.form.dialect.value,
        streamed=made.stream,
        parameters=parameters_json(made.parameters),
        recipe_version=RECIPE_VERSION,
        front_digest=recipes.front_of(draft.recipe.front)[1],
        recipe=recipes.rest_text(draft.recipe),
        request_digest=hashlib.sha256(made.body).hexdigest(),
        prompt_count=draft.prompt_tokens,
        counter=scope.counter.name,
        settings_digest=made.settings.digest,
        report=reports.report_text(draft),
    )


def _pieces(made: Plan, *, same_epoch: bool) -> dict[str, str]:
    """Give the texts that are stored under their digests: all, or those that may be new in the same epoch."""
    recipe, texts = made.draft.recipe, made.draft.texts
    if not same_epoch:
        front, front_digest = recipes.front_of(recipe.front)
        return texts | {front_digest: front, made.settings.digest: made.settings.text}
    volatile = {p.digest for p in recipe.tail} | {one.piece.digest for one in recipe.insertions}
    return {name: text for name, text in texts.items() if name in volatile}


def state_rows(made: Plan) -> dict[int, str]:
    """Give the path states that a planned reply writes, by seat: its speaker's and the order of speech, each where it
    is not what the path hands on anyway."""
    draft, seat = made.draft, made.speaker.seat
    _, front_digest = recipes.front_of(draft.recipe.front)
    before = made.basis.state
    state = SeatState(draft.window_start, front_digest, made.settings.digest, draft.examples)
    rows = {} if state == before or (state := state.fitting()) == before else {seat: state.written()}
    if made.takes_turns and made.basis.audience is None:
        rows |= speech_row(made.basis.shared, seat, anew=made.basis.line is not None)
    return rows


def speech_row(shared: SeatState | None, seat: int | None, *, anew: bool) -> dict[int, str]:
    """Give the state of all seats once a seat of the model's has spoken, or a human (``None``); ``anew``: in answer to
    a new line, before which nobody has spoken."""
    before = shared or SeatState()
    spoken = () if anew or seat is None else before.spoken
    if seat is not None and seat not in spoken:
        spoken = (*spoken, seat)
    after = before._replace(last=before.last if seat is None else seat, spoken=spoken)
    return {} if after == before else {SHARED: after.written()}


def lease_of(made: Plan, pause_s: float = 0.0) -> timedelta:
    """How long a turn in flight is its owner's without a sign of life, when its call begins after a pause."""
    return timedelta(seconds=pause_s + made.endpoint.timeout_s + LEASE_MARGIN_S)

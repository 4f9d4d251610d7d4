"""Planning a reply: the context of one request, decided and counted, with nothing written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import timedelta

from roleplay.context.builder import Draft, build
from roleplay.context.language import words_for
from roleplay.domain.context import Line
from roleplay.domain.conversation import TurnKind, TurnStatus
from roleplay.domain.endpoint import Dialect, Endpoint
from roleplay.domain.settings import Sampling
from roleplay.store import history, recipes, sessions
from roleplay.store.entries import Claim, NewCall, NewTurn
from roleplay.turns.effects import Steps, read
from roleplay.turns.ground import Ground
from roleplay.turns.scene import Rehearsed, Scene, merge
from roleplay.wire.dialects import demands
from roleplay.wire.request import RECIPE_VERSION, encode_request, parameters, parameters_json

MARGIN_SHARE = 0.05
LEASE_MARGIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A reply that could be claimed: what it stands on and what would be sent."""

    ground: Ground
    stage: sessions.Stage
    draft: Draft
    parameters: dict[str, object]
    dialect: Dialect
    body: bytes
    stream: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of one reply beside its line: sampling of the turn, and a hint for this reply alone."""

    sampling: Sampling = Sampling()
    hint: str = ""


def plan(scene: Scene, ground: Ground, known: Rehearsed, wish: Wish, *, stream: bool) -> Steps[Plan]:
    """Read what history the budget can hold and build the context. Writes nothing.

    Raises ``BudgetError`` and ``InvalidInputError``.
    """
    counter, endpoint = scene.counter, scene.endpoint
    settings = known.stage.settings
    asked = parameters(endpoint, merge((wish.sampling, settings.sampling, scene.sampling)), stream=stream)
    budget = settings.budget_tokens or scene.budget_tokens or _budget(endpoint, asked)
    dialect = scene.dialect
    needs = demands(dialect)
    start, _ = ground.inherited(known.sheet.seat)
    past = history.Path((), ())
    if ground.before is not None:
        before = ground.before
        past = yield from read(
            lambda db: history.path_back(
                db,
                scene.tenant,
                scene.session_id,
                head=before,
                start=start,
                cap=budget,
                per_message=needs.per_message_tokens,
            )
        )
    lines: list[Line] = [*past.lines, ground.line]
    sheet = known.sheet.with_wish(wish.hint, ground.so_far, words_for(ground.so_far), counter, needs)
    draft = build(
        sheet, lines, hidden=past.hidden, budget_tokens=budget, window_start=start, counter=counter, demands=needs
    )
    body = encode_request(dialect, draft.messages, asked)
    return Plan(ground, known.stage, draft, asked, dialect, body, stream)


def _budget(endpoint: Endpoint, asked: dict[str, object]) -> int:
    """The window less the reply cap and a margin for what an estimate may be wrong by."""
    cap = asked.get("max_completion_tokens", min(endpoint.max_output_tokens, endpoint.window_tokens // 4))
    assert isinstance(cap, int)
    return max(endpoint.window_tokens - cap - int(endpoint.window_tokens * MARGIN_SHARE), 1)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a claim: its key and body digest, the caller's metadata, and whether it may move the head."""

    key: str | None = None
    body_digest: str | None = None
    metadata_json: str | None = None
    moves_head: bool = True


def claim_of(scene: Scene, made: Plan, terms: Terms) -> Claim:
    """Give everything that claiming a planned reply writes."""
    ground, draft, ports = made.ground, made.draft, scene.ports
    stand, again = ground.stand, ground.again
    speaker = made.stage.model.participant
    front, front_digest = recipes.front_of(draft.recipe.front)
    epoch = (draft.window_start, front_digest)
    same_epoch = ground.state is not None and epoch == ground.inherited(speaker.seat)
    volatile = {p.digest for p in draft.recipe.tail} | {one.piece.digest for one in draft.recipe.insertions}
    pieces = {name: text for name, text in draft.texts.items() if not same_epoch or name in volatile}
    goes_on = again is not None and bool(ground.so_far)  # in the message that holds the text so far
    new_messages = int(ground.human is not None) + int(not goes_on)
    seq = again.seq if again else stand.last_turn + 1
    attempt = again.attempt + 1 if again else 1
    turn = NewTurn(
        seq=seq,
        id=again.id if again else ports.new_id(),
        parent_turn=ground.parent_turn,
        from_head=stand.head_seq,
        kind=TurnKind.REPLY.value,
        round=again.round if again else seq,
        ordinal=1,
        speaker=speaker.seat,
        revision=ground.revision,
        state_seq=ground.state_seq if same_epoch or again else seq,
        status=TurnStatus.PENDING.value,
        human_seq=ground.line.seq,
        reply_seq=again.reply_seq if again and goes_on else stand.last_seq + new_messages,
        lease_owner=ports.owner,
        idempotency_key=terms.key,
        body_digest=terms.body_digest,
        metadata_json=terms.metadata_json,
        attempt=attempt,
        moves_head=terms.moves_head,
    )
    return Claim(
        version=stand.version,
        last_seq=stand.last_seq + new_messages,
        last_turn=max(stand.last_turn, seq),
        turn=turn,
        human=ground.human,
        call=NewCall(
            id=ports.new_id(),
            turn_seq=seq,
            attempt=attempt,
            model_asked=scene.endpoint.model,
            host=scene.endpoint.host[:200],
            dialect=made.dialect.value,
            streamed=made.stream,
            parameters=parameters_json(made.parameters),
            recipe_version=RECIPE_VERSION,
            front_digest=front_digest,
            recipe=recipes.rest_text(draft.recipe),
            request_digest=hashlib.sha256(made.body).hexdigest(),
            prompt_count=draft.prompt_tokens,
            counter=scene.counter.name,
        ),
        lease=lease_of(scene),
        again=again is not None,
        state=None if same_epoch or again else json.dumps({str(speaker.seat): epoch}, separators=(",", ":")),
        pieces=pieces if same_epoch else pieces | {front_digest: front},
    )


def folded(made: Plan) -> Plan:
    """Give the same context written without role-play roles."""
    body = encode_request(Dialect.OPENAI, made.draft.messages, made.parameters)
    return replace(made, dialect=Dialect.OPENAI, body=body)


def lease_of(scene: Scene) -> timedelta:
    """How long a turn in flight is its owner's without a sign of life."""
    return timedelta(seconds=scene.endpoint.timeout_s + LEASE_MARGIN_S)

"""Planning a reply: the context of one request, decided and counted, with nothing written."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from roleplay.context.builder import Draft, Rules, build
from roleplay.context.calibration import predicted
from roleplay.context.draws import Draws, read_draws
from roleplay.context.examples import Rule
from roleplay.context.languages import Words, language_of
from roleplay.context.placed import Request
from roleplay.context.pricing import Prices, prior
from roleplay.domain.conversation import Participant, TurnKind, TurnStatus
from roleplay.domain.endpoint import Endpoint, Form
from roleplay.domain.settings import DEFAULT_OPTIONS, Sampling, SessionSettings, TurnOptions
from roleplay.errors import BudgetError, InvalidInputError
from roleplay.store import Connection, history, recipes, reports
from roleplay.store.calibrations import Subject
from roleplay.store.entries import Claim, NewCall, Terms
from roleplay.store.path_states import SeatState, map_with, read_state
from roleplay.store.sessions import Stand
from roleplay.store.stored import reads
from roleplay.turns.calibrating import Learned, learned, subject
from roleplay.turns.effects import Steps, read
from roleplay.turns.ground import Ahead, Ground, ReadAhead, inherited
from roleplay.turns.layers import InForce, Told, of_turn
from roleplay.turns.limits import fitting, window_room
from roleplay.turns.scene import Rehearsed, Scene, in_memory
from roleplay.turns.terms import UTC_NAME, RequestTerms, known_terms, request_terms
from roleplay.wire.recipes import CURRENT, RECIPE_VERSION
from roleplay.wire.request import parameters, parameters_json

LEASE_MARGIN_S = 30.0
SHRINK_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """A reply that could be claimed: what it stands on, who speaks, what would be sent to whom, and the settings in
    force as JSON.

    ``others``: who is asked, in this order, when ``endpoint`` is unavailable. ``redraw`` builds the same context
    within another budget, at other prices. ``draws``: what all of these contexts drew by chance; ``subject``: whose
    tokens are counted.
    """

    ground: Ground
    speaker: Participant
    draft: Draft
    endpoint: Endpoint
    others: tuple[Endpoint, ...]
    sampling: Sampling
    parameters: dict[str, object]
    form: Form
    body: bytes
    stream: bool
    settings: Told
    budget_tokens: int
    redraw: Callable[[int, Prices], Draft]
    draws: Draws
    subject: Subject


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of one reply beside its line: the turn's own options, and a hint for this reply alone."""

    options: TurnOptions = DEFAULT_OPTIONS
    hint: str = ""


def reads_ahead(scene: Scene, options: TurnOptions, *, stream: bool) -> ReadAhead:
    """Give what reads the history of a session's next reply, where all that says how far is in memory."""
    has_own = of_turn(options) is not None

    def work(db: Connection, stand: Stand) -> Ahead | None:
        known = in_memory(scene, stand.revision, stand.seat)
        terms = None if known is None or has_own else known_terms(scene, known, stream=stream)
        tokens = None if terms is None else scene.calibrated.get(terms.subject)
        if terms is None or tokens is None or stand.head_seq is None:
            return None
        start, prices = inherited(read_state(stand.state)).start, tokens.prices
        reach = _reach(terms, prices, stand.head_seq, start)
        path = history.path_back(db, scene.tenant, scene.session_id, **reach)
        return Ahead(path, stand.head_seq, start, prices)

    return work


def _reach(terms: RequestTerms, prices: Prices, head: int, start: int) -> dict[str, int]:
    """Say how far back history is read."""
    cap, per_message = prices.bounds(min(terms.limit.tokens, terms.room))
    return {"head": head, "start": start, "cap": cap, "per_message": per_message}


def plan(
    scene: Scene, ground: Ground, known: Rehearsed, wish: Wish, *, stream: bool, ahead: Ahead | None = None
) -> Steps[Plan]:
    """Read what history the budget can hold, unless it was read ``ahead``, and build the context. Writes nothing.

    Raises ``BudgetError`` and ``InvalidInputError``.
    """
    counter, terms = scene.counter, request_terms(scene, known, wish.options, stream=stream)
    force, budget, room = terms.force, terms.limit.tokens, terms.room
    tokens: Learned = yield from learned(scene.calibrated, counter, terms.subject)
    language = force.language or (language_of(ground.so_far) if ground.so_far else known.language)
    words = words_of(scene, language)
    sheet = known.sheet
    past = history.Path()
    if ground.before is not None:
        if ahead is not None and ahead.serves(ground, tokens.prices):
            past = ahead.path
        else:
            reach = _reach(terms, tokens.prices, ground.before, ground.inherited.start)
            past = yield from read("path", lambda db: history.path_back(db, scene.tenant, scene.session_id, **reach))
    if ground.line is not None:
        past = past.then(ground.line)
    lines = past.lines
    draws = _draws(scene, ground, force)
    rule = Rule(terms.policy, draws=draws, subject=str(sheet.seat))
    now = partial(moment, scene, force.time_zone, scene.ports.now())  # so that every draft says the same time

    def draw(budget_tokens: int, prices: Prices) -> Draft:
        request = Request(
            casting=sheet.casting,
            counter=counter,
            words=words,
            now=now,
            lines=lines,
            facts=force.facts,
            origins=force.origins,
            so_far=ground.so_far,
            hint=wish.hint,
            user_first=prices.user_first,
        )
        return build(
            sheet.for_request(request),
            lines,
            skipped=past.skipped,
            passed_over=past.passed_over,
            rules=Rules(budget_tokens, terms.marks, rule, terms.limit.room if budget_tokens == budget else 0),
            inherited=ground.inherited,
            prices=prices,
        )

    draft = _within(draw, budget, room, tokens)
    return Plan(
        ground,
        known.pair.speaker.participant,
        draft,
        terms.endpoint,
        terms.others,
        force.sampling,
        terms.parameters,
        terms.form,
        CURRENT.encode(terms.form.dialect, draft.messages, terms.parameters),
        stream,
        terms.settings(language),
        budget,
        draw,
        draws,
        terms.subject,
    )


@reads("what a turn drew by chance")
def _draws(scene: Scene, ground: Ground, force: InForce) -> Draws:
    seed = scene.session_id if force.seed is None else force.seed
    return Draws(str(seed), read_draws(ground.draws))


def _within(draw: Callable[[int, Prices], Draft], budget: int, room: int, tokens: Learned) -> Draft:
    """Draw within a budget and below what the host was seen to refuse as too long or to cut, or with no more than what
    is required where that does not fit there.

    Whatever the budget is and the host's reports have taught, what is drawn has room in the window, also by the rates
    before any report.
    """
    budget, limit = min(budget, room), tokens.limit_tokens
    if limit is not None and limit < budget:
        try:
            return _in_window(draw, limit, room, tokens)
        except BudgetError as error:
            if error.needed_tokens < budget:  # what is required may still be below what was refused
                return _in_window(draw, error.needed_tokens, room, tokens)
    return _in_window(draw, budget, room, tokens)


def _in_window(draw: Callable[[int, Prices], Draft], budget: int, room: int, tokens: Learned) -> Draft:
    """Draw within a budget and, where that has no room by the first rates, within as much less; the window moves then,
    so that the next requests have room as they are."""
    first = prior(tokens.needs)
    draft = draw(budget, tokens.prices)
    size = predicted(first, draft.load)
    if size <= room or tokens.prices.rates == first:
        return draft
    draft = draw(int(draft.prompt_tokens * room / size), tokens.prices)
    # What was left out may be of another script, which was off by less.
    return draft if predicted(first, draft.load) <= room else draw(room, Prices(tokens.counter, tokens.needs))


def check(scene: Scene, settings: SessionSettings) -> None:
    """Raise ``InvalidInputError`` for settings that no turn could be spoken with."""
    if settings.language is not None:
        words_of(scene, settings.language)
    if settings.time_zone is not None:
        moment(scene, settings.time_zone, scene.ports.now())
    if settings.model is not None:
        scene.asked_of(settings.model)


def words_of(scene: Scene, language: str) -> Words:
    """Give the engine's own words in a language. Raises ``InvalidInputError``."""
    words = scene.languages.get(language)
    if words is None:
        raise InvalidInputError("language", f"is {language!r}", allowed=", ".join(scene.languages))
    return words


def moment(scene: Scene, time_zone: str | None, time: datetime) -> datetime:
    """Give a time as it is told in a time zone. Raises ``InvalidInputError``."""
    zone = scene.ports.zone(time_zone or UTC_NAME)
    if zone is None:
        raise InvalidInputError("time_zone", f"is {time_zone!r}", allowed="an IANA name such as Asia/Shanghai")
    return time.astimezone(zone)


def claim_of(scene: Scene, made: Plan, terms: Terms) -> Claim:
    """Give everything that claiming a planned reply writes."""
    ground, draft, ports = made.ground, made.draft, scene.ports
    stand, again = ground.stand, ground.again
    front, front_digest = recipes.front_of(draft.recipe.front)
    rows = state_rows(made)
    same_epoch = not rows
    volatile = {p.digest for p in draft.recipe.tail} | {one.piece.digest for one in draft.recipe.insertions}
    pieces = {name: text for name, text in draft.texts.items() if not same_epoch or name in volatile}
    goes_on = again is not None and bool(ground.so_far)  # in the message that holds the text so far
    new_messages = int(ground.human is not None) + int(not goes_on)
    seq = again.seq if again else stand.last_turn + 1
    turn = stand.new_turn(
        again.id if again else ports.new_id(),
        TurnKind.REPLY,
        made.speaker.seat,
        parent_turn=ground.parent_turn,
        states=map_with(ground.states, rows, seq),
        human_seq=ground.line.seq if ground.line else None,
        reply_seq=again.reply_seq if again and goes_on else stand.last_seq + new_messages,
        status=TurnStatus.PENDING,
        lease_owner=ports.owner,
        terms=terms,
        draws=made.draws.written(),
    )
    if again is not None:
        turn = turn._replace(seq=seq, round=again.round, attempt=again.attempt + 1)
    return Claim(
        version=stand.version,
        last_seq=stand.last_seq + new_messages,
        last_turn=max(stand.last_turn, seq),
        turn=turn,
        human=ground.human,
        call=NewCall(
            id=ports.new_id(),
            turn_seq=seq,
            attempt=turn.attempt,
            model_asked=made.endpoint.model,
            host=made.endpoint.host[:200],
            dialect=made.form.dialect.value,
            streamed=made.stream,
            parameters=parameters_json(made.parameters),
            recipe_version=RECIPE_VERSION,
            front_digest=front_digest,
            recipe=recipes.rest_text(draft.recipe),
            request_digest=hashlib.sha256(made.body).hexdigest(),
            prompt_count=draft.prompt_tokens,
            counter=scene.counter.name,
            settings_digest=made.settings.digest,
            report=reports.report_text(draft),
        ),
        lease=lease_of(made),
        verdicts=ground.verdicts,
        again=again is not None,
        earlier=again.reply_seq if again and again.reply_text and not goes_on else None,
        state_rows=rows,
        pieces=pieces if same_epoch else pieces | {front_digest: front, made.settings.digest: made.settings.text},
    )


def state_rows(made: Plan) -> dict[int, str]:
    """Give the path states that a planned reply writes, by seat: its speaker's, where it is not what the path hands on
    anyway."""
    draft = made.draft
    _, front_digest = recipes.front_of(draft.recipe.front)
    before = made.ground.state
    state = SeatState(draft.window_start, front_digest, made.settings.digest, draft.examples)
    if state == before or (state := state.fitting()) == before:
        return {}
    return {made.speaker.seat: state.written()}


def shrunk(made: Plan, room: int | None = None) -> Plan:
    """Give a shorter context for the same line, after the host found this one too long: within ``room`` tokens, where
    it named a limit, and in any case shorter by a fixed share. Raises ``BudgetError`` where there is none."""
    tokens, prices = made.draft.prompt_tokens, made.draft.prices
    most = int(tokens * SHRINK_SHARE)
    try:
        draft = made.redraw(most if room is None else max(min(room, most), 1), prices)
    except BudgetError as error:
        if error.needed_tokens >= tokens:
            raise
        draft = made.redraw(error.needed_tokens, prices)
    return replace(made, draft=draft, body=CURRENT.encode(made.form.dialect, draft.messages, made.parameters))


def reformed(made: Plan, scene: Scene, form: Form) -> Steps[Plan]:
    """Give the request for the same endpoint in another form; for another dialect its context is drawn anew, within
    what the one before had: it may have been too long."""
    other = _asked_in(made, form)
    if form.dialect is made.form.dialect:
        return replace(other, body=CURRENT.encode(form.dialect, made.draft.messages, other.parameters))
    return (yield from _drawn_for(other, scene, made.draft.budget_tokens))


def turned_to(made: Plan, scene: Scene) -> Steps[Plan]:
    """Give the context for the next of ``others``."""
    endpoint, *others = made.others
    other = replace(made, endpoint=endpoint, others=tuple(others), sampling=fitting(made.sampling, endpoint))
    return (yield from _drawn_for(_asked_in(other, scene.form_of(endpoint)), scene, made.budget_tokens))


def _asked_in(made: Plan, form: Form) -> Plan:
    asked = parameters(made.endpoint, made.sampling, stream=made.stream, cap_name=form.cap_name)
    return replace(made, parameters=asked, form=form)


def _drawn_for(made: Plan, scene: Scene, budget_tokens: int) -> Steps[Plan]:
    """Draw a context anew within a budget by what is known of the model that is asked now; where what is required
    does not fit there, it is sent as it was."""
    of = subject(scene.tenant, made.endpoint, made.form.dialect, scene.counter)
    tokens: Learned = yield from learned(scene.calibrated, scene.counter, of)
    draft = made.draft
    with contextlib.suppress(BudgetError):
        draft = _within(made.redraw, budget_tokens, window_room(made.endpoint, made.sampling), tokens)
    body = CURRENT.encode(made.form.dialect, draft.messages, made.parameters)
    return replace(made, draft=draft, body=body, subject=of)


def lease_of(made: Plan, pause_s: float = 0.0) -> timedelta:
    """How long a turn in flight is its owner's without a sign of life, when its call begins after a pause."""
    return timedelta(seconds=pause_s + made.endpoint.timeout_s + LEASE_MARGIN_S)

"""Planning a reply: the context of one request, decided and counted, with nothing written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from roleplay.context.builder import Draft, Rules, build
from roleplay.context.calibration import predicted
from roleplay.context.draws import Draws, read_draws
from roleplay.context.examples import Rule
from roleplay.context.languages import language_of
from roleplay.context.placed import Request
from roleplay.context.weights import Weights, prior
from roleplay.domain.context import Line
from roleplay.domain.conversation import Participant
from roleplay.domain.endpoint import Dialect, Endpoint, Form
from roleplay.domain.settings import DEFAULT_OPTIONS, Sampling, TurnOptions
from roleplay.errors import BudgetError
from roleplay.store.access.decoding import reads
from roleplay.store.records.calibrations import Subject
from roleplay.turns.basis import Basis
from roleplay.turns.calibrating import LiveCalibration, calibration_for, subject
from roleplay.turns.effects import Steps
from roleplay.turns.in_role import NOBODY, Names
from roleplay.turns.layers import InForce, SettingsText
from roleplay.turns.limits import fitting, window_room
from roleplay.turns.past import Ahead, past_of
from roleplay.turns.revisions import RenderedSeat
from roleplay.turns.scope import SessionScope, TenantScope
from roleplay.turns.terms import request_terms
from roleplay.wire.recipes import CURRENT
from roleplay.wire.request import parameters

SHRINK_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """A reply that could be claimed: what it stands on, who speaks, what would be sent to whom, and the settings in
    force as JSON.

    ``others``: who is asked, in this order, when ``endpoint`` is unavailable. ``redraw`` builds the same context
    within another budget, at other prices. ``draws``: what all of these contexts drew by chance; ``subject``: whose
    tokens are counted; ``takes_turns``: others of the model's seats do, too; ``names``: what the reply is kept in
    role by.
    """

    basis: Basis
    speaker: Participant
    draft: Draft
    endpoint: Endpoint
    others: tuple[Endpoint, ...]
    sampling: Sampling
    parameters: dict[str, object]
    form: Form
    body: bytes
    stream: bool
    settings: SettingsText
    budget_tokens: int
    redraw: Callable[[int, Weights], Draft]
    draws: Draws
    subject: Subject
    takes_turns: bool = False
    names: Names = NOBODY


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """What is asked of one reply beside its line: the turn's own options, and a hint for this reply alone."""

    options: TurnOptions = DEFAULT_OPTIONS
    hint: str = ""


def plan(
    scope: SessionScope,
    basis: Basis,
    rendered: RenderedSeat,
    wanted: ReplyOptions,
    *,
    stream: bool,
    ahead: Ahead | None = None,
) -> Steps[Plan]:
    """Read what history the budget can hold, unless it was read ``ahead``, and build the context. Writes nothing.

    Raises ``BudgetError`` and ``InvalidInputError``.
    """
    tenant_scope, seat = scope.tenant_scope, rendered.speaker.seat
    terms = request_terms(scope, rendered, wanted.options, stream=stream)
    force, budget = terms.force, terms.limit.tokens
    tokens: LiveCalibration = yield from calibration_for(tenant_scope.calibrations, scope.counter, terms.subject)
    language = force.language or (language_of(basis.so_far) if basis.so_far else rendered.language)
    words = tenant_scope.words(language)
    past = yield from past_of(scope, basis, rendered, terms, tokens.weights, ahead)
    lines = past.lines
    sheet = rendered.sheet(_asking(tenant_scope, rendered, lines))
    draws = _draws(scope, basis, force)
    rule = Rule(terms.policy, draws=draws, subject=str(seat))
    now = partial(tenant_scope.local_time, force.time_zone, scope.ports.now())  # so that every draft says the same time

    def draw(budget_tokens: int, weights: Weights) -> Draft:
        request = Request(
            casting=sheet.casting,
            counter=scope.counter,
            words=words,
            now=now,
            lines=lines,
            facts=force.facts,
            origins=force.origins,
            so_far=basis.so_far,
            hint=wanted.hint,
            user_first=weights.user_first,
        )
        return build(
            sheet.for_request(request),
            lines,
            skipped=past.skipped,
            passed_over=past.passed_over,
            unseen=past.unseen,
            rules=Rules(budget_tokens, terms.marks, rule, terms.limit.room if budget_tokens == budget else 0),
            inherited=basis.inherited,
            weights=weights,
            absences=rendered.viewer.absences,
        )

    draft = _within(draw, budget, terms.room, tokens)
    return Plan(
        basis,
        rendered.speaker,
        draft,
        terms.endpoint,
        terms.others,
        force.sampling,
        terms.parameters,
        terms.form,
        body_of(draft, terms.form.dialect, terms.parameters),
        stream,
        terms.settings(language),
        budget,
        draw,
        draws,
        terms.subject,
        rendered.takes_turns,
        rendered.names,
    )


def _asking(scope: TenantScope, rendered: RenderedSeat, lines: Sequence[Line]) -> int | None:
    """Give the human seat that spoke last, of several; narrations are kept under a human's seat, and are nobody's."""
    humans = {one.seat for one in rendered.casting.humans}
    if len(humans) == 1:
        return None
    narrators = {words.narrator for words in scope.languages.values()}
    said = (line.seat for line in reversed(lines) if line.seat in humans and line.name not in narrators)
    return next(said, None)


def body_of(draft: Draft, dialect: Dialect, parameters: dict[str, object]) -> bytes:
    """Give the body of the request that sends a context."""
    return CURRENT.encode(dialect, draft.messages, parameters, named=draft.recipe.history.named)


@reads("what a turn drew by chance")
def _draws(scope: SessionScope, basis: Basis, force: InForce) -> Draws:
    seed = scope.session_id if force.seed is None else force.seed
    return Draws(str(seed), read_draws(basis.draws))


def _within(draw: Callable[[int, Weights], Draft], budget: int, room: int, tokens: LiveCalibration) -> Draft:
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


def _in_window(draw: Callable[[int, Weights], Draft], budget: int, room: int, tokens: LiveCalibration) -> Draft:
    """Draw within a budget and, where that has no room by the first rates, within as much less; the window moves then,
    so that the next requests have room as they are."""
    first = prior(tokens.needs)
    draft = draw(budget, tokens.weights)
    size = predicted(first, draft.load)
    if size <= room or tokens.weights.rates == first:
        return draft
    draft = draw(int(draft.prompt_tokens * room / size), tokens.weights)
    # What was left out may be of another script, which was off by less.
    return draft if predicted(first, draft.load) <= room else draw(room, Weights(tokens.counter, tokens.needs))


def shrunk(made: Plan, room: int | None = None) -> Plan:
    """Give a shorter context for the same line, after the host found this one too long: within ``room`` tokens, where
    it named a limit, and in any case shorter by a fixed share. Raises ``BudgetError`` where there is none."""
    tokens, weights = made.draft.prompt_tokens, made.draft.weights
    most = int(tokens * SHRINK_SHARE)
    try:
        draft = made.redraw(most if room is None else max(min(room, most), 1), weights)
    except BudgetError as error:
        if error.needed_tokens >= tokens:
            raise
        draft = made.redraw(error.needed_tokens, weights)
    return replace(made, draft=draft, body=body_of(draft, made.form.dialect, made.parameters))


def reformed(made: Plan, scope: SessionScope, form: Form) -> Steps[Plan]:
    """Give the request for the same endpoint in another form; for another dialect its context is drawn anew, within
    what the one before had: it may have been too long."""
    other = _with_form(made, form)
    if form.dialect is made.form.dialect:
        return replace(other, body=body_of(made.draft, form.dialect, other.parameters))
    return (yield from _drawn_for(other, scope, made.draft.budget_tokens))


def turned_to(made: Plan, scope: SessionScope) -> Steps[Plan]:
    """Give the context for the next of ``others``."""
    endpoint, *others = made.others
    other = replace(made, endpoint=endpoint, others=tuple(others), sampling=fitting(made.sampling, endpoint))
    return (yield from _drawn_for(_with_form(other, scope.tenant_scope.form_of(endpoint)), scope, made.budget_tokens))


def _with_form(made: Plan, form: Form) -> Plan:
    request_parameters = parameters(made.endpoint, made.sampling, stream=made.stream, cap_name=form.cap_name)
    return replace(made, parameters=request_parameters, form=form)


def _drawn_for(made: Plan, scope: SessionScope, budget_tokens: int) -> Steps[Plan]:
    """Draw a context anew within a budget by what is known of the model that is asked now; where what is required
    does not fit there, it is sent as it was."""
    of = subject(scope.tenant, made.endpoint, made.form.dialect, scope.counter)
    tokens: LiveCalibration = yield from calibration_for(scope.tenant_scope.calibrations, scope.counter, of)
    draft = made.draft
    with contextlib.suppress(BudgetError):
        draft = _within(made.redraw, budget_tokens, window_room(made.endpoint, made.sampling), tokens)
    body = body_of(draft, made.form.dialect, made.parameters)
    return replace(made, draft=draft, body=body, subject=of)

"""What holds of every context: its budget, its order, its history, its stability, its rebuilding, its validity."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import groupby
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from roleplay import BudgetError, ContextMessage, Counter, Dialect, Endpoint, EstimatingCounter, Persona, Role, Sampling
from roleplay.context import builder
from roleplay.context.builder import Draft, Inherited, build
from roleplay.context.calibration import predicted
from roleplay.context.emit import emit
from roleplay.context.examples import Rule
from roleplay.context.languages import LANGUAGES
from roleplay.context.macros import expand
from roleplay.context.placed import Casting, Player, Rendered, Request
from roleplay.context.sheet import Sheet, render
from roleplay.context.weights import Rates, Weights
from roleplay.context.window import Marks
from roleplay.domain.context import DialectDemands, Line
from roleplay.store.records import recipes
from roleplay.store.records.reports import read_report, report_text
from roleplay.testing.simulator.messages import MessageRules
from roleplay.testing.simulator.models import MODELS, by_id
from roleplay.testing.simulator.rules import Rules, read_json, read_request
from roleplay.wire.dialects import demands
from roleplay.wire.recipes import CURRENT, RECIPE_VERSION
from roleplay.wire.request import parameters
from tests.support.sheets import parts

SEAT = 1


class Letters:
    """A counter of another opinion: a token is a character."""

    name = "letters"
    exact = True

    def count(self, text: str) -> int:
        return len(text)


COUNTERS: st.SearchStrategy[Counter] = st.sampled_from([EstimatingCounter(), Letters()])
NEEDS = st.sampled_from(
    [
        demands(Dialect.MINIMAX),
        DialectDemands(0, 0, names=False),
        DialectDemands(40, 9, names=True),
        demands(Dialect.STRICT),
    ]
)
WORD = st.sampled_from(
    [
        *("Hm.", "the wind turns", "亮躬耕于南阳", "🎐", "{{user}}", "{{char}}", "<BOT>"),
        *("<think>", "</think>", "\n", " ", "***", "[", "a: b"),
    ]
)
WORDS = st.lists(WORD, max_size=12).map(" ".join)
SPOKEN = WORDS.filter(lambda text: bool(text.strip()))
NAME = st.sampled_from(
    ["Nova", "诸葛　亮", "👩\u200d🚀", "O'Brien", "{{user}}", "Zero\u200bWidth", "é" * 200, "a\u2028b", "N\xa0B"]
)
LINE = st.fixed_dictionaries({"speaker": st.sampled_from(["{{char}}", "{{user}}", "Guan Yu"]), "text": SPOKEN})
DIALOGUE = st.lists(LINE, min_size=1, max_size=4).map(lambda lines: {"lines": lines})


@st.composite
def personas(draw: st.DrawFn) -> Persona:
    """A persona with any of its parts."""
    return Persona(
        draw(NAME),
        draw(WORDS),
        personality=draw(WORDS),
        system_prompt=draw(WORDS),
        note=draw(WORDS),
        post_history=draw(WORDS),
        examples=draw(st.lists(DIALOGUE, max_size=4)),
    )


@st.composite
def castings(draw: st.DrawFn) -> Casting:
    """Who plays, and where."""
    persona = draw(personas())
    user = draw(NAME)
    humans = (Player(SEAT + 1, user, draw(st.none() | personas())),)
    return Casting(SEAT, persona.called, persona, humans, user, scene=draw(WORDS))


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[int, int, str, str]]:
    """Lines as (turn, seat, name, text), the newest a human's; turns of one or two lines."""
    told = []
    turns = draw(st.lists(st.tuples(st.booleans(), SPOKEN, SPOKEN, st.integers(1, 30)), max_size=12))
    for number, (greeting, human, reply, times) in enumerate(turns, start=1):
        if not greeting:
            told.append((number, 2, "Traveler", human))
        told.append((number, SEAT, "Nova", reply * times))
    return [*told, (len(turns) + 1, 2, "Traveler", draw(SPOKEN))]


def lines_of(told: list[tuple[int, int, str, str]], counter: Counter) -> list[Line]:
    """Number and count lines."""
    return [Line(seq, *said, counter.count(said[-1]), counter.name) for seq, said in enumerate(told, 1)]


def cost(messages: list[ContextMessage], counter: Counter, needs: DialectDemands) -> int:
    """What a list costs, counted anew."""
    names = sum(counter.count(one.name) for one in messages) if needs.names else 0
    return needs.fixed_tokens + sum(counter.count(one.text) + needs.per_message_tokens for one in messages) + names


def made(
    sheet: Sheet, lines: list[Line], budget: int, counter: Counter, needs: DialectDemands, start: int = 0
) -> Draft:
    """Build, where what is required fits; where it does not, the error says so and the example is given up."""
    words = LANGUAGES["en"]._replace(opening=OPENING)
    asked = Request(sheet.casting, counter, words, datetime.now, lines, user_first=needs.user_first)
    sheet = sheet.for_request(asked)
    required = (
        needs.fixed_tokens
        + sum(piece_cost(piece, counter, needs) for piece in parts(sheet).front)
        + line_cost(lines[-1], counter, needs)
    )

    def draft() -> Draft:
        rules, weights = builder.Rules(budget), Weights(counter, needs)
        return build(sheet, lines, rules=rules, inherited=Inherited(start), weights=weights)

    if required > budget:
        with pytest.raises(BudgetError) as failure:
            draft()
        assert (failure.value.needed_tokens, failure.value.budget_tokens) == (required, budget)
    assume(required <= budget)
    return draft()


BUDGETS = st.integers(1, 4000)
OPENING = "(You first.)"


@settings(deadline=None, max_examples=70)
@given(castings(), conversations(), BUDGETS, COUNTERS, NEEDS)
def test_budget_order_and_history(
    casting: Casting, told: list[tuple[int, int, str, str]], budget: int, counter: Counter, needs: DialectDemands
) -> None:
    """Never over budget; what is required always in; history contiguous, whole turns, newest first; all explained."""
    sheet, lines = render(casting, counter), lines_of(told, counter)
    draft = made(sheet, lines, budget, counter, needs)
    spent = cost(draft.messages, counter, needs)
    assert spent == draft.report.prompt_tokens <= budget
    front = [ContextMessage(Role(piece.piece.role), piece.piece.name, piece.text) for piece in parts(sheet).front]
    assert draft.messages[: len(front)] == front
    history = [one for one in draft.messages if one.role in {Role.USER, Role.ASSISTANT} and one.text != OPENING]
    kept = lines[len(lines) - len(history) :]
    opened = needs.user_first and kept[0].seat == SEAT
    assert [one.text for one in draft.messages].count(OPENING) == opened
    roles = [Role.ASSISTANT if one.seat == SEAT else Role.USER for one in kept]
    assert history == [ContextMessage(role, one.name, one.text) for role, one in zip(roles, kept, strict=True)]
    assert history[-1].text == told[-1][3]
    dropped = lines[: len(lines) - len(history)]
    assert not dropped or dropped[-1].turn_seq != kept[0].turn_seq
    assert (draft.report.window_start, draft.report.new_epoch) == (kept[0].seq, bool(dropped))
    whole = {section.section: section for section in draft.report.sections}
    assert all(one.claimed_tokens == one.kept_tokens + one.dropped_tokens for one in whole.values())
    assert all(one.kept_tokens == one.claimed_tokens for one in whole.values() if one.required)
    assert spent == needs.fixed_tokens + sum(one.kept_tokens for one in whole.values())
    examples = [one for one in draft.messages if one.role in {Role.SAMPLE_USER, Role.SAMPLE_AI}]
    for dialogue in parts(sheet).examples:  # each goes in whole, in its order, or not at all
        wanted = [ContextMessage(Role(piece.piece.role), piece.piece.name, piece.text) for piece in dialogue]
        if examples[: len(wanted)] == wanted:
            del examples[: len(wanted)]
    assert not examples


@settings(deadline=None, max_examples=40)
@given(castings(), conversations(), BUDGETS, COUNTERS, NEEDS)
def test_the_same_again_and_from_the_store(
    casting: Casting, told: list[tuple[int, int, str, str]], budget: int, counter: Counter, needs: DialectDemands
) -> None:
    """Built twice it is the same; the stored recipe, its texts and its lines alone give the same messages."""
    lines = lines_of(told, counter)
    draft = made(render(casting, counter), lines, budget, counter, needs)
    assert made(render(casting, counter), lines, budget, counter, needs) == draft
    stored = json.loads(json.dumps([recipes.front_of(draft.recipe.front)[0], recipes.rest_text(draft.recipe)]))
    recipe = recipes.read(*stored, RECIPE_VERSION)
    span = [line for line in lines if recipe.history.first <= line.seq <= recipe.history.last]
    assert recipe == draft.recipe
    assert emit(recipe, draft.texts, span) == draft.messages


@settings(deadline=None, max_examples=40)
@given(castings(), conversations(), SPOKEN, COUNTERS, NEEDS)
def test_a_section_changes_no_other(
    casting: Casting, told: list[tuple[int, int, str, str]], note: str, counter: Counter, needs: DialectDemands
) -> None:
    """With room for all, a note more is one message more: every other stays, in its order and to the byte."""
    lines = lines_of(told, counter)
    without = casting._replace(persona=casting.persona.evolve(note=""))
    noted = casting._replace(persona=casting.persona.evolve(note=note))
    plain = made(render(without, counter), lines, 10**7, counter, needs)
    more = made(render(noted, counter), lines, 10**7, counter, needs)
    text = expand(note, char=casting.char, user=casting.user).strip()
    assert len(more.messages) == len(plain.messages) + 1
    place = -3 if noted.persona.post_history.strip() else -2
    assert more.messages[place] == ContextMessage(Role.SYSTEM, casting.char, text)
    assert [*more.messages[:place], *more.messages[place + 1 :]] == plain.messages


@settings(deadline=None, max_examples=40)
@given(castings(), st.lists(st.integers(1, 400), min_size=20, max_size=60), st.integers(600, 3000))
def test_the_window_stays_and_then_jumps(casting: Casting, sizes: list[int], budget: int) -> None:
    """As a conversation grows, the start of its window stays until it overflows and then leaves room for many turns."""
    counter, needs = Letters(), demands(Dialect.MINIMAX)
    sheet = render(casting, counter)
    path: list[Line] = []
    start, last = 0, []
    for turn, size in enumerate(sizes, start=1):
        human = Line(2 * turn - 1, turn, 2, "Traveler", "?", 1)
        seen = [line for line in path if line.seq >= start]
        draft = made(sheet, [*seen, human], budget, counter, needs, start)
        room = budget - (draft.report.prompt_tokens - history_cost(draft, counter, needs))
        if draft.report.new_epoch:
            assert sum(line_cost(line, counter, needs) for line in seen) > room - line_cost(human, counter, needs)
            assert draft.window_start > start
            turns = [list(of) for _, of in groupby(emitted(draft, [*path, human]), key=lambda line: line.turn_seq)]
            beside_newest = sum(line_cost(line, counter, needs) for of in turns[:-2] for line in of)
            assert beside_newest <= room / 2
        else:
            assert draft.window_start == start
            assert draft.messages[: len(last)] == last
        reply = Line(2 * turn, turn, SEAT, "Nova", "x" * size, size)
        start = draft.window_start
        path += [human, reply]
        volatile = [one.text for one in parts(sheet)[2:] if one]
        last = [] if volatile else draft.messages


def history_cost(draft: Draft, counter: Counter, needs: DialectDemands) -> int:
    """What the history of a draft costs, the newest line included."""
    spoken = [one for one in draft.messages if one.role in {Role.USER, Role.ASSISTANT}]
    return cost(spoken, counter, needs) - needs.fixed_tokens


def piece_cost(piece: Rendered, counter: Counter, needs: DialectDemands) -> int:
    """What a piece of a sheet costs before anything was learned."""
    return counter.count(piece.text) + counter.count(piece.piece.name) * needs.names + needs.per_message_tokens


def line_cost(line: Line, counter: Counter, needs: DialectDemands) -> int:
    """What one line costs."""
    return line.tokens + counter.count(line.name) * needs.names + needs.per_message_tokens


def emitted(draft: Draft, path: list[Line]) -> list[Line]:
    """The lines of a path that a draft sends."""
    return [line for line in path if draft.recipe.history.first <= line.seq <= draft.recipe.history.last]


RULES = {
    Dialect.MINIMAX: ("MiniMax-M2.7", Rules("k")),
    Dialect.OPENAI: ("MiniMax-M2.7", Rules("k", by_id(MODELS))),
    Dialect.STRICT: ("MiniMax-M2.7", Rules("k", by_id(MODELS), MessageRules(template_http=500))),
}


@settings(deadline=None, max_examples=70)
@given(castings(), conversations(), BUDGETS, st.sampled_from(Dialect))
def test_a_strict_server_takes_it(
    casting: Casting, told: list[tuple[int, int, str, str]], budget: int, dialect: Dialect
) -> None:
    """Whatever was built is a request that the strictest server takes, and costs what was counted or less."""
    counter, needs = EstimatingCounter(), demands(dialect)
    draft = made(render(casting, counter), lines_of(told, counter), budget, counter, needs)
    model, rules = RULES[dialect]
    endpoint = Endpoint(model, dialect=dialect)
    body = CURRENT.encode(dialect, draft.messages, parameters(endpoint, Sampling(), stream=True))
    asked = read_request(endpoint.path, read_json("application/json", body), rules)
    assert [message.role for message in asked.messages].count("system") == (dialect is not Dialect.STRICT)
    written: list[dict[str, Any]] = CURRENT.write(dialect, draft.messages)
    spent = needs.fixed_tokens + sum(
        counter.count(one["content"]) + counter.count(one.get("name", "")) + needs.per_message_tokens for one in written
    )
    assert spent <= draft.report.prompt_tokens


RATES = st.builds(
    Rates,
    narrow=st.floats(0.2, 4),
    wide=st.floats(0.2, 4),
    per_message=st.floats(0, 60),
    fixed=st.floats(0, 4_000),
)
POLICIES = st.sampled_from(["keep", "fade", "relevant", "random"])


@settings(deadline=None, max_examples=70)
@given(castings(), conversations(), BUDGETS, COUNTERS, RATES, POLICIES, st.floats(0.05, 1), st.floats(0.05, 1))
def test_never_over_at_any_price(
    casting: Casting,
    told: list[tuple[int, int, str, str]],
    budget: int,
    counter: Counter,
    rates: Rates,
    policy: Any,
    low: float,
    high: float,
) -> None:
    """Whatever was learned and whatever is set, the claims add up to the prompt, which is within the budget; what a
    request holds, at these prices, is what it is said to cost, but for rounding."""
    sheet, lines = render(casting, counter), lines_of(told, counter)
    weights = Weights(counter, demands(Dialect.MINIMAX), rates)
    rules = builder.Rules(budget, Marks(high, low), Rule(policy, "seed"))
    try:
        draft = build(sheet, lines, rules=rules, weights=weights)
    except BudgetError as failure:
        assert failure.needed_tokens > budget
        return
    report = draft.report
    assert report.prompt_tokens <= budget
    assert report.prompt_tokens == report.overhead_tokens + sum(one.kept_tokens for one in report.sections)
    rounding = draft.load.messages / 2 + 1
    assert abs(predicted(rates, draft.load) - report.prompt_tokens) <= rounding
    assert report == read_report(report_text(draft))


@settings(deadline=None, max_examples=40)
@given(castings(), st.lists(st.integers(1, 300), min_size=10, max_size=40), st.integers(500, 2000), POLICIES)
def test_the_front_stays_within_an_epoch(casting: Casting, sizes: list[int], budget: int, policy: Any) -> None:
    """As a conversation grows, the front changes with the window alone, whatever the newest line's length."""
    counter, needs = Letters(), demands(Dialect.MINIMAX)
    sheet, weights = render(casting, counter), Weights(counter, needs)
    rules = builder.Rules(budget, examples=Rule(policy, "seed"))
    path: list[Line] = []
    inherited, front = Inherited(), None
    for turn, size in enumerate(sizes, start=1):
        human = Line(2 * turn - 1, turn, 2, "Traveler", "?" * (size % 50 + 1), size % 50 + 1, counter.name)
        seen = [line for line in path if line.seq >= inherited.start]
        try:
            draft = build(sheet, [*seen, human], rules=rules, inherited=inherited, weights=weights)
        except BudgetError:
            return
        assert draft.moved or front in {None, draft.recipe.front}
        front = draft.recipe.front
        inherited = Inherited(draft.window_start, draft.examples, begun=True)
        path += [human, Line(2 * turn, turn, SEAT, "Nova", "x" * size, size, counter.name)]

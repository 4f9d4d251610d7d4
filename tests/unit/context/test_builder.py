"""Building a context: who claims what, and what the report says of it."""

from __future__ import annotations

import pytest

from roleplay import BudgetError, Dialect, EstimatingCounter, Persona, Role
from roleplay.context.builder import Draft, Inherited, Rules, build
from roleplay.context.emit import emit
from roleplay.context.placed import Casting, Player
from roleplay.context.sheet import Sheet, render
from roleplay.context.weights import Weights
from roleplay.domain.context import Insertion, Line, Piece, Recipe, Span, digest
from roleplay.store.records import recipes
from roleplay.wire.dialects import demands
from roleplay.wire.recipes import RECIPE_VERSION

COUNTER = EstimatingCounter()
NEEDS = demands(Dialect.MINIMAX)


def sheet_of(persona: Persona, scene: str = "") -> Sheet:
    """Render a persona's sheet, with a plain human."""
    return render(Casting(1, persona.called, persona, (Player(2, "Traveler", None),), "Traveler", scene=scene), COUNTER)


def line(seq: int, turn: int, text: str, seat: int = 2) -> Line:
    """A line of a seat."""
    return Line(seq, turn, seat, "Nova" if seat == 1 else "Traveler", text, COUNTER.count(text), COUNTER.name)


def made(sheet: Sheet, lines: list[Line], budget: int = 10_000, start: int = 0) -> Draft:
    """Build with our counter."""
    return build(sheet, lines, rules=Rules(budget), inherited=Inherited(start), weights=Weights(COUNTER, NEEDS))


NOVA = Persona(
    "Nova",
    "A pilot.",
    note="It is late.",
    post_history="Stay terse.",
    examples=["{{user}}: Fuel?\n{{char}}: Low.", "{{char}}: " + "Clear skies. " * 40, "{{char}}: Aye."],
)
LINES = [line(1, 1, "Welcome.", 1), line(2, 2, "Where to?"), line(3, 2, "Ceres.", 1), line(4, 3, "Go.")]


def test_the_order_of_emission() -> None:
    """Sheet, examples, history with the note before the newest line, the newest line, post-history."""
    assert [(one.role, one.text[:8]) for one in made(sheet_of(NOVA, "Dock"), LINES).messages] == [
        (Role.SYSTEM, "A pilot."),
        (Role.GROUP, "Dock"),
        (Role.SAMPLE_USER, "Fuel?"),
        (Role.SAMPLE_AI, "Low."),
        (Role.SAMPLE_AI, "Clear sk"),
        (Role.SAMPLE_AI, "Aye."),
        (Role.ASSISTANT, "Welcome."),
        (Role.USER, "Where to"),
        (Role.ASSISTANT, "Ceres."),
        (Role.SYSTEM, "It is la"),
        (Role.USER, "Go."),
        (Role.SYSTEM, "Stay ter"),
    ]


def test_a_dialogue_goes_in_whole_or_not_at_all() -> None:
    """One that is too long is left out, a later and shorter one still goes in, and the report says so."""
    draft = made(sheet_of(NOVA), LINES, budget=200)
    assert [one.text for one in draft.messages if one.role is Role.SAMPLE_AI] == ["Low.", "Aye."]
    [report] = [section for section in draft.report.sections if section.section == "examples"]
    assert (report.claimed_items, report.kept_items) == (3, 2)
    assert report.dropped_tokens == report.claimed_tokens - report.kept_tokens > 100
    assert "whole" in report.reason


def test_what_is_dropped_is_told() -> None:
    """Note, post-history and history that found no room are in the report with the reason; nothing vanishes."""
    need = made(sheet_of(Persona("Nova", "A pilot.")), [LINES[-1]]).report.prompt_tokens
    draft = made(sheet_of(NOVA), LINES, budget=need)
    assert [one.role for one in draft.messages] == [Role.SYSTEM, Role.USER]
    kept = {section.section: (section.kept_tokens, section.reason) for section in draft.report.sections}
    assert set(kept) == {"system", "newest", "post_history", "note", "examples", "history"}
    assert all(kept[name][0] == 0 for name in ("post_history", "note", "examples", "history"))
    assert kept["note"][1].endswith("0 are left")
    assert draft.report.prompt_tokens == need == draft.report.budget_tokens
    assert draft.window_start == draft.report.window_start == 4
    assert draft.report.new_epoch


def test_what_is_required_and_does_not_fit() -> None:
    """One token too few names every required section with its tokens, which add up."""
    need = made(sheet_of(Persona("Nova", "A pilot."), "Dock"), [LINES[-1]]).report.prompt_tokens
    made(sheet_of(NOVA, "Dock"), LINES, budget=need)
    with pytest.raises(BudgetError) as failure:
        made(sheet_of(NOVA, "Dock"), LINES, budget=need - 1)
    assert list(failure.value.sections) == ["overhead", "system", "scene", "newest"]
    assert (failure.value.needed_tokens, failure.value.budget_tokens) == (need, need - 1)


@pytest.mark.parametrize(("depth", "place"), [(0, 4), (1, 3), (2, 2), (4, 0), (9, 0)])
def test_an_insertion_at_its_depth(depth: int, place: int) -> None:
    """Depth counts messages from the end; beyond the oldest it stands first."""
    recipe = Recipe((), Span(1, 4, 1), (Insertion(depth, Piece("note", "system", "Nova", digest("n"))),), ())
    assert [one.role for one in emit(recipe, {digest("n"): "n"}, LINES)].index(Role.SYSTEM) == place


def test_a_missing_text_is_no_silent_gap() -> None:
    """Emission without one of the texts fails; it never sends less than was decided."""
    draft = made(sheet_of(NOVA), LINES)
    with pytest.raises(KeyError):
        emit(draft.recipe, {}, LINES)


def test_a_recipe_is_stored_as_it_is_read() -> None:
    """Written and read, a recipe is equal, and its front is one text for successive turns."""
    draft = made(sheet_of(NOVA, "Dock"), LINES)
    front, rest = recipes.front_of(draft.recipe.front)[0], recipes.rest_text(draft.recipe)
    assert recipes.read(front, rest, RECIPE_VERSION) == draft.recipe
    later = made(sheet_of(NOVA, "Dock"), [*LINES, line(5, 3, "Going.", 1), line(6, 4, "Faster.")])
    assert recipes.front_of(later.recipe.front)[0] == front
    assert "\n" not in front + rest


def test_a_report_reads_as_a_table() -> None:
    """Printed, it says what each section got and why, and the tokens add up to the first line's."""
    report = made(sheet_of(Persona("Nova", "A pilot."), "Dock"), LINES).report
    head, *rows = str(report).splitlines()
    assert head == f"{report.prompt_tokens} of {report.budget_tokens} tokens, estimated by estimate-1"
    assert sum(int(row.split()[1]) for row in rows) == report.prompt_tokens
    assert rows[-1].split(maxsplit=2)[0::2] == ["newest", "kept 1 of 1: required"]


def test_what_was_skipped_is_kept_as_runs() -> None:
    """Skipped and kept, from the newest that is kept back to the oldest; what is not kept does not count."""
    lines = [line(number, number, "Hm.") for number in range(1, 7)]

    def runs(*skipped: int, budget: int = 10_000, passed_over: int = 0) -> tuple[int, ...]:
        draft = build(
            sheet_of(Persona("Nova")),
            lines,
            skipped=skipped,
            passed_over=passed_over,
            rules=Rules(budget),
            weights=Weights(COUNTER, NEEDS),
        )
        return draft.recipe.history.runs

    assert runs() == runs(0, 0, 0, 0, 0, 0) == runs(7, 7, 7, 7, 7, 7) == ()
    assert runs(5, 5, 5, 2, 2, 0) == (0, 1, 2, 2, 3, 3)
    assert runs(9, 8, 8, 8, 8, 8) == (0, 5, 1, 1)
    need = made(sheet_of(Persona("Nova")), lines[-2:]).prompt_tokens
    assert runs(9, 5, 5, 5, 3, 1, budget=need) == (0, 1, 2, 1)


def test_what_is_behind_hidden_messages_is_told() -> None:
    """The history's reason says that older messages were not read, whether there is any history or not."""
    for lines, said in ((LINES, "fits; 1,001 hidden"), (LINES[-1:], "1,001 hidden")):
        rules, weights = Rules(10_000), Weights(COUNTER, NEEDS)
        report = build(sheet_of(Persona("Nova")), lines, passed_over=1_001, rules=rules, weights=weights).report
        [history] = [one for one in report.sections if one.section == "history"]
        assert history.reason == f"{said} messages were passed over, what is older was not read"

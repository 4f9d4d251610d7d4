"""Placed texts: whatever a source makes is claimed, told of, sent and kept, by its place and priority alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pytest

from roleplay import BudgetError, Counter, Dialect, EstimatingCounter, Fact, Persona, Role
from roleplay.cli.context import draw
from roleplay.context.builder import Draft, Rules, build
from roleplay.context.emit import emit
from roleplay.context.languages import LANGUAGES
from roleplay.context.placed import (
    BEHIND,
    FRONT,
    Casting,
    HistorySection,
    Place,
    PlacedText,
    Player,
    Request,
    Source,
    at_depth,
    of_request,
    of_revision,
    rendered,
)
from roleplay.context.sheet import Sheet, render
from roleplay.context.sources import SOURCES
from roleplay.context.weights import Weights
from roleplay.domain.context import Line, Section, SectionReport
from roleplay.store.records import recipes
from roleplay.store.records.reports import read_report, report_text
from roleplay.wire.dialects import demands
from roleplay.wire.recipes import RECIPE_VERSION
from tests.support.pages import ROOT

COUNTER = EstimatingCounter()
NEEDS = demands(Dialect.MINIMAX)
NOVA = Persona("Nova", "A pilot.", note="It is late.", post_history="Stay terse.", examples=["{{char}}: Aye."])
CASTING = Casting(1, "Nova", NOVA, (Player(2, "Traveler", None),), "Traveler", scene="Dock")
SAID = ["Welcome.", "Where to?", "Ceres.", "Go."]
LINES = [
    Line(seq, (seq + 1) // 2, 1 + seq % 2, "Traveler" if seq % 2 else "Nova", text, COUNTER.count(text), COUNTER.name)
    for seq, text in enumerate(SAID, start=2)
]
FACTS = (Fact("Rain.", name="rain", priority=60), Fact("Rust.", name="rust", priority=100))


@of_revision("lore")
def lore(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
    """Several texts of one section, each somewhere else."""

    def text(name: str, role: Role, place: Place, priority: float) -> PlacedText:
        said = rendered("lore", role, casting.char, f"Of {name}.", counter)
        return PlacedText((said,), place, priority, name=name, changes=name == "tide")

    return [
        text("ceres", Role.GROUP, FRONT, 70),
        text("tide", Role.USER_SYSTEM, FRONT, 5),
        text("pin", Role.ASSISTANT, at_depth(2), 61),
        text("law", Role.SYSTEM, BEHIND, 100.5),
    ]


@of_request("recall")
def recall(request: Request) -> Sequence[PlacedText]:
    """Messages that go in together, made from the lines of the request."""
    asked = request.lines[-1].text
    pair = [
        rendered("recall", role, "Echo", f"{word} {asked}", request.counter)
        for role, word in ((Role.USER, "Heard"), (Role.ASSISTANT, "Said"))
    ]
    return [PlacedText(tuple(pair), at_depth(1), 40)]


OURS = tuple(source for source in SOURCES if source.section in set(Section))
WITH_BOTH = (*OURS, lore, recall)


def sheet_of(sources: tuple[Source, ...]) -> Sheet:
    """The sheet of a request with facts."""
    words, now = LANGUAGES["en"], datetime(2026, 5, 1)  # noqa: DTZ001 - never asked for its zone
    request = Request(CASTING, COUNTER, words, lambda: now, LINES, FACTS, {"fact rain": "session"})
    return render(CASTING, COUNTER, sources).for_request(request)


def made(sources: tuple[Source, ...] = WITH_BOTH, budget: int = 10_000) -> Draft:
    """Build with sources of our own."""
    return build(sheet_of(sources), LINES, rules=Rules(budget), weights=Weights(COUNTER, NEEDS))


def told(draft: Draft) -> dict[str, SectionReport]:
    """What became of each section."""
    return {one.section: one for one in draft.report.sections}


def test_what_nobody_knows_is_sent_where_it_says() -> None:
    """In front in the order of the sources, among the last lines at its depth and in its role, behind the newest."""
    assert [(one.role, one.text) for one in made().messages] == [
        (Role.SYSTEM, "A pilot."),
        (Role.GROUP, "Dock"),
        (Role.SAMPLE_AI, "Aye."),
        (Role.GROUP, "Of ceres."),
        (Role.USER_SYSTEM, "Of tide."),
        (Role.ASSISTANT, "Welcome."),
        (Role.USER, "Where to?"),
        (Role.ASSISTANT, "Of pin."),
        (Role.ASSISTANT, "Ceres."),
        (Role.SYSTEM, "Rain."),
        (Role.SYSTEM, "Rust."),
        (Role.SYSTEM, "It is late."),
        (Role.USER, "Heard Go."),
        (Role.ASSISTANT, "Said Go."),
        (Role.USER, "Go."),
        (Role.SYSTEM, "Stay terse."),
        (Role.SYSTEM, "Of law."),
    ]


def test_texts_in_front_stand_in_the_order_of_the_sources() -> None:
    """A source that is listed before the examples has its texts before them."""
    front = [one.text for one in made((*OURS[:5], lore, *OURS[5:])).messages[:5]]
    assert front == ["A pilot.", "Dock", "Of ceres.", "Of tide.", "Aye."]


def test_what_nobody_knows_claims_by_its_priority() -> None:
    """Required, before and behind facts and examples, after everything; the report keeps the order of claims."""
    assert [f"{section} {name}".strip() for section, name in made().claims] == [
        "system",
        "scene",
        "newest",
        "lore law",
        "fact rust",
        "post_history",
        "note",
        "lore ceres",
        "lore pin",
        "fact rain",
        "examples",
        "recall",
        "lore tide",
        "history",
    ]


def test_what_nobody_knows_is_told_of() -> None:
    """The report has a row for each, after the sections that are known, also as it is stored and as it is drawn."""
    draft = made()
    report = draft.report
    sections = [one.section for one in report.sections]
    assert sections[-5:] == ["lore law", "lore ceres", "lore pin", "recall", "lore tide"]
    assert read_report(report_text(draft)) == report
    assert sum(one.kept_tokens for one in report.sections) + report.overhead_tokens == report.prompt_tokens
    assert told(draft)["lore law"].required
    assert not told(draft)["lore pin"].required


def test_what_nobody_knows_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """Each section has a letter that no other has."""
    draw(made().report)
    _, bar, _, *rows = capsys.readouterr().out.splitlines()
    letters = {row.split("\t")[1].partition(" ")[0]: row.split("\t")[0] for row in rows}
    assert (letters["lore"], letters["recall"]) == ("l", "a")
    assert len(set(letters.values())) == len(letters)
    assert "?" not in bar


def test_what_nobody_knows_is_rebuilt() -> None:
    """Its recipe is read back as it was, and gives the same messages; no source is asked."""
    draft = made()
    front, rest = recipes.front_of(draft.recipe.front)[0], recipes.rest_text(draft.recipe)
    recipe = recipes.read(front, rest, RECIPE_VERSION)
    assert recipe == draft.recipe
    assert emit(recipe, draft.texts, LINES) == draft.messages


def test_what_a_place_costs_a_cache() -> None:
    """At a depth, and in front where it changes: itself and all that is behind it; nothing for what stays in front."""
    unshared = {name: one.unshared_tokens for name, one in told(made()).items()}
    costs = [one.kept_tokens for one in told(made()).values() if one.section in {"history", "newest"}]
    sections = told(made())
    assert unshared["lore ceres"] == unshared["lore law"] == unshared["examples"] == 0
    assert unshared["lore tide"] == sections["lore tide"].kept_tokens + sum(costs)
    assert unshared["recall"] > sections["recall"].kept_tokens
    assert unshared["lore pin"] > sections["lore pin"].kept_tokens


def test_the_lowest_priority_is_left_out_first() -> None:
    """With less and less budget, texts go in the order of their priorities, each with its reason, until what is
    required does not fit, which the error names."""
    ranked = ["lore tide", "recall", "fact rain", "lore pin", "lore ceres"]
    budgets = range(made().prompt_tokens, 0, -1)
    seen: list[set[str]] = []
    with pytest.raises(BudgetError) as failure:
        for budget in budgets:
            sections = told(made(budget=budget))
            seen.append({name for name in ranked if not sections[name].kept_items})
            assert all(sections[name].reason.startswith("needs ") for name in seen[-1])
    assert "lore law" in failure.value.sections
    assert "lore pin" not in failure.value.sections
    assert (seen[0], seen[-1]) == (set(), set(ranked))
    assert {"lore tide"} in seen
    assert all(name in seen[-1] for name in ranked)


def test_messages_of_one_text_go_in_together() -> None:
    """Never one without the other."""
    for budget in range(120, made().prompt_tokens):
        texts = [one.text for one in made(budget=budget).messages]
        assert ("Heard Go." in texts) == ("Said Go." in texts)


def test_texts_of_one_section_and_name_are_one_row() -> None:
    """Their tokens and items add up, and the reason is that of what was left out."""

    @of_revision("pins")
    def pins(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
        texts = ("Short.", "Long. " * 400, "Shorter.")
        said = [rendered("pins", Role.SYSTEM, casting.char, words, counter) for words in texts]
        return [PlacedText((one,), at_depth(1), 60) for one in said]

    row = told(made((*OURS, pins), budget=400))["pins"]
    assert (row.claimed_items, row.kept_items, row.required) == (3, 2, False)
    assert row.dropped_tokens == row.claimed_tokens - row.kept_tokens > 700
    assert row.reason.startswith("needs ")
    assert row.unshared_tokens > 0


def test_a_text_more_changes_no_other() -> None:
    """With room for all, a source more is its messages more: every other stays, in its order and to the byte."""
    plain, more = made(OURS).messages, made().messages
    rest = iter(more)
    assert all(any(one == other for other in rest) for one in plain)
    assert len(more) == len(plain) + 6


def test_the_list_of_sources() -> None:
    """Every section that the engine has is in it, once; every text says where it comes from."""
    sections = [source.section for source in SOURCES]
    assert [section for section in sections if section in set(Section)] == list(Section)
    assert len(sections) == len(set(sections))
    origins = {(text.section, text.origin) for text in sheet_of(SOURCES).texts}
    assert origins >= {
        ("system", "persona"),
        ("scene", "session"),
        ("examples", "persona"),
        ("note", "persona"),
        ("post_history", "persona"),
        ("fact", "session"),
        ("fact", ""),
    }


def test_a_revisions_texts_are_made_once() -> None:
    """A request of which nothing is asked has the sheet of its revision as it is; another shares its texts."""
    sheet = render(CASTING, COUNTER)
    words = LANGUAGES["en"]
    asked = Request(CASTING, COUNTER, words, datetime.now, LINES)
    assert sheet.for_request(asked) is sheet
    hinted = sheet.for_request(asked._replace(hint="Whisper."))
    assert [text for text in hinted.texts if text.section != Section.HINT] == list(sheet.texts)
    assert all(mine is other for mine, other in zip(sheet.made, hinted.made, strict=True) if mine)
    priorities = [hinted.texts[number].priority for numbers in hinted.order for number in numbers]
    assert priorities == sorted(priorities, reverse=True)


def test_the_page_that_lists_the_sources_is_right() -> None:
    """The table in the documentation has each source, in order, with the priority that its texts have."""
    page = (ROOT / "docs/how-a-context-is-built.md").read_text()
    rows = [row.strip("| ").split(" | ") for row in page.splitlines() if row.startswith("| ") and row.count("|") == 5]
    listed = {row[0]: row[2] for row in rows[1:] if row[0] != "---"}
    spoken = {source.section for source in SOURCES if isinstance(source, HistorySection)}
    assert list(listed) == [section for section in Section if section not in spoken]
    words, now = LANGUAGES["en"], datetime(2026, 5, 1)  # noqa: DTZ001 - never asked for its zone
    casting = CASTING._replace(humans=(Player(2, "Traveler", NOVA),))
    request = Request(casting, COUNTER, words, lambda: now, (), (Fact("Rain."),), {}, "So", "Whisper.", user_first=True)
    texts = render(casting, COUNTER).for_request(request).texts
    for text in (text for text in texts if text.section in listed):
        said = "0 to 100" if text.section == Section.FACT else f"{text.priority:g}"
        assert listed[text.section].startswith(said + (", required" if text.required else ""))

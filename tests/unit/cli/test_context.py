"""The context command: a request drawn as a bar and a table, and as JSON."""

from __future__ import annotations

import json

import pytest

from roleplay.cli.context import draw, head
from roleplay.domain.context import ContextReport, SectionReport
from tests.unit.cli.conftest import Command


def section(name: str, kept: int, **more: object) -> SectionReport:
    """A section that got what it claimed."""
    fields = {"required": False, "claimed_items": 1, "kept_items": 1, "reason": "fits", "dropped_tokens": 0}
    return SectionReport.model_validate(
        {"section": name, "claimed_tokens": kept, "kept_tokens": kept, **fields, **more}
    )


REPORT = ContextReport(
    budget_tokens=780,
    prompt_tokens=400,
    overhead_tokens=10,
    counter="estimate-1",
    counting="estimated",
    calibrated=12,
    foreign_counts=3,
    sections=(
        section("system", 90, required=True),
        section("examples", 100, claimed_tokens=150, dropped_tokens=50, claimed_items=2, details=("fits", "too long")),
        section("history", 150),
        section("fact weather", 50, unshared_tokens=70),
    ),
    window_start=4,
    new_epoch=True,
    shared_tokens=210,
)


def test_a_report_is_drawn(capsys: object) -> None:
    """A bar as long as the budget, a letter for each section, the rest free; a row for each with what became of it."""
    draw(REPORT)
    first, bar, *rows = capsys.readouterr().out.splitlines()  # type: ignore[attr-defined]
    assert first == head(REPORT)
    assert bar == "[" + "o" + "s" * 9 + "e" * 10 + "h" * 15 + "f" * 5 + "·" * 38 + "]"
    assert rows[1].split("\t") == ["s", "system", "90", "90", "0", "1 of 1", "", "fits"]
    assert rows[2].split("\t") == ["e", "examples", "150", "100", "50", "1 of 2", "", "fits"]
    assert rows[4].split("\t") == ["f", "fact weather", "50", "50", "0", "1 of 1", "70", "fits"]
    assert rows[5:] == ["examples 1: fits", "examples 2: too long"]


def test_room_that_only_the_default_keeps_free_is_told(capsys: object) -> None:
    """Who gets a short memory by nobody's choice learns how to get a longer one, and that it costs; no other does."""
    draw(REPORT.model_copy(update={"room_tokens": 160_000}))
    assert capsys.readouterr().out.splitlines()[-1] == (  # type: ignore[attr-defined]
        "the window has room for 160,000 tokens more; budget_tokens=160780 (ROLEPLAY_BUDGET_TOKENS) uses it, and each "
        "turn costs more"
    )
    draw(REPORT)
    assert "has room" not in capsys.readouterr().out  # type: ignore[attr-defined]


def test_the_head_says_who_counted() -> None:
    """Tokens, counter, what it was set right by, what the request before had too, and whether the window moved."""
    assert head(REPORT) == (
        "400 of 780 tokens · estimated by estimate-1 · calibrated by 12 replies · 3 messages with another counter's "
        "count · 210 shared with the request before · the window moved"
    )
    plain = REPORT.model_copy(update={"calibrated": 0, "foreign_counts": 0, "shared_tokens": None, "new_epoch": False})
    assert head(plain) == "400 of 780 tokens · estimated by estimate-1"


def test_a_session_is_explained(spoken: Command) -> None:
    """The last request, an older one, or the next; as JSON it is the report; what called no model is not found."""
    assert spoken("chat", "innkeeper", "-m", "hello", "-m", "a room?").code == 0
    listed = spoken("session", "list").out.split("\t")[0]
    shown = json.loads(spoken("session", "show", listed, "--json").out)
    greeting, older, _ = [turn["id"] for turn in shown["turns"]["items"]]
    last = json.loads(spoken("context", listed, "--json").out)
    assert last["sections"][0]["section"] == "system"
    before = json.loads(spoken("context", listed, "--turn", older, "--json").out)
    kept = [{one["section"]: one["kept_items"] for one in report["sections"]} for report in (before, last)]
    assert (kept[0]["history"], kept[1]["history"]) == (1, 3)
    assert 0 < last["shared_tokens"] < last["prompt_tokens"]
    told = spoken("context", listed, "--next", "and breakfast?").out.splitlines()
    assert told[1].startswith("[")
    assert any(row.startswith("N\tnewest\t") for row in told)
    missing = spoken("context", listed, "--turn", greeting)
    assert missing.code != 0
    assert "report of turn" in missing.err


def test_what_would_be_sent_is_bounded_by_the_environment(spoken: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget and the model of the next request are those that a chat would have."""
    assert spoken("chat", "innkeeper", "-m", "hello").code == 0
    listed = spoken("session", "list").out.split("\t")[0]
    assert json.loads(spoken("context", listed, "--next", "a room?", "--json").out)["budget_tokens"] == 32_000
    monkeypatch.setenv("ROLEPLAY_BUDGET_TOKENS", "50000")
    assert json.loads(spoken("context", listed, "--next", "a room?", "--json").out)["budget_tokens"] == 50_000
    assert json.loads(spoken("context", listed, "--json").out)["budget_tokens"] == 32_000
    monkeypatch.setenv("ROLEPLAY_WINDOW_TOKENS", "9000")
    assert json.loads(spoken("context", listed, "--next", "a room?", "--json").out)["budget_tokens"] < 9000

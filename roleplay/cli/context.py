"""The context command: what a request holds, drawn as a bar of its budget and as a table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from string import ascii_letters

from rich.text import Text

from roleplay.cli import show
from roleplay.cli.opening import counter_named, model_meant, stored
from roleplay.domain.context import ContextReport, SectionReport

_BAR_CHARS = 78
_FREE = "·"
# Each section by a letter, so that the bar says the same without colours; any other gets one of its name.
_MARKS = {
    "overhead": ("o", "dim"),
    "system": ("s", "cyan"),
    "fact": ("f", "magenta"),
    "user_persona": ("u", "blue"),
    "scene": ("c", "bright_blue"),
    "examples": ("e", "yellow"),
    "history": ("h", "green"),
    "note": ("n", "magenta"),
    "newest": ("N", "bright_green"),
    "speak": ("k", "bright_green"),
    "so_far": ("r", "bright_green"),
    "hint": ("i", "magenta"),
    "post_history": ("p", "red"),
}
_OTHER_STYLE = "white"
_COLUMNS = ("", "section", "claimed", "kept", "dropped", "items", "not shared", "why")


def show_context(name: str, db: str | None, *, turn: str | None, line: str | None, as_json: bool) -> None:
    """Explain a session's latest request, another turn's, or the one that a line would make."""
    with stored(db, counter=counter_named(), endpoint=model_meant() if line else None) as rp:
        session = rp.sessions.get(name)
        report = session.preview(line).report if line else session.report(turn)
        if as_json:
            show.write_json(report)
        else:
            draw(report)


def draw(report: ContextReport) -> None:
    """Draw a report: how full the request is, of what, and what was left out and why."""
    show.say(head(report))
    marks = marks_of(report)
    _say_bar(report, marks)
    rows = [(marks[_kind(one)][0], *_row(one)) for one in report.sections]
    show.table(_COLUMNS, [(marks["overhead"][0], *_overhead(report)), *rows])
    for section in report.sections:
        for number, why in enumerate(section.details, start=1):
            show.say(f"{section.section} {number}: {why}", style=show.DIM)
    if report.room_tokens:
        more = report.budget_tokens + report.room_tokens
        show.say(
            f"the window has room for {report.room_tokens:,} tokens more; budget_tokens={more} "
            "(ROLEPLAY_BUDGET_TOKENS) uses it, and each turn costs more"
        )


def head(report: ContextReport) -> str:
    """Say in a line how many tokens there are, who counted them, and how many the request before had too."""
    parts = [f"{report.prompt_tokens} of {report.budget_tokens} tokens", f"{report.counting} by {report.counter}"]
    if report.calibrated:
        parts.append(f"calibrated by {report.calibrated} replies")
    if report.foreign_counts:
        parts.append(f"{report.foreign_counts} messages with another counter's count")
    if report.shared_tokens is not None:
        parts.append(f"{report.shared_tokens} shared with the request before")
    if report.new_epoch:
        parts.append("the window moved")
    return " · ".join(parts)


def marks_of(report: ContextReport) -> dict[str, tuple[str, str]]:
    """Give the letter and the style of each section: where it has none yet, the first of its name that is free."""
    marks = dict(_MARKS)
    for one in report.sections:
        name = _kind(one)
        if name not in marks:
            taken = {mark for mark, _ in marks.values()}
            letters = filter(str.isalnum, (*name, *name.upper(), *ascii_letters))
            marks[name] = next((letter for letter in letters if letter not in taken), "?"), _OTHER_STYLE
    return marks


def _kind(one: SectionReport) -> str:
    return one.section.partition(" ")[0]


def _say_bar(report: ContextReport, marks: Mapping[str, tuple[str, str]]) -> None:
    width = min(_BAR_CHARS, shutil.get_terminal_size().columns - 2)
    parts = [("overhead", report.overhead_tokens)]
    parts += [(_kind(one), one.kept_tokens) for one in report.sections]
    bar, sum_tokens, drawn = Text("["), 0, 0
    for name, tokens in parts:
        sum_tokens += tokens
        end = round(width * sum_tokens / max(report.budget_tokens, 1))
        mark, style = marks[name]
        bar.append(mark * (end - drawn), style=style)
        drawn = max(drawn, end)
    bar.append(_FREE * (width - drawn) + "]")
    if sys.stdout.isatty():
        show.console(sys.stdout).print(bar)
    else:
        show.say(bar.plain)


def _overhead(report: ContextReport) -> tuple[str, ...]:
    spent = str(report.overhead_tokens)
    return "overhead", spent, spent, "0", "", "", "what a request costs beside its messages"


def _row(one: SectionReport) -> tuple[str, ...]:
    items = f"{one.kept_items} of {one.claimed_items}"
    unshared = str(one.unshared_tokens) if one.unshared_tokens else ""
    tokens = (str(one.claimed_tokens), str(one.kept_tokens), str(one.dropped_tokens))
    return (one.section, *tokens, items, unshared, one.reason)

"""What is written to the terminal: names, tables, turns. Words of users and models are shown, never interpreted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roleplay.cli.exits import one_line, safe
from roleplay.domain.conversation import FinishReason, SessionInfo, Turn, TurnStatus
from roleplay.domain.page import Page
from roleplay.domain.usage import Usage
from roleplay.domain.values import Value
from roleplay.engine import Roleplay
from roleplay.errors import NotFoundError
from roleplay.store.records.calls import UsageTotal

NAME, DIM, WARN = "bold cyan", "dim", "yellow"
EXCERPT_CHARS = 60
_ID_LENGTHS = (8, 13, 18, 23, 28)
_MARKS = {
    TurnStatus.PENDING: "still running",
    TurnStatus.STREAMING: "still running",
    TurnStatus.INTERRUPTED: "interrupted",
    TurnStatus.FAILED: "failed",
}
_CUT = {
    FinishReason.LENGTH: "cut at the length limit",
    FinishReason.CONTENT_FILTER: "filtered by the service",
    FinishReason.ERROR: "the service broke off",
    FinishReason.ABORT: "the service broke off",
    FinishReason.INSUFFICIENT_SYSTEM_RESOURCE: "the service broke off for lack of resources",
}


def console(stream: TextIO) -> Console:
    """Give a console on ``stream``: colours only on a terminal, and none where NO_COLOR is set."""
    styled = Console(
        file=stream,
        force_terminal=stream.isatty(),
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
        legacy_windows=False,
    )
    if styled.no_color or not styled.is_terminal:
        return Console(file=stream, color_system=None, markup=False, highlight=False, emoji=False, soft_wrap=True)
    return styled


def say(text: str, *, style: str = "", end: str = "\n") -> None:
    """Write a part of the conversation or of an answer to standard output."""
    out = sys.stdout
    if style and out.isatty():
        console(out).print(Text(safe(text), style=style), end=end)
    else:
        out.write(safe(text) + end)
    out.flush()


def note(text: str, *, style: str = DIM) -> None:
    """Write a remark of ours to standard error, so that a pipe gets the conversation alone."""
    err = sys.stderr
    if err.isatty():
        console(err).print(Text(safe(text), style=style))
    else:
        err.write(safe(text) + "\n")
    err.flush()


def write_json(value: Value | Sequence[Value] | dict[str, Any]) -> None:
    """Write one JSON object or array on one line."""
    plain: Any = value
    if isinstance(value, Value):
        plain = value.model_dump(mode="json")
    elif not isinstance(value, dict):
        plain = [one.model_dump(mode="json") for one in value]
    sys.stdout.write(json.dumps(plain, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows: aligned under headings on a terminal, tab-separated without headings into a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("\t".join(one_line(cell) for cell in row) + "\n")
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(one_line(cell)) for cell in row))
    console(sys.stdout).print(shown, soft_wrap=False)


def speech(speaker: str, text: str) -> None:
    """Write what somebody said, with the name before it."""
    say(f"{speaker}: ", style=NAME, end="")
    say(text)


def verbatim(text: str) -> None:
    """Write a file's text: as it is into a pipe, safe on a terminal."""
    sys.stdout.write(safe(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def more(page: Page[Any]) -> None:
    """Tell how to see what is older than a page."""
    if page.older is not None:
        note(f"older ones: add --before {page.older}")


def turn(one: Turn, speaker: str, *, numbered: bool = False) -> None:
    """Write a stored turn: who said what, and how it ended when it did not end well; its number before it."""
    if numbered:
        variant = f"variant {one.variant} of {one.variants}" if one.variants > 1 else ""
        say(
            " · ".join(part for part in (f"#{one.seq}", variant, "hidden" if _is_hidden(one) else "") if part),
            style=DIM,
        )
    if one.human is not None:
        speech(one.human.name, one.human.text)
    if one.reply is not None:
        speech(one.reply.name, one.reply.text)
    if one.status is not TurnStatus.COMPLETED:
        why = f": {one.error['message']}" if one.status is TurnStatus.FAILED and one.error else ""
        say(f"[{speaker}'s reply: {_MARKS[one.status]}{one_line(why)}]", style=WARN)


def _is_hidden(one: Turn) -> bool:
    return any(message.hidden for message in (one.human, one.reply) if message is not None)


def who(one: Turn) -> str:
    """Give the name of who spoke last in a turn."""
    last = one.reply or one.human
    return last.name if last else ""


def excerpt(one: Turn) -> str:
    """Give the beginning of what was said last in a turn, in one line."""
    last = one.reply or one.human
    words = one_line(last.text) if last else ""
    return words if len(words) <= EXCERPT_CHARS else words[: EXCERPT_CHARS - 1] + "…"


def cost(one: Turn) -> str:
    """Give what a turn cost, such as ``812 (640 cached) + 57 tokens · 1.4 s``."""
    seconds = one.call.total_s if one.call else None
    return f"{tokens(one.usage)} · {number(seconds, '.1f')} s"


def tokens(usage: Usage) -> str:
    """Give tokens as the service reported them, ``?`` where it reported none."""
    prompt, cached = number(usage.prompt_tokens), number(usage.cached_tokens)
    return f"{prompt} ({cached} cached) + {number(usage.completion_tokens)} tokens"


def number(amount: float | None, form: str = "") -> str:
    """Give a number, ``?`` where nobody knows it."""
    return "?" if amount is None else format(amount, form)


def unreported(total: UsageTotal) -> str:
    """Give what a sum does not hold."""
    return f" · {total.unreported} of them told no usage" if total.unreported else ""


def ending(one: Turn) -> str:
    """Give the line after a turn: how it is stored, what can be done about it, and what it cost."""
    if one.status is TurnStatus.INTERRUPTED:
        kept = "what came is saved" if one.reply else "nothing came"
        return f"interrupted · {kept} · {offer(one)} · {cost(one)}"
    stored = "saved" if one.status is TurnStatus.COMPLETED else one.status.value
    variant = f" · variant {one.variant} of {one.variants}" if one.variants > 1 else ""
    return f"{stored}{variant}{_how_cut(one)} · {cost(one)}"


def _how_cut(one: Turn) -> str:
    """Say why a complete reply is shorter than the model's answer, or than it would have been."""
    if one.status is not TurnStatus.COMPLETED:
        return ""
    if one.call and one.call.cut:
        return f" · cut where it went on as {one.call.cut.name}"
    cut = _CUT.get(one.finish) if one.finish else None
    return f" · {cut} · /continue" if cut else ""


def offer(one: Turn) -> str:
    """Give what a person can do about an attempt that has not become a reply; nothing for others."""
    if one.status in {TurnStatus.COMPLETED, TurnStatus.PENDING, TurnStatus.STREAMING}:
        return ""
    return "/continue, /retry or /accept" if one.reply else "/retry asks again"


def how_it_ended(one: Turn) -> str:
    """Say how an attempt stands that has not become a reply."""
    if one.status.in_flight:
        return "is still running"
    return (
        f"was interrupted{'' if one.reply else ' before a word came'}"
        if one.status is TurnStatus.INTERRUPTED
        else "failed"
    )


def turn_json(one: Turn, speaker: str) -> dict[str, Any]:
    """Give a turn as a script gets it from ``chat --json``."""
    return {
        "turn_id": one.id,
        "session_id": one.session_id,
        "status": one.status.value,
        "finish": one.finish.value if one.finish else None,
        "speaker": one.reply.name if one.reply else speaker,
        "human": one.human.text if one.human else None,
        "reply": one.reply.text if one.reply else None,
        "usage": one.usage.model_dump(mode="json"),
        "seconds": one.call.total_s if one.call else None,
        "error": one.error,
    }


def heading(info: SessionInfo) -> str:
    """Give a session in a few words: with whom, as whom, where."""
    parts = [info.speaker.display_name, f"you are {info.human.display_name}", one_line(info.scene)[:60]]
    return " · ".join(part for part in parts if part)


def short_id(rp: Roleplay, whole: str) -> str:
    """Give the shortest beginning of an id that no other persona or session shares."""
    return next((whole[:length] for length in _ID_LENGTHS if _alone(rp, whole, whole[:length])), whole)


def _alone(rp: Roleplay, whole: str, prefix: str) -> bool:
    """Whether ``prefix`` finds the thing with the id ``whole`` and no other, persona or session."""
    found: list[str] = []
    finders: tuple[Callable[[], str], ...] = (lambda: rp.personas.get(prefix).id, lambda: rp.sessions.get(prefix).id)
    for find in finders:
        try:
            found.append(find())
        except NotFoundError as error:
            if error.ambiguous:
                return False
    return found == [whole]

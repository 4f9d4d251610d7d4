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
from roleplay.domain.conversation import FinishReason, Message, Participant, SessionInfo, Turn, TurnKind, TurnStatus
from roleplay.domain.page import Page
from roleplay.domain.usage import Usage
from roleplay.domain.values import Value
from roleplay.engine import Roleplay
from roleplay.errors import NotFoundError
from roleplay.store.records.calls import UsageTotal

NAME, NARRATOR, DIM, WARN = "bold cyan", "bold", "dim", "yellow"
#: Of the 256 colours of terminals, those by which seats are told apart. Each has a contrast of at least 4 to 1 with
#: white and with black: nobody tells a program which of them is behind its words.
SEAT_COLOURS = (31, 163, 64, 130, 63, 29, 161, 129)
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


class CastNames:
    """How those of a session are named and coloured. A seat has its colour for ever; where there are but two, there is
    one colour for both."""

    def __init__(self, info: SessionInfo) -> None:
        self.of_several = len(info.models) > 1 or len(info.humans) > 1
        self._names = {one.seat: one.display_name for one in info.cast}
        names = list(self._names.values())
        self._shared = {name for name in names if names.count(name) > 1} if self.of_several else set()

    def name(self, seat: int) -> str:
        """Give the display name of a seat, or its number once nobody sits there."""
        return self.told_apart(self._names.get(seat, f"seat {seat}"), seat)

    def told_apart(self, name: str, seat: int) -> str:
        """Give a seat's name, with its number where another seat has the same name."""
        return f"{name} ({seat})" if name in self._shared and seat in self._names else name

    def style(self, seat: int) -> str:
        """Give the style of a seat's name."""
        return f"bold color({SEAT_COLOURS[(seat - 1) % len(SEAT_COLOURS)]})" if self.of_several else NAME

    def label(self, name: str, seat: int, audience: Sequence[int] | None) -> str:
        """Give what stands before what a seat said: its name and, where not all heard it, who did."""
        label = self.told_apart(name, seat)
        if audience is None:
            return f"{label}: "
        others = ", ".join(self.name(one) for one in audience if one != seat)
        return f"{label} \u2192 {others} (whisper): " if others else f"{label} (whisper): "


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


def speech(label: str, text: str, *, style: str = NAME) -> None:
    """Write what somebody said, with the ``label`` of who did before it."""
    say(label, style=style, end="")
    say(text)


def message(one: Message, cast: CastNames, *, narrated: bool = False) -> None:
    """Write what somebody said, or the narrator, who has no seat."""
    if narrated and cast.of_several:
        speech(f"{one.name}: ", one.text, style=NARRATOR)
    else:
        speech(cast.label(one.name, one.seat, one.audience), one.text, style=cast.style(one.seat))


def verbatim(text: str) -> None:
    """Write a file's text: as it is into a pipe, safe on a terminal."""
    sys.stdout.write(safe(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def more(page: Page[Any]) -> None:
    """Tell how to see what is older than a page."""
    if page.older is not None:
        note(f"older ones: add --before {page.older}")


def turn(one: Turn, cast: CastNames, *, numbered: bool = False) -> None:
    """Write a stored turn: who said what, and how it ended when it did not end well; its number before it."""
    if numbered:
        variant = f"variant {one.variant} of {one.variants}" if one.variants > 1 else ""
        say(
            " · ".join(part for part in (f"#{one.seq}", variant, "hidden" if _is_hidden(one) else "") if part),
            style=DIM,
        )
    for said in (one.human, one.reply):
        if said is not None:
            message(said, cast, narrated=one.kind is TurnKind.NARRATION)
    if one.status is not TurnStatus.COMPLETED:
        why = f": {one.error['message']}" if one.status is TurnStatus.FAILED and one.error else ""
        say(f"[{cast.name(one.speaker)}'s reply: {_MARKS[one.status]}{one_line(why)}]", style=WARN)


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


def turn_json(one: Turn, speaker: str, *, of_several: bool = False) -> dict[str, Any]:
    """Give a turn as a script gets it from ``chat --json``; in a cast ``of_several`` also whose turn it is, who said
    the line, and who may see it."""
    told: dict[str, Any] = {
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
    if of_several:
        told["seat"] = one.speaker
        told["said_by"] = one.human.name if one.human else None
        told["audience"] = one.audience
    return told


def heading(info: SessionInfo) -> str:
    """Give a session in a few words: with whom, as whom, where."""
    parts = [names_of(info.models), f"you are {names_of(info.humans)}", one_line(info.scene)[:60]]
    return " · ".join(part for part in parts if part)


def names_of(seats: Sequence[Participant]) -> str:
    """Give the names of seats, one after the other."""
    return ", ".join(one.display_name for one in seats)


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

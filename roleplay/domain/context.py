"""A context, its recipe and its report, as values; and what a dialect demands of a context."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import NamedTuple

from roleplay.domain.values import Value


class Role(StrEnum):
    """The roles of the role-play chat API."""

    SYSTEM = "system"
    USER_SYSTEM = "user_system"
    GROUP = "group"
    SAMPLE_USER = "sample_message_user"
    SAMPLE_AI = "sample_message_ai"
    USER = "user"
    ASSISTANT = "assistant"


class Section(StrEnum):
    """The sections that the engine has. A section is any name: a source may bring one of its own."""

    SYSTEM = "system"
    CAST = "cast"
    FACT = "fact"
    USER_PERSONA = "user_persona"
    SCENE = "scene"
    EXAMPLES = "examples"
    OPENING = "opening"
    HISTORY = "history"
    NOTE = "note"
    NEWEST = "newest"
    SPEAK = "speak"
    SO_FAR = "so_far"
    HINT = "hint"
    POST_HISTORY = "post_history"


class Line(NamedTuple):
    """A stored utterance as history needs it: who, what, and its stored token count with the counter's name."""

    seq: int
    turn_seq: int
    seat: int
    name: str
    text: str
    tokens: int
    counter: str = ""


class ContextMessage(NamedTuple):
    """One message of a context, before a dialect writes it."""

    role: Role
    name: str
    text: str


def digest(text: str) -> str:
    """The name that a rendered text is stored under in its session: 128 bits of BLAKE2b in hexadecimal."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Piece(NamedTuple):
    """A rendered text in a recipe: its section, role and name, and the digest it is stored under."""

    section: str
    role: str
    name: str
    digest: str


class Span(NamedTuple):
    """The history of a recipe: the path from ``first`` to ``last``, both included, seen from ``seat``.

    What was hidden then is left out. ``runs`` are how many messages were skipped, kept, skipped, kept and so on, on the
    way from ``last`` back to ``first``; empty when none was skipped. Recipe version 1 names the skipped messages
    instead, in ``hidden``. What the seat may not see is neither: the audience of each message tells it, and
    ``absences``, the revisions of the session in which nobody sat there. ``named``: each line that is not the seat's
    own carries its speaker's name.
    """

    first: int
    last: int
    seat: int
    hidden: tuple[int, ...] = ()
    runs: tuple[int, ...] = ()
    absences: tuple[tuple[int, int], ...] = ()
    named: bool = False


class Insertion(NamedTuple):
    """A piece put into the history before its last ``depth`` messages."""

    depth: int
    piece: Piece


class Recipe(NamedTuple):
    """What was decided for one request, not why: enough to rebuild its messages without counting or drawing."""

    front: tuple[Piece, ...]
    history: Span
    insertions: tuple[Insertion, ...]
    tail: tuple[Piece, ...]


class DialectDemands(NamedTuple):
    """What a dialect costs: tokens of every request, of every message, and whether names are sent and counted.

    ``user_first``: whether a user message must stand before the model's first one.
    """

    fixed_tokens: int
    per_message_tokens: int
    names: bool
    user_first: bool = False


class Calibration(Value):
    """What a model's reports have taught of its tokens: how to turn a counter's counts into them.

    ``narrow`` and ``wide`` are tokens of the model for each that was counted of ASCII and of other text,
    ``per_message_tokens`` and ``fixed_tokens`` what a message and a request cost beside. ``observations`` reports are
    behind them; ``error_share`` is by how much, of a prompt, the latest ones were missed. ``limit_tokens``: prompts
    longer than this were refused as too long, or seem to have been cut; ``None`` when none was. ``finding`` says in
    words why the reports are not believed, or that the host seems to cut prompts; ``None`` when nothing is wrong.
    """

    model: str
    host: str
    dialect: str
    counter: str
    narrow: float
    wide: float
    per_message_tokens: float
    fixed_tokens: float
    observations: int
    error_share: float | None
    limit_tokens: int | None
    finding: str | None = None


class SectionReport(Value):
    """What became of one section. Tokens count text, name and message overhead.

    ``unshared_tokens``: what stands here changes, or moves on, with every request, so that this many tokens, its own
    and those behind it, are in no prefix that the next request shares. ``details``: why each item is in or out, where
    not all of them are in.
    """

    section: str
    required: bool
    claimed_tokens: int
    kept_tokens: int
    dropped_tokens: int
    claimed_items: int
    kept_items: int
    reason: str
    unshared_tokens: int = 0
    details: tuple[str, ...] = ()


class ContextReport(Value):
    """What a request holds and why. ``prompt_tokens`` includes ``overhead_tokens``, the request's fixed cost.

    ``counting`` is ``exact`` or ``estimated``, by the counter named; ``calibrated`` is the number of the model's
    reports that the counts were set right by. ``foreign_counts`` messages still have the count of another counter.
    ``window_start`` is the ``seq`` of the oldest message kept. ``new_epoch`` says that the window moved, or that
    examples were chosen anew, so that a prompt cache starts anew. ``shared_tokens`` are those that the previous
    request of the same seat began with too, ``None`` when there was none. ``room_tokens``: something was left out, the
    budget is nobody's setting but the default, and the model's window has room for so many tokens more; else 0.
    """

    budget_tokens: int
    prompt_tokens: int
    overhead_tokens: int
    counter: str
    counting: str
    sections: tuple[SectionReport, ...]
    window_start: int
    new_epoch: bool
    calibrated: int = 0
    foreign_counts: int = 0
    shared_tokens: int | None = None
    room_tokens: int = 0

    def __str__(self) -> str:
        """The report for people: the budget, then a line for each section, with what was kept of what it claimed."""
        how = f"{self.counting} by {self.counter}"
        if self.calibrated:
            how += f", calibrated by {self.calibrated} replies"
        head = f"{self.prompt_tokens} of {self.budget_tokens} tokens, {how}"
        lines = [f"{'overhead':<14}{self.overhead_tokens:>8}"]
        for one in self.sections:
            kept = f"{one.kept_items} of {one.claimed_items}"
            lines.append(f"{one.section:<14}{one.kept_tokens:>8}  kept {kept}: {one.reason}")
        return "\n".join([head, *lines])

"""Sessions, their cast, their turns and messages, as values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from roleplay.domain.settings import SessionSettings, Setting
from roleplay.domain.usage import BaseResp, Sensitivity, Usage
from roleplay.domain.values import Metadata, Utc, Value


class TurnKind(StrEnum):
    """Why a turn exists: the model replied, a persona's greeting opened the session, or a line was added: the
    narrator's, or somebody's that was said elsewhere."""

    REPLY = "reply"
    GREETING = "greeting"
    NARRATION = "narration"
    IMPORTED = "imported"


class TurnStatus(StrEnum):
    """Where a turn is: ``pending`` and ``streaming`` are in flight, the others have ended."""

    PENDING = "pending"
    STREAMING = "streaming"
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"

    @property
    def in_flight(self) -> bool:
        return self in {TurnStatus.PENDING, TurnStatus.STREAMING}


class PlayedBy(StrEnum):
    """Who speaks for a participant."""

    MODEL = "model"
    HUMAN = "human"


class FinishReason(StrEnum):
    """Why the service ended a reply: the model was done (``stop``), the reply cap was reached (``length``), a filter
    cut it (``content_filter``), the model called a tool (``tool_calls``), or the service broke off (``error``,
    ``abort``, ``insufficient_system_resource``); ``other`` is a word that none of these stands for."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"
    ERROR = "error"
    ABORT = "abort"
    INSUFFICIENT_SYSTEM_RESOURCE = "insufficient_system_resource"
    OTHER = "other"

    @classmethod
    def named(cls, word: str | None) -> FinishReason | None:
        """Give the reason that a service's ``word`` stands for, ``None`` where it said none."""
        if not word:
            return None
        named = word.partition(":")[0]  # Gemini goes on with its own word: "content_filter: SAFETY"
        known = named.strip().lower().replace("-", "_").replace(" ", "_")
        return _FINISHES.get(known, cls.OTHER)


_ALIASES = {
    FinishReason.STOP: "end_turn eos eos_token stop_sequence stop_token stop_str end complete completed normal",
    FinishReason.LENGTH: "max_tokens max_output max_output_tokens max_completion_tokens max_length model_length"
    " token_limit model_context_window_exceeded context_length_exceeded truncated",
    FinishReason.CONTENT_FILTER: "content_filtered sensitive safety recitation blocklist prohibited_content spii"
    " refusal guardrail_intervened content_policy moderation",
    FinishReason.TOOL_CALLS: "tool_call tool_use function_call",
    FinishReason.ERROR: "failed failure network_error server_error internal_error",
    FinishReason.ABORT: "aborted cancelled canceled",
}
_FINISHES = {one.value: one for one in FinishReason}
_FINISHES |= {word: reason for reason, words in _ALIASES.items() for word in words.split()}


class DeltaKind(StrEnum):
    """What a piece of a stream is: the speaker's words, or the model's reasoning before them."""

    SPEECH = "speech"
    REASONING = "reasoning"


class Delta(Value):
    """A piece of a reply as it comes. ``speaker`` is the display name of who speaks, ``seat`` the seat's number, 0
    where it is not known, ``turn_id`` the turn that the reply is of."""

    text: str
    kind: DeltaKind = DeltaKind.SPEECH
    speaker: str
    seat: int = 0
    turn_id: str = ""


class Message(Value):
    """One utterance. ``seq`` orders it in its session; ``parent_seq`` is the utterance before it on its path.

    ``tokens`` counts the bare text by ``counter``. ``repaired`` marks a model's text that held a NUL or a broken
    character, which was replaced; ``hidden`` one that contexts leave out. ``audience`` are the seats that may see it,
    the speaker's among them; ``None``: all of them. ``text`` and ``name`` are empty where they were erased.
    """

    seq: int
    parent_seq: int | None
    turn_seq: int
    role: str
    seat: int
    name: str
    text: str
    tokens: int
    counter: str
    repaired: bool
    hidden: bool
    created_at: Utc
    audience: tuple[int, ...] | None = None


class Cut(Value):
    """What was cut from a reply, and why. ``kind``: the reply went on as somebody else (``speaker``), whose name is
    ``name``. ``text`` is everything from that line on."""

    kind: Literal["speaker"] = "speaker"
    name: str
    text: str


class ModelCall(Value):
    """One attempt at the API, failed ones too.

    ``parameters`` is everything of the request but its messages. ``request_digest`` is the SHA-256 of the body sent,
    or ``erased`` where something that it held was erased.
    ``model_answered``, ``response_id``, ``response_created`` and ``finish_reason`` are the service's words.
    ``first_token_s`` and ``total_s`` are seconds from sending. ``error`` is the typed error as data. ``settings`` names
    every value that was in force and its layer; facts stand there as ``fact NAME`` with the digest of their text.
    ``cut`` is what was cut from the reply because it went on as somebody else.
    """

    id: str
    turn_seq: int | None
    purpose: str
    attempt: int
    model_asked: str
    model_answered: str | None
    host: str
    dialect: str
    streamed: bool
    settings: Mapping[str, Setting] = {}
    parameters: Mapping[str, Any]
    request_digest: str
    response_id: str | None
    response_created: int | None
    finish_reason: str | None
    usage: Usage
    sensitivity: Sensitivity
    base_resp: BaseResp | None
    reasoning: str | None
    error: dict[str, Any] | None
    first_token_s: float | None
    total_s: float | None
    created_at: Utc
    cut: Cut | None = None


class Turn(Value):
    """What was said and everything that it caused.

    ``human`` is absent where no line is answered, ``reply`` where there is no text yet. ``variant`` counts from 1 among
    ``variants`` siblings. ``calls`` are all attempts at the reply, oldest first. ``round`` is the number of the first
    turn of its round, ``ordinal`` its place there, from 1. ``speaker`` is the seat whose turn it is. ``audience`` are
    the seats that may see it, ``None``: all of them.
    """

    id: str
    session_id: str
    seq: int
    kind: TurnKind
    status: TurnStatus
    round: int
    ordinal: int
    attempt: int
    revision: int
    human: Message | None
    reply: Message | None
    variant: int
    variants: int
    calls: tuple[ModelCall, ...]
    metadata: Metadata
    created_at: Utc
    ended_at: Utc | None
    speaker: int = 0
    audience: tuple[int, ...] | None = None

    @property
    def text(self) -> str:
        """The reply's text, ``""`` where there is none."""
        return self.reply.text if self.reply else ""

    @property
    def call(self) -> ModelCall | None:
        """The last attempt."""
        return self.calls[-1] if self.calls else None

    @property
    def usage(self) -> Usage:
        """What the last attempt cost; every field is ``None`` when no model was called or nothing was reported."""
        return self.calls[-1].usage if self.calls else Usage()

    @property
    def finish(self) -> FinishReason | None:
        """Why the service ended the last attempt's reply, ``None`` where it said nothing or no model was called."""
        return FinishReason.named(self.calls[-1].finish_reason) if self.calls else None

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the last attempt failed, as data, or ``None``."""
        return self.calls[-1].error if self.calls else None


DEFAULT_TALKATIVENESS = 0.5


class Participant(Value):
    """A persona version seated in a session. A human's seat may have no persona.

    ``aliases`` are other names that it is called by. ``order`` is its place among the seats, the lowest first; of equal
    ones, the lower ``seat``. ``talkativeness`` is how likely it speaks unasked, from 0 to 1. A ``muted`` one speaks
    only when it is told to. ``owner`` is your own id of who sits in a human's seat.
    """

    seat: int
    played_by: PlayedBy
    display_name: str
    persona_id: str | None
    persona_version: int | None
    aliases: tuple[str, ...] = ()
    order: int = 0
    talkativeness: float = DEFAULT_TALKATIVENESS
    muted: bool = False
    owner: str | None = None


class SessionInfo(Value):
    """A session as it stands: who is in it, where, since when.

    ``cast`` are the seats in which somebody sits, in their order. ``last_turn_at`` is when its last turn began, or when
    its head was moved otherwise since.
    """

    id: str
    owner: str | None
    scene: str
    settings: SessionSettings
    cast: tuple[Participant, ...]
    metadata: Metadata
    version: int
    head_seq: int | None
    created_at: Utc
    last_turn_at: Utc

    @property
    def models(self) -> tuple[Participant, ...]:
        """The participants that the model plays, in their order."""
        return tuple(one for one in self.cast if one.played_by is PlayedBy.MODEL)

    @property
    def humans(self) -> tuple[Participant, ...]:
        """The participants that humans play, in their order."""
        return tuple(one for one in self.cast if one.played_by is PlayedBy.HUMAN)

    @property
    def speaker(self) -> Participant:
        """The first participant that the model plays."""
        return self.models[0]

    @property
    def human(self) -> Participant:
        """The first participant that a human plays."""
        return self.humans[0]

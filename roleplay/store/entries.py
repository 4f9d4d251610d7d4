"""What a turn writes, as plain values: messages, turns, calls, how a call ended, and the proof of who holds a turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from roleplay.domain.usage import BaseResp, Sensitivity, Usage


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to write; field by field as ``domain.Message``."""

    seq: int
    parent_seq: int | None
    role: str
    seat: int
    name: str
    text: str
    tokens: int
    counter: str
    depth: int
    human_ordinal: int
    model_ordinal: int
    repaired: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn to write; ``reply_seq`` is given out with it, its message comes when there is text."""

    seq: int
    id: str
    parent_turn: int | None
    from_head: int | None
    kind: str
    round: int
    ordinal: int
    speaker: int
    revision: int
    state_seq: int | None
    status: str
    human_seq: int | None
    reply_seq: int | None
    lease_owner: str | None = None
    idempotency_key: str | None = None
    body_digest: str | None = None
    metadata_json: str | None = None
    attempt: int = 1
    moves_head: bool = True


@dataclass(frozen=True, slots=True)
class Uttered:
    """A turn that needed no model, with its one message."""

    turn: NewTurn
    message: NewMessage


@dataclass(frozen=True, slots=True)
class NewCall:
    """A model call to write, before it is made."""

    id: str
    turn_seq: int
    attempt: int
    model_asked: str
    host: str
    dialect: str
    streamed: bool
    parameters: str
    recipe_version: int
    front_digest: str
    recipe: str
    request_digest: str
    prompt_count: int
    counter: str
    purpose: str = "reply"


@dataclass(frozen=True, slots=True)
class Claim:
    """Everything that one claim writes. ``version`` is what the caller saw, the counters are what they become.

    ``again``: ``turn`` is stored already and gets another attempt, with a new ``reply_seq``.
    """

    version: int
    last_seq: int
    last_turn: int
    turn: NewTurn
    human: NewMessage | None
    call: NewCall
    lease: timedelta
    again: bool = False
    state: str | None = None
    pieces: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """Proof of a turn in flight: which turn, which attempt, whose."""

    tenant: str
    session_id: str
    turn_seq: int
    attempt: int
    owner: str

    def where(self) -> dict[str, Any]:
        """Give the parameters of statements that must touch this attempt alone."""
        return {
            "of_tenant": self.tenant,
            "of_session": self.session_id,
            "of_seq": self.turn_seq,
            "of_attempt": self.attempt,
            "of_owner": self.owner,
        }


@dataclass(frozen=True, slots=True)
class CallEnding:
    """How a model call ended: what the service said of it, the error as JSON, seconds from sending."""

    model_answered: str | None = None
    response_id: str | None = None
    response_created: int | None = None
    finish_reason: str | None = None
    usage: Usage = Usage()
    sensitivity: Sensitivity = Sensitivity()
    base_resp: BaseResp | None = None
    reasoning: str | None = None
    error: str | None = None
    first_token_s: float | None = None
    total_s: float = 0.0

    def values(self) -> dict[str, Any]:
        """Give the columns of a call that its ending fills."""
        return {
            "model_answered": self.model_answered,
            "response_id": self.response_id,
            "response_created": self.response_created,
            "finish_reason": self.finish_reason,
            **dict(self.usage),
            **dict(self.sensitivity),
            "base_status": self.base_resp.status_code if self.base_resp else None,
            "base_message": self.base_resp.status_msg if self.base_resp else None,
            "reasoning": self.reasoning,
            "error": self.error,
            "first_token_s": self.first_token_s,
            "total_s": self.total_s,
        }


def columns(value: Any) -> dict[str, Any]:
    """Give one of the values above as the columns it fills."""
    return {name: getattr(value, name) for name in value.__slots__}

"""What a turn writes, as plain values: messages, turns, calls, how a call ended, and the proof of who holds a turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from roleplay.context.counting import Counter
from roleplay.domain.conversation import Cut, Message, ModelCall, Turn, TurnKind, TurnStatus
from roleplay.domain.settings import Setting
from roleplay.domain.usage import BaseResp, Sensitivity, Usage
from roleplay.store.access.decoding import reads
from roleplay.store.records import audience as audiences


@lru_cache(maxsize=256)
@reads("the settings of a model call")
def settings_of(text: str | None) -> Mapping[str, Setting]:
    """Read the settings of a call from the text they are stored as; calls of older versions have none."""
    stored = {} if text is None else json.loads(text)
    return {name: Setting(value=value, layer=layer) for name, (value, layer) in stored.items()}


class PathEnd(NamedTuple):
    """The end of a path: its last message (``None``: it has none), and how many of its messages humans and models
    said."""

    seq: int | None = None
    humans: int = 0
    models: int = 0

    @property
    def depth(self) -> int:
        """How many messages the path has."""
        return self.humans + self.models

    def then(self, seq: int, *, by_human: bool) -> PathEnd:
        """Give the end of the path once another message was said."""
        return PathEnd(seq, self.humans + by_human, self.models + (not by_human))


class NewMessage(NamedTuple):
    """A message to write; field by field as ``domain.Message``. ``after`` makes it."""

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
    revision: int
    repaired: bool = False
    hidden: bool = False
    audience: str | None = None

    @classmethod
    def after(
        cls,
        end: PathEnd,
        seq: int,
        who: tuple[int, str],
        text: str,
        counter: Counter,
        *,
        by_human: bool,
        revision: int,
        repaired: bool = False,
        audience: str | None = None,
    ) -> NewMessage:
        """Make the message ``seq`` that follows the end of a path, said under a revision of the session; ``who`` is the
        speaker's seat and name."""
        before, humans, models = end
        if by_human:
            humans += 1
        else:
            models += 1
        seat, name = who
        return cls(
            seq=seq,
            parent_seq=before,
            role="user" if by_human else "assistant",
            seat=seat,
            name=name,
            text=text,
            tokens=counter.count(text),
            counter=counter.name,
            depth=humans + models,
            human_ordinal=humans,
            model_ordinal=models,
            revision=revision,
            repaired=repaired,
            audience=audience,
        )

    @property
    def end(self) -> PathEnd:
        """The end of the path that this message is the last of."""
        return PathEnd(self.seq, self.human_ordinal, self.model_ordinal)

    def written(self, turn_seq: int, at: datetime) -> Message:
        """Give the message that was written ``at``."""
        return Message(
            seq=self.seq,
            parent_seq=self.parent_seq,
            turn_seq=turn_seq,
            role=self.role,
            seat=self.seat,
            name=self.name,
            text=self.text,
            tokens=self.tokens,
            counter=self.counter,
            repaired=self.repaired,
            hidden=self.hidden,
            created_at=at,
            audience=audiences.read(self.audience),
        )


class NewVerdict(NamedTuple):
    """A guard's verdict to write; field by field as ``domain.StoredVerdict``."""

    side: str
    guard: str
    action: str
    reason: str
    original: str | None


class CallerFields(NamedTuple):
    """The terms of a turn: the caller's key and the digest of its body, metadata, whether it may move the head, and
    whom it is said to."""

    idempotency_key: str | None = None
    body_digest: str | None = None
    metadata_json: str | None = None
    moves_head: bool = True
    audience: str | None = None


NO_CALLER_FIELDS = CallerFields()


class NewTurn(NamedTuple):
    """A turn to write; ``reply_seq`` is given out with it, its message comes when there is text. ``states``: which turn
    wrote each seat's path state last; ``draws``: what was drawn by chance. ``sessions.Position.new_turn`` makes it."""

    seq: int
    id: str
    parent_turn: int | None
    from_head: int | None
    kind: str
    round: int
    ordinal: int
    speaker: int
    revision: int
    states: str | None
    status: str
    human_seq: int | None
    reply_seq: int | None
    lease_owner: str | None = None
    idempotency_key: str | None = None
    body_digest: str | None = None
    metadata_json: str | None = None
    attempt: int = 1
    moves_head: bool = True
    draws: str | None = None
    audience: str | None = None

    def ended(
        self,
        session_id: str,
        status: TurnStatus,
        messages: tuple[Message | None, Message | None],
        calls: Sequence[ModelCall],
        between: tuple[datetime, datetime],
    ) -> Turn:
        """Give the turn as it stands after ``finish``, human and reply in ``messages``. Its human line is its own, so
        that its reply has no variants."""
        human, reply = messages
        began, ended = between
        return Turn(
            id=self.id,
            session_id=session_id,
            seq=self.seq,
            kind=TurnKind(self.kind),
            status=status,
            round=self.round,
            ordinal=self.ordinal,
            attempt=calls[-1].attempt,
            revision=self.revision,
            human=human,
            reply=reply,
            variant=1,
            variants=1,
            calls=tuple(calls),
            metadata=json.loads(self.metadata_json) if self.metadata_json else {},
            created_at=began,
            ended_at=ended,
            speaker=self.speaker,
            audience=audiences.read(self.audience),
        )


@dataclass(frozen=True, slots=True)
class AddedTurn:
    """A turn that needed no model, with its one message, what guards said of it, and the path states that it writes, by
    seat."""

    turn: NewTurn
    message: NewMessage
    verdicts: tuple[NewVerdict, ...] = ()
    state_rows: Mapping[int, str] = field(default_factory=dict)


class HandedOn(NamedTuple):
    """What a turn hands on: which turn wrote each seat's path state last, the rows that it writes itself, and to its
    variants what it drew by chance."""

    states: str | None
    rows: Mapping[int, str]
    draws: str | None


class Purpose(StrEnum):
    """What a model call is for. A turn has attempts of each, counted apart."""

    REPLY = "reply"


class NewCall(NamedTuple):
    """A model call to write, before it is made. One that belongs to no turn has no ``turn_seq``."""

    id: str
    turn_seq: int | None
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
    settings_digest: str
    report: str
    purpose: Purpose = Purpose.REPLY

    def row(self, tenant: str, session_id: str, at: datetime) -> dict[str, Any]:
        """Give the row of a call that begins ``at``."""
        whose = {"tenant": tenant, "session_id": session_id, "created_at": at, "purpose": Purpose(self.purpose).value}
        return self._asdict() | whose

    def ended(self, how: CallEnding, at: datetime, settings: str) -> ModelCall:
        """Give the call that was written ``at``, with its end and the text of its settings."""
        return ModelCall(
            id=self.id,
            turn_seq=self.turn_seq,
            purpose=self.purpose.value,
            attempt=self.attempt,
            model_asked=self.model_asked,
            model_answered=how.model_answered,
            host=self.host,
            dialect=self.dialect,
            streamed=self.streamed,
            settings=settings_of(settings),
            parameters=json.loads(self.parameters),
            request_digest=self.request_digest,
            response_id=how.response_id,
            response_created=how.response_created,
            finish_reason=how.finish_reason,
            usage=how.usage,
            sensitivity=how.sensitivity,
            base_resp=how.base_resp,
            reasoning=how.reasoning,
            error=None if how.error is None else json.loads(how.error),
            first_token_s=how.first_token_s,
            total_s=how.total_s,
            created_at=at,
            cut=how.cut,
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """Everything that one claim writes. ``version`` is what the caller saw, the counters are what they become.

    ``again``: ``turn`` is stored already and gets another attempt, with a new ``reply_seq``. ``earlier`` is the message
    with the text that it has from an attempt before: the reply again, should this attempt give none. ``state_rows``
    are the path states that the turn writes itself, by seat.
    """

    version: int
    last_seq: int
    last_turn: int
    turn: NewTurn
    human: NewMessage | None
    call: NewCall
    lease: timedelta
    again: bool = False
    earlier: int | None = None
    state_rows: Mapping[int, str] = field(default_factory=dict)
    pieces: dict[str, str] = field(default_factory=dict)
    verdicts: tuple[NewVerdict, ...] = ()


class Hold(NamedTuple):
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


class CallHold(NamedTuple):
    """Proof of a call in flight that belongs to no turn: which call, whose."""

    tenant: str
    session_id: str
    call_id: str
    owner: str

    def where(self) -> dict[str, Any]:
        """Give the parameters of statements that must touch this call in these hands alone."""
        return {
            "of_tenant": self.tenant,
            "of_session": self.session_id,
            "of_call": self.call_id,
            "of_owner": self.owner,
        }


class CallEnding(NamedTuple):
    """How a model call ended: what the service said of it, the error as JSON, seconds from sending, what was cut from
    its reply."""

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
    cut: Cut | None = None

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
            "cut": None if self.cut is None else json.dumps(dict(self.cut), ensure_ascii=False),
        }

"""Turns: claim, next attempt, flush, finish, and reading them back.

Every function that changes a turn in flight names turn, attempt and owner, so that a process that lost its turn
changes nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from roleplay.domain.conversation import Message, ModelCall, Turn, TurnKind, TurnStatus
from roleplay.domain.usage import BaseResp, Sensitivity, Usage
from roleplay.store.sessions import ADVANCE
from roleplay.store.tables import (
    IN_FLIGHT,
    HeadMoveRow,
    MessageRow,
    ModelCallRow,
    PathStateRow,
    PieceRow,
    SessionRow,
    TurnRow,
    table,
)

_t = table(TurnRow).c
_c = table(ModelCallRow).c
_m = table(MessageRow).c
_s = table(SessionRow).c

_INSERT_TURN = insert(table(TurnRow))
_INSERT_MESSAGE = insert(table(MessageRow))
_INSERT_CALL = insert(table(ModelCallRow))
_INSERT_STATE = insert(table(PathStateRow))
_INSERT_PIECES = {
    "sqlite": sqlite.insert(table(PieceRow)).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(table(PieceRow)).on_conflict_do_nothing(),
}
_MINE = (
    (_t.tenant == bindparam("of_tenant"))
    & (_t.session_id == bindparam("of_session"))
    & (_t.seq == bindparam("of_seq"))
    & (_t.attempt == bindparam("of_attempt"))
    & (_t.lease_owner == bindparam("of_owner"))
    & text(IN_FLIGHT)  # IN with values would be written anew at every execution
)
_END_TURN = (
    update(table(TurnRow)).where(_MINE).values(status=bindparam("ending"), ended_at=bindparam("at"), lease_until=None)
)
_NEXT_ATTEMPT = update(table(TurnRow)).where(_MINE).values(attempt=_t.attempt + 1, lease_until=bindparam("until"))
_STREAMING = update(table(TurnRow)).where(_MINE).values(status="streaming", lease_until=bindparam("until"))
_END_CALL = update(table(ModelCallRow)).where(
    _c.tenant == bindparam("of_tenant"),
    _c.session_id == bindparam("of_session"),
    _c.id == bindparam("of_call"),
)
_RETEXT = (
    update(table(MessageRow))
    .where(
        _m.tenant == bindparam("of_tenant"),
        _m.session_id == bindparam("of_session"),
        _m.seq == bindparam("of_message"),
    )
    .values(text=bindparam("new_text"), tokens=bindparam("new_tokens"), repaired=bindparam("new_repaired"))
)
_MOVE_HEAD = (
    update(table(SessionRow))
    .where(
        _s.tenant == bindparam("of_tenant"),
        _s.id == bindparam("of_session"),
        func.coalesce(_s.head_seq, 0) == bindparam("from_head"),
    )
    .values(head_seq=bindparam("to_head"), version=_s.version + 1, last_turn_at=bindparam("at"))
)
_INSERT_MOVE = insert(table(HeadMoveRow)).from_select(
    ["session_id", "version", "tenant", "from_seq", "to_seq", "cause", "created_at"],
    select(
        _s.id,
        _s.version,
        _s.tenant,
        bindparam("from_seq", type_=_s.head_seq.type),
        bindparam("to_seq", type_=_s.head_seq.type),
        bindparam("cause", type_=table(HeadMoveRow).c.cause.type),
        bindparam("at", type_=_s.created_at.type),
    ).where(_s.tenant == bindparam("of_tenant"), _s.id == bindparam("of_session")),
)


_HOLDER = select(_t.seq, _t.attempt, _t.lease_owner, _t.lease_until).where(
    _t.tenant == bindparam("tenant"),
    _t.session_id == bindparam("session"),
    _t.id == bindparam("turn"),
    _t.status.in_(("pending", "streaming")),
)
_REPLY_TEXT = (
    select(_m.text)
    .join(table(TurnRow), (_t.session_id == _m.session_id) & (_t.tenant == _m.tenant) & (_t.reply_seq == _m.seq))
    .where(_MINE)
)
_END_LOST_CALL = (
    update(table(ModelCallRow))
    .where(
        _c.tenant == bindparam("of_tenant"),
        _c.session_id == bindparam("of_session"),
        _c.turn_seq == bindparam("of_seq"),
        _c.attempt == bindparam("of_attempt"),
        _c.total_s.is_(None),
    )
    .values(error=bindparam("new_error"))
)
_LOST = json.dumps(
    {
        "slug": "lost",
        "message": "the process that made this call ended before it did",
        "retryable": True,
    }
)


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
            created_at=at,
        )


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
    lease_until: datetime | None = None
    idempotency_key: str | None = None
    body_digest: str | None = None
    metadata_json: str | None = None
    attempt: int = 1
    moves_head: bool = True

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
        )


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

    def ended(self, how: CallEnding, at: datetime) -> ModelCall:
        """Give the call that was written ``at``, with its end."""
        return ModelCall(
            id=self.id,
            turn_seq=self.turn_seq,
            purpose=self.purpose,
            attempt=self.attempt,
            model_asked=self.model_asked,
            model_answered=how.model_answered,
            host=self.host,
            dialect=self.dialect,
            streamed=self.streamed,
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
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """Everything that one claim writes. ``version`` and the counters are what the caller saw and what they become."""

    version: int
    last_seq: int
    last_turn: int
    turn: NewTurn
    human: NewMessage | None
    call: NewCall
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
        return {
            "of_tenant": self.tenant,
            "of_session": self.session_id,
            "of_seq": self.turn_seq,
            "of_attempt": self.attempt,
            "of_owner": self.owner,
        }


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a turn in flight and how long its lease still lasts."""

    turn_seq: int
    attempt: int
    owner: str
    lease_until: datetime


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


_END_CALL = _END_CALL.values({name: bindparam(f"new_{name}") for name in CallEnding().values()})


def claim(connection: Connection, tenant: str, session_id: str, new: Claim, at: datetime) -> bool:
    """Write a turn before its model call. Gives ``False``, having written nothing, when the session moved on."""
    advanced = connection.execute(
        ADVANCE,
        {
            "of_tenant": tenant,
            "of_session": session_id,
            "was": new.version,
            "seq_now": new.last_seq,
            "turn_now": new.last_turn,
            "at": at,
        },
    )
    if advanced.rowcount != 1:
        return False
    plain = {"tenant": tenant, "session_id": session_id}
    if new.pieces:
        rows = [plain | {"digest": digest, "text": words} for digest, words in new.pieces.items()]
        connection.execute(_INSERT_PIECES[connection.dialect.name], rows)
    if new.state is not None:
        connection.execute(_INSERT_STATE, plain | {"seq": new.turn.seq, "state": new.state})
    add_turn(connection, tenant, session_id, new.turn, at)
    if new.human is not None:
        add_message(connection, tenant, session_id, new.turn.seq, new.human, at)
    add_call(connection, tenant, session_id, new.call, at)
    return True


def add_turn(connection: Connection, tenant: str, session_id: str, turn: NewTurn, at: datetime) -> None:
    """Insert one turn; one that is not in flight has ended at ``at``."""
    ended = None if TurnStatus(turn.status).in_flight else at
    row = _row(turn) | {"tenant": tenant, "session_id": session_id, "created_at": at, "ended_at": ended}
    connection.execute(_INSERT_TURN, row)


def add_message(
    connection: Connection, tenant: str, session_id: str, turn_seq: int, message: NewMessage, at: datetime
) -> None:
    """Insert one message of a turn."""
    row = _row(message) | {"tenant": tenant, "session_id": session_id, "turn_seq": turn_seq, "created_at": at}
    connection.execute(_INSERT_MESSAGE, row)


def add_call(connection: Connection, tenant: str, session_id: str, call: NewCall, at: datetime) -> None:
    """Insert one model call, still running."""
    connection.execute(_INSERT_CALL, _row(call) | {"tenant": tenant, "session_id": session_id, "created_at": at})


def next_attempt(
    connection: Connection, hold: Hold, ended: tuple[str, CallEnding], call: NewCall, *, until: datetime, at: datetime
) -> bool:
    """End one call of a turn and begin the next. ``False``, having changed nothing, when the turn is not held."""
    if connection.execute(_NEXT_ATTEMPT, hold.where() | {"until": until}).rowcount != 1:
        return False
    _end_call(connection, hold, *ended)
    add_call(connection, hold.tenant, hold.session_id, call, at)
    return True


def flush(
    connection: Connection, hold: Hold, reply: NewMessage, *, first: bool, until: datetime, at: datetime
) -> bool:
    """Keep the text of a stream so far and renew the lease. ``False`` when the turn is not held."""
    if connection.execute(_STREAMING, hold.where() | {"until": until}).rowcount != 1:
        return False
    _write_reply(connection, hold, reply, first=first, at=at)
    return True


def finish(
    connection: Connection,
    hold: Hold,
    status: TurnStatus,
    ended: tuple[str, CallEnding],
    *,
    reply: NewMessage | None,
    flushed: bool,
    head: tuple[int | None, int] | None,
    at: datetime,
) -> bool:
    """End a turn: status, reply, call and, for ``head`` = (from, to), the session's head, together.

    The head moves only when it still stands where the claim saw it. ``False``, having changed nothing, when the turn is
    not held any more.
    """
    if connection.execute(_END_TURN, hold.where() | {"ending": status.value, "at": at}).rowcount != 1:
        return False
    if reply is not None:
        _write_reply(connection, hold, reply, first=not flushed, at=at)
    _end_call(connection, hold, *ended)
    if head is not None:
        move_head(connection, hold.tenant, hold.session_id, head, cause="reply", at=at)
    return True


def move_head(
    connection: Connection,
    tenant: str,
    session_id: str,
    move: tuple[int | None, int],
    *,
    cause: str,
    at: datetime,
) -> bool:
    """Move a session's head and record the move, when it stands where ``move`` begins; says whether it did."""
    came_from, to = move
    where = {"of_tenant": tenant, "of_session": session_id, "at": at}
    moved = connection.execute(_MOVE_HEAD, where | {"from_head": came_from or 0, "to_head": to})
    if moved.rowcount != 1:
        return False
    connection.execute(_INSERT_MOVE, where | {"from_seq": came_from, "to_seq": to, "cause": cause})
    return True


def holder(connection: Connection, tenant: str, session_id: str, turn_id: str) -> Holder | None:
    """Give who holds a turn in flight, or ``None`` when it is in flight no more."""
    where = {"tenant": tenant, "session": session_id, "turn": turn_id}
    row = connection.execute(_HOLDER, where).first()
    return None if row is None else Holder(*row)


def recover(connection: Connection, hold: Hold, *, at: datetime) -> bool:
    """End a turn whose owner is gone: interrupted when some of its text was kept, else failed.

    ``False``, having changed nothing, when somebody else ended it first.
    """
    where = hold.where()
    text = connection.execute(_REPLY_TEXT, where).scalar()
    status = TurnStatus.INTERRUPTED if text else TurnStatus.FAILED
    if connection.execute(_END_TURN, where | {"ending": status.value, "at": at}).rowcount != 1:
        return False
    connection.execute(_END_LOST_CALL, where | {"new_error": _LOST})
    return True


def _write_reply(connection: Connection, hold: Hold, reply: NewMessage, *, first: bool, at: datetime) -> None:
    if first:
        add_message(connection, hold.tenant, hold.session_id, hold.turn_seq, reply, at)
        return
    connection.execute(
        _RETEXT,
        {
            "of_tenant": hold.tenant,
            "of_session": hold.session_id,
            "of_message": reply.seq,
            "new_text": reply.text,
            "new_tokens": reply.tokens,
            "new_repaired": reply.repaired,
        },
    )


def _end_call(connection: Connection, hold: Hold, call_id: str, ending: CallEnding) -> None:
    where = {"of_tenant": hold.tenant, "of_session": hold.session_id, "of_call": call_id}
    connection.execute(_END_CALL, where | {f"new_{name}": value for name, value in ending.values().items()})


def _row(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}

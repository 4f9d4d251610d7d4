"""Turns in flight: who holds them, and what is kept when their owner is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, literal, literal_column, select, update

from roleplay.domain.conversation import TurnStatus
from roleplay.store.access.tables import (
    MessageRow,
    ModelCallRow,
    TurnRow,
    UtcDateTime,
    table,
)
from roleplay.store.records.calls import FOR_REPLY
from roleplay.store.records.new_rows import CallEnding, Hold, NewMessage
from roleplay.store.records.stored_turns import read_turn
from roleplay.store.records.turns import END_TURN, HELD, LIVE, OURS, add_message, end_call

_t = table(TurnRow).c
_c = table(ModelCallRow).c
_m = table(MessageRow).c
EXPIRED: dict[str, Any] = {
    "sqlite": _t.lease_until <= bindparam("at", type_=UtcDateTime),
    "postgresql": _t.lease_until <= func.now(),
}
_HOLDERS: dict[str, Select[Any]] = {
    name: select(_t.session_id, _t.id, _t.seq, _t.attempt, _t.lease_owner, expired.label("expired")).where(
        _t.tenant == bindparam("tenant"), LIVE
    )
    for name, expired in EXPIRED.items()
}
_HOLDER = {
    name: holders.where(_t.session_id == bindparam("session"), _t.id == bindparam("turn"))
    for name, holders in _HOLDERS.items()
}
_REPLY_TEXT = (
    select(_m.text)
    .join(table(TurnRow), (_t.session_id == _m.session_id) & (_t.tenant == _m.tenant) & (_t.reply_seq == _m.seq))
    .where(HELD)
)
_END_LOST_CALL = (
    update(table(ModelCallRow))
    .where(
        _c.tenant == bindparam("of_tenant"),
        _c.session_id == bindparam("of_session"),
        _c.turn_seq == bindparam("of_seq"),
        ~FOR_REPLY | (_c.attempt == bindparam("of_attempt")),  # other calls of the turn were its owner's too
        _c.total_s.is_(None),
        _c.error.is_(None),
    )
    .values(error=bindparam("new_error"))
)
LOST = json.dumps({"slug": "lost", "message": "the process that made this call ended before it did", "retryable": True})
_HAS_TEXT = update(table(TurnRow)).where(OURS, _t.status == "failed").values(status="interrupted")
_ACCEPT = (
    update(table(TurnRow))
    .where(
        _t.tenant == bindparam("of_tenant"),
        _t.session_id == bindparam("of_session"),
        _t.seq == bindparam("of_seq"),
        _t.status == "interrupted",
    )
    .values(status="completed")
)
_MESSAGE_AT = select(literal(1)).where(
    _m.tenant == bindparam("of_tenant"), _m.session_id == bindparam("of_session"), _m.seq == bindparam("of_message")
)
_TURN_AT = select(literal(1)).where(
    _t.tenant == bindparam("of_tenant"), _t.session_id == bindparam("of_session"), _t.seq == bindparam("of_seq")
)


_TEXT_OF = select(func.max(_m.seq)).where(
    _m.tenant == bindparam("tenant"),
    _m.session_id == bindparam("session"),
    _m.turn_seq == bindparam("turn"),
    _m.role == literal_column("'assistant'"),
)
_EARLIER = _TEXT_OF.where(_m.parent_seq == bindparam("after"))
_EARLIER_OPENING = _TEXT_OF.where(_m.parent_seq.is_(None))


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a turn in flight, and whether the lease has run out."""

    session_id: str
    turn_id: str
    turn_seq: int
    attempt: int
    owner: str
    expired: bool

    @property
    def key(self) -> str:
        """By what ``Ports.driven`` knows it."""
        return self.turn_id


def holder(connection: Connection, tenant: str, session_id: str, turn_id: str, at: datetime) -> Holder | None:
    """Give who holds a turn in flight, or ``None`` when it is in flight no more."""
    statement = _HOLDER[connection.dialect.name]
    where = {"tenant": tenant, "session": session_id, "turn": turn_id} | clock(connection, at)
    row = connection.execute(statement, where).first()
    return None if row is None else Holder(*row)


def holders(connection: Connection, tenant: str, at: datetime) -> Sequence[Holder]:
    """Give all turns of a tenant that are in flight."""
    rows = connection.execute(_HOLDERS[connection.dialect.name], {"tenant": tenant} | clock(connection, at))
    return [Holder(*row) for row in rows]


def recover(connection: Connection, hold: Hold, *, at: datetime) -> bool:
    """End a turn whose owner is gone: interrupted when some of its text was kept, of an earlier attempt's if the last
    one said nothing; else failed.

    ``False``, having changed nothing, when somebody else ended it first.
    """
    where = hold.where()
    kept = connection.execute(_REPLY_TEXT, where).scalar()
    earlier = None if kept else _earlier(connection, hold)
    status = TurnStatus.INTERRUPTED if kept or earlier else TurnStatus.FAILED
    if END_TURN.run(connection, where | {"ending": status.value, "at": at, "earlier": earlier}).rowcount != 1:
        return False
    connection.execute(_END_LOST_CALL, _attempt(hold) | {"new_error": LOST})
    return True


def _earlier(connection: Connection, hold: Hold) -> int | None:
    """Give the message that holds the text of a turn's latest attempt with some, if it had more than one."""
    if hold.attempt == 1:
        return None
    turn = read_turn(connection, hold.tenant, hold.session_id, None, hold.turn_seq)
    where = {"tenant": hold.tenant, "session": hold.session_id, "turn": hold.turn_seq}
    after = turn.human_seq if turn.human_seq is not None else turn.tip_seq
    statement = _EARLIER_OPENING if after is None else _EARLIER
    return connection.execute(statement, where | ({} if after is None else {"after": after})).scalar()


def keep_lost(
    connection: Connection, hold: Hold, ended: tuple[str, CallEnding], reply: NewMessage | None, *, at: datetime
) -> None:
    """Keep the text and usage of an attempt whose turn was taken over; what the turn has become stays as it is."""
    end_call(connection, hold, *ended)
    where = {"of_tenant": hold.tenant, "of_session": hold.session_id, "of_seq": hold.turn_seq}
    if reply is None or connection.execute(_TURN_AT, where).first() is None:  # its session was erased
        return
    where = {"of_tenant": hold.tenant, "of_session": hold.session_id, "of_message": reply.seq}
    if connection.execute(_MESSAGE_AT, where).first() is None:
        add_message(connection, hold.tenant, hold.session_id, hold.turn_seq, reply, at)
        connection.execute(_HAS_TEXT, _attempt(hold))


def accept(connection: Connection, tenant: str, session_id: str, turn_seq: int) -> None:
    """Call an interrupted turn complete."""
    where = {"of_tenant": tenant, "of_session": session_id, "of_seq": turn_seq}
    connection.execute(_ACCEPT, where)


def _attempt(hold: Hold) -> dict[str, Any]:
    where = hold.where()
    del where["of_owner"]
    return where


def clock(connection: Connection, at: datetime) -> dict[str, Any]:
    """Give what a look at leases must be told: the time, where the database's clock is not the one that counts."""
    return {} if connection.dialect.name == "postgresql" else {"at": at}

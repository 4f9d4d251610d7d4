"""Turns that need another look: who holds them, what they were told, and what is kept when their owner is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, Row, Select, bindparam, func, literal, literal_column, select, update

from roleplay.domain.conversation import TurnStatus
from roleplay.errors import InvalidInputError, NotFoundError
from roleplay.store.calls import FOR_REPLY
from roleplay.store.decoding import as_text, reads
from roleplay.store.new_rows import CallEnding, Hold, NewMessage, PathEnd
from roleplay.store.path_states import SHARED, handed_on
from roleplay.store.sessions import FIRST_MODEL
from roleplay.store.tables import MessageRow, ModelCallRow, ParticipantRow, PathStateRow, TurnRow, UtcDateTime, table
from roleplay.store.turns import END_TURN, HELD, LIVE, OURS, add_message, end_call

_t = table(TurnRow).c
_c = table(ModelCallRow).c
_m = table(MessageRow).c
_parent = table(TurnRow).alias("parent")
_tip = table(MessageRow).alias("tip")
_own = table(PathStateRow).alias("own_state")
_shared = table(PathStateRow).alias("shared_state")
_p = table(ParticipantRow).c
#: Who answers a turn's line: who spoke it, where that is the model's seat, as it is for a variant of a reply.
_answering = func.coalesce(
    select(_p.seat)
    .where(
        _p.tenant == bindparam("tenant"),
        _p.session_id == bindparam("session"),
        _p.seat == _t.speaker,
        _p.played_by == literal_column("'model'"),
    )
    .correlate(table(TurnRow))
    .scalar_subquery(),
    FIRST_MODEL,
)
_human = table(MessageRow).alias("human")
_reply = table(MessageRow).alias("reply")

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


def _stored_turns(where: Any) -> Select[Any]:
    return (
        select(
            _t.id,
            _t.seq,
            _t.kind,
            _t.status,
            _t.attempt,
            _t.revision,
            _t.round,
            _t.speaker,
            _answering.label("answering"),
            _t.parent_turn,
            _t.from_head,
            _t.human_seq,
            _t.reply_seq,
            _human.c.parent_seq.label("human_parent"),
            _human.c.seat.label("human_seat"),
            _human.c.name.label("human_name"),
            _human.c.text.label("human_text"),
            _human.c.tokens.label("human_tokens"),
            _human.c.counter.label("human_counter"),
            _human.c.human_ordinal,
            _human.c.model_ordinal,
            _reply.c.text.label("reply_text"),
            _reply.c.parent_seq.label("reply_parent"),
            _parent.c.states,
            _own.c.state,
            _shared.c.state.label("shared"),
            _t.states.label("left"),
            _t.draws,
            _tip.c.seq.label("tip_seq"),
            _tip.c.human_ordinal.label("tip_humans"),
            _tip.c.model_ordinal.label("tip_models"),
        )
        .outerjoin(_human, _beside(_human) & (_human.c.seq == _t.human_seq))
        .outerjoin(_reply, _beside(_reply) & (_reply.c.seq == _t.reply_seq))
        .outerjoin(_parent, _beside(_parent) & (_parent.c.seq == _t.parent_turn))
        .outerjoin(_tip, _beside(_tip) & (_tip.c.seq == func.coalesce(_parent.c.reply_seq, _parent.c.human_seq)))
        .outerjoin(_own, handed_on(_own, _parent, _answering))
        .outerjoin(_shared, handed_on(_shared, _parent, literal_column(str(SHARED), Integer)))
        .where(_t.tenant == bindparam("tenant"), _t.session_id == bindparam("session"), where)
    )


def _beside(other: Any) -> Any:
    return (other.c.session_id == _t.session_id) & (other.c.tenant == _t.tenant)


_BY_ID = _stored_turns(_t.id == bindparam("turn"))
_BY_SEQ = _stored_turns(_t.seq == bindparam("seq"))


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


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A stored turn as another variant or attempt needs it: its place, its human line, its reply, the seat that gives
    another one (``answering``), what its parent handed on (``states``, and of them that seat's ``state`` and what is
    ``shared``), what it handed on itself (``left``), what it drew by chance, and its parent's last message."""

    id: str
    seq: int
    kind: str
    status: str
    attempt: int
    revision: int
    round: int
    speaker: int
    answering: int
    parent_turn: int | None
    from_head: int | None
    human_seq: int | None
    reply_seq: int | None
    human_parent: int | None
    human_seat: int | None
    human_name: str | None
    human_text: str | None
    human_tokens: int | None
    human_counter: str | None
    human_ordinal: int | None
    model_ordinal: int | None
    reply_text: str | None
    reply_parent: int | None
    states: str | None
    state: str | None
    shared: str | None
    left: str | None
    draws: str | None
    tip_seq: int | None
    tip_humans: int | None
    tip_models: int | None

    @property
    def end(self) -> PathEnd:
        """The end of the path that the turn's reply follows."""
        if self.human_seq is None or self.human_text is None:
            return PathEnd(self.tip_seq, self.tip_humans or 0, self.tip_models or 0)
        return PathEnd(self.human_seq, self.human_ordinal or 0, self.model_ordinal or 0)

    @property
    def tip(self) -> int | None:
        """The last message of the turn."""
        return self.reply_seq if self.reply_text is not None else self.human_seq


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


def read_turn(
    connection: Connection, tenant: str, session_id: str, turn_id: str | None, default: int | None
) -> StoredTurn:
    """Read a turn by its id, or by the number ``default`` when no id is given.

    Raises ``NotFoundError``, and ``InvalidInputError`` when there is neither.
    """
    where: dict[str, Any] = {"tenant": tenant, "session": session_id}
    if turn_id is None and default is None:
        raise InvalidInputError("turn_id", "is needed, since nothing was said yet")
    by_id = turn_id is not None
    row = connection.execute(
        _BY_ID if by_id else _BY_SEQ, where | ({"turn": turn_id} if by_id else {"seq": default})
    ).first()
    if row is None:
        raise NotFoundError("turn", str(turn_id or default))
    return _as_stored_turn(row)


@reads("a turn")
def _as_stored_turn(row: Row[*tuple[Any, ...]]) -> StoredTurn:
    found = StoredTurn(*row)
    TurnStatus(found.status)
    for text in (found.human_text, found.reply_text):
        as_text(text or "")
    return found


def _attempt(hold: Hold) -> dict[str, Any]:
    where = hold.where()
    del where["of_owner"]
    return where


def clock(connection: Connection, at: datetime) -> dict[str, Any]:
    """Give what a look at leases must be told: the time, where the database's clock is not the one that counts."""
    return {} if connection.dialect.name == "postgresql" else {"at": at}

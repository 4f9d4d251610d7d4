"""A turn in flight: claim, next attempt, flush, finish.

Every function that changes a turn in flight names turn, attempt and owner, so that a process that lost its turn
changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Integer,
    Interval,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from roleplay.domain.conversation import TurnStatus
from roleplay.store.access.prepared import Prepared
from roleplay.store.access.tables import (
    IN_FLIGHT,
    MessageRow,
    ModelCallRow,
    PathStateRow,
    PieceRow,
    TurnRow,
    UtcDateTime,
    table,
)
from roleplay.store.records import verdicts
from roleplay.store.records.ancestry import JUMP, jump_of
from roleplay.store.records.calls import ERASED
from roleplay.store.records.moves import move_head
from roleplay.store.records.new_rows import (
    AddedTurn,
    CallEnding,
    Claim,
    HandedOn,
    Hold,
    NewCall,
    NewMessage,
    NewTurn,
)
from roleplay.store.records.sessions import ADVANCE

_t = table(TurnRow).c
_c = table(ModelCallRow).c
_m = table(MessageRow).c

LIVE = text(IN_FLIGHT)  # IN with values would be written anew at every execution
OURS = (
    (_t.tenant == bindparam("of_tenant"))
    & (_t.session_id == bindparam("of_session"))
    & (_t.seq == bindparam("of_seq"))
    & (_t.attempt == bindparam("of_attempt"))
)
HELD = OURS & (_t.lease_owner == bindparam("of_owner")) & LIVE

# Leases run by the database's clock where all machines share it.
UNTIL: dict[str, Any] = {
    "sqlite": bindparam("until", type_=UtcDateTime),
    "postgresql": func.now() + bindparam("lease", type_=Interval),
}
_INSERT_TURN = Prepared(insert(table(TurnRow)))
_INSERT_LEASED = {name: Prepared(insert(table(TurnRow)).values(lease_until=end)) for name, end in UNTIL.items()}
_INSERT_MESSAGE = Prepared(insert(table(MessageRow)).values(jump_seq=JUMP))
_INSERT_CALL = Prepared(insert(table(ModelCallRow)))
_PUT_STATE: dict[str, Any] = {}
for _name, _into in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert)):
    _put = _into(table(PathStateRow))
    _PUT_STATE[_name] = _put.on_conflict_do_update(
        index_elements=["session_id", "seq", "seat"], set_={"state": _put.excluded.state}
    )
_HANDS_ON = update(table(TurnRow)).where(HELD).values(states=bindparam("new_states"), draws=bindparam("new_draws"))
_INSERT_PIECES = {
    "sqlite": sqlite.insert(table(PieceRow)).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(table(PieceRow)).on_conflict_do_nothing(),
}
_AGAIN = {
    name: update(table(TurnRow))
    .where(
        _t.tenant == bindparam("of_tenant"),
        _t.session_id == bindparam("of_session"),
        _t.seq == bindparam("of_seq"),
        or_(_t.status == "failed", _t.status == "interrupted"),
    )
    .values(
        status="pending",
        attempt=bindparam("new_attempt"),
        reply_seq=bindparam("new_reply"),
        from_head=bindparam("new_head"),
        moves_head=bindparam("new_moves"),
        states=bindparam("new_states"),
        draws=bindparam("new_draws"),
        revision=bindparam("new_revision"),
        speaker=bindparam("new_speaker"),
        lease_owner=bindparam("new_owner"),
        lease_until=end,
        ended_at=None,
        ends_round=None,  # who waited for the attempt before has spoken, waits no more, or asks again
    )
    for name, end in UNTIL.items()
}
_NEXT_ATTEMPT = {
    name: Prepared(update(table(TurnRow)).where(HELD).values(attempt=_t.attempt + 1, lease_until=end))
    for name, end in UNTIL.items()
}
_STREAMING = {
    name: Prepared(update(table(TurnRow)).where(HELD).values(status="streaming", lease_until=end))
    for name, end in UNTIL.items()
}
_RENEWED = {name: Prepared(update(table(TurnRow)).where(HELD).values(lease_until=end)) for name, end in UNTIL.items()}
_ENDS_ROUND = (
    update(table(TurnRow))
    .where(
        _t.tenant == bindparam("of_tenant"),
        _t.session_id == bindparam("of_session"),
        _t.id == bindparam("of_turn"),
        LIVE,
    )
    .values(ends_round=true())
)
_WAITED_FOR = select(_t.ends_round).where(
    _t.tenant == bindparam("tenant"), _t.session_id == bindparam("session"), _t.seq == bindparam("seq")
)
_IS_HELD = select(_t.seq).where(HELD)
_HAS_CALL = select(_c.turn_seq).where(
    _c.tenant == bindparam("of_tenant"), _c.session_id == bindparam("of_session"), _c.id == bindparam("of_call")
)
_WAS_ENDED = select(_t.seq).where(
    OURS,
    _t.lease_owner == bindparam("of_owner"),
    _t.status == bindparam("ending"),
    _t.ended_at == bindparam("at"),
)
END_TURN = Prepared(
    update(table(TurnRow))
    .where(HELD)
    .values(
        status=bindparam("ending"),
        ended_at=bindparam("at"),
        lease_until=None,
        reply_seq=func.coalesce(bindparam("earlier", type_=Integer), _t.reply_seq),
    )
)
_NEW_ENDING = tuple(f"new_{name}" for name in CallEnding().values())
_END_CALL = Prepared(
    update(table(ModelCallRow))
    .where(
        _c.tenant == bindparam("of_tenant"),
        _c.session_id == bindparam("of_session"),
        _c.id == bindparam("of_call"),
        _c.request_digest != literal_column(f"'{ERASED}'"),  # who comes late brings nothing of it back
    )
    .values({name: bindparam(f"new_{name}") for name in CallEnding().values()})
)
_RETEXT = Prepared(
    update(table(MessageRow))
    .where(
        _m.tenant == bindparam("of_tenant"),
        _m.session_id == bindparam("of_session"),
        _m.seq == bindparam("of_message"),
    )
    .values(
        name=bindparam("new_name"),
        text=bindparam("new_text"),
        tokens=bindparam("new_tokens"),
        counter=bindparam("new_counter"),
        repaired=bindparam("new_repaired"),
        revision=bindparam("new_revision"),
    )
)

_UNSAY = delete(table(MessageRow)).where(
    _m.tenant == bindparam("of_tenant"),
    _m.session_id == bindparam("of_session"),
    _m.seq == bindparam("of_message"),
    _m.turn_seq == bindparam("of_seq"),
)


def claim(connection: Connection, tenant: str, session_id: str, new: Claim, at: datetime, *, now: datetime) -> bool:
    """Write a turn before its model call. Gives ``False``, having written nothing, when the session moved on.

    ``at`` is when the turn began, ``now`` when the lease does: between them the lock was waited for.
    """
    advance = {"was": new.version, "seq_now": new.last_seq, "turn_now": new.last_turn, "at": at}
    if ADVANCE.run(connection, advance | {"of_tenant": tenant, "of_session": session_id}).rowcount != 1:
        return False
    plain = {"tenant": tenant, "session_id": session_id}
    add_pieces(connection, tenant, session_id, new.pieces)
    _hand_on(connection, tenant, session_id, new.turn.seq, new.state_rows)
    if new.again:
        _claim_again(connection, tenant, session_id, new, now)
    else:
        row = new.turn._asdict() | plain | {"created_at": at, "ended_at": None}
        leased = _INSERT_LEASED[connection.dialect.name]
        leased.run(connection, row | until(connection, now, new.lease))
    if new.human is not None:
        add_message(connection, tenant, session_id, new.turn.seq, new.human, at)
    add_call(connection, tenant, session_id, new.call, at)
    verdicts.add(connection, tenant, session_id, (new.turn.seq, new.turn.attempt), new.verdicts, at)
    return True


def add_pieces(connection: Connection, tenant: str, session_id: str, pieces: Mapping[str, str]) -> None:
    """Write the texts of a session that are not there yet, by their digests."""
    if pieces:
        plain = {"tenant": tenant, "session_id": session_id}
        rows = [plain | {"digest": digest, "text": words} for digest, words in pieces.items()]
        connection.execute(_INSERT_PIECES[connection.dialect.name], rows)


def _hand_on(connection: Connection, tenant: str, session_id: str, turn_seq: int, rows: Mapping[int, str]) -> None:
    """Write what a turn hands on; an attempt before may have written another, on which nothing was built yet."""
    if rows:
        plain = {"tenant": tenant, "session_id": session_id, "seq": turn_seq}
        values = [plain | {"seat": seat, "state": state} for seat, state in rows.items()]
        connection.execute(_PUT_STATE[connection.dialect.name], values)


def add_complete(
    connection: Connection, tenant: str, session_id: str, version: int, new: AddedTurn, at: datetime
) -> bool:
    """Write a turn that needs no model, and stand on it where it moves the head. Gives ``False``, having written
    nothing, when the session moved on."""
    turn, message = new.turn, new.message
    advance = {"was": version, "seq_now": message.seq, "turn_now": turn.seq, "at": at}
    if ADVANCE.run(connection, advance | {"of_tenant": tenant, "of_session": session_id}).rowcount != 1:
        return False
    _hand_on(connection, tenant, session_id, turn.seq, new.state_rows)
    add_turn(connection, tenant, session_id, turn, at)
    add_message(connection, tenant, session_id, turn.seq, message, at)
    verdicts.add(connection, tenant, session_id, (turn.seq, turn.attempt), new.verdicts, at)
    if turn.moves_head:
        move_head(connection, tenant, session_id, (turn.from_head, message.seq), cause="reply", at=at)
    return True


def interrupt_claim(
    connection: Connection, tenant: str, session_id: str, made: Claim, ending: CallEnding, at: datetime
) -> None:
    """Interrupt a turn whose caller left before its call was made; where the claim does not stand, change nothing.

    The call tells: another thread of this process may hold a turn of the same number.
    """
    where = {"of_tenant": tenant, "of_session": session_id, "of_call": made.call.id}
    if connection.execute(_HAS_CALL, where).first() is not None:
        hold = Hold(tenant, session_id, made.turn.seq, made.turn.attempt, made.turn.lease_owner or "")
        ended = made.call.id, ending
        earlier = made.earlier
        finish(
            connection,
            hold,
            TurnStatus.INTERRUPTED,
            ended,
            reply=None,
            flushed=False,
            earlier=earlier,
            head=None,
            at=at,
        )


def _claim_again(connection: Connection, tenant: str, session_id: str, new: Claim, now: datetime) -> None:
    """Put a turn that failed or was interrupted in flight again. The version that moved with it guards the rest."""
    turn = new.turn
    connection.execute(
        _AGAIN[connection.dialect.name],
        {
            "of_tenant": tenant,
            "of_session": session_id,
            "of_seq": turn.seq,
            "new_attempt": turn.attempt,
            "new_reply": turn.reply_seq,
            "new_head": turn.from_head,
            "new_moves": turn.moves_head,
            "new_owner": turn.lease_owner,
            "new_states": turn.states,
            "new_draws": turn.draws,
            "new_revision": turn.revision,
            "new_speaker": turn.speaker,
        }
        | until(connection, now, new.lease),
    )


def add_turn(connection: Connection, tenant: str, session_id: str, turn: NewTurn, at: datetime) -> None:
    """Insert one turn that needs no model and has ended at ``at``."""
    row = turn._asdict() | {"tenant": tenant, "session_id": session_id, "created_at": at, "ended_at": at}
    _INSERT_TURN.run(connection, row)


def add_message(
    connection: Connection, tenant: str, session_id: str, turn_seq: int, message: NewMessage, at: datetime
) -> None:
    """Insert one message of a turn."""
    row = message._asdict()
    to, over = jump_of(message.seq, message.parent_seq, message.depth)
    row |= {"tenant": tenant, "session_id": session_id, "turn_seq": turn_seq, "created_at": at}
    row |= {"jump_to": to, "jump_over": over, "of_tenant": tenant, "of_session": session_id}
    _INSERT_MESSAGE.run(connection, row)


def add_call(connection: Connection, tenant: str, session_id: str, call: NewCall, at: datetime) -> None:
    """Insert one model call of a turn, still running."""
    _INSERT_CALL.run(connection, call.row(tenant, session_id, at))


def next_attempt(
    connection: Connection,
    hold: Hold,
    ended: tuple[str, CallEnding],
    call: NewCall,
    pieces: Mapping[str, str],
    handed: HandedOn | None,
    *,
    lease: timedelta,
    at: datetime,
    now: datetime,
) -> bool:
    """End one call of a turn and begin the next, whose texts are ``pieces``; where its context is another, the turn
    hands on what is ``handed``.

    ``False``, having changed nothing, when the turn is not held.

    Again with the same values, it changes nothing and says what it said.
    """
    if not _still_held(connection, _NEXT_ATTEMPT, hold, lease, now):
        return is_held(connection, hold._replace(attempt=call.attempt))
    end_call(connection, hold, *ended)
    add_pieces(connection, hold.tenant, hold.session_id, pieces)
    if handed is not None:
        _hand_on(connection, hold.tenant, hold.session_id, hold.turn_seq, handed.rows)
        new = {"new_states": handed.states, "new_draws": handed.draws}
        connection.execute(_HANDS_ON, hold._replace(attempt=call.attempt).where() | new)
    add_call(connection, hold.tenant, hold.session_id, call, at)
    return True


def end_round(connection: Connection, tenant: str, session_id: str, turn_id: str) -> None:
    """Note that somebody waits to speak, so that the round that a turn in flight is of ends with it."""
    connection.execute(_ENDS_ROUND, {"of_tenant": tenant, "of_session": session_id, "of_turn": turn_id})


def ends_round(connection: Connection, tenant: str, session_id: str, seq: int) -> bool:
    """Whether somebody waited to speak while a turn was in flight."""
    return bool(connection.execute(_WAITED_FOR, {"tenant": tenant, "session": session_id, "seq": seq}).scalar())


def renew(connection: Connection, hold: Hold, *, lease: timedelta, now: datetime) -> bool:
    """Begin the lease anew. ``False`` when the turn is not held."""
    return _still_held(connection, _RENEWED, hold, lease, now)


def flush(
    connection: Connection,
    hold: Hold,
    reply: NewMessage,
    *,
    first: bool,
    lease: timedelta,
    at: datetime,
    now: datetime,
) -> bool:
    """Keep the text of a stream so far and renew the lease. ``False`` when the turn is not held."""
    if not _still_held(connection, _STREAMING, hold, lease, now):
        return False
    write_reply(connection, hold, reply, first=first, at=at)
    return True


def unsay(connection: Connection, hold: Hold, message: int) -> bool:
    """Delete the text that was kept of a reply in flight, all of which proved to be no reply. ``False`` when the turn
    is not held."""
    if not is_held(connection, hold):
        return False
    where = {"of_tenant": hold.tenant, "of_session": hold.session_id, "of_seq": hold.turn_seq, "of_message": message}
    connection.execute(_UNSAY, where)
    return True


def finish(
    connection: Connection,
    hold: Hold,
    status: TurnStatus,
    ended: tuple[str, CallEnding],
    *,
    reply: NewMessage | None,
    flushed: bool,
    earlier: int | None = None,
    head: tuple[int | None, int] | None,
    at: datetime,
) -> bool:
    """End a turn: status, reply, call and, for ``head`` = (from, to), the session's head, together.

    ``earlier`` is the message that is its reply again when there is no new one. The head moves only when it still
    stands where the claim saw it. ``False``, having changed nothing, when the turn is
    not held any more. Again with the same values, it changes nothing and says what it said.
    """
    ended_as = {"ending": status.value, "at": at, "earlier": earlier}
    if END_TURN.run(connection, hold.where() | ended_as).rowcount != 1:
        return connection.execute(_WAS_ENDED, hold.where() | {"ending": status.value, "at": at}).first() is not None
    if reply is not None:
        write_reply(connection, hold, reply, first=not flushed, at=at)
    end_call(connection, hold, *ended)
    if head is not None:
        move_head(connection, hold.tenant, hold.session_id, head, cause="reply", at=at)
    return True


def write_reply(connection: Connection, hold: Hold, reply: NewMessage, *, first: bool, at: datetime) -> None:
    """Insert a reply, or give the one that is there its new text. ``first``: it is certainly not there."""
    if first or not _reworded(connection, hold, reply):
        add_message(connection, hold.tenant, hold.session_id, hold.turn_seq, reply, at)


def is_held(connection: Connection, hold: Hold) -> bool:
    """Whether the turn is in flight, at this attempt, in these hands."""
    return connection.execute(_IS_HELD, hold.where()).first() is not None


def _reworded(connection: Connection, hold: Hold, reply: NewMessage) -> bool:
    done = _RETEXT.run(
        connection,
        {
            "of_tenant": hold.tenant,
            "of_session": hold.session_id,
            "of_message": reply.seq,
            "new_name": reply.name,
            "new_text": reply.text,
            "new_tokens": reply.tokens,
            "new_counter": reply.counter,
            "new_repaired": reply.repaired,
            "new_revision": reply.revision,
        },
    )
    return done.rowcount == 1


def end_call(connection: Connection, hold: Hold, call_id: str, ending: CallEnding) -> None:
    """Write how a call ended."""
    where = {"of_tenant": hold.tenant, "of_session": hold.session_id, "of_call": call_id}
    _END_CALL.run(connection, where | dict(zip(_NEW_ENDING, ending.values().values(), strict=True)))


def _still_held(
    connection: Connection, statements: dict[str, Prepared], hold: Hold, lease: timedelta, now: datetime
) -> bool:
    done = statements[connection.dialect.name].run(connection, hold.where() | until(connection, now, lease))
    return done.rowcount == 1


def until(connection: Connection, now: datetime, lease: timedelta) -> dict[str, Any]:
    """Give what a lease that begins ``now`` takes, by the clock that counts."""
    return {"lease": lease} if connection.dialect.name == "postgresql" else {"until": now + lease}

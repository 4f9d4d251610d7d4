"""Moves of a session's head. Each is a row, so that undo and audit need no guess."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from roleplay.errors import StoreError
from roleplay.store.access.prepared import Prepared
from roleplay.store.access.tables import HeadMoveRow, MessageRow, SessionRow, table

_s = table(SessionRow).c
_h = table(HeadMoveRow).c
_m = table(MessageRow).c

_move = (
    update(table(SessionRow))
    .where(
        _s.tenant == bindparam("of_tenant"),
        _s.id == bindparam("of_session"),
        func.coalesce(_s.head_seq, 0) == bindparam("from_head"),
    )
    .values(head_seq=bindparam("to_head"), version=_s.version + 1)
)
_MOVE = Prepared(_move.values(last_turn_at=bindparam("at")))
_MOVE_TO_REPLY = Prepared(_move)  # its turn has set the time when it began, so that two indexes are written once
_INSERT = Prepared(
    insert(table(HeadMoveRow)).from_select(
        ["session_id", "version", "tenant", "from_seq", "to_seq", "cause", "undoes", "created_at"],
        select(
            _s.id,
            _s.version,
            _s.tenant,
            bindparam("from_seq", type_=_h.from_seq.type),
            bindparam("to_seq", type_=_h.to_seq.type),
            bindparam("cause", type_=_h.cause.type),
            bindparam("undoes", type_=_h.undoes.type),
            bindparam("at", type_=_h.created_at.type),
        ).where(_s.tenant == bindparam("of_tenant"), _s.id == bindparam("of_session")),
    )
)
_LATEST = (
    select(_h.version, _h.from_seq, _h.to_seq, _h.cause, _h.undoes)
    .where(_h.tenant == bindparam("tenant"), _h.session_id == bindparam("session"), _h.version < bindparam("below"))
    .order_by(_h.version.desc())
    .limit(1)
)
_HIDE = (
    update(table(MessageRow))
    .where(
        _m.tenant == bindparam("of_tenant"),
        _m.session_id == bindparam("of_session"),
        _m.seq.in_(bindparam("of_messages", expanding=True)),
    )
    .values(hidden=bindparam("now_hidden"))
)


def move_head(
    connection: Connection,
    tenant: str,
    session_id: str,
    move: tuple[int | None, int | None],
    *,
    cause: str,
    at: datetime,
    undoes: int | None = None,
) -> bool:
    """Move a session's head and record the move, when it stands where ``move`` begins; says whether it did."""
    came_from, to = move
    where = {"of_tenant": tenant, "of_session": session_id}
    heads = where | {"from_head": came_from or 0, "to_head": to}
    moved = _MOVE_TO_REPLY.run(connection, heads) if cause == "reply" else _MOVE.run(connection, heads | {"at": at})
    if moved.rowcount != 1:
        return False
    row = {"from_seq": came_from, "to_seq": to, "cause": cause, "undoes": undoes, "at": at}
    _INSERT.run(connection, where | row)
    return True


def last_standing(connection: Connection, tenant: str, session_id: str) -> Any:
    """Give the newest move that is neither an undo nor undone, or ``None``."""
    below = 2**31 - 1
    while True:
        move = connection.execute(_LATEST, {"tenant": tenant, "session": session_id, "below": below}).first()
        if move is None or move.cause != "undo":
            return move
        if move.undoes is None or move.undoes >= move.version:
            raise StoreError(f"the undo {move.version} of session {session_id} undoes nothing; doctor() tells more")
        below = move.undoes


def hide(connection: Connection, tenant: str, session_id: str, messages: list[int], *, hidden: bool) -> None:
    """Mark some messages as hidden from contexts, or as visible again."""
    where = {"of_tenant": tenant, "of_session": session_id, "of_messages": messages}
    connection.execute(_HIDE, where | {"now_hidden": hidden})

"""What somebody who follows a turn needs of it, in one statement: the rest of its text, and who drives it."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, Select, and_, bindparam, func, select

from roleplay.domain.conversation import TurnStatus
from roleplay.errors import NotFoundError
from roleplay.store.access.decoding import as_text, reads
from roleplay.store.access.tables import MessageRow, TurnRow, table
from roleplay.store.records.audience import Viewer, seen_by
from roleplay.store.records.recovery import EXPIRED, Holder, clock

_t = table(TurnRow).c
_m = table(MessageRow).c


@lru_cache(maxsize=64)
def _snapshot(dialect: str, absences: int | None) -> Select[Any]:
    """A turn and its reply, each as far as a viewer with so many absences may see it."""
    turns, replies = table(TurnRow), table(MessageRow)
    its_reply = [_m.session_id == _t.session_id, _m.tenant == _t.tenant, _m.seq == _t.reply_seq]
    here = [_t.tenant == bindparam("tenant"), _t.session_id == bindparam("session"), _t.id == bindparam("turn")]
    if absences is not None:
        its_reply.append(seen_by(replies, absences))
        here.append(seen_by(turns, absences))
    return (
        select(
            _t.id,
            _t.seq,
            _t.status,
            _t.attempt,
            _t.lease_owner,
            EXPIRED[dialect].label("expired"),
            _t.reply_seq,
            _m.name,
            _t.speaker,
            func.substr(_m.text, bindparam("after", type_=Integer) + 1).label("text"),
        )
        .select_from(turns)
        .outerjoin(replies, and_(*its_reply))
        .where(*here)
    )


class Snapshot(NamedTuple):
    """A turn at one moment. ``text`` is what its reply has beyond the characters that are known already, ``live`` who
    holds it, as long as it is in flight."""

    reply_seq: int | None
    speaker: str
    seat: int
    text: str
    live: Holder | None


def snapshot(
    connection: Connection,
    tenant: str,
    session_id: str,
    turn_id: str,
    *,
    after: int,
    at: datetime,
    viewer: Viewer | None = None,
) -> Snapshot:
    """Look at a turn whose first ``after`` characters are known, as somebody who may see it. Raises
    ``NotFoundError``."""
    where = {"tenant": tenant, "session": session_id, "turn": turn_id, "after": after} | clock(connection, at)
    statement = _snapshot(connection.dialect.name, None if viewer is None else viewer.conditions)
    row = connection.execute(statement, where | (viewer.values() if viewer else {})).first()
    if row is None:
        raise NotFoundError("turn", turn_id)
    with reads("a turn"):
        live = None
        if TurnStatus(row.status).in_flight:
            live = Holder(session_id, row.id, row.seq, row.attempt, row.lease_owner, bool(row.expired))
        return Snapshot(row.reply_seq, row.name or "", row.speaker, as_text(row.text or ""), live)

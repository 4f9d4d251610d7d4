"""What somebody who follows a turn needs of it, in one statement: the rest of its text, and who drives it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, Select, bindparam, func, select

from roleplay.domain.conversation import TurnStatus
from roleplay.errors import NotFoundError
from roleplay.store.access.decoding import as_text, reads
from roleplay.store.access.tables import MessageRow, TurnRow, table
from roleplay.store.records.recovery import EXPIRED, Holder, clock

_t = table(TurnRow).c
_m = table(MessageRow).c
_SNAPSHOT: dict[str, Select[Any]] = {
    name: select(
        _t.id,
        _t.seq,
        _t.status,
        _t.attempt,
        _t.lease_owner,
        expired.label("expired"),
        _t.reply_seq,
        _m.name,
        _t.speaker,
        func.substr(_m.text, bindparam("after", type_=Integer) + 1).label("text"),
    )
    .outerjoin(
        table(MessageRow), (_m.session_id == _t.session_id) & (_m.tenant == _t.tenant) & (_m.seq == _t.reply_seq)
    )
    .where(_t.tenant == bindparam("tenant"), _t.session_id == bindparam("session"), _t.id == bindparam("turn"))
    for name, expired in EXPIRED.items()
}


class Snapshot(NamedTuple):
    """A turn at one moment. ``text`` is what its reply has beyond the characters that are known already, ``live`` who
    holds it, as long as it is in flight."""

    reply_seq: int | None
    speaker: str
    seat: int
    text: str
    live: Holder | None


def snapshot(
    connection: Connection, tenant: str, session_id: str, turn_id: str, *, after: int, at: datetime
) -> Snapshot:
    """Look at a turn whose first ``after`` characters are known. Raises ``NotFoundError``."""
    where = {"tenant": tenant, "session": session_id, "turn": turn_id, "after": after} | clock(connection, at)
    row = connection.execute(_SNAPSHOT[connection.dialect.name], where).first()
    if row is None:
        raise NotFoundError("turn", turn_id)
    with reads("a turn"):
        live = None
        if TurnStatus(row.status).in_flight:
            live = Holder(session_id, row.id, row.seq, row.attempt, row.lease_owner, bool(row.expired))
        return Snapshot(row.reply_seq, row.name or "", row.speaker, as_text(row.text or ""), live)

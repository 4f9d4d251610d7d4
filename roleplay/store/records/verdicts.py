"""What guards said of a turn, when they did not simply allow it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select

from roleplay.domain.guards import StoredVerdict
from roleplay.store.access.decoding import reads
from roleplay.store.access.tables import TurnRow, VerdictRow, table
from roleplay.store.records.new_rows import NewVerdict

_v = table(VerdictRow).c
_t = table(TurnRow).c
_INSERT = insert(table(VerdictRow))
_OF_TURN = (
    select(_v.side, _v.guard, _v.action, _v.reason, _v.original, _v.attempt, _v.created_at)
    .join(table(TurnRow), (_t.session_id == _v.session_id) & (_t.seq == _v.turn_seq) & (_t.tenant == _v.tenant))
    .where(_v.tenant == bindparam("tenant"), _v.session_id == bindparam("session"), _t.id == bindparam("turn"))
    .order_by(_v.attempt, _v.side, _v.ordinal)
)


def add(
    connection: Connection,
    tenant: str,
    session_id: str,
    turn: tuple[int, int],
    verdicts: Sequence[NewVerdict],
    at: datetime,
) -> None:
    """Write the verdicts on one side of a turn; ``turn`` is its number and its attempt."""
    plain = {"tenant": tenant, "session_id": session_id, "turn_seq": turn[0], "attempt": turn[1], "created_at": at}
    if verdicts:
        rows = [plain | one._asdict() | {"ordinal": number} for number, one in enumerate(verdicts, start=1)]
        connection.execute(_INSERT, rows)


def of_turn(connection: Connection, tenant: str, session_id: str, turn_id: str) -> list[StoredVerdict]:
    """Give the verdicts of a turn, those on its human line first."""
    rows = connection.execute(_OF_TURN, {"tenant": tenant, "session": session_id, "turn": turn_id})
    with reads("a verdict"):
        return [StoredVerdict(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name

"""What guards said of a turn, when they did not simply allow it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Integer, bindparam, insert, literal_column, select

from roleplay.domain.guards import StoredVerdict
from roleplay.store.access.decoding import reads
from roleplay.store.access.tables import MessageRow, TurnRow, VerdictRow, table
from roleplay.store.records.audience import Viewer, seen_by
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


@lru_cache(maxsize=64)
def _seen(absences: int) -> Any:
    """Those of a turn that a viewer may see: on its own line, where it may see that, and on its own reply."""
    human = table(MessageRow).alias("human")
    its_own = (
        select(human.c.seq)
        .where(
            human.c.tenant == bindparam("tenant"),
            human.c.session_id == bindparam("session"),
            human.c.seq == _t.human_seq,
            human.c.seat == bindparam("seat", type_=Integer),
            seen_by(human, absences),
        )
        .correlate(table(TurnRow))
    )
    own_line = (_v.side == literal_column("'human'")) & its_own.exists()
    own_reply = (_v.side == literal_column("'reply'")) & (_t.speaker == bindparam("seat", type_=Integer))
    return _OF_TURN.where(seen_by(table(TurnRow), absences), own_line | own_reply)


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


def of_turn(
    connection: Connection, tenant: str, session_id: str, turn_id: str, viewer: Viewer | None = None
) -> list[StoredVerdict]:
    """Give the verdicts of a turn, those on its human line first; for a ``viewer``, those on what it said itself."""
    where = {"tenant": tenant, "session": session_id, "turn": turn_id}
    if viewer is None:
        rows = connection.execute(_OF_TURN, where)
    else:
        mine = {"seat": viewer.seat} | viewer.values()
        rows = connection.execute(_seen(viewer.conditions), where | mine)
    with reads("a verdict"):
        return [StoredVerdict(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name

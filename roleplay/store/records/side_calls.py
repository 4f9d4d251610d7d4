"""Model calls that belong to no turn: each has an owner and a lease of its own, as a turn in flight has.

What begins such a call keeps its id in ``Ports.driven`` until it has ended, as is done with a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, text, update

from roleplay.store.access.tables import LEASED, ModelCallRow, UtcDateTime, table
from roleplay.store.records.new_rows import CallEnding, CallHold, NewCall
from roleplay.store.records.recovery import LOST, clock
from roleplay.store.records.turns import UNTIL, add_pieces, until

_c = table(ModelCallRow).c
_IN_FLIGHT = text(LEASED)  # as the index says it
_owner = func.coalesce(_c.lease_owner, "")  # a damaged row may have none, and is nobody's then
_HELD = (
    (_c.tenant == bindparam("of_tenant"))
    & (_c.session_id == bindparam("of_session"))
    & (_c.id == bindparam("of_call"))
    & (_owner == bindparam("of_owner"))
    & _IN_FLIGHT
)
_BEGIN = {name: insert(table(ModelCallRow)).values(lease_until=end) for name, end in UNTIL.items()}
_RENEW = {name: update(table(ModelCallRow)).where(_HELD).values(lease_until=end) for name, end in UNTIL.items()}
_END = (
    update(table(ModelCallRow))
    .where(_HELD)
    .values(lease_until=None, **{name: bindparam(f"new_{name}") for name in CallEnding().values()})
)
_LOSE = update(table(ModelCallRow)).where(_HELD).values(lease_until=None, error=bindparam("new_error"))
_HOLDERS = {
    name: select(_c.session_id, _c.id, _owner, expired.label("expired")).where(
        _c.tenant == bindparam("tenant"), _c.turn_seq.is_(None), _IN_FLIGHT
    )
    for name, expired in {
        "sqlite": _c.lease_until <= bindparam("at", type_=UtcDateTime),
        "postgresql": _c.lease_until <= func.now(),
    }.items()
}


class CallHolder(NamedTuple):
    """Who holds a call in flight that belongs to no turn, and whether the lease has run out."""

    session_id: str
    call_id: str
    owner: str
    expired: bool

    @property
    def key(self) -> str:
        """By what ``Ports.driven`` knows it."""
        return self.call_id


def begin(
    connection: Connection,
    hold: CallHold,
    call: NewCall,
    pieces: Mapping[str, str],
    *,
    lease: timedelta,
    at: datetime,
    now: datetime,
) -> None:
    """Write a call before it is made. ``at`` is when it began, ``now`` when its lease does."""
    add_pieces(connection, hold.tenant, hold.session_id, pieces)
    row = call.row(hold.tenant, hold.session_id, at) | {"lease_owner": hold.owner}
    connection.execute(_BEGIN[connection.dialect.name], row | until(connection, now, lease))


def renew(connection: Connection, hold: CallHold, *, lease: timedelta, now: datetime) -> bool:
    """Begin the lease anew. ``False`` when the call is not held."""
    values = hold.where() | until(connection, now, lease)
    return connection.execute(_RENEW[connection.dialect.name], values).rowcount == 1


def finish(connection: Connection, hold: CallHold, ending: CallEnding) -> bool:
    """Write how a call ended. ``False``, having changed nothing, when it is not held any more."""
    values = {f"new_{name}": value for name, value in ending.values().items()}
    return connection.execute(_END, hold.where() | values).rowcount == 1


def holders(connection: Connection, tenant: str, at: datetime) -> Sequence[CallHolder]:
    """Give all calls of a tenant that are in flight and belong to no turn."""
    rows = connection.execute(_HOLDERS[connection.dialect.name], {"tenant": tenant} | clock(connection, at))
    return [CallHolder(*row) for row in rows]


def recover(connection: Connection, hold: CallHold) -> bool:
    """End a call whose owner is gone. ``False``, having changed nothing, when somebody else ended it first."""
    return connection.execute(_LOSE, hold.where() | {"new_error": LOST}).rowcount == 1

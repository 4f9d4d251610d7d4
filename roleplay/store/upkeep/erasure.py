"""Erasing: which sessions are meant, what hangs on them, and its deletion.

A transaction erases one session, or one persona, with every row of it, or blanks what a session of somebody else's
holds of an owner (``blanking``); whatever ends an erasure leaves the rest whole.
Reads and sorts what it needs to; never inside a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, distinct, func, select, text

from roleplay.domain.erasure import Counts
from roleplay.errors import NotFoundError
from roleplay.store.access.tables import (
    Base,
    ExampleDialogueRow,
    ExampleLineRow,
    HeadMoveRow,
    MessageRow,
    ModelCallRow,
    ParticipantRevisionRow,
    ParticipantRow,
    PathStateRow,
    PersonaRow,
    PersonaVersionRow,
    PieceRow,
    SessionRevisionRow,
    SessionRow,
    TurnRow,
    UtcDateTime,
    VerdictRow,
    table,
)
from roleplay.store.records import recovery, sessions
from roleplay.store.records.new_rows import Hold
from roleplay.store.records.turns import LIVE
from roleplay.store.upkeep import blanking

By = Literal["owner", "session", "persona", "idle_since", "seat"]
"""What sessions are meant by; ``seat``: those of others in which an owner sits or sat."""
IsLost = Callable[[recovery.Holder], bool]

#: What a session's rows are counted as, in the order in which they can be deleted.
OF_SESSION: tuple[tuple[type[Base], str], ...] = (
    (HeadMoveRow, "head_moves"),
    (VerdictRow, "verdicts"),
    (ModelCallRow, "model_calls"),
    (MessageRow, "messages"),
    (TurnRow, "turns"),
    (PathStateRow, "path_states"),
    (PieceRow, "pieces"),
    (ParticipantRevisionRow, "revisions"),
    (ParticipantRow, "seats"),
    (SessionRevisionRow, "revisions"),
    (SessionRow, "sessions"),
)
OF_PERSONA: tuple[tuple[type[Base], str], ...] = (
    (ExampleLineRow, "example_lines"),
    (ExampleDialogueRow, "example_dialogues"),
    (PersonaVersionRow, "persona_versions"),
    (PersonaRow, "personas"),
)
_s = table(SessionRow).c
_q = table(ParticipantRevisionRow).c
_a = table(ParticipantRow).c
_t = table(TurnRow).c
_c = table(ModelCallRow).c
_p = table(PersonaRow).c
_v = table(PersonaVersionRow).c

_pinned = select(_q.session_id).where(_q.tenant == bindparam("tenant"), _q.persona_id == bindparam("what"))
_has_seat = select(_a.session_id).where(_a.tenant == bindparam("tenant"), _a.owner == bindparam("what"))
_MEANT: dict[By, ColumnElement[bool]] = {
    "owner": _s.owner == bindparam("what"),
    "session": _s.id == bindparam("what"),
    "persona": _s.id.in_(_pinned),
    "idle_since": _s.last_turn_at < bindparam("what", type_=UtcDateTime),
    "seat": _s.id.in_(_has_seat) & (_s.owner.is_(None) | (_s.owner != bindparam("what"))),
}
_IDS: dict[By, Select[Any]] = {
    by: select(_s.id).where(_s.tenant == bindparam("tenant"), selection) for by, selection in _MEANT.items()
}
_NEXT = {
    by: ids.where(_s.id > bindparam("after"), _s.id.not_in(bindparam("but", expanding=True)))
    .order_by(_s.id)
    .limit(bindparam("most"))
    for by, ids in _IDS.items()
}
_IN_FLIGHT: dict[By, Select[Any]] = {
    by: select(_t.session_id, _t.id).where(_t.tenant == bindparam("tenant"), LIVE, _t.session_id.in_(ids))
    for by, ids in _IDS.items()
}
_ONE = {by: ids.where(_s.id == bindparam("session")) for by, ids in _IDS.items()}
_PINNED_BY = select(func.count(distinct(_q.session_id))).where(
    _q.tenant == bindparam("tenant"), _q.persona_id == bindparam("what")
)
_PERSONA = select(_p.id).where(
    _p.tenant == bindparam("tenant"), (_p.key == bindparam("name")) | (_p.id == bindparam("name"))
)
_LOCK_PERSONA = (
    select(_p.id).where(_p.tenant == bindparam("tenant"), _p.id == bindparam("what")).with_for_update(),
    select(_v.version).where(_v.tenant == bindparam("tenant"), _v.persona_id == bindparam("what")).with_for_update(),
)
#: Citus changes many servers at once, after which it takes no change of a table that all of them have in the same
#: transaction, as personas may be. Elsewhere there is no such setting, and nothing is set.
_ONE_SERVER_AFTER_THE_OTHER = text(
    "SELECT set_config('citus.multi_shard_modify_mode', 'sequential', true) "
    "WHERE current_setting('citus.multi_shard_modify_mode', true) IS NOT NULL"
)


def _key(row: type[Base]) -> Any:
    """The column that says whose a row is."""
    columns = table(row).c
    return next(columns[name] for name in ("session_id", "persona_id", "id") if name in columns)


_DELETE = {
    row: delete(table(row)).where(table(row).c.tenant == bindparam("tenant"), _key(row) == bindparam("whose"))
    for row, _ in (*OF_SESSION, *OF_PERSONA)
}
_COUNT_OF_SESSIONS: dict[By, list[tuple[str, Select[Any]]]] = {
    by: [
        (
            name,
            select(func.count()).where(
                table(row).c.tenant == bindparam("tenant"),
                _key(row).in_(ids.where(_s.id.not_in(bindparam("but", expanding=True)))),
            ),
        )
        for row, name in OF_SESSION
    ]
    for by, ids in _IDS.items()
}
_COUNT_OF_PERSONA = [
    (name, select(func.count()).where(table(row).c.tenant == bindparam("tenant"), _key(row) == bindparam("what")))
    for row, name in OF_PERSONA
]
_HOSTS_OF_SESSIONS: dict[By, Select[Any]] = {
    by: select(_c.host).distinct().where(_c.tenant == bindparam("tenant"), _c.session_id.in_(ids))
    for by, ids in _IDS.items()
}
_HOSTS = select(_c.host).distinct().where(_c.tenant == bindparam("tenant"), _c.session_id == bindparam("whose"))


class Selection(NamedTuple):
    """Which sessions of a tenant are meant: of an owner, one by its id, those that pin a persona, the idle ones."""

    tenant: str
    by: By
    what: str | datetime

    def values(self) -> dict[str, Any]:
        """Give what its statements take."""
        return {"tenant": self.tenant, "what": self.what}


class Erased(NamedTuple):
    """What was or would be erased, and the hosts that were sent some of it."""

    counts: Counts = Counts()
    hosts: frozenset[str] = frozenset()

    def plus(self, other: Erased) -> Erased:
        """Add up."""
        return Erased(self.counts.plus(other.counts), self.hosts | other.hosts)


def persona_id(connection: Connection, tenant: str, name: str) -> str:
    """Give the id of a persona by its key or its whole id, archived ones too. Raises ``NotFoundError``."""
    found = connection.execute(_PERSONA, {"tenant": tenant, "name": name}).scalars().all()
    if len(found) != 1:
        raise NotFoundError("persona", name, ambiguous=bool(found))
    return str(found[0])


def pinned_by(connection: Connection, tenant: str, whose: str) -> int:
    """Tell how many sessions have or had this persona in a seat, in any version."""
    return int(connection.execute(_PINNED_BY, {"tenant": tenant, "what": whose}).scalar_one())


def running(connection: Connection, selection: Selection, *, at: datetime, is_lost: IsLost) -> list[recovery.Holder]:
    """Give the turns in flight of the sessions that are meant which somebody holds."""
    found = connection.execute(_IN_FLIGHT[selection.by], selection.values())
    held = [recovery.holder(connection, selection.tenant, row.session_id, row.id, at) for row in found.all()]
    return [one for one in held if one is not None and not is_lost(one)]


def some(connection: Connection, selection: Selection, *, after: str, but: Sequence[str], most: int) -> list[str]:
    """Give the ids of sessions that are meant, in order, those after ``after`` and not among ``but``."""
    values = selection.values() | {"after": after, "but": list(but), "most": most}
    return list(connection.execute(_NEXT[selection.by], values).scalars())


def count(connection: Connection, selection: Selection, *, but: Sequence[str]) -> Erased:
    """Count what erasing the sessions that are meant would delete."""
    counted: dict[str, int] = {}
    for name, statement in _COUNT_OF_SESSIONS[selection.by]:
        rows = connection.execute(statement, selection.values() | {"but": list(but)}).scalar_one()
        counted[name] = counted.get(name, 0) + rows
    hosts = connection.execute(_HOSTS_OF_SESSIONS[selection.by], selection.values()).scalars()
    return Erased(Counts(**counted), frozenset(hosts))


def count_seats(connection: Connection, selection: Selection) -> Erased:
    """Count what would be blanked of an owner in the sessions of others."""
    found = Erased()
    for session_id in connection.execute(_IDS["seat"], selection.values()).scalars().all():
        one = blanking.find(connection, selection.tenant, session_id, str(selection.what))
        found = found.plus(Erased(one.counts, one.hosts))
    return found


def count_persona(connection: Connection, tenant: str, whose: str) -> Counts:
    """Count what erasing a persona would delete, beside its sessions."""
    where = {"tenant": tenant, "what": whose}
    return Counts(**{name: connection.execute(one, where).scalar_one() for name, one in _COUNT_OF_PERSONA})


def erase_session(
    connection: Connection, selection: Selection, session_id: str, *, at: datetime, is_lost: IsLost
) -> Erased | recovery.Holder | None:
    """Delete a session with all its rows. Gives who holds a turn of it instead, having deleted nothing; ``None`` when
    it is gone already or is not meant any more."""
    tenant = selection.tenant
    if selection.by == "persona":
        _one_after_the_other(connection)
    if not _locked(connection, selection, session_id):
        return None
    if held := running(connection, Selection(tenant, "session", session_id), at=at, is_lost=is_lost):
        return held[0]
    hosts = frozenset(connection.execute(_HOSTS, {"tenant": tenant, "whose": session_id}).scalars())
    return Erased(_delete(connection, tenant, session_id, OF_SESSION), hosts)


def erase_seats(
    connection: Connection,
    selection: Selection,
    session_id: str,
    *,
    nobody: blanking.NameOfNobody,
    at: datetime,
    is_lost: IsLost,
) -> Erased | recovery.Holder | None:
    """Blank what a session of somebody else's holds of an owner. Gives what ``erase_session`` gives.

    A turn in flight that nobody holds is ended, so that whoever drives it after all writes no more than its reply.
    """
    tenant = selection.tenant
    if not _locked(connection, selection, session_id):
        return None
    _clear_what_goes(connection)
    for row in connection.execute(_IN_FLIGHT["session"], {"tenant": tenant, "what": session_id}).all():
        one = recovery.holder(connection, tenant, session_id, row.id, at)
        if one is not None and not is_lost(one):
            return one
        if one is not None:
            recovery.recover(connection, Hold(tenant, session_id, one.turn_seq, one.attempt, one.owner), at=at)
    found = blanking.find(connection, tenant, session_id, str(selection.what))
    blanking.blank(connection, tenant, session_id, found, nobody=nobody, at=at)
    return Erased(found.counts, found.hosts)


def _locked(connection: Connection, selection: Selection, session_id: str) -> bool:
    """Lock a session; says whether it is there and still meant."""
    try:
        sessions.lock(connection, selection.tenant, session_id)
    except NotFoundError:
        return False
    return connection.execute(_ONE[selection.by], selection.values() | {"session": session_id}).first() is not None


def erase_persona(connection: Connection, tenant: str, whose: str) -> Counts | int:
    """Delete a persona in all its versions. Gives how many sessions pin it instead, having deleted nothing."""
    _one_after_the_other(connection)
    for lock in _LOCK_PERSONA:  # on PostgreSQL, who is about to seat it waits here, or is waited for
        connection.execute(lock, {"tenant": tenant, "what": whose})
    if pins := pinned_by(connection, tenant, whose):
        return pins
    return _delete(connection, tenant, whose, OF_PERSONA)


def _one_after_the_other(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(_ONE_SERVER_AFTER_THE_OTHER)


def _clear_what_goes(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def _delete(connection: Connection, tenant: str, whose: str, rows: Sequence[tuple[type[Base], str]]) -> Counts:
    _clear_what_goes(connection)
    counted: dict[str, int] = {}
    for row, name in rows:
        done = connection.execute(_DELETE[row], {"tenant": tenant, "whose": whose})
        counted[name] = counted.get(name, 0) + done.rowcount
    return Counts(**counted)

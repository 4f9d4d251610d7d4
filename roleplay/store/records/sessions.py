"""Sessions: where they stand, how they are made, found and listed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Integer,
    Row,
    Select,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    text,
    tuple_,
    union,
    update,
)

from roleplay.domain.conversation import (
    Participant,
    SessionInfo,
    TurnKind,
    TurnStatus,
)
from roleplay.domain.page import Page
from roleplay.domain.settings import SessionSettings
from roleplay.errors import NotFoundError
from roleplay.store.access.cursors import after, page_of
from roleplay.store.access.decoding import absent, as_numbers, reads
from roleplay.store.access.ids import ID_LENGTH
from roleplay.store.access.prepared import Prepared
from roleplay.store.access.tables import (
    MessageRow,
    ParticipantRevisionRow,
    ParticipantRow,
    PathStateRow,
    SessionRevisionRow,
    SessionRow,
    TurnRow,
    table,
)
from roleplay.store.records import personas, revisions
from roleplay.store.records.new_rows import NO_CALLER_FIELDS, CallerFields, NewTurn, PathEnd
from roleplay.store.records.path_states import SHARED, handed_on

_s = table(SessionRow).c
_r = table(SessionRevisionRow).c
_q = table(ParticipantRevisionRow).c
_live = table(TurnRow).alias("live")
_turn = table(TurnRow).alias("head_turn")
_m = table(MessageRow).c
_own = table(PathStateRow).alias("own_state")
_shared = table(PathStateRow).alias("shared_state")
_p = table(ParticipantRow).c

_INSERT = insert(table(SessionRow))

_HERE = (_s.tenant == bindparam("tenant")) & (_s.id == bindparam("session"))
# No join, after which PostgreSQL might look for all states of the seat.
_seat = func.coalesce(bindparam("seat", type_=Integer), revisions.FIRST_MODEL)
_POSITION = Prepared(
    select(
        _s.version,
        _s.revision,
        _s.head_seq,
        _s.last_seq,
        _s.last_turn,
        _m.turn_seq,
        _m.depth,
        _m.human_ordinal,
        _m.model_ordinal,
        _seat.label("seat_asked"),
        _turn.c.states,
        _own.c.state,
        _shared.c.state.label("shared"),
        _live.c.id.label("live_turn"),
    )
    .select_from(table(SessionRow))
    .outerjoin(table(MessageRow), (_m.session_id == _s.id) & (_m.seq == _s.head_seq) & (_m.tenant == _s.tenant))
    .outerjoin(_turn, (_turn.c.session_id == _s.id) & (_turn.c.seq == _m.turn_seq) & (_turn.c.tenant == _s.tenant))
    .outerjoin(_own, handed_on(_own, _turn, _seat))
    .outerjoin(_shared, handed_on(_shared, _turn, literal_column(str(SHARED), Integer)))
    .outerjoin(
        _live,
        (_live.c.session_id == _s.id)
        & (text("coalesce(live.from_head, 0)") == func.coalesce(_s.head_seq, 0))
        & text("live.status IN ('pending', 'streaming') AND live.moves_head")
        & (_live.c.tenant == _s.tenant),
    )
    .where(_HERE)
)
_INFO = (
    select(table(SessionRow), _r.scene, _r.settings)
    .outerjoin(
        table(SessionRevisionRow),
        (_r.session_id == _s.id) & (_r.tenant == _s.tenant) & (_r.revision == _s.revision),
    )
    .where(_s.tenant == bindparam("tenant"))
)
_ONE = _INFO.where(_s.id == bindparam("session"))
_BY_AGE = _INFO.where(_s.id > bindparam("after")).order_by(_s.id).limit(bindparam("most"))
_ID = select(_s.id).where(_HERE)
# An owner's sessions are those of their own, and those in which they sit or have sat. The two are looked for apart,
# each by its index and no further than is asked: with an OR between them, PostgreSQL reads the sessions of all owners.
_own = table(SessionRow).alias("own")
_seated = table(SessionRow).alias("seated")
_of_owner = (_own.c.tenant == bindparam("tenant"), _own.c.owner == bindparam("owner"))
_sits = (_p.tenant == bindparam("tenant"), _p.owner == bindparam("owner"))
_OWN = select(_own.c.id).where(*_of_owner)
_SEATED = select(_p.session_id).where(*_sits).distinct()
_HAS_SEAT = (
    select(_p.session_id).where(*_sits, _p.session_id == _s.id).correlate(table(SessionRow)).exists()
)  # of one session
_from = (_s.id >= bindparam("low"), _s.id < bindparam("high"))
_IDS_FROM = select(_s.id).where(_s.tenant == bindparam("tenant"), *_from).order_by(_s.id).limit(2)
_OWN_IDS_FROM = _OWN.where(_own.c.id >= bindparam("low"), _own.c.id < bindparam("high")).order_by(_own.c.id).limit(2)
_SEATED_IDS_FROM = (
    _SEATED.where(_p.session_id >= bindparam("low"), _p.session_id < bindparam("high")).order_by(_p.session_id).limit(2)
)
_OWN_BY_AGE = _OWN.where(_own.c.id > bindparam("after")).order_by(_own.c.id).limit(bindparam("most"))
_SEATED_BY_AGE = _SEATED.where(_p.session_id > bindparam("after")).order_by(_p.session_id).limit(bindparam("most"))
ADVANCE = Prepared(
    update(table(SessionRow))
    .where(_s.tenant == bindparam("of_tenant"), _s.id == bindparam("of_session"), _s.version == bindparam("was"))
    .values(
        version=_s.version + 1,
        last_seq=bindparam("seq_now"),
        last_turn=bindparam("turn_now"),
        last_turn_at=bindparam("at"),
    )
)


_GIVE_OUT = (
    update(table(SessionRow))
    .where(_s.tenant == bindparam("of_tenant"), _s.id == bindparam("of_session"))
    .values(last_seq=bindparam("seq_now"), last_turn=bindparam("turn_now"))
)
_LOCK = _ID.with_for_update()


@dataclass(frozen=True, slots=True)
class Position:
    """Where a session stands: counters, head, whose turn is asked about, what its path handed on for that seat and for
    all, and the turn in flight on its head, if any."""

    version: int
    revision: int
    head_seq: int | None
    last_seq: int
    last_turn: int
    head_turn: int | None
    depth: int
    human_ordinal: int
    model_ordinal: int
    seat: int | None
    states: str | None
    state: str | None
    shared: str | None
    live_turn: str | None

    @property
    def end(self) -> PathEnd:
        """The end of the path that the session stands on."""
        return PathEnd(self.head_seq, self.human_ordinal, self.model_ordinal)

    def new_turn(
        self,
        turn_id: str,
        kind: TurnKind,
        speaker: int,
        *,
        parent_turn: int | None,
        states: str | None,
        human_seq: int | None,
        reply_seq: int | None,
        status: TurnStatus = TurnStatus.COMPLETED,
        lease_owner: str | None = None,
        caller: CallerFields = NO_CALLER_FIELDS,
        draws: str | None = None,
    ) -> NewTurn:
        """Make the session's next turn, as a round of its own."""
        seq = self.last_turn + 1
        return NewTurn(
            seq=seq,
            id=turn_id,
            parent_turn=parent_turn,
            from_head=self.head_seq,
            kind=kind.value,
            round=seq,
            ordinal=1,
            speaker=speaker,
            revision=self.revision,
            states=states,
            status=status.value,
            human_seq=human_seq,
            reply_seq=reply_seq,
            lease_owner=lease_owner,
            idempotency_key=caller.idempotency_key,
            body_digest=caller.body_digest,
            metadata_json=caller.metadata_json,
            moves_head=caller.moves_head,
            draws=draws,
            audience=caller.audience,
        )


def beginning(said: int) -> Position:
    """Where a new session stands before its first move, with so many turns of one message each."""
    return Position(
        version=1,
        revision=1,
        head_seq=None,
        last_seq=said,
        last_turn=said,
        head_turn=None,
        depth=0,
        human_ordinal=0,
        model_ordinal=0,
        seat=1,
        states=None,
        state=None,
        shared=None,
        live_turn=None,
    )


def position(connection: Connection, tenant: str, session_id: str, seat: int | None = None) -> Position:
    """Read where a session stands, in one statement, for the turn of ``seat`` (``None``: of the first one that the
    model plays). Raises ``NotFoundError``."""
    row = _POSITION.run(connection, {"tenant": tenant, "session": session_id, "seat": seat}).first()
    if row is None:
        raise NotFoundError("session", session_id)
    return _as_position(row)


@reads("the place of a session")
def _as_position(row: Sequence[Any]) -> Position:
    values: list[Any] = list(row)
    as_numbers(values[:10])  # up to the seat
    values[6:9] = [number or 0 for number in values[6:9]]
    return Position(*values)


def lock(connection: Connection, tenant: str, session_id: str) -> None:
    """Let nobody else change this session until the transaction ends. On SQLite the writer is alone already."""
    if connection.execute(_LOCK, {"tenant": tenant, "session": session_id}).first() is None:
        raise NotFoundError("session", session_id)


def give_out(connection: Connection, tenant: str, session_id: str, *, last_seq: int, last_turn: int) -> None:
    """Note the highest numbers given out, under ``lock``."""
    where = {"of_tenant": tenant, "of_session": session_id}
    connection.execute(_GIVE_OUT, where | {"seq_now": last_seq, "turn_now": last_turn})


def create(connection: Connection, tenant: str, info: SessionInfo, *, messages: int) -> None:
    """Write a new session with its first revision and its seats, before any turn.

    ``messages``: how many turns of one message each the caller will add in the same transaction, numbered from 1.
    """
    connection.execute(
        _INSERT,
        {
            "id": info.id,
            "tenant": tenant,
            "owner": info.owner,
            "metadata_json": personas.to_json(info.metadata),
            "version": info.version,
            "revision": 1,
            "head_seq": None,
            "last_seq": messages,
            "last_turn": messages,
            "created_at": info.created_at,
            "last_turn_at": info.created_at,
        },
    )
    revisions.write_first(connection, tenant, info)


def get(connection: Connection, tenant: str, session_id: str) -> SessionInfo:
    """Give a session as it stands. Raises ``NotFoundError``."""
    row = None
    if len(session_id) <= ID_LENGTH:  # another server may cut a longer text to the column's length
        row = connection.execute(_ONE, {"tenant": tenant, "session": session_id}).first()
    if row is None:
        raise NotFoundError("session", session_id)
    return _info(row, revisions.cast_of(connection, tenant, session_id, row.revision))


def ids_with_prefix(connection: Connection, tenant: str, prefix: str, *, owner: str | None) -> list[str]:
    """Give at most two ids that begin with ``prefix``, so that a caller sees whether it is unique; of ``owner`` only,
    if one is named. A whole id is looked up as it is, so that an engine which spreads sessions asks one server."""
    if len(prefix) > ID_LENGTH:
        return []
    if len(prefix) == ID_LENGTH:
        one = _ID if owner is None else _ID.where((_s.owner == bindparam("owner")) | _HAS_SEAT)
        whole = {"tenant": tenant, "session": prefix} | _owner(owner)
        return [row.id for row in connection.execute(one, whole)]
    where = {"tenant": tenant, "low": prefix, "high": prefix + "g"}  # after every digit of an id, in any collation
    statement = _IDS_FROM if owner is None else _IDS_FROM.where(_s.id.in_(_either(_OWN_IDS_FROM, _SEATED_IDS_FROM)))
    return [row.id for row in connection.execute(statement, where | _owner(owner))]


def list_page(
    connection: Connection, tenant: str, *, owner: str | None, limit: int, before: str | None
) -> Page[SessionInfo]:
    """Give a page of sessions, lately used first; ``before`` is the ``older`` cursor of another page."""

    def latest(statement: Select[Any], sessions: Any) -> Select[Any]:
        if before is not None:
            statement = statement.where(tuple_(sessions.last_turn_at, sessions.id) < tuple_(*after(before)))
        return statement.order_by(sessions.last_turn_at.desc(), sessions.id.desc()).limit(limit + 1)

    statement = latest(_INFO, _s)
    if owner is not None:
        seated = select(_seated.c.id).where(_seated.c.tenant == bindparam("tenant"), _seated.c.id.in_(_SEATED))
        statement = statement.where(_s.id.in_(_either(latest(_OWN, _own.c), latest(seated, _seated.c))))
    rows = connection.execute(statement, {"tenant": tenant} | _owner(owner)).all()
    shown = rows[:limit]
    items = _infos(connection, tenant, shown)
    return page_of(items, more=len(rows) > limit, last=lambda: (shown[-1].last_turn_at, shown[-1].id))


def made_after(
    connection: Connection, tenant: str, session_id: str, *, owner: str | None, limit: int
) -> list[SessionInfo]:
    """Give sessions in the order of their ids, which is that of their making."""
    statement = _BY_AGE if owner is None else _BY_AGE.where(_s.id.in_(_either(_OWN_BY_AGE, _SEATED_BY_AGE)))
    where = {"tenant": tenant, "after": session_id, "most": limit} | _owner(owner)
    return _infos(connection, tenant, connection.execute(statement, where).all())


def _either(*found: Select[Any]) -> CompoundSelect[Any]:
    """Give the ids that one of some statements gives, each of which is ordered and bounded."""
    return union(*(select(*one.subquery().c) for one in found))


def _owner(owner: str | None) -> dict[str, str]:
    return {} if owner is None else {"owner": owner}


def _infos(connection: Connection, tenant: str, rows: Sequence[Row[Any]]) -> list[SessionInfo]:
    """Give rows as sessions, with their casts in one statement more."""
    casts = revisions.casts_of(connection, tenant, [row.id for row in rows])
    return [_info(row, casts[row.id]) for row in rows]


@reads("a session")
def _info(row: Row[Any], cast: tuple[Participant, ...]) -> SessionInfo:
    if row.settings is None:
        raise absent(f"revision {row.revision}", f"session {row.id}")
    revisions.check_cast(row.id, cast)
    return SessionInfo(
        id=row.id,
        owner=row.owner,
        scene=row.scene,
        settings=SessionSettings(**json.loads(row.settings)),
        cast=cast,
        metadata=json.loads(row.metadata_json),
        version=row.version,
        head_seq=row.head_seq,
        created_at=row.created_at,
        last_turn_at=row.last_turn_at,
    )

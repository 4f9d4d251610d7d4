"""A check-up of a tenant's rows: what cannot be, what is left over, and what of it can be mended.

Reads every row of the tenant, each a bounded number of times: never inside a turn. A check is one statement, so that a
turn that is written meanwhile is seen whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, bindparam, delete, text

from roleplay.errors import StoreError
from roleplay.store.access.tables import table
from roleplay.store.records import history, recovery, sessions, side_calls
from roleplay.store.records.ancestry import jump_of
from roleplay.store.records.new_rows import PathEnd
from roleplay.store.records.path_states import SHARED, SeatState, read_map, read_state, write_map
from roleplay.store.upkeep.checks import BREAKING, CHECKS, OF_SESSIONS, WRONG_JUMPS, Fault, Finding, finding, no_session
from roleplay.store.upkeep.unreadable import lost_states, names_texts, unreadable

#: With statistics of when a table was small, PostgreSQL may read all of it for each row of another.
_NO_LOOPS = text("SELECT set_config('enable_nestloop', 'off', true) /* tenant: none */")
_DELETE_ORPHANS = tuple(
    delete(table(row)).where(table(row).c.tenant == bindparam("of_tenant"), no_session(row)) for row in OF_SESSIONS
)
_LET_RETRY = text("""
UPDATE roleplay_turns SET status = 'failed' WHERE tenant = :tenant AND session_id = :session AND seq = :seq
""")
_HIGHEST = text("""
SELECT s.last_seq, s.last_turn, s.version,
(SELECT coalesce(max(m.seq), 0) FROM roleplay_messages m WHERE m.session_id = s.id AND m.tenant = s.tenant),
(SELECT coalesce(max(t.reply_seq), 0) FROM roleplay_turns t WHERE t.session_id = s.id AND t.tenant = s.tenant),
(SELECT coalesce(max(t.seq), 0) FROM roleplay_turns t WHERE t.session_id = s.id AND t.tenant = s.tenant),
(SELECT coalesce(max(h.version), 0) FROM roleplay_head_moves h WHERE h.session_id = s.id AND h.tenant = s.tenant)
FROM roleplay_sessions s WHERE s.tenant = :tenant AND s.id = :session
""")
_COUNT_ON = text("""
UPDATE roleplay_sessions SET last_seq = :seq, last_turn = :turn, version = :version
WHERE tenant = :tenant AND id = :session
""")
_MOVES = text("""
SELECT h.version, h.to_seq FROM roleplay_head_moves h
WHERE h.tenant = :tenant AND h.session_id = :session AND h.to_seq IS NOT NULL ORDER BY h.version DESC
""")
_NEXT_MOVE = text("""
SELECT min(h.version) FROM roleplay_head_moves h
WHERE h.tenant = :tenant AND h.session_id = :session AND h.version > :after
""")
_TAKE_BACK = text("""
INSERT INTO roleplay_head_moves (session_id, version, tenant, from_seq, to_seq, cause, undoes, created_at)
SELECT s.id, s.version, s.tenant, NULL, s.head_seq, 'undo', :undoes,
       (SELECT max(h.created_at) FROM roleplay_head_moves h WHERE h.tenant = :tenant AND h.session_id = :session)
FROM roleplay_sessions s
WHERE s.tenant = :tenant AND s.id = :session
""")
_TIPS = text("""
SELECT coalesce(t.reply_seq, t.human_seq) FROM roleplay_turns t
WHERE t.tenant = :tenant AND t.session_id = :session AND t.status = 'completed' ORDER BY t.seq DESC
""")
_TIP = text("""
SELECT t.states FROM roleplay_messages m JOIN roleplay_turns t
ON t.session_id = m.session_id AND t.seq = m.turn_seq AND t.tenant = m.tenant
WHERE m.tenant = :tenant AND m.session_id = :session AND m.seq = :seq AND t.status = 'completed'
""")
_HEADS = text("""
SELECT s.id, s.head_seq FROM roleplay_sessions s WHERE s.tenant = :tenant AND s.head_seq IS NOT NULL
""")
_STATE_OF = text("""
SELECT p.state FROM roleplay_path_states p
WHERE p.tenant = :tenant AND p.session_id = :session AND p.seq = :seq AND p.seat = :seat
""")
_MAP_OF = text("""
SELECT t.states FROM roleplay_turns t WHERE t.tenant = :tenant AND t.session_id = :session AND t.seq = :seq
""")
_NEW_MAP = text("""
UPDATE roleplay_turns SET states = :states WHERE tenant = :tenant AND session_id = :session AND seq = :seq
""")
_STATES_AT = text("""
SELECT p.seat, p.state FROM roleplay_path_states p
WHERE p.tenant = :tenant AND p.session_id = :session AND p.seq = :seq
""")
_EMPTY_STATE = text("""
UPDATE roleplay_path_states SET state = '{}'
WHERE tenant = :tenant AND session_id = :session AND seq = :seq AND seat = :seat
""")
_LAST_REVISION = text("""
UPDATE roleplay_sessions SET version = version + 1, revision = (SELECT max(r.revision)
FROM roleplay_session_revisions r WHERE r.session_id = roleplay_sessions.id AND r.tenant = roleplay_sessions.tenant)
WHERE tenant = :tenant AND id = :session
""")
_ITS_REPLY = text("""
UPDATE roleplay_turns SET reply_seq = (SELECT max(m.seq) FROM roleplay_messages m
WHERE m.session_id = roleplay_turns.session_id AND m.turn_seq = roleplay_turns.seq
AND m.role = 'assistant' AND m.tenant = roleplay_turns.tenant)
WHERE tenant = :tenant AND session_id = :session AND seq = :seq AND reply_seq IS NULL
""")
_NO_REPLY = text("""
UPDATE roleplay_turns SET status = 'failed'
WHERE tenant = :tenant AND session_id = :session AND seq = :seq AND reply_seq IS NULL
""")
_PERSONA_AGAIN = text("""
INSERT INTO roleplay_personas (id, tenant, version, created_at, updated_at)
SELECT v.persona_id, v.tenant, max(v.version), min(v.created_at), max(v.created_at) FROM roleplay_persona_versions v
WHERE v.tenant = :tenant AND v.persona_id = :session AND NOT EXISTS
(SELECT 1 FROM roleplay_personas p WHERE p.id = v.persona_id) GROUP BY v.persona_id, v.tenant
""")
_LAST_VERSION = text("""
UPDATE roleplay_personas SET version = (SELECT max(v.version) FROM roleplay_persona_versions v
WHERE v.persona_id = roleplay_personas.id AND v.tenant = roleplay_personas.tenant)
WHERE tenant = :tenant AND id = :session
""")
_STAND_ON = text("""
UPDATE roleplay_sessions SET head_seq = :head, version = version + 1 WHERE tenant = :tenant AND id = :session
""")
_TREE = text("""
SELECT m.seq, m.parent_seq, m.role, m.human_ordinal, m.model_ordinal FROM roleplay_messages m
WHERE m.tenant = :tenant AND m.session_id = :session ORDER BY m.seq
""")
_RECOUNT = text("""
UPDATE roleplay_messages SET depth = :depth, human_ordinal = :humans, model_ordinal = :models
WHERE tenant = :tenant AND session_id = :session AND seq = :seq
""")
_POINTERS = text("""
SELECT m.seq, m.parent_seq, m.depth, m.jump_seq FROM roleplay_messages m
WHERE m.tenant = :tenant AND m.session_id = :session ORDER BY m.seq
""")
_POINT = text("""
UPDATE roleplay_messages SET jump_seq = :jump WHERE tenant = :tenant AND session_id = :session AND seq = :seq
""")
_END_CALLS = text("""
UPDATE roleplay_model_calls SET error = :lost WHERE tenant = :tenant AND total_s IS NULL AND error IS NULL AND EXISTS
(SELECT 1 FROM roleplay_turns t WHERE t.session_id = roleplay_model_calls.session_id
AND t.seq = roleplay_model_calls.turn_seq AND t.tenant = roleplay_model_calls.tenant
AND t.status IN ('completed', 'interrupted', 'failed'))
""")

IsLost = Callable[[recovery.Holder | side_calls.CallHolder], bool]
Mend = Callable[[Connection, str, Sequence[Finding]], None]


def examine(connection: Connection, tenant: str, *, at: datetime, is_lost: IsLost) -> list[Finding]:
    """Give everything that is wrong; changes nothing. ``is_lost`` tells whether nobody holds a turn in flight."""
    if connection.dialect.name == "postgresql":
        connection.execute(_NO_LOOPS)
    found = [
        finding(check.fault, row[0], row[1], check.says, mendable=bool(row[2]))
        for check in CHECKS
        for row in connection.execute(check.statement, {"tenant": tenant})
    ]
    found += unreadable(connection, tenant)
    found += lost_states(connection, tenant)
    found += _dead_ends(connection, tenant, found)
    found += _wrong_jumps(connection, tenant, found)
    why = "in flight whose lease has run out, or whose process is gone"
    return [
        *found,
        *(
            finding(Fault.EXPIRED, one.session_id, one.turn_seq, f"a turn {why}", mendable=True)
            for one in recovery.holders(connection, tenant, at)
            if is_lost(one)
        ),
        *(
            finding(Fault.EXPIRED_CALL, one.session_id, None, f"a model call {why}", mendable=True)
            for one in side_calls.holders(connection, tenant, at)
            if is_lost(one)
        ),
    ]


def mend(
    connection: Connection, tenant: str, found: Sequence[Finding], *, at: datetime, is_lost: IsLost
) -> list[Finding]:
    """Mend what can be mended of what was found, and give it with whether it is put right now.

    Turns and calls in flight that nobody holds are ended before, one by one, by ``recovery`` and ``side_calls``.
    """
    for fault, put_right in _MENDS.items():
        if wrong := [one for one in found if one.fault is fault and one.mendable]:
            put_right(connection, tenant, wrong)
    left = {_place(one) for one in examine(connection, tenant, at=at, is_lost=is_lost)}
    return [one.model_copy(update={"mended": _place(one) not in left}) for one in found]


def _wrong_jumps(connection: Connection, tenant: str, found: Sequence[Finding]) -> list[Finding]:
    """Find jump pointers that do not follow from the parents', in sessions whose parents and depths are whole."""
    ill = {one.session_id for one in found if one.fault in BREAKING or one.fault is Fault.WRONG_DEPTH}
    says = "a message whose jump pointer does not follow from its parent's"
    return [
        finding(Fault.WRONG_JUMP, session_id, seq, says, mendable=True)
        for session_id, seq in connection.execute(WRONG_JUMPS, {"tenant": tenant})
        if session_id not in ill
    ]


def _dead_ends(connection: Connection, tenant: str, found: Sequence[Finding]) -> list[Finding]:
    """Find, of the sessions with a damaged message, those whose next request would lack a part of its history."""
    told = {one.session_id for one in found if one.fault in {Fault.LOST_HEAD, Fault.LATE_HEAD}}
    ill = {one.session_id for one in found if one.fault in BREAKING}
    says = "a session whose path back breaks off; it stands on the last turn that can be spoken from once it is mended"
    return [
        finding(Fault.DEAD_END, session_id, head, says, mendable=True)
        for session_id, head in (connection.execute(_HEADS, {"tenant": tenant}).all() if ill else ())
        if session_id in ill and session_id not in told and not _can_stand(connection, tenant, session_id, head)
    ]


def _can_stand(connection: Connection, tenant: str, session_id: str, seq: int) -> bool:
    """Whether a session that stands on a message can be spoken in: its turn is complete, its window can be read."""
    row = connection.execute(_TIP, {"tenant": tenant, "session": session_id, "seq": seq}).first()
    if row is None:
        return False
    starts = [
        state.window_start if state else 0
        for state in (
            _state(connection, {"tenant": tenant, "session": session_id, "seat": seat, "seq": turn})
            for seat, turn in _map(row.states).items()
            if seat != SHARED
        )
    ]
    start = min(starts, default=0)
    try:
        history.path_back(
            connection,
            tenant,
            session_id,
            head=seq,
            start=start,
            cap=history.UNBOUNDED,
            per_message=0,
            passes=history.UNBOUNDED,
        )
    except StoreError:
        return False
    return True


def _map(stored: Any) -> dict[int, int]:
    try:
        return read_map(stored)
    except StoreError:
        return {}  # mended, it begins anew


def _state(connection: Connection, where: dict[str, Any]) -> SeatState | None:
    try:
        return read_state(connection.execute(_STATE_OF, where).scalar())
    except StoreError:
        return None  # likewise


def _place(one: Finding) -> tuple[str, str, int | None, str]:
    return one.kind, one.session_id, one.seq, one.says


def _delete_orphans(connection: Connection, tenant: str, _wrong: Sequence[Finding]) -> None:
    for statement in _DELETE_ORPHANS:
        connection.execute(statement, {"of_tenant": tenant})


def _without_lost_states(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
    """Leave out of a turn's map the path states that are not there."""
    for one in wrong:
        where = _row(tenant, one)
        found = _map(connection.execute(_MAP_OF, where).scalar())
        there = {
            seat: seq
            for seat, seq in found.items()
            if connection.execute(_STATE_OF, where | {"seat": seat, "seq": seq}).first() is not None
        }
        connection.execute(_NEW_MAP, where | {"states": write_map(there) if there else None})


def _readable_states(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
    """Empty the path states of a turn that cannot be read or name texts that are not there, and a map like that."""
    for one in wrong:
        where = _row(tenant, one)
        for seat, state in connection.execute(_STATES_AT, where).all():
            try:
                is_whole = names_texts(connection, tenant, one.session_id, state)
            except StoreError:
                is_whole = False
            if not is_whole:
                connection.execute(_EMPTY_STATE, where | {"seat": seat})
        try:
            read_map(connection.execute(_MAP_OF, where).scalar())
        except StoreError:
            connection.execute(_NEW_MAP, where | {"states": None})


def _each(*statements: TextClause) -> Mend:
    """Mend each row that is wrong with some statements."""

    def put_right(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
        for one in wrong:
            for statement in statements:
                connection.execute(statement, _row(tenant, one))

    return put_right


def _row(tenant: str, one: Finding) -> dict[str, Any]:
    return {"tenant": tenant, "session": one.session_id, "seq": one.seq}


def _count_on(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
    """Raise counters to the highest numbers in use. The version moves, so that a claim that counted before fails."""
    for session_id in _sessions(wrong):
        sessions.lock(connection, tenant, session_id)
        where = {"tenant": tenant, "session": session_id}
        last_seq, last_turn, version, message, reply, turn, move = connection.execute(_HIGHEST, where).one()
        counted = {
            "seq": max(last_seq, message, reply),
            "turn": max(last_turn, turn),
            "version": max(version, move) + 1,
        }
        connection.execute(_COUNT_ON, where | counted)


def _stand_again(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
    """Stand where the session stood last and can be spoken from, else on the newest such turn, else nowhere.

    The moves that led to what is lost are taken back by a row of their own, so that undo goes on from before them.
    """
    for session_id in _sessions(wrong):
        sessions.lock(connection, tenant, session_id)
        where = {"tenant": tenant, "session": session_id}
        version, head = _last_position(connection, tenant, session_id)
        connection.execute(_STAND_ON, where | {"head": head})
        lost = connection.execute(_NEXT_MOVE, where | {"after": version}).scalar()
        if lost is not None:
            connection.execute(_TAKE_BACK, where | {"undoes": lost})


def _last_position(connection: Connection, tenant: str, session_id: str) -> tuple[int, int | None]:
    where = {"tenant": tenant, "session": session_id}
    for version, seq in connection.execute(_MOVES, where).all():
        if _can_stand(connection, tenant, session_id, seq):
            return version, seq
    tips = connection.execute(_TIPS, where).scalars().all()
    return 0, next((seq for seq in tips if seq and _can_stand(connection, tenant, session_id, seq)), None)


def _recount(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
    """Count the ordinals of a session's messages anew, parents before children."""
    for session_id in _sessions(wrong):
        where = {"tenant": tenant, "session": session_id}
        counted: dict[int | None, PathEnd] = {None: PathEnd()}
        changes = []
        for seq, parent, role, humans, models in connection.execute(_TREE, where):
            stored, before = PathEnd(seq, humans, models), counted.get(parent)
            right = counted[seq] = stored if before is None else before.then(seq, by_human=role == "user")
            if right != stored:
                changed = {"seq": seq, "depth": right.depth, "humans": right.humans, "models": right.models}
                changes.append(where | changed)
        if changes:
            connection.execute(_RECOUNT, changes)


def _jump_again(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
    """Find the jump pointers of a session's messages anew, parents before children."""
    for session_id in _sessions(wrong):
        where = {"tenant": tenant, "session": session_id}
        right: dict[int | None, int | None] = {}
        changes = []
        for seq, parent, depth, stored in connection.execute(_POINTERS, where):
            to, over = jump_of(seq, parent, depth)
            right[seq] = to if over is None else right.get(right.get(over))
            if right[seq] != stored:
                changes.append(where | {"seq": seq, "jump": right[seq]})
        if changes:
            connection.execute(_POINT, changes)


def _end_calls(connection: Connection, tenant: str, _wrong: Sequence[Finding]) -> None:
    connection.execute(_END_CALLS, {"tenant": tenant, "lost": recovery.LOST})


def _sessions(wrong: Iterable[Finding]) -> list[str]:
    return sorted({one.session_id for one in wrong})


#: In this order: a session stands again once what it may stand on is mended.
_MENDS: dict[Fault, Mend] = {
    Fault.ORPHAN: _delete_orphans,
    Fault.LOST_PERSONA: _each(_PERSONA_AGAIN, _LAST_VERSION),
    Fault.LOST_VERSION: _each(_LAST_VERSION),
    Fault.LOST_REVISION: _each(_LAST_REVISION),
    Fault.LOST_STATE: _without_lost_states,
    Fault.UNREADABLE_STATE: _readable_states,
    Fault.STATE_OF_LOST_TEXT: _readable_states,
    # A turn without its reply is called failed, so that it can be answered again.
    Fault.LOST_REPLY: _each(_LET_RETRY),
    Fault.NAMELESS_REPLY: _each(_ITS_REPLY, _NO_REPLY),
    Fault.DRIFT: _count_on,
    Fault.LOST_HEAD: _stand_again,
    Fault.LATE_HEAD: _stand_again,
    Fault.DEAD_END: _stand_again,
    Fault.WRONG_DEPTH: _recount,
    Fault.WRONG_JUMP: _jump_again,
    Fault.UNENDED: _end_calls,
}

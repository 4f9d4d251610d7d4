"""A check-up of a tenant's rows: what cannot be, what is left over, and what of it can be mended.

Reads every row of the tenant, each a bounded number of times: never inside a turn. A check is one statement, so that a
turn that is written meanwhile is seen whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, delete, literal, null, select, text

from roleplay.domain.values import Value
from roleplay.store import rescue, sessions
from roleplay.store.tables import (
    Base,
    HeadMoveRow,
    MessageRow,
    ModelCallRow,
    ParticipantRevisionRow,
    ParticipantRow,
    PathStateRow,
    PieceRow,
    SessionRevisionRow,
    SessionRow,
    TurnRow,
    table,
)

ORPHAN = "orphan row"
LOST_HEAD = "lost head"
LATE_HEAD = "head on an unanswered turn"
MISSING_REPLY = "missing reply"
DRIFT = "counter drift"
WRONG_DEPTH = "wrong depth"
UNENDED = "unended call"
EXPIRED = "expired lease"

#: In the order in which they can be deleted.
_OF_SESSIONS: tuple[type[Base], ...] = (
    HeadMoveRow,
    ModelCallRow,
    MessageRow,
    TurnRow,
    PathStateRow,
    PieceRow,
    ParticipantRevisionRow,
    ParticipantRow,
    SessionRevisionRow,
)
_s = table(SessionRow).alias("s")
_o = table(SessionRow).alias("o")


class Finding(Value):
    """Something wrong with a row. ``seq`` is the number of the message or turn; ``mended`` says whether it was put
    right, ``mendable`` whether it can be."""

    kind: str
    session_id: str
    seq: int | None
    says: str
    mendable: bool
    mended: bool = False


class _Check(NamedTuple):
    """A statement that gives session, number and whether it can be mended, of each row that is wrong."""

    kind: str
    says: str
    statement: Any


def _no_session(row: type[Base]) -> Any:
    """Whether a row's session is nobody's, not even another tenant's, so that the row can be deleted."""
    return ~select(literal(1)).where(_o.c.id == table(row).c.session_id).correlate(table(row)).exists()


def _orphans(row: type[Base]) -> Select[Any]:
    of = table(row)
    return (
        select(of.c.session_id, null(), _no_session(row))
        .outerjoin(_s, (_s.c.id == of.c.session_id) & (_s.c.tenant == of.c.tenant))
        .where(of.c.tenant == bindparam("tenant"), _s.c.id.is_(None))
        .distinct()
    )


_CHECKS = (
    *(
        _Check(ORPHAN, f"{table(row).name.removeprefix('roleplay_')} of a session that is not there", _orphans(row))
        for row in _OF_SESSIONS
    ),
    _Check(
        "orphan message",
        "a message whose turn is not there",
        text("""
        SELECT m.session_id, m.seq, 1 = 0 FROM roleplay_messages m LEFT JOIN roleplay_turns t
        ON t.session_id = m.session_id AND t.seq = m.turn_seq AND t.tenant = m.tenant
        WHERE m.tenant = :tenant AND t.seq IS NULL
        """),
    ),
    _Check(
        "orphan call",
        "a model call whose turn is not there",
        text("""
        SELECT c.session_id, c.turn_seq, 1 = 0 FROM roleplay_model_calls c LEFT JOIN roleplay_turns t
        ON t.session_id = c.session_id AND t.seq = c.turn_seq AND t.tenant = c.tenant
        WHERE c.tenant = :tenant AND c.turn_seq IS NOT NULL AND t.seq IS NULL
        """),
    ),
    _Check(
        "broken link",
        "a message whose parent is not there",
        text("""
        SELECT m.session_id, m.seq, 1 = 0 FROM roleplay_messages m LEFT JOIN roleplay_messages p
        ON p.session_id = m.session_id AND p.seq = m.parent_seq AND p.tenant = m.tenant
        WHERE m.tenant = :tenant AND m.parent_seq IS NOT NULL AND p.seq IS NULL
        """),
    ),
    _Check(
        "broken link",
        "a turn whose parent is not there",
        text("""
        SELECT t.session_id, t.seq, 1 = 0 FROM roleplay_turns t LEFT JOIN roleplay_turns p
        ON p.session_id = t.session_id AND p.seq = t.parent_turn AND p.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.parent_turn IS NOT NULL AND p.seq IS NULL
        """),
    ),
    _Check(
        "missing human line",
        "a turn whose human line is not there",
        text("""
        SELECT t.session_id, t.seq, 1 = 0 FROM roleplay_turns t LEFT JOIN roleplay_messages m
        ON m.session_id = t.session_id AND m.seq = t.human_seq AND m.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.human_seq IS NOT NULL AND m.seq IS NULL
        """),
    ),
    _Check(
        MISSING_REPLY,
        "a completed turn whose reply is not there; where nothing follows it, it can be retried once it is mended",
        text("""
        SELECT t.session_id, t.seq, t.kind = 'reply' AND NOT EXISTS (SELECT 1 FROM roleplay_turns f
        WHERE f.session_id = t.session_id AND f.parent_turn = t.seq AND f.tenant = t.tenant)
        FROM roleplay_turns t LEFT JOIN roleplay_messages m
        ON m.session_id = t.session_id AND m.seq = t.reply_seq AND m.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.status = 'completed' AND t.reply_seq IS NOT NULL AND m.seq IS NULL
        """),
    ),
    _Check(
        "missing persona",
        "a seat whose persona version is not there",
        text("""
        SELECT q.session_id, NULL, 1 = 0 FROM roleplay_participant_revisions q LEFT JOIN roleplay_persona_versions v
        ON v.persona_id = q.persona_id AND v.version = q.persona_version AND v.tenant = q.tenant
        WHERE q.tenant = :tenant AND q.persona_id IS NOT NULL AND v.persona_id IS NULL
        """),
    ),
    _Check(
        LOST_HEAD,
        "a session that stands on a message that is not there",
        text("""
        SELECT s.id, s.head_seq, 1 = 1 FROM roleplay_sessions s LEFT JOIN roleplay_messages m
        ON m.session_id = s.id AND m.seq = s.head_seq AND m.tenant = s.tenant
        WHERE s.tenant = :tenant AND s.head_seq IS NOT NULL AND m.seq IS NULL
        """),
    ),
    _Check(
        LATE_HEAD,
        "a session that stands on a turn that is not complete",
        text("""
        SELECT s.id, t.seq, 1 = 1 FROM roleplay_sessions s JOIN roleplay_messages m
        ON m.session_id = s.id AND m.seq = s.head_seq AND m.tenant = s.tenant JOIN roleplay_turns t
        ON t.session_id = s.id AND t.seq = m.turn_seq AND t.tenant = s.tenant
        WHERE s.tenant = :tenant AND t.status <> 'completed'
        """),
    ),
    _Check(
        "gap",
        "a turn that is not there though a later one is; named is the number before the later one",
        text("""
        SELECT t.session_id, t.seq - 1, 1 = 0 FROM roleplay_turns t LEFT JOIN roleplay_turns b
        ON b.session_id = t.session_id AND b.seq = t.seq - 1 AND b.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.seq > 1 AND b.seq IS NULL
        """),
    ),
    _Check(
        "gap",
        "the turn with the last number that was given out is not there",
        text("""
        SELECT s.id, s.last_turn, 1 = 0 FROM roleplay_sessions s LEFT JOIN roleplay_turns t
        ON t.session_id = s.id AND t.seq = s.last_turn AND t.tenant = s.tenant
        WHERE s.tenant = :tenant AND s.last_turn > 0 AND t.seq IS NULL AND s.last_turn >
        (SELECT coalesce(max(l.seq), 0) FROM roleplay_turns l WHERE l.session_id = s.id AND l.tenant = s.tenant)
        """),
    ),
    _Check(
        DRIFT,
        "a session whose counters are lower than numbers in use",
        text("""
        SELECT s.id, s.last_seq, 1 = 1 FROM roleplay_sessions s WHERE s.tenant = :tenant AND (
        s.last_seq <
        (SELECT coalesce(max(m.seq), 0) FROM roleplay_messages m WHERE m.session_id = s.id AND m.tenant = s.tenant)
        OR s.last_seq <
        (SELECT coalesce(max(t.reply_seq), 0) FROM roleplay_turns t WHERE t.session_id = s.id AND t.tenant = s.tenant)
        OR s.last_turn <
        (SELECT coalesce(max(t.seq), 0) FROM roleplay_turns t WHERE t.session_id = s.id AND t.tenant = s.tenant)
        OR s.version <
        (SELECT coalesce(max(h.version), 0) FROM roleplay_head_moves h WHERE h.session_id = s.id
        AND h.tenant = s.tenant))
        """),
    ),
    _Check(
        WRONG_DEPTH,
        "a message whose ordinals do not follow its parent's",
        text("""
        SELECT m.session_id, m.seq, 1 = 1 FROM roleplay_messages m LEFT JOIN roleplay_messages p
        ON p.session_id = m.session_id AND p.seq = m.parent_seq AND p.tenant = m.tenant
        WHERE m.tenant = :tenant AND (m.parent_seq IS NULL OR p.seq IS NOT NULL) AND (
        m.human_ordinal <> coalesce(p.human_ordinal, 0) + CASE m.role WHEN 'user' THEN 1 ELSE 0 END
        OR m.model_ordinal <> coalesce(p.model_ordinal, 0) + CASE m.role WHEN 'user' THEN 0 ELSE 1 END)
        """),
    ),
    _Check(
        UNENDED,
        "a model call without an end whose turn has ended",
        text("""
        SELECT c.session_id, c.turn_seq, 1 = 1 FROM roleplay_model_calls c JOIN roleplay_turns t
        ON t.session_id = c.session_id AND t.seq = c.turn_seq AND t.tenant = c.tenant
        WHERE c.tenant = :tenant AND c.total_s IS NULL AND c.error IS NULL
        AND t.status IN ('completed', 'interrupted', 'failed')
        """),
    ),
)
_DELETE_ORPHANS = tuple(
    delete(table(row)).where(table(row).c.tenant == bindparam("of_tenant"), _no_session(row)) for row in _OF_SESSIONS
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
_LAST_STAND = text("""
SELECT h.version, h.to_seq FROM roleplay_head_moves h JOIN roleplay_messages m
ON m.session_id = h.session_id AND m.seq = h.to_seq AND m.tenant = h.tenant JOIN roleplay_turns t
ON t.session_id = h.session_id AND t.seq = m.turn_seq AND t.tenant = h.tenant
WHERE h.tenant = :tenant AND h.session_id = :session AND t.status = 'completed' ORDER BY h.version DESC LIMIT 1
""")
_NEXT_MOVE = text("""
SELECT min(h.version) FROM roleplay_head_moves h
WHERE h.tenant = :tenant AND h.session_id = :session AND h.version > :after
""")
_TAKE_BACK = text("""
INSERT INTO roleplay_head_moves (session_id, version, tenant, from_seq, to_seq, cause, undoes, created_at)
SELECT s.id, s.version, s.tenant, NULL, s.head_seq, 'undo', :undoes, s.last_turn_at FROM roleplay_sessions s
WHERE s.tenant = :tenant AND s.id = :session
""")
_LAST_REPLY = text("""
SELECT max(t.reply_seq) FROM roleplay_turns t JOIN roleplay_messages m
ON m.session_id = t.session_id AND m.seq = t.reply_seq AND m.tenant = t.tenant
WHERE t.tenant = :tenant AND t.session_id = :session AND t.status = 'completed'
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
_END_CALLS = text("""
UPDATE roleplay_model_calls SET error = :lost WHERE tenant = :tenant AND total_s IS NULL AND error IS NULL AND EXISTS
(SELECT 1 FROM roleplay_turns t WHERE t.session_id = roleplay_model_calls.session_id
AND t.seq = roleplay_model_calls.turn_seq AND t.tenant = roleplay_model_calls.tenant
AND t.status IN ('completed', 'interrupted', 'failed'))
""")

IsLost = Callable[[rescue.Holder], bool]


def examine(connection: Connection, tenant: str, *, at: datetime, is_lost: IsLost) -> list[Finding]:
    """Give everything that is wrong; changes nothing. ``is_lost`` tells whether nobody holds a turn in flight."""
    found = [
        Finding(kind=check.kind, session_id=row[0], seq=row[1], says=check.says, mendable=bool(row[2]))
        for check in _CHECKS
        for row in connection.execute(check.statement, {"tenant": tenant})
    ]
    lost = [one for one in rescue.holders(connection, tenant, at) if is_lost(one)]
    says = "a turn in flight whose lease has run out, or whose process is gone"
    return found + [
        Finding(kind=EXPIRED, session_id=one.session_id, seq=one.turn_seq, says=says, mendable=True) for one in lost
    ]


def mend(
    connection: Connection, tenant: str, found: Sequence[Finding], *, at: datetime, is_lost: IsLost
) -> list[Finding]:
    """Mend what can be mended of what was found, and give it with whether it is put right now.

    Turns in flight that nobody holds are ended before, one by one, by ``rescue.recover``.
    """
    for kind, put_right in _MENDS.items():
        if wrong := [one for one in found if one.kind == kind and one.mendable]:
            put_right(connection, tenant, wrong)
    left = {_place(one) for one in examine(connection, tenant, at=at, is_lost=is_lost)}
    return [one.model_copy(update={"mended": _place(one) not in left}) for one in found]


def _place(one: Finding) -> tuple[str, str, int | None, str]:
    return one.kind, one.session_id, one.seq, one.says


def _delete_orphans(connection: Connection, tenant: str, _wrong: Sequence[Finding]) -> None:
    for statement in _DELETE_ORPHANS:
        connection.execute(statement, {"of_tenant": tenant})


def _let_retry(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
    """Call a turn failed whose reply is lost, so that its human line can be answered again."""
    for one in wrong:
        connection.execute(_LET_RETRY, {"tenant": tenant, "session": one.session_id, "seq": one.seq})


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
    """Stand where the session stood last of what is there and complete, else on the newest reply, else nowhere.

    The moves that led to what is lost are taken back by a row of their own, so that undo goes on from before them.
    """
    for session_id in _sessions(wrong):
        sessions.lock(connection, tenant, session_id)
        where = {"tenant": tenant, "session": session_id}
        version, head = connection.execute(_LAST_STAND, where).first() or (0, None)
        if head is None:
            head = connection.execute(_LAST_REPLY, where).scalar()
        connection.execute(_STAND_ON, where | {"head": head})
        lost = connection.execute(_NEXT_MOVE, where | {"after": version}).scalar()
        if lost is not None:
            connection.execute(_TAKE_BACK, where | {"undoes": lost})


def _recount(connection: Connection, tenant: str, wrong: Sequence[Finding]) -> None:
    """Count the ordinals of a session's messages anew, parents before children."""
    for session_id in _sessions(wrong):
        where = {"tenant": tenant, "session": session_id}
        counted: dict[int, tuple[int, int]] = {}
        changes = []
        for seq, parent, role, humans, models in connection.execute(_TREE, where):
            before = (0, 0) if parent is None else counted.get(parent)
            by_human = role == "user"
            right = (humans, models) if before is None else (before[0] + by_human, before[1] + (not by_human))
            counted[seq] = right
            if right != (humans, models):
                changes.append(where | {"seq": seq, "depth": sum(right), "humans": right[0], "models": right[1]})
        if changes:
            connection.execute(_RECOUNT, changes)


def _end_calls(connection: Connection, tenant: str, _wrong: Sequence[Finding]) -> None:
    connection.execute(_END_CALLS, {"tenant": tenant, "lost": rescue.LOST})


def _sessions(wrong: Iterable[Finding]) -> list[str]:
    return sorted({one.session_id for one in wrong})


_MENDS: dict[str, Callable[[Connection, str, Sequence[Finding]], None]] = {
    ORPHAN: _delete_orphans,
    MISSING_REPLY: _let_retry,
    DRIFT: _count_on,
    LOST_HEAD: _stand_again,
    LATE_HEAD: _stand_again,
    WRONG_DEPTH: _recount,
    UNENDED: _end_calls,
}

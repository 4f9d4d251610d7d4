"""A check-up of a tenant's rows: what cannot be, what is left over, and what of it can be mended.

Reads every row of the tenant: never inside a turn.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, TextClause, bindparam, text

from roleplay.domain.values import Value
from roleplay.store.tables import UtcDateTime

_CHECKS: dict[str, tuple[str, str]] = {
    "orphan message": (
        "a message whose turn is not there",
        """
        SELECT m.session_id, m.seq FROM roleplay_messages m LEFT JOIN roleplay_turns t
        ON t.session_id = m.session_id AND t.seq = m.turn_seq AND t.tenant = m.tenant
        WHERE m.tenant = :tenant AND t.seq IS NULL
        """,
    ),
    "broken link": (
        "a message whose parent is not there",
        """
        SELECT m.session_id, m.seq FROM roleplay_messages m LEFT JOIN roleplay_messages p
        ON p.session_id = m.session_id AND p.seq = m.parent_seq AND p.tenant = m.tenant
        WHERE m.tenant = :tenant AND m.parent_seq IS NOT NULL AND p.seq IS NULL
        """,
    ),
    "missing human line": (
        "a turn whose human line is not there",
        """
        SELECT t.session_id, t.seq FROM roleplay_turns t LEFT JOIN roleplay_messages m
        ON m.session_id = t.session_id AND m.seq = t.human_seq AND m.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.human_seq IS NOT NULL AND m.seq IS NULL
        """,
    ),
    "missing reply": (
        "a completed turn whose reply is not there",
        """
        SELECT t.session_id, t.seq FROM roleplay_turns t LEFT JOIN roleplay_messages m
        ON m.session_id = t.session_id AND m.seq = t.reply_seq AND m.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.status = 'completed' AND t.reply_seq IS NOT NULL AND m.seq IS NULL
        """,
    ),
    "lost head": (
        "a session that stands on a message that is not there",
        """
        SELECT s.id, s.head_seq FROM roleplay_sessions s LEFT JOIN roleplay_messages m
        ON m.session_id = s.id AND m.seq = s.head_seq AND m.tenant = s.tenant
        WHERE s.tenant = :tenant AND s.head_seq IS NOT NULL AND m.seq IS NULL
        """,
    ),
    "head on an unanswered turn": (
        "a session that stands on a turn that is not complete",
        """
        SELECT s.id, t.seq FROM roleplay_sessions s JOIN roleplay_messages m
        ON m.session_id = s.id AND m.seq = s.head_seq AND m.tenant = s.tenant JOIN roleplay_turns t
        ON t.session_id = s.id AND t.seq = m.turn_seq AND t.tenant = s.tenant
        WHERE s.tenant = :tenant AND t.status <> 'completed'
        """,
    ),
    "gap": (
        "a turn number that was given out and is not there",
        """
        SELECT s.id, s.last_turn FROM roleplay_sessions s WHERE s.tenant = :tenant AND s.last_turn <>
        (SELECT count(*) FROM roleplay_turns t WHERE t.session_id = s.id AND t.tenant = s.tenant)
        """,
    ),
    "wrong depth": (
        "a message whose ordinals do not follow its parent's",
        """
        SELECT m.session_id, m.seq FROM roleplay_messages m LEFT JOIN roleplay_messages p
        ON p.session_id = m.session_id AND p.seq = m.parent_seq AND p.tenant = m.tenant
        WHERE m.tenant = :tenant AND m.depth <> coalesce(p.depth, 0) + 1
        """,
    ),
    "unended call": (
        "a model call without an end whose turn has ended",
        """
        SELECT c.session_id, c.turn_seq FROM roleplay_model_calls c JOIN roleplay_turns t
        ON t.session_id = c.session_id AND t.seq = c.turn_seq AND t.tenant = c.tenant
        WHERE c.tenant = :tenant AND c.total_s IS NULL AND c.error IS NULL
        AND t.status IN ('completed', 'interrupted', 'failed')
        """,
    ),
    "counter drift": (
        "a session whose highest number is lower than a number in use",
        """
        SELECT s.id, s.last_seq FROM roleplay_sessions s WHERE s.tenant = :tenant AND s.last_seq <
        (SELECT coalesce(max(m.seq), 0) FROM roleplay_messages m WHERE m.session_id = s.id AND m.tenant = s.tenant)
        """,
    ),
    "expired lease": (
        "a turn in flight whose lease has run out",
        """
        SELECT t.session_id, t.seq FROM roleplay_turns t WHERE t.tenant = :tenant
        AND t.status IN ('pending', 'streaming') AND t.lease_until <= :at
        """,
    ),
}
_MENDS: dict[str, str] = {
    "counter drift": (
        """
        UPDATE roleplay_sessions SET last_seq = (SELECT max(m.seq) FROM roleplay_messages m
        WHERE m.session_id = roleplay_sessions.id AND m.tenant = roleplay_sessions.tenant)
        WHERE tenant = :tenant AND last_seq < (SELECT coalesce(max(m.seq), 0) FROM roleplay_messages m
        WHERE m.session_id = roleplay_sessions.id AND m.tenant = roleplay_sessions.tenant)
        """
    ),
    "unended call": (
        'UPDATE roleplay_model_calls SET error = \'{"slug": "lost", "message": "the end of this call was lost",'
        ' "retryable": true}\' WHERE tenant = :tenant AND total_s IS NULL AND error IS NULL AND turn_seq IN'
        " (SELECT t.seq FROM roleplay_turns t WHERE t.session_id = roleplay_model_calls.session_id"
        " AND t.tenant = roleplay_model_calls.tenant AND t.status IN ('completed', 'interrupted', 'failed'))"
    ),
    "lost head": (
        """
        UPDATE roleplay_sessions SET head_seq = (SELECT max(t.reply_seq) FROM roleplay_turns t
        JOIN roleplay_messages m ON m.session_id = t.session_id AND m.seq = t.reply_seq AND m.tenant = t.tenant
        WHERE t.session_id = roleplay_sessions.id AND t.tenant = roleplay_sessions.tenant
        AND t.status = 'completed') WHERE tenant = :tenant AND head_seq IS NOT NULL AND NOT EXISTS
        (SELECT 1 FROM roleplay_messages m WHERE m.session_id = roleplay_sessions.id
        AND m.seq = roleplay_sessions.head_seq AND m.tenant = roleplay_sessions.tenant)
        """
    ),
}


class Finding(Value):
    """Something wrong with a row. ``seq`` is the number of the message or turn; ``mended`` says whether it was put
    right, ``mendable`` whether it can be."""

    kind: str
    session_id: str
    seq: int | None
    says: str
    mendable: bool
    mended: bool = False


def examine(connection: Connection, tenant: str, *, at: datetime) -> list[Finding]:
    """Give everything that is wrong; changes nothing."""
    found = []
    for kind, (says, statement) in _CHECKS.items():
        where = {"tenant": tenant} | ({"at": at} if ":at" in statement else {})
        mendable = kind in _MENDS or kind == "expired lease"
        found += [
            Finding(kind=kind, session_id=row[0], seq=row[1], says=says, mendable=mendable)
            for row in connection.execute(_statement(statement), where)
        ]
    return found


def mend(connection: Connection, tenant: str, *, at: datetime) -> list[Finding]:
    """Mend what can be mended and give everything that was wrong, each with whether it is put right now."""
    before = examine(connection, tenant, at=at)
    for kind in {finding.kind for finding in before} & _MENDS.keys():
        connection.execute(text(_MENDS[kind]), {"tenant": tenant})
    left = {(finding.kind, finding.session_id, finding.seq) for finding in examine(connection, tenant, at=at)}
    return [
        finding.model_copy(update={"mended": (finding.kind, finding.session_id, finding.seq) not in left})
        for finding in before
    ]


def _statement(sql: str) -> TextClause:
    statement = text(sql)
    return statement.bindparams(bindparam("at", type_=UtcDateTime)) if ":at" in sql else statement

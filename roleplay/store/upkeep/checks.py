"""The doctor's statements: what of a tenant's rows does not go with the others.

A check is one statement, so that a turn that is written meanwhile is seen whole or not at all.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, literal, null, select, text

from roleplay.domain.values import Value
from roleplay.store.access.tables import (
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
    VerdictRow,
    table,
)


class Fault(StrEnum):
    """What is wrong, for programs: a word of its own for each thing that is mended, or told, apart from others."""

    ORPHAN = "orphan-row"
    ORPHAN_MESSAGE = "orphan-message"
    ORPHAN_CALL = "orphan-call"
    MESSAGE_LINK = "broken-message-link"
    TURN_LINK = "broken-turn-link"
    NO_LINE = "missing-human-line"
    LOST_REPLY = "lost-reply"
    NAMELESS_REPLY = "nameless-reply"
    LOST_STATE = "missing-path-state"
    LOST_REVISION = "missing-revision"
    LOST_REVISION_OF_TURN = "missing-revision-of-turn"
    NO_SEAT = "missing-seat"
    SEAT_UNKNOWN = "unknown-seat"
    NO_TEXT = "missing-text"
    NO_PERSONA_OF_SEAT = "missing-persona-of-seat"
    LOST_PERSONA = "missing-persona"
    LOST_VERSION = "missing-persona-version"
    WRONG_UNDO = "wrong-undo"
    LOST_HEAD = "lost-head"
    LATE_HEAD = "late-head"
    DEAD_END = "dead-end"
    GAP = "gap"
    DRIFT = "counter-drift"
    WRONG_DEPTH = "wrong-depth"
    WRONG_JUMP = "wrong-jump"
    UNENDED = "unended-call"
    EXPIRED = "expired-lease"
    EXPIRED_CALL = "expired-lease-of-call"
    UNREADABLE = "unreadable-row"
    UNREADABLE_MESSAGE = "unreadable-message"
    UNREADABLE_STATE = "unreadable-path-state"
    STATE_OF_LOST_TEXT = "path-state-of-lost-text"

    @property
    def kind(self) -> str:
        """What it is called in words; several may be of one kind."""
        return _KINDS.get(self, self.value.replace("-", " "))


_KINDS = {
    Fault.MESSAGE_LINK: "broken link",
    Fault.TURN_LINK: "broken link",
    Fault.LOST_REPLY: "missing reply",
    Fault.NAMELESS_REPLY: "missing reply",
    Fault.LOST_REVISION_OF_TURN: "missing revision",
    Fault.SEAT_UNKNOWN: "missing seat",
    Fault.NO_PERSONA_OF_SEAT: "missing persona",
    Fault.LOST_VERSION: "missing persona",
    Fault.LATE_HEAD: "head on an unanswered turn",
    Fault.DEAD_END: "head that cannot be spoken from",
    Fault.EXPIRED_CALL: "expired lease",
    Fault.UNREADABLE_MESSAGE: "unreadable row",
    Fault.STATE_OF_LOST_TEXT: "unreadable path state",
}
#: What may break off a path.
BREAKING = frozenset({Fault.ORPHAN_MESSAGE, Fault.MESSAGE_LINK, Fault.TURN_LINK, Fault.UNREADABLE_MESSAGE})

#: In the order in which they can be deleted.
OF_SESSIONS: tuple[type[Base], ...] = (
    HeadMoveRow,
    VerdictRow,
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
    """Something wrong with a row. ``kind`` and ``says`` are for people, ``fault`` is for programs. ``session_id`` is a
    persona's where it is of a persona, ``seq`` the number of the message, turn or version; ``mended`` says whether it
    was put right, ``mendable`` whether it can be."""

    kind: str
    fault: Fault
    session_id: str
    seq: int | None
    says: str
    mendable: bool
    mended: bool = False


def finding(fault: Fault, session_id: str, seq: int | None, says: str, *, mendable: bool) -> Finding:
    """Make a finding of a fault."""
    return Finding(kind=fault.kind, fault=fault, session_id=session_id, seq=seq, says=says, mendable=mendable)


class Check(NamedTuple):
    """A statement that gives session, number and whether it can be mended, of each row that is wrong."""

    fault: Fault
    says: str
    statement: Any


def no_session(row: type[Base]) -> Any:
    """Whether a row's session is nobody's, not even another tenant's, so that the row can be deleted."""
    return ~select(literal(1)).where(_o.c.id == table(row).c.session_id).correlate(table(row)).exists()


def _orphans(row: type[Base]) -> Select[Any]:
    of = table(row)
    return (
        select(of.c.session_id, null(), no_session(row))
        .outerjoin(_s, (_s.c.id == of.c.session_id) & (_s.c.tenant == of.c.tenant))
        .where(of.c.tenant == bindparam("tenant"), _s.c.id.is_(None))
        .distinct()
    )


CHECKS = (
    *(
        Check(
            Fault.ORPHAN, f"{table(row).name.removeprefix('roleplay_')} of a session that is not there", _orphans(row)
        )
        for row in OF_SESSIONS
    ),
    Check(
        Fault.ORPHAN_MESSAGE,
        "a message whose turn is not there",
        text("""
        SELECT m.session_id, m.seq, 1 = 0 FROM roleplay_messages m LEFT JOIN roleplay_turns t
        ON t.session_id = m.session_id AND t.seq = m.turn_seq AND t.tenant = m.tenant
        WHERE m.tenant = :tenant AND t.seq IS NULL
        """),
    ),
    Check(
        Fault.ORPHAN_CALL,
        "a model call whose turn is not there",
        text("""
        SELECT c.session_id, c.turn_seq, 1 = 0 FROM roleplay_model_calls c LEFT JOIN roleplay_turns t
        ON t.session_id = c.session_id AND t.seq = c.turn_seq AND t.tenant = c.tenant
        WHERE c.tenant = :tenant AND c.turn_seq IS NOT NULL AND t.seq IS NULL
        """),
    ),
    Check(
        Fault.MESSAGE_LINK,
        "a message whose parent is not there, or came after it",
        text("""
        SELECT m.session_id, m.seq, 1 = 0 FROM roleplay_messages m LEFT JOIN roleplay_messages p
        ON p.session_id = m.session_id AND p.seq = m.parent_seq AND p.tenant = m.tenant
        WHERE m.tenant = :tenant AND m.parent_seq IS NOT NULL AND (p.seq IS NULL OR p.seq >= m.seq)
        """),
    ),
    Check(
        Fault.TURN_LINK,
        "a turn whose parent is not there",
        text("""
        SELECT t.session_id, t.seq, 1 = 0 FROM roleplay_turns t LEFT JOIN roleplay_turns p
        ON p.session_id = t.session_id AND p.seq = t.parent_turn AND p.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.parent_turn IS NOT NULL AND p.seq IS NULL
        """),
    ),
    Check(
        Fault.NO_LINE,
        "a turn whose human line is not there",
        text("""
        SELECT t.session_id, t.seq, 1 = 0 FROM roleplay_turns t LEFT JOIN roleplay_messages m
        ON m.session_id = t.session_id AND m.seq = t.human_seq AND m.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.human_seq IS NOT NULL AND m.seq IS NULL
        """),
    ),
    Check(
        Fault.LOST_REPLY,
        "a completed turn whose reply is not there; where nothing follows it, it can be retried once it is mended",
        text("""
        SELECT t.session_id, t.seq, t.kind = 'reply' AND NOT EXISTS (SELECT 1 FROM roleplay_turns f
        WHERE f.session_id = t.session_id AND f.parent_turn = t.seq AND f.tenant = t.tenant)
        FROM roleplay_turns t LEFT JOIN roleplay_messages m
        ON m.session_id = t.session_id AND m.seq = t.reply_seq AND m.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.status = 'completed' AND t.reply_seq IS NOT NULL AND m.seq IS NULL
        """),
    ),
    Check(
        Fault.NAMELESS_REPLY,
        "a completed turn that names no reply; it gets the one that is there, else it can be retried once it is mended",
        text("""
        SELECT t.session_id, t.seq, EXISTS (SELECT 1 FROM roleplay_messages m WHERE m.session_id = t.session_id
        AND m.turn_seq = t.seq AND m.role = 'assistant' AND m.tenant = t.tenant) OR NOT EXISTS
        (SELECT 1 FROM roleplay_turns f
        WHERE f.session_id = t.session_id AND f.parent_turn = t.seq AND f.tenant = t.tenant)
        FROM roleplay_turns t
        WHERE t.tenant = :tenant AND t.status = 'completed' AND t.kind = 'reply' AND t.reply_seq IS NULL
        """),
    ),
    Check(
        Fault.LOST_REVISION,
        "a session whose revision is not there; it goes on from the last one that is",
        text("""
        SELECT s.id, NULL, EXISTS (SELECT 1 FROM roleplay_session_revisions o
        WHERE o.session_id = s.id AND o.tenant = s.tenant)
        FROM roleplay_sessions s LEFT JOIN roleplay_session_revisions r
        ON r.session_id = s.id AND r.revision = s.revision AND r.tenant = s.tenant
        WHERE s.tenant = :tenant AND r.revision IS NULL
        """),
    ),
    Check(
        Fault.LOST_REVISION_OF_TURN,
        "a turn whose revision of the session is not there",
        text("""
        SELECT t.session_id, t.seq, 1 = 0 FROM roleplay_turns t LEFT JOIN roleplay_session_revisions r
        ON r.session_id = t.session_id AND r.revision = t.revision AND r.tenant = t.tenant
        WHERE t.tenant = :tenant AND r.revision IS NULL
        """),
    ),
    *(
        Check(
            Fault.NO_SEAT,
            f"a session without a seat of the {played_by} in which somebody sits",
            text("""
            SELECT s.id, NULL, 1 = 0 FROM roleplay_sessions s WHERE s.tenant = :tenant AND NOT EXISTS
            (SELECT 1 FROM roleplay_participants p JOIN roleplay_participant_revisions q
            ON q.session_id = p.session_id AND q.seat = p.seat AND q.tenant = p.tenant
            WHERE p.session_id = s.id AND p.tenant = s.tenant AND p.played_by = :played_by
            AND (q.present IS NULL OR q.present) AND q.revision = (SELECT max(l.revision)
            FROM roleplay_participant_revisions l WHERE l.session_id = q.session_id AND l.seat = q.seat
            AND l.tenant = q.tenant AND l.revision <= s.revision))
            """).bindparams(played_by=played_by),
        )
        for played_by in ("model", "human")
    ),
    *(
        Check(
            Fault.SEAT_UNKNOWN,
            f"a {what} of a seat that is not there",
            text(f"""
            SELECT x.session_id, x.{number}, 1 = 0 FROM {of} x LEFT JOIN roleplay_participants p
            ON p.session_id = x.session_id AND p.seat = x.{seat} AND p.tenant = x.tenant
            WHERE x.tenant = :tenant AND p.seat IS NULL
            """),  # noqa: S608 - names of ours
        )
        for what, of, seat, number in (
            ("name", "roleplay_participant_revisions", "seat", "seat"),
            ("turn", "roleplay_turns", "speaker", "seq"),
            ("message", "roleplay_messages", "seat", "seq"),
        )
    ),
    Check(
        Fault.NO_TEXT,
        "a model call whose request begins with texts that are not there",
        text("""
        SELECT c.session_id, c.turn_seq, 1 = 0 FROM roleplay_model_calls c LEFT JOIN roleplay_pieces p
        ON p.session_id = c.session_id AND p.digest = c.front_digest AND p.tenant = c.tenant
        WHERE c.tenant = :tenant AND p.digest IS NULL
        """),
    ),
    Check(
        Fault.NO_PERSONA_OF_SEAT,
        "a seat whose persona version is not there",
        text("""
        SELECT q.session_id, NULL, 1 = 0 FROM roleplay_participant_revisions q LEFT JOIN roleplay_persona_versions v
        ON v.persona_id = q.persona_id AND v.version = q.persona_version AND v.tenant = q.tenant
        WHERE q.tenant = :tenant AND q.persona_id IS NOT NULL AND v.persona_id IS NULL
        """),
    ),
    Check(
        Fault.LOST_PERSONA,
        "a persona of which only versions are there; it is known by its name and id once it is mended, without a key",
        text("""
        SELECT v.persona_id, NULL, 1 = 1 FROM roleplay_persona_versions v LEFT JOIN roleplay_personas p
        ON p.id = v.persona_id AND p.tenant = v.tenant
        WHERE v.tenant = :tenant AND p.id IS NULL GROUP BY v.persona_id
        """),
    ),
    Check(
        Fault.LOST_VERSION,
        "a persona whose newest version is not there; the newest that is takes its place once it is mended",
        text("""
        SELECT p.id, p.version, EXISTS
        (SELECT 1 FROM roleplay_persona_versions o WHERE o.persona_id = p.id AND o.tenant = p.tenant)
        FROM roleplay_personas p LEFT JOIN roleplay_persona_versions v
        ON v.persona_id = p.id AND v.version = p.version AND v.tenant = p.tenant
        WHERE p.tenant = :tenant AND v.persona_id IS NULL
        """),
    ),
    Check(
        Fault.WRONG_UNDO,
        "an undo that names no earlier move",
        text("""
        SELECT h.session_id, h.version, 1 = 0 FROM roleplay_head_moves h LEFT JOIN roleplay_head_moves b
        ON b.session_id = h.session_id AND b.version = h.undoes AND b.tenant = h.tenant AND b.version < h.version
        WHERE h.tenant = :tenant AND h.cause = 'undo' AND b.version IS NULL
        """),
    ),
    Check(
        Fault.LOST_HEAD,
        "a session that stands on a message that is not there",
        text("""
        SELECT s.id, s.head_seq, 1 = 1 FROM roleplay_sessions s LEFT JOIN roleplay_messages m
        ON m.session_id = s.id AND m.seq = s.head_seq AND m.tenant = s.tenant
        WHERE s.tenant = :tenant AND s.head_seq IS NOT NULL AND m.seq IS NULL
        """),
    ),
    Check(
        Fault.LATE_HEAD,
        "a session that stands on a turn that is not complete",
        text("""
        SELECT s.id, t.seq, 1 = 1 FROM roleplay_sessions s JOIN roleplay_messages m
        ON m.session_id = s.id AND m.seq = s.head_seq AND m.tenant = s.tenant JOIN roleplay_turns t
        ON t.session_id = s.id AND t.seq = m.turn_seq AND t.tenant = s.tenant
        WHERE s.tenant = :tenant AND t.status <> 'completed'
        """),
    ),
    Check(
        Fault.GAP,
        "a turn that is not there though a later one is; named is the number before the later one",
        text("""
        SELECT t.session_id, t.seq - 1, 1 = 0 FROM roleplay_turns t LEFT JOIN roleplay_turns b
        ON b.session_id = t.session_id AND b.seq = t.seq - 1 AND b.tenant = t.tenant
        WHERE t.tenant = :tenant AND t.seq > 1 AND b.seq IS NULL
        """),
    ),
    Check(
        Fault.GAP,
        "the turn with the last number that was given out is not there",
        text("""
        SELECT s.id, s.last_turn, 1 = 0 FROM roleplay_sessions s LEFT JOIN roleplay_turns t
        ON t.session_id = s.id AND t.seq = s.last_turn AND t.tenant = s.tenant
        WHERE s.tenant = :tenant AND s.last_turn > 0 AND t.seq IS NULL AND s.last_turn >
        (SELECT coalesce(max(l.seq), 0) FROM roleplay_turns l WHERE l.session_id = s.id AND l.tenant = s.tenant)
        """),
    ),
    Check(
        Fault.DRIFT,
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
    Check(
        Fault.WRONG_DEPTH,
        "a message whose ordinals do not follow its parent's",
        text("""
        SELECT m.session_id, m.seq, 1 = 1 FROM roleplay_messages m LEFT JOIN roleplay_messages p
        ON p.session_id = m.session_id AND p.seq = m.parent_seq AND p.tenant = m.tenant
        WHERE m.tenant = :tenant AND (m.parent_seq IS NULL OR p.seq IS NOT NULL) AND (
        m.human_ordinal <> coalesce(p.human_ordinal, 0) + CASE m.role WHEN 'user' THEN 1 ELSE 0 END
        OR m.model_ordinal <> coalesce(p.model_ordinal, 0) + CASE m.role WHEN 'user' THEN 0 ELSE 1 END)
        """),
    ),
    Check(
        Fault.UNENDED,
        "a model call without an end whose turn has ended",
        text("""
        SELECT c.session_id, c.turn_seq, 1 = 1 FROM roleplay_model_calls c JOIN roleplay_turns t
        ON t.session_id = c.session_id AND t.seq = c.turn_seq AND t.tenant = c.tenant
        WHERE c.tenant = :tenant AND c.total_s IS NULL AND c.error IS NULL
        AND t.status IN ('completed', 'interrupted', 'failed')
        """),
    ),
)
#: Of a session whose links are broken, these tell nothing.
WRONG_JUMPS = text("""
SELECT m.session_id, m.seq FROM roleplay_messages m LEFT JOIN roleplay_messages p
ON p.session_id = m.session_id AND p.seq = m.parent_seq AND p.tenant = m.tenant LEFT JOIN roleplay_messages j
ON j.session_id = p.session_id AND j.seq = p.jump_seq AND j.tenant = p.tenant LEFT JOIN roleplay_messages k
ON k.session_id = j.session_id AND k.seq = j.jump_seq AND k.tenant = j.tenant
WHERE m.tenant = :tenant AND (m.jump_seq IS NULL OR m.jump_seq <> CASE WHEN m.parent_seq IS NULL THEN m.seq
WHEN p.depth - j.depth = j.depth - k.depth THEN j.jump_seq ELSE m.parent_seq END)
""")

"""Calls of other purposes and of no turn, and what a message knows: its revision, and a pointer to jump back by.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: How many messages are in memory at once.
BATCH = 1_000
LEASED = "lease_until IS NOT NULL"
ONLY_REPLIES = "purpose IN ('reply')"
TURN_HAS_THE_LEASE = "turn_seq IS NULL OR (lease_owner IS NULL AND lease_until IS NULL)"
IN_FLIGHT_IS_LEASED = (
    "turn_seq IS NOT NULL OR total_s IS NOT NULL OR error IS NOT NULL"
    " OR (lease_owner IS NOT NULL AND lease_until IS NOT NULL)"
)
UNIQUE = "uq_roleplay_model_calls_session_id_turn_seq_attempt_purpose"


def upgrade() -> None:
    _purposes()
    _jumps()


def downgrade() -> None:
    _no_jumps()
    _no_purposes()


def _purposes() -> None:
    """Let a turn have calls for other purposes, counted apart, and a call without a turn its own lease."""
    _let_broken_links_be()
    with op.batch_alter_table("roleplay_model_calls", copy_from=_calls(_before())) as calls:
        calls.add_column(sa.Column("lease_owner", sa.String(length=200), nullable=True))
        calls.add_column(sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
        calls.drop_constraint(op.f("uq_roleplay_model_calls_session_id_turn_seq_attempt"), type_="unique")
        calls.create_unique_constraint(UNIQUE, ["session_id", "turn_seq", "attempt", "purpose"])
        calls.drop_constraint(op.f("ck_roleplay_model_calls_purpose"), type_="check")
        calls.create_check_constraint(op.f("ck_roleplay_model_calls_turn_has_the_lease"), sa.text(TURN_HAS_THE_LEASE))
        calls.create_check_constraint(op.f("ck_roleplay_model_calls_in_flight_is_leased"), sa.text(IN_FLIGHT_IS_LEASED))
    op.create_index(
        "ix_roleplay_model_calls_in_flight",
        "roleplay_model_calls",
        ["tenant", "session_id", "id"],
        unique=False,
        sqlite_where=sa.text(LEASED),
        postgresql_where=sa.text(LEASED),
    )


def _no_purposes() -> None:
    """Take all that an older version cannot read: calls for other purposes, and calls of no turn."""
    op.drop_index("ix_roleplay_model_calls_in_flight", "roleplay_model_calls")
    op.execute("DELETE FROM roleplay_model_calls WHERE purpose <> 'reply' OR turn_seq IS NULL")
    _let_broken_links_be()
    with op.batch_alter_table("roleplay_model_calls", copy_from=_calls(_after())) as calls:
        calls.drop_constraint(op.f("ck_roleplay_model_calls_in_flight_is_leased"), type_="check")
        calls.drop_constraint(op.f("ck_roleplay_model_calls_turn_has_the_lease"), type_="check")
        calls.create_check_constraint(op.f("ck_roleplay_model_calls_purpose"), sa.text(ONLY_REPLIES))
        calls.drop_constraint(UNIQUE, type_="unique")
        calls.create_unique_constraint(
            op.f("uq_roleplay_model_calls_session_id_turn_seq_attempt"), ["session_id", "turn_seq", "attempt"]
        )
        calls.drop_column("lease_until")
        calls.drop_column("lease_owner")


def _let_broken_links_be() -> None:
    """Let SQLite copy rows whose links are broken, which ``doctor`` is for, once the schema is this version's."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("PRAGMA defer_foreign_keys = ON")  # until the transaction ends, when as many are broken as before


def _before() -> list[Any]:
    return [
        sa.CheckConstraint(ONLY_REPLIES, name=op.f("ck_roleplay_model_calls_purpose")),
        sa.UniqueConstraint(
            "session_id", "turn_seq", "attempt", name=op.f("uq_roleplay_model_calls_session_id_turn_seq_attempt")
        ),
    ]


def _after() -> list[Any]:
    return [
        sa.Column("lease_owner", sa.String(length=200), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(TURN_HAS_THE_LEASE, name=op.f("ck_roleplay_model_calls_turn_has_the_lease")),
        sa.CheckConstraint(IN_FLIGHT_IS_LEASED, name=op.f("ck_roleplay_model_calls_in_flight_is_leased")),
        sa.UniqueConstraint("session_id", "turn_seq", "attempt", "purpose", name=UNIQUE),
    ]


def _calls(more: list[Any]) -> sa.Table:
    """The calls as they are, of which SQLite, to alter them, makes a new table. What it would be told by reflection
    depends on SQLAlchemy's version. No row refers to a call, so that nothing goes with the old table."""
    return sa.Table(
        "roleplay_model_calls",
        sa.MetaData(),
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("turn_seq", sa.Integer(), nullable=True),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("model_asked", sa.String(length=200), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("dialect", sa.String(length=32), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("recipe_version", sa.Integer(), nullable=False),
        sa.Column("front_digest", sa.String(length=32), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("prompt_count", sa.Integer(), nullable=False),
        sa.Column("counter", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_answered", sa.String(length=200), nullable=True),
        sa.Column("response_id", sa.String(length=200), nullable=True),
        sa.Column("response_created", sa.BigInteger(), nullable=True),
        sa.Column("finish_reason", sa.String(length=200), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=True),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=True),
        sa.Column("total_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=True),
        sa.Column("input_sensitive", sa.Boolean(), nullable=True),
        sa.Column("input_sensitive_type", sa.BigInteger(), nullable=True),
        sa.Column("output_sensitive", sa.Boolean(), nullable=True),
        sa.Column("output_sensitive_type", sa.BigInteger(), nullable=True),
        sa.Column("output_sensitive_int", sa.BigInteger(), nullable=True),
        sa.Column("base_status", sa.BigInteger(), nullable=True),
        sa.Column("base_message", sa.Text(), nullable=True),
        sa.Column("reasoning", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("first_token_s", sa.Float(), nullable=True),
        sa.Column("total_s", sa.Float(), nullable=True),
        sa.Column("settings_digest", sa.String(length=32), nullable=True),
        sa.Column("report", sa.Text(), nullable=True),
        sa.CheckConstraint("attempt >= 1 AND prompt_count >= 0", name=op.f("ck_roleplay_model_calls_counts")),
        sa.ForeignKeyConstraint(
            ["session_id", "front_digest"],
            ["roleplay_pieces.session_id", "roleplay_pieces.digest"],
            name=op.f("fk_roleplay_model_calls_session_id_front_digest"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_model_calls_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "turn_seq"],
            ["roleplay_turns.session_id", "roleplay_turns.seq"],
            name=op.f("fk_roleplay_model_calls_session_id_turn_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "id", name=op.f("pk_roleplay_model_calls")),
        *more,
    )


def _jumps() -> None:
    """Give each message its revision, that of its turn, and its jump pointer."""
    op.add_column("roleplay_messages", sa.Column("revision", sa.Integer(), nullable=True))
    op.add_column("roleplay_messages", sa.Column("jump_seq", sa.Integer(), nullable=True))
    last: tuple[str, int] = ("", 0)
    jumps: dict[tuple[str, int], int] = {}
    while rows := op.get_bind().execute(MESSAGES, {"session": last[0], "seq": last[1], "most": BATCH}).all():
        jumps.clear()
        changes = []
        for session, seq, parent, depth, said_under in rows:
            jump = jumps[session, seq] = _jump(jumps, session, (seq, parent, depth))
            changes.append({"of_session": session, "of_seq": seq, "to_jump": jump, "to_revision": said_under})
        op.get_bind().execute(SET_JUMP, changes)
        last = rows[-1][:2]


def _no_jumps() -> None:
    op.drop_column("roleplay_messages", "jump_seq")
    op.drop_column("roleplay_messages", "revision")


MESSAGES = sa.text("""
SELECT m.session_id, m.seq, m.parent_seq, m.depth, t.revision FROM roleplay_messages m LEFT JOIN roleplay_turns t
ON t.session_id = m.session_id AND t.seq = m.turn_seq
WHERE m.session_id > :session OR (m.session_id = :session AND m.seq > :seq)
ORDER BY m.session_id, m.seq LIMIT :most
""")
JUMP = sa.text("SELECT jump_seq FROM roleplay_messages WHERE session_id = :session AND seq = :seq")
SET_JUMP = sa.text("""
UPDATE roleplay_messages SET jump_seq = :to_jump, revision = :to_revision
WHERE session_id = :of_session AND seq = :of_seq
""")


def _jump(jumps: dict[tuple[str, int], Any], session: str, message: tuple[int, int | None, int]) -> int | None:
    """Give the jump pointer of a message, whose ancestors have theirs: in this batch, or in the table."""
    seq, parent, depth = message
    if parent is None:
        return seq
    if _jump_depth(depth) == depth - 1:
        return parent
    for _ in range(2):
        if (session, parent) not in jumps:
            where = {"session": session, "seq": parent}
            jumps[session, parent] = op.get_bind().execute(JUMP, where).scalar()
        parent = jumps[session, parent]
    return parent


def _jump_depth(depth: int) -> int:
    """Give the depth to which a message at ``depth`` jumps: less the last digit of ``depth - 1`` in skew-binary."""
    rest, skipped = max(depth, 1) - 1, 0
    while rest:
        skipped = (1 << (rest + 1).bit_length() - 1) - 1
        rest -= skipped
    return max(depth, 1) - skipped

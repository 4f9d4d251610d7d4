"""Settings of personas and calls, who changed a persona and why, which are archived, and lists by age.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("roleplay_persona_versions", sa.Column("settings", sa.Text(), nullable=True))
    op.add_column("roleplay_persona_versions", sa.Column("author", sa.String(length=200), nullable=True))
    op.add_column("roleplay_persona_versions", sa.Column("message", sa.Text(), nullable=True))
    op.add_column("roleplay_personas", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("roleplay_personas", sa.Column("synced", sa.Boolean(), nullable=True))
    op.create_index("ix_roleplay_personas_made", "roleplay_personas", ["tenant", "id"])
    op.create_index("ix_roleplay_sessions_made", "roleplay_sessions", ["tenant", "id"])
    op.add_column("roleplay_model_calls", sa.Column("settings_digest", sa.String(length=32), nullable=True))
    op.create_table(
        "roleplay_verdicts",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("turn_seq", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("side", sa.String(length=32), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("guard", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("original", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("side IN ('human', 'reply')", name=op.f("ck_roleplay_verdicts_side")),
        sa.CheckConstraint("action IN ('replace', 'refuse')", name=op.f("ck_roleplay_verdicts_action")),
        sa.CheckConstraint("attempt >= 1 AND ordinal >= 1", name=op.f("ck_roleplay_verdicts_counts_from_1")),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_verdicts_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "turn_seq"],
            ["roleplay_turns.session_id", "roleplay_turns.seq"],
            name=op.f("fk_roleplay_verdicts_session_id_turn_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "session_id", "turn_seq", "attempt", "side", "ordinal", name=op.f("pk_roleplay_verdicts")
        ),
    )


def downgrade() -> None:
    op.drop_table("roleplay_verdicts")
    op.drop_column("roleplay_model_calls", "settings_digest")
    op.drop_index("ix_roleplay_sessions_made", "roleplay_sessions")
    op.drop_index("ix_roleplay_personas_made", "roleplay_personas")
    op.drop_column("roleplay_personas", "synced")
    op.drop_column("roleplay_personas", "archived_at")
    op.drop_column("roleplay_persona_versions", "message")
    op.drop_column("roleplay_persona_versions", "author")
    op.drop_column("roleplay_persona_versions", "settings")

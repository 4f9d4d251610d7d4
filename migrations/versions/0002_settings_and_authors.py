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


def downgrade() -> None:
    op.drop_column("roleplay_model_calls", "settings_digest")
    op.drop_index("ix_roleplay_sessions_made", "roleplay_sessions")
    op.drop_index("ix_roleplay_personas_made", "roleplay_personas")
    op.drop_column("roleplay_personas", "synced")
    op.drop_column("roleplay_personas", "archived_at")
    op.drop_column("roleplay_persona_versions", "message")
    op.drop_column("roleplay_persona_versions", "author")
    op.drop_column("roleplay_persona_versions", "settings")

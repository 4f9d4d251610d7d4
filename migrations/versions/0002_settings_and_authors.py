"""Settings of personas and calls, and who changed a persona and why.

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
    op.add_column("roleplay_persona_versions", sa.Column("note_of_change", sa.Text(), nullable=True))
    op.add_column("roleplay_model_calls", sa.Column("settings_digest", sa.String(length=32), nullable=True))


def downgrade() -> None:
    op.drop_column("roleplay_model_calls", "settings_digest")
    op.drop_column("roleplay_persona_versions", "note_of_change")
    op.drop_column("roleplay_persona_versions", "author")
    op.drop_column("roleplay_persona_versions", "settings")

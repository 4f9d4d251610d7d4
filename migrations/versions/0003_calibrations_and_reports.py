"""What is learned of models' tokens, and why each context was what it was.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("roleplay_model_calls", sa.Column("report", sa.Text(), nullable=True))
    op.create_table(
        "roleplay_calibrations",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("dialect", sa.String(length=32), nullable=False),
        sa.Column("counter", sa.String(length=32), nullable=False),
        sa.Column("fit", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "model", "host", "dialect", "counter", name=op.f("pk_roleplay_calibrations")),
    )


def downgrade() -> None:
    op.drop_table("roleplay_calibrations")
    op.drop_column("roleplay_model_calls", "report")

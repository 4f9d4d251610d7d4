"""A seat's owner, its other names, order, talkativeness and whether it is muted or has left; whom a turn was said to;
a wish to speak after a round's present turn; what was cut from a reply.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OWNED = "owner IS NOT NULL"
#: By table: columns that may all be NULL, which is what rows of earlier revisions mean.
COLUMNS: dict[str, list[tuple[str, sa.types.TypeEngine[object]]]] = {
    "roleplay_participants": [("owner", sa.String(200))],
    "roleplay_participant_revisions": [
        ("aliases", sa.Text()),
        ("place", sa.Integer()),
        ("talkativeness", sa.Float()),
        ("muted", sa.Boolean()),
        ("present", sa.Boolean()),
    ],
    "roleplay_turns": [("audience", sa.Text()), ("ends_round", sa.Boolean())],
    "roleplay_model_calls": [("cut", sa.Text())],
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for name, kind in columns:
            op.add_column(table, sa.Column(name, kind, nullable=True))
    op.create_index(
        "ix_roleplay_participants_of_owner",
        "roleplay_participants",
        ["tenant", "owner", "session_id"],
        sqlite_where=sa.text(OWNED),
        postgresql_where=sa.text(OWNED),
    )


def downgrade() -> None:
    op.drop_index("ix_roleplay_participants_of_owner", "roleplay_participants")
    for table, columns in reversed(COLUMNS.items()):
        for name, _ in reversed(columns):
            op.drop_column(table, name)

"""Create the schema.

Revision ID: 0001
Revises: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "roleplay_personas",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("version >= 1", name=op.f("ck_roleplay_personas_version_counts_from_1")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roleplay_personas")),
        sa.UniqueConstraint("id", "tenant", name=op.f("uq_roleplay_personas_id_tenant")),
        sa.UniqueConstraint("tenant", "key", name=op.f("uq_roleplay_personas_tenant_key")),
    )
    op.create_index("ix_roleplay_personas_listing", "roleplay_personas", ["tenant", "updated_at", "id"], unique=False)

    op.create_table(
        "roleplay_sessions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("head_seq", sa.Integer(), nullable=True),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("last_turn", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_turn_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "head_seq IS NULL OR head_seq <= last_seq", name=op.f("ck_roleplay_sessions_head_was_given_out")
        ),
        sa.CheckConstraint("last_seq >= 0 AND last_turn >= 0", name=op.f("ck_roleplay_sessions_counters_not_negative")),
        sa.CheckConstraint("version >= 1 AND revision >= 1", name=op.f("ck_roleplay_sessions_counts_from_1")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roleplay_sessions")),
        sa.UniqueConstraint("id", "tenant", name=op.f("uq_roleplay_sessions_id_tenant")),
    )
    op.create_index("ix_roleplay_sessions_listing", "roleplay_sessions", ["tenant", "last_turn_at", "id"], unique=False)
    op.create_index(
        "ix_roleplay_sessions_of_owner", "roleplay_sessions", ["tenant", "owner", "last_turn_at", "id"], unique=False
    )

    op.create_table(
        "roleplay_participants",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("seat", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("played_by", sa.String(length=32), nullable=False),
        sa.CheckConstraint("played_by IN ('model', 'human')", name=op.f("ck_roleplay_participants_played_by")),
        sa.CheckConstraint("seat >= 1", name=op.f("ck_roleplay_participants_counts_from_1")),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_participants_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "seat", name=op.f("pk_roleplay_participants")),
    )
    op.create_table(
        "roleplay_path_states",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint("length(state) <= 8192", name=op.f("ck_roleplay_path_states_is_small")),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_path_states_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "seq", name=op.f("pk_roleplay_path_states")),
    )
    op.create_table(
        "roleplay_persona_versions",
        sa.Column("persona_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("nickname", sa.String(length=200), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("personality", sa.Text(), nullable=False),
        sa.Column("scenario", sa.Text(), nullable=False),
        sa.Column("system_prompt", sa.Text(), nullable=False),
        sa.Column("post_history", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("greetings", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("extensions", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("version >= 1", name=op.f("ck_roleplay_persona_versions_version_counts_from_1")),
        sa.ForeignKeyConstraint(
            ["persona_id", "tenant"],
            ["roleplay_personas.id", "roleplay_personas.tenant"],
            name=op.f("fk_roleplay_persona_versions_persona_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("persona_id", "version", name=op.f("pk_roleplay_persona_versions")),
        sa.UniqueConstraint(
            "persona_id", "version", "tenant", name=op.f("uq_roleplay_persona_versions_persona_id_version_tenant")
        ),
    )
    op.create_table(
        "roleplay_pieces",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_pieces_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "digest", name=op.f("pk_roleplay_pieces")),
    )
    op.create_table(
        "roleplay_session_revisions",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("scene", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_roleplay_session_revisions_counts_from_1")),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_session_revisions_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "revision", name=op.f("pk_roleplay_session_revisions")),
    )
    op.create_table(
        "roleplay_example_dialogues",
        sa.Column("persona_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["persona_id", "version", "tenant"],
            [
                "roleplay_persona_versions.persona_id",
                "roleplay_persona_versions.version",
                "roleplay_persona_versions.tenant",
            ],
            name=op.f("fk_roleplay_example_dialogues_persona_id_version_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("persona_id", "version", "ordinal", name=op.f("pk_roleplay_example_dialogues")),
        sa.UniqueConstraint(
            "persona_id",
            "version",
            "ordinal",
            "tenant",
            name=op.f("uq_roleplay_example_dialogues_persona_id_version_ordinal_tenant"),
        ),
    )
    op.create_table(
        "roleplay_participant_revisions",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("seat", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=200), nullable=False),
        sa.Column("persona_id", sa.String(length=36), nullable=True),
        sa.Column("persona_version", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "(persona_id IS NULL) = (persona_version IS NULL)",
            name=op.f("ck_roleplay_participant_revisions_persona_is_pinned"),
        ),
        sa.ForeignKeyConstraint(
            ["persona_id", "persona_version", "tenant"],
            [
                "roleplay_persona_versions.persona_id",
                "roleplay_persona_versions.version",
                "roleplay_persona_versions.tenant",
            ],
            name=op.f("fk_roleplay_participant_revisions_persona_id_persona_version_tenant"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "revision"],
            ["roleplay_session_revisions.session_id", "roleplay_session_revisions.revision"],
            name=op.f("fk_roleplay_participant_revisions_session_id_revision"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "seat"],
            ["roleplay_participants.session_id", "roleplay_participants.seat"],
            name=op.f("fk_roleplay_participant_revisions_session_id_seat"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_participant_revisions_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "seat", "revision", name=op.f("pk_roleplay_participant_revisions")),
    )
    op.create_index(
        "ix_roleplay_participant_revisions_persona",
        "roleplay_participant_revisions",
        ["persona_id", "persona_version"],
        unique=False,
    )

    op.create_table(
        "roleplay_turns",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("parent_turn", sa.Integer(), nullable=True),
        sa.Column("from_head", sa.Integer(), nullable=True),
        sa.Column("moves_head", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("speaker", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state_seq", sa.Integer(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("lease_owner", sa.String(length=200), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("body_digest", sa.String(length=64), nullable=True),
        sa.Column("human_seq", sa.Integer(), nullable=True),
        sa.Column("reply_seq", sa.Integer(), nullable=True),
        sa.Column("metadata_json", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (status IN ('pending', 'streaming'))",
            name=op.f("ck_roleplay_turns_ended_when_not_in_flight"),
        ),
        sa.CheckConstraint(
            "kind IN ('reply', 'greeting', 'narration', 'imported')", name=op.f("ck_roleplay_turns_kind")
        ),
        sa.CheckConstraint(
            "status <> 'completed' OR kind <> 'reply' OR reply_seq IS NOT NULL",
            name=op.f("ck_roleplay_turns_completed_has_reply"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'streaming', 'completed', 'interrupted', 'failed')",
            name=op.f("ck_roleplay_turns_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('pending', 'streaming') OR (lease_owner IS NOT NULL AND lease_until IS NOT NULL)",
            name=op.f("ck_roleplay_turns_in_flight_is_leased"),
        ),
        sa.CheckConstraint(
            "(idempotency_key IS NULL) = (body_digest IS NULL)", name=op.f("ck_roleplay_turns_key_has_body")
        ),
        sa.CheckConstraint("attempt >= 1 AND ordinal >= 1", name=op.f("ck_roleplay_turns_counts_from_1")),
        sa.CheckConstraint(
            "seq >= 1 AND (parent_turn IS NULL OR parent_turn < seq)", name=op.f("ck_roleplay_turns_parent_is_older")
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "parent_turn"],
            ["roleplay_turns.session_id", "roleplay_turns.seq"],
            name=op.f("fk_roleplay_turns_session_id_parent_turn"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "revision"],
            ["roleplay_session_revisions.session_id", "roleplay_session_revisions.revision"],
            name=op.f("fk_roleplay_turns_session_id_revision"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "speaker"],
            ["roleplay_participants.session_id", "roleplay_participants.seat"],
            name=op.f("fk_roleplay_turns_session_id_speaker"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "state_seq"],
            ["roleplay_path_states.session_id", "roleplay_path_states.seq"],
            name=op.f("fk_roleplay_turns_session_id_state_seq"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_turns_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "seq", name=op.f("pk_roleplay_turns")),
        sa.UniqueConstraint("session_id", "id", name=op.f("uq_roleplay_turns_session_id_id")),
    )
    op.create_index("ix_roleplay_turns_children", "roleplay_turns", ["session_id", "parent_turn", "seq"], unique=False)
    op.create_index(
        "ix_roleplay_turns_in_flight",
        "roleplay_turns",
        ["tenant", "session_id", "seq"],
        unique=False,
        sqlite_where=sa.text("status IN ('pending', 'streaming')"),
        postgresql_where=sa.text("status IN ('pending', 'streaming')"),
    )
    op.create_index(
        "uq_roleplay_turns_in_flight",
        "roleplay_turns",
        ["session_id", sa.text("coalesce(from_head, 0)")],
        unique=True,
        sqlite_where=sa.text("status IN ('pending', 'streaming') AND moves_head"),
        postgresql_where=sa.text("status IN ('pending', 'streaming') AND moves_head"),
    )
    op.create_index(
        "uq_roleplay_turns_idempotency_key",
        "roleplay_turns",
        ["session_id", "idempotency_key", "ordinal"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )

    op.create_table(
        "roleplay_example_lines",
        sa.Column("persona_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("dialogue", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("speaker", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["persona_id", "version", "dialogue", "tenant"],
            [
                "roleplay_example_dialogues.persona_id",
                "roleplay_example_dialogues.version",
                "roleplay_example_dialogues.ordinal",
                "roleplay_example_dialogues.tenant",
            ],
            name=op.f("fk_roleplay_example_lines_persona_id_version_dialogue_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("persona_id", "version", "dialogue", "ordinal", name=op.f("pk_roleplay_example_lines")),
    )
    op.create_table(
        "roleplay_messages",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("parent_seq", sa.Integer(), nullable=True),
        sa.Column("turn_seq", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("seat", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=True),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("counter", sa.String(length=32), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("human_ordinal", sa.Integer(), nullable=False),
        sa.Column("model_ordinal", sa.Integer(), nullable=False),
        sa.Column("repaired", sa.Boolean(), nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('user', 'assistant')", name=op.f("ck_roleplay_messages_role")),
        sa.CheckConstraint(
            "depth = human_ordinal + model_ordinal AND human_ordinal >= 0 AND model_ordinal >= 0",
            name=op.f("ck_roleplay_messages_ordinals_add_up"),
        ),
        sa.CheckConstraint(
            "seq >= 1 AND (parent_seq IS NULL OR parent_seq < seq)", name=op.f("ck_roleplay_messages_parent_is_older")
        ),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_roleplay_messages_tokens_not_negative")),
        sa.ForeignKeyConstraint(
            ["session_id", "parent_seq"],
            ["roleplay_messages.session_id", "roleplay_messages.seq"],
            name=op.f("fk_roleplay_messages_session_id_parent_seq"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "seat"],
            ["roleplay_participants.session_id", "roleplay_participants.seat"],
            name=op.f("fk_roleplay_messages_session_id_seat"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_messages_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "turn_seq"],
            ["roleplay_turns.session_id", "roleplay_turns.seq"],
            name=op.f("fk_roleplay_messages_session_id_turn_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "seq", name=op.f("pk_roleplay_messages")),
    )
    op.create_index(
        "ix_roleplay_messages_children", "roleplay_messages", ["session_id", "parent_seq", "seq"], unique=False
    )

    op.create_table(
        "roleplay_model_calls",
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
        sa.CheckConstraint("purpose IN ('reply')", name=op.f("ck_roleplay_model_calls_purpose")),
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
        sa.UniqueConstraint(
            "session_id", "turn_seq", "attempt", name=op.f("uq_roleplay_model_calls_session_id_turn_seq_attempt")
        ),
    )
    op.create_table(
        "roleplay_head_moves",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("from_seq", sa.Integer(), nullable=True),
        sa.Column("to_seq", sa.Integer(), nullable=True),
        sa.Column("cause", sa.String(length=32), nullable=False),
        sa.Column("undoes", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(cause = 'undo') = (undoes IS NOT NULL)", name=op.f("ck_roleplay_head_moves_undo_names_a_move")
        ),
        sa.CheckConstraint(
            "cause IN ('greeting', 'reply', 'accept', 'choose', 'rewind', 'fork', 'edit', 'undo')",
            name=op.f("ck_roleplay_head_moves_cause"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "from_seq"],
            ["roleplay_messages.session_id", "roleplay_messages.seq"],
            name=op.f("fk_roleplay_head_moves_session_id_from_seq"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_head_moves_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "to_seq"],
            ["roleplay_messages.session_id", "roleplay_messages.seq"],
            name=op.f("fk_roleplay_head_moves_session_id_to_seq"),
        ),
        sa.PrimaryKeyConstraint("session_id", "version", name=op.f("pk_roleplay_head_moves")),
    )


def downgrade() -> None:
    op.drop_table("roleplay_head_moves")
    op.drop_table("roleplay_model_calls")

    op.drop_table("roleplay_messages")
    op.drop_table("roleplay_example_lines")

    op.drop_table("roleplay_turns")

    op.drop_table("roleplay_participant_revisions")
    op.drop_table("roleplay_example_dialogues")
    op.drop_table("roleplay_session_revisions")
    op.drop_table("roleplay_pieces")
    op.drop_table("roleplay_persona_versions")
    op.drop_table("roleplay_path_states")
    op.drop_table("roleplay_participants")

    op.drop_table("roleplay_sessions")

    op.drop_table("roleplay_personas")

"""Path states by seat, what a turn drew by chance, calls of other purposes and of no turn, and what a message knows:
its revision, and a pointer to jump back by.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_AT_ONCE = 500
_STATE_LIMIT = 8192
#: What a state was, in this order, at most four of them; the third since revision 0002, the fourth since 0003.
_STATE = ("window_start", "front", "settings", "examples")
_IN_FLIGHT = "status IN ('pending', 'streaming')"
_COLUMNS = (
    "session_id, seq, tenant, id, parent_turn, from_head, moves_head, kind, round, ordinal, speaker, revision, attempt,"
    " status, lease_owner, lease_until, idempotency_key, body_digest, human_seq, reply_seq, metadata_json, created_at,"
    " ended_at"
)
#: The map of a turn ``t`` by seats: in what it stood on, one turn wrote the states of all.
_MAP = (
    """(SELECT '{{' || {}('"' || p.seat || '":' || p.seq, ',') || '}}' FROM roleplay_path_states p """
    "WHERE p.tenant = t.tenant AND p.session_id = t.session_id AND p.seq = t.state_seq)"
)

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
    broken = _broken_links()
    _states_by_seat()
    _draws()
    _purposes()
    _jumps()
    _check_links(broken)


def downgrade() -> None:
    broken = _broken_links()
    _no_jumps()
    _no_purposes()
    _without_draws()
    _states_by_turn()
    _check_links(broken)


def _states_by_seat() -> None:
    """Split each state into rows by seat, and name for each seat of a turn the turn that wrote its row last."""
    if not _is_sqlite():
        op.drop_constraint("fk_roleplay_turns_session_id_state_seq", "roleplay_turns", type_="foreignkey")
        op.drop_constraint("pk_roleplay_path_states", "roleplay_path_states", type_="primary")
    op.rename_table("roleplay_path_states", "roleplay_path_states_old")
    _create_states(
        sa.Column("seat", sa.Integer(), nullable=False),
        sa.CheckConstraint("seat >= 0", name=op.f("ck_roleplay_path_states_counts_from_0")),
        key=("session_id", "seq", "seat"),
    )
    speakers = sa.text(
        "SELECT speaker FROM roleplay_turns WHERE tenant = :tenant AND session_id = :session_id AND seq = :seq"
    )
    for rows in _read("SELECT session_id, seq, tenant, state FROM roleplay_path_states_old"):
        new = []
        for session_id, seq, tenant, state in rows:
            place = {"session_id": session_id, "seq": seq, "tenant": tenant}
            split = _split(state)
            if split is None:  # the doctor tells of it, as before
                split = {op.get_bind().execute(speakers, place).scalar() or 1: state}
            new += [place | {"seat": seat, "state": text} for seat, text in split.items()]
        _write(
            "INSERT INTO roleplay_path_states (session_id, seq, tenant, state, seat)"
            " VALUES (:session_id, :seq, :tenant, :state, :seat)",
            new,
        )
    op.drop_table("roleplay_path_states_old")
    if _is_sqlite():
        _create_turns("roleplay_turns_new", sa.Column("states", sa.Text(), nullable=True))
        copied = f"INSERT INTO roleplay_turns_new ({_COLUMNS}, states) SELECT {_COLUMNS}, {{}} FROM roleplay_turns t"  # noqa: S608
        op.execute(copied.format(_MAP.format("group_concat")))
        _put_in_place()
    else:
        op.add_column("roleplay_turns", sa.Column("states", sa.Text(), nullable=True))
        named = "UPDATE roleplay_turns t SET states = {} WHERE t.state_seq IS NOT NULL"
        op.execute(named.format(_MAP.format("string_agg")))
        op.drop_column("roleplay_turns", "state_seq")


def _states_by_turn() -> None:
    """Gather in one row what a turn that wrote states hands on for all seats."""
    handed_on = _gathered()
    if not _is_sqlite():
        op.drop_constraint("pk_roleplay_path_states", "roleplay_path_states", type_="primary")
    op.drop_table("roleplay_path_states")
    _create_states(key=("session_id", "seq"))
    _write(
        "INSERT INTO roleplay_path_states (session_id, seq, tenant, state) VALUES (:session_id, :seq, :tenant, :state)",
        [{"session_id": one[0], "seq": one[1], "tenant": one[2], "state": state} for one, state in handed_on.items()],
    )
    if _is_sqlite():
        _create_turns(
            "roleplay_turns_new",
            sa.Column("state_seq", sa.Integer(), nullable=True),
            sa.Column("states", sa.Text(), nullable=True),
            sa.ForeignKeyConstraint(
                ["session_id", "state_seq"],
                ["roleplay_path_states.session_id", "roleplay_path_states.seq"],
                name=op.f("fk_roleplay_turns_session_id_state_seq"),
            ),
        )
        op.execute(f"INSERT INTO roleplay_turns_new ({_COLUMNS}, states) SELECT {_COLUMNS}, states FROM roleplay_turns")  # noqa: S608
        _put_in_place()
    else:
        op.add_column("roleplay_turns", sa.Column("state_seq", sa.Integer(), nullable=True))
        op.create_foreign_key(
            op.f("fk_roleplay_turns_session_id_state_seq"),
            "roleplay_turns",
            "roleplay_path_states",
            ["session_id", "state_seq"],
            ["session_id", "seq"],
        )
    named = []
    for rows in _read("SELECT session_id, seq, tenant, states FROM roleplay_turns WHERE states IS NOT NULL"):
        for session_id, seq, tenant, states in rows:
            writer = max(_map(states).values(), default=0)
            if (session_id, writer, tenant) in handed_on:
                named.append({"session_id": session_id, "seq": seq, "tenant": tenant, "state_seq": writer})
    _write(
        "UPDATE roleplay_turns SET state_seq = :state_seq"
        " WHERE tenant = :tenant AND session_id = :session_id AND seq = :seq",
        named,
    )
    op.drop_column("roleplay_turns", "states")


def _draws() -> None:
    op.add_column("roleplay_turns", sa.Column("draws", sa.Text(), nullable=True))


def _without_draws() -> None:
    op.drop_column("roleplay_turns", "draws")


def _split(stored: str) -> dict[int, str] | None:
    """Split a state by seats, each as it is written now. Give ``None`` where it cannot be read as a state."""
    try:
        told = {int(seat): dict(zip(_STATE, state, strict=False)) for seat, state in json.loads(stored).items()}
    except (ValueError, TypeError, AttributeError):
        return None
    split = {}
    for seat, state in told.items():
        if not {"window_start", "front"} <= state.keys():
            return None
        text = _written({name: value for name, value in state.items() if value or name == "front"})
        if len(text) > _STATE_LIMIT:
            text = _written({name: value for name, value in state.items() if value and name != "examples"})
        split[seat] = text
    return split


def _gathered() -> dict[tuple[str, int, str], str]:
    """Join the states of all seats, as older versions write them, under the turn that wrote the newest of them."""
    stored = {
        (session_id, seat, seq): state
        for rows in _read("SELECT session_id, seat, seq, state FROM roleplay_path_states WHERE seat > 0")
        for session_id, seat, seq, state in rows
    }
    found = {}
    for rows in _read("SELECT session_id, seq, tenant, states FROM roleplay_turns WHERE states IS NOT NULL"):
        for session_id, seq, tenant, states in rows:
            turns = _map(states)
            if seq in turns.values():
                texts = {seat: stored.get((session_id, seat, turn)) for seat, turn in turns.items() if seat}
                found[session_id, seq, tenant] = _joined(texts)
    return found


def _joined(texts: dict[int, str | None]) -> str:
    joined = {}
    for seat, text in sorted(texts.items()):
        try:
            told = {} if text is None else dict(json.loads(text))
        except (ValueError, TypeError):
            return str(text)  # the doctor tells of it, as before
        if told:
            state = [told.get(name, 0 if name == "window_start" else "") for name in _STATE]
            while not state[-1]:
                state.pop()
            joined[str(seat)] = state
    return _written(joined)


def _map(stored: str) -> dict[int, int]:
    try:
        return {int(seat): int(turn) for seat, turn in json.loads(stored).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _written(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _read(statement: str) -> Iterator[Any]:
    """Read rows in batches."""
    rows = op.get_bind().execute(sa.text(statement), execution_options={"yield_per": _AT_ONCE})
    return rows.partitions()


def _write(statement: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        op.get_bind().execute(sa.text(statement), rows)


def _create_states(*more: Any, key: tuple[str, ...]) -> None:
    op.create_table(
        "roleplay_path_states",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        *more,
        sa.CheckConstraint("length(state) <= 8192", name=op.f("ck_roleplay_path_states_is_small")),
        sa.ForeignKeyConstraint(
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_path_states_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_roleplay_path_states")),
    )


def _create_turns(name: str, *more: Any) -> None:
    """Create the turns of SQLite anew, which cannot drop a foreign key in place."""
    op.create_table(
        name,
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
        *more,
        sa.CheckConstraint(
            f"(ended_at IS NULL) = ({_IN_FLIGHT})", name=op.f("ck_roleplay_turns_ended_when_not_in_flight")
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
            ["session_id", "tenant"],
            ["roleplay_sessions.id", "roleplay_sessions.tenant"],
            name=op.f("fk_roleplay_turns_session_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "seq", name=op.f("pk_roleplay_turns")),
        sa.UniqueConstraint("session_id", "id", name=op.f("uq_roleplay_turns_session_id_id")),
    )


def _put_in_place() -> None:
    """Let the new turns of SQLite take the place of the old ones."""
    op.drop_table("roleplay_turns")
    op.rename_table("roleplay_turns_new", "roleplay_turns")
    op.create_index("ix_roleplay_turns_children", "roleplay_turns", ["session_id", "parent_turn", "seq"], unique=False)
    op.create_index(
        "ix_roleplay_turns_in_flight",
        "roleplay_turns",
        ["tenant", "session_id", "seq"],
        unique=False,
        sqlite_where=sa.text(_IN_FLIGHT),
    )
    op.create_index(
        "uq_roleplay_turns_in_flight",
        "roleplay_turns",
        ["session_id", sa.text("coalesce(from_head, 0)")],
        unique=True,
        sqlite_where=sa.text(f"{_IN_FLIGHT} AND moves_head"),
    )
    op.create_index(
        "uq_roleplay_turns_idempotency_key",
        "roleplay_turns",
        ["session_id", "idempotency_key", "ordinal"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
    )


def _broken_links() -> int:
    """Count the links of SQLite's rows to rows that are not there: a damaged database may have some.

    To drop a table there deletes its rows, and with them those that refer to it, unless no link is followed.
    """
    if not _is_sqlite():
        return 0
    bind = op.get_bind()
    if int(bind.exec_driver_sql("PRAGMA foreign_keys").scalar_one()):  # a text where SQLCipher answers
        raise RuntimeError("this revision needs PRAGMA foreign_keys = OFF, set before its transaction begins")
    tables = ("path_states", "turns", "messages", "model_calls", "verdicts")
    return sum(len(bind.exec_driver_sql(f"PRAGMA foreign_key_check(roleplay_{one})").all()) for one in tables)


def _check_links(broken: int) -> None:
    if (found := _broken_links()) > broken:
        raise RuntimeError(f"{found - broken} links of rows would be broken; nothing was changed")


def _purposes() -> None:
    """Let a turn have calls for other purposes, counted apart, and a call without a turn its own lease."""
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

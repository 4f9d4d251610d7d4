"""The schema as SQLAlchemy tables. Alembic revisions in ``migrations/`` build it; a test holds the two equal.

Tables of a session lead their primary key with ``session_id`` and carry ``tenant`` in every row; ids are UUIDv7 as
text; order inside a session is an integer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, cast

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from roleplay.store.access.decoding import reads

IN_FLIGHT = "status IN ('pending', 'streaming')"
CAUSES = ("greeting", "reply", "accept", "choose", "rewind", "fork", "edit", "undo")
LEASED = "lease_until IS NOT NULL"
ON_HEAD = f"{IN_FLIGHT} AND moves_head"
OWNED = "owner IS NOT NULL"


def _sqlite_moment(value: datetime | None) -> str | None:
    return None if value is None else _in_utc(value if value.tzinfo is UTC else value.astimezone(UTC))


@lru_cache(maxsize=64)  # all rows of a transaction have one moment
def _in_utc(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(" ", "microseconds")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment in UTC; SQLite, which has no time zones, keeps it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Write a moment for SQLite as SQLAlchemy's own type does, in one step of the two."""
        return _sqlite_moment if dialect.name == "sqlite" else super().bind_processor(dialect)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        process = super().result_processor(dialect, coltype)
        return None if process is None else reads("a moment")(process)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Id = Annotated[str, mapped_column(String(36))]
Tenant = Annotated[str, mapped_column(String(64))]
Label = Annotated[str, mapped_column(String(200))]
Word = Annotated[str, mapped_column(String(32))]
Digest = Annotated[str, mapped_column(String(64))]
Long = Annotated[str, mapped_column(Text)]
Number = Annotated[int, mapped_column(Integer)]
Big = Annotated[int, mapped_column(BigInteger)]
Flag = Annotated[bool, mapped_column()]
Real = Annotated[float, mapped_column(Float)]
Moment = Annotated[datetime, mapped_column(UtcDateTime)]


class Base(DeclarativeBase):
    """All tables of the package; names are fixed so that constraints can be altered."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def table(row: type[Base]) -> Table:
    """Give the Core table of a row class, which statements are built from."""
    return cast("Table", row.__table__)


def _of_session(*more: Any) -> tuple[Any, ...]:
    """Table arguments that tie a row to its session and, with it, to its tenant."""
    link = ForeignKeyConstraint(
        ["session_id", "tenant"], ["roleplay_sessions.id", "roleplay_sessions.tenant"], ondelete="CASCADE"
    )
    return (link, *more)


def _in_session(table: str, columns: str, target: str, **options: Any) -> ForeignKeyConstraint:
    """A link to another row of the same session."""
    return ForeignKeyConstraint(
        ["session_id", *columns.split()],
        [f"roleplay_{table}.session_id", *(f"roleplay_{table}.{one}" for one in target.split())],
        **options,
    )


class PersonaRow(Base):
    """``synced``: kept in a file, so that it may be archived when the file is gone."""

    __tablename__ = "roleplay_personas"
    __table_args__ = (
        UniqueConstraint("tenant", "key"),
        UniqueConstraint("id", "tenant"),
        CheckConstraint("version >= 1", "version_counts_from_1"),
        Index("ix_roleplay_personas_listing", "tenant", "updated_at", "id"),
        Index("ix_roleplay_personas_made", "tenant", "id"),
    )
    id: Mapped[Id] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    key: Mapped[Label | None]
    version: Mapped[Number]
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    archived_at: Mapped[Moment | None]
    synced: Mapped[Flag | None]


class PersonaVersionRow(Base):
    __tablename__ = "roleplay_persona_versions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["persona_id", "tenant"], ["roleplay_personas.id", "roleplay_personas.tenant"], ondelete="CASCADE"
        ),
        UniqueConstraint("persona_id", "version", "tenant"),
        CheckConstraint("version >= 1", "version_counts_from_1"),
    )
    persona_id: Mapped[Id] = mapped_column(primary_key=True)
    version: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    name: Mapped[Label]
    nickname: Mapped[Label | None]
    description: Mapped[Long]
    personality: Mapped[Long]
    scenario: Mapped[Long]
    system_prompt: Mapped[Long]
    post_history: Mapped[Long]
    note: Mapped[Long]
    greetings: Mapped[Long]
    tags: Mapped[Long]
    metadata_json: Mapped[Long]
    extensions: Mapped[Long]
    digest: Mapped[Digest]
    created_at: Mapped[Moment]
    settings: Mapped[Long | None]
    author: Mapped[Label | None]
    message: Mapped[Long | None]


class ExampleDialogueRow(Base):
    __tablename__ = "roleplay_example_dialogues"
    __table_args__ = (
        ForeignKeyConstraint(
            ["persona_id", "version", "tenant"],
            [f"roleplay_persona_versions.{name}" for name in ("persona_id", "version", "tenant")],
            ondelete="CASCADE",
        ),
        UniqueConstraint("persona_id", "version", "ordinal", "tenant"),
    )
    persona_id: Mapped[Id] = mapped_column(primary_key=True)
    version: Mapped[Number] = mapped_column(primary_key=True)
    ordinal: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    lines: Mapped[Number]


class ExampleLineRow(Base):
    __tablename__ = "roleplay_example_lines"
    __table_args__ = (
        ForeignKeyConstraint(
            ["persona_id", "version", "dialogue", "tenant"],
            [f"roleplay_example_dialogues.{name}" for name in ("persona_id", "version", "ordinal", "tenant")],
            ondelete="CASCADE",
        ),
    )
    persona_id: Mapped[Id] = mapped_column(primary_key=True)
    version: Mapped[Number] = mapped_column(primary_key=True)
    dialogue: Mapped[Number] = mapped_column(primary_key=True)
    ordinal: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    speaker: Mapped[Label]
    text: Mapped[Long]


class SessionRow(Base):
    """``version`` moves by compare-and-set; ``last_seq`` and ``last_turn`` are the highest numbers given out."""

    __tablename__ = "roleplay_sessions"
    __table_args__ = (
        UniqueConstraint("id", "tenant"),
        CheckConstraint("version >= 1 AND revision >= 1", "counts_from_1"),
        CheckConstraint("last_seq >= 0 AND last_turn >= 0", "counters_not_negative"),
        CheckConstraint("head_seq IS NULL OR head_seq <= last_seq", "head_was_given_out"),
        Index("ix_roleplay_sessions_listing", "tenant", "last_turn_at", "id"),
        Index("ix_roleplay_sessions_made", "tenant", "id"),
        Index("ix_roleplay_sessions_of_owner", "tenant", "owner", "last_turn_at", "id"),
    )
    id: Mapped[Id] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    owner: Mapped[Label | None]
    metadata_json: Mapped[Long]
    version: Mapped[Number]
    revision: Mapped[Number]
    head_seq: Mapped[Number | None]
    last_seq: Mapped[Number]
    last_turn: Mapped[Number]
    created_at: Mapped[Moment]
    last_turn_at: Mapped[Moment]


class SessionRevisionRow(Base):
    __tablename__ = "roleplay_session_revisions"
    __table_args__ = _of_session(CheckConstraint("revision >= 1", "counts_from_1"))
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    revision: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    scene: Mapped[Long]
    settings: Mapped[Long]
    created_at: Mapped[Moment]


class ParticipantRow(Base):
    """``owner``: of a human's seat, the caller's own id of who sits there."""

    __tablename__ = "roleplay_participants"
    __table_args__ = _of_session(
        CheckConstraint("seat >= 1", "counts_from_1"),
        CheckConstraint("played_by IN ('model', 'human')", "played_by"),
        Index(
            "ix_roleplay_participants_of_owner",
            "tenant",
            "owner",
            "session_id",
            sqlite_where=text(OWNED),
            postgresql_where=text(OWNED),
        ),
    )
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    seat: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    played_by: Mapped[Word]
    owner: Mapped[Label | None]


class ParticipantRevisionRow(Base):
    """What a seat is from ``revision`` on, until its next row.

    ``place``: where it comes in the order of seats. ``present``: whether somebody sits there. Where one of the columns
    from ``aliases`` on is ``NULL``, which it is in rows from before there were casts, its default holds.
    """

    __tablename__ = "roleplay_participant_revisions"
    __table_args__ = _of_session(
        _in_session("participants", "seat", "seat", ondelete="CASCADE"),
        _in_session("session_revisions", "revision", "revision", ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["persona_id", "persona_version", "tenant"],
            [f"roleplay_persona_versions.{name}" for name in ("persona_id", "version", "tenant")],
        ),
        CheckConstraint("(persona_id IS NULL) = (persona_version IS NULL)", "persona_is_pinned"),
        Index("ix_roleplay_participant_revisions_persona", "persona_id", "persona_version"),
    )
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    seat: Mapped[Number] = mapped_column(primary_key=True)
    revision: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    display_name: Mapped[Label]
    persona_id: Mapped[Id | None]
    persona_version: Mapped[Number | None]
    aliases: Mapped[Long | None]
    place: Mapped[Number | None]
    talkativeness: Mapped[Real | None]
    muted: Mapped[Flag | None]
    present: Mapped[Flag | None]


class PathStateRow(Base):
    """What turns inherit along their path for a seat, 0 for what all share, written by turn ``seq`` when it changed; at
    most 8 KB of JSON."""

    __tablename__ = "roleplay_path_states"
    __table_args__ = _of_session(
        CheckConstraint("length(state) <= 8192", "is_small"),
        CheckConstraint("seat >= 0", "counts_from_0"),
    )
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    seq: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    state: Mapped[Long]
    seat: Mapped[Number] = mapped_column(primary_key=True)


class TurnRow(Base):
    """``from_head`` is the head that the claim saw; the finish moves it when ``moves_head``.

    ``parent_turn`` is the turn before on the path. ``states`` says which turn wrote each seat's path state last;
    ``draws`` is what was drawn by chance. ``audience``: see ``audience``. ``ends_round``: somebody waits to speak, so
    that the round that the turn is of ends with it.
    """

    __tablename__ = "roleplay_turns"
    __table_args__ = _of_session(
        UniqueConstraint("session_id", "id"),
        _in_session("turns", "parent_turn", "seq"),
        _in_session("session_revisions", "revision", "revision"),
        _in_session("participants", "speaker", "seat"),
        CheckConstraint("seq >= 1 AND (parent_turn IS NULL OR parent_turn < seq)", "parent_is_older"),
        CheckConstraint("kind IN ('reply', 'greeting', 'narration', 'imported')", "kind"),
        CheckConstraint("status IN ('pending', 'streaming', 'completed', 'interrupted', 'failed')", "status"),
        CheckConstraint("(ended_at IS NULL) = (status IN ('pending', 'streaming'))", "ended_when_not_in_flight"),
        CheckConstraint(
            "status NOT IN ('pending', 'streaming') OR (lease_owner IS NOT NULL AND lease_until IS NOT NULL)",
            "in_flight_is_leased",
        ),
        CheckConstraint("status <> 'completed' OR kind <> 'reply' OR reply_seq IS NOT NULL", "completed_has_reply"),
        CheckConstraint("(idempotency_key IS NULL) = (body_digest IS NULL)", "key_has_body"),
        CheckConstraint("attempt >= 1 AND ordinal >= 1", "counts_from_1"),
        Index(
            "uq_roleplay_turns_in_flight",
            "session_id",
            text("coalesce(from_head, 0)"),
            unique=True,
            sqlite_where=text(ON_HEAD),
            postgresql_where=text(ON_HEAD),
        ),
        Index(
            "uq_roleplay_turns_idempotency_key",
            "session_id",
            "idempotency_key",
            "ordinal",
            unique=True,
            sqlite_where=text("idempotency_key IS NOT NULL"),
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index(
            "ix_roleplay_turns_in_flight",
            "tenant",
            "session_id",
            "seq",
            sqlite_where=text(IN_FLIGHT),
            postgresql_where=text(IN_FLIGHT),
        ),
        Index("ix_roleplay_turns_children", "session_id", "parent_turn", "seq"),
    )
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    seq: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    id: Mapped[Id]
    parent_turn: Mapped[Number | None]
    from_head: Mapped[Number | None]
    moves_head: Mapped[Flag]
    kind: Mapped[Word]
    round: Mapped[Number]
    ordinal: Mapped[Number]
    speaker: Mapped[Number]
    revision: Mapped[Number]
    attempt: Mapped[Number]
    status: Mapped[Word]
    lease_owner: Mapped[Label | None]
    lease_until: Mapped[Moment | None]
    idempotency_key: Mapped[Label | None]
    body_digest: Mapped[Digest | None]
    human_seq: Mapped[Number | None]
    reply_seq: Mapped[Number | None]
    metadata_json: Mapped[Long | None]
    created_at: Mapped[Moment]
    ended_at: Mapped[Moment | None]
    states: Mapped[Long | None]
    draws: Mapped[Long | None]
    audience: Mapped[Long | None]
    ends_round: Mapped[Flag | None]


class MessageRow(Base):
    """``depth``, ``human_ordinal`` and ``model_ordinal`` count messages on the path up to and with this one.

    ``revision`` is the session's under which it was said. ``jump_seq`` names an ancestor, the first message itself: see
    ``ancestry``. Neither has a foreign key: the turn's revision has one, and a pointer follows from the parents, which
    have one too. SQLite cannot add one of two columns to a table that is there.
    """

    __tablename__ = "roleplay_messages"
    __table_args__ = _of_session(
        _in_session("messages", "parent_seq", "seq"),
        _in_session("turns", "turn_seq", "seq", ondelete="CASCADE"),
        _in_session("participants", "seat", "seat"),
        CheckConstraint("seq >= 1 AND (parent_seq IS NULL OR parent_seq < seq)", "parent_is_older"),
        CheckConstraint("role IN ('user', 'assistant')", "role"),
        CheckConstraint("tokens >= 0", "tokens_not_negative"),
        CheckConstraint(
            "depth = human_ordinal + model_ordinal AND human_ordinal >= 0 AND model_ordinal >= 0", "ordinals_add_up"
        ),
        Index("ix_roleplay_messages_children", "session_id", "parent_seq", "seq"),
    )
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    seq: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    parent_seq: Mapped[Number | None]
    turn_seq: Mapped[Number]
    role: Mapped[Word]
    seat: Mapped[Number]
    name: Mapped[Label]
    text: Mapped[Long]
    audience: Mapped[Long | None]
    tokens: Mapped[Number]
    counter: Mapped[Word]
    depth: Mapped[Number]
    human_ordinal: Mapped[Number]
    model_ordinal: Mapped[Number]
    repaired: Mapped[Flag]
    hidden: Mapped[Flag]
    created_at: Mapped[Moment]
    revision: Mapped[Number | None]
    jump_seq: Mapped[Number | None]


class HeadMoveRow(Base):
    """Every move of a session's head; ``version`` is the session's version that the move made, ``undoes`` another's."""

    __tablename__ = "roleplay_head_moves"
    __table_args__ = _of_session(
        _in_session("messages", "from_seq", "seq"),
        _in_session("messages", "to_seq", "seq"),
        CheckConstraint(f"cause IN ({', '.join(repr(one) for one in CAUSES)})", "cause"),
        CheckConstraint("(cause = 'undo') = (undoes IS NOT NULL)", "undo_names_a_move"),
    )
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    version: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    from_seq: Mapped[Number | None]
    to_seq: Mapped[Number | None]
    cause: Mapped[Word]
    undoes: Mapped[Number | None]
    created_at: Mapped[Moment]


class PieceRow(Base):
    """A text that was rendered for a request, stored once per session under its digest."""

    __tablename__ = "roleplay_pieces"
    __table_args__ = _of_session()
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    digest: Mapped[Word] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    text: Mapped[Long]


class ModelCallRow(Base):
    """One attempt at the API. ``recipe`` says what the request was made of; ``total_s`` is ``NULL`` while it runs.

    ``purpose`` is one of ``new_rows.Purpose``: in a check, each new one would rebuild the table. ``cut``: what was cut
    from its reply, and why, as JSON. A call of a turn is whose the turn is; one without has an owner and, until it has
    ended, a lease of its own.
    """

    __tablename__ = "roleplay_model_calls"
    __table_args__ = _of_session(
        _in_session("turns", "turn_seq", "seq", ondelete="CASCADE"),
        _in_session("pieces", "front_digest", "digest"),
        UniqueConstraint("session_id", "turn_seq", "attempt", "purpose"),
        CheckConstraint("attempt >= 1 AND prompt_count >= 0", "counts"),
        CheckConstraint("turn_seq IS NULL OR (lease_owner IS NULL AND lease_until IS NULL)", "turn_has_the_lease"),
        CheckConstraint(
            "turn_seq IS NOT NULL OR total_s IS NOT NULL OR error IS NOT NULL"
            " OR (lease_owner IS NOT NULL AND lease_until IS NOT NULL)",
            "in_flight_is_leased",
        ),
        Index(
            "ix_roleplay_model_calls_in_flight",
            "tenant",
            "session_id",
            "id",
            sqlite_where=text(LEASED),
            postgresql_where=text(LEASED),
        ),
    )
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    id: Mapped[Id] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    turn_seq: Mapped[Number | None]
    purpose: Mapped[Word]
    attempt: Mapped[Number]
    model_asked: Mapped[Label]
    host: Mapped[Label]
    dialect: Mapped[Word]
    streamed: Mapped[Flag]
    parameters: Mapped[Long]
    recipe_version: Mapped[Number]
    front_digest: Mapped[Word]
    recipe: Mapped[Long]
    request_digest: Mapped[Digest]
    prompt_count: Mapped[Number]
    counter: Mapped[Word]
    created_at: Mapped[Moment]
    model_answered: Mapped[Label | None]
    response_id: Mapped[Label | None]
    response_created: Mapped[Big | None]
    finish_reason: Mapped[Label | None]
    prompt_tokens: Mapped[Big | None]
    completion_tokens: Mapped[Big | None]
    total_tokens: Mapped[Big | None]
    cached_tokens: Mapped[Big | None]
    cache_write_tokens: Mapped[Big | None]
    reasoning_tokens: Mapped[Big | None]
    input_sensitive: Mapped[Flag | None]
    input_sensitive_type: Mapped[Big | None]
    output_sensitive: Mapped[Flag | None]
    output_sensitive_type: Mapped[Big | None]
    output_sensitive_int: Mapped[Big | None]
    base_status: Mapped[Big | None]
    base_message: Mapped[Long | None]
    reasoning: Mapped[Long | None]
    error: Mapped[Long | None]
    first_token_s: Mapped[Real | None]
    total_s: Mapped[Real | None]
    settings_digest: Mapped[Word | None]
    report: Mapped[Long | None]
    lease_owner: Mapped[Label | None]
    lease_until: Mapped[Moment | None]
    cut: Mapped[Long | None]


class CalibrationRow(Base):
    """What the reports of a model at a host taught of its tokens, as one counter counts them: a fit as JSON."""

    __tablename__ = "roleplay_calibrations"
    tenant: Mapped[Tenant] = mapped_column(primary_key=True)
    model: Mapped[Label] = mapped_column(primary_key=True)
    host: Mapped[Label] = mapped_column(primary_key=True)
    dialect: Mapped[Word] = mapped_column(primary_key=True)
    counter: Mapped[Word] = mapped_column(primary_key=True)
    fit: Mapped[Long]
    updated_at: Mapped[Moment]


class VerdictRow(Base):
    """What a guard said of a turn's human line or reply, when it did not simply allow it."""

    __tablename__ = "roleplay_verdicts"
    __table_args__ = _of_session(
        _in_session("turns", "turn_seq", "seq", ondelete="CASCADE"),
        CheckConstraint("side IN ('human', 'reply')", "side"),
        CheckConstraint("action IN ('replace', 'refuse')", "action"),
        CheckConstraint("attempt >= 1 AND ordinal >= 1", "counts_from_1"),
    )
    session_id: Mapped[Id] = mapped_column(primary_key=True)
    turn_seq: Mapped[Number] = mapped_column(primary_key=True)
    attempt: Mapped[Number] = mapped_column(primary_key=True)
    side: Mapped[Word] = mapped_column(primary_key=True)
    ordinal: Mapped[Number] = mapped_column(primary_key=True)
    tenant: Mapped[Tenant]
    guard: Mapped[Label]
    action: Mapped[Word]
    reason: Mapped[Long]
    original: Mapped[Long | None]
    created_at: Mapped[Moment]

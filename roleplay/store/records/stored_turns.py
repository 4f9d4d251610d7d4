"""Turns as another variant or another attempt needs them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Integer, Row, Select, bindparam, func, literal_column, select

from roleplay.domain.conversation import TurnStatus
from roleplay.errors import InvalidInputError, NotFoundError
from roleplay.store.access.decoding import as_text, reads
from roleplay.store.access.tables import MessageRow, ParticipantRow, PathStateRow, TurnRow, table
from roleplay.store.records.audience import Viewer, seen_by
from roleplay.store.records.new_rows import PathEnd
from roleplay.store.records.path_states import SHARED, handed_on
from roleplay.store.records.revisions import FIRST_MODEL

_t = table(TurnRow).c
_parent = table(TurnRow).alias("parent")
_tip = table(MessageRow).alias("tip")
_own = table(PathStateRow).alias("own_state")
_shared = table(PathStateRow).alias("shared_state")
_p = table(ParticipantRow).c
#: Who answers a turn's line: who spoke it, where that is the model's seat, as it is for a variant of a reply.
_answering = func.coalesce(
    select(_p.seat)
    .where(
        _p.tenant == bindparam("tenant"),
        _p.session_id == bindparam("session"),
        _p.seat == _t.speaker,
        _p.played_by == literal_column("'model'"),
    )
    .correlate(table(TurnRow))
    .scalar_subquery(),
    FIRST_MODEL,
)
_human = table(MessageRow).alias("human")
_reply = table(MessageRow).alias("reply")


def _stored_turns(where: Any) -> Select[Any]:
    return (
        select(
            _t.id,
            _t.seq,
            _t.kind,
            _t.status,
            _t.attempt,
            _t.revision,
            _t.round,
            _t.speaker,
            _answering.label("answering"),
            _t.parent_turn,
            _t.from_head,
            _t.human_seq,
            _t.reply_seq,
            _human.c.parent_seq.label("human_parent"),
            _human.c.seat.label("human_seat"),
            _human.c.name.label("human_name"),
            _human.c.text.label("human_text"),
            _human.c.tokens.label("human_tokens"),
            _human.c.counter.label("human_counter"),
            _human.c.revision.label("human_revision"),
            _human.c.human_ordinal,
            _human.c.model_ordinal,
            _reply.c.text.label("reply_text"),
            _reply.c.parent_seq.label("reply_parent"),
            _parent.c.states,
            _own.c.state,
            _shared.c.state.label("shared"),
            _t.states.label("left"),
            _t.draws,
            _t.audience,
            _t.ordinal,
            _t.ends_round,
            _tip.c.seq.label("tip_seq"),
            _tip.c.human_ordinal.label("tip_humans"),
            _tip.c.model_ordinal.label("tip_models"),
        )
        .outerjoin(_human, _beside(_human) & (_human.c.seq == _t.human_seq))
        .outerjoin(_reply, _beside(_reply) & (_reply.c.seq == _t.reply_seq))
        .outerjoin(_parent, _beside(_parent) & (_parent.c.seq == _t.parent_turn))
        .outerjoin(_tip, _beside(_tip) & (_tip.c.seq == func.coalesce(_parent.c.reply_seq, _parent.c.human_seq)))
        .outerjoin(_own, handed_on(_own, _parent, _answering))
        .outerjoin(_shared, handed_on(_shared, _parent, literal_column(str(SHARED), Integer)))
        .where(_t.tenant == bindparam("tenant"), _t.session_id == bindparam("session"), where)
    )


def _beside(other: Any) -> Any:
    return (other.c.session_id == _t.session_id) & (other.c.tenant == _t.tenant)


_BY_ID = _stored_turns(_t.id == bindparam("turn"))
_BY_SEQ = _stored_turns(_t.seq == bindparam("seq"))


@lru_cache(maxsize=64)
def _seen(absences: int, *, by_id: bool) -> Select[Any]:
    return (_BY_ID if by_id else _BY_SEQ).where(seen_by(table(TurnRow), absences))


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A stored turn as another variant or attempt needs it: its place, its human line, its reply, the seat that gives
    another one (``answering``), what its parent handed on (``states``, and of them that seat's ``state`` and what is
    ``shared``), what it handed on itself (``left``), what it drew by chance, and its parent's last message."""

    id: str
    seq: int
    kind: str
    status: str
    attempt: int
    revision: int
    round: int
    speaker: int
    answering: int
    parent_turn: int | None
    from_head: int | None
    human_seq: int | None
    reply_seq: int | None
    human_parent: int | None
    human_seat: int | None
    human_name: str | None
    human_text: str | None
    human_tokens: int | None
    human_counter: str | None
    human_revision: int | None
    human_ordinal: int | None
    model_ordinal: int | None
    reply_text: str | None
    reply_parent: int | None
    states: str | None
    state: str | None
    shared: str | None
    left: str | None
    draws: str | None
    audience: str | None
    ordinal: int
    ends_round: bool | None
    tip_seq: int | None
    tip_humans: int | None
    tip_models: int | None

    @property
    def end(self) -> PathEnd:
        """The end of the path that the turn's reply follows."""
        if self.human_seq is None or self.human_text is None:
            return PathEnd(self.tip_seq, self.tip_humans or 0, self.tip_models or 0)
        return PathEnd(self.human_seq, self.human_ordinal or 0, self.model_ordinal or 0)

    @property
    def tip(self) -> int | None:
        """The last message of the turn."""
        return self.reply_seq if self.reply_text is not None else self.human_seq


def read_turn(
    connection: Connection,
    tenant: str,
    session_id: str,
    turn_id: str | None,
    default: int | None,
    viewer: Viewer | None = None,
) -> StoredTurn:
    """Read a turn by its id, or by the number ``default`` when no id is given. To a ``viewer`` another's is not there.

    Raises ``NotFoundError``, and ``InvalidInputError`` when there is neither.
    """
    where: dict[str, Any] = {"tenant": tenant, "session": session_id}
    if turn_id is None and default is None:
        raise InvalidInputError("turn_id", "is needed, since nothing was said yet")
    by_id = turn_id is not None
    statement = _BY_ID if by_id else _BY_SEQ
    if viewer is not None:
        statement, where = _seen(viewer.conditions, by_id=by_id), where | viewer.values()
    row = connection.execute(statement, where | ({"turn": turn_id} if by_id else {"seq": default})).first()
    if row is None:
        raise NotFoundError("turn", str(turn_id or default))
    return _as_stored_turn(row)


@reads("a turn")
def _as_stored_turn(row: Row[*tuple[Any, ...]]) -> StoredTurn:
    found = StoredTurn(*row)
    TurnStatus(found.status)
    for text in (found.human_text, found.reply_text):
        as_text(text or "")
    return found

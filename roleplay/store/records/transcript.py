"""Turns read back along a path, a page in a few statements."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    any_,
    bindparam,
    case,
    func,
    literal,
    select,
    union_all,
)

from roleplay.domain.conversation import Message, ModelCall, Turn, TurnKind, TurnStatus
from roleplay.domain.page import Page
from roleplay.errors import NotFoundError
from roleplay.store.access import postgres
from roleplay.store.access.cursors import numbered
from roleplay.store.access.decoding import reads
from roleplay.store.access.tables import MessageRow, SessionRow, TurnRow, table
from roleplay.store.records import audience, calls, sessions

BRANCHES_LIMIT = 500
_Beside = defaultdict[tuple[int | None, int | None], dict[int, int]]
_turns = table(TurnRow)
_human = table(MessageRow).alias("human")
_reply = table(MessageRow).alias("reply")
_sibling = table(MessageRow).alias("sibling")
_owner = table(TurnRow).alias("owner")
_MESSAGE = tuple(Message.model_fields)


def _here(of: Any) -> Any:
    return (of.c.tenant == bindparam("tenant")) & (of.c.session_id == bindparam("session"))


_WHOLE = (
    select(
        _turns,
        *(_human.c[name].label(f"human_{name}") for name in _MESSAGE if name != "seq"),
        _human.c.seq.label("human_at"),
        *(_reply.c[name].label(f"reply_{name}") for name in _MESSAGE if name != "seq"),
        _reply.c.seq.label("reply_at"),
    )
    .outerjoin(_human, _here(_human) & (_human.c.seq == _turns.c.human_seq))
    .outerjoin(_reply, _here(_reply) & (_reply.c.seq == _turns.c.reply_seq))
    .where(_here(_turns))
)


_its_status = (
    select(_owner.c.status)
    .where(_here(_owner), _owner.c.seq == _sibling.c.turn_seq, _owner.c.reply_seq == _sibling.c.seq)
    .correlate(_sibling)
    .scalar_subquery()
)
_beside_reply = (
    select(func.count())
    .select_from(_sibling)
    .where(
        _here(_sibling),
        _sibling.c.parent_seq == _turns.c.human_seq,
        _sibling.c.turn_seq != _turns.c.seq,
        _its_status == TurnStatus.COMPLETED.value,
    )
)
_beside_opening = (
    select(func.count())
    .select_from(_owner)
    .where(
        _here(_owner),
        _owner.c.parent_turn.is_(None),
        _owner.c.human_seq.is_(None),
        _owner.c.status == TurnStatus.COMPLETED.value,
        _owner.c.seq != _turns.c.seq,
    )
)
_beside_unasked = (
    select(func.count())
    .select_from(_owner)
    .where(
        _here(_owner),
        _owner.c.parent_turn == _turns.c.parent_turn,
        _owner.c.human_seq.is_(None),
        _owner.c.status == TurnStatus.COMPLETED.value,
        _owner.c.seq != _turns.c.seq,
    )
)


def _beside_it(*, older: bool) -> Any:
    """How many complete turns answer the same line as a turn does, or no line at the same place; the older ones."""
    replies, openings, unasked = _beside_reply, _beside_opening, _beside_unasked
    if older:
        replies = replies.where(_sibling.c.seq < _turns.c.reply_seq)
        openings = openings.where(_owner.c.reply_seq < _turns.c.reply_seq)
        unasked = unasked.where(_owner.c.reply_seq < _turns.c.reply_seq)
    return case(
        (_turns.c.reply_seq.is_(None), 0),  # a line that was added
        (_turns.c.human_seq.is_not(None), replies.correlate(_turns).scalar_subquery()),
        (_turns.c.parent_turn.is_(None), openings.correlate(_turns).scalar_subquery()),
        else_=unasked.correlate(_turns).scalar_subquery(),
    )


_NUMBERED = _WHOLE.add_columns(_beside_it(older=True).label("before_it"), _beside_it(older=False).label("beside_it"))


def _walk(start: Any) -> Any:
    """Walk from turn ``start`` to its parents. Nothing is joined, so that every plan looks up each step."""
    begin = (
        select(_turns.c.seq, _turns.c.parent_turn, literal(1, Integer).label("taken"))
        .where(_here(_turns), _turns.c.seq == start)
        .cte("path", recursive=True)
    )
    step = _turns.alias("step")
    before = select(step.c.parent_turn).where(_here(step), step.c.seq == begin.c.parent_turn).correlate(begin)
    path = begin.union_all(
        select(begin.c.parent_turn, before.scalar_subquery(), begin.c.taken + 1).where(
            begin.c.parent_turn.is_not(None), begin.c.taken < bindparam("limit")
        )
    )
    return select(path.c.seq)


_PATH = _walk(bindparam("from_turn"))
_THESE = _WHOLE.where(_turns.c.seq.in_(bindparam("turns", expanding=True))).order_by(_turns.c.seq.desc())
_BY_ID = _NUMBERED.where(_turns.c.id == bindparam("turn"))
_BY_KEY = _NUMBERED.where(_turns.c.idempotency_key == bindparam("key")).order_by(_turns.c.ordinal)


_child = _turns.alias("child")


_TIPS = (
    _WHOLE.where(
        _turns.c.status == TurnStatus.COMPLETED.value,
        ~select(_child.c.seq)
        .where(
            _here(_child),
            _child.c.parent_turn == _turns.c.seq,
            _child.c.status == TurnStatus.COMPLETED.value,
        )
        .exists(),
    )
    .order_by(_turns.c.seq.desc())
    .limit(BRANCHES_LIMIT)
)
_complete = select(_owner.c.human_seq, _owner.c.seq, _owner.c.reply_seq).where(
    _here(_owner), _owner.c.status == TurnStatus.COMPLETED.value, _owner.c.reply_seq.is_not(None)
)
_ANSWERS = _complete.join(
    _sibling, (_owner.c.seq == _sibling.c.turn_seq) & (_owner.c.reply_seq == _sibling.c.seq)
).where(_here(_sibling), _sibling.c.parent_seq.in_(bindparam("lines", expanding=True)))
_OPENINGS = _complete.where(_owner.c.parent_turn.is_(None), _owner.c.human_seq.is_(None))
_UNASKED = _complete.add_columns(_owner.c.parent_turn).where(
    _owner.c.parent_turn.in_(bindparam("parents", expanding=True)), _owner.c.human_seq.is_(None)
)


_session = table(SessionRow)
_at_head = table(MessageRow).alias("at_head")
_HEAD_TURN = (
    select(_at_head.c.turn_seq)
    .select_from(_session)
    .join(_at_head, _here(_at_head) & (_at_head.c.seq == _session.c.head_seq))
    .where(_session.c.tenant == bindparam("tenant"), _session.c.id == bindparam("session"))
    .scalar_subquery()
)


def _unanswered(head: Any) -> Any:
    """The last attempt after the turn ``head``, or since then at its own line, when it has not become a reply.

    What was spoken beside others, on a branch, answers nothing here.
    """
    attempt, at_head = _turns.alias("attempt"), _turns.alias("its_turn")
    answers = (_child.c.status != TurnStatus.COMPLETED.value) | _child.c.moves_head
    last = select(func.max(_child.c.seq).label("seq")).where(_here(_child), answers)
    same_line = (_child.c.human_seq == at_head.c.human_seq) | (
        _child.c.human_seq.is_(None) & at_head.c.human_seq.is_(None)
    )
    beside = last.where(_here(at_head), at_head.c.seq == head, same_line, _child.c.seq > at_head.c.seq)
    lasts = union_all(
        last.where(_child.c.parent_turn == head),
        last.where(_child.c.parent_turn.is_(None), head.is_(None)),
        beside.where(_child.c.parent_turn == at_head.c.parent_turn),
        beside.where(_child.c.parent_turn.is_(None), at_head.c.parent_turn.is_(None)),
    ).subquery("lasts")
    return select(attempt.c.seq).where(
        _here(attempt),
        attempt.c.seq == select(func.max(lasts.c.seq)).scalar_subquery(),
        attempt.c.status != TurnStatus.COMPLETED.value,
    )


_UNANSWERED = _unanswered(bindparam("head_turn", type_=Integer))


@cache
def _page(dialect: str, *, newest: bool) -> Any:
    """A stretch of a path with everything but its calls, in one statement; the newest with what follows the head.

    The walk's numbers are gathered first, so that its turns are looked up: joined to it, they would all be read.
    """
    if newest:
        wanted: Any = union_all(_walk(_HEAD_TURN), _unanswered(_HEAD_TURN))
    else:
        wanted = _walk(bindparam("from_turn"))
    found = (
        _turns.c.seq == any_(func.array(wanted.scalar_subquery()))
        if dialect == "postgresql"
        else _turns.c.seq.in_(wanted)
    )
    head = _HEAD_TURN if newest else bindparam("from_turn", type_=Integer)
    return _NUMBERED.add_columns(head.label("head_turn")).where(found)


def page(connection: Connection, tenant: str, session_id: str, *, before: str | None, limit: int) -> Page[Turn]:
    """Give a page of the active path, oldest first, and on the newest page the last attempt after it, if unresolved.

    ``before`` is the ``older`` cursor of another page. Two statements. Raises ``NotFoundError`` and
    ``InvalidInputError``.
    """
    where = {"tenant": tenant, "session": session_id, "limit": limit + 1}
    start = {} if before is None else {"from_turn": numbered("turn", before)}
    rows = _stretch(connection, where | start)
    if not rows and before is None:
        sessions.position(connection, tenant, session_id)  # an empty page is a session's that is there
    after = [row for row in rows if row.head_turn is None or row.seq > row.head_turn]
    walked = rows[len(after) :]
    turns = _whole(connection, where, [*after, *walked[:limit]])
    return Page(items=tuple(reversed(turns)), older=f"turn-{walked[limit].seq}" if len(walked) > limit else None)


def path(connection: Connection, tenant: str, session_id: str, *, from_turn: int, limit: int) -> list[Turn]:
    """Give at most ``limit`` turns of the path that ends in ``from_turn``, newest first."""
    where = {"tenant": tenant, "session": session_id, "from_turn": from_turn, "limit": limit}
    return _whole(connection, where, _stretch(connection, where))


def _stretch(connection: Connection, where: dict[str, Any]) -> list[Row[Any]]:
    """Give the rows of a stretch of a path, newest first; without ``from_turn``, of the newest."""
    postgres.look_up(connection)
    rows = connection.execute(_page(connection.dialect.name, newest="from_turn" not in where), where)
    return sorted(rows, key=lambda row: int(row.seq), reverse=True)


def numbers(connection: Connection, tenant: str, session_id: str, *, from_turn: int, limit: int) -> list[int]:
    """Give the numbers of at most ``limit`` turns of the path that ends in ``from_turn``, newest first."""
    where = {"tenant": tenant, "session": session_id, "from_turn": from_turn, "limit": limit}
    return sorted(connection.execute(_PATH, where).scalars(), reverse=True)


def tips(connection: Connection, tenant: str, session_id: str) -> list[Turn]:
    """Give the last turn of each branch, newest first, ``BRANCHES_LIMIT`` at most. Reads every turn: a report."""
    where = {"tenant": tenant, "session": session_id}
    rows = connection.execute(_TIPS, where).all()
    return _whole(connection, where, rows, _beside(connection, where, rows))


def variants(connection: Connection, tenant: str, session_id: str, turn_id: str) -> list[Turn]:
    """Give a turn and all complete turns beside it, oldest reply first. Raises ``NotFoundError``."""
    where = {"tenant": tenant, "session": session_id}
    postgres.look_up(connection)
    row = connection.execute(_BY_ID, where | {"turn": turn_id}).first()
    if row is None:
        raise NotFoundError("turn", turn_id)
    beside = _beside(connection, where, [row])
    found = connection.execute(_THESE, where | {"turns": [*{row.seq, *beside[_place_of(row)]}]}).all()
    return _whole(connection, where, sorted(found, key=lambda one: int(one.reply_seq or 0)), beside)


def _whole(
    connection: Connection, where: dict[str, Any], rows: Sequence[Row[Any]], beside: _Beside | None = None
) -> list[Turn]:
    """Give rows as turns, with their calls and their numbers among the variants of their replies.

    The numbers are the rows' own, or come from ``beside``, where so many rows stand beside each other that counting
    anew for each would take its time.
    """
    by_turn = calls.of_turns(connection, where["tenant"], where["session"], [row.seq for row in rows])
    turns = []
    for row in rows:
        if beside is None:
            numbers = row.before_it + 1, row.beside_it + 1
        elif row.reply_seq is None:
            numbers = 1, 1
        else:
            replies = {row.seq: row.reply_seq, **beside[_place_of(row)]}.values()
            numbers = sum(other <= row.reply_seq for other in replies), len(replies)
        turns.append(_turn(row, by_turn[row.seq], numbers))
    return turns


def _beside(connection: Connection, where: dict[str, Any], rows: Sequence[Row[Any]]) -> _Beside:
    """Give, by the place of a reply, the numbers of the complete turns that reply there and of their replies."""
    found: _Beside = defaultdict(dict)
    places = {_place_of(row) for row in rows}
    lines = [line for line, _ in places if line is not None]
    parents = [parent for line, parent in places if line is None and parent is not None]
    for line, turn, reply in connection.execute(_ANSWERS, where | {"lines": lines}).all() if lines else ():
        found[line, None][turn] = reply
    for _, turn, reply in connection.execute(_OPENINGS, where).all() if (None, None) in places else ():
        found[None, None][turn] = reply
    for _, turn, reply, parent in connection.execute(_UNASKED, where | {"parents": parents}).all() if parents else ():
        found[None, parent][turn] = reply
    return found


def _place_of(row: Row[Any]) -> tuple[int | None, int | None]:
    """What a turn answers: a human line, or none after its parent turn, or none at the beginning."""
    return (None, row.parent_turn) if row.human_seq is None else (row.human_seq, None)


def by_id(connection: Connection, tenant: str, session_id: str, turn_id: str) -> Turn:
    """Give one turn. Raises ``NotFoundError``."""
    where = {"tenant": tenant, "session": session_id}
    postgres.look_up(connection)
    row = connection.execute(_BY_ID, where | {"turn": turn_id}).first()
    if row is None:
        raise NotFoundError("turn", turn_id)
    return _whole(connection, where, [row])[0]


def by_key(connection: Connection, tenant: str, session_id: str, key: str) -> list[tuple[Turn, str]]:
    """Give the turns that an idempotency key made, in their order, each with the digest of its arguments: one, or those
    of a round."""
    where = {"tenant": tenant, "session": session_id}
    postgres.look_up(connection)
    rows = connection.execute(_BY_KEY, where | {"key": key}).all()
    turns = _whole(connection, where, rows) if rows else []
    return [(turn, row.body_digest) for turn, row in zip(turns, rows, strict=True)]


def unresolved(connection: Connection, tenant: str, session_id: str, head_turn: int | None) -> Turn | None:
    """Give the last attempt after the head, or since then at the head's own line, when it has not become a reply.

    A failure that the conversation has answered since, on a branch that was left, is past.
    """
    where = {"tenant": tenant, "session": session_id}
    last = connection.execute(_UNANSWERED, where | {"head_turn": head_turn}).scalar()
    return None if last is None else path(connection, tenant, session_id, from_turn=last, limit=1)[0]


@reads("a turn")
def _turn(row: Row[Any], made: list[ModelCall], numbers: tuple[int, int]) -> Turn:
    known = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    human, reply = _message(known, "human"), _message(known, "reply")
    if human is not None and reply is not None:  # a line is hidden with the reply that answers it here
        human = human.model_copy(update={"hidden": reply.hidden})
    return Turn(
        id=row.id,
        session_id=row.session_id,
        seq=row.seq,
        kind=TurnKind(row.kind),
        status=TurnStatus(row.status),
        round=row.round,
        ordinal=row.ordinal,
        attempt=row.attempt,
        revision=row.revision,
        human=human,
        reply=reply,
        variant=numbers[0],
        variants=numbers[1],
        calls=tuple(made),
        metadata=json.loads(row.metadata_json) if row.metadata_json else {},
        created_at=row.created_at,
        ended_at=row.ended_at,
        speaker=row.speaker,
        audience=audience.read(row.audience),
    )


def _message(known: Any, whose: str) -> Message | None:
    seq = known[f"{whose}_at"]
    if seq is None:
        return None
    values = {name: known[f"{whose}_{name}"] for name in _MESSAGE if name != "seq"}
    return Message(seq=seq, **values | {"audience": audience.read(values["audience"])})

"""Turns read back along a path, a page in a few statements."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Integer, Row, bindparam, func, literal, select

from roleplay.domain.conversation import Message, ModelCall, Turn, TurnKind, TurnStatus
from roleplay.domain.page import Page
from roleplay.errors import InvalidInputError, NotFoundError
from roleplay.store import calls, sessions
from roleplay.store.tables import MessageRow, TurnRow, table

BRANCHES_LIMIT = 500
_turns = table(TurnRow)
_human = table(MessageRow).alias("human")
_reply = table(MessageRow).alias("reply")
_sibling = table(MessageRow).alias("sibling")
_owner = table(TurnRow).alias("owner")
_MESSAGE = (
    "seq",
    "parent_seq",
    "turn_seq",
    "role",
    "seat",
    "name",
    "text",
    "tokens",
    "counter",
    "repaired",
    "hidden",
    "created_at",
)


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


def _path() -> Any:
    """Walk from a turn to its parents; each step's tenant is compared with the walk's for SQLite, as in ``history``."""
    start = (
        select(_turns.c.seq, _turns.c.parent_turn, _turns.c.tenant, literal(1, Integer).label("taken"))
        .where(_here(_turns), _turns.c.seq == bindparam("from_turn"))
        .cte("path", recursive=True)
    )
    step = _turns.alias("step")
    path = start.union_all(
        select(step.c.seq, step.c.parent_turn, step.c.tenant, start.c.taken + 1)
        .join(start, (step.c.tenant == start.c.tenant) & (step.c.seq == start.c.parent_turn))
        .where(step.c.session_id == bindparam("session"), start.c.taken < bindparam("limit"))
    )
    return select(path.c.seq)


_PATH = _path()
_THESE = _WHOLE.where(_turns.c.seq.in_(bindparam("turns", expanding=True))).order_by(_turns.c.seq.desc())
_BY_ID = _WHOLE.where(_turns.c.id == bindparam("turn"))
_BY_KEY = _WHOLE.where(_turns.c.idempotency_key == bindparam("key"))


_child = _turns.alias("child")


def _last_attempt(after: Any) -> Any:
    last = select(func.max(_child.c.seq)).where(_here(_child), after).scalar_subquery()
    return select(_turns.c.seq, _turns.c.status).where(_here(_turns), _turns.c.seq == last)


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
    _here(_owner), _owner.c.status == TurnStatus.COMPLETED.value
)
_ANSWERS = _complete.join(
    _sibling, (_owner.c.seq == _sibling.c.turn_seq) & (_owner.c.reply_seq == _sibling.c.seq)
).where(_here(_sibling), _sibling.c.parent_seq.in_(bindparam("lines", expanding=True)))
_OPENINGS = _complete.where(_owner.c.parent_turn.is_(None), _owner.c.human_seq.is_(None))
_AFTER_HEAD = _last_attempt(_child.c.parent_turn == bindparam("head_turn"))
_AT_ROOT = _last_attempt(_child.c.parent_turn.is_(None))


def page(connection: Connection, tenant: str, session_id: str, *, before: str | None, limit: int) -> Page[Turn]:
    """Give a page of the active path, oldest first, and on the newest page the last attempt after it, if unresolved.

    ``before`` is the ``older`` cursor of another page. Raises ``NotFoundError`` and ``InvalidInputError``.
    """
    if before is not None:
        found = path(connection, tenant, session_id, from_turn=_place(before), limit=limit + 1)
        after = []
    else:
        head_turn = sessions.stand(connection, tenant, session_id).head_turn
        found = [] if head_turn is None else path(connection, tenant, session_id, from_turn=head_turn, limit=limit + 1)
        last = unresolved(connection, tenant, session_id, head_turn)
        after = [] if last is None else [last]
    more = found[limit].seq if len(found) > limit else None
    return Page(items=(*reversed(found[:limit]), *after), older=None if more is None else f"turn-{more}")


def _place(cursor: str) -> int:
    kind, _, number = cursor.partition("-")
    if kind != "turn" or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise InvalidInputError("before", "is not a cursor of a page", allowed="Page.older of another page")
    return int(number)


def path(connection: Connection, tenant: str, session_id: str, *, from_turn: int, limit: int) -> list[Turn]:
    """Give at most ``limit`` turns of the path that ends in ``from_turn``, newest first."""
    found = numbers(connection, tenant, session_id, from_turn=from_turn, limit=limit)
    if not found:
        return []
    where = {"tenant": tenant, "session": session_id}
    rows = connection.execute(_THESE, where | {"turns": found}).all()  # joined to the walk, they would all be read
    return _whole(connection, where, rows)


def numbers(connection: Connection, tenant: str, session_id: str, *, from_turn: int, limit: int) -> list[int]:
    """Give the numbers of at most ``limit`` turns of the path that ends in ``from_turn``, newest first."""
    where = {"tenant": tenant, "session": session_id, "from_turn": from_turn, "limit": limit}
    return sorted(connection.execute(_PATH, where).scalars(), reverse=True)


def tips(connection: Connection, tenant: str, session_id: str) -> list[Turn]:
    """Give the last turn of each branch, newest first, ``BRANCHES_LIMIT`` at most. Reads every turn: a report."""
    where = {"tenant": tenant, "session": session_id}
    return _whole(connection, where, connection.execute(_TIPS, where).all())


def variants(connection: Connection, tenant: str, session_id: str, turn_id: str) -> list[Turn]:
    """Give a turn and all complete turns beside it, oldest reply first. Raises ``NotFoundError``."""
    where = {"tenant": tenant, "session": session_id}
    row = connection.execute(_BY_ID, where | {"turn": turn_id}).first()
    if row is None:
        raise NotFoundError("turn", turn_id)
    beside = _beside(connection, where, [row])[row.human_seq]
    found = connection.execute(_THESE, where | {"turns": [*{row.seq, *beside}]}).all()
    return _whole(connection, where, sorted(found, key=lambda one: int(one.reply_seq)))


def _whole(connection: Connection, where: dict[str, Any], rows: Sequence[Row[Any]]) -> list[Turn]:
    """Give rows as turns, with their calls and their numbers among the variants of their replies."""
    by_turn = calls.of_turns(connection, where["tenant"], where["session"], [row.seq for row in rows])
    beside = _beside(connection, where, rows)
    turns = []
    for row in rows:
        replies = {row.seq: row.reply_seq, **beside[row.human_seq]}.values()
        numbers = sum(other <= row.reply_seq for other in replies), len(replies)
        turns.append(_turn(row, by_turn[row.seq], numbers))
    return turns


def _beside(
    connection: Connection, where: dict[str, Any], rows: Sequence[Row[Any]]
) -> defaultdict[int | None, dict[int, int]]:
    """Give, by human line, the numbers of the complete turns that answer it and of their replies.

    Those that open the session answer ``None``.
    """
    found: defaultdict[int | None, dict[int, int]] = defaultdict(dict)
    lines = {row.human_seq for row in rows}
    said = connection.execute(_ANSWERS, where | {"lines": [*(lines - {None})]}).all() if lines - {None} else []
    opened = connection.execute(_OPENINGS, where).all() if None in lines else []
    for line, turn, reply in (*said, *opened):
        found[line][turn] = reply
    return found


def by_id(connection: Connection, tenant: str, session_id: str, turn_id: str) -> Turn:
    """Give one turn. Raises ``NotFoundError``."""
    where = {"tenant": tenant, "session": session_id}
    row = connection.execute(_BY_ID, where | {"turn": turn_id}).first()
    if row is None:
        raise NotFoundError("turn", turn_id)
    return _whole(connection, where, [row])[0]


def by_key(connection: Connection, tenant: str, session_id: str, key: str) -> tuple[Turn, str] | None:
    """Give the turn that an idempotency key made, with the digest of its arguments, or ``None``."""
    where = {"tenant": tenant, "session": session_id}
    row = connection.execute(_BY_KEY, where | {"key": key}).first()
    return None if row is None else (_whole(connection, where, [row])[0], row.body_digest)


def unresolved(connection: Connection, tenant: str, session_id: str, head_turn: int | None) -> Turn | None:
    """Give the last attempt after the head when it has not become a reply, or ``None``.

    A failure that the conversation has answered since, on a branch that was left, is past.
    """
    where = {"tenant": tenant, "session": session_id}
    last = connection.execute(_AT_ROOT if head_turn is None else _AFTER_HEAD, where | {"head_turn": head_turn}).first()
    if last is None or last.status == TurnStatus.COMPLETED.value:
        return None
    return path(connection, tenant, session_id, from_turn=last.seq, limit=1)[0]


def _turn(row: Row[Any], made: list[ModelCall], numbers: tuple[int, int]) -> Turn:
    known = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
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
        human=_message(known, "human"),
        reply=_message(known, "reply"),
        variant=numbers[0],
        variants=numbers[1],
        calls=tuple(made),
        metadata=json.loads(row.metadata_json) if row.metadata_json else {},
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def _message(known: Any, whose: str) -> Message | None:
    seq = known[f"{whose}_at"]
    if seq is None:
        return None
    return Message(seq=seq, **{name: known[f"{whose}_{name}"] for name in _MESSAGE if name != "seq"})

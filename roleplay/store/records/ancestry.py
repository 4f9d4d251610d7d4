"""Ancestry of messages in O(log n) look-ups: by parents, and by jump pointers, which skip over many of them.

A message's jump pointer names an ancestor. How far it skips follows from the message's depth alone, by the digits of a
skew-binary number (Myers, An applicative random-access stack, 1983): so the way back from a message to any depth has
O(log n) steps, and a new message finds its pointer by looking at two others.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Integer, bindparam, case, func, literal, null, select

from roleplay.store.access import postgres
from roleplay.store.access.tables import MessageRow, table

_m = table(MessageRow)
_near = _m.alias("near")
_far = _m.alias("far")


def jump_depth(depth: int) -> int:
    """Give the depth of the message that the jump pointer of one at ``depth`` names; the first one's is its own."""
    rest, skipped = depth - 1, 0
    while rest:
        skipped = (1 << (rest + 1).bit_length() - 1) - 1
        rest -= skipped
    return depth - skipped


def _in_session(of: Any) -> Any:
    return (of.c.tenant == bindparam("of_tenant")) & (of.c.session_id == bindparam("of_session"))


#: The jump pointer of a new message: of itself, of its parent, or what the pointer of its parent's pointer names. No
#: join, which PostgreSQL may make of all the session's messages twice where its statistics know nothing of the session.
JUMP = func.coalesce(
    bindparam("jump_to", type_=Integer),
    select(_far.c.jump_seq)
    .where(
        _in_session(_far),
        _far.c.seq
        == select(_near.c.jump_seq)
        .where(_in_session(_near), _near.c.seq == bindparam("jump_over", type_=Integer))
        .scalar_subquery(),
    )
    .scalar_subquery(),
)


def jump_of(seq: int, parent_seq: int | None, depth: int) -> tuple[int | None, int | None]:
    """Give what ``JUMP`` takes for a new message: the message that its pointer names (``jump_to``), or the one whose
    pointer's pointer it has (``jump_over``)."""
    if parent_seq is None:
        return seq, None
    return (parent_seq, None) if jump_depth(depth) == depth - 1 else (None, parent_seq)


def _here(of: Any) -> Any:
    return (of.c.tenant == bindparam("tenant")) & (of.c.session_id == bindparam("session"))


def _descent(further: Any) -> Any:
    """Go back from message ``head``, each time to what ``further`` says of a message, until it says nothing more."""
    path = select(bindparam("head", type_=Integer).label("seq")).cte("path", recursive=True)
    # A scalar is looked up by the primary key in every plan; what is joined may be read as a whole.
    before = select(further).select_from(_m.outerjoin(_far, _here(_far) & (_far.c.seq == _m.c.jump_seq)))
    before = before.where(_here(_m), _m.c.seq == path.c.seq).correlate(path)
    return path.union_all(select(before.scalar_subquery()).where(path.c.seq.is_not(None)))


def _further(passes: Any, reached: Any) -> Any:
    """Go by the jump pointer, unless that ``passes`` what is looked for, else to the parent, until it is ``reached``.

    A message without a pointer, or with one that is damaged, costs a step more.
    """
    jumps = (_far.c.seq < _m.c.seq) & ~passes
    return case((reached, null()), (jumps, _far.c.seq), (_m.c.parent_seq < _m.c.seq, _m.c.parent_seq))


_of = bindparam("of", type_=Integer)
_depth = bindparam("depth", type_=Integer)
# Along a path numbers only rise: so a jump to a lower number than the one that is looked for would pass it.
_to_message = _descent(_further(_far.c.seq < _of, _m.c.seq <= _of))
_IS_ON_PATH = select(literal(1)).select_from(_to_message).where(_to_message.c.seq == _of)
_to_depth = _descent(_further(_far.c.depth < _depth, _m.c.depth <= _depth))
_last = select(func.min(_to_depth.c.seq)).scalar_subquery()
_AT_DEPTH = select(_m.c.seq).where(_here(_m), _m.c.seq == _last, _m.c.depth == _depth)


def is_on_path(connection: Connection, tenant: str, session_id: str, message: int, *, head: int) -> bool:
    """Tell whether a message is on the path that ends with ``head``, which itself is. One statement, O(log n) rows."""
    postgres.look_up(connection)
    where = {"tenant": tenant, "session": session_id, "of": message, "head": head}
    return connection.execute(_IS_ON_PATH, where).first() is not None


def at_depth(connection: Connection, tenant: str, session_id: str, depth: int, *, head: int) -> int | None:
    """Give the message at a depth, counted from 1, of the path that ends with ``head``; ``None`` where it is not so
    long. One statement, O(log n) rows."""
    postgres.look_up(connection)
    where = {"tenant": tenant, "session": session_id, "depth": depth, "head": head}
    return connection.execute(_AT_DEPTH, where).scalar()

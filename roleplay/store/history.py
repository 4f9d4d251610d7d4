"""History as a context needs it: the path back from a message, as far as a budget reaches and no further."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, bindparam, literal_column, select, text, true

from roleplay.domain.context import Line, Span
from roleplay.store.prepared import Prepared
from roleplay.store.tables import MessageRow, table

_NO_JIT = text("SELECT set_config('jit', 'off', true) /* tenant: none */")
_WANTED = ("seq", "parent_seq", "turn_seq", "seat", "name", "text", "tokens", "hidden")


@cache
def _walk(dialect: str) -> Prepared:
    """Walk from ``head`` to its parents until the running sum of tokens passes ``cap`` or ``start`` is reached.

    PostgreSQL takes each step as a lateral look-up of one row; left to itself it may scan the session for each.
    SQLite compares each step's tenant with the walk's; were it compared with the value, SQLite, once it has statistics,
    would first read the whole table into a Bloom filter.
    """
    message = table(MessageRow)
    per_message: Any = bindparam("per_message", type_=Integer)
    here = (message.c.tenant == bindparam("tenant")) & (message.c.session_id == bindparam("session"))
    wanted = [message.c[name] for name in _WANTED]
    walk = (
        select(*wanted, (message.c.tokens + per_message).label("total"), message.c.tenant)
        .where(here, message.c.seq == bindparam("head"))
        .cte("walk", recursive=True)
    )
    more = (walk.c.total <= bindparam("cap")) & (walk.c.seq > bindparam("start"))
    step = message.alias("step")
    found = (
        (step.c.tenant == walk.c.tenant)
        & (step.c.session_id == bindparam("session"))
        & (step.c.seq == walk.c.parent_seq)
    )
    source: Any = step
    if dialect == "postgresql":
        columns = (step.c[name] for name in (*_WANTED, "tenant"))
        source = select(*columns).where(found).limit(literal_column("1")).lateral("row")
    total = walk.c.total + source.c.tokens + per_message
    joined = select(*(source.c[name] for name in _WANTED), total, source.c.tenant).select_from(
        walk.join(source, true() if dialect == "postgresql" else found)
    )
    walk = walk.union_all(joined.where(more))
    return Prepared(select(*(walk.c[name] for name in _WANTED)))


class Path(NamedTuple):
    """A stretch of a path, oldest first: its visible lines, and the numbers of the hidden ones between them."""

    lines: tuple[Line, ...]
    hidden: tuple[int, ...]


def path_back(
    connection: Connection, tenant: str, session_id: str, *, head: int, start: int, cap: int, per_message: int
) -> Path:
    """Give the path that ends in ``head``, oldest first, in one statement.

    It reaches back to message ``start`` (0: to the root) or to the first message with which the stored tokens, plus
    ``per_message`` for each, exceed ``cap``; that message is the oldest given.
    """
    rows = _rows(connection, tenant, session_id, head=head, start=start, cap=cap, per_message=per_message)
    visible = tuple(_line(row) for row in rows if not row[7])
    return Path(visible, tuple(row[0] for row in rows if row[7]))


def _rows(connection: Connection, tenant: str, session_id: str, **bounds: int) -> list[Any]:
    if connection.dialect.name == "postgresql":
        connection.execute(_NO_JIT)
    rows = _walk(connection.dialect.name).run(connection, {"tenant": tenant, "session": session_id} | bounds).all()
    return sorted(rows, key=lambda row: int(row[0]))


def _line(row: Any) -> Line:
    return Line(row[0], row[2], row[3], row[4], row[5], row[6])


def span(connection: Connection, tenant: str, session_id: str, wanted: Span) -> list[Line]:
    """Give the lines of a recipe's history, oldest first, for rebuilding. What is hidden now does not matter."""
    unbounded = 2**31 - 1
    rows = _rows(connection, tenant, session_id, head=wanted.last, start=wanted.first, cap=unbounded, per_message=0)
    return [_line(row) for row in rows if row[0] not in wanted.hidden]

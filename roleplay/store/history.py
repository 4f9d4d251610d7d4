"""History as a context needs it: the path back from a message, as far as a budget reaches and no further."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, bindparam, case, literal_column, select, text, true, update

from roleplay.domain.context import Line, Span
from roleplay.store import sessions
from roleplay.store.prepared import Prepared
from roleplay.store.stored import reads
from roleplay.store.tables import MessageRow, TurnRow, table

_NO_JIT = text("SELECT set_config('jit', 'off', true) /* tenant: none */")
_WANTED = ("seq", "parent_seq", "turn_seq", "seat", "name", "text", "tokens", "hidden", "role", "counter")


@cache
def _walk(dialect: str) -> Prepared:
    """Walk from ``head`` to its parents until the running sum of tokens passes ``cap`` or ``start`` is reached.

    What is hidden is walked over at no cost, so that it takes no line's place. A line before a hidden reply costs
    nothing either: which lines are hidden with what answers them, ``path_back`` finds out.

    PostgreSQL takes each step as a lateral look-up of one row; left to itself it may scan the session for each.
    SQLite compares each step's tenant with the walk's; were it compared with the value, SQLite, once it has statistics,
    would first read the whole table into a Bloom filter.
    """
    message = table(MessageRow)
    per_message: Any = bindparam("per_message", type_=Integer)
    here = (message.c.tenant == bindparam("tenant")) & (message.c.session_id == bindparam("session"))
    wanted = [message.c[name] for name in _WANTED]
    walk = (
        select(*wanted, _cost(message, message.c.hidden, per_message).label("total"), message.c.tenant)
        .where(here, message.c.seq == bindparam("head"))
        .cte("walk", recursive=True)
    )
    more = (
        (walk.c.total <= bindparam("cap"))
        & (walk.c.seq > bindparam("start"))
        & (walk.c.parent_seq < walk.c.seq)  # a damaged link may lead round and round
    )
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
    answered = (source.c.role == literal_column("'user'")) & (walk.c.role == literal_column("'assistant'"))
    free = source.c.hidden | (answered & walk.c.hidden)
    total = walk.c.total + _cost(source, free, per_message)
    joined = select(*(source.c[name] for name in _WANTED), total, source.c.tenant).select_from(
        walk.join(source, true() if dialect == "postgresql" else found)
    )
    walk = walk.union_all(joined.where(more))
    return Prepared(select(*(walk.c[name] for name in _WANTED), walk.c.total))


def _cost(message: Any, free: Any, per_message: Any) -> Any:
    return case((free, 0), else_=message.c.tokens + per_message)


_ANSWERED = select(table(TurnRow).c.human_seq).where(
    table(TurnRow).c.tenant == bindparam("tenant"),
    table(TurnRow).c.session_id == bindparam("session"),
    table(TurnRow).c.seq.in_(bindparam("turns", expanding=True)),
    table(TurnRow).c.human_seq.is_not(None),
)


_RECOUNT = (
    update(table(MessageRow))
    .where(
        table(MessageRow).c.tenant == bindparam("of_tenant"),
        table(MessageRow).c.session_id == bindparam("of_session"),
        table(MessageRow).c.seq == bindparam("of_seq"),
    )
    .values(tokens=bindparam("new_tokens"), counter=bindparam("new_counter"))
)


class Path(NamedTuple):
    """A stretch of a path, oldest first: its visible lines, and the numbers of the hidden ones between them."""

    lines: tuple[Line, ...]
    hidden: tuple[int, ...]


def path_back(
    connection: Connection, tenant: str, session_id: str, *, head: int, start: int, cap: int, per_message: int
) -> Path:
    """Give the path that ends in ``head``, oldest first, in one statement.

    It reaches back to message ``start`` (0: to the root) or to the first message with which the stored tokens, plus
    ``per_message`` for each, exceed ``cap``; that message is the oldest given. A human line is given as of the turn
    that answers it on this path, hidden with it or not: it was said in another when that turn is a variant.
    """
    rows = _rows(connection, tenant, session_id, head=head, start=start, cap=cap, per_message=per_message)
    pairs = [
        (place, row, after)
        for place, (row, after) in enumerate(pairwise(rows))
        if row[8] == "user" and after[8] == "assistant"
    ]
    turns, hidden = [row[2] for row in rows], [row[7] for row in rows]
    for place, _, after in pairs:
        turns[place] = after[2]
    if not any(hidden):
        return Path(_lines(rows, turns), ())
    # Where both say the same, or are of one turn, nothing need be asked: that is so unless a variant was hidden.
    unclear = [after[2] for _, row, after in pairs if row[7] != after[7]]
    where = {"tenant": tenant, "session": session_id, "turns": unclear}
    answered = set(connection.execute(_ANSWERED, where).scalars()) if unclear else set()
    for place, row, after in pairs:
        if row[2] == after[2] or row[0] in answered:
            hidden[place] = after[7]
    visible = [place for place, gone in enumerate(hidden) if not gone]
    lines = _lines([rows[place] for place in visible], [turns[place] for place in visible])
    return Path(lines, tuple([row[0] for row, gone in zip(rows, hidden, strict=True) if gone]))


def _rows(connection: Connection, tenant: str, session_id: str, **bounds: int) -> list[Any]:
    if connection.dialect.name == "postgresql":
        connection.execute(_NO_JIT)
    rows = _walk(connection.dialect.name).run(connection, {"tenant": tenant, "session": session_id} | bounds).all()
    rows = sorted(rows, key=lambda row: int(row[0]))
    if not rows:
        raise sessions.missing(connection, tenant, session_id, f"message {bounds['head']}")
    seq, parent, total = rows[0][0], rows[0][1], rows[0][-1]
    if parent is not None and seq > bounds["start"] and total <= bounds["cap"]:
        raise sessions.missing(connection, tenant, session_id, f"message {parent}, which message {seq} follows,")
    return rows


@reads("a message")
def _lines(rows: Sequence[Sequence[Any]], turns: Iterable[int]) -> tuple[Line, ...]:
    lines, new = [], tuple.__new__  # a named tuple's own costs three times as much
    for (seq, _, _, seat, name, said, tokens, _, _, counter, _), turn_seq in zip(rows, turns, strict=True):
        if type(name) is not str or type(said) is not str:  # SQLite keeps what it is given
            raise TypeError("text")
        lines.append(new(Line, (seq, turn_seq, seat, name, said, tokens, counter)))
    return tuple(lines)


def span(connection: Connection, tenant: str, session_id: str, wanted: Span) -> list[Line]:
    """Give the lines of a recipe's history, oldest first, for rebuilding. What is hidden now does not matter."""
    if wanted.last == 0:
        return []
    unbounded = 2**31 - 1
    rows = _rows(connection, tenant, session_id, head=wanted.last, start=wanted.first, cap=unbounded, per_message=0)
    visible = [row for row in rows if row[0] not in wanted.hidden]
    return list(_lines(visible, [row[2] for row in visible]))


def recount(
    connection: Connection, tenant: str, session_id: str, counts: Sequence[tuple[int, int]], counter: str
) -> None:
    """Give messages, by ``seq``, the tokens that another counter counts."""
    where = {"of_tenant": tenant, "of_session": session_id, "new_counter": counter}
    connection.execute(_RECOUNT, [where | {"of_seq": seq, "new_tokens": tokens} for seq, tokens in counts])

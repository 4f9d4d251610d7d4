"""History as a context needs it: the path back from a message, as far as a budget reaches and no further."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, and_, bindparam, case, func, literal_column, select, text, true, update

from roleplay.domain.context import Line, Span
from roleplay.errors import NotFoundError, StoreError
from roleplay.store.access.decoding import as_numbers, as_text, reads
from roleplay.store.access.prepared import Prepared
from roleplay.store.access.tables import MessageRow, TurnRow, table
from roleplay.store.records import revisions
from roleplay.store.records.audience import Viewer, seen_by

_NO_JIT = text("SELECT set_config('jit', 'off', true) /* tenant: none */")
#: How many rows the walk may step over at least, and how many for each row that it keeps: of those that are hidden, and
#: again of those that are not for the seat.
PASSES = 1000
PASSES_PER_LINE = 4
UNBOUNDED = 2**31 - 1
#: The text of a line that was erased; nobody says nothing.
ERASED = ""
_OF_MESSAGE = ("seq", "parent_seq", "seat", "name", "tokens", "counter", "role", "tenant")
_COUNTED = ("state", "place", "total", "skipped", "unseen")
_GIVEN = ("seq", "parent_seq", "said_in", "seat", "name", "text", "tokens", "counter", *_COUNTED)
_STATE, _PLACE, _TEXT, _NOT_SEEN = (_GIVEN.index(name) for name in ("state", "place", "text", "unseen"))
_seq, _state = itemgetter(0), itemgetter(_STATE)
#: Whether a message is visible. Of a line that is hidden otherwise than the reply after it, which is of another turn,
#: that turn tells: it may answer the line, which then is hidden as the reply is.
_VISIBLE, _HIDDEN, _HIDDEN_IF_ANSWERED, _HIDDEN_UNLESS_ANSWERED = range(4)
#: Added to one of these where the seat may not see the message; the line before it goes by what is left without it.
_UNSEEN = 4


def _number(value: int) -> Any:
    return literal_column(str(value), Integer)


@cache
def _walk(dialect: str, *, whole: bool = False, absences: int | None = None) -> Prepared:
    """Walk from ``head`` to its parents until the running sum of tokens passes ``cap`` or ``start`` is reached, or
    until more than ``passes`` rows and ``PASSES_PER_LINE`` times those that are kept were stepped over.

    What is hidden is stepped over at no cost in tokens, so that it takes no line's place. It is not given, its text is
    not even read, unless the walk ends there; ``whole``: every row is given with its text. What may be hidden costs
    nothing either: which it is, ``path_back`` finds out. ``place`` counts the steps from the head; ``total`` are the
    tokens and ``skipped`` the rows stepped over before a row is reached.

    So it is with what a viewer with so many ``absences`` may not see (``None``: there is no viewer, everything is
    seen), but that is counted apart, in ``unseen``, and no text of it is read by any walk.

    PostgreSQL takes each step as a lateral look-up of one row; left to itself it may scan the session for each.
    SQLite compares each step's tenant with the walk's; were it compared with the value, SQLite, once it has statistics,
    would first read the whole table into a Bloom filter.
    """
    message = table(MessageRow)
    zero, one = _number(0), _number(1)
    here = (message.c.tenant == bindparam("tenant")) & (message.c.session_id == bindparam("session"))
    state = case((message.c.hidden, one), else_=zero)
    walk = (
        select(
            *(message.c[name] for name in _OF_MESSAGE),
            message.c.turn_seq.label("said_in"),
            *_of_viewer(message, state, absences, whole=whole),
            *(zero.label(name) for name in ("place", "total", "skipped", "unseen")),
        )
        .where(here, message.c.seq == bindparam("head"))
        .cte("walk", recursive=True)
    )
    total, skipped, unseen, more = _so_far(walk, absences)
    step = message.alias("step")
    found = (
        (step.c.tenant == walk.c.tenant)
        & (step.c.session_id == bindparam("session"))
        & (step.c.seq == walk.c.parent_seq)
    )
    source: Any = step
    if dialect == "postgresql":
        columns = (step.c[name] for name in (*_OF_MESSAGE, "turn_seq", "text", "hidden", "audience", "revision"))
        source = select(*columns).where(found).limit(literal_column("1")).lateral("row")
    answered = (source.c.role == literal_column("'user'")) & (walk.c.role == literal_column("'assistant'"))
    said = walk.c.state if absences is None else walk.c.state % _number(_UNSEEN)
    state = case(
        (~answered, case((source.c.hidden, one), else_=zero)),
        (source.c.turn_seq == walk.c.said_in, said),  # a reply says it for its line too
        (said == one, case((source.c.hidden, one), else_=_number(_HIDDEN_IF_ANSWERED))),
        (source.c.hidden, _number(_HIDDEN_UNLESS_ANSWERED)),
        else_=zero,
    )
    joined = select(
        *(source.c[name] for name in _OF_MESSAGE),
        case((answered, walk.c.said_in), else_=source.c.turn_seq),
        *_of_viewer(source, state, absences, whole=whole),
        walk.c.place + one,
        total,
        skipped,
        unseen,
    ).select_from(walk.join(source, true() if dialect == "postgresql" else found))
    walk = walk.union_all(joined.where(more))
    given = select(*(walk.c[name] for name in _GIVEN))
    kept = [] if whole else [walk.c.state != one]
    kept += [] if absences is None else [walk.c.state < _number(_UNSEEN)]
    if kept:
        *_, more = _so_far(walk, absences)
        given = given.where(and_(*kept) | ~more)
    return Prepared(given)


def _of_viewer(message: Any, state: Any, absences: int | None, *, whole: bool) -> tuple[Any, Any]:
    """Give a message's text, where it is read, and its state with whether the viewer may see it."""
    is_read = [] if whole else [state != _number(_HIDDEN)]
    if absences is not None:
        seen = seen_by(message, absences)
        is_read, state = [seen, *is_read], case((seen, state), else_=state + _number(_UNSEEN))
    text = case((and_(*is_read), message.c.text)) if is_read else message.c.text
    return text.label("text"), state.label("state")


def _so_far(walk: Any, absences: int | None) -> tuple[Any, Any, Any, Any]:
    """Give the tokens and the rows stepped over, hidden and unseen, with a row of the walk, and whether it goes on from
    there."""
    zero, one = _number(0), _number(1)
    is_visible = walk.c.state == _number(_VISIBLE)
    per_message: Any = bindparam("per_message", type_=Integer)
    total = walk.c.total + case((is_visible, walk.c.tokens + per_message), else_=zero)
    skipped, unseen = walk.c.skipped + case((is_visible, zero), else_=one), walk.c.unseen
    if absences is not None:
        skipped = walk.c.skipped + case((is_visible, zero), (walk.c.state < _number(_UNSEEN), one), else_=zero)
        unseen += walk.c.state // _number(_UNSEEN)
    kept = walk.c.place + one - skipped - unseen
    more = (
        (total <= bindparam("cap"))
        & (walk.c.seq > bindparam("start"))
        & _within(skipped, kept)
        # A damaged link may lead round and round.
        & (func.coalesce(walk.c.parent_seq, walk.c.seq) < walk.c.seq)
    )
    return total, skipped, unseen, more if absences is None else more & _within(unseen, kept)


def _within(stepped_over: Any, kept: Any) -> Any:
    passes = bindparam("passes", type_=Integer)
    return (stepped_over <= passes) | (stepped_over <= _number(PASSES_PER_LINE) * kept)


_ANSWERED = select(table(TurnRow).c.human_seq).where(
    table(TurnRow).c.tenant == bindparam("tenant"),
    table(TurnRow).c.session_id == bindparam("session"),
    table(TurnRow).c.seq.in_(bindparam("turns", expanding=True)),
    table(TurnRow).c.human_seq.is_not(None),
)


_MESSAGE_AT = select(*(table(MessageRow).c[name] for name in ("text", "audience", "revision", "hidden"))).where(
    table(MessageRow).c.tenant == bindparam("tenant"),
    table(MessageRow).c.session_id == bindparam("session"),
    table(MessageRow).c.seq == bindparam("seq"),
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
    """A stretch of a path, oldest first: its visible lines.

    ``skipped`` says of each line how many hidden messages lie between it and the path's end; empty: none lies before
    any. ``passed_over``: after so many hidden messages the walk stopped, with more before them; 0: it did not.
    ``unseen``: likewise after so many that the viewer may not see, which count as hidden nowhere.
    """

    lines: tuple[Line, ...] = ()
    skipped: tuple[int, ...] = ()
    passed_over: int = 0
    unseen: int = 0

    def then(self, line: Line) -> Path:
        """Give the path with a line that follows its end."""
        return self._replace(lines=(*self.lines, line), skipped=(*self.skipped, 0) if self.skipped else ())


class _Walked(NamedTuple):
    """The rows that a walk gave, oldest first, whether it stopped for what it stepped over alone, and after how many
    unseen messages it stopped for these."""

    rows: list[Any]
    stopped: bool = False
    unseen: int = 0


def path_back(
    connection: Connection,
    tenant: str,
    session_id: str,
    *,
    head: int,
    start: int,
    cap: int,
    per_message: int,
    passes: int = PASSES,
    viewer: Viewer | None = None,
) -> Path:
    """Give the path that ends in ``head``, oldest first, in one statement, as ``viewer`` may see it (``None``: whole).

    It reaches back to message ``start`` (0: to the root), or to the first message with which the stored tokens, plus
    ``per_message`` for each, exceed ``cap``; that message is the oldest given. It stops too where it has stepped over
    more than ``passes`` hidden messages, or as many that the viewer may not see, and ``PASSES_PER_LINE`` times as many
    as it gives. A human line is given as of the turn that answers it on this path, hidden with it or not: it was said
    in another when that turn is a variant. Where it stops for what the viewer may not see, lines beyond half of that
    bound are left out.
    """
    bounds = {"head": head, "start": start, "cap": cap, "per_message": per_message, "passes": passes}
    rows, stopped, unseen = _walked(connection, tenant, session_id, bounds, viewer)
    oldest = rows[0][_STATE]
    places = _seen_before(rows[0]) + (oldest < _UNSEEN)
    if oldest == _HIDDEN or oldest >= _UNSEEN:
        del rows[0]
    if places > len(rows) or any(map(_state, rows)):
        rows = _visible(connection, tenant, session_id, rows)
    rows = [row for row in rows if row[_TEXT] != ERASED]
    if unseen and rows:
        # So far only that the next walks reach as far, and the window stays where it is, for many turns to come.
        reach = max(passes // 2, rows[-1][_NOT_SEEN])
        rows = [row for row in rows if row[_NOT_SEEN] <= reach]
        places = _seen_before(rows[0]) + 1
    lines = _lines(rows)
    hidden = places - len(lines)
    if not hidden:
        return Path(lines, unseen=unseen)
    newest = len(rows) - 1
    skipped = tuple([_seen_before(row) - (newest - index) for index, row in enumerate(rows)])
    return Path(lines, skipped if any(skipped) else (), hidden if stopped else 0, unseen)


def _seen_before(row: Any) -> int:
    """Give how many messages, hidden or not, the viewer may see between one and the path's end."""
    steps: int = row[_PLACE] - row[_NOT_SEEN]
    return steps


def _visible(connection: Connection, tenant: str, session_id: str, rows: list[Any]) -> list[Any]:
    """Leave out the lines that are hidden with the reply after them, which is so if its turn answers them."""
    turns = [row[2] for row in rows if row[_STATE]]
    if not turns:
        return rows
    where = {"tenant": tenant, "session": session_id, "turns": turns}
    answered = set(connection.execute(_ANSWERED, where).scalars())
    return [row for row in rows if not row[_STATE] or (row[_STATE] == _HIDDEN_UNLESS_ANSWERED) == (row[0] in answered)]


def _walked(
    connection: Connection, tenant: str, session_id: str, bounds: dict[str, int], viewer: Viewer | None
) -> _Walked:
    if connection.dialect.name == "postgresql":
        connection.execute(_NO_JIT)
    where = {"tenant": tenant, "session": session_id} | bounds
    rows = _rows(connection, where, viewer, whole=False)
    if rows:
        seq, parent, *_, tokens, _, state, place, total, skipped, unseen = rows[0]
        if state == _VISIBLE:
            total += tokens + bounds["per_message"]
        elif state < _UNSEEN:
            skipped += 1
        else:
            unseen += 1
        if parent is None or seq <= bounds["start"] or total > bounds["cap"]:
            return _Walked(rows)
        most = max(bounds["passes"], PASSES_PER_LINE * (place + 1 - skipped - unseen))
        if skipped > most or unseen > most:
            return _Walked(rows, skipped > most, unseen if unseen > most else 0)
    raise _breaks_off(connection, where)


def _rows(connection: Connection, values: dict[str, Any], viewer: Viewer | None, *, whole: bool) -> list[Any]:
    absences = None
    if viewer is not None:
        absences, values = viewer.conditions, values | viewer.values()
    rows = _walk(connection.dialect.name, whole=whole, absences=absences).run(connection, values).all()
    with reads("a message"):
        return sorted(rows, key=_seq)


def _breaks_off(connection: Connection, where: dict[str, Any]) -> StoreError | NotFoundError:
    """Say which message is missing behind all rows of a walk that did not come to an end."""
    rows = _rows(connection, where, None, whole=True)
    what = f"message {rows[0][1]}, which message {rows[0][0]} follows," if rows else f"message {where['head']}"
    return revisions.missing(connection, where["tenant"], where["session"], what)


@reads("a message")
def _lines(rows: Sequence[Sequence[Any]]) -> tuple[Line, ...]:
    lines, new = [], tuple.__new__  # a named tuple's own costs three times as much
    for seq, _, turn_seq, seat, name, said, tokens, counter, _, _, _, _, _ in rows:
        if type(name) is not str or type(said) is not str:  # SQLite keeps what it is given
            raise TypeError("text")
        lines.append(new(Line, (seq, turn_seq, seat, name, said, tokens, counter)))
    return tuple(lines)


def span(connection: Connection, tenant: str, session_id: str, wanted: Span) -> list[Line]:
    """Give the lines of a recipe's history, oldest first, for rebuilding. What is hidden now does not matter.

    What the seat saw follows from each message's audience and revision, which never change, and from its absences as
    they were then, which the recipe tells.
    """
    if wanted.last == 0:
        return []
    where: dict[str, Any] = {"tenant": tenant, "session": session_id, "head": wanted.last, "start": wanted.first}
    where |= {"cap": UNBOUNDED, "per_message": 0, "passes": UNBOUNDED}
    if connection.dialect.name == "postgresql":
        connection.execute(_NO_JIT)
    rows = _rows(connection, where, Viewer(wanted.seat, wanted.absences), whole=True)
    if not rows or (rows[0][0] > wanted.first and rows[0][1] is not None):
        raise _breaks_off(connection, where)
    seen, hidden = [row for row in rows if row[_STATE] < _UNSEEN], frozenset(wanted.hidden)
    return list(_lines([row for row in seen if row[0] not in hidden] if hidden else _kept(seen, wanted.runs)))


def _kept(rows: list[Any], runs: Sequence[int]) -> list[Any]:
    """Leave out what was stepped over, by the runs of the walk."""
    if not runs:
        return rows
    newest_first, place, kept = rows[::-1], 0, []
    for skipped, run in zip(runs[::2], runs[1::2], strict=True):
        place += skipped
        kept += newest_first[place : place + run]
        place += run
    return kept[::-1]


@reads("a message")
def message_at(
    connection: Connection, tenant: str, session_id: str, seq: int
) -> tuple[str, str | None, int | None] | None:
    """Give a message's text, audience and revision; ``None`` where there is none, or where it is hidden."""
    row = connection.execute(_MESSAGE_AT, {"tenant": tenant, "session": session_id, "seq": seq}).first()
    if row is None or row.hidden:
        return None
    as_numbers([row.revision])
    return as_text(row.text), None if row.audience is None else as_text(row.audience), row.revision


def recount(
    connection: Connection, tenant: str, session_id: str, counts: Sequence[tuple[int, int]], counter: str
) -> None:
    """Give messages, by ``seq``, the tokens that another counter counts."""
    where = {"of_tenant": tenant, "of_session": session_id, "new_counter": counter}
    connection.execute(_RECOUNT, [where | {"of_seq": seq, "new_tokens": tokens} for seq, tokens in counts])

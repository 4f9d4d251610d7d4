"""Turns read back along a path, a page in a few statements.

Who reads as a seat gives a ``viewer``: then the statements leave out every turn that the seat may not see, and of the
turns that it may, the line or the reply that it may not. So variants are counted among those that it may see. What was
computed for others, or belongs to them, is left out as well: calls and metadata.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    and_,
    any_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
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
from roleplay.store.records.audience import Viewer, seen_by

BRANCHES_LIMIT = 500
#: How many turns one statement steps over at most, for a seat that may not see them.
PASSES = 2000
_Beside = defaultdict[tuple[int | None, int | None], dict[int, int]]
_turns = table(TurnRow)
_human = table(MessageRow).alias("human")
_reply = table(MessageRow).alias("reply")
_sibling = table(MessageRow).alias("sibling")
_owner = table(TurnRow).alias("owner")
_MESSAGE = tuple(Message.model_fields)


def _here(of: Any) -> Any:
    return (of.c.tenant == bindparam("tenant")) & (of.c.session_id == bindparam("session"))


def _seen(rows: Any, absences: int | None) -> tuple[Any, ...]:
    """The condition under which rows are shown to a viewer with so many absences; none, where nobody in particular
    reads."""
    return () if absences is None else (seen_by(rows, absences),)


def _whole_turns(absences: int | None) -> Any:
    """Turns with their messages, each of the three as far as a viewer may see it."""
    return (
        select(
            _turns,
            *(_human.c[name].label(f"human_{name}") for name in _MESSAGE if name != "seq"),
            _human.c.seq.label("human_at"),
            *(_reply.c[name].label(f"reply_{name}") for name in _MESSAGE if name != "seq"),
            _reply.c.seq.label("reply_at"),
        )
        .select_from(_turns)
        .outerjoin(_human, and_(_here(_human), _human.c.seq == _turns.c.human_seq, *_seen(_human, absences)))
        .outerjoin(_reply, and_(_here(_reply), _reply.c.seq == _turns.c.reply_seq, *_seen(_reply, absences)))
        .where(_here(_turns), *_seen(_turns, absences))
    )


def _beside_it(absences: int | None) -> tuple[Any, Any]:
    """How many complete turns answer the same line as a turn does, or no line at the same place: the older ones, and
    all."""
    its_status = (
        select(_owner.c.status)
        .where(
            _here(_owner),
            _owner.c.seq == _sibling.c.turn_seq,
            _owner.c.reply_seq == _sibling.c.seq,
            *_seen(_owner, absences),
        )
        .correlate(_sibling)
        .scalar_subquery()
    )
    replies = (
        select(func.count())
        .select_from(_sibling)
        .where(
            _here(_sibling),
            _sibling.c.parent_seq == _turns.c.human_seq,
            _sibling.c.turn_seq != _turns.c.seq,
            its_status == TurnStatus.COMPLETED.value,
        )
    )

    def unasked(place: Any) -> Any:
        return (
            select(func.count())
            .select_from(_owner)
            .where(
                _here(_owner),
                place,
                _owner.c.human_seq.is_(None),
                _owner.c.status == TurnStatus.COMPLETED.value,
                _owner.c.seq != _turns.c.seq,
                *_seen(_owner, absences),
            )
        )

    openings = unasked(_owner.c.parent_turn.is_(None))
    later = unasked(_owner.c.parent_turn == _turns.c.parent_turn)

    def count(*, older: bool) -> Any:
        of_line = replies.where(_sibling.c.seq < _turns.c.reply_seq) if older else replies
        first, after = (
            one.where(_owner.c.reply_seq < _turns.c.reply_seq) if older else one for one in (openings, later)
        )
        return case(
            (_turns.c.reply_seq.is_(None), 0),  # a line that was added
            (_turns.c.human_seq.is_not(None), of_line.correlate(_turns).scalar_subquery()),
            (_turns.c.parent_turn.is_(None), first.correlate(_turns).scalar_subquery()),
            else_=after.correlate(_turns).scalar_subquery(),
        )

    return count(older=True), count(older=False)


def _numbered(absences: int | None) -> Any:
    """Whole turns, each with its number among the variants of its reply."""
    before, beside = _beside_it(absences)
    return _whole_turns(absences).add_columns(before.label("before_it"), beside.label("beside_it"))


def _before(path: Any, step: Any, what: Any) -> Any:
    """What ``step`` says of the parent of the turn that ``path`` reached."""
    return select(what).where(_here(step), step.c.seq == path.c.parent_turn).correlate(path).scalar_subquery()


def _walk(start: Any) -> Any:
    """Walk from turn ``start`` to its parents. Nothing is joined, so that every plan looks up each step."""
    begin = (
        select(_turns.c.seq, _turns.c.parent_turn, literal(1, Integer).label("taken"))
        .where(_here(_turns), _turns.c.seq == start)
        .cte("path", recursive=True)
    )
    step = _turns.alias("step")
    path = begin.union_all(
        select(begin.c.parent_turn, _before(begin, step, step.c.parent_turn), begin.c.taken + 1).where(
            begin.c.parent_turn.is_not(None), begin.c.taken < bindparam("limit")
        )
    )
    return select(path.c.seq)


_PATH = _walk(bindparam("from_turn"))


def _number(value: int) -> Any:
    return literal_column(str(value), Integer)


def _shown(rows: Any, absences: int) -> Any:
    """1 where a viewer may see a turn, else 0."""
    return case((seen_by(rows, absences), _number(1)), else_=_number(0))


def _walk_seen(absences: int) -> Any:
    """Walk back from a turn until so many turns were met that a viewer may see, or so many were stepped over.

    Gives the turns that are ``shown``, and the one at which the walk stopped: it goes on with the parent of that.
    """
    begin = (
        select(
            _turns.c.seq,
            _turns.c.parent_turn,
            _shown(_turns, absences).label("shown"),
            _number(0).label("met"),
            _number(1).label("steps"),
        )
        .where(_here(_turns), _turns.c.seq == bindparam("from_turn"))
        .cte("path", recursive=True)
    )
    step = _turns.alias("step")

    def more(path: Any) -> Any:
        goes_on = (path.c.met + path.c.shown < bindparam("limit")) & (path.c.steps < bindparam("passes"))
        return path.c.parent_turn.is_not(None) & goes_on

    met, steps = begin.c.met + begin.c.shown, begin.c.steps + _number(1)
    one_back = select(
        begin.c.parent_turn,
        _before(begin, step, step.c.parent_turn),
        _before(begin, step, _shown(step, absences)),
        met,
        steps,
    )
    path = begin.union_all(one_back.where(more(begin)))
    given = select(path.c.seq, path.c.parent_turn, path.c.shown, path.c.steps)
    return given.where((path.c.shown == _number(1)) | ~more(path))


def _walk_over_seen(absences: int) -> Any:
    """Walk back from a turn as long as a viewer may see what is passed, down to the turn ``until``, and give where the
    walk stopped."""
    shown = _shown(_turns, absences).label("shown")
    begin = (
        select(_turns.c.seq, _turns.c.parent_turn, shown)
        .where(_here(_turns), _turns.c.seq == bindparam("from_turn"))
        .cte("path", recursive=True)
    )
    step = _turns.alias("step")

    def more(path: Any) -> Any:
        return path.c.parent_turn.is_not(None) & (path.c.seq > bindparam("until")) & (path.c.shown == _number(1))

    passed = (_before(begin, step, step.c.parent_turn), _before(begin, step, _shown(step, absences)))
    one_back = select(begin.c.parent_turn, *passed).where(more(begin))
    path = begin.union_all(one_back)
    return select(path.c.seq, path.c.parent_turn, path.c.shown).where(~more(path))


_child = _turns.alias("child")


def _tips(absences: int | None) -> Any:
    """The last turn of each branch: a complete one after which nothing complete comes, as far as a viewer may see."""
    completed = _turns.c.status == TurnStatus.COMPLETED.value
    if absences is None:
        after = select(_child.c.seq).where(
            _here(_child),
            _child.c.parent_turn == _turns.c.seq,
            _child.c.status == TurnStatus.COMPLETED.value,
        )
        tips = _whole_turns(None).where(completed, ~after.exists())
    else:
        # The turns after which something is shown: parents of what is, and whatever lies unseen between.
        passed = (
            select(_child.c.parent_turn.label("seq"))
            .where(
                _here(_child),
                _child.c.status == TurnStatus.COMPLETED.value,
                _child.c.parent_turn.is_not(None),
                seen_by(_child, absences),
            )
            .cte("passed", recursive=True)
        )
        between = _turns.alias("between")
        passed = passed.union(
            select(between.c.parent_turn).where(
                _here(between),
                between.c.seq == passed.c.seq,
                between.c.parent_turn.is_not(None),
                ~seen_by(between, absences),
            )
        )
        tips = _whole_turns(absences).where(completed, _turns.c.seq.not_in(select(passed.c.seq)))
    return tips.order_by(_turns.c.seq.desc()).limit(BRANCHES_LIMIT)


class _BesideReads(NamedTuple):
    """Who replies beside: to lines, at the beginning, and to nothing after a turn."""

    answers: Any
    openings: Any
    unasked: Any


def _beside_reads(absences: int | None) -> _BesideReads:
    complete = select(_owner.c.human_seq, _owner.c.seq, _owner.c.reply_seq).where(
        _here(_owner),
        _owner.c.status == TurnStatus.COMPLETED.value,
        _owner.c.reply_seq.is_not(None),
        *_seen(_owner, absences),
    )
    its_reply = (_owner.c.seq == _sibling.c.turn_seq) & (_owner.c.reply_seq == _sibling.c.seq)
    after = _owner.c.parent_turn.in_(bindparam("parents", expanding=True))
    return _BesideReads(
        complete.join(_sibling, its_reply).where(
            _here(_sibling), _sibling.c.parent_seq.in_(bindparam("lines", expanding=True))
        ),
        complete.where(_owner.c.parent_turn.is_(None), _owner.c.human_seq.is_(None)),
        complete.add_columns(_owner.c.parent_turn).where(after, _owner.c.human_seq.is_(None)),
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


def _unanswered(head: Any, absences: int | None = None) -> Any:
    """The last attempt after the turn ``head``, or since then at its own line, when it has not become a reply.

    What was spoken beside others, on a branch, answers nothing here.
    """
    attempt, at_head = _turns.alias("attempt"), _turns.alias("its_turn")
    answers = (_child.c.status != TurnStatus.COMPLETED.value) | _child.c.moves_head
    last = select(func.max(_child.c.seq).label("seq")).where(_here(_child), answers, *_seen(_child, absences))
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


class _Reads(NamedTuple):
    """The statements that read turns as a viewer with so many absences may see them."""

    these: Any
    numbered_these: Any
    by_id: Any
    by_key: Any
    tips: Any
    beside: _BesideReads
    unanswered: Any


@lru_cache(maxsize=64)
def _reads(absences: int | None) -> _Reads:
    these = _turns.c.seq.in_(bindparam("turns", expanding=True))
    numbered = _numbered(absences)
    return _Reads(
        these=_whole_turns(absences).where(these).order_by(_turns.c.seq.desc()),
        numbered_these=numbered.where(these),  # asked for in order, PostgreSQL may read the session for it
        by_id=numbered.where(_turns.c.id == bindparam("turn")),
        by_key=numbered.where(_turns.c.idempotency_key == bindparam("key")).order_by(_turns.c.ordinal),
        tips=_tips(absences),
        beside=_beside_reads(absences),
        unanswered=_unanswered(bindparam("head_turn", type_=Integer), absences),
    )


@lru_cache(maxsize=64)
def _walks(absences: int) -> tuple[Any, Any]:
    return _walk_seen(absences), _walk_over_seen(absences)


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
    return _numbered(None).add_columns(head.label("head_turn")).where(found)


class _For(NamedTuple):
    """Whose session is read, and by whom: ``where`` is what the statements take."""

    where: dict[str, Any]
    viewer: Viewer | None

    @classmethod
    def of(cls, tenant: str, session_id: str, viewer: Viewer | None) -> _For:
        mine = {} if viewer is None else viewer.values()
        return cls({"tenant": tenant, "session": session_id} | mine, viewer)

    @property
    def reads(self) -> _Reads:
        return _reads(None if self.viewer is None else self.viewer.conditions)

    def may_know(self, row: Row[Any]) -> bool:
        """Whether what belongs to a turn's speaker is the viewer's."""
        return self.viewer is None or row.speaker == self.viewer.seat


def page(
    connection: Connection,
    tenant: str,
    session_id: str,
    *,
    before: str | None,
    limit: int,
    viewer: Viewer | None = None,
) -> Page[Turn]:
    """Give a page of the active path, oldest first, and on the newest page the last attempt after it, if unresolved.

    ``before`` is the ``older`` cursor of another page. Two statements; for a ``viewer`` five at most, and one more for
    every ``PASSES`` turns that it may not see. Raises ``NotFoundError`` and ``InvalidInputError``.
    """
    start = None if before is None else numbered("turn", before)
    if viewer is not None:
        return _page_seen(connection, _For.of(tenant, session_id, viewer), viewer, start, limit)
    where = {"tenant": tenant, "session": session_id, "limit": limit + 1}
    rows = _stretch(connection, where | ({} if start is None else {"from_turn": start}))
    if not rows and before is None:
        sessions.position(connection, tenant, session_id)  # an empty page is a session's that is there
    after = [row for row in rows if row.head_turn is None or row.seq > row.head_turn]
    walked = rows[len(after) :]
    turns = _whole(connection, _For(where, None), [*after, *walked[:limit]])
    return Page(items=tuple(reversed(turns)), older=f"turn-{walked[limit].seq}" if len(walked) > limit else None)


def _page_seen(connection: Connection, of: _For, viewer: Viewer, start: int | None, limit: int) -> Page[Turn]:
    """Give a page of what a viewer may see of a path, from the turn ``start`` back, or the newest."""
    postgres.look_up(connection)
    wanted: list[int] = []
    if start is None:
        start = connection.execute(select(_HEAD_TURN), of.where).scalar()
        last = connection.execute(of.reads.unanswered, of.where | {"head_turn": start}).scalar()
        wanted += [] if last is None else [last]
        walked = _seen_before(connection, of, viewer, start, limit + 1)
    else:
        walked = _seen_before(connection, of, viewer, start, limit + 1)
        walked = walked if walked[:1] == [start] else []  # a cursor that is not of this seat's pages is as good as none
    wanted += walked[:limit]
    found = connection.execute(of.reads.numbered_these, of.where | {"turns": wanted}) if wanted else ()
    rows = sorted(found, key=lambda row: int(row.seq), reverse=True)
    return Page(
        items=tuple(reversed(_whole(connection, of, rows))),
        older=f"turn-{walked[limit]}" if len(walked) > limit else None,
    )


def _seen_before(connection: Connection, of: _For, viewer: Viewer, start: int | None, limit: int) -> list[int]:
    """Give the numbers of the last ``limit`` turns that a viewer may see of the path that ends in ``start``, newest
    first. However many lie between, no more than these are held."""
    walk, _ = _walks(viewer.conditions)
    found: list[int] = []
    while start is not None and len(found) < limit:
        where = {"from_turn": start, "limit": limit - len(found), "passes": PASSES}
        rows = sorted(connection.execute(walk, of.where | where), key=lambda row: int(row.steps))
        found += [row.seq for row in rows if row.shown]
        start = rows[-1].parent_turn if rows else None
    return found


def last_seen(
    connection: Connection, tenant: str, session_id: str, head_turn: int | None, viewer: Viewer
) -> int | None:
    """Give the number of the last turn that a viewer may see of the path that ends in ``head_turn``."""
    of = _For.of(tenant, session_id, viewer)
    return next(iter(_seen_before(connection, of, viewer, head_turn, 1)), None)


def is_all_seen(
    connection: Connection, tenant: str, session_id: str, viewer: Viewer, *, head_turn: int | None, after: int | None
) -> bool:
    """Whether the path that ends in ``head_turn`` leads to the turn ``after`` (``None``: to its beginning) over
    nothing but what a viewer may see."""
    if head_turn is None or head_turn == after:
        return head_turn == after
    where = _For.of(tenant, session_id, viewer).where | {"from_turn": head_turn, "until": after or 0}
    row = connection.execute(_walks(viewer.conditions)[1], where).first()
    if row is None:
        return False
    return row.seq == after if row.seq <= (after or 0) else bool(row.shown) and after is None


def path(connection: Connection, tenant: str, session_id: str, *, from_turn: int, limit: int) -> list[Turn]:
    """Give at most ``limit`` turns of the path that ends in ``from_turn``, newest first."""
    where = {"tenant": tenant, "session": session_id, "from_turn": from_turn, "limit": limit}
    return _whole(connection, _For(where, None), _stretch(connection, where))


def by_seq(connection: Connection, tenant: str, session_id: str, seq: int, viewer: Viewer | None = None) -> Turn:
    """Give the turn with a number. Raises ``NotFoundError``."""
    if viewer is None:
        found = path(connection, tenant, session_id, from_turn=seq, limit=1)
    else:
        of = _For.of(tenant, session_id, viewer)
        postgres.look_up(connection)
        rows = connection.execute(of.reads.numbered_these, of.where | {"turns": [seq]}).all()
        found = _whole(connection, of, rows)
    if not found:
        raise NotFoundError("turn", str(seq))
    return found[0]


def _stretch(connection: Connection, where: dict[str, Any]) -> list[Row[Any]]:
    """Give the rows of a stretch of a path, newest first; without ``from_turn``, of the newest."""
    postgres.look_up(connection)
    rows = connection.execute(_page(connection.dialect.name, newest="from_turn" not in where), where)
    return sorted(rows, key=lambda row: int(row.seq), reverse=True)


def numbers(connection: Connection, tenant: str, session_id: str, *, from_turn: int, limit: int) -> list[int]:
    """Give the numbers of at most ``limit`` turns of the path that ends in ``from_turn``, newest first."""
    where = {"tenant": tenant, "session": session_id, "from_turn": from_turn, "limit": limit}
    return sorted(connection.execute(_PATH, where).scalars(), reverse=True)


def tips(connection: Connection, tenant: str, session_id: str, viewer: Viewer | None = None) -> list[Turn]:
    """Give the last turn of each branch, newest first, ``BRANCHES_LIMIT`` at most. Reads every turn: a report."""
    of = _For.of(tenant, session_id, viewer)
    rows = connection.execute(of.reads.tips, of.where).all()
    return _whole(connection, of, rows, _beside(connection, of, rows))


def variants(
    connection: Connection, tenant: str, session_id: str, turn_id: str, viewer: Viewer | None = None
) -> list[Turn]:
    """Give a turn and all complete turns beside it, oldest reply first. Raises ``NotFoundError``."""
    of = _For.of(tenant, session_id, viewer)
    postgres.look_up(connection)
    row = connection.execute(of.reads.by_id, of.where | {"turn": turn_id}).first()
    if row is None:
        raise NotFoundError("turn", turn_id)
    beside = _beside(connection, of, [row])
    found = connection.execute(of.reads.these, of.where | {"turns": [*{row.seq, *beside[_place_of(row)]}]}).all()
    return _whole(connection, of, sorted(found, key=lambda one: int(one.reply_seq or 0)), beside)


def _whole(connection: Connection, of: _For, rows: Sequence[Row[Any]], beside: _Beside | None = None) -> list[Turn]:
    """Give rows as turns, with their calls and their numbers among the variants of their replies.

    The numbers are the rows' own, or come from ``beside``, where so many rows stand beside each other that counting
    anew for each would take its time.
    """
    known = [row.seq for row in rows if of.may_know(row)]
    by_turn = calls.of_turns(connection, of.where["tenant"], of.where["session"], known)
    turns = []
    for row in rows:
        if beside is None:
            numbers = row.before_it + 1, row.beside_it + 1
        elif row.reply_seq is None:
            numbers = 1, 1
        else:
            replies = {row.seq: row.reply_seq, **beside[_place_of(row)]}.values()
            numbers = sum(other <= row.reply_seq for other in replies), len(replies)
        turns.append(_turn(row, by_turn.get(row.seq, []), numbers, of.viewer))
    return turns


def _beside(connection: Connection, of: _For, rows: Sequence[Row[Any]]) -> _Beside:
    """Give, by the place of a reply, the numbers of the complete turns that reply there and of their replies."""
    found: _Beside = defaultdict(dict)
    places, where, reads = {_place_of(row) for row in rows}, of.where, of.reads.beside
    lines = [line for line, _ in places if line is not None]
    parents = [parent for line, parent in places if line is None and parent is not None]
    for line, turn, reply in connection.execute(reads.answers, where | {"lines": lines}).all() if lines else ():
        found[line, None][turn] = reply
    for _, turn, reply in connection.execute(reads.openings, where).all() if (None, None) in places else ():
        found[None, None][turn] = reply
    unasked = connection.execute(reads.unasked, where | {"parents": parents}).all() if parents else ()
    for _, turn, reply, parent in unasked:
        found[None, parent][turn] = reply
    return found


def _place_of(row: Row[Any]) -> tuple[int | None, int | None]:
    """What a turn answers: a human line, or none after its parent turn, or none at the beginning."""
    return (None, row.parent_turn) if row.human_seq is None else (row.human_seq, None)


def by_id(connection: Connection, tenant: str, session_id: str, turn_id: str, viewer: Viewer | None = None) -> Turn:
    """Give one turn. Raises ``NotFoundError``."""
    of = _For.of(tenant, session_id, viewer)
    postgres.look_up(connection)
    row = connection.execute(of.reads.by_id, of.where | {"turn": turn_id}).first()
    if row is None:
        raise NotFoundError("turn", turn_id)
    return _whole(connection, of, [row])[0]


def by_key(connection: Connection, tenant: str, session_id: str, key: str) -> list[tuple[Turn, str]]:
    """Give the turns that an idempotency key made, in their order, each with the digest of its arguments: one, or those
    of a round."""
    of = _For.of(tenant, session_id, None)
    postgres.look_up(connection)
    rows = connection.execute(of.reads.by_key, of.where | {"key": key}).all()
    turns = _whole(connection, of, rows) if rows else []
    return [(turn, row.body_digest) for turn, row in zip(turns, rows, strict=True)]


def unresolved(
    connection: Connection, tenant: str, session_id: str, head_turn: int | None, viewer: Viewer | None = None
) -> Turn | None:
    """Give the last attempt after the head, or since then at the head's own line, when it has not become a reply.

    A failure that the conversation has answered since, on a branch that was left, is past.
    """
    of = _For.of(tenant, session_id, viewer)
    last = connection.execute(of.reads.unanswered, of.where | {"head_turn": head_turn}).scalar()
    return None if last is None else by_seq(connection, tenant, session_id, last, viewer)


@reads("a turn")
def _turn(row: Row[Any], made: list[ModelCall], numbers: tuple[int, int], viewer: Viewer | None) -> Turn:
    known = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    human, reply = _message(known, "human"), _message(known, "reply")
    theirs = viewer is not None and viewer.seat not in {row.speaker, human.seat if human else None}
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
        metadata=json.loads(row.metadata_json) if row.metadata_json and not theirs else {},
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

"""Blanking: what a session of somebody else's holds of an owner who sits or sat in it, and its removal.

The rows of what others said stay, so that the tree stays whole. What a request held of the owner cannot be told from
the rest of it, so that such a request is given up as a whole: its call says so, and texts that no other call names go.
Reads every row of the session, each once; never inside a turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, insert, literal, literal_column, null, select, update

from roleplay.domain.context import Recipe, Span, digest
from roleplay.domain.conversation import PlayedBy, TurnKind
from roleplay.domain.erasure import Counts
from roleplay.errors import StoreError
from roleplay.store.access.tables import (
    MessageRow,
    ModelCallRow,
    ParticipantRevisionRow,
    ParticipantRow,
    PathStateRow,
    PieceRow,
    SessionRevisionRow,
    SessionRow,
    TurnRow,
    VerdictRow,
    table,
)
from roleplay.store.records import recipes
from roleplay.store.records.calls import ERASED
from roleplay.store.records.path_states import read_state
from roleplay.store.records.turns import add_pieces

_AT_ONCE = 500
#: What the beginning of a request is that was given up: a text without words, which is no damage.
_NOTHING = ""
_NO_RECIPE = recipes.rest_text(Recipe((), Span(0, 0, 0), (), ()))
_ERROR = json.dumps({"slug": "erased", "message": "what was said of this error was erased", "retryable": False})

_s = table(SessionRow).c
_r = table(SessionRevisionRow).c
_p = table(ParticipantRow).c
_q = table(ParticipantRevisionRow).c
_t = table(TurnRow).c
_m = table(MessageRow).c
_c = table(ModelCallRow).c
_v = table(VerdictRow).c
_x = table(PieceRow).c
_w = table(PathStateRow).c


def _of(columns: Any) -> Any:
    """Whether a row is of the session."""
    return (columns.tenant == bindparam("of_tenant")) & (columns.session_id == bindparam("of_session"))


_SEATS = select(_p.seat, _p.owner, _p.played_by).where(_of(_p)).order_by(_p.seat)
_PRESENT = select(_q.seat, _q.revision, _q.present).where(_of(_q)).order_by(_q.seat, _q.revision)
_TURNS = select(_t.seq, _t.kind, _t.round, _t.revision, _t.attempt, _t.human_seq).where(_of(_t)).order_by(_t.seq)
_MESSAGES = select(_m.seq, _m.parent_seq, _m.turn_seq, _m.seat).where(_of(_m)).order_by(_m.seq)
_OF_CALL = ("id", "turn_seq", "attempt", "host", "recipe_version", "recipe", "front_digest", "settings_digest")
_CALLS = select(*(_c[name] for name in _OF_CALL)).where(_of(_c), _c.request_digest != ERASED).order_by(_c.id)
_PIECES = select(_x.digest, case((_x.digest.in_(bindparam("fronts", expanding=True)), _x.text))).where(_of(_x))
_STATES = select(_w.seq, _w.seat, _w.state).where(_of(_w))
_VERDICTS = select(_v.turn_seq).where(_of(_v), _v.side == literal_column("'human'"))

_MANY: Any = bindparam("many", expanding=True)
GIVE_UP = (
    update(table(ModelCallRow))
    .where(_of(_c), _c.id.in_(_MANY))
    .values(
        request_digest=ERASED,
        front_digest=digest(_NOTHING),
        recipe=_NO_RECIPE,
        report=null(),
        reasoning=null(),
        base_message=null(),
        cut=null(),
        # A call that belongs to no turn and is in flight has ended with it: what it brings is from what was erased.
        error=case((_c.error.is_not(None) | _c.lease_until.is_not(None), literal(_ERROR))),
        lease_until=null(),
    )
)
_WITHOUT_SETTINGS = update(table(ModelCallRow)).where(_of(_c), _c.id.in_(_MANY)).values(settings_digest=null())
_DROP_PIECES = delete(table(PieceRow)).where(_of(_x), _x.digest.in_(_MANY))
_NEW_STATE = (
    update(table(PathStateRow))
    .where(_of(_w), _w.seq == bindparam("of_seq"), _w.seat == bindparam("of_seat"))
    .values(state=bindparam("new_state"))
)
_UNSAY = update(table(MessageRow)).where(_of(_m), _m.seq.in_(_MANY)).values(text="", name="", tokens=0)
_FORGET_CALLER = (
    update(table(TurnRow))
    .where(_of(_t), _t.seq.in_(_MANY))
    .values(metadata_json=null(), idempotency_key=null(), body_digest=null())
)
_UNJUDGE = (
    update(table(VerdictRow))
    .where(_of(_v), _v.side == literal_column("'human'"), _v.turn_seq.in_(_MANY))
    .values(reason="", original=null())
)
_UNNAME = (
    update(table(ParticipantRevisionRow))
    .where(_of(_q), _q.seat.in_(_MANY))
    .values(display_name="", persona_id=null(), persona_version=null(), aliases=null())
)
_DISOWN = update(table(ParticipantRow)).where(_of(_p), _p.seat.in_(_MANY)).values(owner=null())
_HERE = (_s.tenant == bindparam("of_tenant")) & (_s.id == bindparam("of_session"))
_REVISION = select(_s.revision).where(_HERE)
_SAME_REVISION = insert(table(SessionRevisionRow)).from_select(
    ["session_id", "revision", "tenant", "scene", "settings", "created_at"],
    select(
        _r.session_id,
        _r.revision + literal_column("1"),
        _r.tenant,
        _r.scene,
        _r.settings,
        bindparam("at", type_=_r.created_at.type),
    ).where(_of(_r), _r.revision == bindparam("was")),
)
#: The version moves in any case: a turn that was planned before must not be claimed with what it read.
_MOVE_ON = update(table(SessionRow)).where(_HERE).values(version=_s.version + 1, revision=_s.revision + bindparam("by"))
_SEAT = insert(table(ParticipantRow))
_SEAT_REVISION = insert(table(ParticipantRevisionRow))


NameOfNobody = Callable[[Connection, str, int], str]
"""Gives what a human without a name is called in a revision of a session."""


class Blanking(NamedTuple):
    """What is to be blanked in a session: seats, of which ``seated`` are those that somebody sits in; lines and turns
    by their numbers; calls, and those of them that the owner's own turns made; texts that go; path states that name
    one of these, as they are without; verdicts on the lines.

    ``others``: whether other humans sit there. ``last_seat`` is the highest number of a seat.
    """

    seats: tuple[int, ...]
    seated: tuple[int, ...]
    lines: tuple[int, ...]
    turns: tuple[int, ...]
    calls: tuple[str, ...]
    own_calls: tuple[str, ...]
    pieces: tuple[str, ...]
    states: tuple[tuple[int, int, str], ...]
    verdicts: int
    hosts: frozenset[str]
    others: bool
    last_seat: int

    @property
    def counts(self) -> Counts:
        """How many of each there are."""
        return Counts(
            blanked_seats=len(self.seats),
            blanked_lines=len(self.lines),
            blanked_calls=len(self.calls),
            blanked_verdicts=self.verdicts,
            pieces=len(self.pieces),
        )


def find(connection: Connection, tenant: str, session_id: str, owner: str) -> Blanking:
    """Find what a session holds of an owner; changes nothing."""
    where: dict[str, Any] = {"of_tenant": tenant, "of_session": session_id}
    rows = connection.execute(_SEATS, where).all()
    seats = {row.seat for row in rows if row.owner == owner}
    presence = _presence(connection.execute(_PRESENT, where).all())
    now = connection.execute(_REVISION, where).scalar_one()
    sits = {row.seat for row in rows if _was_there(presence.get(row.seat, ()), now, now)}
    turns = {row.seq: row for row in connection.execute(_TURNS, where)}
    messages = connection.execute(_MESSAGES, where).all()
    lines = {row.seq for row in messages if row.seat in seats and not _narrates(turns.get(row.turn_seq))}
    rounds = {turns[row.turn_seq].round for row in messages if row.seq in lines and row.turn_seq in turns}
    own = {seq for seq, turn in turns.items() if turn.round in rounds or turn.human_seq in lines}
    there = [one for seat in seats for one in presence.get(seat, ())]
    nearest: dict[int | None, int] = {}  # the newest line on the way to each message, itself included
    for row in messages:
        nearest[row.seq] = row.seq if row.seq in lines else nearest.get(row.parent_seq, 0)
    calls: list[Any] = []
    kept: list[Any] = []
    for call in connection.execute(_CALLS, where).all():
        held = _held(call, turns.get(call.turn_seq), there, nearest)
        (calls if held else kept).append(call)
    own_calls = tuple(call.id for call in calls if call.turn_seq in own)
    pieces, states = _left_over(connection, where, kept, [call for call in calls if call.turn_seq not in own])
    return Blanking(
        seats=tuple(sorted(seats)),
        seated=tuple(sorted(seats & sits)),
        lines=tuple(sorted(lines)),
        turns=tuple(sorted(own)),
        calls=tuple(call.id for call in calls),
        own_calls=own_calls,
        pieces=pieces,
        states=states,
        verdicts=sum(seq in own for seq in connection.execute(_VERDICTS, where).scalars()),
        hosts=frozenset(call.host for call in calls),
        others=any(row.seat in sits - seats for row in rows if row.played_by == PlayedBy.HUMAN),
        last_seat=max((row.seat for row in rows), default=0),
    )


def _narrates(turn: Any) -> bool:
    """Whether a turn's line is the narrator's, who has no seat and is kept with the first human's."""
    return turn is not None and turn.kind == TurnKind.NARRATION


def _presence(rows: Iterable[Any]) -> dict[int, list[tuple[int, int | None]]]:
    """Give by seat the revisions in which somebody sat there, each from the first up to and without the second."""
    found: dict[int, list[tuple[int, int | None]]] = {}
    for row in rows:
        spans = found.setdefault(row.seat, [])
        if spans and spans[-1][1] is None:
            spans[-1] = (spans[-1][0], row.revision)
        if row.present is None or row.present:
            spans.append((row.revision, None))
    return found


def _was_there(spans: Iterable[tuple[int, int | None]], first: int, last: int) -> bool:
    return any(begin <= last and (end is None or first < end) for begin, end in spans)


def _held(call: Any, turn: Any, there: Sequence[tuple[int, int | None]], nearest: dict[int | None, int]) -> bool:
    """Whether a request may have held something of the owner: their name, as long as they sat there, or a line.

    An attempt before a turn's last one may have been of any revision before. What cannot be told, is taken for yes.
    """
    if turn is None:
        return True
    if _was_there(there, turn.revision if call.attempt == turn.attempt else 1, turn.revision):
        return True
    try:
        history = recipes.read("[]", call.recipe, call.recipe_version).history
    except StoreError:
        return True
    return history.last > 0 and nearest.get(history.last, 0) >= max(history.first, 1)


def _left_over(
    connection: Connection, where: dict[str, Any], kept: Sequence[Any], with_settings: Sequence[Any]
) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
    """Give the texts that no call names that keeps its own, and the path states that name one, as they are without."""
    fronts = {call.front_digest for call in kept}
    texts = {row[0]: row[1] for row in connection.execute(_PIECES, where | {"fronts": sorted(fronts)})}
    named = {call.settings_digest for call in (*kept, *with_settings)} | fronts | {digest(_NOTHING)}
    for call in kept:
        try:
            recipe = recipes.read(texts.get(call.front_digest) or "[]", call.recipe, call.recipe_version)
        except StoreError:
            continue  # it could not be rebuilt before
        named |= {one.digest for one in (*recipe.front, *recipe.tail, *(one.piece for one in recipe.insertions))}
    gone = texts.keys() - named
    states = []
    for row in connection.execute(_STATES, where):
        try:
            state = read_state(row.state)
        except StoreError:
            continue
        if state is not None and state.digests & gone:
            front, settings = (("" if one in gone else one) for one in (state.front, state.settings))
            states.append((row.seq, row.seat, state._replace(front=front, settings=settings).written()))
    return tuple(sorted(gone)), tuple(states)


def blank(
    connection: Connection,
    tenant: str,
    session_id: str,
    found: Blanking,
    *,
    nobody: NameOfNobody,
    at: datetime,
) -> None:
    """Blank what was found, and let the owner's seats be left. Where no human sits there then, a seat without a name
    is added, so that the session can be read and goes on."""
    where: dict[str, Any] = {"of_tenant": tenant, "of_session": session_id}
    if found.seated:
        _leave(connection, where, found, nobody, at)
    connection.execute(_MOVE_ON, where | {"by": 1 if found.seated else 0})
    if found.calls:
        add_pieces(connection, tenant, session_id, {digest(_NOTHING): _NOTHING})
    for statement, what in (
        (GIVE_UP, found.calls),
        (_WITHOUT_SETTINGS, found.own_calls),
        (_DROP_PIECES, found.pieces),
        (_UNSAY, found.lines),
        (_FORGET_CALLER, found.turns),
        (_UNJUDGE, found.turns),
        (_UNNAME, found.seats),
        (_DISOWN, found.seats),
    ):
        for some in _chunks(what):
            connection.execute(statement, where | {"many": some})
    if found.states:
        rows = [where | {"of_seq": seq, "of_seat": seat, "new_state": state} for seq, seat, state in found.states]
        connection.execute(_NEW_STATE, rows)


def _chunks(what: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(what), _AT_ONCE):
        yield list(what[start : start + _AT_ONCE])


def _leave(connection: Connection, where: dict[str, Any], found: Blanking, nobody: NameOfNobody, at: datetime) -> None:
    """Write the revision of the session in which nobody sits in the owner's seats any more."""
    was = connection.execute(_REVISION, where).scalar_one()
    name = "" if found.others else nobody(connection, where["of_session"], was)
    connection.execute(_SAME_REVISION, where | {"was": was, "at": at})
    plain = {"session_id": where["of_session"], "tenant": where["of_tenant"], "revision": was + 1}
    connection.execute(
        _SEAT_REVISION, [plain | {"seat": seat, "display_name": "", "present": False} for seat in found.seated]
    )
    if not found.others:
        seat = {"seat": found.last_seat + 1}
        row = {key: value for key, value in plain.items() if key != "revision"}
        connection.execute(_SEAT, row | seat | {"played_by": PlayedBy.HUMAN.value, "owner": None})
        connection.execute(_SEAT_REVISION, plain | seat | {"display_name": name, "present": True})

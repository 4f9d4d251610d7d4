"""What a path hands on to its next turns: one row a seat, written by the turn that changed it.

Seat 0 is for what all seats share. A turn names for each seat the turn that wrote its row last, as a map in JSON: what
it changed itself under its own number, everything else as its parent names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, bindparam, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from roleplay.store.access.decoding import as_text, reads
from roleplay.store.access.tables import PathStateRow, table

#: How long a row's JSON may be, in characters, all of them ASCII; a CHECK of the table holds it too.
LIMIT = 8192
SHARED = 0
_s = table(PathStateRow).c


class SeatState(NamedTuple):
    """What a path hands on for a seat: where its history window starts (the ``seq`` of a message, 0: at the beginning),
    the digests of the front and of the settings that its requests of this epoch have, and which dialogues are in, as a
    choice is written (empty: the persona has none).

    All seats share the order of speech: which seat of the model's spoke ``last`` (0: none), and which have ``spoken``
    since a human did, as far as all may see. Sessions with one seat of the model's write no row of seat 0.
    """

    window_start: int = 0
    front: str = ""
    settings: str = ""
    examples: str = ""
    last: int = 0
    spoken: tuple[int, ...] = ()

    def fitting(self) -> SeatState:
        """Give the state as a row can hold it: one that is too long loses its choice of dialogues, which is made anew
        at the next turn then."""
        return self if len(self.written()) <= LIMIT else self._replace(examples="")

    def written(self) -> str:
        """Write the state as JSON; what is as in a new path is left out."""
        values = {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}
        return json.dumps(values, separators=(",", ":"))

    @property
    def digests(self) -> frozenset[str]:
        """The texts of the session that it names."""
        return frozenset(one for one in (self.front, self.settings) if one)


@lru_cache(maxsize=512)
@reads("what a path hands on")
def read_state(stored: str | None) -> SeatState | None:
    """Read a state; ``None`` where nothing was handed on, or no more. Raises ``StoreError``."""
    values = {} if stored is None else json.loads(as_text(stored))
    values["spoken"] = tuple(values.get("spoken", ()))
    state = SeatState(**values)
    for number in (state.window_start, state.last, *state.spoken):
        if type(number) is not int or number < 0:
            raise ValueError("a number")
    for text in (state.front, state.settings, state.examples):
        as_text(text)
    return state if state != SeatState() else None


@reads("the path states of a turn")
def read_map(stored: str | None) -> dict[int, int]:
    """Read which turn wrote each seat's state last. Raises ``StoreError``."""
    values = {} if stored is None else json.loads(as_text(stored))
    found = {int(seat): turn for seat, turn in values.items()}
    if any(seat < SHARED or type(turn) is not int or turn < 1 for seat, turn in found.items()):
        raise ValueError("states")
    return found


def map_with(stored: str | None, changed: Iterable[int], turn_seq: int) -> str | None:
    """Give the map of a turn that inherits ``stored`` and writes the states of some seats itself."""
    found = dict.fromkeys(changed, turn_seq)
    if not found:
        return stored
    return write_map(read_map(stored) | found)


def write_map(turns: Mapping[int, int]) -> str:
    """Write a map, by seats."""
    return json.dumps({str(seat): turns[seat] for seat in sorted(turns)}, separators=(",", ":"))


class last_writer(FunctionElement[int]):  # noqa: N801 - a function of SQL
    """The turn that wrote a seat's state last, by a turn's map: ``last_writer(states, seat)``."""

    type = Integer()
    inherit_cache = True


@compiles(last_writer, "sqlite")
def _on_sqlite(element: last_writer, compiler: Any, **options: Any) -> str:
    states, seat = (compiler.process(one, **options) for one in element.clauses)
    return f"json_extract({states}, '$.\"' || {seat} || '\"')"


@compiles(last_writer, "postgresql")
def _on_postgresql(element: last_writer, compiler: Any, **options: Any) -> str:
    states, seat = (compiler.process(one, **options) for one in element.clauses)
    return f"CAST(CAST({states} AS json) ->> CAST({seat} AS text) AS integer)"


_STATE = select(_s.state).where(
    _s.tenant == bindparam("tenant"),
    _s.session_id == bindparam("session"),
    _s.seq == bindparam("turn"),
    _s.seat == bindparam("seat"),
)


def state_of(connection: Connection, tenant: str, session_id: str, states: str | None, seat: int) -> str | None:
    """Give the state that a turn with the map ``states`` hands on for a seat, as it is stored."""
    turn = read_map(states).get(seat)
    where = {"tenant": tenant, "session": session_id, "turn": turn, "seat": seat}
    found = None if turn is None else connection.execute(_STATE, where).scalar()
    return None if found is None else as_text(found)


def handed_on(state: Any, turn: Any, seat: Any) -> Any:
    """Whether a row of path states is the one that a turn hands on for a seat."""
    return (
        (state.c.session_id == turn.c.session_id)
        & (state.c.tenant == turn.c.tenant)
        & (state.c.seat == seat)
        & (state.c.seq == last_writer(turn.c.states, seat))
    )

"""The doctor's reading: every column of every row of a tenant, as the driver gives it, and whether we write such."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Float, Integer, Table, bindparam, select, text

from roleplay.context.draws import read_draws
from roleplay.domain.context import digest
from roleplay.domain.conversation import Cut, PlayedBy, TurnKind, TurnStatus
from roleplay.domain.endpoint import Dialect
from roleplay.domain.settings import SessionSettings
from roleplay.errors import StoreError
from roleplay.store.access.decoding import as_text
from roleplay.store.access.tables import (
    CAUSES,
    Base,
    MessageRow,
    ModelCallRow,
    ParticipantRevisionRow,
    PathStateRow,
    PieceRow,
    TurnRow,
    UtcDateTime,
    table,
)
from roleplay.store.records import audience as audiences
from roleplay.store.records import recipes
from roleplay.store.records.calibrations import read_fit
from roleplay.store.records.path_states import read_map, read_state
from roleplay.store.records.reports import read_report
from roleplay.store.upkeep.checks import Fault, Finding, finding

_AT_ONCE = 500
_KEYS = ("session_id", "persona_id", "id", "model")
_NUMBERS = ("seq", "turn_seq", "version", "revision", "seat")
#: What a path hands on, by column: where it cannot be read, the path begins anew.
_OF_PATHS = ("state", "states")
_MESSAGES = table(MessageRow).name
_c = table(ModelCallRow).c
_p = table(PieceRow).c
_THERE = select(_p.digest).where(
    _p.tenant == bindparam("tenant"),
    _p.session_id == bindparam("session"),
    _p.digest.in_(bindparam("digests", expanding=True)),
)
_q = table(ParticipantRevisionRow).c
_s = table(PathStateRow).c
_t = table(TurnRow).c
_STATES = select(_s.session_id, _s.seat, _s.seq, _s.state).where(_s.tenant == bindparam("tenant"))
_MAPS = select(_t.session_id, _t.seq, _t.states).where(_t.tenant == bindparam("tenant"), _t.states.is_not(None))


def _json(kind: type) -> Callable[[str], Any]:
    def check(stored: str) -> Any:
        value = json.loads(stored)
        if not isinstance(value, kind):
            raise TypeError(type(value).__name__)
        return value

    return check


def _texts(stored: str) -> None:
    for one in _json(list)(stored):
        as_text(one)


def _one_of(words: Any) -> Callable[[str], None]:
    known = frozenset(map(str, words))

    def check(stored: str) -> None:
        if stored not in known:
            raise ValueError(stored)

    return check


#: What a text must be beyond a text, by the column's name, or by table and column.
_MORE: dict[str, Callable[[str], Any]] = {
    "metadata_json": _json(dict),
    "extensions": _json(dict),
    "parameters": _json(dict),
    "error": _json(dict),
    "greetings": _texts,
    "tags": _texts,
    "settings": lambda stored: SessionSettings(**_json(dict)(stored)),
    "state": read_state,
    "states": read_map,
    "draws": read_draws,
    "aliases": _texts,
    "audience": audiences.read,
    "cut": lambda stored: Cut(**_json(dict)(stored)),
    "fit": read_fit,
    "report": read_report,
    "kind": _one_of(TurnKind),
    "status": _one_of(TurnStatus),
    "played_by": _one_of(PlayedBy),
    "role": _one_of(("user", "assistant")),
    "dialect": _one_of(Dialect),
    "cause": _one_of(CAUSES),
    "side": _one_of(("human", "reply")),
    "action": _one_of(("replace", "refuse")),
}


#: What to do about one of these columns that cannot be read, beyond what is done about any.
_TO_DO = {
    "audience": "; nobody can tell whom it was said to but its turn and the turn's messages, which have the same one:"
    " copy theirs, or write the speaker's seat alone, as ,2,",
    "aliases": "; write a JSON list of names there, such as []",
}


def unreadable(connection: Connection, tenant: str) -> Iterator[Finding]:
    """Give every value that is not what its column holds. Reads every row of the tenant once."""
    for one in Base.metadata.sorted_tables:
        if "tenant" in one.c:
            yield from _in_table(connection, tenant, one)


def _in_table(connection: Connection, tenant: str, of: Table) -> Iterator[Finding]:
    columns = [one for one in of.c if one.name != "tenant"]
    names = [one.name for one in columns]
    statement = text(f"SELECT {', '.join(names)} FROM {of.name} WHERE tenant = :tenant")  # noqa: S608 - names of ours
    what = of.name.removeprefix("roleplay_")
    for row in connection.execute(statement, {"tenant": tenant}, execution_options={"yield_per": _AT_ONCE}):
        values = dict(zip(names, row, strict=True))
        for column in columns:
            try:
                _check(column, values)
            except (StoreError, ValueError, TypeError, LookupError, AttributeError):
                is_state = column.name in _OF_PATHS
                fault = Fault.UNREADABLE_MESSAGE if of.name == _MESSAGES else Fault.UNREADABLE
                yield finding(
                    Fault.UNREADABLE_STATE if is_state else fault,
                    str(next(values[name] for name in _KEYS if name in values)),
                    next((values[name] for name in _NUMBERS if isinstance(values.get(name), int)), None),
                    f"{what}.{column.name} holds what is never written there{_TO_DO.get(column.name, '')}",
                    mendable=is_state,
                )


def _check(column: Column[Any], values: dict[str, Any]) -> None:
    value, kind = values[column.name], column.type
    if value is None:
        if not column.nullable:
            raise TypeError("NULL")
    elif isinstance(kind, UtcDateTime):
        if not isinstance(value, datetime):
            datetime.fromisoformat(as_text(value))
    elif isinstance(kind, Boolean | Integer | Float):
        if not isinstance(value, int | float if isinstance(kind, Float) else int):
            raise TypeError(type(value).__name__)
        if column is _q.talkativeness and not 0 <= value <= 1:
            raise ValueError("a likelihood")
    elif column is _c.recipe:
        recipes.read("[]", as_text(value), values["recipe_version"])
    else:
        _MORE.get(column.name, as_text)(as_text(value))
        if column is _p.text and digest(value) != values["digest"]:
            raise ValueError("another text than the one that was stored")


def lost_states(connection: Connection, tenant: str) -> Iterator[Finding]:
    """Give the turns whose map names a path state that is not there, and the path states that name a text of the
    session's which is not there, so that no request could begin."""
    there = {(row.session_id, row.seat, row.seq): row.state for row in connection.execute(_STATES, {"tenant": tenant})}
    for session_id, seq, states in connection.execute(_MAPS, {"tenant": tenant}).all():
        with suppress(StoreError):  # told as unreadable
            if any((session_id, *place) not in there for place in read_map(states).items()):
                says = "a turn whose path state is not there; its path begins one anew once it is mended"
                yield finding(Fault.LOST_STATE, session_id, seq, says, mendable=True)
    for (session_id, _, seq), state in there.items():
        with suppress(StoreError):
            if not names_texts(connection, tenant, session_id, state):
                says = "a path state that names texts which are not there; its path begins one anew once it is mended"
                yield finding(Fault.STATE_OF_LOST_TEXT, session_id, seq, says, mendable=True)


def names_texts(connection: Connection, tenant: str, session_id: str, stored: str) -> bool:
    """Whether all texts that a path state names are there. Raises ``StoreError`` for one that cannot be read."""
    state = read_state(stored)
    named = state.digests if state else frozenset()
    where = {"tenant": tenant, "session": session_id, "digests": sorted(named)}
    return not named or not named - set(connection.execute(_THERE, where).scalars())

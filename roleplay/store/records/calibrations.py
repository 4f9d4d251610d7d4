"""What was learned of models' tokens: a row for each tenant, model, host, dialect and counter."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from roleplay.context.builder import Load
from roleplay.context.calibration import Cut, Fit, Seen, Trust
from roleplay.domain.endpoint import Dialect
from roleplay.store.access.decoding import reads
from roleplay.store.access.tables import CalibrationRow, table

_c = table(CalibrationRow).c
_SUBJECT = ("tenant", "model", "host", "dialect", "counter")
_HERE = [_c[name] == bindparam(f"of_{name}") for name in _SUBJECT]
_FIT = select(_c.fit).where(*_HERE)
_LOCKED = _FIT.with_for_update()
_OF_TENANT = select(table(CalibrationRow)).where(_c.tenant == bindparam("tenant"))
_INSERT = {
    "sqlite": sqlite.insert(table(CalibrationRow)).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(table(CalibrationRow)).on_conflict_do_nothing(),
}
_UPDATE = update(table(CalibrationRow)).where(*_HERE)


class Subject(NamedTuple):
    """Whose tokens, as which counter counts them."""

    tenant: str
    model: str
    host: str
    dialect: str
    counter: str

    @property
    def where(self) -> dict[str, str]:
        """Give the parameters that name the row."""
        return {f"of_{name}": getattr(self, name) for name in _SUBJECT}


def fit(connection: Connection, of: Subject) -> Fit:
    """Give what was learned; nothing yet where there is no row."""
    stored = connection.execute(_FIT, of.where).scalar()
    return Fit() if stored is None else read_fit(stored)


def merge(connection: Connection, of: Subject, learn: Callable[[Fit], Fit], *, at: datetime) -> Fit:
    """Let ``learn`` go on from what is stored now, whoever stored it, and store what it gives."""
    row = of._asdict() | {"fit": _written(Fit()), "updated_at": at}
    connection.execute(_INSERT[connection.dialect.name], row)
    learned = learn(read_fit(connection.execute(_LOCKED, of.where).scalar_one()))
    connection.execute(_UPDATE, of.where | {"fit": _written(learned), "updated_at": at})
    return learned


def of_tenant(connection: Connection, tenant: str) -> list[tuple[Subject, Fit]]:
    """Give all that was learned about a tenant's models."""
    rows = connection.execute(_OF_TENANT, {"tenant": tenant}).all()
    return [_read(row) for row in rows]


@reads("a calibration")
def _read(row: Any) -> tuple[Subject, Fit]:
    Dialect(row.dialect)
    return Subject(*(getattr(row, name) for name in _SUBJECT)), read_fit(row.fit)


def _written(learned: Fit) -> str:
    return json.dumps(learned, separators=(",", ":"))


@reads("a calibration")
def read_fit(stored: str) -> Fit:
    """Read a fit back from its text."""
    squares, products, observations, error, refused, answered, *compared = json.loads(stored)
    # A fit that was written before reports were compared has nothing of that.
    trail, trust, doubts, signs, cut = compared or ((), Trust.UNPROVEN, 0, 0, None)
    if (len(squares), len(products)) != (10, 4) or (trust == Trust.BELIEVED and not trail):
        raise ValueError("sums of another size, or believed without a report")
    return Fit(
        squares=tuple(map(float, squares)),
        products=tuple(map(float, products)),
        observations=int(observations),
        error=None if error is None else float(error),
        refused=_load_of(refused),
        answered=_load_of(answered),
        trail=tuple([Seen(_load(load), int(reported), int(session)) for load, reported, session in trail]),
        trust=Trust(trust),
        doubts=int(doubts),
        signs=int(signs),
        cut=None if cut is None else Cut(_load(cut[0]), int(cut[1]), int(cut[2])),
    )


def _load_of(stored: Any) -> tuple[Load, int] | None:
    return None if stored is None else (_load(stored[0]), int(stored[1]))


def _load(stored: Any) -> Load:
    narrow, wide, messages = stored
    return Load(float(narrow), float(wide), int(messages))

"""Whom a message was said to, and the one question that follows: may this seat see it?

The question stands here twice, as a predicate and as an expression of SQL; a property test holds them equal. What asks
it: histories, transcripts, rebuilds, and whatever else shows messages or is computed from them.

A message has an audience from its turn on, which never changes: the numbers of seats as ``,2,5,``, so that SQL can
find one of them, or ``NULL`` for all. A seat of the audience hears nothing of what was said while nobody sat in it,
which the revisions of the session tell: each message names the one that it was said under.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, String, bindparam, case, func, literal_column

from roleplay.store.access.decoding import as_text, reads

FOR_EVER = 2**31 - 1
Absence = tuple[int, int]
"""Revisions of a session, from the first up to and without the second, in which nobody sat in a seat."""


class Viewer(NamedTuple):
    """Who looks at a session: a seat, and when nobody sat in it, as far as that keeps it from seeing what was said: one
    absence after the other."""

    seat: int
    absences: tuple[Absence, ...] = ()

    def as_of(self, revision: int) -> Viewer:
        """Give the viewer as of a revision: what is said under later ones, in which the seat may have been left, is not
        for it."""
        if self.absences and self.absences[-1][1] == FOR_EVER:
            return self
        return self._replace(absences=(*self.absences, (revision + 1, FOR_EVER)))

    @property
    def conditions(self) -> int:
        """For how many absences a statement asks: a power of two, so that few statements serve all viewers."""
        return 1 << (len(self.absences) - 1).bit_length() if self.absences else 0

    def values(self) -> dict[str, Any]:
        """Give what the statements take that ``seen_by`` stands in."""
        values: dict[str, Any] = {"viewer": f"%,{self.seat},%"}
        padding = ((FOR_EVER, FOR_EVER),) * (self.conditions - len(self.absences))
        for place, (begin, end) in enumerate((*self.absences, *padding)):
            values |= {f"absent_{place}": begin, f"back_{place}": end}
        return values


def written(seats: Iterable[int] | None) -> str | None:
    """Write an audience as it is stored."""
    return None if seats is None else f",{','.join(map(str, sorted(set(seats))))},"


@reads("the audience of a message")
def read(stored: str | None) -> tuple[int, ...] | None:
    """Read an audience back. Raises ``StoreError``."""
    if stored is None:
        return None
    seats = tuple(int(one) for one in as_text(stored).strip(",").split(","))
    if written(seats) != stored or seats[0] < 1:
        raise ValueError("audience")
    return seats


def may_see(viewer: Viewer, audience: str | None, revision: int | None) -> bool:
    """Whether a seat may see a message with this audience that was said under this revision of the session."""
    heard = audience is None or f",{viewer.seat}," in audience
    return heard and not any(begin <= (revision or 1) < end for begin, end in viewer.absences)


def seen_by(rows: Any, absences: int) -> ColumnElement[bool]:
    """Whether a viewer with so many absences may see a row with an audience and a revision; takes ``Viewer.values``.

    The first bound of an absence that the revision lies below tells. One condition for each absence would make an
    expression deeper with each, and SQLite takes none that is a thousand deep.
    """
    audience, revision = rows.c.audience, func.coalesce(rows.c.revision, literal_column("1"))
    seen: ColumnElement[bool] = audience.is_(None) | audience.like(bindparam("viewer", type_=String))
    there, away = literal_column("1", Integer), literal_column("0", Integer)
    bounds = [
        (revision < bindparam(f"{name}_{place}", type_=Integer), is_there)
        for place in range(absences)
        for name, is_there in (("absent", there), ("back", away))
    ]
    return seen & (case(*bounds, else_=there) == there) if bounds else seen

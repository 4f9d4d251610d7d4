"""What a session is from a revision on: its scene, its settings, and its seats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, literal_column, select, update

from roleplay.domain.conversation import DEFAULT_TALKATIVENESS, Participant, PlayedBy, SessionInfo
from roleplay.domain.persona import StoredPersona
from roleplay.domain.settings import SessionSettings
from roleplay.errors import NotFoundError, StoreError
from roleplay.store.access.decoding import absent, as_numbers, as_text, reads
from roleplay.store.access.tables import (
    ParticipantRevisionRow,
    ParticipantRow,
    SessionRevisionRow,
    SessionRow,
    table,
)
from roleplay.store.records import personas
from roleplay.store.records.audience import FOR_EVER, Absence

FIRST_REVISION = 1
_s = table(SessionRow).c
_r = table(SessionRevisionRow).c
_p = table(ParticipantRow).c
_q = table(ParticipantRevisionRow).c

_INSERT_REVISION = insert(table(SessionRevisionRow))
_INSERT_SEAT = insert(table(ParticipantRow))
_INSERT_SEAT_REVISION = insert(table(ParticipantRevisionRow))
#: Whose turn it is where nobody is named: the first seat that the model plays.
FIRST_MODEL = (
    select(func.min(_p.seat))
    .where(
        _p.tenant == bindparam("tenant"),
        _p.session_id == bindparam("session"),
        _p.played_by == literal_column("'model'"),
    )
    .scalar_subquery()
)
_REVISION = select(_r.scene, _r.settings).where(
    _r.tenant == bindparam("tenant"), _r.session_id == bindparam("session"), _r.revision == bindparam("revision")
)
_OF_SEAT = (
    _p.seat,
    _p.played_by,
    _p.owner,
    *(_q[name] for name in ("display_name", "persona_id", "persona_version", "aliases")),
    *(_q[name] for name in ("place", "talkativeness", "muted", "present")),
)
_its_seat = (_q.session_id == _p.session_id) & (_q.tenant == _p.tenant) & (_q.seat == _p.seat)
#: What each seat was, one revision after the other.
_CAST = (
    select(*_OF_SEAT, _q.revision)
    .join(table(ParticipantRevisionRow), _its_seat)
    .where(
        _p.tenant == bindparam("tenant"), _p.session_id == bindparam("session"), _q.revision <= bindparam("revision")
    )
    .order_by(_p.seat, _q.revision)
)
_later = table(ParticipantRevisionRow).alias("later")
_CASTS = (
    select(_s.id, *_OF_SEAT)
    .join(table(ParticipantRow), (_p.session_id == _s.id) & (_p.tenant == _s.tenant))
    .join(table(ParticipantRevisionRow), _its_seat)
    .where(
        _s.tenant == bindparam("tenant"),
        _s.id.in_(bindparam("sessions", expanding=True)),
        _q.revision
        == select(func.max(_later.c.revision))
        .where(
            _later.c.tenant == _p.tenant,
            _later.c.session_id == _p.session_id,
            _later.c.seat == _p.seat,
            _later.c.revision <= _s.revision,
        )
        .scalar_subquery(),
    )
    .order_by(_s.id, _p.seat)
)
_IS_THERE = select(_s.id).where(_s.tenant == bindparam("tenant"), _s.id == bindparam("session"))
_NEW_REVISION = (
    update(table(SessionRow))
    .where(_s.tenant == bindparam("of_tenant"), _s.id == bindparam("of_session"))
    .values(revision=_s.revision + 1, version=_s.version + 1)
)


@dataclass(frozen=True, slots=True)
class Seat:
    """A seat with the persona version in it, if there is one. ``absences``: in which revisions nobody sat there, up to
    the one that it is read as of."""

    participant: Participant
    persona: StoredPersona | None
    absences: tuple[Absence, ...] = ()

    @property
    def present(self) -> bool:
        """Whether somebody sits there."""
        return not self.absences or self.absences[-1][1] != FOR_EVER


@dataclass(frozen=True, slots=True)
class Revision:
    """What a revision of a session says: scene, settings and seats, also those that were left. Immutable, so it may be
    kept in memory."""

    revision: int
    scene: str
    settings: SessionSettings
    seats: tuple[Seat, ...]

    def played_by(self, player: PlayedBy) -> list[Seat]:
        """The seats that the model plays, or humans, where somebody sits; in their order."""
        return [seat for seat in self.seats if seat.present and seat.participant.played_by is player]

    def seat(self, number: int) -> Seat | None:
        """The seat with a number, left or not."""
        return next((one for one in self.seats if one.participant.seat == number), None)

    @property
    def is_group(self) -> bool:
        """Whether there are, or were, several seats of the model's or several of humans."""
        players = [seat.participant.played_by for seat in self.seats]
        return any(players.count(player) > 1 for player in PlayedBy)


def revision(connection: Connection, tenant: str, session_id: str, revision: int) -> Revision:
    """Read a revision of a session with the persona versions in its seats. Raises ``NotFoundError``."""
    where = {"tenant": tenant, "session": session_id, "revision": revision}
    row = connection.execute(_REVISION, where).first()
    if row is None:
        raise missing(connection, tenant, session_id, f"revision {revision}")
    cast = _seats(connection.execute(_CAST, where).all())
    check_cast(session_id, [one for one, absences in cast if not absences or absences[-1][1] != FOR_EVER])
    seats = [Seat(one, _persona(connection, tenant, one), absences) for one, absences in cast]
    return _revision(row, revision, tuple(seats))


@reads("a revision of a session")
def _revision(row: Row[*tuple[Any, ...]], revision: int, seats: tuple[Seat, ...]) -> Revision:
    return Revision(revision, as_text(row.scene), SessionSettings(**json.loads(row.settings)), seats)


def _persona(connection: Connection, tenant: str, participant: Participant) -> StoredPersona | None:
    if participant.persona_id is None:
        return None
    try:
        return personas.get(connection, tenant, participant.persona_id, version=participant.persona_version)
    except NotFoundError as error:
        raise absent(f"{error.kind} {error.key}", f"seat {participant.seat}") from None


def missing(connection: Connection, tenant: str, session_id: str, what: str) -> StoreError | NotFoundError:
    """Tell a session of which ``what`` is lost from one that is not there."""
    is_there = connection.execute(_IS_THERE, {"tenant": tenant, "session": session_id}).first()
    return NotFoundError("session", session_id) if is_there is None else absent(what, f"session {session_id}")


def check_cast(session_id: str, cast: Sequence[Participant]) -> None:
    """Raise ``StoreError`` where somebody is missing without whom nobody can speak."""
    for played_by in set(PlayedBy) - {one.played_by for one in cast}:
        raise absent(f"the seat of the {played_by}", f"session {session_id}")


def write_first(connection: Connection, tenant: str, info: SessionInfo) -> None:
    """Write the first revision of a new session, with its seats."""
    plain: dict[str, Any] = {"session_id": info.id, "tenant": tenant}
    settings = info.settings.model_dump_json(exclude_defaults=True)
    connection.execute(
        _INSERT_REVISION,
        plain | {"revision": FIRST_REVISION, "scene": info.scene, "settings": settings, "created_at": info.created_at},
    )
    connection.execute(_INSERT_SEAT, [_seat_row(plain, one) for one in info.cast])
    connection.execute(_INSERT_SEAT_REVISION, [_seat_revision_row(plain, one, FIRST_REVISION) for one in info.cast])


def _seat_row(plain: dict[str, Any], one: Participant) -> dict[str, Any]:
    return plain | {"seat": one.seat, "played_by": one.played_by.value, "owner": one.owner}


def _seat_revision_row(
    plain: dict[str, Any], one: Participant, revision: int, *, present: bool = True
) -> dict[str, Any]:
    return plain | {
        "seat": one.seat,
        "revision": revision,
        "display_name": one.display_name,
        "persona_id": one.persona_id,
        "persona_version": one.persona_version,
        "aliases": json.dumps(one.aliases, ensure_ascii=False) if one.aliases else None,
        "place": one.order,
        "talkativeness": one.talkativeness,
        "muted": one.muted,
        "present": present,
    }


def change_seat(
    connection: Connection, tenant: str, session_id: str, one: Participant, revision: int, *, present: bool, new: bool
) -> None:
    """Say what a seat is from a revision on, which ``add_revision`` has added; a ``new`` one is made."""
    plain = {"session_id": session_id, "tenant": tenant}
    if new:
        connection.execute(_INSERT_SEAT, _seat_row(plain, one))
    connection.execute(_INSERT_SEAT_REVISION, _seat_revision_row(plain, one, revision, present=present))


def add_revision(
    connection: Connection,
    tenant: str,
    session_id: str,
    revision: int,
    *,
    scene: str,
    settings: SessionSettings,
    at: datetime,
) -> None:
    """Add a revision of a session with another scene or other settings, under ``lock``."""
    connection.execute(_NEW_REVISION, {"of_tenant": tenant, "of_session": session_id})
    row = {"session_id": session_id, "tenant": tenant, "revision": revision, "scene": scene, "created_at": at}
    connection.execute(_INSERT_REVISION, row | {"settings": settings.model_dump_json(exclude_defaults=True)})


def cast_of(connection: Connection, tenant: str, session_id: str, revision: int) -> tuple[Participant, ...]:
    """Give who sits in one session under a revision, in order: by a statement that names the session, so that an engine
    which spreads sessions asks one server."""
    where = {"tenant": tenant, "session": session_id, "revision": revision}
    found = _seats(connection.execute(_CAST, where).all())
    return tuple(one for one, absences in found if not absences or absences[-1][1] != FOR_EVER)


def casts_of(connection: Connection, tenant: str, sessions: Sequence[str]) -> dict[str, tuple[Participant, ...]]:
    """Give who sits in some sessions now, in order, in one statement."""
    casts: dict[str, list[Participant]] = {one: [] for one in sessions}
    if sessions:
        for seat in connection.execute(_CASTS, {"tenant": tenant, "sessions": list(casts)}):
            if _is_present(seat):
                casts[seat.id].append(_participant(seat))
    return {one: tuple(sorted(cast, key=lambda seat: (seat.order, seat.seat))) for one, cast in casts.items()}


@reads("the seats of a session")
def _seats(rows: Sequence[Row[*tuple[Any, ...]]]) -> list[tuple[Participant, tuple[Absence, ...]]]:
    """Give each seat as its newest row says, in order, with the revisions in which nobody sat there."""
    found = []
    for _, group in groupby(rows, key=lambda row: row.seat):
        absences: list[Absence] = []
        left: int | None = FIRST_REVISION  # until its first row says that somebody sits there
        row = None
        for row in group:
            as_numbers([row.revision])
            if left is not None and _is_present(row):
                absences += [(left, row.revision)] if left < row.revision else []
                left = None
            elif left is None and not _is_present(row):
                left = row.revision
        absences += [(left, FOR_EVER)] if left is not None else []
        found.append((_participant(row), tuple(absences)))
    return sorted(found, key=lambda one: (one[0].order, one[0].seat))


def _is_present(row: Row[*tuple[Any, ...]]) -> bool:
    return row.present is None or bool(row.present)


@reads("a seat")
def _participant(row: Any) -> Participant:
    return Participant(
        seat=row.seat,
        played_by=PlayedBy(row.played_by),
        display_name=row.display_name,
        persona_id=row.persona_id,
        persona_version=row.persona_version,
        aliases=tuple(json.loads(row.aliases)) if row.aliases else (),
        order=row.seat if row.place is None else row.place,
        talkativeness=DEFAULT_TALKATIVENESS if row.talkativeness is None else row.talkativeness,
        muted=bool(row.muted),
        owner=row.owner,
    )

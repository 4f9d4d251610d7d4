"""Operations on a session's cast: who sits where, who joins and who leaves. Each is a revision of the session, so that
earlier turns keep theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from roleplay.domain.cast import Played, Seat
from roleplay.domain.conversation import Participant, PlayedBy
from roleplay.domain.persona import StoredPersona
from roleplay.domain.settings import SeatRef, SessionSettings
from roleplay.errors import InvalidInputError
from roleplay.operations import personas
from roleplay.store.records import personas as stored_personas
from roleplay.store.records import revisions
from roleplay.turns import reading
from roleplay.turns.alone import Alone, alone
from roleplay.turns.arguments import NUMBER_LIMIT, SEAT_LIMIT, number, seat_of
from roleplay.turns.effects import Read, Steps, read
from roleplay.turns.revisions import language_spoken, named_seat
from roleplay.turns.scope import SessionScope, TenantScope

_PLAYED_BY = ("model", "human")
#: How often somebody may have left a seat and come back to it.
MOST_ABSENCES = 64


class _Change(NamedTuple):
    """What a seat is from the next revision on."""

    seat: Participant
    present: bool = True
    new: bool = False


def persona_of(scope: TenantScope, field_name: str, seat: Seat, played_by: PlayedBy) -> Steps[StoredPersona | None]:
    """Read the persona of somebody who is to be seated. Raises ``InvalidInputError`` and ``NotFoundError``."""
    if played_by is PlayedBy.MODEL:
        if seat.persona is None:
            allowed = "a persona; somebody without one is played by a human (user=, users=, played_by=)"
            raise InvalidInputError(f"{field_name}.persona", "is needed: the model plays it", allowed=allowed)
        if seat.owner is not None:
            raise InvalidInputError(f"{field_name}.owner", "is for a human's seat alone", allowed="None")
    return None if seat.persona is None else (yield from _persona(scope, field_name, seat.persona, None))


def _persona(scope: TenantScope, field_name: str, who: Played, version: int | None) -> Steps[StoredPersona]:
    if isinstance(who, StoredPersona):
        place = who.id, version or who.version
        found = yield from read("persona", lambda db: stored_personas.get(db, scope.tenant, place[0], version=place[1]))
    else:
        found = yield personas.get(scope, who, version)
    if found.archived_at is not None:
        problem = f"the persona {found.key or found.id!r} is archived"
        raise InvalidInputError(field_name, problem, allowed="another one, or this one once it was put again")
    return found


def seated(played: Sequence[tuple[Seat, PlayedBy, StoredPersona | None]], nobody: str) -> tuple[Participant, ...]:
    """Give the seats of a new session, numbered from 1. ``nobody`` names a human without a name."""
    return tuple(
        _participant(number, number, seat, played_by, persona, nobody)
        for number, (seat, played_by, persona) in enumerate(played, start=1)
    )


def _participant(
    number: int, order: int, seat: Seat, played_by: PlayedBy, persona: StoredPersona | None, nobody: str
) -> Participant:
    return Participant(
        seat=number,
        played_by=played_by,
        display_name=seat.name or (persona.persona.called if persona else nobody),
        persona_id=persona.id if persona else None,
        persona_version=persona.version if persona else None,
        aliases=seat.aliases,
        order=order,
        talkativeness=seat.talkativeness,
        muted=seat.muted,
        owner=seat.owner,
    )


def members(scope: SessionScope) -> Read[tuple[Participant, ...]]:
    """Read the seats in which somebody sits, in their order."""
    return Read("session", lambda db: reading.info_in(scope, db).cast)


def join(scope: SessionScope, who: Played | Seat, played_by: PlayedBy) -> Steps[Participant]:
    """Seat somebody. A persona that left comes back to its seat, and so does a human with an owner; who has left it
    often gets a new one, since every request of a seat names its absences."""
    if played_by not in _PLAYED_BY:
        raise InvalidInputError("played_by", f"is {played_by!r}"[:100], allowed=", ".join(_PLAYED_BY))
    seat, player = seat_of("seat", who), PlayedBy(played_by)
    persona = yield from persona_of(scope.tenant_scope, "seat", seat, player)

    def change(old: revisions.Revision) -> _Change:
        if len(old.played_by(player)) >= SEAT_LIMIT:
            raise InvalidInputError("seat", f"is one too many: {SEAT_LIMIT} sit here", allowed="leave() first")
        new = _participant(1, 1, seat, player, persona, nobody(scope.tenant_scope, old))
        for one in old.seats:
            if _comes_back(new, one):
                return _Change(new.model_copy(update={"seat": one.participant.seat, "order": one.participant.order}))
        numbers = max(one.participant.seat for one in old.seats) + 1
        order = min(max(one.participant.order for one in old.seats) + 1, NUMBER_LIMIT)
        return _Change(new.model_copy(update={"seat": numbers, "order": order}), new=True)

    return (yield from _change(scope, change))


def _comes_back(new: Participant, left: revisions.Seat) -> bool:
    """Whether somebody new is who left a seat, and may have it again."""
    known = left.participant
    if left.present or len(left.absences) >= MOST_ABSENCES:
        return False
    if new.played_by is PlayedBy.HUMAN and new.owner is None:  # nobody knows who a human without an owner is
        return False
    return (known.played_by, known.persona_id, known.display_name, known.owner) == (
        new.played_by,
        new.persona_id,
        new.display_name,
        new.owner,
    )


def nobody(scope: TenantScope, old: revisions.Revision) -> str:
    """Give what a human without a name is called in a revision of a session."""
    return called_nobody(scope, old.settings, old.played_by(PlayedBy.MODEL)[0].persona, old.scene)


def called_nobody(scope: TenantScope, settings: SessionSettings, first: StoredPersona | None, scene: str) -> str:
    """Give what a human without a name is called, in the language of the session. ``first``: the first persona that
    the model plays."""
    language = settings.language or language_spoken(first.persona if first else None, scene)
    return scope.words(language).user


def leave(scope: SessionScope, who: SeatRef) -> Steps[Participant]:
    """Let somebody leave: what is said from then on is not for that seat."""

    def change(old: revisions.Revision) -> _Change:
        seat = _named(old, who)
        if len(old.played_by(seat.played_by)) == 1:
            player = "the model plays" if seat.played_by is PlayedBy.MODEL else "a human plays"
            raise InvalidInputError("seat", f"is the last one that {player}", allowed="one of several; join() first")
        return _Change(seat, present=False)

    return (yield from _change(scope, change))


def mute(scope: SessionScope, who: SeatRef, *, muted: bool) -> Steps[Participant]:
    """Let a seat speak only when it is told to, or as before."""
    if not isinstance(muted, bool):
        raise InvalidInputError("muted", f"is {muted!r}"[:100], allowed="True or False")
    return (yield from _change(scope, lambda old: _Change(_named(old, who).model_copy(update={"muted": muted}))))


def move(scope: SessionScope, who: SeatRef, order: int) -> Steps[Participant]:
    """Give a seat another place among the seats."""
    number("order", order, 0)
    return (yield from _change(scope, lambda old: _Change(_named(old, who).model_copy(update={"order": order}))))


def use(scope: SessionScope, who: SeatRef, persona: Played, version: int | None) -> Steps[Participant]:
    """Seat another persona, or another version of one. A display name of its own stays."""
    if version is not None:
        number("version", version, 1)
    found = yield from _persona(scope.tenant_scope, "persona", persona, version)

    def change(old: revisions.Revision) -> _Change:
        seat = _named(old, who)
        before = next(one.persona for one in old.seats if one.participant.seat == seat.seat)
        own = before is None or seat.display_name != before.persona.called
        name = seat.display_name if own and before is not None else found.persona.called
        changes = {"display_name": name, "persona_id": found.id, "persona_version": found.version}
        return _Change(seat.model_copy(update=changes))

    return (yield from _change(scope, change))


def _named(old: revisions.Revision, who: SeatRef) -> Participant:
    return named_seat("seat", who, tuple(one.participant for one in old.seats if one.present))


def _change(scope: SessionScope, change: Callable[[revisions.Revision], _Change]) -> Steps[Participant]:
    """Write what a seat is from now on as a revision of the session; nothing, where it is that already."""

    def work(now: Alone) -> Participant:
        old = revisions.revision(*now.place, now.position.revision)
        seat, present, new = change(old)
        before = old.seat(seat.seat)
        if before is not None and (before.participant, before.present) == (seat, present):
            return seat
        revision = now.position.revision + 1
        revisions.add_revision(*now.place, revision, scene=old.scene, settings=old.settings, at=now.at)
        revisions.change_seat(*now.place, seat, revision, present=present, new=new)
        return seat

    return (yield from alone(scope, work))

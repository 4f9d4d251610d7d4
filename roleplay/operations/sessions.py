"""Operations on sessions: creating, finding and listing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from roleplay.domain.cast import Played, Seat
from roleplay.domain.conversation import PlayedBy, SessionInfo
from roleplay.domain.page import Page
from roleplay.domain.persona import StoredPersona
from roleplay.domain.settings import SessionSettings
from roleplay.domain.values import KEY_LIMIT, Metadata, metadata_of
from roleplay.errors import InvalidInputError
from roleplay.operations import casts
from roleplay.operations.greetings import opening
from roleplay.operations.names import only_match
from roleplay.store import Connection
from roleplay.store.records import moves
from roleplay.store.records import sessions as store
from roleplay.store.records import turns as stored_turns
from roleplay.turns.arguments import label, owner_filter, page_limit, scene_text, seat_of, seats_of
from roleplay.turns.effects import Read, Steps, read, write
from roleplay.turns.scope import SessionScope, TenantScope

ITER_PAGE = 100
Greetings = Literal["first", "all", "none"]
GREETINGS = ("first", "all", "none")


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a session is created with; see ``Sessions.create``."""

    cast: Sequence[Played | Seat]
    user: Played | Seat | None
    users: Sequence[Played | Seat]
    scene: str
    greetings: Greetings
    settings: SessionSettings
    owner: str | None
    metadata: Metadata


def create(scope: TenantScope, new: NewSession) -> Steps[SessionScope]:
    """Write a session with its greetings and give its scope."""
    seats = _seats(new)
    scene_text(new.scene)
    if new.greetings not in GREETINGS:
        raise InvalidInputError("greetings", f"is {new.greetings!r}"[:100], allowed=", ".join(GREETINGS))
    played: list[tuple[Seat, PlayedBy, StoredPersona | None]] = []
    for field_name, seat, played_by in seats:
        played.append((seat, played_by, (yield from casts.persona_of(scope, field_name, seat, played_by))))
    scope.check_settings(new.settings)
    nobody = casts.called_nobody(scope, new.settings, played[0][2], new.scene)
    now = scope.ports.now()
    cast = casts.seated(played, nobody)
    info = SessionInfo(
        id=scope.ports.new_id(),
        owner=None if new.owner is None else label("owner", new.owner, KEY_LIMIT),
        scene=new.scene.strip(),
        settings=new.settings,
        cast=cast,
        metadata=metadata_of(new.metadata),
        version=1,
        head_seq=None,
        created_at=now,
        last_turn_at=now,
    )
    personas = zip(cast, (persona for _, _, persona in played), strict=True)
    greeters = [(one, stored.persona) for one, stored in personas if one.played_by is PlayedBy.MODEL and stored]
    last = {"first": 1, "all": None, "none": 0}[new.greetings]
    opened = opening(info, greeters[:last], scope.counter, scope.ports.new_id)
    tenant = scope.tenant

    def work(db: Connection) -> None:
        store.create(db, tenant, info, messages=len(opened.turns))
        for one in opened.turns:
            stored_turns.add_turn(db, tenant, info.id, one.turn, now)
            stored_turns.add_message(db, tenant, info.id, one.turn.seq, one.message, now)
        if opened.head is not None:
            moves.move_head(db, tenant, info.id, (None, opened.head), cause="greeting", at=now)

    yield from write("create session", work)
    return scope.session(info.id)


def _seats(new: NewSession) -> list[tuple[str, Seat, PlayedBy]]:
    """Give those who are to be seated, each with the name of its field and who plays it."""
    models = [(f"cast[{place}]", one) for place, one in enumerate(seats_of("cast", new.cast, 1))]
    if new.user is not None and new.users:
        raise InvalidInputError("users", "is given, and user too", allowed="one of the two")
    if new.users:
        humans = [(f"users[{place}]", one) for place, one in enumerate(seats_of("users", new.users, 1))]
    else:
        humans = [("user", seat_of("user", new.user) if new.user is not None else Seat())]
    return [
        *((field_name, seat, PlayedBy.MODEL) for field_name, seat in models),
        *((field_name, seat, PlayedBy.HUMAN) for field_name, seat in humans),
    ]


def get(scope: TenantScope, session_id: str, owner: str | None) -> Steps[SessionScope]:
    """Find a session by id or unique beginning of an id and give its scene. Another owner's is as if it were not."""
    label("session_id", session_id, KEY_LIMIT)
    owner_filter(owner)
    tenant = scope.tenant

    def work(db: Connection) -> str:
        return only_match("session", session_id, store.ids_with_prefix(db, tenant, session_id, owner=owner))

    found: str = yield from read("find session", work)
    return scope.session(found)


def list_page(scope: TenantScope, owner: str | None, limit: int, before: str | None) -> Read[Page[SessionInfo]]:
    """Read a page of sessions."""
    page_limit(limit)
    owner_filter(owner)
    return Read("sessions", lambda db: store.list_page(db, scope.tenant, owner=owner, limit=limit, before=before))


def list_after(scope: TenantScope, owner: str | None, last: SessionInfo | None) -> Read[Sequence[SessionInfo]]:
    """Read the sessions that were made after ``last``, the oldest first."""
    owner_filter(owner)
    tenant, after = scope.tenant, last.id if last else ""
    return Read("sessions", lambda db: store.made_after(db, tenant, after, owner=owner, limit=ITER_PAGE))

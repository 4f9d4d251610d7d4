"""Operations on sessions: creating, finding and listing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roleplay.context.languages import language_of
from roleplay.domain.conversation import Participant, PlayedBy, SessionInfo
from roleplay.domain.page import Page
from roleplay.domain.persona import StoredPersona
from roleplay.domain.settings import SessionSettings
from roleplay.domain.values import KEY_LIMIT, Metadata, metadata_of
from roleplay.errors import InvalidInputError
from roleplay.operations import personas
from roleplay.operations.greetings import greetings
from roleplay.operations.names import only_match
from roleplay.store import Connection
from roleplay.store.records import moves
from roleplay.store.records import personas as stored_personas
from roleplay.store.records import sessions as store
from roleplay.store.records import turns as stored_turns
from roleplay.turns.arguments import label, only_persona, owner_filter, page_limit, scene_text
from roleplay.turns.effects import Read, Steps, read, write
from roleplay.turns.revisions import spoken_in
from roleplay.turns.scope import SessionScope, TenantScope

ITER_PAGE = 100


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a session is created with; see ``Sessions.create``."""

    cast: Sequence[StoredPersona | str]
    user: StoredPersona | str | None
    scene: str
    settings: SessionSettings
    owner: str | None
    metadata: Metadata


def create(scope: TenantScope, new: NewSession) -> Steps[SessionScope]:
    """Write a session with its greetings and give its scene."""
    cast, scene = new.cast, new.scene
    who = only_persona(cast)
    scene_text(scene)
    model = yield from _persona(scope, "cast", who)
    human = None if new.user is None else (yield from _persona(scope, "user", new.user))
    scope.check_settings(new.settings)
    language = new.settings.language or language_of(spoken_in(model.persona, scene))
    nobody = scope.words(language).user
    now = scope.ports.now()
    info = SessionInfo(
        id=scope.ports.new_id(),
        owner=None if new.owner is None else label("owner", new.owner, KEY_LIMIT),
        scene=scene.strip(),
        settings=new.settings,
        cast=(
            _seat(1, PlayedBy.MODEL, model, model.persona.called),
            _seat(2, PlayedBy.HUMAN, human, human.persona.called if human else nobody),
        ),
        metadata=metadata_of(new.metadata),
        version=1,
        head_seq=None,
        created_at=now,
        last_turn_at=now,
    )
    added = greetings(info, model.persona, scope.counter, scope.ports.new_id)
    tenant = scope.tenant

    def work(db: Connection) -> None:
        store.create(db, tenant, info, messages=len(added))
        for one in added:
            stored_turns.add_turn(db, tenant, info.id, one.turn, now)
            stored_turns.add_message(db, tenant, info.id, one.turn.seq, one.message, now)
        if added:
            moves.move_head(db, tenant, info.id, (None, 1), cause="greeting", at=now)

    yield from write("create session", work)
    return scope.session(info.id)


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


def _persona(scope: TenantScope, field_name: str, who: StoredPersona | str) -> Steps[StoredPersona]:
    if isinstance(who, StoredPersona):
        place = who.id, who.version
        found = yield from read("persona", lambda db: stored_personas.get(db, scope.tenant, place[0], version=place[1]))
    else:
        found = yield personas.get(scope, who, None)
    if found.archived_at is not None:
        problem = f"the persona {found.key or found.id!r} is archived"
        raise InvalidInputError(field_name, problem, allowed="another one, or this one once it was put again")
    return found


def _seat(seat: int, played_by: PlayedBy, persona: StoredPersona | None, name: str) -> Participant:
    return Participant(
        seat=seat,
        played_by=played_by,
        display_name=name,
        persona_id=persona.id if persona else None,
        persona_version=persona.version if persona else None,
    )

"""Operations on personas."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.domain.page import Page
from roleplay.domain.persona import Persona, StoredPersona
from roleplay.domain.values import KEY_LIMIT
from roleplay.operations.names import only_match
from roleplay.store import Connection
from roleplay.store.records import personas as store
from roleplay.store.records.personas import Change
from roleplay.turns.arguments import change_of_persona, label, page_limit
from roleplay.turns.effects import Read, Write
from roleplay.turns.scope import TenantScope

ITER_PAGE = 100


def put(scope: TenantScope, persona: Persona, change: Change) -> Write[StoredPersona]:
    """Store a persona."""
    change_of_persona(change)
    scope.check_settings(persona.settings)
    at, fresh = scope.ports.now(), scope.ports.new_id()
    return Write("put persona", lambda db: store.put(db, scope.tenant, persona, change, new_id=fresh, at=at))


def get(scope: TenantScope, name: str, version: int | None) -> Read[StoredPersona]:
    """Read a persona by key, id or unique beginning of an id."""
    label("name", name, KEY_LIMIT)
    tenant = scope.tenant

    def work(db: Connection) -> StoredPersona:
        found = store.find(db, tenant, name)
        if found is not None and version in {None, found.version}:
            return found
        persona_id = found.id if found else only_match("persona", name, store.ids_with_prefix(db, tenant, name))
        return store.get(db, tenant, persona_id, version=version)

    return Read("persona", work)


def list_page(scope: TenantScope, limit: int, before: str | None) -> Read[Page[StoredPersona]]:
    """Read a page of personas."""
    page_limit(limit)
    return Read("personas", lambda db: store.list_page(db, scope.tenant, limit=limit, before=before))


def list_after(scope: TenantScope, last: StoredPersona | None) -> Read[Sequence[StoredPersona]]:
    """Read the personas that were made after ``last``, the oldest first."""
    after = last.id if last else ""
    return Read("personas", lambda db: store.made_after(db, scope.tenant, after, limit=ITER_PAGE))


def versions(scope: TenantScope, name: str, limit: int, before: str | None) -> Read[Page[StoredPersona]]:
    """Read a page of a persona's versions."""
    page_limit(limit)
    label("name", name, KEY_LIMIT)
    tenant = scope.tenant

    def work(db: Connection) -> Page[StoredPersona]:
        return store.versions(db, tenant, _persona_id(db, tenant, name), limit=limit, before=before)

    return Read("versions", work)


def archive(scope: TenantScope, name: str) -> Write[StoredPersona]:
    """Keep a persona out of lists and new sessions."""
    label("name", name, KEY_LIMIT)
    at, tenant = scope.ports.now(), scope.tenant
    return Write("archive persona", lambda db: store.archive(db, tenant, _persona_id(db, tenant, name), at))


def _persona_id(db: Connection, tenant: str, name: str) -> str:
    """Give the id of the persona with this key, id or unique beginning of an id. Raises ``NotFoundError``."""
    found = store.find(db, tenant, name)
    return found.id if found else only_match("persona", name, store.ids_with_prefix(db, tenant, name))

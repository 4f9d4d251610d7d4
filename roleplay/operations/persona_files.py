"""The operation that brings the personas of a folder into the database: in one transaction, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roleplay.domain.persona import StoredPersona
from roleplay.domain.sync import PersonaChange, SyncedPersona, SyncReport
from roleplay.errors import InvalidInputError
from roleplay.exchange.persona_files import PersonaFile
from roleplay.store import Connection
from roleplay.store.records import personas
from roleplay.store.records.personas import Change
from roleplay.turns.arguments import change_of_persona
from roleplay.turns.effects import Read, Single, Write
from roleplay.turns.scope import TenantScope


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How a folder is brought in; see ``Personas.sync``."""

    prune: bool
    dry_run: bool
    author: str
    message: str


def sync(scope: TenantScope, files: Sequence[PersonaFile], how: SyncOptions) -> Single[SyncReport]:
    """Put the personas of files that are new or changed, and archive those whose files are gone."""
    change = Change(author=how.author, message=how.message, synced=True)
    change_of_persona(change)
    if how.prune and not files:
        raise InvalidInputError("folder", "holds no persona files", allowed="at least one, to prune")
    tenant, at = scope.tenant, scope.ports.now()
    files = sorted(files, key=lambda one: one.key)
    fresh = {one.key: scope.ports.new_id() for one in files}

    def work(db: Connection) -> SyncReport:
        held = personas.with_keys(db, tenant, list(fresh))
        synced = personas.synced(db, tenant)
        done = []
        for one in files:
            what, version = _change(held.get(one.key), one)
            if not how.dry_run and (what is not PersonaChange.UNCHANGED or one.key not in synced):
                version = personas.put(db, tenant, one.persona, change, new_id=fresh[one.key], at=at).version
            done.append(SyncedPersona(key=one.key, change=what, version=version, file=one.name))
        for key in sorted(synced.keys() - fresh.keys()) if how.prune else ():
            if not how.dry_run:
                personas.archive(db, tenant, synced[key].id, at)
            gone = SyncedPersona(key=key, change=PersonaChange.ARCHIVED, version=synced[key].version, file=None)
            done.append(gone)
        return SyncReport(dry_run=how.dry_run, personas=tuple(sorted(done, key=lambda one: one.key)))

    return Read("sync", work) if how.dry_run else Write("sync", work)


def _change(before: StoredPersona | None, file: PersonaFile) -> tuple[PersonaChange, int]:
    """Tell what a file does to the persona that is stored under its key, and which version that makes."""
    if before is None:
        return PersonaChange.ADDED, 1
    if personas.digest_of(before.persona) != personas.digest_of(file.persona):
        return PersonaChange.CHANGED, before.version + 1
    return PersonaChange.UNCHANGED if before.archived_at is None else PersonaChange.CHANGED, before.version

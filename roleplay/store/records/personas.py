"""Personas, their versions, their example dialogues."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from roleplay.domain.page import Page
from roleplay.domain.persona import ExampleDialogue, ExampleLine, Persona, StoredPersona
from roleplay.domain.settings import SessionSettings
from roleplay.errors import ConflictError, InvalidInputError, NotFoundError
from roleplay.store.access.cursors import after, numbered, page_of
from roleplay.store.access.decoding import reads
from roleplay.store.access.ids import ID_LENGTH
from roleplay.store.access.tables import ExampleDialogueRow, ExampleLineRow, PersonaRow, PersonaVersionRow, table

_NO_VERSION = 2**31
_KEYS_AT_ONCE = 200
_AnyRow = Row[*tuple[Any, ...]]
_p = table(PersonaRow).c
_v = table(PersonaVersionRow).c
_l = table(ExampleLineRow).c

_HELD = select(_p.id, _p.version, _p.archived_at, _p.synced).where(_p.tenant == bindparam("tenant"))
_BY_KEY = _HELD.where(_p.key == bindparam("key"))
_BY_ID = _HELD.where(_p.id == bindparam("id"))
_INSERT = {
    "sqlite": sqlite.insert(table(PersonaRow)).on_conflict_do_nothing().returning(_p.id),
    "postgresql": postgresql.insert(table(PersonaRow)).on_conflict_do_nothing().returning(_p.id),
}
_INSERT_VERSION = insert(table(PersonaVersionRow))
_INSERT_DIALOGUE = insert(table(ExampleDialogueRow))
_INSERT_LINE = insert(table(ExampleLineRow))
_ADVANCE = (
    update(table(PersonaRow))
    .where(_p.tenant == bindparam("of_tenant"), _p.id == bindparam("of_id"), _p.version == bindparam("was"))
    .values(
        version=bindparam("now"),
        key=bindparam("of_key"),
        updated_at=bindparam("at"),
        archived_at=None,
        synced=bindparam("kept"),
    )
)
_WAKE = (
    update(table(PersonaRow))
    .where(_p.tenant == bindparam("of_tenant"), _p.id == bindparam("of_id"))
    .values(archived_at=None, updated_at=bindparam("at"), synced=bindparam("kept"))
)
_ARCHIVE = (
    update(table(PersonaRow))
    .where(_p.tenant == bindparam("of_tenant"), _p.id == bindparam("of_id"), _p.archived_at.is_(None))
    .values(archived_at=bindparam("at"))
)
_WHOLE = (
    select(table(PersonaVersionRow), _p.key, _p.archived_at, _p.updated_at)
    .join(table(PersonaRow), (_p.id == _v.persona_id) & (_p.tenant == _v.tenant))
    .where(_v.tenant == bindparam("tenant"))
)
_VERSION = _WHOLE.where(_v.persona_id == bindparam("id"), _v.version == bindparam("version"))
_VERSIONS = (
    _WHOLE.where(_v.persona_id == bindparam("id"), _v.version < bindparam("below"))
    .order_by(_v.version.desc())
    .limit(bindparam("most"))
)
_LINES = (
    select(_l.persona_id, _l.version, _l.dialogue, _l.speaker, _l.text)
    .where(
        _l.tenant == bindparam("tenant"),
        tuple_(_l.persona_id, _l.version).in_(bindparam("places", expanding=True)),
    )
    .order_by(_l.persona_id, _l.version, _l.dialogue, _l.ordinal)
)
_NEWEST = _WHOLE.where(_p.version == _v.version)
_LISTED = _NEWEST.where(_p.archived_at.is_(None)).order_by(_p.updated_at.desc(), _p.id.desc())
_KEYED = _NEWEST.where(_p.key.in_(bindparam("keys", expanding=True)))
_SYNCED = select(_p.id, _p.key, _p.version).where(
    _p.tenant == bindparam("tenant"), _p.synced.is_(True), _p.key.is_not(None), _p.archived_at.is_(None)
)
_BY_AGE = (
    _NEWEST.where(_p.archived_at.is_(None), _p.tenant == bindparam("tenant"), _p.id > bindparam("after"))
    .order_by(_p.id)
    .limit(bindparam("most"))
)
_ID = select(_p.id).where(_p.tenant == bindparam("tenant"), _p.id == bindparam("id"))
_IDS_FROM = (
    select(_p.id)
    .where(_p.tenant == bindparam("tenant"), _p.id >= bindparam("low"), _p.id < bindparam("high"))
    .order_by(_p.id)
    .limit(2)
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a writer says beside a persona: which one it is, the version they saw, who they are and why they write.

    ``synced``: it is kept in a file.
    """

    persona_id: str | None = None
    expected_version: int | None = None
    author: str = ""
    message: str = ""
    synced: bool = False


def put(
    connection: Connection, tenant: str, persona: Persona, change: Change, *, new_id: str, at: datetime
) -> StoredPersona:
    """Insert ``persona``, or add a version to the one with its key or with the change's id; equal content adds none.

    Raises ``NotFoundError`` for an unknown id, ``InvalidInputError`` when the key is another persona's, and
    ``ConflictError`` when the version is not the one expected or another writer was first.
    """
    found = _held(connection, tenant, persona, change.persona_id)
    if change.expected_version not in {None, found.version if found else 0}:
        raise _conflict(change.expected_version, found)
    if found is None:
        row = {"id": new_id, "tenant": tenant, "key": persona.key, "version": 1, "created_at": at, "updated_at": at}
        made = connection.execute(_INSERT[connection.dialect.name], row | {"synced": change.synced or None}).first()
        if made is None:
            raise _conflict(0, _held(connection, tenant, persona, None))
        return _add_version(connection, tenant, persona, change, (new_id, 1), at)
    current = get(connection, tenant, found.id, version=found.version)
    kept = found.synced or change.synced or None
    where = {"of_tenant": tenant, "of_id": found.id, "at": at, "kept": kept}
    if digest_of(current.persona) == digest_of(persona):
        if found.archived_at is not None or kept is not found.synced:
            connection.execute(_WAKE, where)
        return current.model_copy(update={"archived_at": None})
    version = found.version + 1
    moved = connection.execute(_ADVANCE, where | {"was": found.version, "now": version, "of_key": persona.key})
    if moved.rowcount != 1:
        raise _conflict(found.version, connection.execute(_BY_ID, {"tenant": tenant, "id": found.id}).first())
    return _add_version(connection, tenant, persona, change, (found.id, version), at)


def _held(connection: Connection, tenant: str, persona: Persona, persona_id: str | None) -> _AnyRow | None:
    """Give the stored persona that ``persona`` is a version of. Raises ``NotFoundError`` and ``InvalidInputError``."""
    where = {"tenant": tenant}
    holder = None
    if persona.key is not None:
        holder = connection.execute(_BY_KEY, where | {"key": persona.key}).first()
    if persona_id is None:
        return holder
    if holder is not None and holder.id != persona_id:
        raise InvalidInputError("key", f"{persona.key!r} is the key of another persona")
    found = holder or connection.execute(_BY_ID, where | {"id": persona_id}).first()
    if found is None:
        raise NotFoundError("persona", persona_id)
    return found


def _conflict(expected: int | None, found: _AnyRow | None) -> ConflictError:
    version = found.version if found else 0
    stands = f"the persona is at version {version}" if version else "there is no such persona"
    wanted = f"not at version {expected}" if expected else "and was expected to be new"
    return ConflictError(f"{stands}, {wanted}", expected=expected, found=version)


def archive(connection: Connection, tenant: str, persona_id: str, at: datetime) -> StoredPersona:
    """Keep a persona out of lists and new sessions, and give it. Raises ``NotFoundError``."""
    connection.execute(_ARCHIVE, {"of_tenant": tenant, "of_id": persona_id, "at": at})
    return get(connection, tenant, persona_id)


def get(connection: Connection, tenant: str, persona_id: str, *, version: int | None = None) -> StoredPersona:
    """Give one version of a persona, the newest by default. Raises ``NotFoundError``."""
    where: dict[str, Any] = {"tenant": tenant, "id": persona_id}
    if version is None:
        found = connection.execute(_BY_ID, where).first()
        if found is None:
            raise NotFoundError("persona", persona_id)
        version = int(found.version)
    row = connection.execute(_VERSION, where | {"version": version}).first() if version < _NO_VERSION else None
    if row is None:
        raise NotFoundError("persona version", f"{persona_id} version {version}")
    return _stored(connection, tenant, [row])[0]


def find(connection: Connection, tenant: str, key: str) -> StoredPersona | None:
    """Give the newest version of the persona with this ``key``, or ``None``."""
    found = connection.execute(_BY_KEY, {"tenant": tenant, "key": key}).first()
    return None if found is None else get(connection, tenant, found.id, version=found.version)


def with_keys(connection: Connection, tenant: str, keys: Sequence[str]) -> dict[str, StoredPersona]:
    """Give the newest versions of the personas with these keys, by key."""
    found: dict[str, StoredPersona] = {}
    for first in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[first : first + _KEYS_AT_ONCE]
        rows = connection.execute(_KEYED, {"tenant": tenant, "keys": some}).all()
        found |= {row.key: one for row, one in zip(rows, _stored(connection, tenant, rows), strict=True)}
    return found


@dataclass(frozen=True, slots=True)
class Synced:
    """A persona that is kept in a file."""

    id: str
    version: int


def synced(connection: Connection, tenant: str) -> dict[str, Synced]:
    """Give all personas that are kept in files and not archived, by key."""
    rows = connection.execute(_SYNCED, {"tenant": tenant})
    return {row.key: Synced(row.id, row.version) for row in rows}


def ids_with_prefix(connection: Connection, tenant: str, prefix: str) -> list[str]:
    """Give at most two ids that begin with ``prefix``, so that a caller sees whether it is unique."""
    if len(prefix) > ID_LENGTH:
        return []
    if len(prefix) == ID_LENGTH:
        return list(connection.execute(_ID, {"tenant": tenant, "id": prefix}).scalars())
    where = {"tenant": tenant, "low": prefix, "high": prefix + "g"}  # after every digit of an id, in any collation
    return [row.id for row in connection.execute(_IDS_FROM, where)]


def list_page(connection: Connection, tenant: str, *, limit: int, before: str | None) -> Page[StoredPersona]:
    """Give a page of newest versions, lately changed first; ``before`` is the ``older`` cursor of another page."""
    statement = _LISTED.limit(limit + 1)
    if before is not None:
        statement = statement.where(tuple_(_p.updated_at, _p.id) < tuple_(*after(before)))
    rows = connection.execute(statement, {"tenant": tenant}).all()
    shown = rows[:limit]
    items = _stored(connection, tenant, shown)
    return page_of(items, more=len(rows) > limit, last=lambda: (shown[-1].updated_at, shown[-1].persona_id))


def made_after(connection: Connection, tenant: str, persona_id: str, *, limit: int) -> list[StoredPersona]:
    """Give the newest versions of personas in the order of their ids, which is that of their making."""
    where = {"tenant": tenant, "after": persona_id, "most": limit}
    return _stored(connection, tenant, connection.execute(_BY_AGE, where).all())


def versions(
    connection: Connection, tenant: str, persona_id: str, *, limit: int, before: str | None
) -> Page[StoredPersona]:
    """Give a page of a persona's versions, newest first; ``before`` is the ``older`` cursor of another page."""
    below = _NO_VERSION - 1 if before is None else numbered("version", before)
    where = {"tenant": tenant, "id": persona_id, "below": below, "most": limit + 1}
    rows = connection.execute(_VERSIONS, where).all()
    older = f"version-{rows[limit - 1].version}" if len(rows) > limit else None
    return Page(items=tuple(_stored(connection, tenant, rows[:limit])), older=older)


def _add_version(
    connection: Connection, tenant: str, persona: Persona, change: Change, place: tuple[str, int], at: datetime
) -> StoredPersona:
    persona_id, version = place
    plain = {"persona_id": persona_id, "version": version, "tenant": tenant}
    texts = ("name", "nickname", "description", "personality", "scenario", "system_prompt", "post_history", "note")
    connection.execute(
        _INSERT_VERSION,
        plain
        | {field: getattr(persona, field) for field in texts}
        | {
            "greetings": to_json(persona.greetings),
            "tags": to_json(persona.tags),
            "metadata_json": to_json(persona.metadata),
            "extensions": to_json(persona.extensions),
            "settings": persona.settings.model_dump_json(exclude_defaults=True),
            "digest": digest_of(persona),
            "created_at": at,
            "author": change.author or None,
            "message": change.message or None,
        },
    )
    for number, dialogue in enumerate(persona.examples, start=1):
        connection.execute(_INSERT_DIALOGUE, plain | {"ordinal": number, "lines": len(dialogue.lines)})
        connection.execute(
            _INSERT_LINE,
            [
                plain | {"dialogue": number, "ordinal": place, "speaker": line.speaker, "text": line.text}
                for place, line in enumerate(dialogue.lines, start=1)
            ],
        )
    return StoredPersona(
        id=persona_id,
        version=version,
        persona=persona,
        created_at=at,
        author=change.author,
        message=change.message,
    )


def _stored(connection: Connection, tenant: str, rows: Sequence[Row[Any]]) -> list[StoredPersona]:
    """Give rows as personas, with their example dialogues in one statement more."""
    lines: defaultdict[tuple[str, int], list[Row[*tuple[Any, ...]]]] = defaultdict(list)
    if rows:
        places = [(row.persona_id, row.version) for row in rows]
        for line in connection.execute(_LINES, {"tenant": tenant, "places": places}):
            lines[line.persona_id, line.version].append(line)
    return [_one(row, _examples(lines[row.persona_id, row.version])) for row in rows]


@reads("an example of a persona")
def _examples(rows: Iterable[Row[*tuple[Any, ...]]]) -> tuple[ExampleDialogue, ...]:
    dialogues: dict[int, list[ExampleLine]] = {}
    for row in rows:
        dialogues.setdefault(row.dialogue, []).append(ExampleLine(speaker=row.speaker, text=row.text))
    return tuple(ExampleDialogue(lines=tuple(lines)) for lines in dialogues.values())


@reads("a version of a persona")
def _one(row: Row[Any], examples: tuple[ExampleDialogue, ...]) -> StoredPersona:
    persona = Persona(
        name=row.name,
        description=row.description,
        personality=row.personality,
        scenario=row.scenario,
        greetings=tuple(json.loads(row.greetings)),
        examples=examples,
        system_prompt=row.system_prompt,
        post_history=row.post_history,
        note=row.note,
        nickname=row.nickname,
        tags=tuple(json.loads(row.tags)),
        metadata=json.loads(row.metadata_json),
        extensions=json.loads(row.extensions),
        settings=SessionSettings(**json.loads(row.settings or "{}")),
        key=row.key,
    )
    return StoredPersona(
        id=row.persona_id,
        version=row.version,
        persona=persona,
        created_at=row.created_at,
        author=row.author or "",
        message=row.message or "",
        archived_at=row.archived_at,
    )


def digest_of(persona: Persona) -> str:
    """SHA-256 of a persona's content: equal personas have equal digests."""
    content = json.dumps(persona.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def to_json(value: Sequence[Any] | Mapping[str, Any]) -> str:
    """Write a small value of ours as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

"""Personas, their versions, their example dialogues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from roleplay.domain.page import Page
from roleplay.domain.persona import ExampleDialogue, ExampleLine, Persona, StoredPersona
from roleplay.errors import ConflictError, InvalidInputError, NotFoundError
from roleplay.store.cursors import after, page_of
from roleplay.store.tables import ExampleDialogueRow, ExampleLineRow, PersonaRow, PersonaVersionRow, table

_NO_VERSION = 2**31
_p = table(PersonaRow).c
_v = table(PersonaVersionRow).c
_l = table(ExampleLineRow).c

_BY_KEY = select(_p.id, _p.version).where(_p.tenant == bindparam("tenant"), _p.key == bindparam("key"))
_BY_ID = select(_p.id, _p.version).where(_p.tenant == bindparam("tenant"), _p.id == bindparam("id"))
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
    .values(version=bindparam("now"), key=bindparam("of_key"), updated_at=bindparam("at"))
)
_VERSION = (
    select(table(PersonaVersionRow), _p.key)
    .join(table(PersonaRow), (_p.id == _v.persona_id) & (_p.tenant == _v.tenant))
    .where(_v.tenant == bindparam("tenant"), _v.persona_id == bindparam("id"), _v.version == bindparam("version"))
)
_LINES = (
    select(_l.dialogue, _l.speaker, _l.text)
    .where(_l.tenant == bindparam("tenant"), _l.persona_id == bindparam("id"), _l.version == bindparam("version"))
    .order_by(_l.dialogue, _l.ordinal)
)
_NEWEST = (
    select(table(PersonaVersionRow), _p.key, _p.updated_at)
    .join(table(PersonaRow), (_p.id == _v.persona_id) & (_p.tenant == _v.tenant) & (_p.version == _v.version))
    .where(_v.tenant == bindparam("tenant"))
    .order_by(_p.updated_at.desc(), _p.id.desc())
)
_IDS_FROM = (
    select(_p.id)
    .where(_p.tenant == bindparam("tenant"), _p.id >= bindparam("low"), _p.id < bindparam("high"))
    .order_by(_p.id)
    .limit(2)
)


def put(
    connection: Connection, tenant: str, persona: Persona, *, persona_id: str | None, new_id: str, at: datetime
) -> StoredPersona:
    """Insert ``persona``, or add a version to the one with its key or with ``persona_id``; equal content adds nothing.

    Raises ``NotFoundError`` for an unknown ``persona_id``, ``InvalidInputError`` when the key is another persona's, and
    ``ConflictError`` when another writer was first.
    """
    where = {"tenant": tenant}
    found = None
    if persona_id is not None:
        found = connection.execute(_BY_ID, where | {"id": persona_id}).first()
        if found is None:
            raise NotFoundError("persona", persona_id)
        if persona.key is not None:
            holder = connection.execute(_BY_KEY, where | {"key": persona.key}).first()
            if holder is not None and holder.id != persona_id:
                raise InvalidInputError("key", f"{persona.key!r} is the key of another persona")
    elif persona.key is not None:
        found = connection.execute(_BY_KEY, where | {"key": persona.key}).first()
    if found is None:
        row = {"id": new_id, "tenant": tenant, "key": persona.key, "version": 1, "created_at": at, "updated_at": at}
        if connection.execute(_INSERT[connection.dialect.name], row).first() is None:
            raise ConflictError("another writer made a persona with this key first", found=persona.key)
        return _add_version(connection, tenant, persona, (new_id, 1), at)
    current = get(connection, tenant, found.id, version=found.version)
    if digest_of(current.persona) == digest_of(persona):
        return current
    version = found.version + 1
    moved = connection.execute(
        _ADVANCE,
        {
            "of_tenant": tenant,
            "of_id": found.id,
            "was": found.version,
            "now": version,
            "of_key": persona.key,
            "at": at,
        },
    )
    if moved.rowcount != 1:
        raise ConflictError("the persona was changed by another writer", expected=found.version)
    return _add_version(connection, tenant, persona, (found.id, version), at)


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
    return _stored(row, _examples(connection.execute(_LINES, where | {"version": version}).all()))


def find(connection: Connection, tenant: str, key: str) -> StoredPersona | None:
    """Give the newest version of the persona with this ``key``, or ``None``."""
    found = connection.execute(_BY_KEY, {"tenant": tenant, "key": key}).first()
    return None if found is None else get(connection, tenant, found.id, version=found.version)


def ids_with_prefix(connection: Connection, tenant: str, prefix: str) -> list[str]:
    """Give at most two ids that begin with ``prefix``, so that a caller sees whether it is unique."""
    where = {"tenant": tenant, "low": prefix, "high": prefix + "g"}  # after every digit of an id, in any collation
    return [row.id for row in connection.execute(_IDS_FROM, where)]


def list_page(connection: Connection, tenant: str, *, limit: int, before: str | None) -> Page[StoredPersona]:
    """Give a page of newest versions, lately changed first; ``before`` is the ``older`` cursor of another page."""
    statement = _NEWEST.limit(limit + 1)
    if before is not None:
        statement = statement.where(tuple_(_p.updated_at, _p.id) < tuple_(*after(before)))
    rows = connection.execute(statement, {"tenant": tenant}).all()
    shown = rows[:limit]
    items = [_stored(row, _examples(_lines_of(connection, tenant, row))) for row in shown]
    return page_of(items, more=len(rows) > limit, last=lambda: (shown[-1].updated_at, shown[-1].persona_id))


def _lines_of(connection: Connection, tenant: str, row: Row[Any]) -> Sequence[Any]:
    where = {"tenant": tenant, "id": row.persona_id, "version": row.version}
    return connection.execute(_LINES, where).all()


def _add_version(
    connection: Connection, tenant: str, persona: Persona, place: tuple[str, int], at: datetime
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
            "digest": digest_of(persona),
            "created_at": at,
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
    return StoredPersona(id=persona_id, version=version, persona=persona, created_at=at)


def _examples(rows: Sequence[Any]) -> tuple[ExampleDialogue, ...]:
    dialogues: dict[int, list[ExampleLine]] = {}
    for row in rows:
        dialogues.setdefault(row.dialogue, []).append(ExampleLine(speaker=row.speaker, text=row.text))
    return tuple(ExampleDialogue(lines=tuple(lines)) for lines in dialogues.values())


def _stored(row: Row[Any], examples: tuple[ExampleDialogue, ...]) -> StoredPersona:
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
        key=row.key,
    )
    return StoredPersona(id=row.persona_id, version=row.version, persona=persona, created_at=row.created_at)


def digest_of(persona: Persona) -> str:
    """SHA-256 of a persona's content: equal personas have equal digests."""
    content = json.dumps(persona.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def to_json(value: Sequence[Any] | Mapping[str, Any]) -> str:
    """Write a small value of ours as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

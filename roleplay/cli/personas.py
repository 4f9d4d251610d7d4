"""The persona commands."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from roleplay.cli import hints, show
from roleplay.cli.opening import stored
from roleplay.cli.who import how_to_add
from roleplay.domain.persona import Persona, StoredPersona
from roleplay.engine import Roleplay
from roleplay.errors import InvalidInputError, NotFoundError
from roleplay.exchange.persona_files import names_file, persona_yaml, read_persona

ABOUT_CHARS = 60


def add(files: Sequence[Path], db: str | None, *, as_json: bool) -> None:
    """Put personas from files. All are read before the first is put, so a bad file leaves nothing written."""
    read: dict[str | None, Persona] = {}
    for file in files:
        persona = read_persona(file)
        if persona.key in read:
            raise InvalidInputError(f"{file}: key", f"{persona.key!r} is the key of another of these files")
        read[persona.key] = persona
    with stored(db, to_write=True) as rp:
        before = {key: _version(rp, key) for key in read}
        put = [rp.personas.put(persona) for persona in read.values()]
        if as_json:
            show.write_json(put)
            return
        for one in put:
            show.say(f"{_what_happened(one, before[one.key])} · {hints.command(f'chat {_typed(one)}')}")


def sync(folder: Path, db: str | None, *, prune: bool, dry_run: bool, author: str, message: str, as_json: bool) -> None:
    """Bring the personas of a folder's files into the database and tell what became of each."""
    with stored(db, to_write=not dry_run) as rp:
        report = rp.personas.sync(folder, prune=prune, dry_run=dry_run, author=author, message=message)
    if as_json:
        show.write_json(report)
        return
    columns = ("what", "key", "version", "file")
    show.table(columns, ((one.change.value, one.key, str(one.version), one.file or "") for one in report.personas))
    counts = Counter(one.change.value for one in report.personas)
    told = ", ".join(f"{number} {change}" for change, number in counts.items()) or "no personas there"
    show.note(f"nothing was written; it would be: {told}" if dry_run else told)


def _typed(one: StoredPersona) -> str:
    """Give the name that finds a persona on a command line: its key, but not one that reads as a file or an option."""
    if one.key is None or names_file(one.key) or one.key.startswith("-"):
        return one.id
    return shlex.quote(one.key)


def _version(rp: Roleplay, key: str | None) -> int | None:
    try:
        found = rp.personas.get(key) if key is not None else None
    except NotFoundError:
        return None
    return found.version if found and found.key == key else None


def _what_happened(one: StoredPersona, before: int | None) -> str:
    if before is None:
        return f"added {one.name}"
    return (
        f"unchanged {one.name}, version {one.version}"
        if one.version == before
        else f"{one.name} is now version {one.version}"
    )


def show_list(db: str | None, *, limit: int, before: str | None, as_json: bool) -> None:
    """List personas, lately changed first."""
    with stored(db) as rp:
        page = rp.personas.list(limit=limit, before=before)
        if as_json:
            show.write_json(page)
            return
        columns = ("key", "name", "version", "id", "about")
        show.table(columns, (_row(rp, one) for one in page))
        if not page.items:
            show.note(f"no personas yet; {how_to_add()}")
        show.more(page)


def _row(rp: Roleplay, one: StoredPersona) -> tuple[str, ...]:
    about = " ".join(one.persona.description.split())
    about = about if len(about) <= ABOUT_CHARS else about[: ABOUT_CHARS - 1] + "…"
    return one.key or "", one.name, str(one.version), show.short_id(rp, one.id), about


def show_one(name: str, db: str | None, *, version: int | None, as_json: bool) -> None:
    """Show one persona, as YAML for people."""
    with stored(db) as rp:
        found = rp.personas.get(name, version=version)
    if as_json:
        show.write_json(found)
    else:
        show.verbatim(persona_yaml(found.persona))

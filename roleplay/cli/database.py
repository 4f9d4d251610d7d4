"""The database commands."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.cli import hints, show
from roleplay.cli.exits import ExitCode
from roleplay.cli.opening import location, make_folder, open_database, stored
from roleplay.errors import SchemaError
from roleplay.store.access import schema
from roleplay.store.upkeep.checks import Finding


def upgrade(db: str | None, *, as_json: bool) -> None:
    """Bring the schema to this version's revision. Raises ``SchemaError`` for a newer one."""
    where = location(db)
    make_folder(where)
    database = open_database(where)
    try:
        found = schema.revision(database)
        if found != schema.HEAD:
            schema.upgrade(database)
    finally:
        database.close()
    if as_json:
        show.write_json({"found": found, "revision": schema.HEAD})
    elif found == schema.HEAD:
        show.say(f"{where.shown} is at revision {schema.HEAD} already")
    else:
        show.say(f"{where.shown} is now at revision {schema.HEAD}")


def check(db: str | None, *, as_json: bool) -> None:
    """Tell whether the schema is this version's. Raises ``SchemaError`` when it is not; changes nothing."""
    where = location(db)
    if where.file is not None and not where.file.exists():
        raise SchemaError(f"there is no {where.shown}; run: roleplay db upgrade", found=None, expected=schema.HEAD)
    database = open_database(where)
    try:
        found = schema.revision(database)
    finally:
        database.close()
    schema.check(found)
    if as_json:
        show.write_json({"found": found, "revision": schema.HEAD})
    else:
        show.say(f"{where.shown} is at revision {schema.HEAD}, as it should be")


def doctor(db: str | None, *, repair: bool, as_json: bool) -> ExitCode:
    """Look for what is wrong, and with ``repair`` mend it. The code says whether something wrong is left."""
    with stored(db) as rp:
        found = rp.doctor(repair=repair)
        left = [one for one in found if not one.mended]
        if as_json:
            show.write_json(found)
        else:
            ids = {session_id: show.short_id(rp, session_id) for session_id in {one.session_id for one in found}}
            rows = (
                (one.kind, ids[one.session_id], show.number(one.seq), one.says, _state(one, repair=repair))
                for one in found
            )
            show.table(("finding", "session", "number", "what it is", "state"), rows)
            show.note(_summary(found, left, repair=repair))
    return ExitCode.STORE if left else ExitCode.OK


def _state(one: Finding, *, repair: bool) -> str:
    if one.mended:
        return "mended"
    if not one.mendable:
        return "cannot be mended"
    return "not mended" if repair else "can be mended"


def _summary(found: Sequence[Finding], left: Sequence[Finding], *, repair: bool) -> str:
    if not found:
        return "nothing is wrong"
    if repair:
        return f"{len(found) - len(left)} of {len(found)} mended"
    advice = f": {hints.command('doctor --repair')}" if any(one.mendable for one in found) else ""
    return f"{sum(one.mendable for one in found)} of {len(found)} can be mended{advice}; nothing was changed"

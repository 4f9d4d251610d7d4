"""The database commands."""

from __future__ import annotations

from roleplay.cli import show
from roleplay.cli.opening import make_folder, place
from roleplay.errors import SchemaError
from roleplay.store import schema
from roleplay.store.database import Database


def upgrade(db: str | None, *, as_json: bool) -> None:
    """Bring the schema to this version's revision. Raises ``SchemaError`` for a newer one."""
    where = place(db)
    make_folder(where)
    database = Database.open(where.url)
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
    where = place(db)
    if where.file is not None and not where.file.exists():
        raise SchemaError(f"there is no {where.shown}; run: roleplay db upgrade", found=None, expected=schema.HEAD)
    database = Database.open(where.url)
    try:
        found = schema.revision(database)
    finally:
        database.close()
    schema.check(found)
    if as_json:
        show.write_json({"found": found, "revision": schema.HEAD})
    else:
        show.say(f"{where.shown} is at revision {schema.HEAD}, as it should be")

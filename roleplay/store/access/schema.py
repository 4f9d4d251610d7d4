"""The schema's revision: checked at every start, upgraded by Alembic under a lock."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, inspect, text

from roleplay.errors import SchemaError, StoreError
from roleplay.store.access import postgres
from roleplay.store.access.address import Address, DatabaseUrl
from roleplay.store.access.database import Database
from roleplay.store.access.prepared import whole
from roleplay.store.access.sqlite import Creator, Key

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0005"
VERSION_TABLE = "roleplay_alembic_version"
Migrate = Literal["auto", "check"]
_LOCK = 0x726F6C65706C6179  # "roleplay" in ASCII: the advisory lock that upgrades take
_UPGRADE = "run: roleplay db upgrade"


def opened(
    url: DatabaseUrl | Address, migrate: Migrate | None, db_key: Key = None, creator: Creator | None = None
) -> Database:
    """Open a database and make sure of its schema, as ``prepare`` says; nothing stays open when it raises.

    Raises ``SettingsError``, ``SchemaError`` and ``StoreError``.
    """
    database = Database.open(url, db_key=db_key, creator=creator)
    try:
        prepare(database, migrate)
    except BaseException:
        database.close()
        raise
    return database


def prepare(database: Database, migrate: Migrate | None = None) -> None:
    """Make sure that the schema is the one this version works with.

    ``auto`` (SQLite's default) upgrades an older or empty database; ``check`` (PostgreSQL's default) refuses it.
    Raises ``SchemaError`` for an unknown or newer schema, and for an older one under ``check``.
    """
    mode = migrate or ("auto" if database.dialect == "sqlite" else "check")
    found = revision(database)
    if found == HEAD:
        return
    if mode == "auto" and (found is None or found in known_revisions()):
        if database.is_read_only():
            state = "has no roleplay schema" if found is None else f"is at revision {found}, older than {HEAD}"
            raise SchemaError(
                f"the database {state}, and can only be read where it is, so it is not upgraded; upgrade a copy of it",
                found=found,
                expected=HEAD,
            )
        upgrade(database)
    else:
        check(found)


def check(found: str | None) -> None:
    """Raise ``SchemaError`` unless ``found`` is this version's revision; the sentence says what to do."""
    if found == HEAD:
        return
    if found is None:
        raise SchemaError(f"the database has no roleplay schema; {_UPGRADE}", found=None, expected=HEAD)
    if found in known_revisions():
        older = f"the database is at revision {found}, older than {HEAD}; {_UPGRADE}"
        raise SchemaError(older, found=found, expected=HEAD)
    raise SchemaError(
        f"the database is at revision {found}, which this version (revision {HEAD}) does not know: it is newer; "
        "install the roleplay-engine that wrote it",
        found=found,
        expected=HEAD,
    )


def revision(database: Database) -> str | None:
    """Read the revision of the schema, ``None`` when there is none.

    Raises ``SettingsError`` for a database that cannot hold every character.
    """
    return database.read(_read_revision)


def _read_revision(connection: Connection) -> str | None:
    if connection.dialect.name == "postgresql":
        postgres.check_encoding(connection)
    if not inspect(whole(connection)).has_table(VERSION_TABLE):
        return None
    row = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).first()  # noqa: S608 - a constant
    return str(row[0]) if row else None


def upgrade(database: Database) -> None:
    """Bring the schema to this version's revision, in one transaction, under a lock; safe to run twice at once."""
    from alembic import command  # noqa: PLC0415 - loaded only when a schema changes

    database.use_write_ahead_log()

    def work(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = _read_revision(connection)
        if found is not None and found not in known_revisions():
            check(found)
        config = alembic_config()
        config.attributes["connection"] = whole(connection)
        command.upgrade(config, HEAD)

    database.migrate(work)


def downgrade(database: Database, to: str) -> None:
    """Take the schema back to revision ``to`` (``base`` removes it and all its rows); for tests and rescue."""
    from alembic import command  # noqa: PLC0415

    def work(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = whole(connection)
        command.downgrade(config, to)

    database.migrate(work)


def alembic_config() -> Config:
    """Give Alembic's configuration for the packaged migrations, without an ini file."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config(stdout=sys.stdout)  # its own default is whatever stood there when Alembic was imported
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrations_folder() -> Path:
    """Where the revisions are: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parents[1] / "migrations"
    folder = installed if installed.is_dir() else Path(__file__).parents[3] / "migrations"
    if not (folder / "env.py").is_file():
        raise StoreError(f"the migrations are missing: {folder} has no env.py; install the package again")
    return folder


def known_revisions() -> frozenset[str]:
    """The revisions that this version can upgrade from, and its own."""
    files = (migrations_folder() / "versions").glob("[0-9]*_*.py")
    return frozenset(file.name.split("_", 1)[0] for file in files)

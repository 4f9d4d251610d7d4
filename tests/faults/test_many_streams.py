"""Thousands of streams in one process of a few threads: all end, all are stored, and nothing is left of them."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from roleplay.store.access.database import Database
from tests.conftest import KEY, Ledger
from tests.support.many_streams import Order, Seen

MOST_THREADS = 9
MOST_CONNECTIONS = 32
STORED = """
SELECT t.session_id, t.status, m.text, c.finish_reason, c.prompt_tokens, c.completion_tokens, c.total_tokens
FROM roleplay_turns t
JOIN roleplay_model_calls c ON c.tenant = t.tenant AND c.session_id = t.session_id AND c.turn_seq = t.seq
LEFT JOIN roleplay_messages m ON m.tenant = t.tenant AND m.session_id = t.session_id AND m.seq = t.reply_seq
"""


class Stored(NamedTuple):
    """A turn with its reply and its one model call, as it lies in the database."""

    session_id: str
    status: str
    text: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None


class Dripping:
    """A simulator in a process of its own, which waits before each event. ``bodies`` is what it received."""

    def __init__(self, record: Path, seconds: float) -> None:
        self._record = record
        command = ["-m", "roleplay.testing.simulator", "--key", KEY, "--drip", str(seconds), "--record", str(record)]
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()

    @property
    def bodies(self) -> list[bytes]:
        """The bodies that came so far."""
        return [base64.b64decode(line) for line in self._record.read_bytes().splitlines()]

    def close(self) -> None:
        """End the process."""
        self._process.communicate("", timeout=10)


@pytest.fixture
def dripping(tmp_path: Path, ledger: Ledger) -> Iterator[Callable[[float], Dripping]]:
    """Starts simulators that drip; what they receive is looked for in the database after the test."""
    started: list[Dripping] = []

    def start(seconds: float) -> Dripping:
        one = Dripping(tmp_path / f"received-{len(started)}", seconds)
        started.append(one)
        ledger.models.append(one)  # type: ignore[arg-type] - it has bodies as they have
        return one

    yield start
    for one in started:
        one.close()


def stored(url: str) -> list[Stored]:
    """Every turn of a database."""
    database = Database.open(url)
    try:
        rows: Any = database.read(lambda db: db.exec_driver_sql(STORED).all())
        return [Stored(*row) for row in rows]
    finally:
        database.close()


def tell(seen: Seen, streams: int) -> None:
    """Print what a run measured; times are told, not asserted."""
    print(  # noqa: T201 - pytest shows it where it is asked to
        f"{streams} streams: open after {seen.open_s:.1f} s, ended after {seen.end_s:.1f} s; {seen.threads} threads; "
        f"CPU {1000 * seen.cpu_s / streams:.1f} ms and {seen.bytes_per_stream / 1024:.0f} KiB a stream; "
        f"lag of the loop {seen.lag_longest_s:.2f} s while they open, {seen.lag_open_longest_s:.2f} s after that "
        f"(99 of 100: {seen.lag_open_p99_s:.3f} s); connections {seen.connections}, busy {seen.busy_connections}"
    )


def check_whole(seen: Seen, url: str, streams: int) -> None:
    """All streams were open at the same moment, in few threads; each is stored as it was heard, with its usage."""
    assert seen.errors == []
    assert (seen.open_at_once, seen.in_flight) == (streams, streams)
    assert streams <= seen.sockets <= streams + MOST_CONNECTIONS + 16
    assert seen.threads <= MOST_THREADS, seen.threads_of_python
    assert len(seen.threads_of_python) <= MOST_THREADS
    turns = stored(url)
    assert Counter(turn.status for turn in turns) == {"completed": streams}
    assert {turn.session_id: turn.text for turn in turns} == seen.heard
    assert all(turn.text and turn.finish_reason == "stop" for turn in turns)
    assert all((turn.prompt_tokens or 0) + (turn.completion_tokens or 0) == turn.total_tokens for turn in turns)
    assert all(turn.total_tokens for turn in turns)


def check_nothing_left(seen: Seen, said: str) -> None:
    """No task, thread, file, socket or connection is left, and nobody complained."""
    assert (seen.left_tasks, seen.left_threads, seen.left_files) == ([], [], [])
    assert not re.search("never awaited|ResourceWarning|was destroyed|never retrieved|Traceback", said), said[-4000:]


def test_two_thousand_streams_on_sqlite(sqlite_url: str, dripping: Callable[[float], Dripping]) -> None:
    """2,000 streams, each in its session, open at once on one SQLite file: all completed, stored and told."""
    server = dripping(1.0)
    seen, said = Seen.by(Order(sqlite_url, server.base_url, KEY, 2_000))
    tell(seen, 2_000)
    check_whole(seen, sqlite_url, 2_000)
    check_nothing_left(seen, said)


def test_two_hundred_streams_on_postgresql(postgres_url: str, dripping: Callable[[float], Dripping]) -> None:
    """200 streams on a pool of a few connections, of which none is in a transaction while the model answers."""
    server = dripping(0.5)
    seen, said = Seen.by(Order(postgres_url, server.base_url, KEY, 200))
    tell(seen, 200)
    check_whole(seen, postgres_url, 200)
    assert 0 < seen.connections <= MOST_CONNECTIONS
    assert seen.busy_connections == 0
    check_nothing_left(seen, said)


def test_a_third_is_cancelled(database_url: str, dripping: Callable[[float], Dripping]) -> None:
    """Tasks cancelled at any moment, some twice: each turn has an end, with the text so far, and nothing is left."""
    server = dripping(0.1)
    seen, said = Seen.by(Order(database_url, server.base_url, KEY, 60, cancel=20, within_s=2.0), develop=True)
    turns = stored(database_url)
    assert seen.errors == []
    assert 0 < seen.cancelled <= 20
    ends = Counter(turn.status for turn in turns)
    assert set(ends) <= {"completed", "interrupted"}
    assert ends["completed"] >= 40
    assert 60 - seen.cancelled <= len(turns) <= 60
    for turn in turns:
        heard = seen.heard[turn.session_id]
        assert (turn.text or "").startswith(heard)
        assert turn.status == "interrupted" or (turn.text and turn.total_tokens)
    check_nothing_left(seen, said)

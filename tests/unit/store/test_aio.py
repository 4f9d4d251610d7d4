"""Databases for asyncio: writes that wait are committed together, and each has its own outcome; readers beside them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from roleplay import Database, InvalidInputError, StoreError
from roleplay.store.access import aio, database, sqlite
from roleplay.store.access.aio import AsyncSqlite, open_async
from roleplay.store.records.calls import UsageTotal

Work = Callable[[Connection], Any]


class File:
    """A SQLite file with one table, the statements that went to it, and a look at it from outside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ran: list[str] = []
        self.outside = sqlite3.connect(path, isolation_level=None)
        self.outside.executescript("PRAGMA journal_mode = WAL; CREATE TABLE notes (n INTEGER PRIMARY KEY)")

    def open(self) -> AsyncSqlite:
        """Open it, as the engine does."""
        opened = Database.open(f"sqlite:///{self.path}")
        event.listen(opened.engine, "connect", lambda driver, _record: driver.set_trace_callback(self.ran.append))
        found = open_async(opened)
        assert isinstance(found, AsyncSqlite)
        return found

    def notes(self) -> list[int]:
        """What another connection sees."""
        return [row[0] for row in self.outside.execute("SELECT n FROM notes ORDER BY n")]

    def count(self, statement: str) -> int:
        """How often a statement was run."""
        return sum(one.startswith(statement) for one in self.ran)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    """A file to write into."""
    one = File(tmp_path / "notes.db")
    yield one
    one.outside.close()


def note(number: int) -> Work:
    """Write a number and give it."""

    def work(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO notes VALUES (?)", (number,))
        return number

    return work


class Gate:
    """A work that holds the writer, so that others have to wait."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, _connection: Connection) -> str:
        self.reached.set()
        assert self._open.wait(10)
        return "gate"

    def open(self) -> None:
        """Let the writer go on."""
        self._open.set()


async def behind(gate: Gate, db: AsyncSqlite, *works: Work) -> list[asyncio.Task[Any]]:
    """Have the gate hold the writer and ``works`` wait behind it; gives the tasks that wait for them."""
    holding = asyncio.create_task(db.write(gate))
    await asyncio.to_thread(gate.reached.wait)
    tasks = [asyncio.create_task(db.write(work)) for work in works]
    await asyncio.sleep(0.01)
    return [holding, *tasks]


def test_writes_that_wait_are_committed_together(file: File) -> None:
    """Fifty writes behind a slow one are one transaction, in the order in which they came; each has its own result."""

    async def run() -> None:
        db, gate = file.open(), Gate()
        tasks = await behind(gate, db, *map(note, range(50)))
        before = file.count("BEGIN IMMEDIATE"), file.count("COMMIT")
        gate.open()
        assert await asyncio.gather(*tasks) == ["gate", *range(50)]
        assert (file.count("BEGIN IMMEDIATE"), file.count("COMMIT")) == (before[0] + 1, before[1] + 2)
        assert file.count("INSERT") == 50
        await db.close()

    asyncio.run(run())
    assert file.notes() == list(range(50))


def test_a_group_has_a_bound(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait, one transaction takes only so many."""
    monkeypatch.setattr(aio, "GROUP_LIMIT", 20)

    async def run() -> None:
        db, gate = file.open(), Gate()
        tasks = await behind(gate, db, *map(note, range(50)))
        gate.open()
        await asyncio.gather(*tasks)
        assert file.count("BEGIN IMMEDIATE") == 4
        await db.close()

    asyncio.run(run())


def test_one_that_fails_fails_alone(file: File) -> None:
    """In a group, the works that fail get their own errors; the others are committed, once."""

    def fails(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO notes VALUES (99)")
        raise LookupError("mine")

    async def run() -> None:
        db, gate = file.open(), Gate()
        tasks = await behind(gate, db, note(1), fails, note(2), note(1), note(3))
        before = file.count("COMMIT")
        gate.open()
        _, one, mine, two, again, three = await asyncio.gather(*tasks, return_exceptions=True)
        assert (one, two, three) == (1, 2, 3)
        assert isinstance(mine, LookupError)
        assert isinstance(again, StoreError)
        assert file.count("COMMIT") == before + 2  # the gate's, and one for them all
        assert file.count("INSERT INTO notes VALUES (3)") == 1
        await db.close()

    asyncio.run(run())
    assert file.notes() == [1, 2, 3]


def test_a_transaction_that_is_lost_is_done_one_by_one(file: File) -> None:
    """Where SQLite undoes the whole transaction, as when the disk is full, whoever was in it is done alone."""

    def loses_all(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT OR ROLLBACK INTO notes VALUES (0), (0)")

    async def run() -> None:
        db, gate = file.open(), Gate()
        tasks = await behind(gate, db, note(1), loses_all, note(2))
        gate.open()
        _, one, lost, two = await asyncio.gather(*tasks, return_exceptions=True)
        assert (one, two) == (1, 2)
        assert isinstance(lost, StoreError)
        assert "UNIQUE" in str(lost)
        assert await db.write(note(3)) == 3
        await db.close()

    asyncio.run(run())
    assert file.notes() == [1, 2, 3]


def test_a_result_comes_after_the_commit(file: File) -> None:
    """Nobody is told of a write before others can see it, also where its group is still at work."""

    async def run() -> None:
        db, first, second = file.open(), Gate(), Gate()
        tasks = await behind(first, db, note(1), second)
        first.open()
        await asyncio.to_thread(second.reached.wait)
        await asyncio.sleep(0.02)
        assert (tasks[0].done(), tasks[1].done(), file.notes()) == (True, False, [])
        second.open()
        assert await tasks[1] == 1
        assert file.notes() == [1]
        await asyncio.gather(*tasks)
        await db.close()

    asyncio.run(run())


def test_a_cancelled_caller_has_written(file: File) -> None:
    """A write whose caller is cancelled while it waits is committed all the same, and disturbs no other."""

    async def run() -> None:
        db, gate = file.open(), Gate()
        tasks = await behind(gate, db, note(1), note(2))
        tasks[1].cancel()
        await asyncio.sleep(0)
        gate.open()
        assert await tasks[2] == 2
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        await tasks[0]
        await db.close()

    asyncio.run(run())
    assert file.notes() == [1, 2]


def test_close_finishes_what_waits(file: File) -> None:
    """Closing commits what is waiting, ends the threads, and refuses what comes later; twice does no harm."""

    async def run() -> None:
        db, gate = file.open(), Gate()
        tasks = await behind(gate, db, *map(note, range(5)))
        closing = asyncio.create_task(db.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        gate.open()
        await closing
        assert [await task for task in tasks] == ["gate", *range(5)]
        for door in (db.read, db.write):
            with pytest.raises(StoreError, match="closed"):
                await door(note(9))
        await db.close()

    asyncio.run(run())
    assert file.notes() == list(range(5))
    assert [one.name for one in threading.enumerate() if one.name.startswith("roleplay-")] == []


def test_reads_run_beside_a_write(file: File) -> None:
    """Readers do not wait for the writer, see what is committed, and one that fails fails alone."""

    def fails(_connection: Connection) -> None:
        raise LookupError("mine")

    def count(connection: Connection) -> int:
        return int(connection.exec_driver_sql("SELECT count(*) FROM notes").scalar_one())

    async def run() -> None:
        db, gate = file.open(), Gate()
        await db.write(note(1))
        tasks = await behind(gate, db, note(2))
        found = await asyncio.gather(*(db.read(fails if n == 7 else count) for n in range(40)), return_exceptions=True)
        assert isinstance(found.pop(7), LookupError)
        assert found == [1] * 39
        gate.open()
        await asyncio.gather(*tasks)
        assert await db.read(count) == 2
        await db.close()

    asyncio.run(run())


def test_few_threads(file: File) -> None:
    """However much is asked for at once, it is the work of a few threads."""

    async def run() -> int:
        db = file.open()
        before = threading.active_count()
        most = 0
        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(db.write(note(number)))
                group.create_task(db.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()))
                most = max(most, threading.active_count())
        assert most <= before
        named = sum(one.name.startswith("roleplay-") for one in threading.enumerate())
        await db.close()
        return named

    assert asyncio.run(run()) == aio.READERS + 1
    assert len(file.notes()) == 1000


def test_two_event_loops(file: File) -> None:
    """Callers on several event loops share a database; one whose loop has gone keeps nobody from theirs."""
    db, gate = file.open(), Gate()

    async def many(begin: int) -> list[int]:
        return await asyncio.gather(*(db.write(note(number)) for number in range(begin, begin + 100)))

    async def leave() -> None:
        await behind(gate, db, note(1000))

    asyncio.run(leave())
    found: dict[int, list[int]] = {}

    def other(begin: int) -> None:
        found[begin] = asyncio.run(many(begin))

    threads = [threading.Thread(target=other, args=(begin,)) for begin in (0, 100)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(10)
    asyncio.run(db.close())
    assert found == {0: list(range(100)), 100: list(range(100, 200))}
    assert file.notes() == [*range(200), 1000]


def test_a_lock_that_is_not_given_up(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that never gets the lock fails together, after the patience for one, each caller with its own error."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(database, "LOCK_PATIENCE_S", 0.3)

    async def run() -> None:
        db, gate = file.open(), Gate()
        tasks = await behind(gate, db, *map(note, range(20)))
        gate.open()
        await tasks[0]
        await asyncio.gather(*tasks)
        file.outside.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        refused = await asyncio.gather(*(db.write(note(number)) for number in range(100, 120)), return_exceptions=True)
        assert time.monotonic() - began < 3
        assert {type(one) for one in refused} == {StoreError}
        assert len({id(one) for one in refused}) == 20
        assert "locked" in str(refused[0])
        file.outside.execute("ROLLBACK")
        assert await db.write(note(200)) == 200
        await db.close()

    asyncio.run(run())
    assert file.notes() == [*range(20), 200]


@pytest.mark.parametrize("door", ["read", "write"])
def test_errors_are_ours(database_url: str, door: str) -> None:
    """A statement that fails is a StoreError without its values; half a character is the caller's fault."""
    secret = "pa55-w0rd"

    def fails(connection: Connection) -> None:
        mark = "?" if connection.dialect.name == "sqlite" else "%s"
        connection.exec_driver_sql(f"SELECT {mark} FROM no_such_table", (secret,))

    def half(connection: Connection) -> None:
        mark = "?" if connection.dialect.name == "sqlite" else "%s"
        connection.exec_driver_sql(f"SELECT {mark}", ("\ud800",))

    async def run() -> None:
        db = open_async(Database.open(database_url))
        with pytest.raises(StoreError, match="the database failed") as failure:
            await getattr(db, door)(fails)
        assert secret not in str(failure.value)
        with pytest.raises(InvalidInputError, match="lone surrogate"):
            await getattr(db, door)(half)
        for unreadable in (lambda _: json.loads(secret), lambda _: UsageTotal.model_validate({"key": [secret]})):
            with pytest.raises(StoreError, match="a row is stored that cannot be read") as failure:
                await getattr(db, door)(unreadable)
            assert secret not in "".join(traceback.format_exception(failure.value))
        with pytest.raises(TypeError):
            await getattr(db, door)(lambda _: len(5))
        assert await getattr(db, door)(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1
        await db.close()

    asyncio.run(run())

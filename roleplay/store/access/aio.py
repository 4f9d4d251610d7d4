"""Databases for asyncio: the same work on the same statements, without a blocked event loop.

SQLite has one writer: a thread of its own takes whatever is waiting and commits it together, so that a thousand streams
share a disk sync instead of queueing for a thousand. PostgreSQL is spoken to by asyncio itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection

from roleplay.domain.erasure import Files
from roleplay.errors import SettingsError, StoreError
from roleplay.store.access import postgres
from roleplay.store.access.database import Database, OurErrors, Patience, places_of, too_many
from roleplay.store.access.sqlite import FileLostError

T = TypeVar("T")
READERS = 2
READ_LIMIT = 8
GROUP_LIMIT = 256


class AsyncDatabase(Protocol):
    """Short transactions, awaited."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that only reads and give its result. Raises ``StoreError``."""
        ...

    async def write(self, work: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run ``work`` in a transaction and commit it; its result is given after the commit. Raises ``StoreError``.

        ``work`` may run more than once; what it wrote counts once. ``patient``: as for ``Database.write``.
        """
        ...

    async def wipe(self) -> Files | None:
        """As ``Database.wipe``."""
        ...

    async def close(self) -> None:
        """Finish what is waiting and close."""
        ...


def open_async(database: Database) -> AsyncDatabase:
    """Give the asyncio face of a database that was opened and whose schema was checked."""
    return AsyncPostgres(database) if database.dialect == "postgresql" else AsyncSqlite(database)


class _Job(NamedTuple):
    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class _Outcome(NamedTuple):
    job: _Job
    result: Any
    error: BaseException | None


class AsyncSqlite:
    """SQLite: one writer thread that commits in groups, a few readers beside it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readers = _Lane(database.read, "roleplay-reader", READERS, READ_LIMIT)
        self._writer = _Lane(database.write, "roleplay-writer", 1, GROUP_LIMIT)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a reader thread."""
        return await self._readers.do(work)

    async def write(self, work: Callable[[Connection], T], *, patient: bool = False) -> T:  # noqa: ARG002 - a file stays
        """Hand ``work`` to the writer thread and wait until it is committed."""
        return await self._writer.do(work)

    async def wipe(self) -> Files | None:
        """Wipe in a thread of its own; the writer waits meanwhile."""
        return await asyncio.to_thread(self._database.wipe)

    async def close(self) -> None:
        """Finish what is waiting and end the threads."""
        for lane in (self._writer, self._readers):
            await asyncio.to_thread(lane.close)
        self._database.close()


class _Lane:
    """Threads that take what is waiting, at most ``limit`` works at once, and do it in one transaction."""

    def __init__(self, run: Callable[[Callable[[Connection], Any]], Any], name: str, threads: int, limit: int) -> None:
        self._run = run
        self._limit = limit
        self._waiting: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        names = [f"{name}-{number}" for number in range(threads)]
        self._threads = [threading.Thread(target=self._work, name=each, daemon=True) for each in names]
        for thread in self._threads:
            thread.start()

    async def do(self, work: Callable[[Connection], T]) -> T:
        """Wait for a thread to do ``work``, which it does all the same when the waiting is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._wake:
            if self._closing:
                raise StoreError("the database is closed")
            self._waiting.append(_Job(work, future, loop))
            self._wake.notify()
        return await future

    def close(self) -> None:
        """Finish what is waiting and end the threads."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if not self._waiting:
                    return
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._limit))]
            self._tell(self._together(group))

    def _together(self, group: Sequence[_Job]) -> list[_Outcome]:
        """Do a group in one transaction, in which a failing work undoes itself alone; when the transaction fails,
        nothing of the group stays, and each is done in one of its own."""
        begun = False

        def works(connection: Connection) -> list[_Outcome]:
            nonlocal begun
            begun = True
            if len(group) > 1 and not connection.in_transaction():
                connection.begin()  # else SQLAlchemy undoes all of them when it cannot execute a statement of one
            return [_outcome(job, connection) if len(group) > 1 else _done(job, connection) for job in group]

        try:
            return self._run(works)  # type: ignore[no-any-return]
        except BaseException as error:  # noqa: BLE001 - handed to those who wait
            if len(group) == 1:
                return [_Outcome(group[0], None, error)]
            if not begun or isinstance(error.__cause__, FileLostError):  # it is nobody's own failure
                return [_Outcome(job, None, copy(error)) for job in group]
            return [outcome for job in group for outcome in self._together([job])]

    @staticmethod
    def _tell(outcomes: Sequence[_Outcome]) -> None:
        for loop in {outcome.job.loop for outcome in outcomes}:
            mine = [outcome for outcome in outcomes if outcome.job.loop is loop]
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(_settle, mine)


class AsyncPostgres:
    """PostgreSQL through psycopg's asyncio side."""

    def __init__(self, database: Database) -> None:
        self._database = database
        try:
            from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - needs the extra
        except ImportError:
            raise SettingsError("asyncio needs an extra: pip install 'roleplay-engine[async]'") from None
        url = postgres.with_driver(database.engine.url, for_asyncio=True)
        try:
            self._engine = create_async_engine(url, **postgres.OPTIONS)
        except ImportError:
            raise SettingsError(
                "PostgreSQL in asyncio needs psycopg: pip install 'roleplay-engine[postgres]'"
            ) from None
        postgres.prepared(self._engine.sync_engine)
        self._places = asyncio.Semaphore(places_of(self._engine.sync_engine.pool))  # who came first is served first
        database.close()  # the connection that checked the schema is of no more use

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a pooled connection."""
        return await self._again(work, patient=False)

    async def write(self, work: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run ``work`` on a pooled connection and commit it; ``patient``: also when the server went away meanwhile."""
        return await self._again(work, patient=patient)

    async def wipe(self) -> Files | None:
        """Nothing: what is written over there, and when, is the server's business."""
        return None

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._engine.dispose()
        self._database.close()

    async def _again(self, work: Callable[[Connection], T], *, patient: bool) -> T:
        patience = Patience(lost_too=patient)
        while True:
            await self._take_place(patience.for_connection_s)
            try:
                return await self._run(work)
            except StoreError as error:
                pause_s = patience.pause_after(error, time.monotonic())
            finally:
                self._places.release()
            await asyncio.sleep(pause_s)

    async def _take_place(self, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                await self._places.acquire()
        except TimeoutError:
            raise too_many() from None

    async def _run(self, work: Callable[[Connection], T]) -> T:
        with OurErrors():
            async with self._engine.connect() as connection:
                result = await connection.run_sync(work)
                try:
                    await connection.commit()
                except BaseException:
                    await connection.invalidate()  # as in ``Database``
                    raise
                return result


def _done(job: _Job, connection: Connection) -> _Outcome:
    return _Outcome(job, job.work(connection), None)


def _outcome(job: _Job, connection: Connection) -> _Outcome:
    """Do one work of several; nothing of it stays when it raises.

    An error after which SQLite has undone the whole transaction leaves no savepoint to go back to, and so ends it.
    """
    driver: Any = connection.connection.driver_connection
    driver.execute("SAVEPOINT work")
    try:
        with OurErrors():
            outcome = _done(job, connection)
    except Exception as error:  # noqa: BLE001 - handed to who waits
        driver.execute("ROLLBACK TO work")
        outcome = _Outcome(job, None, error)
    driver.execute("RELEASE work")
    return outcome


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for job, result, error in outcomes:
        if job.future.done():
            continue  # its caller was cancelled; what it asked for is committed all the same
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)

"""A database: its connections, its transactions, its waiting for locks, its errors as ours."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import Pool, QueuePool

from roleplay.domain.erasure import Files
from roleplay.errors import InvalidInputError, RoleplayError, SettingsError, StoreError
from roleplay.store.access import address, postgres, prepared
from roleplay.store.access.address import Address, DatabaseUrl
from roleplay.store.access.decoding import unreadable
from roleplay.store.access.fair_semaphore import FairSemaphore
from roleplay.store.access.sqlite import (
    BUSY_TIMEOUT_S,
    Creator,
    DbKey,
    FileLostError,
    Key,
    Unwatched,
    code_of,
    driver_errors,
    file_of,
    files_of,
    open_sqlite,
)

T = TypeVar("T")

LOCK_PATIENCE_S = 60.0
SERVER_PATIENCE_S = 20.0  # below the margin of a lease, so that nobody takes over what is written at last
CONNECTION_PATIENCE_S = 60.0  # as for a lock
FINISH_PATIENCE_S = 600.0  # for a connection to finish a turn with, when all are in use
REWRITE_LIMIT_BYTES = 2**30  # some seconds of work, during which writers wait
WIPE_PATIENCE_S = 10.0
_WIPE_LOOK_MS = 250  # how long one look for readers may keep writers waiting
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.25


class Database:
    """Short transactions on one engine. Thread-safe; holds no connection between transactions."""

    def __init__(self, engine: Engine, *, owns_engine: bool = False) -> None:
        """Use ``engine``, as ``open_engine`` makes them. The database closes it only when it owns it."""
        self.engine = engine
        self.dialect = engine.dialect.name
        self._owns_engine = owns_engine
        self._semaphore = FairSemaphore(places_of(engine.pool))
        self._files = files_of(engine) if self.dialect == "sqlite" else Unwatched()

    @classmethod
    def open(cls, url: DatabaseUrl | Address, *, db_key: Key = None, creator: Creator | None = None) -> Self:
        """Open ``url``, or use an ``Engine``, which its maker closes; nothing is connected or created yet.

        ``db_key`` encrypts a SQLite file: a passphrase, or 32 bytes that are used as they are. ``creator`` makes the
        connections of a SQLite database in the place of the URL. Raises ``SettingsError`` for what cannot work.
        """
        db_key = DbKey.of(db_key)
        if not isinstance(url, Engine):
            return cls(open_engine(url, db_key=db_key, creator=creator), owns_engine=True)
        if db_key is not None or creator is not None:
            raise SettingsError("db_key and creator are for a URL; an engine makes its connections itself")
        if url.dialect.name not in {"sqlite", "postgresql"}:
            raise SettingsError(f"engines for {url.dialect.name!r} are not supported; use sqlite or postgresql")
        return cls(url)

    def is_read_only(self) -> bool:
        """Whether SQLite's file or folder cannot be written; elsewhere no. Changes nothing. Raises ``StoreError``."""

        def work(connection: Connection) -> None:
            [version] = connection.exec_driver_sql("PRAGMA user_version").one()
            connection.exec_driver_sql(f"PRAGMA user_version = {version}")
            raise _NothingError

        if self.dialect != "sqlite":
            return False
        try:
            self.write(work)
        except _NothingError:
            return False
        except StoreError as error:
            if _cause_code(error.__cause__) == sqlite3.SQLITE_READONLY:
                return True
            raise
        return False

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that only reads and give its result. Raises ``StoreError``."""
        return self._again(work, "BEGIN", patient=False)

    def write(self, work: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run ``work`` in a transaction and commit it; nothing of it stays when it raises.

        On SQLite the write lock is taken before ``work`` starts, and waited for at most ``LOCK_PATIENCE_S`` seconds, so
        that ``work`` runs once. Where PostgreSQL undid the transaction for the sake of another, ``work`` is done again
        for ``SERVER_PATIENCE_S`` seconds. ``patient``: also where it went away or refused a statement for now, and when
        all connections are in use, they are waited for longer. A lost transaction may have been committed, which nobody
        can know who was not told; so that is only for work that finds its own traces and changes nothing then. Raises
        ``StoreError``.
        """
        return self._again(work, "BEGIN IMMEDIATE", patient=patient)

    def migrate(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` as ``write`` does, while SQLite follows no foreign key: a table is rebuilt there by dropping it,
        which would delete the rows that refer to it. ``work`` checks them before it ends. Raises ``StoreError``."""
        return self._again(work, "BEGIN IMMEDIATE", patient=False, linked=False)

    def wipe(self) -> Files | None:
        """Leave no byte of deleted rows in SQLite's files, and say what became of them; elsewhere ``None``.

        Zeroes in the place of what is deleted are not enough: where SQLite balances its trees it leaves copies of rows
        in the gaps of pages, of which a later deletion knows nothing. So the file is written anew, and then the log is
        copied into it and emptied, for which every reader of an older state must have ended. Raises ``StoreError``.
        """
        if self.dialect != "sqlite":
            return None
        with OurErrors(), self.engine.connect() as connection, self._files.watched(connection):
            driver: Any = connection.connection.driver_connection
            return _wipe(driver)

    def close(self) -> None:
        """Close the pooled connections, when this database opened them."""
        if self._owns_engine:
            self.engine.dispose()

    def use_write_ahead_log(self) -> None:
        """Switch SQLite to write-ahead logging, which its busy time-out does not cover; elsewhere do nothing."""
        if self.dialect != "sqlite":
            return
        with OurErrors(), self.engine.connect() as connection, self._files.watched(connection):
            driver: Any = connection.connection.driver_connection
            _patiently(driver.execute, "PRAGMA journal_mode = WAL")

    def _again(self, work: Callable[[Connection], T], begin: str, *, patient: bool, linked: bool = True) -> T:
        patience: Patience | None = None
        while True:
            if not self._semaphore.acquire(FINISH_PATIENCE_S if patient else CONNECTION_PATIENCE_S):
                raise too_many()
            try:
                return self._run(work, begin, linked=linked)
            except StoreError as error:
                patience = patience or Patience(lost_too=patient)
                pause_s = patience.pause_after(error, time.monotonic())
            finally:
                self._semaphore.release()
            time.sleep(pause_s)

    def _run(self, work: Callable[[Connection], T], begin: str, *, linked: bool) -> T:
        with OurErrors(), self._connected() as connection, self._files.watched(connection):
            if linked or self.dialect != "sqlite":
                return self._in_transaction(connection, work, begin)
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys = OFF")  # which a transaction would ignore
            try:
                return self._in_transaction(connection, work, begin)
            finally:
                if not connection.invalidated:
                    driver.execute("PRAGMA foreign_keys = ON")

    def _connected(self) -> Connection:
        """Take a connection. The one of SQLite's driver alone is what statements need where nothing listens to them."""
        if self.dialect == "sqlite" and not prepared.is_watched(self.engine):
            return cast("Connection", prepared.Direct(self.engine))
        return self.engine.connect()

    def _in_transaction(self, connection: Connection, work: Callable[[Connection], T], begin: str) -> T:
        driver: Any = connection.connection.driver_connection
        if type(connection) is Connection:
            connection.begin()
        try:
            if self.dialect == "sqlite":
                _patiently(driver.execute, begin)
            result = work(connection)
        except BaseException:
            if self.dialect == "sqlite":  # SQLAlchemy may know of no transaction, and a pool may leave it open
                try:
                    driver.rollback()
                except driver_errors():  # after Ctrl-C in a statement SQLAlchemy has closed the connection
                    connection.invalidate()
            raise
        try:
            if connection.in_transaction():
                connection.commit()
            else:  # nothing went through SQLAlchemy, which knows of no transaction then
                driver.commit()
        except BaseException:
            connection.invalidate()  # else it would go back to the pool with its transaction open
            raise
        return result


def too_many() -> StoreError:
    """Say that all connections were in use for as long as this one was waited for."""
    return StoreError("too many at once: all connections to the database were in use for too long; nothing was written")


class Patience:
    """How long a database is waited for: one that undid a transaction, with ``lost_too`` also one that went away or
    refused a statement for now."""

    def __init__(self, *, lost_too: bool) -> None:
        self._lost_too = lost_too
        self._give_up: float | None = None
        self._pause = _FIRST_PAUSE_S

    @property
    def for_connection_s(self) -> float:
        """How many seconds a connection is waited for, when all are in use."""
        return FINISH_PATIENCE_S if self._lost_too else CONNECTION_PATIENCE_S

    def pause_after(self, error: StoreError, now: float) -> float:
        """Give the seconds until the next try. Raises ``error`` where none is worth it."""
        if self._give_up is None:
            self._give_up = now + SERVER_PATIENCE_S
        if now > self._give_up or not self._may_pass(error.__cause__):
            raise error
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        return self._pause * (0.5 + random.random())  # noqa: S311 - spreads those who come back, guards nothing

    def _may_pass(self, cause: BaseException | None) -> bool:
        if postgres.was_undone(cause):
            return True
        return self._lost_too and (
            postgres.went_away(cause) or postgres.refused_for_now(cause) or isinstance(cause, PoolTimeoutError)
        )


def places_of(pool: Pool) -> int:
    """How many connections a pool gives at once."""
    overflow = getattr(pool, "_max_overflow", -1)
    size = pool.size() if isinstance(pool, QueuePool) and overflow >= 0 else 0
    return size + overflow if size else 2**31


def _wipe(driver: sqlite3.Connection) -> Files:
    """Rewrite the file where it is not too large for that, and empty the log, waiting a while for readers to end."""
    # SQLCipher gives the size as a text.
    pages, size = (int(driver.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size"))
    too_large = pages * size > REWRITE_LIMIT_BYTES
    try:
        if not too_large:
            _patiently(driver.execute, "VACUUM", WIPE_PATIENCE_S)
        driver.execute(f"PRAGMA busy_timeout = {_WIPE_LOOK_MS}")
        give_up = time.monotonic() + WIPE_PATIENCE_S
        while driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > give_up:
                return "busy"
            time.sleep(_LONGEST_PAUSE_S)
    except driver_errors() as error:
        if _is_locked(error):
            return "busy"
        raise
    finally:
        driver.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    return "too large" if too_large else "wiped"


def _patiently(execute: Callable[[str], object], statement: str, patience_s: float | None = None) -> None:
    """Execute ``statement``, waiting for SQLite's lock with jittered pauses above its own busy time-out."""
    give_up = time.monotonic() + (LOCK_PATIENCE_S if patience_s is None else patience_s)
    pause = _FIRST_PAUSE_S
    while True:
        try:
            execute(statement)
        except driver_errors() as error:
            if not _is_locked(error) or time.monotonic() > give_up:
                raise
            time.sleep(pause * random.random())  # noqa: S311 - spreads waiting writers, guards nothing
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        else:
            return


def _is_locked(error: BaseException) -> bool:
    """Whether SQLite refused because another connection holds the lock."""
    return code_of(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class _NothingError(Exception):
    """Undoes a transaction that was to write nothing."""


#: Beside the drivers' own errors; the last is psycopg's for values that it cannot read.
_TRANSLATED = (SQLAlchemyError, FileLostError, UnicodeEncodeError, NotImplementedError)


class OurErrors:
    """Around what uses a database: translates what it raises, and what reading its rows raises, where they hold what
    was never written.

    Nothing of a caller's runs in a transaction, and what callers give was checked before; so a ``ValueError`` that is
    none of ours is a row's: no JSON, not in an enumeration, no moment.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, RoleplayError):
            return
        if isinstance(error, DBAPIError) and error.statement is None:
            _without_tracebacks(error)
        if isinstance(
            error, (SQLAlchemyError, FileLostError, UnicodeEncodeError, NotImplementedError, *driver_errors())
        ):
            raise as_ours(error) from error
        if isinstance(error, ValueError):
            raise unreadable("a row", error) from None


def _without_tracebacks(error: BaseException | None) -> None:
    """Let go of the frames in which a connection was made, and of the driver's record of it: the password stands in
    them, for whoever shows a traceback with the values of its variables, or what an error holds. The errors behind
    stay, since their kind is asked."""
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        if hasattr(error, "_pgconn"):  # psycopg's record of how it connected
            error._pgconn = None  # noqa: SLF001
        if isinstance(error, DBAPIError):
            _without_tracebacks(error.orig)
        _without_tracebacks(error.__context__)
        error = error.__cause__


def as_ours(error: BaseException) -> StoreError | InvalidInputError:
    """Translate a database error; the sentence holds the driver's first line and none of the statement's values."""
    if isinstance(error, UnicodeEncodeError):
        return InvalidInputError("text", f"holds a lone surrogate at character {error.start}")
    if isinstance(error, DataError) and "NUL" in str(error.orig):  # PostgreSQL's driver lets none through
        return InvalidInputError("text", "holds a NUL character")
    if isinstance(error, PoolTimeoutError):
        return too_many()
    cause = error.orig if isinstance(error, DBAPIError) else error
    if said := _said(error):
        return StoreError(said)
    first_line = str(cause).strip().split("\n", 1)[0] or type(cause).__name__
    return StoreError(f"the database failed: {first_line[:300]}")


def _said(error: BaseException) -> str | None:
    """Give what is told of an error whose cause is known."""
    if isinstance(error, FileLostError):
        return str(error)
    if postgres.takes_no_writes(error):
        return "the database takes no writes: it is a read-only replica, or default_transaction_read_only is on"
    return _SAID.get(_cause_code(error))


def _cause_code(error: BaseException | None) -> int:
    return code_of(error.orig if isinstance(error, DBAPIError) else error)


_SAID = {
    sqlite3.SQLITE_READONLY: "the database cannot be written: its file or folder is read-only, or was opened as such",
    sqlite3.SQLITE_NOTADB: "the database cannot be read: it is encrypted with another db_key, or is no SQLite file",
}


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database, which a URL or a ``file:`` URI names; ``None`` for others and what is no URL."""
    try:
        parsed = address.read(url)
    except SettingsError:
        return None
    return file_of(parsed) if parsed.get_backend_name() == "sqlite" else None


def open_engine(url: str | URL | Address, *, db_key: DbKey | None = None, creator: Creator | None = None) -> Engine:
    """Make an engine set up as this package needs it, for SQLite or PostgreSQL.

    Raises ``SettingsError`` when the URL cannot be read, names another database, or its driver cannot work or is
    missing.
    """
    hidden = Address(url) if isinstance(url, str) else url
    del url  # it may hold a password, and an error may be shown with the values of variables
    parsed = address.read(hidden)
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return open_sqlite(parsed, db_key, creator)
    if db_key is not None or creator is not None:
        raise SettingsError("db_key and creator are for SQLite; another database is not opened with them")
    if parsed.get_backend_name() in postgres.BACKENDS:
        return postgres.open_engine(parsed)
    raise SettingsError(f"databases of the kind {parsed.drivername!r} are not supported; use sqlite or postgresql")

"""PostgreSQL as its users have it: which drivers work, how a connection is made, and what its errors mean.

Nothing here is kept in a session of the server, so that all of it works behind a proxy that gives a connection for one
transaction.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from roleplay.errors import SettingsError

BACKENDS = frozenset({"postgresql", "postgres"})
COMMAND_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
_PSYCOPG = "postgresql+psycopg"
_PSYCOPG2 = "postgresql+psycopg2"
_COMMAND_TIMEOUT = "command_timeout"
#: What engines are made with. SQLAlchemy's way to this isolation level with these drivers is a word in every BEGIN.
OPTIONS: dict[str, Any] = {
    "hide_parameters": True,
    "pool_pre_ping": True,
    "pool_size": 8,
    "max_overflow": 24,
    "isolation_level": "READ COMMITTED",
}
#: Time-outs for idle and for long transactions, after which the server ends the connection.
_ENDED_FOR_WAITING = frozenset({"25P03", "25P04"})
#: Left to itself, it may read a whole session into a hash table to find six turns in it, and compile that.
_LOOK_UP = text(
    "SELECT set_config('jit', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true), set_config('enable_material', 'off', true),"
    " set_config('enable_seqscan', 'off', true) /* tenant: none */"
)
#: What an engine that spreads tables over servers says, as an internal error, when one of them died in a COMMIT.
_LOST_A_SHARD = ("could not commit transaction for shard", "failure on connection marked as essential")


def open_engine(url: URL) -> Engine:
    """Make an engine. Raises ``SettingsError`` for a driver that cannot work or is missing."""
    named = with_driver(url)
    _command_timeout_s(url.query.get(_COMMAND_TIMEOUT))
    try:
        return prepared(create_engine(named, **OPTIONS))
    except (ImportError, NoSuchModuleError):
        what = "psycopg2" if named.drivername == _PSYCOPG2 else "a driver"
    raise SettingsError(
        f"PostgreSQL needs {what}: pip install 'roleplay-engine[postgres]', and write postgresql:// in the database URL"
    )


def with_driver(url: URL, *, for_asyncio: bool = False) -> URL:
    """Name the driver. Raises ``SettingsError`` for one that cannot work."""
    _, _, driver = url.drivername.partition("+")
    if driver == "psycopg2" and not for_asyncio:
        return url.set(drivername=_PSYCOPG2)
    if driver in {"", "psycopg", "psycopg_async", "psycopg2"}:
        return url.set(drivername=_PSYCOPG)
    raise SettingsError(
        f"the PostgreSQL driver {driver!r} does not work here; "
        "write postgresql:// or postgresql+psycopg:// in the database URL, and pip install 'roleplay-engine[postgres]'"
    )


def prepared(engine: Engine) -> Engine:
    """Let an engine, blocking or asyncio's inner one, make its connections as they must be."""
    event.listen(engine, "do_connect", _connect)
    return engine


def check_encoding(connection: Connection) -> None:
    """Raise ``SettingsError`` where a database cannot hold every character."""
    sql = "SELECT current_setting('server_encoding'), current_database()"
    encoding, name = connection.execute(text(sql)).one()
    if str(encoding).upper().replace("-", "") != "UTF8":
        raise SettingsError(
            f"the database {name} has the encoding {encoding}, which cannot hold every character; make one with: "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def went_away(error: BaseException | None) -> bool:
    """Whether a server could not be reached or left in mid-transaction, which may have been committed or not."""
    if not isinstance(error, DBAPIError):
        return False
    state = _sqlstate(error)
    if state is None:  # the connection was not made or broke
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    lost_a_shard = state == "XX000" and any(words in str(error.orig) for words in _LOST_A_SHARD)
    return lost_a_shard or state.startswith(("08", "57P")) or state in _ENDED_FOR_WAITING


def was_undone(error: BaseException | None) -> bool:
    """Whether a server undid a transaction for the sake of another, so that it can be done again."""
    return isinstance(error, DBAPIError) and _sqlstate(error) in {"40001", "40P01"}


def refused_for_now(error: BaseException | None) -> bool:
    """Whether a server refused a statement that it may take a moment later: a time-out of its own for locks or
    statements was over, or it lacked room or connections. Nothing of the transaction stays."""
    state = _sqlstate(error) if isinstance(error, DBAPIError) else None
    return state is not None and (state in {"55P03", "57014"} or state.startswith("53"))


def takes_no_writes(error: BaseException) -> bool:
    """Whether a server refused to write, being a replica or set so."""
    return isinstance(error, DBAPIError) and _sqlstate(error) == "25006"


def _sqlstate(error: DBAPIError) -> str | None:
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)  # the latter: psycopg2
    return None if state is None else str(state)


def _command_timeout_s(given: Any) -> float:
    try:
        limit_s = COMMAND_TIMEOUT_S if given is None else float(given)
    except (TypeError, ValueError):
        limit_s = -1.0
    if not 0 <= limit_s < float("inf"):
        raise SettingsError(f"{_COMMAND_TIMEOUT} in the database URL is no number of seconds (0: no bound)")
    return limit_s


def _connect(dialect: Any, _record: object, args: Any, options: dict[str, Any]) -> Any:
    """Make a connection that speaks UTF-8 and waits for no answer without end. What the URL says wins."""
    limit_s = _command_timeout_s(options.pop(_COMMAND_TIMEOUT, None))
    options["client_encoding"] = "utf8"
    if dialect.driver == "psycopg2":
        options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
        return _bounded_psycopg2(dialect.loaded_dbapi, limit_s)(*args, **options)
    bounded: Any = importlib.import_module("roleplay.store.access.bounded")  # needs the driver, which is an extra
    if not bounded.has_connect_timeout():
        options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    options["prepare_threshold"] = None  # works behind a transaction-pooling proxy
    if dialect.is_async:
        options["async_creator_fn"] = partial(bounded.connect_async, limit_s)
        return None  # SQLAlchemy goes on with it
    return bounded.connect(limit_s, *args, **options)


def _bounded_psycopg2(driver: Any, limit_s: float) -> Any:
    """Give psycopg2's ``connect``, whose connections are cut off when an answer takes too long."""
    if not limit_s:
        return driver.connect

    class Cursor(driver.extensions.cursor):  # type: ignore[misc]
        def execute(self, *args: Any) -> Any:
            with _cut_off_after(self.connection, limit_s, driver):
                return super().execute(*args)

        def executemany(self, *args: Any) -> Any:
            with _cut_off_after(self.connection, limit_s, driver):
                return super().executemany(*args)

    class BoundConnection(driver.extensions.connection):  # type: ignore[misc]
        def commit(self) -> None:
            with _cut_off_after(self, limit_s, driver):
                super().commit()

        def rollback(self) -> None:
            with _cut_off_after(self, limit_s, driver):
                super().rollback()

    return partial(driver.connect, connection_factory=BoundConnection, cursor_factory=Cursor)


@contextlib.contextmanager
def _cut_off_after(connection: Any, limit_s: float, driver: Any) -> Iterator[None]:
    """Shut a connection's socket when what is done in here takes too long."""
    if connection.closed:
        yield
        return
    lock, over, cut = threading.Lock(), False, False

    def shut() -> None:
        nonlocal cut
        with lock:
            if not over:
                cut = True
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except driver.Error:
        if not cut:
            raise
        connection.close()
        raise driver.OperationalError(f"no answer came within {limit_s:g} s; the connection was closed") from None
    finally:
        with lock:
            over = True
        timer.cancel()


def look_up(connection: Connection) -> None:
    """Let this transaction look rows up one by one. Another database than PostgreSQL does so anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOOK_UP)

"""Connections of psycopg that wait for an answer no longer than they should.

A server that was frozen, or a line that was cut without a word, gives no error: whoever waits for an answer waits for
ever. The server's own time-outs do not run then, and those of TCP see a machine that is there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")
_CANCEL_S = 2.0
_DATES = "SET datestyle TO ISO"  # the one setting of a session, which poolers keep for each client


class _SilenceError(Exception):
    """No answer came in time."""


def _listening(steps: Generator[Any, Any, T], limit_s: float) -> Generator[Any, Any, T]:
    """Do psycopg's steps, but give up after ``limit_s`` seconds in which nothing came.

    What waits wakes it several times a second with a falsy state. The first of them after the time is forgiven: a busy
    event loop may be late to see what has come.
    """
    began, late = time.monotonic(), False
    ready = None
    while True:
        try:
            wanted = steps.send(ready)
        except StopIteration as stop:
            result: T = stop.value
            return result
        ready = yield wanted
        if ready:
            began, late = time.monotonic(), False
        elif time.monotonic() - began > limit_s:
            if late:
                raise _SilenceError
            late = True


def _silent(limit_s: float) -> psycopg.OperationalError:
    return psycopg.OperationalError(f"no answer came within {limit_s:g} s; the connection was closed")


class BoundedConnection(psycopg.Connection[Any]):
    """A blocking connection that is closed when an answer takes more than ``limit_s`` seconds."""

    limit_s: float

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Wait as psycopg does. Raises ``OperationalError`` when nothing comes."""
        try:
            return super().wait(_run(gen, self), *args, **options)
        except _SilenceError:
            if psycopg.capabilities.has_cancel_safe():  # what went before waits for its answer without end
                with contextlib.suppress(psycopg.Error):
                    self.cancel_safe(timeout=_CANCEL_S)
            self.close()
        raise _silent(self.limit_s)


class AsyncBoundedConnection(psycopg.AsyncConnection[Any]):
    """As ``BoundedConnection``, for asyncio."""

    limit_s: float

    async def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """As ``BoundedConnection.wait``."""
        try:
            return await super().wait(_run(gen, self), *args, **options)
        except _SilenceError:
            if psycopg.capabilities.has_cancel_safe():
                with contextlib.suppress(psycopg.Error):
                    await self.cancel_safe(timeout=_CANCEL_S)
            await self.close()
        raise _silent(self.limit_s)


def _run(steps: Any, connection: BoundedConnection | AsyncBoundedConnection) -> Any:
    limit_s = getattr(connection, "limit_s", 0.0)  # it has none while it is made
    return _listening(steps, limit_s) if limit_s > 0 else steps


def has_connect_timeout() -> bool:
    """Whether the machine says how long to wait for a connection, where the URL does not."""
    return any(one.keyword == b"connect_timeout" and one.val for one in psycopg.pq.Conninfo.get_defaults())


def connect(limit_s: float, /, *args: Any, **options: Any) -> BoundedConnection:
    """Connect, as ``psycopg.connect``."""
    connection = BoundedConnection.connect(*args, **options)
    connection.limit_s = limit_s
    if not _writes_dates_as_iso(connection):
        connection.execute(_DATES)
        connection.commit()
    return connection


async def connect_async(limit_s: float, /, *args: Any, **options: Any) -> AsyncBoundedConnection:
    """Connect, as ``psycopg.AsyncConnection.connect``."""
    connection = await AsyncBoundedConnection.connect(*args, **options)
    connection.limit_s = limit_s
    if not _writes_dates_as_iso(connection):
        await connection.execute(_DATES)
        await connection.commit()
    return connection


def _writes_dates_as_iso(connection: BoundedConnection | AsyncBoundedConnection) -> bool:
    """Whether the server writes dates as psycopg reads them, which a database or a role may have set otherwise."""
    return (connection.pgconn.parameter_status(b"DateStyle") or b"ISO").startswith(b"ISO")

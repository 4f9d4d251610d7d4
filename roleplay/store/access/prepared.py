"""The statements of a turn's path: built once, and compiled once too.

``Connection.execute`` looks a statement up, sorts and checks its parameters and prepares its result anew each time,
which would cost a turn a tenth of its processor time. What is left of SQLAlchemy's way to the driver costs as much
again where a database answers in microseconds, so that on SQLite it is gone only where something listens to the
engine's events (an instrumentation, a test); there every statement is told as it always is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, Self, cast

from sqlalchemy import ClauseElement, Connection, Dialect, Engine
from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """A Core statement that is compiled at its first execution on each kind of database.

    An INSERT has the columns that its first execution names. A SELECT gives what the driver gives, so it selects
    numbers and texts only. No value is a list.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[type[Dialect], _Compiled] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Ran:
        """Execute the statement with ``values``: all of its parameters, nothing else."""
        compiled = self._compiled.get(type(connection.dialect))
        if compiled is None:
            compiled = _compile(self._statement, connection.dialect, values)
            self._compiled[type(connection.dialect)] = compiled
        taken: Any = connection
        if type(taken) is Direct:
            return _Cursor(taken.driver.execute(compiled.sql, compiled.parameters(values)))
        return connection.exec_driver_sql(compiled.sql, compiled.parameters(values))


def is_watched(engine: Engine) -> bool:
    """Whether something listens to what an engine executes; where that cannot be told, it may."""
    return bool(getattr(engine, "_has_events", True))


def whole(connection: Connection) -> Connection:
    """Give SQLAlchemy's own connection of a transaction, for what takes no other."""
    taken: Any = connection
    return taken.whole() if type(taken) is Direct else connection


class Direct:
    """A transaction on SQLite whose prepared statements go straight to the driver. For any other statement SQLAlchemy's
    connection is made, over the same one of the driver."""

    def __init__(self, engine: Engine) -> None:
        """Take a connection out of the engine's pool."""
        self.dialect = engine.dialect
        self.connection = engine.raw_connection()
        self.driver: Any = self.connection.driver_connection
        self._engine = engine
        self._made: Connection | None = None

    def __getattr__(self, name: str) -> Any:
        """Give what SQLAlchemy's connection has."""
        return getattr(self.whole(), name)

    def whole(self) -> Connection:
        """Give SQLAlchemy's connection, over the same one of the driver."""
        if self._made is None:
            self._made = Connection(self._engine, connection=self.connection)
        return self._made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        (self._made or self.connection).close()

    @property
    def invalidated(self) -> bool:
        """Whether the driver's connection was closed since something went wrong with it."""
        return not self.connection.is_valid

    def invalidate(self) -> None:
        """Close the driver's connection, with which something is wrong."""
        (self._made or self.connection).invalidate()

    def in_transaction(self) -> bool:
        """Whether SQLAlchemy knows of the transaction: it has executed something in it."""
        return self._made is not None and self._made.in_transaction()


class Ran(Protocol):
    """What became of a statement: the rows that it changed, or those that it gives, as the driver gives them."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def first(self) -> Sequence[Any] | None:
        """Give the first row, if there is one."""
        ...

    def all(self) -> Sequence[Sequence[Any]]:
        """Give all rows."""
        ...


class _Cursor:
    """A cursor of SQLite's driver, as ``Ran``."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def first(self) -> Sequence[Any] | None:
        row: Sequence[Any] | None = self._cursor.fetchone()
        self._cursor.close()
        return row

    def all(self) -> Sequence[Sequence[Any]]:
        return self._cursor.fetchall()


class _Compiled(NamedTuple):
    """A statement as a driver takes it: its text, and where each value goes, by place or by name."""

    sql: str
    placed: Callable[[Mapping[str, Any]], Any] | None
    expected: int
    constants: dict[str, Any]
    conversions: list[tuple[str, Callable[[Any], Any]]]

    def parameters(self, values: Mapping[str, Any]) -> Any:
        given: Any = values
        if self.constants or self.conversions:
            given = {**values, **self.constants}
        if len(given) != self.expected:
            raise TypeError(f"the statement takes {self.expected} values and was given {sorted(given)}")
        for name, convert in self.conversions:
            given[name] = convert(given[name])
        return given if self.placed is None else self.placed(given)


def _compile(statement: ClauseElement, dialect: Dialect, values: Mapping[str, Any]) -> _Compiled:
    compiled = cast("SQLCompiler", statement.compile(dialect=dialect, column_keys=list(values)))
    constants: dict[str, Any] = {}
    conversions: dict[str, Callable[[Any], Any]] = {}
    for parameter, name in compiled.bind_names.items():
        convert = parameter.type.dialect_impl(dialect).bind_processor(dialect)
        if not parameter.required:
            constants[name] = convert(parameter.effective_value) if convert else parameter.effective_value
        elif convert:
            conversions[name] = convert
    places = list(compiled.positiontup or ())
    placed = (itemgetter(*places) if len(places) > 1 else _placed(places)) if compiled.positional else None
    return _Compiled(compiled.string, placed, len(compiled.params), constants, list(conversions.items()))


def _placed(places: list[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    return lambda given: tuple([given[name] for name in places])

"""Statements that SQLAlchemy compiled for one engine, for the next engine too.

An engine compiles each statement at its first execution and keeps it. Nearly every test opens engines of its own, and
would spend a third of its processor time compiling what the tests before it have compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Dialect, Engine

#: What is compiled for a dialect depends on these of its fields; its driver and its server's version among them.
FIELDS = ("name", "driver", "dbapi", "paramstyle", "server_version_info", "default_schema_name", "supports_returning")
FIELDS += ("insert_returning", "update_returning", "insertmanyvalues_page_size", "max_identifier_length")
FIELDS += ("_json_serializer", "_json_deserializer", "label_length", "_backslash_escapes", "native_uuid")


class SharedCache(MutableMapping[Any, Any]):
    """A cache as SQLAlchemy's engines have one, in which alike dialects are the same."""

    def __init__(self) -> None:
        self._compiled: dict[Any, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        return self._compiled[_shared(key)]

    def __setitem__(self, key: Any, compiled: Any) -> None:
        self._compiled[_shared(key)] = compiled

    def __delitem__(self, key: Any) -> None:
        del self._compiled[_shared(key)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._compiled)

    def __len__(self) -> int:
        return len(self._compiled)


def _shared(key: Any) -> Any:
    dialect, *rest = key
    return (type(dialect), *_fields(dialect), *rest)


def _fields(dialect: Dialect) -> tuple[Any, ...]:
    return tuple([getattr(dialect, name, None) for name in FIELDS])


@contextmanager
def shared() -> Iterator[None]:
    """Let all engines have one cache, except one that has none."""
    cache = SharedCache()

    def get(engine: Engine) -> SharedCache | None:
        return None if vars(engine)["_compiled_cache"] is None else cache

    def put(engine: Engine, own: Any) -> None:
        vars(engine)["_compiled_cache"] = own

    Engine._compiled_cache = property(get, put)
    try:
        yield
    finally:
        del Engine._compiled_cache

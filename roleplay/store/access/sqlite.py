"""SQLite's files: made for their owner alone, opened where they can only be read, watched while they are open."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote
from weakref import WeakKeyDictionary, WeakSet, ref

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from roleplay.errors import SettingsError

BUSY_TIMEOUT_S = 5.0
Creator = Callable[[], Any]
"""Makes a connection of ``sqlite3``, or of a driver with the same interface."""
_PRAGMAS = (
    "foreign_keys = ON",
    "synchronous = FULL",
    "secure_delete = ON",  # so that a text which is replaced leaves no copy to erase later
    "wal_autocheckpoint = 4000",  # in pages: the log grows to 16 MB, and a page of many turns is copied once
)
_HELD = "roleplay_files"
_OPENED = "roleplay_opened"
_LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_CIPHERS = ("sqlcipher3.dbapi2", "pysqlcipher3.dbapi2")
LOST = (
    "the database file {} was replaced or deleted while it was open; what was written last may not be in the file that "
    "is there now, which the next call opens"
)
GONE = "the database file {} is gone; put it back, or open the engine anew to make another"
_KEY_HELP = "give db_key as a text that is not empty and holds no NUL character, or as 32 bytes"


class FileLostError(Exception):
    """The files of a connection are no longer those at their path. Becomes a ``StoreError``."""


def driver_errors() -> tuple[type[BaseException], ...]:
    """The errors of SQLite's drivers: another driver than Python's own has classes of its own."""
    loaded = [sys.modules[name] for name in _CIPHERS if name in sys.modules]
    return sqlite3.Error, *(module.Error for module in loaded)


def code_of(error: BaseException | None) -> int:
    """SQLite's primary result code, 0 where the error has none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


class DbKey:
    """The key of an encrypted file, hidden wherever it is shown: in a text, a log, the variables of a frame."""

    def __init__(self, key: str | bytes) -> None:
        """Take a passphrase, or a key of 32 bytes. Raises ``SettingsError``."""
        if isinstance(key, bytes):
            if len(key) != 32:
                raise SettingsError(f"db_key has {len(key)} bytes; {_KEY_HELP}")
            self._value = SecretStr(f"\"x'{key.hex()}'\"")
            return
        if not key or "\0" in key or any("\ud800" <= char <= "\udfff" for char in key):
            raise SettingsError(f"db_key cannot be used; {_KEY_HELP}")
        self._value = SecretStr("'" + key.replace("'", "''") + "'")

    @classmethod
    def of(cls, key: str | bytes | DbKey | None) -> DbKey | None:
        """Hide a key as early as it is given."""
        return key if key is None or isinstance(key, DbKey) else cls(key)

    def unlock(self, driver: Any) -> None:
        """Give the key to a connection, before anything else."""
        driver.execute(f"PRAGMA key = {self._value.get_secret_value()}")


Key = str | bytes | DbKey | None


def url_of(name: str) -> URL:
    """Give the URL of a ``file:`` URI, whose parameters mean what SQLite says."""
    database, _, query = name.partition("?")
    return URL.create("sqlite", database=database, query={**dict(parse_qsl(query.partition("#")[0])), "uri": "true"})


def as_uri(url: URL) -> URL:
    """Have SQLite read a database that is named by a ``file:`` URI as one."""
    return url.update_query_dict({"uri": "true"}) if (url.database or "").startswith("file:") else url


def file_of(url: URL) -> Path | None:
    """The file that a SQLite URL names, ``None`` for a database in memory."""
    named = url.database or ""
    if named in {"", ":memory:"} or url.query.get("mode") == "memory" or url.query.get("vfs") == "memdb":
        return None
    if not named.startswith("file:"):
        return Path(named)
    path = _path_of(named)
    return Path(path) if path not in {"", ":memory:"} else None


def _path_of(uri: str) -> str:
    path = uri.removeprefix("file:").partition("?")[0].partition("#")[0]
    if path.startswith("//"):  # an authority, which is empty or this machine
        path = "/" + path[2:].partition("/")[2]
    return unquote(path)


def open_sqlite(url: URL, db_key: DbKey | None = None, creator: Creator | None = None) -> Engine:
    """Make an engine for a SQLite URL. Raises ``SettingsError``."""
    url = as_uri(url)
    file = file_of(url)
    if file is not None and creator is None and not file.parent.is_dir():
        folder = str(file.parent)
        raise SettingsError(f"the folder {folder!r} for the database does not exist; make it, or name another")
    # One connection holds a database in memory, so its transactions take turns.
    in_memory = file is None and creator is None
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0} if in_memory else {"pool_size": 8, "max_overflow": 56}
    if creator is not None:
        if db_key is not None:
            raise SettingsError("db_key and creator exclude each other: a creator sets the key itself")
        options["creator"] = creator
    elif db_key is not None:
        options["module"] = _cipher()
    engine = create_engine(
        url,
        poolclass=QueuePool,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        **options,
    )
    if creator is None:
        opener = _Opener(file, db_key)
        event.listen(engine, "do_connect", opener)
        opener.files = files_of(engine)
    return engine


def _cipher() -> Any:
    try:
        from sqlcipher3 import dbapi2  # noqa: PLC0415 - needs the extra
    except ImportError:
        raise SettingsError("db_key needs an extra: pip install 'roleplay-engine[encrypted]'") from None
    return dbapi2


class _Opener:
    """Makes the connections of one engine: makes the file for its owner alone, unlocks it, and falls back to reading
    where nothing can be written beside it."""

    def __init__(self, file: Path | None, key: DbKey | None) -> None:
        self._file = file.absolute() if file is not None else None
        self._key = key
        self._opened = False
        self.files: Files | None = None

    def __call__(self, dialect: Any, record: Any, cargs: Any, cparams: Mapping[str, Any]) -> Any:
        name, uri = cargs[0], bool(cparams.get("uri"))
        if self._file is None:
            return self._unlocked(dialect.connect(*cargs, **cparams))
        self._make(uri=uri, name=name)
        record.info[_OPENED] = _Opened(self._file, None)
        driver = dialect.connect(*cargs, **cparams)
        try:
            self._look(driver)
        except driver_errors() as error:
            driver.close()
            if self.files is not None and self.files.are_lost():
                raise FileLostError(LOST.format(self._file)) from error
            frozen = self._frozen(error, name, uri=uri)
            if frozen is None:
                raise
            record.info[_OPENED] = _Opened(self._file, _state(self._file))
            driver = self._open_frozen(dialect, frozen, cparams)
        self._opened = True
        return driver

    def _make(self, *, uri: bool, name: str) -> None:
        """Make the file where there is none, as SQLite would, but so that only its owner can read it. SQLite gives its
        log files the same rights."""
        assert self._file is not None
        if self._file.exists():
            return
        if self._opened:
            raise FileLostError(GONE.format(self._file))
        if uri and dict(parse_qsl(name.partition("?")[2])).get("mode", "rwc") != "rwc":
            return
        try:
            os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError:  # somebody was faster, or SQLite tells better what is wrong
            return

    def _unlocked(self, driver: Any) -> Any:
        if self._key is not None:
            try:
                self._key.unlock(driver)
            except BaseException:
                driver.close()
                raise
        return driver

    def _look(self, driver: Any) -> None:
        self._unlocked(driver)
        driver.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()

    def _frozen(self, error: BaseException, name: str, *, uri: bool) -> tuple[str, str] | None:
        """Tell how a file is read beside which SQLite cannot make its log: by URI and a first statement.

        Where there is no log, the file is all there is. A log without its index, which nobody else uses then, is read
        with the index in memory. Where there is an index, SQLite needs no help.
        """
        log, index = (Path(f"{self._file}{end}") for end in ("-wal", "-shm"))
        if code_of(error) not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN} or not os.access(
            str(self._file), os.R_OK
        ):
            return None
        if index.exists() or (uri and ("immutable=" in name or "vfs=" in name)):
            return None
        place = f"file:{quote(str(self._file))}?mode=ro"
        if log.exists() and log.stat().st_size:
            return f"{place}&vfs=unix-none", "PRAGMA locking_mode = EXCLUSIVE"
        return f"{place}&immutable=1", "PRAGMA query_only = ON"

    def _open_frozen(self, dialect: Any, how: tuple[str, str], cparams: Mapping[str, Any]) -> Any:
        driver = dialect.connect(how[0], **{**cparams, "uri": True})
        try:
            driver.execute(how[1])
            self._look(driver)
        except BaseException:
            driver.close()
            raise
        return driver


class _Opened:
    """How a connection was opened: under which path, and as a state of the files that must not change."""

    def __init__(self, path: Path, frozen: tuple[object, ...] | None) -> None:
        self.path = str(path)
        self.frozen = frozen


def _state(path: Path) -> tuple[object, ...]:
    found: list[object] = []
    for end in ("", "-wal", "-shm"):
        try:
            one = Path(f"{path}{end}").stat()
        except OSError:
            found.append(None)
        else:
            found.append((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns))
    return tuple(found)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _begins_as_a_log(path: str) -> bool:
    try:
        log = os.open(path, os.O_RDONLY)
    except OSError:  # it may be written and not read
        return True
    try:
        return os.read(log, 4) in {b"", *_LOG_MAGIC}
    finally:
        os.close(log)


class _Held:
    """What a connection has open. ``db`` is ``None`` where there is nothing to watch."""

    def __init__(self, driver: Any, opened: _Opened | None) -> None:
        [name] = [row[2] for row in driver.execute("PRAGMA database_list") if row[1] == "main"] or [""]
        self.path = opened.path if opened else name or ""
        self.log_path = f"{name}-wal"
        # Windows lets nobody delete or replace what is open.
        self.db = _inode(self.path) if self.path and os.name != "nt" else None
        if opened and self.db is None and os.name != "nt":
            raise FileLostError(GONE.format(self.path))
        self.frozen = opened.frozen if opened else None
        self.log: tuple[int, int] | None = None
        self._log_size = 0
        self._has_pages = False
        self._note_log(driver)

    def _note_log(self, driver: Any) -> None:
        """Note the log once this connection has it open; until then it may come and go with others."""
        if self.db is not None and self.frozen is None and _inode(self.log_path):
            [mode] = driver.execute("PRAGMA journal_mode").fetchone()
            if mode == "wal":
                self.log = _inode(self.log_path)

    def is_there(self, driver: Any = None) -> bool:
        """Whether the files that this connection has open are those at their path."""
        if self.db is None:
            return True
        if self.frozen is not None:
            return _state(Path(self.path)) == self.frozen
        return self._are_those_noted(driver)

    def _are_those_noted(self, driver: Any) -> bool:
        try:
            db = os.stat(self.path)  # noqa: PTH116 - twice in every transaction, and three times as fast
            log = os.stat(self.log_path) if self.log is not None else None  # noqa: PTH116
        except OSError:
            return False
        size = db.st_size
        if (db.st_dev, db.st_ino) != self.db or (self._has_pages and not size):
            return False
        self._has_pages = size > 0
        if log is None:
            if driver is not None:
                self._note_log(driver)
            return True
        if (log.st_dev, log.st_ino) != self.log or log.st_size == self._log_size:
            return (log.st_dev, log.st_ino) == self.log
        # One that was cut to nothing has no beginning when it grows again. SQLite itself empties it too, and then
        # begins it anew.
        self._log_size = log.st_size
        return _begins_as_a_log(self.log_path)

    def agrees(self, other: _Held) -> bool:
        """Whether two connections of one engine have the same files open."""
        if self.frozen is not None or other.frozen is not None:
            return self.frozen == other.frozen
        return self.db == other.db and (self.log == other.log or None in {self.log, other.log})


class Files:
    """The files that an engine's connections have open.

    A file that is deleted or replaced while it is open goes on to take what is written, for nobody. So every
    transaction looks, after its commit and before its result is given, whether its files are still at their path.
    """

    def __init__(self, engine: Engine) -> None:
        """Watch ``engine``, and set its connections up."""
        self._engine = ref(engine)
        self._held: WeakSet[_Held] = WeakSet()  # whom a pool forgets has nothing open any more
        self._lock = threading.Lock()
        event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "close", self._on_close)

    def watched(self, connection: Connection) -> _Watched:
        """Give what surrounds the use of a connection. Raises ``FileLostError`` at its end."""
        info = connection.connection.info
        held = info.get(_HELD)
        if held is None:  # it was pooled before the engine was given to us
            self._set_up(connection.connection.driver_connection, info)
            held = info[_HELD]
        return _Watched(self, connection, held)

    def lose(self, connection: Connection, held: _Held) -> FileLostError:
        """Let go of connections whose file is not there any more, so that the next use opens what is."""
        connection.invalidate()
        self._let_go()
        return FileLostError(LOST.format(held.path))

    def are_lost(self) -> bool:
        """Whether a connection has files open that are not at their path any more; what is idle is closed then."""
        with self._lock:
            lost = not all(held.is_there() for held in self._held)
        if lost:
            self._let_go()
        return lost

    def _on_connect(self, driver: Any, record: Any) -> None:
        self._set_up(driver, record.info)

    def _on_close(self, _driver: Any, record: Any) -> None:
        held = record.info.pop(_HELD, None)
        if held is not None:
            with self._lock:
                self._held.discard(held)

    def _set_up(self, driver: Any, info: MutableMapping[Any, Any]) -> None:
        for name in _PRAGMAS:
            driver.execute(f"PRAGMA {name}")
        held = _Held(driver, info.get(_OPENED))
        with self._lock:
            agreed = all(held.agrees(other) for other in self._held)
            if agreed:
                self._held.add(held)
        if not agreed:  # it must not write beside those that have another file open, or another log
            driver.close()
            self._let_go()
            raise FileLostError(LOST.format(held.path))
        info[_HELD] = held

    def _let_go(self) -> None:
        if (engine := self._engine()) is not None:
            engine.dispose()


_watching: WeakKeyDictionary[Engine, Files] = WeakKeyDictionary()


def files_of(engine: Engine) -> Files:
    """Give the files of a SQLite ``engine``: the same ones every time."""
    found = _watching.get(engine)
    if found is None:
        found = _watching[engine] = Files(engine)
    return found


class _Watched:
    """One use of a connection."""

    __slots__ = ("_connection", "_files", "_held")

    def __init__(self, files: Files, connection: Connection, held: _Held) -> None:
        self._files = files
        self._connection = connection
        self._held = held

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._connection.invalidated:  # its driver is closed, and what it did has failed
            return
        held = self._held
        if not held.is_there(self._connection.connection.driver_connection if held.log is None else None):
            raise self._files.lose(self._connection, self._held) from error


class Unwatched:
    """In the place of ``Files`` where a database has none."""

    def watched(self, _connection: Connection) -> Self:
        """Give what surrounds a connection."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

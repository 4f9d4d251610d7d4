"""A SQLite file that is encrypted: nothing said is in it, nothing opens it but its key, and the key is told nowhere."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlcipher3 import dbapi2

import roleplay
from roleplay import Database, Persona, SettingsError, StoreError
from roleplay.testing import ScriptedModel
from tests.support import files
from tests.support.shells import Roleplay

MODEL = "MiniMax-M2.7"
PASSPHRASE = "it's a secret: " + "长" * 3
RAW = bytes(range(1, 33))
WORDS = ("Zanzibar", "sextant", "kumquat")
pytestmark = pytest.mark.usefixtures("shell")


def opened(url: Any, *replies: object, **options: Any) -> Any:
    """An engine of the current shell."""
    return Roleplay.open(url, model=MODEL, chat=ScriptedModel(*replies), **options)  # type: ignore[arg-type]


def talked(rp: Any) -> Any:
    """A session that holds the words: in a persona, a line, a reply."""
    session = rp.sessions.create(cast=[rp.personas.put(Persona("Nova", "Comes from Zanzibar."))], owner="ann")
    session.send("Where is my sextant?")
    return session


def told(error: BaseException) -> str:
    """An error with its causes, and with what stood in the variables of each frame of ours."""
    shown, lines = traceback.TracebackException.from_exception(error, capture_locals=True), [repr(error)]
    while shown is not None:
        ours = [frame for frame in shown.stack if "/roleplay/" in frame.filename or "sqlalchemy" in frame.filename]
        lines += [str(shown), *(f"{frame.name} {frame.locals}" for frame in ours)]
        shown = shown.__cause__ or shown.__context__  # type: ignore[assignment]
    return "\n".join(lines)


def bytes_of(path: Path) -> bytes:
    """All that is in a database's files."""
    return b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's file will be."""
    return tmp_path / "chats.db"


@pytest.mark.parametrize("key", [PASSPHRASE, RAW], ids=["passphrase", "raw key"])
def test_nothing_said_is_in_the_files(path: Path, key: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither words nor names of tables are in the file or its log, while it is open and afterwards; all works."""
    caplog.set_level(logging.DEBUG)
    with opened(f"sqlite:///{path}", "Under the kumquat.", db_key=key) as rp:
        session = talked(rp)
        while_open = bytes_of(path)
        assert [turn.reply.text for turn in session.turns().items] == ["Under the kumquat."]
        assert rp.doctor() == []
        assert len(list(rp.replay.verify())) == 1
    with opened(f"sqlite:///{path}", db_key=key) as rp:
        assert len(rp.sessions.get(session.id).turns().items) == 1
        assert rp.erase(owner="ann").files == "wiped"
        assert not rp.sessions.list().items
    for word in (*WORDS, "roleplay_turns", "SQLite format"):
        assert word.encode() not in while_open + bytes_of(path)
    assert len(while_open) > 10_000
    assert "secret" not in caplog.text


@pytest.mark.parametrize("wrong", ["mistaken", RAW[::-1], None], ids=["passphrase", "raw key", "none"])
def test_a_wrong_key(path: Path, wrong: Any) -> None:
    """It is told in plain words and without the key; nothing is changed."""
    if files.ENCRYPTED and wrong is None:
        wrong = "this run's own"
    opened(f"sqlite:///{path}", db_key=PASSPHRASE).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="encrypted with another db_key, or is no SQLite file") as failure:
        opened(f"sqlite:///{path}", db_key=wrong)
    shown = told(failure.value)
    assert "mistaken" not in shown
    assert RAW[::-1].hex() not in shown
    assert repr(RAW[::-1]) not in shown
    assert path.read_bytes() == before


def test_a_plain_file_is_not_encrypted_by_a_key(path: Path) -> None:
    """It is refused, not overwritten."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE plain (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="encrypted with another db_key"):
        opened(f"sqlite:///{path}", db_key=PASSPHRASE)
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", ["", "nul\0", "half \ud800", b"short"], ids=["empty", "NUL", "surrogate", "short"])
def test_keys_that_cannot_be(path: Path, key: Any) -> None:
    """They are refused before a file is made, and not shown."""
    with pytest.raises(SettingsError, match="db_key") as failure:
        opened(f"sqlite:///{path}", db_key=key)
    assert "nul" not in str(failure.value)
    assert not path.exists()


def test_a_key_is_for_sqlite_and_for_a_url() -> None:
    """A server's database has no such thing."""
    for other in ({"url": "postgresql://user@127.0.0.1:9/db"}, {"url": "sqlite://", "creator": lambda: None}):
        with pytest.raises(SettingsError, match="db_key"):
            Database.open(db_key=PASSPHRASE, **other)  # type: ignore[arg-type]


def creator(path: Path) -> Callable[[], Any]:
    """Makes connections with a key, as somebody else's code does."""

    def make() -> Any:
        driver = dbapi2.connect(str(path), check_same_thread=False, timeout=1)
        driver.execute(f"PRAGMA key = \"x'{RAW.hex()}'\"")
        return driver

    return make


@pytest.fixture(params=["creator", "engine with a creator", "engine of SQLAlchemy's dialect"])
def outside(request: pytest.FixtureRequest, path: Path) -> Iterator[Callable[..., Any]]:
    """Opens an engine over connections that are made outside this package."""
    if request.param == "creator":
        yield lambda *replies: opened("sqlite://", *replies, creator=creator(path))
        return
    if "dialect" in request.param:
        engine = create_engine(f"sqlite+pysqlcipher://:a-key@/{path}", connect_args={"check_same_thread": False})
    else:
        engine = create_engine("sqlite://", creator=creator(path))
    yield lambda *replies: opened(engine, *replies)
    engine.dispose()


def test_connections_from_outside(outside: Callable[..., Any], path: Path) -> None:
    """A driver with errors of its own works through a creator and an engine, and what it raises is ours."""
    with outside("Under the kumquat.", "Again.") as rp:
        session = talked(rp)
        session.send("Well?")
        assert rp.erase(owner="ann").files == "wiped"
        for word in WORDS:
            assert word.encode() not in bytes_of(path)
        path.unlink()
        with pytest.raises(StoreError, match="replaced or deleted"):
            rp.personas.put(Persona("Hua", "A surgeon."))
        path.write_bytes(b"no database at all" * 1000)
        with pytest.raises(StoreError, match="is no SQLite file"):
            rp.sessions.list()


def test_a_lock_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another driver's "locked" is understood as SQLite's own."""
    monkeypatch.setattr("roleplay.store.access.sqlite.BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr("roleplay.store.access.database.LOCK_PATIENCE_S", 0.3)
    with opened(f"sqlite:///{path}", db_key=RAW) as rp, closing(creator(path)()) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            rp.personas.put(Persona("Hua"))
        other.rollback()
        assert rp.personas.put(Persona("Hua"))


def test_the_extra_is_named_where_it_is_missing(path: Path) -> None:
    """Without the driver, what to install."""
    program = (
        "import sys; sys.modules['sqlcipher3'] = None\n"
        "from roleplay import Database, SettingsError\n"
        f"try: Database.open('sqlite:///{path}', db_key='x')\n"
        "except SettingsError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'roleplay-engine[encrypted]'" in done.stdout
    assert roleplay.__all__

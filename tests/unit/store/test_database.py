"""Opening databases: what cannot work is said plainly and shows no password; transactions are all or nothing."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from roleplay import Database, Endpoint, InvalidInputError, Persona, Roleplay, SettingsError, StoreError
from roleplay.store.access.ids import new_id
from roleplay.store.records import personas
from roleplay.store.records.personas import Change
from roleplay.testing import ScriptedModel

SECRET = "pa55-w0rd"
MODEL = Endpoint("MiniMax-M2.7")


def told(error: BaseException) -> str:
    """Everything that a log would show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "cannot be read"),
        ("chats.db", "cannot be read"),
        (None, "cannot be read"),
        (5, "cannot be read"),
        (f"postgresql://user:{SECRET}@host:{SECRET}/db", "cannot be read"),
        (f"postgresql://user:{SECRET}@host:99x/db", "cannot be read"),
        (f"mysql://user:{SECRET}@host/db", "'mysql' are not supported"),
        (f"nosuch+driver://user:{SECRET}@host/db", "not supported"),
        ("sqlite+nosuch:///chats.db", "not supported"),
        (f"postgresql+nosuch://user:{SECRET}@host/db", "pip install"),
    ],
)
def test_a_url_that_cannot_work(url: Any, says: str) -> None:
    """It is refused before anything is connected; what mends it is named, and the password is not."""
    with pytest.raises(SettingsError, match=says) as failure:
        Database.open(url)
    assert SECRET not in told(failure.value)


def test_a_server_that_does_not_answer() -> None:
    """A failed connection is a StoreError with the driver's reason and no password, cause and all."""
    with pytest.raises(StoreError, match="the database failed") as failure:
        Roleplay.open(f"postgresql://user:{SECRET}@127.0.0.1:9/db", model=MODEL, chat=ScriptedModel())
    assert SECRET not in told(failure.value)


def test_a_file_that_cannot_be(tmp_path: Any) -> None:
    """A folder as file and a file that is no database are told as the database's failure."""
    (tmp_path / "text.db").write_text("This is no database, and long enough to be read as the head of one. " * 20)
    for name in ("", "text.db"):
        with pytest.raises(StoreError):
            Roleplay.open(f"sqlite:///{tmp_path}/{name}", model=MODEL, chat=ScriptedModel())
    assert (tmp_path / "text.db").read_text().startswith("This is no database")


def test_values_are_in_no_error(database_url: str) -> None:
    """A statement that fails tells neither its values nor its text."""
    database = Database.open(database_url)

    def work(db: Connection) -> None:
        db.execute(text("SELECT :secret FROM roleplay_no_such_table /* tenant */"), {"secret": SECRET})

    with pytest.raises(StoreError) as failure:
        database.read(work)
    assert SECRET not in told(failure.value)
    database.close()


def test_all_or_nothing(database_url: str) -> None:
    """What raises writes nothing, whatever it raises."""
    with Roleplay.open(database_url, model=MODEL, chat=ScriptedModel()) as rp:
        database = rp._runtime.database

        def work(db: Connection) -> None:
            personas.put(db, "default", Persona("Nova"), Change(), new_id=new_id(), at=datetime.now(UTC))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            database.write(work)
        assert len(rp.personas.list()) == 0


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize("reset", ["rollback", "commit", None])
def test_nothing_stays_open_in_a_pool_from_outside(sqlite_url: str, reset: Any) -> None:
    """Whatever a caller's pool does with the connections that it gets back, a work that raised left nothing on them."""
    Roleplay.open(sqlite_url, model=MODEL, chat=ScriptedModel()).close()
    engine = create_engine(make_url(sqlite_url), pool_reset_on_return=reset)
    database = Database(engine)

    def work(db: Connection) -> None:
        driver: Any = db.connection.driver_connection
        driver.execute("INSERT INTO roleplay_alembic_version VALUES ('half')")
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            database.write(work)
    found = "SELECT count(*) FROM roleplay_alembic_version WHERE version_num = 'half'"
    assert database.write(lambda db: db.exec_driver_sql(found).scalar()) == 0
    engine.dispose()


def test_half_a_character_is_the_callers_fault(database_url: str) -> None:
    """An id or owner that no database can hold is refused as input, not passed to a driver."""
    with Roleplay.open(database_url, model=MODEL, chat=ScriptedModel()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Nova"))])
        doors: list[Callable[[str], object]] = [
            rp.sessions.get,
            rp.personas.get,
            session.turn,
            lambda half: rp.sessions.list(owner=half),
            lambda half: rp.replay.request(session.id, half),
        ]
        for door in doors:
            with pytest.raises(InvalidInputError):
                door("\ud800")


def test_sqlite_is_set_up_to_last(sqlite_url: str) -> None:
    """A file has write-ahead logging, foreign keys and full synchronisation on every connection."""
    with Roleplay.open(sqlite_url, model=MODEL, chat=ScriptedModel()) as rp:
        database = rp._runtime.database
        for _ in range(2):
            found = [
                database.read(lambda db, name=name: db.exec_driver_sql(f"PRAGMA {name}").scalar())
                for name in ("journal_mode", "foreign_keys", "synchronous")
            ]
            assert found == ["wal", 1, 2]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:some?mode=memory&uri=true"])
def test_a_database_in_memory_is_one(url: str) -> None:
    """Every thread sees the same database in memory, and it ends with its engine."""
    with Roleplay.open(url, model=MODEL, chat=ScriptedModel()) as rp:
        put = [threading.Thread(target=rp.personas.put, args=(Persona(f"P{number}"),)) for number in range(8)]
        for thread in put:
            thread.start()
        for thread in put:
            thread.join()
        assert len(rp.personas.list()) == 8
    with Roleplay.open(url, model=MODEL, chat=ScriptedModel()) as rp:
        assert len(rp.personas.list()) == 0


def test_a_folder_that_is_missing_is_named(tmp_path: Any) -> None:
    """The driver says only that it cannot open a file; nothing is made."""
    with pytest.raises(SettingsError, match="nowhere"):
        Roleplay.open(f"sqlite:///{tmp_path / 'nowhere' / 'chats.db'}", model=MODEL, chat=ScriptedModel())
    assert list(tmp_path.iterdir()) == []


def test_an_engine_from_outside_stays_open(sqlite_url: str) -> None:
    """What the caller opened, the caller closes."""
    engine = create_engine(make_url(sqlite_url))
    connection = engine.connect()
    Database(engine).close()
    assert connection.execute(text("SELECT 1")).scalar() == 1
    connection.close()
    engine.dispose()

"""PostgreSQL as people have it: encodings, isolation levels, drivers, overload, a server that says nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import make_url

from roleplay import (
    AsyncRoleplay,
    Endpoint,
    Persona,
    SettingsError,
    StoreError,
    TurnOptions,
    TurnStatus,
)
from roleplay import Roleplay as Blocking
from roleplay.store.access import database
from roleplay.store.access.aio import open_async
from roleplay.store.access.database import Database
from roleplay.store.access.postgres import OPTIONS
from roleplay.store.upkeep import erasure
from roleplay.testing import ScriptedModel
from tests.conftest import Ledger, build_schema
from tests.support.postgres import FAST, PostgresServer
from tests.support.shells import Roleplay

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})


def alter(server: PostgresServer, url: str, what: str) -> None:
    """Change what holds for every new connection to a database."""
    with server._admin() as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} SET " + what).format(sql.Identifier(make_url(url).database)))


@pytest.mark.usefixtures("shell")
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_an_encoding_that_cannot_hold_every_character_is_refused(postgres: PostgresServer, encoding: str) -> None:
    name = f"odd_{uuid.uuid4().hex[:16]}"
    with postgres._admin() as admin:
        made = "CREATE DATABASE {} ENCODING {} TEMPLATE template0 LOCALE 'C'"
        admin.execute(sql.SQL(made).format(sql.Identifier(name), sql.Literal(encoding)))
    for migrate in ("auto", "check"):
        with pytest.raises(SettingsError, match=f"{encoding}.*ENCODING 'UTF8' TEMPLATE template0"):
            Roleplay.open(postgres.url(name), model=MODEL, chat=ScriptedModel(), migrate=migrate)


def test_the_client_speaks_utf8(
    postgres: PostgresServer, postgres_url: str, scripted: Scripted, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the machine, the database or the URL say."""
    assert shell
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    alter(postgres, postgres_url, "client_encoding = 'LATIN1'")
    with Roleplay.open(f"{postgres_url}&client_encoding=latin1", model=MODEL, chat=scripted("😊 天")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        assert session.send("夜😊").reply.text == "😊 天"
        assert [turn.human.text for turn in session.turns()] == ["夜😊"]


@pytest.mark.usefixtures("shell")
@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_the_isolation_level_is_ours(
    postgres: PostgresServer, postgres_url: str, scripted: Scripted, level: str
) -> None:
    alter(postgres, postgres_url, f"default_transaction_isolation = '{level}'")
    wait = TurnOptions(on_conflict="wait", wait_s=60)
    with Roleplay.open(postgres_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        threads = [threading.Thread(target=session.send, args=(f"{n}",), kwargs={"options": wait}) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [turn.status for turn in session.turns(limit=50)] == [TurnStatus.COMPLETED] * 16


def both(url: str, use: Callable[[Callable[..., Any]], None]) -> None:
    """Let ``use`` do its work with the ``write`` of a blocking and of an asyncio database."""
    blocking = Database.open(url)
    use(blocking.write)

    async def in_asyncio() -> None:
        loop, store = asyncio.get_running_loop(), open_async(Database.open(url))

        def write(work: Callable[[Connection], Any], **options: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(store.write(work, **options), loop).result()

        try:
            await asyncio.to_thread(use, write)
        finally:
            await store.close()

    asyncio.run(in_asyncio())
    blocking.close()


def failing(times: int, state: str, words: str = "no") -> tuple[Callable[[Connection], int], list[int]]:
    """A work that PostgreSQL refuses some times with an SQLSTATE; and how often it ran."""
    runs: list[int] = []

    def work(db: Connection) -> int:
        runs.append(1)
        if len(runs) <= times:
            db.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION '{words}' USING ERRCODE = '{state}'; END $$")
        level = db.exec_driver_sql("SELECT current_setting('transaction_isolation')").scalar_one()
        assert level == "read committed"
        return 7

    return work, runs


def test_what_was_undone_for_another_is_done_again(postgres_url: str) -> None:
    def use(write: Callable[..., Any]) -> None:
        for state in ("40001", "40P01"):
            for patient in (False, True):
                work, runs = failing(3, state)
                assert write(work, patient=patient) == 7
                assert len(runs) == 4
        work, runs = failing(1, "23505")
        with pytest.raises(StoreError):
            write(work, patient=True)
        assert len(runs) == 1

    both(postgres_url, use)


@pytest.mark.parametrize(
    "words",
    [
        "could not commit transaction for shard 102 on at least one active node",
        "failure on connection marked as essential: x:5432",
    ],
)
def test_a_lost_shard_is_a_lost_server(postgres_url: str, words: str) -> None:
    def use(write: Callable[..., Any]) -> None:
        work, runs = failing(2, "XX000", words)
        assert write(work, patient=True) == 7
        assert len(runs) == 3
        for work, _runs in (failing(1, "XX000", words), failing(1, "XX000", "anything else")):
            with pytest.raises(StoreError):
                write(work, patient=_runs is None)

    both(postgres_url, use)


def test_a_database_that_takes_no_writes(postgres: PostgresServer, postgres_url: str, scripted: Scripted) -> None:
    alter(postgres, postgres_url, "default_transaction_read_only = on")
    with (
        Blocking.open(postgres_url, model=MODEL, chat=scripted()) as rp,
        pytest.raises(StoreError, match="takes no writes"),
    ):
        rp.personas.put(Persona("Huang"))


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
def test_dates_are_read_however_a_database_writes_them(
    postgres: PostgresServer, postgres_url: str, scripted: Scripted, shell: str, style: str
) -> None:
    alter(postgres, postgres_url, f"datestyle = '{style}'")
    with Roleplay.open(postgres_url, model=MODEL, chat=scripted("Hello.")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        assert session.send("Hi.").created_at.utcoffset() == timedelta(0)
        assert shell


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("bound", ["lock_timeout", "statement_timeout"])
def test_a_finish_outlasts_the_servers_own_bounds(
    postgres: PostgresServer, postgres_url: str, scripted: Scripted, shell: str, bound: str, driver: str
) -> None:
    """A lock that is held for longer than the server lets a statement wait costs no reply."""
    if (shell, driver) == ("asyncio", "psycopg2"):
        return  # which asyncio does not know
    alter(postgres, postgres_url, f"{bound} = '200ms'")
    name = make_url(postgres_url).database
    lock = psycopg.connect(host=str(postgres.run_dir), port=5432, user="postgres", dbname=name)

    def hold(_messages: object) -> str:
        lock.execute("SET LOCAL statement_timeout = 0")
        lock.execute("SELECT FROM roleplay_turns FOR UPDATE")
        threading.Timer(0.8, lock.rollback).start()
        return "Hello."

    with Roleplay.open(postgres_url.replace("+psycopg:", f"+{driver}:"), model=MODEL, chat=scripted(hold)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        assert session.send("Hi.").status is TurnStatus.COMPLETED
    lock.close()


def test_psycopg2_goes_on_working(postgres_url: str, scripted: Scripted) -> None:
    """In the blocking shell; in asyncio, which it does not know, psycopg takes its place."""
    url = postgres_url.replace("+psycopg:", "+psycopg2:")
    with Blocking.open(url, model=MODEL, chat=scripted("Hello. 😊", "word " * 300)) as rp:
        assert rp._runtime.database.engine.url.drivername == "postgresql+psycopg2"
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        assert session.send("Hi.").reply.text == "Hello. 😊"
        with session.stream("And?") as reply:
            assert "".join(delta.text for delta in reply) == "word " * 300
        assert rp.sessions.get(session.id[:30]).id == session.id
        assert list(rp.doctor()) == []

    async def again() -> list[str]:
        async with await AsyncRoleplay.open(url, model=MODEL, chat=scripted("Again.").aio) as rp:
            session = await rp.sessions.get(session_id)
            await session.send("And?")
            return [turn.reply.text async for turn in _each(session)]

    session_id = session.id
    assert asyncio.run(again())[-1] == "Again."


async def _each(session: Any) -> Any:
    for turn in (await session.turns()).items:
        yield turn


# A server that was stopped: it takes connections, and says nothing.


@pytest.fixture
def frozen() -> Iterator[tuple[str, Callable[[], Any]]]:
    """The URL of a database in a server of this test alone, and what stops that server for a while."""
    with PostgresServer(FAST) as server:
        server.create_template("current", build_schema)
        [*_, pid_file] = server.run_dir.rglob("postmaster.pid")

        @contextlib.contextmanager
        def stop() -> Iterator[None]:
            main = int(pid_file.read_text().split()[0])
            everyone = [main, *children(main)]
            for one in everyone:
                os.kill(one, signal.SIGSTOP)
            try:
                yield
            finally:
                for one in everyone:
                    os.kill(one, signal.SIGCONT)

        yield server.clone("current"), stop


def children(parent: int) -> list[int]:
    """The processes that another one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            if int(words[1]) == parent:
                found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_server_that_says_nothing_is_not_waited_for_without_end(
    frozen: tuple[str, Callable[[], Any]], scripted: Scripted, shell: str, ledger: Ledger, driver: str
) -> None:
    url, stop = frozen
    ledger.urls.clear()
    bounds = "&command_timeout=1&connect_timeout=2"
    with Roleplay.open(url.replace("+psycopg:", f"+{driver}:") + bounds, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        session.send("Hi.")
        with stop():
            began = time.monotonic()
            with pytest.raises(StoreError):
                session.send("And?")
            assert time.monotonic() - began < 15
        assert session.send("Back?").reply is not None
        assert all(turn.status is TurnStatus.COMPLETED for turn in session.turns())
        assert shell
        ledger.models[0].bodies.clear()  # the server is gone before they could be rebuilt


def test_a_silent_statement_is_cancelled(postgres_url: str) -> None:
    """And nothing of it goes on in the server."""

    def use(write: Callable[..., Any]) -> None:
        began = time.monotonic()
        with pytest.raises(StoreError, match="no answer came within 1 s"):
            write(lambda db: db.execute(text("SELECT pg_sleep(20)")))
        assert time.monotonic() - began < 5
        with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
            assert other.execute(asked).fetchone() == (0,)

    both(f"{postgres_url}&command_timeout=1", use)


# Many at once.


class Slow:
    """A model that thinks for a moment."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def open(self, *asked: Any) -> Any:
        time.sleep(0.3)
        return self._model.open(*asked)


class AsyncSlow(Slow):
    async def open(self, *asked: Any) -> Any:
        await asyncio.sleep(0.3)
        return await self._model.open(*asked)


AT_ONCE = 300


def test_many_sends_at_once(database_url: str, scripted: Scripted) -> None:
    """Of threads, on a pool of the usual size."""
    failed: list[BaseException] = []
    with Blocking.open(database_url, model=MODEL, chat=Slow(scripted())) as rp:
        persona = rp.personas.put(Persona("Huang"))
        all_of_them = [rp.sessions.create(cast=[persona]) for _ in range(AT_ONCE)]

        def speak(session: Any) -> None:
            try:
                session.send("Hi.")
            except BaseException as error:  # noqa: BLE001 - counted below
                failed.append(error)

        threads = [threading.Thread(target=speak, args=(one,)) for one in all_of_them]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert {turn.status for one in all_of_them for turn in one.turns()} == {TurnStatus.COMPLETED}


def test_many_sends_at_once_in_asyncio(postgres_url: str, scripted: Scripted) -> None:
    async def speak() -> set[TurnStatus]:
        async with await AsyncRoleplay.open(postgres_url, model=MODEL, chat=AsyncSlow(scripted().aio)) as rp:
            persona = await rp.personas.put(Persona("Huang"))
            all_of_them = [await rp.sessions.create(cast=[persona]) for _ in range(AT_ONCE)]
            return {turn.status for turn in await asyncio.gather(*(one.send("Hi.") for one in all_of_them))}

    assert asyncio.run(speak()) == {TurnStatus.COMPLETED}


def test_a_finish_waits_for_a_connection_and_a_beginning_only_so_long(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All connections are in use."""
    monkeypatch.setattr(database, "CONNECTION_PATIENCE_S", 0.2)
    monkeypatch.setitem(OPTIONS, "pool_size", 1)
    monkeypatch.setitem(OPTIONS, "max_overflow", 0)

    def use(write: Callable[..., Any]) -> None:
        write(lambda _db: None)
        busy = threading.Thread(target=write, args=(lambda db: db.exec_driver_sql("SELECT pg_sleep(1.2)").all(),))
        busy.start()
        time.sleep(0.3)
        with pytest.raises(StoreError, match="too many at once"):
            write(lambda _db: None)
        assert write(lambda _db: 7, patient=True) == 7
        busy.join()

    both(postgres_url, use)


# An engine that shards.


def test_a_whole_id_is_looked_up_as_it_is(postgres_url: str, scripted: Scripted) -> None:
    asked: list[str] = []

    def look(_c: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    with Blocking.open(postgres_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        event.listen(Engine, "before_cursor_execute", look)
        try:
            assert rp.sessions.get(session.id).id == session.id
            whole = [one for one in asked if "roleplay_sessions" in one]
            asked.clear()
            assert rp.sessions.get(session.id[:35]).id == session.id
            part = [one for one in asked if "roleplay_sessions" in one]
            asked.clear()
            session.info()
            info = [one for one in asked if "roleplay_" in one]
        finally:
            event.remove(Engine, "before_cursor_execute", look)
        assert all(".id = " in one and ".id >=" not in one for one in whole)
        assert all(".id >=" in one for one in part)
        assert all(one.count("session_id = %") >= one.count("SELECT max") for one in info)
        for wrong in (session.id + "0", session.id + "-" + session.id):
            with pytest.raises(LookupError):
                rp.sessions.get(wrong)
            with pytest.raises(LookupError):
                rp.erase(session=wrong)
        rp.sessions.get(session.id)
        with pytest.raises(LookupError):
            rp.sessions.get(session.id, owner="somebody")


def test_an_erasure_of_a_persona_goes_from_shard_to_shard(
    postgres: PostgresServer, postgres_url: str, scripted: Scripted
) -> None:
    """Where the setting is there; elsewhere nothing is set."""
    name = "current_setting('citus.multi_shard_modify_mode', true)"
    with Blocking.open(postgres_url, model=MODEL, chat=scripted()) as rp:
        kept = rp.personas.put(Persona("Huang"))

    def mode() -> Any:
        one = Database.open(postgres_url)

        def work(db: Connection) -> Any:
            erasure.erase_persona(db, "default", kept.id + "x")
            return db.exec_driver_sql(f"SELECT {name}").scalar_one()

        try:
            return one.write(work)
        finally:
            one.close()

    assert mode() is None
    alter(postgres, postgres_url, "citus.multi_shard_modify_mode = 'parallel'")
    assert mode() == "sequential"


BROKEN = {
    "sqlite": "CREATE TRIGGER no_merge BEFORE {} ON roleplay_calibrations BEGIN SELECT RAISE(ABORT, 'no'); END",
    "postgresql": "CREATE TRIGGER no_merge_{0} BEFORE {0} ON roleplay_calibrations EXECUTE FUNCTION no_merge()",
}


@pytest.mark.usefixtures("shell")
def test_a_merge_that_fails_fails_no_turn(database_url: str, scripted: Scripted) -> None:
    behind = Database.open(database_url)
    if behind.dialect == "postgresql":
        made = "CREATE FUNCTION no_merge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$"
        behind.write(lambda db: db.exec_driver_sql(made))
    trigger = BROKEN[behind.dialect].format("INSERT")
    behind.write(lambda db: db.exec_driver_sql(trigger))
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        for number in range(12):
            assert session.send(f"Line {number}.").reply is not None
        drop = "DROP TRIGGER no_merge" + ("_INSERT ON roleplay_calibrations" if behind.dialect != "sqlite" else "")
        behind.write(lambda db: db.exec_driver_sql(drop))
        for number in range(8):
            session.send(f"Line {number}.")
        count = "SELECT count(*) FROM roleplay_calibrations WHERE tenant = 'default'"
        assert behind.read(lambda db: db.exec_driver_sql(count).scalar_one()) == 1
        [known] = rp._scope.calibrations.values()
        assert known.fit.observations >= 16
    behind.close()

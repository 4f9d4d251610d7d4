"""More requests at once than a host can accept: they wait their turn, and no host is blamed for it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import roleplay
from roleplay import AsyncRoleplay, ConflictError, Persona, TurnStatus
from tests.support.http import Raw, at
from tests.support.many_streams import Order, Seen
from tests.support.narrow import SAID, Narrow

KEY = "sk-narrow"


@pytest.fixture
def narrow() -> Iterator[Callable[[int, float], Narrow]]:
    """Starts hosts that let few connections wait."""
    started: list[Narrow] = []

    def start(waiting: int, seconds: float) -> Narrow:
        started.append(Narrow(waiting, seconds))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def mute() -> Iterator[Raw]:
    """A host that accepts and then says nothing, where TLS is expected of it."""
    go = threading.Event()

    class Mute(Raw):
        """Holds its connections."""

        def _hear(self, connection: socket.socket) -> None:
            with connection:
                go.wait(60)

    host = Mute(lambda _connection, _request: None)
    yield host
    go.set()
    host.close()


def url_in(folder: Path) -> str:
    """A database whose requests no simulator received."""
    return f"sqlite:///{folder / 'own.db'}"


def test_a_thousand_streams_begun_at_once(tmp_path: Path, narrow: Callable[[int, float], Narrow]) -> None:
    """On a host that lets 100 connections wait, with 3 s for connecting: all are open at once, and end well."""
    host = narrow(100, 0.0)
    seen, _ = Seen.by(Order(url_in(tmp_path), host.base_url, KEY, 1_000, connect_timeout_s=3.0))
    assert seen.errors == []
    assert seen.open_at_once == 1_000
    assert set(seen.heard.values()) == {SAID}


def test_two_hundred_threads_begin_at_once(tmp_path: Path, narrow: Callable[[int, float], Narrow]) -> None:
    """The blocking shell, on a host that lets 8 connections wait."""
    host, said, errors = narrow(8, 0.0), Counter[str](), list[BaseException]()
    start = threading.Barrier(200)
    endpoint = at(host.base_url, retry={"attempts": 1}, connect_timeout_s=3.0)
    with roleplay.Roleplay.open(url_in(tmp_path), model=endpoint, openings=8) as rp:
        persona = rp.personas.put(Persona("Huang"))
        sessions = [rp.sessions.create(cast=[persona]) for _ in range(200)]

        def go(session: roleplay.ChatSession) -> None:
            start.wait(60)
            try:
                with session.stream("Can we cross?") as reply:
                    said["".join(delta.text for delta in reply)] += 1
            except BaseException as error:  # noqa: BLE001 - looked at below
                errors.append(error)

        threads = [threading.Thread(target=go, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert errors == []
    assert said == {SAID: 200}


@pytest.mark.parametrize("shell", ["sync", "asyncio"])
def test_a_head_that_is_late_holds_nobody_up(
    tmp_path: Path, shell: str, narrow: Callable[[int, float], Narrow]
) -> None:
    """With one place alone, 12 replies whose heads take a second each come at the same time."""
    host = narrow(64, 1.0)
    endpoint = at(host.base_url, retry={"attempts": 1})

    def blocking() -> float:
        with roleplay.Roleplay.open(url_in(tmp_path), model=endpoint, openings=1) as rp:
            persona = rp.personas.put(Persona("Huang"))
            sessions = [rp.sessions.create(cast=[persona]) for _ in range(12)]
            began = time.monotonic()
            threads = [threading.Thread(target=one.send, args=("Can we cross?",)) for one in sessions]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            took = time.monotonic() - began
            assert all(one.turns().items[0].status is TurnStatus.COMPLETED for one in sessions)
            return took

    async def other() -> float:
        async with await AsyncRoleplay.open(url_in(tmp_path), model=endpoint, openings=1) as rp:
            persona = await rp.personas.put(Persona("Huang"))
            sessions = [await rp.sessions.create(cast=[persona]) for _ in range(12)]
            began = time.monotonic()
            turns = await asyncio.gather(*(one.send("Can we cross?") for one in sessions))
            assert all(turn.status is TurnStatus.COMPLETED for turn in turns)
            return time.monotonic() - began

    assert (blocking() if shell == "sync" else asyncio.run(other())) < 8


def test_a_wait_ends_at_once_when_its_task_is_cancelled(tmp_path: Path, mute: Raw) -> None:
    """While another request has the one place; the turn ends as any that was cancelled."""
    endpoint = at(mute.url.replace("http:", "https:"), retry={"attempts": 1}, connect_timeout_s=30)

    async def run() -> tuple[float, Any]:
        async with await AsyncRoleplay.open(url_in(tmp_path), model=endpoint, openings=1) as rp:
            persona = await rp.personas.put(Persona("Huang"))
            first, second = [await rp.sessions.create(cast=[persona]) for _ in range(2)]
            tasks = [asyncio.create_task(one.send("Can we cross?")) for one in (first, second)]
            await asyncio.sleep(1)
            began = time.monotonic()
            tasks[1].cancel()
            await asyncio.wait([tasks[1]])
            took = time.monotonic() - began
            assert tasks[1].cancelled()
            tasks[0].cancel()
            await asyncio.wait([tasks[0]])
            return took, (await second.turns()).items[0].status

    took, status = asyncio.run(run())
    assert took < 2
    assert status is TurnStatus.INTERRUPTED
    assert mute.accepted == 1


def test_a_wait_ends_at_once_when_the_engine_closes(tmp_path: Path, mute: Raw) -> None:
    """Of threads: the one that waits is told at once, and nothing was asked of the host for it."""
    endpoint = at(mute.url.replace("http:", "https:"), retry={"attempts": 1}, connect_timeout_s=5)
    ends: dict[str, tuple[float, BaseException]] = {}
    rp = roleplay.Roleplay.open(url_in(tmp_path), model=endpoint, openings=1)
    persona = rp.personas.put(Persona("Huang"))

    def go(name: str, session: roleplay.ChatSession) -> None:
        try:
            session.send("Can we cross?")
        except roleplay.RoleplayError as error:
            ends[name] = time.monotonic(), error

    threads = []
    for name in ("first", "second"):
        threads.append(threading.Thread(target=go, args=(name, rp.sessions.create(cast=[persona]))))
        threads[-1].start()
        time.sleep(0.5)
    began = time.monotonic()
    rp.close(grace_s=0)
    for thread in threads:
        thread.join(30)
    assert isinstance(ends["second"][1], ConflictError)
    assert ends["second"][0] - began < 2
    assert mute.accepted == 1

"""A turn is stored as ended by its caller only where the caller ended it: not where another event loop is used, nor
where something fails that nobody foresaw."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from roleplay import AsyncRoleplay, Endpoint, Persona, Roleplay, SettingsError, TurnStatus
from roleplay.testing import ScriptedModel, Simulator
from roleplay.turns.effects import Interrupt
from roleplay.turns.reply import error_json
from tests.conftest import KEY

MODEL = Endpoint("MiniMax-M2.7")
OTHER_LOOP = "open one in each event loop"


def near(simulator: Simulator) -> Endpoint:
    return Endpoint("MiniMax-M2.7", base_url=simulator.base_url, api_key=KEY)


async def opened(url: str, endpoint: Endpoint) -> tuple[AsyncRoleplay, Any]:
    rp = await AsyncRoleplay.open(url, model=endpoint)
    return rp, await rp.sessions.create(cast=[await rp.personas.put(Persona("Mira"))])


def stored(url: str, session_id: str) -> list[tuple[TurnStatus, Any]]:
    with Roleplay.open(url, model=MODEL, chat=ScriptedModel()) as rp:
        return [(turn.status, turn.error) for turn in rp.sessions.get(session_id).turns().items]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # connections of a loop that was closed
@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("way", ["send", "stream", "speak", "retry"])
def test_another_event_loop(sqlite_url: str, simulator: Simulator, way: str, is_closed: bool) -> None:
    """A turn there is refused before it is claimed, whether the engine's own loop still lives or not."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    rp, session = first.run_until_complete(opened(sqlite_url, near(simulator)))
    first.run_until_complete(session.send("Hello"))
    if is_closed:
        first.close()
    asked: Callable[..., Coroutine[Any, Any, Any]] = getattr(session, way)
    for _ in range(2):
        with pytest.raises(SettingsError, match=OTHER_LOOP):
            second.run_until_complete(asked("Hello again") if way in {"send", "stream"} else asked())
    assert len(second.run_until_complete(session.turns()).items) == 1
    if is_closed:
        second.run_until_complete(rp.close())
    else:
        with pytest.raises(SettingsError, match=OTHER_LOOP):
            second.run_until_complete(rp.close())
        first.run_until_complete(session.send("Hello again"))
        first.run_until_complete(rp.close())
        first.close()
    second.close()
    session_id = session.id
    del rp, session, asked
    gc.collect()
    assert stored(sqlite_url, session_id) == [(TurnStatus.COMPLETED, None)] * (1 if is_closed else 2)


def test_an_engine_made_outside_of_any_loop(sqlite_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """It belongs to the first loop in which it speaks."""
    from roleplay.store.access import schema  # noqa: PLC0415
    from roleplay.store.access.aio import open_async  # noqa: PLC0415

    database = open_async(schema.opened(sqlite_url, None))
    rp = AsyncRoleplay(database, scripted("One.", "Two.").aio, endpoint=MODEL)

    async def begin() -> Any:
        session = await rp.sessions.create(cast=[await rp.personas.put(Persona("Mira"))])
        await session.send("Hello")
        return session

    session = asyncio.run(begin())
    with pytest.raises(SettingsError, match=OTHER_LOOP):
        asyncio.run(session.send("Hello again"))
    asyncio.run(database.close())


class Broken:
    """A transport with a fault that nobody foresaw."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def open(self, *_: object) -> Any:
        raise self._error

    def close(self) -> None:
        pass


class AsyncBroken(Broken):
    async def open(self, *_: object) -> Any:
        raise self._error

    async def close(self) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize("shell", ["sync", "asyncio"])
@pytest.mark.parametrize("error", [RuntimeError("hush"), MemoryError(), ValueError("hush"), KeyError("hush")])
def test_a_fault_of_ours_is_told_as_one(sqlite_url: str, error: Exception, shell: str) -> None:
    """Its kind is stored, and none of its words; who calls gets it as it is."""

    async def go() -> str:
        async with await AsyncRoleplay.open(sqlite_url, model=MODEL, chat=AsyncBroken(error)) as rp:
            session = await rp.sessions.create(cast=[await rp.personas.put(Persona("Mira"))])
            with pytest.raises(type(error)):
                await session.send("Hello")
            return session.id

    if shell == "asyncio":
        session_id = asyncio.run(go())
    else:
        with Roleplay.open(sqlite_url, model=MODEL, chat=Broken(error)) as rp:
            session = rp.sessions.create(cast=[rp.personas.put(Persona("Mira"))])
            with pytest.raises(type(error)):
                session.send("Hello")
            session_id = session.id
    [(_, told)] = stored(sqlite_url, session_id)
    name = type(error).__name__
    assert told == {"slug": name, "message": f"the engine failed: {name}", "retryable": True}


@pytest.mark.parametrize("error", [Interrupt(), KeyboardInterrupt(), asyncio.CancelledError(), SystemExit()])
def test_who_leaves_is_told_so(error: BaseException) -> None:
    assert "the caller ended the reply" in (error_json(error) or "")

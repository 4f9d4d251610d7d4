"""The gates before the network: so many permits, given in the order of asking, whatever becomes of those who wait."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from roleplay import AsyncRoleplay, Endpoint, InvalidInputError, Roleplay
from roleplay.session.aio.gate import AsyncGate
from roleplay.session.gate import Gate

MODEL = Endpoint("MiniMax-M2.7", api_key="k")


def test_places_are_given_in_the_order_of_asking() -> None:
    """Who leaves gives the permit to the first in the line; leaving twice gives no second one."""
    gate = Gate(2)
    permits = [gate.permit() for _ in range(5)]
    assert [permit.wait(0) for permit in permits] == [True, True, False, False, False]
    permits[2].release()  # out of the line
    permits[0].release()
    permits[0].release()
    assert [permit.held for permit in permits] == [False, True, False, True, False]
    assert [permit.wait(0) for permit in permits[3:]] == [True, False]
    for permit in permits:
        permit.release()
    fresh = [gate.permit() for _ in range(3)]
    assert [permit.wait(0) for permit in fresh] == [True, True, False]


def test_a_thread_that_waits_is_woken() -> None:
    """By a permit, and by ``wake`` without one."""
    gate = Gate(1)
    first, second, third = (gate.permit() for _ in range(3))
    got: dict[str, bool] = {}
    assert first.wait(0)

    def wait(name: str, permit: Any) -> threading.Thread:
        thread = threading.Thread(target=lambda: got.update({name: permit.wait(60)}))
        thread.start()
        return thread

    threads = [wait("second", second), wait("third", third)]
    third.wake()
    threads[1].join(10)
    first.release()
    threads[0].join(10)
    assert got == {"third": False, "second": True}


def test_two_hundred_threads_never_hold_more_than_there_are() -> None:
    """And all of them come through."""
    gate, lock = Gate(8), threading.Lock()
    held, most, came = 0, 0, 0

    def go() -> None:
        nonlocal held, most, came
        permit = gate.permit()
        while not permit.wait(60):
            pass
        with lock:
            held, came = held + 1, came + 1
            most = max(most, held)
        with lock:
            held -= 1
        permit.release()

    threads = [threading.Thread(target=go) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert came == 200
    assert 1 <= most <= 8


def test_tasks_wait_in_the_order_of_asking_and_leave_the_line_when_cancelled() -> None:
    """A cancelled one gives back what it may just have been given."""

    async def run() -> None:
        gate = AsyncGate(1)
        order: list[int] = []

        async def go(number: int) -> None:
            permit = gate.permit()
            try:
                while not await permit.wait(60):
                    pass
                order.append(number)
                await asyncio.sleep(0)
            finally:
                permit.release()

        first = gate.permit()
        assert await first.wait(0)
        tasks = [asyncio.create_task(go(number)) for number in range(6)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        first.release()
        tasks[0].cancel()  # in the very moment in which it was given the permit
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [2, 3, 4, 5]
        last = gate.permit()
        assert await last.wait(0)
        assert not await gate.permit().wait(0.01)

    asyncio.run(run())


@pytest.mark.parametrize("openings", [0, -1, 10_001, 2.5, True, "64", None])
def test_a_number_of_openings_that_cannot_be_is_refused(openings: Any) -> None:
    """At ``open``, in both shells, before anything is opened."""
    with pytest.raises(InvalidInputError, match="openings"):
        Roleplay.open("sqlite://", model=MODEL, openings=openings)
    with pytest.raises(InvalidInputError, match="openings"):
        asyncio.run(AsyncRoleplay.open("sqlite://", model=MODEL, openings=openings))

"""The gates before the network: so many places, given in the order of asking, whatever becomes of those who wait."""

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
    """Who leaves gives the place to the first in the line; leaving twice gives no second one."""
    gate = Gate(2)
    places = [gate.place() for _ in range(5)]
    assert [place.wait(0) for place in places] == [True, True, False, False, False]
    places[2].release()  # out of the line
    places[0].release()
    places[0].release()
    assert [place.held for place in places] == [False, True, False, True, False]
    assert [place.wait(0) for place in places[3:]] == [True, False]
    for place in places:
        place.release()
    fresh = [gate.place() for _ in range(3)]
    assert [place.wait(0) for place in fresh] == [True, True, False]


def test_a_thread_that_waits_is_woken() -> None:
    """By a place, and by ``wake`` without one."""
    gate = Gate(1)
    first, second, third = (gate.place() for _ in range(3))
    got: dict[str, bool] = {}
    assert first.wait(0)

    def wait(name: str, place: Any) -> threading.Thread:
        thread = threading.Thread(target=lambda: got.update({name: place.wait(60)}))
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
        place = gate.place()
        while not place.wait(60):
            pass
        with lock:
            held, came = held + 1, came + 1
            most = max(most, held)
        with lock:
            held -= 1
        place.release()

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
            place = gate.place()
            try:
                while not await place.wait(60):
                    pass
                order.append(number)
                await asyncio.sleep(0)
            finally:
                place.release()

        first = gate.place()
        assert await first.wait(0)
        tasks = [asyncio.create_task(go(number)) for number in range(6)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        first.release()
        tasks[0].cancel()  # in the very moment in which it was given the place
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [2, 3, 4, 5]
        last = gate.place()
        assert await last.wait(0)
        assert not await gate.place().wait(0.01)

    asyncio.run(run())


@pytest.mark.parametrize("openings", [0, -1, 10_001, 2.5, True, "64", None])
def test_a_number_of_openings_that_cannot_be_is_refused(openings: Any) -> None:
    """At ``open``, in both shells, before anything is opened."""
    with pytest.raises(InvalidInputError, match="openings"):
        Roleplay.open("sqlite://", model=MODEL, openings=openings)
    with pytest.raises(InvalidInputError, match="openings"):
        asyncio.run(AsyncRoleplay.open("sqlite://", model=MODEL, openings=openings))

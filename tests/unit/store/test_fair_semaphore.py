from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from roleplay.store.access.fair_semaphore import FairSemaphore


@contextmanager
def place(places: FairSemaphore, patience_s: float) -> Iterator[bool]:
    held = places.acquire(patience_s)
    yield held
    if held:
        places.release()


def test_who_came_first_is_served_first() -> None:
    places, served, begun = FairSemaphore(1), [], []

    def come(number: int) -> None:
        with place(places, 10) as held:
            assert held
            served.append(number)

    with place(places, 0) as held:
        assert held
        for number in range(20):
            begun.append(threading.Thread(target=come, args=(number,)))
            begun[-1].start()
            while len(places._waiting) <= number:
                time.sleep(0.001)
    for thread in begun:
        thread.join()
    assert served == list(range(20))


def test_who_waits_too_long_goes_and_takes_no_place() -> None:
    places = FairSemaphore(1)
    with place(places, 0):
        for _ in range(3):
            with place(places, 0.01) as held:
                assert not held
    for _ in range(3):
        with place(places, 0) as held:
            assert held

"""Identifiers: their form, and their order over threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from roleplay.store.access.ids import new_id


def milliseconds(text: str) -> int:
    """The moment that an id holds."""
    return uuid.UUID(text).int >> 80


def test_the_form() -> None:
    """An id is a UUID of version 7 and of RFC 9562's variant, in lower case, and holds the moment it was made."""
    before = time.time_ns() // 1_000_000
    made = new_id()
    parsed = uuid.UUID(made)
    assert (str(parsed), len(made)) == (made, 36)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= milliseconds(made) <= time.time_ns() // 1_000_000 + 60_000


def test_order_in_one_thread() -> None:
    """Ids made one after the other sort in that order, however fast they are made."""
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_order_over_threads() -> None:
    """An id made after another thread's was handed over sorts after it, and no two are equal."""
    last = ""
    lock = threading.Lock()
    made: list[str] = []

    def work(_number: int) -> None:
        nonlocal last
        for _ in range(500):
            with lock:
                fresh = new_id()
                assert fresh > last
                last = fresh
            made.append(new_id())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(set(made)) == len(made) == 4000


def test_processes_do_not_meet() -> None:
    """Two processes that begin at once make different ids."""
    code = "from roleplay.store.access.ids import new_id; print(*(new_id() for _ in range(2000)))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [one for process in both for one in process.communicate(timeout=60)[0].split()]
    assert len(set(made)) == len(made) == 4000

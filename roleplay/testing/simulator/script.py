"""What the caller told the simulator to do: faults for the next requests, faults for all, texts to say."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from threading import Lock

from roleplay.testing.simulator.faults import Fault


class Script:
    """The queues of faults and texts; safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._always: tuple[Fault, ...] = ()
        self._next: deque[tuple[tuple[Fault, ...], int]] = deque()
        self._texts: deque[str] = deque()

    def add_next(self, faults: tuple[Fault, ...], times: int) -> None:
        """Queues the faults, all together, for so many requests."""
        with self._lock:
            self._next.append((faults, times))

    def add_always(self, faults: tuple[Fault, ...]) -> None:
        """Applies the faults to every request from now on."""
        with self._lock:
            self._always += faults

    def add_texts(self, texts: Iterable[str]) -> None:
        """Queues replies."""
        with self._lock:
            self._texts.extend(texts)

    def forget(self) -> None:
        """Drops everything."""
        with self._lock:
            self._always = ()
            self._next.clear()
            self._texts.clear()

    def take_faults(self) -> tuple[tuple[Fault, ...], tuple[Fault, ...]]:
        """The faults of the request at hand: those of every request, and those taken from the queue for this one."""
        with self._lock:
            if not self._next:
                return self._always, ()
            faults, times = self._next.popleft()
            if times > 1:
                self._next.appendleft((faults, times - 1))
            return self._always, faults

    def give_back(self, faults: tuple[Fault, ...]) -> None:
        """Puts faults that were taken and not used back at the head of the queue."""
        with self._lock:
            if self._next and self._next[0][0] is faults:
                self._next[0] = (faults, self._next[0][1] + 1)
            elif faults:
                self._next.appendleft((faults, 1))

    def take_text(self) -> str | None:
        """The next reply, if one is queued."""
        with self._lock:
            return self._texts.popleft() if self._texts else None

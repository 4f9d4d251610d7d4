"""A line for connections: who came first is served first.

A pool gives a connection back to whoever asks at the right moment. Under load those who have waited longest may go away
with nothing, whatever they have done before.
"""

from __future__ import annotations

import threading
from collections import deque


class FairSemaphore:
    """So many threads at once; the others wait in the order in which they came."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    def acquire(self, patience_s: float) -> bool:
        """Take a place, waiting at most ``patience_s`` seconds for it; tells whether there was one."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            if mine.acquire(timeout=patience_s):
                return True
        except BaseException:  # Ctrl-C
            if not self._withdraw(mine):
                self.release()
            raise
        return not self._withdraw(mine)

    def _withdraw(self, mine: threading.Lock) -> bool:
        """Wait no longer; tells whether no place was given meanwhile."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return True
        return False

    def release(self) -> None:
        """Give a place back, to who has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

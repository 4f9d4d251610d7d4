"""How many requests of an engine are being opened at the same time: a permit for each, given in the order of asking.

Thousands of connections that are begun at once outlast every time-out for connecting, whatever the host does. A permit
is held while a request connects and is sent, not while its answer is waited for: a model that thinks for a minute
holds nobody up.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Generic, TypeVar

from roleplay.errors import InvalidInputError

OPENINGS = 64
MOST_OPENINGS = 10_000
PATIENCE_S = 5.0

P = TypeVar("P", bound="BasePermit")


class BaseGate(Generic[P]):
    """What both gates do: count the permits and keep the line."""

    def __init__(self, openings: int = OPENINGS) -> None:
        """Have ``openings`` permits. Raises ``InvalidInputError``."""
        if type(openings) is not int or not 1 <= openings <= MOST_OPENINGS:
            raise InvalidInputError("openings", f"is {openings!r}", allowed=f"a whole number, 1 to {MOST_OPENINGS:,}")
        self._lock = threading.RLock()  # the garbage collector may end a stream in the middle of anything
        self._free = openings
        self._line: OrderedDict[P, None] = OrderedDict()

    def _acquire(self, permit: P) -> bool:
        """Give ``permit`` what is free, or let it join the line, once; whether it is held."""
        with self._lock:
            if not permit.held:
                if self._free:  # then nobody is in the line
                    self._free -= 1
                    permit.held = True
                else:
                    self._line.setdefault(permit)
            return permit.held

    def _release(self, permit: P) -> None:
        """Take ``permit`` out of the line, or give it to the first in the line. A second time does nothing."""
        with self._lock:
            self._line.pop(permit, None)
            if not permit.held:
                return
            permit.held = False
            if not self._line:
                self._free += 1
                return
            heir, _ = self._line.popitem(last=False)
            heir.held = True
        heir.wake()


class BasePermit(ABC):
    """One request's permit: in the line, then among those that are being opened."""

    held = False

    @abstractmethod
    def wake(self) -> None:
        """Let the one that waits look again."""


class Permit(BasePermit):
    """A permit that a thread waits for."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._woken = threading.Event()

    def wait(self, seconds: float = PATIENCE_S) -> bool:
        """Wait until the permit is held, ``wake`` is called, or the time is over; whether it is held."""
        if self._gate._acquire(self):  # noqa: SLF001 - a gate and its permits are one thing
            return True
        self._woken.wait(seconds)
        return self.held

    def wake(self) -> None:
        """Let the thread that waits go on."""
        self._woken.set()

    def release(self) -> None:
        """Let the next one have the permit. May be called again."""
        self._gate._release(self)  # noqa: SLF001


class Gate(BaseGate[Permit]):
    """The permits of a blocking engine. Thread-safe."""

    def permit(self) -> Permit:
        """Give a permit that is yet to be waited for."""
        return Permit(self)

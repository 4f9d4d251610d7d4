"""What an operation may ask its shell to do, and what it is given to do the rest by itself."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Generic, NamedTuple, TypeVar

from roleplay.domain.conversation import Delta, Turn
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.events import TurnEvent
from roleplay.domain.guards import Checked, Guard
from roleplay.store import Connection
from roleplay.wire.request import WireRequest

T = TypeVar("T")


class Read(NamedTuple, Generic[T]):
    """Run ``work`` in a transaction that only reads; its result is sent back. ``name`` says what is read."""

    name: str
    work: Callable[[Connection], T]


class Write(NamedTuple, Generic[T]):
    """Run ``work`` in a transaction and commit it; its result is sent back. After a rollback it may be run again.

    ``patient``: also after its connection was lost, when it may have been committed; ``work`` then sees what it wrote.
    ``name`` says what is written.
    """

    name: str
    work: Callable[[Connection], T]
    patient: bool = False


class Wipe(NamedTuple):
    """Leave nothing of deleted rows in the files of the database; what became of them is sent back."""


class Admit(NamedTuple):
    """Wait for a permit to open a request; whether it is held is sent back.

    ``False``, after some seconds: it is not, and a second ``Admit`` waits on in the same line. ``Open`` gives it back.
    """


class Open(NamedTuple):
    """Send a request and wait for the head of its answer; its ``Head`` is sent back."""

    endpoint: Endpoint
    request: WireRequest


class Receive(NamedTuple):
    """Wait for the next piece of the answer; its bytes are sent back, ``b""`` at the end."""


class Release(NamedTuple):
    """Let go of the answer, of which nothing more is wanted."""


class Ask(NamedTuple):
    """Ask a guard about a text, for ``timeout_s`` seconds at most (``TimeoutError``); its verdict is sent back."""

    guard: Guard
    what: Checked
    timeout_s: float


class Notify(NamedTuple):
    """Tell observers and the log what happened, which nothing can undo any more; ``event`` is made if they want it."""

    kind: str
    event: Callable[[], TurnEvent]


class Warn(NamedTuple):
    """Log a warning about a model at a host; ``finding`` is ours, in words and figures."""

    model: str
    host: str
    finding: str


class Pause(NamedTuple):
    """Wait some seconds."""

    seconds: float


class Claimed(NamedTuple):
    """A turn was written and its model call begins."""

    turn_id: str


class Finished(NamedTuple):
    """A turn of a round has ended."""

    turn: Turn


Emitted = Delta | Claimed | Finished


class Emit(NamedTuple):
    """Hand something to the caller: the turn that was claimed, a piece of its reply, or a turn of a round."""

    what: Emitted


class Ended(NamedTuple):
    """Tell how the turn stands that ended with the error which the operation is about to raise."""

    turn: Turn


Effect = Read[Any] | Write[Any] | Wipe | Admit | Open | Receive | Release | Ask | Notify | Warn | Pause | Emit | Ended
Steps = Generator[Effect, Any, T]
Single = Read[T] | Write[T]
"""An operation that is no more than one effect."""
Operation = Steps[Turn]


def read(name: str, work: Callable[[Connection], T]) -> Steps[T]:
    """Read something and give it."""
    result: T = yield Read(name, work)
    return result


def write(name: str, work: Callable[[Connection], T], *, patient: bool = False) -> Steps[T]:
    """Write something and give what the writing gave."""
    result: T = yield Write(name, work, patient)
    return result


class Interrupt(BaseException):
    """Thrown into an operation by a shell whose caller wants no more of a reply."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What an operation may not do itself: tell the time, draw, name things, say who it is and who is gone.

    ``now`` gives aware UTC, ``zone`` a time zone by its IANA name (``None``: there is none), ``monotonic`` seconds,
    ``draw`` a number from [0, 1). ``driven`` holds the turns that an operation of this process drives, by the id of the
    claim's call: one that is ``owner``'s and not there is nobody's.
    """

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    draw: Callable[[], float]
    new_id: Callable[[], str]
    zone: Callable[[str], tzinfo | None]
    owner: str
    is_gone: Callable[[str], bool]
    driven: dict[str, str] = field(default_factory=dict)

    def is_left(self, owner: str, turn_id: str, *, expired: bool) -> bool:
        """Whether nobody drives this turn in flight: its process has gone, or it is this one, whose operation ended.

        A lease that has ``expired`` tells of other processes; what is driven in this one is known to be.
        """
        if owner == self.owner:
            return turn_id not in list(self.driven.values())  # a copy: other threads begin and end turns meanwhile
        return expired or self.is_gone(owner)

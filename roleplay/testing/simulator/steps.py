"""What a connection does to answer one request, step by step.

An answer is an iterable of steps: a `Head`, then `Data`, with pauses wherever they are wanted. When the steps run out
the message is ended properly, unless `Cut` or `Reset` ended the connection before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers; without a Content-Length header the body is sent in HTTP chunks."""

    status: int
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Data:
    """A part of the body, written at once; `text` marks an event (or body) that carries words of the reply."""

    octets: bytes
    text: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds; 0 lets the other connections have a turn."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection without ending the message."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection with a TCP reset."""


Step = Head | Data | Pause | Cut | Reset
Steps = Iterable[Step]

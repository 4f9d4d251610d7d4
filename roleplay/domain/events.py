"""What observers are told: that a turn began or ended, with ids and figures and no text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from roleplay.domain.usage import Usage
from roleplay.domain.values import Utc, Value

EventKind = Literal["claimed", "completed", "interrupted", "failed"]


class TurnEvent(Value):
    """Something that has happened to a turn. ``attempts``, ``usage``, ``seconds`` and ``error`` (the slug of why the
    last attempt failed) are of its end. ``audience`` are the seats that may see the turn; ``None``: all of them."""

    kind: EventKind
    tenant: str
    session_id: str
    turn_id: str
    model: str
    host: str
    at: Utc
    attempts: int = 1
    usage: Usage = Usage()
    seconds: float | None = None
    error: str | None = None
    audience: tuple[int, ...] | None = None


Observer = Callable[[TurnEvent], Awaitable[None] | None]
"""An observer: told of every event after the fact. With ``AsyncRoleplay`` it may be a coroutine function."""

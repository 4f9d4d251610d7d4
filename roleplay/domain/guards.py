"""What a product's own checks are asked, and what they answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, Self

from roleplay.domain.values import Utc, Value

Side = Literal["human", "reply"]


class Checked(Value):
    """A text that a guard is asked about: a human line before its turn is claimed, or a reply before it is stored.

    Of a streamed reply each sentence is asked about on its own, before it is shown; ``before`` is what was passed of
    the reply already. ``turn_id`` is ``None`` for a human line, whose turn is not there yet. ``audience`` are the seats
    that may see it; ``None``: all of them.
    """

    side: Side
    text: str
    before: str = ""
    speaker: str
    tenant: str
    session_id: str
    turn_id: str | None = None
    audience: tuple[int, ...] | None = None


class Verdict(Value):
    """A guard's answer: ``Verdict()`` allows, ``Verdict.replace(text)`` and ``Verdict.refuse(reason)`` do not."""

    action: Literal["allow", "replace", "refuse"] = "allow"
    text: str = ""
    reason: str = ""

    @classmethod
    def replace(cls, text: str, reason: str = "") -> Self:
        """Let ``text`` stand in the place of what was asked about; empty text leaves it out of a reply."""
        return cls(action="replace", text=text, reason=reason)

    @classmethod
    def refuse(cls, reason: str) -> Self:
        """Let it not be said: the call raises ``RefusedError``."""
        return cls(action="refuse", reason=reason)


Guard = Callable[[Checked], Verdict | Awaitable[Verdict | None] | None]
"""A guard: gives a verdict, or ``None`` to allow. With ``AsyncRoleplay`` it may be a coroutine function."""


class StoredVerdict(Value):
    """A verdict that was not to allow, as it is kept with its turn. ``original`` is kept only when the engine was told
    to (``keep_originals``)."""

    side: Side
    guard: str
    action: Literal["replace", "refuse"]
    reason: str
    original: str | None
    attempt: int
    created_at: Utc


def name_of(guard: Guard) -> str:
    """The name that a guard's verdicts are kept under."""
    name = getattr(guard, "__name__", None) or type(guard).__name__
    return str(name)[:200]

"""Ctrl-C while a reply comes ends the reply, not the program.

The signal may arrive at any instruction, also while the database commits. So it is let through only where the program
waits for the model; pressed elsewhere it takes effect at the next such place. A second press is let through at once,
for a pause between two attempts.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from roleplay.chat.transport import Answer, Transport
from roleplay.domain.endpoint import Endpoint
from roleplay.turns.effects import Interrupt
from roleplay.wire.request import WireRequest


class InterruptHandler:
    """While entered, turns Ctrl-C into the end of a reply. ``pressed`` counts; it starts anew with each ``with``."""

    def __init__(self) -> None:
        self.pressed = 0
        self._waiting = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self.pressed = 0
        self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The model is waited for: here a press takes effect."""
        self._waiting = True
        try:
            if self.pressed:
                raise Interrupt
            yield
        finally:
            self._waiting = False

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        self.pressed += 1
        if self._waiting or self.pressed == 2:
            self._waiting = False
            self.pressed = max(self.pressed, 2)
            raise Interrupt


class InterruptibleTransport:
    """Carries requests by ``inner`` and can be interrupted while it waits."""

    def __init__(self, inner: Transport, interrupts: InterruptHandler) -> None:
        self._inner = inner
        self._interrupts = interrupts

    def open(self, endpoint: Endpoint, request: WireRequest) -> InterruptibleAnswer:
        """Send ``request`` and wait for the head of its answer. Raises ``Interrupt``."""
        with self._interrupts.waiting():
            return InterruptibleAnswer(self._inner.open(endpoint, request), self._interrupts)

    def close(self) -> None:
        """Leave ``inner`` to its owner."""


class InterruptibleAnswer:
    """An answer that can be interrupted while it is waited for."""

    def __init__(self, inner: Answer, interrupts: InterruptHandler) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self.release = inner.release
        self.close = inner.close
        self._inner = inner
        self._interrupts = interrupts

    def read(self) -> bytes:
        """Give the next piece. Raises ``Interrupt``."""
        with self._interrupts.waiting():
            return self._inner.read()

"""The permits of an asyncio engine for requests that are being opened."""

from __future__ import annotations

import asyncio

from roleplay.session.gate import PATIENCE_S, BaseGate, BasePermit


class AsyncPermit(BasePermit):
    """A permit that a task waits for."""

    def __init__(self, gate: AsyncGate) -> None:
        self._gate = gate
        self._woken: asyncio.Future[None] | None = None

    async def wait(self, seconds: float = PATIENCE_S) -> bool:
        """As ``Permit.wait``."""
        if self._gate._acquire(self):  # noqa: SLF001
            return True
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((self._woken,), timeout=seconds)
        finally:
            self._woken = None
        return self.held

    def wake(self) -> None:
        """Let the task that waits go on."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def release(self) -> None:
        """Let the next one have the permit. May be called again."""
        self._gate._release(self)  # noqa: SLF001


class AsyncGate(BaseGate[AsyncPermit]):
    """The permits of an asyncio engine, on its event loop."""

    def permit(self) -> AsyncPermit:
        """Give a permit that is yet to be waited for."""
        return AsyncPermit(self)

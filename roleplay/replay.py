"""Rebuilding requests: from the database alone, byte for byte as they were sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from roleplay.session.driver import AsyncRuntime, Runtime
from roleplay.store.records import calls
from roleplay.turns.effects import Steps, read
from roleplay.turns.rebuilding import rebuild


class Replay:
    """Rebuilds stored requests of one tenant."""

    def __init__(self, runtime: Runtime, tenant: str) -> None:
        self._runtime = runtime
        self._tenant = tenant

    def request(self, session_id: str, call_id: str) -> bytes:
        """Give the body of a model call's request, byte for byte as it was sent.

        Only emission and dialect run: nothing is counted, drawn or read from a clock. Raises ``NotFoundError``, and
        ``StoreError`` when the rows do not give the request that was sent.
        """
        return self._runtime.run(_request(self._tenant, session_id, call_id))

    def verify(self) -> Iterator[tuple[str, str]]:
        """Rebuild every call of the tenant and yield (session id, call id) of each that came out as it was sent.

        Raises ``StoreError`` at the first that does not.
        """
        for session_id, call_id in self._runtime.run(_all_calls(self._tenant)):
            self.request(session_id, call_id)
            yield session_id, call_id


class AsyncReplay:
    """``Replay`` for asyncio."""

    def __init__(self, runtime: AsyncRuntime, tenant: str) -> None:
        self._runtime = runtime
        self._tenant = tenant

    async def request(self, session_id: str, call_id: str) -> bytes:
        """As ``Replay.request``."""
        return await self._runtime.run(_request(self._tenant, session_id, call_id))

    async def verify(self) -> AsyncIterator[tuple[str, str]]:
        """As ``Replay.verify``."""
        for session_id, call_id in await self._runtime.run(_all_calls(self._tenant)):
            await self.request(session_id, call_id)
            yield session_id, call_id


def _request(tenant: str, session_id: str, call_id: str) -> Steps[bytes]:
    return (yield from read("request", lambda db: rebuild(db, tenant, session_id, call_id).body))


def _all_calls(tenant: str) -> Steps[list[tuple[str, str]]]:
    return (yield from read("calls", lambda db: calls.all_ids(db, tenant)))

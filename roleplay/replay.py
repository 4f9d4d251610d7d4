"""Rebuilding requests: from the database alone, byte for byte as they were sent."""

from __future__ import annotations

from collections.abc import Iterator

from roleplay.session.driver import Runtime
from roleplay.store.records import calls
from roleplay.turns.effects import Read
from roleplay.turns.rebuilding import rebuild


class Replay:
    """Rebuilds stored requests of one tenant."""

    def __init__(self, runtime: Runtime, tenant: str) -> None:
        self._runtime = runtime
        self._tenant = tenant

    def request(self, session_id: str, call_id: str) -> bytes:
        """Give the body of a model call's request, byte for byte as it was sent.

        Only emission and dialect run: nothing is counted, drawn or read from a clock. Raises ``NotFoundError``,
        also where something that the request held was erased, and ``StoreError`` when the rows do not give the request
        that was sent.
        """
        return self._runtime.run(request_body(self._tenant, session_id, call_id))

    def verify(self) -> Iterator[tuple[str, str]]:
        """Rebuild every call of the tenant and yield (session id, call id) of each that came out as it was sent.
        Requests that held something which was erased are left out.

        Raises ``StoreError`` at the first that does not.
        """
        for session_id, call_id in self._runtime.run(all_calls(self._tenant)):
            self.request(session_id, call_id)
            yield session_id, call_id


def request_body(tenant: str, session_id: str, call_id: str) -> Read[bytes]:
    """Rebuild the body of a model call's request."""
    return Read("request", lambda db: rebuild(db, tenant, session_id, call_id).body)


def all_calls(tenant: str) -> Read[list[tuple[str, str]]]:
    """Read (session id, call id) of every call of a tenant."""
    return Read("calls", lambda db: calls.all_ids(db, tenant))

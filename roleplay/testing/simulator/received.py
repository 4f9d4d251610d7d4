"""The log of received requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

HIDDEN = "<hidden>"


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived.

    `headers` have lower-case names, with the values of the secret ones replaced; `body` is exactly what was received,
    `json` its value, or None when it is not a JSON object. `accepted` tells that the request kept every rule, whatever
    fault then answered it; `refusal` says, for a request that did not, what was wrong.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    json: dict[str, Any] | None = None
    accepted: bool = False
    refusal: str = ""


class Log:
    """The received requests in the order of their arrival; safe for threads."""

    def __init__(self, listener: Callable[[ReceivedRequest], None] | None = None) -> None:
        self._lock = Lock()
        self._listener = listener
        self._received: list[ReceivedRequest] = []

    def add(self, request: ReceivedRequest) -> None:
        """Remembers a request and tells the listener, if there is one."""
        with self._lock:
            self._received.append(request)
        if self._listener is not None:
            self._listener(request)

    def all(self) -> list[ReceivedRequest]:
        """A copy of the log."""
        with self._lock:
            return list(self._received)

    def clear(self) -> None:
        """Forgets every request."""
        with self._lock:
            self._received.clear()


def shown_headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as a dictionary, the values that are secret replaced."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
    for secret in ("authorization", "x-api-key", "cookie"):
        if secret in headers:
            headers[secret] = HIDDEN
    return headers

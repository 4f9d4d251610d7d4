"""The seam between a turn and the network: what carries a request there and its answer back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from roleplay.domain.endpoint import Endpoint
from roleplay.wire.request import WireRequest


class AnswerBytes(bytes):
    """What came of an answer, as bytes whose ``repr`` tells only how many they are.

    A server may repeat the key in them, and some tools show the local variables of an error's frames.
    """

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class Answer(Protocol):
    """An answer as it arrives.

    ``status`` is HTTP's; ``headers`` are those that the wire asks for (``heads.wanted``), by names in lower case.
    """

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that came, of those that are wanted."""
        ...

    def read(self) -> bytes:
        """Give the next piece, unpacked, ``b""`` at the end. Raises ``ChatUnavailableError`` on a fault or a time-out,
        and may raise ``BadReplyError`` for what cannot be unpacked within bounds."""
        ...

    def release(self) -> None:
        """Nothing more is wanted: give the connection back for the next request where it ends here, else close it."""
        ...

    def close(self) -> None:
        """Close the connection at once. May be called twice, and after ``release``."""
        ...


class Transport(Protocol):
    """Carries requests to endpoints. Thread-safe."""

    def open(self, endpoint: Endpoint, request: WireRequest) -> Answer:
        """Send ``request`` and wait for the head of its answer, also of an error answer.

        Raises ``ChatUnavailableError`` when no answer comes.
        """
        ...

    def close(self) -> None:
        """Close pooled connections."""
        ...


class AsyncAnswer(Protocol):
    """``Answer`` for asyncio."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that came, of those that are wanted."""
        ...

    async def read(self) -> bytes:
        """As ``Answer.read``."""
        ...

    async def release(self) -> None:
        """As ``Answer.release``."""
        ...

    async def close(self) -> None:
        """As ``Answer.close``."""
        ...


class AsyncTransport(Protocol):
    """``Transport`` for asyncio."""

    async def open(self, endpoint: Endpoint, request: WireRequest) -> AsyncAnswer:
        """As ``Transport.open``."""
        ...

    async def close(self) -> None:
        """As ``Transport.close``."""
        ...


def check_all(transport: object, endpoints: Sequence[Endpoint]) -> None:
    """See that a transport of ours can reach ``endpoints`` as the environment says; another one has ways of its own.

    Raises ``SettingsError``.
    """
    check: Callable[[Endpoint], None] | None = getattr(transport, "check", None)
    if check is not None:
        for endpoint in endpoints:
            check(endpoint)

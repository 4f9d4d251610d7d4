"""Connections of ``httpx`` whose answers' heads are cleaned before ``h11`` reads them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from roleplay.chat.overload import within
from roleplay.chat.response_head import HEAD_LIMIT, cleaned, end_of_head, is_interim

_START = b"HTTP/"


def tolerate(http: httpx.AsyncClient) -> None:
    """Let all connections that ``http`` will make pass over 1xx answers and lines that are no header.

    ``httpx`` has no door to the network below its pools, so they are reached by their private names; where these have
    other names, the client stays as strict as it was.
    """
    for transport in (http._transport, *http._mounts.values()):  # noqa: SLF001
        pool: Any = getattr(transport, "_pool", None)
        if hasattr(pool, "_network_backend"):
            pool._network_backend = _Network(pool._network_backend)  # noqa: SLF001


def has_leftover(http: httpx.AsyncClient) -> bool:
    """Whether a connection of ``http`` has read more than the answer that it was asked for.

    ``h11`` would take it for the answer to the next request. Private names again, as in ``tolerate``.
    """
    for transport in (http._transport, *http._mounts.values()):  # noqa: SLF001
        for line in getattr(getattr(transport, "_pool", None), "connections", ()):
            while (inner := getattr(line, "_connection", None)) is not None:
                line = inner  # noqa: PLW2901 - a connection through a proxy holds another
            state = getattr(line, "_h11_state", None)
            if state is not None and state.trailing_data[0]:
                return True
    return False


class _Network(httpcore.AsyncNetworkBackend):
    """Makes connections by ``inner`` and wraps them."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the seam's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        connecting = self._inner.connect_tcp(host, port, None, local_address, socket_options)
        try:
            return _Stream(await within(connecting, timeout))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection: after each request, the head of its answer is gathered and cleaned, and the rest is passed on."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._awaits_head = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if not self._awaits_head:
            return await self._inner.read(max_bytes, timeout)
        self._awaits_head = False
        received, passed = b"", 0
        while True:
            known, piece = len(received), await self._inner.read(max_bytes, timeout)
            received += piece
            if not piece or not received.startswith(_START[: len(received)]):
                return received  # the end, or the speech of a proxy
            while end := end_of_head(received, known):
                head, rest, known = received[:end], received[end:], 0
                if not is_interim(head):
                    return cleaned(head) + rest
                passed, received = passed + end, rest
            if passed + len(received) > HEAD_LIMIT:
                raise httpcore.RemoteProtocolError("the head of the answer is too long")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._awaits_head = True
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Stream(await within(self._inner.start_tls(ssl_context, server_hostname, None), timeout))
        except TimeoutError as error:
            await self.aclose()
            raise httpcore.ConnectTimeout from error
        except asyncio.CancelledError:
            await self.aclose()  # nobody else closes it
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

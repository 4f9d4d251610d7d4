"""One HTTP/1.1 connection: reads requests, takes the steps of each answer."""

from __future__ import annotations

import asyncio
import socket
import struct
import traceback
from collections.abc import Callable
from typing import cast

from roleplay.errors import SettingsError
from roleplay.testing.simulator.service import Incoming
from roleplay.testing.simulator.steps import Cut, Data, Head, Pause, Reset, Step, Steps

try:
    import h11
except ModuleNotFoundError:
    raise SettingsError("the simulator needs an extra: pip install 'roleplay-engine[testing]'") from None

MOST_BODY_BYTES = 64 * 1024 * 1024
"""A longer body is not read to its end: the connection closes."""

_LINGER_ZERO = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """Serves the requests of one client one after the other; `open_connections` holds it while it is open."""

    def __init__(self, serve: Callable[[Incoming], Steps], open_connections: set[Connection]) -> None:
        self._serve = serve
        self._open = open_connections
        self._http = h11.Connection(h11.SERVER)
        self._head: h11.Request
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio gives it by this name
        self._open.discard(self)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        """Closes at once, dropping what was not sent yet."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            if self._task is None:
                self._read()
        except h11.RemoteProtocolError as error:
            self._reject(error)

    def eof_received(self) -> bool:
        return False

    def _read(self) -> None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._head, self._body = event, bytearray()
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > MOST_BODY_BYTES:
                    self._transport.close()
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._task = asyncio.get_running_loop().create_task(self._answer(self._incoming()))
                return
            else:
                if event is h11.NEED_DATA and self._http.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                elif isinstance(event, h11.ConnectionClosed):
                    self._transport.close()
                return

    def _incoming(self) -> Incoming:
        head = self._head
        method, target = head.method.decode("ascii"), head.target.decode("latin-1")
        return Incoming(method, target, list(head.headers), bytes(self._body))

    async def _answer(self, incoming: Incoming) -> None:
        try:
            for step in self._serve(incoming):
                await self._take(step)
                if self._transport.is_closing():
                    return
            self._finish()
        except Exception:  # noqa: BLE001 - whatever failed is shown, and the client must not wait for ever
            traceback.print_exc()
            self._transport.abort()

    async def _take(self, step: Step) -> None:
        if isinstance(step, Data):
            self._send(h11.Data(data=step.octets))
            if not self._writable.is_set():
                await self._writable.wait()
        elif isinstance(step, Head):
            self._send(h11.Response(status_code=step.status, headers=list(step.headers)))
        elif isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, Cut):
            self._transport.close()
        elif isinstance(step, Reset):
            self._reset()

    def _finish(self) -> None:
        self._send(h11.EndOfMessage())
        self._task = None
        if self._http.our_state is h11.MUST_CLOSE:
            self._transport.close()
            return
        self._http.start_next_cycle()
        try:
            self._read()
        except h11.RemoteProtocolError as error:
            self._reject(error)

    def _reset(self) -> None:
        sock = cast("socket.socket", self._transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._transport.abort()

    def _send(self, event: h11.Event) -> None:
        octets = self._http.send(event)
        if octets:
            self._transport.write(octets)

    def _reject(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            text = str(error).encode()
            headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(text))), ("Connection", "close")]
            self._send(h11.Response(status_code=error.error_status_hint, headers=headers))
            self._send(h11.Data(data=text))
            self._send(h11.EndOfMessage())
        self._transport.close()

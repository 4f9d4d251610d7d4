"""The listening socket and the one background thread that serves every connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from threading import Thread

from roleplay.testing.simulator.connection import Connection
from roleplay.testing.simulator.service import Incoming
from roleplay.testing.simulator.steps import Steps

_BACKLOG = 4_096
_HOST = "127.0.0.1"


class Server:
    """Listens on loopback from its making until `close`; `port` 0 takes any that is free.

    `serve` is called on the server's own thread. Raises `OSError` when the port is taken.
    """

    def __init__(self, serve: Callable[[Incoming], Steps], port: int = 0) -> None:
        self._serve = serve
        self._connections: set[Connection] = set()
        # asyncio sends small writes at once only on sockets that name TCP; on others answers wait for a delayed ACK
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((_HOST, port))
            self._socket.listen(_BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = Thread(target=self._run, name=f"simulator-{self.port}", daemon=True)
        self._thread.start()

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def close(self) -> None:
        """Breaks off every answer, closes every connection and the socket, and returns when the thread has ended."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._socket.close()
            self._loop.close()

    async def _listen(self) -> None:
        def connect() -> Connection:
            return Connection(self._serve, self._connections)

        server = await self._loop.create_server(connect, sock=self._socket, backlog=_BACKLOG)
        await self._stop.wait()
        server.close()
        for connection in list(self._connections):
            connection.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        for _ in range(2):  # the transports close their sockets when the loop comes round
            await asyncio.sleep(0)

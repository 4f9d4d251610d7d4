"""What both transports are tested with: a server of raw bytes, an endpoint, requests that a strict server takes."""

from __future__ import annotations

import contextlib
import socket
import threading
import traceback
from collections.abc import Callable

from roleplay import ContextMessage, Endpoint, Role, Sampling
from roleplay.wire.recipes import CURRENT
from roleplay.wire.request import WireRequest, parameters

KEY = "sk-very-secret-0123456789"
MESSAGES = [ContextMessage(Role.SYSTEM, "Nova", "A pilot."), ContextMessage(Role.USER, "Traveler", "Where to?")]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Raw:
    """A server of raw bytes: each connection is given to ``talk``; ``heard`` is all that was received on it."""

    def __init__(self, talk: Callable[[socket.socket, bytes], None]) -> None:
        self._talk = talk
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.heard: list[bytes] = []
        self.accepted = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # who asked may have heard enough
            while request := self._request(connection):
                self.heard.append(request)
                self._talk(connection, request)

    @staticmethod
    def _request(connection: socket.socket) -> bytes:
        read = b""
        try:
            while b"\r\n\r\n" not in read:
                if not (piece := connection.recv(65536)):
                    return b""
                read += piece
            head, _, body = read.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            while len(body) < length:
                body += connection.recv(65536)
        except OSError:
            return b""
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def at(base_url: str, **more: object) -> Endpoint:
    """A model there, with the key."""
    return Endpoint("MiniMax-M2.7", **{"base_url": base_url, "api_key": KEY, "dialect": "minimax"} | more)


def asked(endpoint: Endpoint, *, stream: bool = False, text: str = "Where to?") -> WireRequest:
    """A request that a strict server takes."""
    messages = [MESSAGES[0], MESSAGES[1]._replace(text=text)]
    body = CURRENT.encode(endpoint.dialect, messages, parameters(endpoint, Sampling(), stream=stream))
    return WireRequest(endpoint.path, body, stream)


def told(error: BaseException) -> str:
    """Everything that a log would show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)

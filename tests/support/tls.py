"""Servers of TLS on loopback: one that answers, and a proxy that is itself reached by TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data" / "tls"
AUTHORITY = FOLDER / "ca.pem"


class TlsServer:
    """A server to which TLS is spoken: each connection is given to ``talk``."""

    def __init__(self, talk: Callable[[ssl.SSLSocket], None]) -> None:
        self._talk = talk
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(FOLDER / "server.pem")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._meet, args=(connection,), daemon=True).start()

    def _meet(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as safe:
            self._talk(safe)

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def answering(body: bytes) -> Callable[[ssl.SSLSocket], None]:
    """Answer every request with ``body``."""

    def talk(there: ssl.SSLSocket) -> None:
        while read_request(there):
            there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    return talk


def read_request(there: socket.socket) -> bytes:
    """Read a request to its end; nothing where none comes."""
    read = b""
    while b"\r\n\r\n" not in read:
        if not (piece := there.recv(65536)):
            return b""
        read += piece
    length = int((read.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) or b"0")
    while len(read.partition(b"\r\n\r\n")[2]) < length:
        read += there.recv(65536)
    return read


def proxying(
    target: int, heard: list[bytes], pump: Callable[[socket.socket, socket.socket], None] | None = None
) -> Callable[[ssl.SSLSocket], None]:
    """Open a way to the port ``target`` for a ``CONNECT``, and answer any other request. ``pump`` brings back what
    comes from there."""

    def talk(there: ssl.SSLSocket) -> None:
        while request := read_request(there):
            heard.append(request)
            if not request.startswith(b"CONNECT "):
                there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                continue
            with socket.create_connection(("127.0.0.1", target)) as other:
                there.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                threading.Thread(target=pump or bring, args=(other, there), daemon=True).start()
                bring(there, other)
            return

    return talk


def bring(one: socket.socket, other: socket.socket) -> None:
    """Bring what comes from one side to the other."""
    with contextlib.suppress(OSError):
        while piece := one.recv(65536):
            other.sendall(piece)

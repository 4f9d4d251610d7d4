"""What a hostile server may not do to either transport: keep it beyond its deadline, or fill its memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable

import pytest

from roleplay import BadReplyError, ChatUnavailableError, Endpoint
from roleplay.chat.aio import HttpxTransport
from roleplay.chat.sync import RequestsTransport
from roleplay.wire.codings import PIECE_BYTES
from tests.support.http import Raw, asked, at

Servers = Callable[[Callable[[socket.socket, bytes], None]], Raw]
SHELLS = ["sync", "asyncio"]
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
#: What is sent at once, and what then comes again and again.
DRIPS = {
    "status": (b"HTTP/1.1 2", b"0"),
    "head": (OK + b"X-Pad: ", b"a"),
    "headers": (OK, b"X-Pad: a\r\n"),
    "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "chunk line": (CHUNKED + b"5;", b"a"),
    "chunk": (CHUNKED + b"ffff\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Pad: a\r\n"),
    "body": (OK + b"Content-Length: 9999\r\n\r\n", b" "),
    "body to the end": (OK + b"\r\n", b" "),
    "packed": (OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"")),
    "error": (b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n", b"a"),
}


def read_all(shell: str, endpoint: Endpoint, *, stream: bool = False) -> list[bytes]:
    """Make one call with a transport of its own and read the answer to its end."""
    request = asked(endpoint, stream=stream)
    if shell == "sync":
        blocking = RequestsTransport()
        try:
            answer = blocking.open(endpoint, request)
            return list(iter(answer.read, b""))
        finally:
            blocking.close()

    async def go() -> list[bytes]:
        transport, given = HttpxTransport(), []
        try:
            there = await transport.open(endpoint, request)
            while piece := await there.read():
                given.append(piece)
            return given
        finally:
            await transport.close()

    return asyncio.run(go())


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("drip", DRIPS)
def test_bytes_that_drip(raw: Servers, shell: str, drip: str) -> None:
    """Wherever in an answer they do, they make the deadline no later."""
    start, again = DRIPS[drip]

    def talk(there: socket.socket, _request: bytes) -> None:
        try:
            there.sendall(start)
            while True:
                there.sendall(again)
                time.sleep(0.05)
        except OSError:
            pass

    endpoint = at(raw(talk).url, timeout_s=0.5, read_timeout_s=0.4)
    began = time.monotonic()
    with pytest.raises(ChatUnavailableError) as failure:
        read_all(shell, endpoint)
    assert str(failure.value) == f"{endpoint.host} did not finish its answer within 0.5 s"
    assert 0.4 < time.monotonic() - began < 1.5


@pytest.mark.parametrize("shell", SHELLS)
def test_a_server_that_reads_nothing(shell: str) -> None:
    """Sending is a part of the exchange."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = at(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.5)
        request = asked(endpoint, text="x" * 30_000_000)
        began = time.monotonic()
        with pytest.raises(ChatUnavailableError):
            if shell == "sync":
                RequestsTransport().open(endpoint, request)
            else:
                asyncio.run(HttpxTransport().open(endpoint, request))
        assert time.monotonic() - began < 2.5


def answer(coding: bytes, body: bytes, status: bytes = b"200 OK") -> Callable[[socket.socket, bytes], None]:
    head = b"HTTP/1.1 %b\r\nContent-Encoding: %b\r\nConnection: close\r\n" % (status, coding)
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def talk(there: socket.socket, _request: bytes) -> None:
        there.sendall(whole)
        there.shutdown(socket.SHUT_RDWR)

    return talk


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("status", [b"200 OK", b"500 No"])
@pytest.mark.parametrize(("coding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_one_coding_is_read(
    raw: Servers, shell: str, coding: bytes, pack: Callable[[bytes], bytes], status: bytes
) -> None:
    """What was not asked for is read all the same, in small pieces; nothing is asked for."""
    body = json.dumps({"words": ["The ford is a mile below the mill."] * 5000}).encode()
    server = raw(answer(coding, pack(body), status))
    given = read_all(shell, at(server.url))
    assert b"".join(given) == body
    assert max(map(len, given)) <= PIECE_BYTES
    assert b"accept-encoding: identity\r\n" in server.heard[0].lower()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("coding", [b"gzip, gzip", b"br", b"zstd", b"x-unknown"])
def test_other_codings_are_not_read(raw: Servers, shell: str, coding: bytes) -> None:
    with pytest.raises(BadReplyError, match=coding.decode()):
        read_all(shell, at(raw(answer(coding, gzip.compress(gzip.compress(b"{}")))).url))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_packed_body_that_ends_too_early(raw: Servers, shell: str) -> None:
    """It is a cut connection, though HTTP says that it is whole."""
    packed = gzip.compress(b"The ford is a mile below the mill.")
    with pytest.raises(ChatUnavailableError, match="cut the connection"):
        read_all(shell, at(raw(answer(b"gzip", packed[:-6])).url))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_packed_body_has_a_bound(raw: Servers, shell: str) -> None:
    packed = gzip.compress(bytes(20 * 2**20))
    with pytest.raises(BadReplyError, match="longer than"):
        read_all(shell, at(raw(answer(b"gzip", packed)).url))

"""What a hostile server may not do to either transport: keep it beyond its deadline, or fill its memory."""

from __future__ import annotations

import asyncio
import contextlib
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


def chunked(body: bytes) -> bytes:
    return OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("more", [OK + b"Content-Length: 4\r\n\r\nEVIL", b"\r\n", b"HTTP/1.1 500 No\r\n"])
def test_bytes_behind_an_answer_answer_nothing(raw: Servers, shell: str, more: bytes) -> None:
    """What a server sends unasked is not taken for the answer to the next request."""

    def talk(there: socket.socket, _request: bytes) -> None:
        body = b"%d" % len(server.heard)
        there.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body + more)

    server = raw(talk)
    assert read_often(shell, at(server.url), 3) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("shell", SHELLS)
def test_an_end_that_drips_is_not_waited_for(raw: Servers, shell: str) -> None:
    """A reply that is whole is given, however long the server takes for the end of its answer."""

    def talk(there: socket.socket, _request: bytes) -> None:
        there.sendall(chunked(b"{}") + b"X-Pad: ")
        while True:
            there.sendall(b"a")
            time.sleep(0.02)

    server = raw(talk)
    began = time.monotonic()
    assert read_often(shell, at(server.url, timeout_s=20), 2) == [b"{}", b"{}"]
    assert time.monotonic() - began < 2
    assert server.accepted == 2


def read_often(shell: str, endpoint: Endpoint, number: int) -> list[bytes]:
    """Read the first piece of several answers in turn, with one transport, and release each."""
    if shell == "sync":
        blocking = RequestsTransport()
        given = []
        for _ in range(number):
            answer = blocking.open(endpoint, asked(endpoint))
            given.append(answer.read())
            answer.release()
        blocking.close()
        return given

    async def go() -> list[bytes]:
        transport, given = HttpxTransport(), []
        for _ in range(number):
            answer = await transport.open(endpoint, asked(endpoint))
            given.append(await answer.read())
            await answer.release()
        await transport.close()
        return given

    return asyncio.run(go())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_that_is_looked_up_slowly(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """The system's own patience for names makes the deadline no later."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: time.sleep(3))
    endpoint = at("http://slow.invalid", timeout_s=0.5, connect_timeout_s=0.4)
    began = time.monotonic()
    with pytest.raises(ChatUnavailableError, match=r"did not accept a connection within 0\.4 s"):
        open_only(shell, endpoint)
    assert time.monotonic() - began < 2


def open_only(shell: str, endpoint: Endpoint) -> None:
    if shell == "sync":
        RequestsTransport().open(endpoint, asked(endpoint))
        return
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(HttpxTransport().open(endpoint, asked(endpoint)))
    finally:
        loop.close()  # ``asyncio.run`` would wait for the thread that looks the name up


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_of_many_addresses_that_do_not_answer(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """All of them share one deadline; one that answers is found behind one that refuses."""
    deaf = [f"127.0.0.{number}" for number in range(11, 17)]
    with contextlib.ExitStack() as held:
        port = 0
        for address in deaf:
            server = held.enter_context(socket.create_server((address, port), backlog=0))
            port = server.getsockname()[1]
            for _ in range(3):  # what fills its queue
                waiting = held.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex((address, port))
        places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in deaf]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: places)
        endpoint = at(f"http://many.invalid:{port}", timeout_s=1.0, connect_timeout_s=0.8)
        began = time.monotonic()
        with pytest.raises(ChatUnavailableError):
            read_all(shell, endpoint)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("shell", SHELLS)
def test_an_address_that_answers_behind_one_that_does_not(
    raw: Servers, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """As a machine without a way to the first kind of address has it."""
    port = int(raw(lambda there, _: there.sendall(OK + b"Content-Length: 2\r\n\r\n{}")).url.rpartition(":")[2])
    places = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("100::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.99", port)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: places)
    assert b"".join(read_all(shell, at(f"http://some.invalid:{port}", connect_timeout_s=1.0))) == b"{}"

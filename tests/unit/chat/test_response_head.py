"""Heads of answers: what is left out of them, and that both transports read the same."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from roleplay import ChatUnavailableError
from roleplay.chat.aio import HttpxTransport
from roleplay.chat.response_head import HEAD_LIMIT, cleaned, end_of_head, is_interim
from roleplay.chat.sync import RequestsTransport
from tests.support.http import Raw, asked, at

Servers = Callable[[Callable[[socket.socket, bytes], None]], Raw]
OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b"2\r\n{}\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "clean"),
    [
        (OK + JSON + CHUNKED, OK + JSON + CHUNKED),
        (OK + b"Content-Length:2\r\n", OK + b"Content-Length:2\r\n"),
        (b"HTTP/1.1 200\nA: b\n", b"HTTP/1.1 200\nA: b\n"),
        (OK + CHUNKED + CHUNKED, OK + CHUNKED),
        (OK + b"Transfer-Encoding: chunked, Chunked\r\n", OK + CHUNKED),
        (OK + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n", OK + b"Content-Length: 2\r\n"),
        (OK + CHUNKED + b"Content-Length: 7\r\n", OK + CHUNKED),
        (OK + b"Content-Length: 2\r\nContent-Length: 7\r\n", OK + b"Content-Length: 2\r\n"),
        (OK + b"Content-Length: two\r\nContent-Length: 2\r\n", OK + b"Content-Length: 2\r\n"),
        (OK + b"Weird\r\n" + JSON, OK + JSON),
        (OK + b": no name\r\nTwo words: x\r\nA\x01: b\r\n" + JSON, OK + JSON),
        (OK + b"A: b\x00c\r\n folded\r\n" + JSON, OK + JSON),
        (OK + b"Content-Type : application/json\r\n", OK + JSON),
        (b"HTTP/1.1  200  Fine\x07\r\n" + JSON, b"HTTP/1.1 200 Fine\r\n" + JSON),
    ],
)
def test_what_is_left_of_a_head(head: bytes, clean: bytes) -> None:
    """A head that is fine stays as it is; of others stays what can be read in one way only."""
    end = b"\n" if head.endswith(b"b\n") and b"\r" not in head else b"\r\n"
    assert cleaned(head + end) == clean + end
    assert cleaned(cleaned(head + end)) == cleaned(head + end)


def test_where_a_head_ends() -> None:
    """Its end is found wherever the bytes break; 1xx answers are known."""
    whole = OK + JSON + b"\r\n"
    for at_byte in range(len(whole)):
        assert end_of_head(whole[:at_byte]) == 0
        assert end_of_head(whole + b"{}", at_byte) == len(whole)
    assert [is_interim(b"HTTP/1.1 %d X\r\n\r\n" % status) for status in (100, 101, 103, 199, 200, 404)] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


HEADS = {
    "two Transfer-Encoding": OK + JSON + CHUNKED + CHUNKED,
    "one with two": OK + JSON + b"Transfer-Encoding: chunked, chunked\r\n",
    "a stray line at the end": OK + JSON + CHUNKED + b"Weird\r\n",
    "a stray line at the beginning": OK + b"Weird\r\n" + JSON + CHUNKED,
    "a blank before the colon": OK + JSON + b"Transfer-Encoding : chunked\r\n",
    "a control character": OK + b"X-Bad: a\x01b\r\n" + JSON + CHUNKED,
    "line feeds alone": (OK + JSON + CHUNKED).replace(b"\r\n", b"\n"),
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + JSON + CHUNKED,
    "processing, twice": b"HTTP/1.1 102 Processing\r\n\r\n" * 2 + OK + JSON + CHUNKED,
    "continue and more": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 X\r\nWeird\r\n\r\n" + OK + JSON + CHUNKED,
    "more headers than one library takes": OK + JSON + CHUNKED + b"X-More: y\r\n" * 4000,
    "more headers before what counts": OK + JSON + b"X-More: y\r\n" * 400 + CHUNKED,
    "switching": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + JSON + CHUNKED,
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_both_transports_take_the_same(raw: Servers, name: str, whole: bool) -> None:
    """The answer is read, in one piece or byte by byte, and its connection is used again."""
    sent = HEADS[name] + (b"\n" if b"\r" not in HEADS[name] else b"\r\n") + BODY

    def talk(there: socket.socket, _: bytes) -> None:
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [sent] if whole else (sent[n : n + 1] for n in range(len(sent))):
            there.sendall(piece)

    server = raw(talk)
    endpoint = at(server.url, read_timeout_s=5)
    transport = RequestsTransport()
    for _ in range(2):
        answer = transport.open(endpoint, asked(endpoint))
        assert (answer.status, answer.headers) == (200, {"content-type": "application/json"})
        read = b""
        while len(read) < 2 and (piece := answer.read()):
            read += piece
        assert read == b"{}"
        answer.release()
    transport.close()
    assert server.accepted == 1

    async def twice() -> None:
        transport = HttpxTransport()
        for _ in range(2):
            answer = await transport.open(endpoint, asked(endpoint))
            assert (answer.status, answer.headers) == (200, {"content-type": "application/json"})
            read = b""
            while len(read) < 2 and (piece := await answer.read()):
                read += piece
            assert read == b"{}"
            await answer.release()
        await transport.close()

    asyncio.run(twice())
    assert server.accepted == 2


@pytest.mark.parametrize(
    "sent", [OK + b"X: y\r\n" * HEAD_LIMIT, b"HTTP/1.1 103 X\r\n\r\n" * HEAD_LIMIT, b"Weird\r\n\r\n"]
)
def test_no_head_is_read_without_end(raw: Servers, sent: bytes) -> None:
    """A head, and all 1xx answers before it, may have 64 KB together."""

    def talk(there: socket.socket, _: bytes) -> None:
        try:
            there.sendall(sent)
            there.recv(1)
        except OSError:
            pass  # the other side has had enough

    server = raw(talk)
    endpoint = at(server.url, read_timeout_s=5)
    transport = RequestsTransport()
    with pytest.raises(ChatUnavailableError, match="cut the connection"):
        transport.open(endpoint, asked(endpoint))
    transport.close()

    async def once() -> None:
        transport = HttpxTransport()
        with pytest.raises(ChatUnavailableError, match="cut the connection"):
            await transport.open(endpoint, asked(endpoint))
        await transport.close()

    asyncio.run(once())


def test_only_what_is_wanted_is_handed_on(raw: Servers) -> None:
    """Of all headers the wire gets those that it asks for, by names in lower case."""
    head = b"RETRY-AFTER: 3\r\nSet-Cookie: a=secret\r\nX-RateLimit-Reset-Tokens: 1s\r\nContent-Length: 0\r\n\r\n"
    sent = b"HTTP/1.1 429 X\r\n" + head
    server = raw(lambda there, _: there.sendall(sent))
    endpoint = at(server.url)
    transport = RequestsTransport()
    answer = transport.open(endpoint, asked(endpoint))
    answer.close()
    transport.close()

    async def theirs() -> dict[str, str]:
        transport = HttpxTransport()
        answer = await transport.open(endpoint, asked(endpoint))
        await answer.close()
        await transport.close()
        return answer.headers

    assert answer.headers == asyncio.run(theirs()) == {"retry-after": "3", "x-ratelimit-reset-tokens": "1s"}

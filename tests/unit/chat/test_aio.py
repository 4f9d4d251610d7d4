"""The transport over ``httpx``, against real servers on loopback: connections, deadlines, faults, the key.

What both transports promise is asked of both in the same words; ``test_sync.py`` is this file's twin.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from roleplay import ChatPath, ChatUnavailableError, Endpoint
from roleplay.chat import aio
from roleplay.chat.aio import HttpxTransport
from roleplay.chat.sync import RequestsTransport
from roleplay.testing import Simulator
from roleplay.testing.simulator.faults import (
    ConnectionReset,
    CutStream,
    EndlessStream,
    HtmlErrorPage,
    RateLimited,
    ResetAt,
    SlowDrip,
    SlowFirstByte,
)
from tests.support.http import HEAD, KEY, Raw, asked, at, told

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Servers = Callable[[Callable[[socket.socket, bytes], None]], Raw]
BRACES = b"Content-Length: 2\r\n\r\n{}"


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs coroutines on one event loop in asyncio's debug mode, on which no task is left at the end."""
    with asyncio.Runner(debug=True) as runner:
        runner.get_loop().slow_callback_duration = 10
        yield runner.run
        assert not runner.run(tasks_left())


async def tasks_left() -> set[asyncio.Task[Any]]:
    """The other tasks that are still there after the loop has come round some times."""
    for _ in range(20):
        await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.fixture
def transport(run: Run) -> Iterator[HttpxTransport]:
    """A transport with connections of its own."""
    one = HttpxTransport()
    yield one
    run(one.close())


async def whole(transport: HttpxTransport, endpoint: Endpoint, *, stream: bool = False, release: bool = True) -> bytes:
    """Make one call and read its answer to the end."""
    answer = await transport.open(endpoint, asked(endpoint, stream=stream))
    read = b""
    while piece := await answer.read():
        read += piece
        if stream and read.endswith(b"data: [DONE]\n\n"):
            break
    if release:
        await answer.release()
    await answer.close()
    return read


@asynccontextmanager
async def nothing_open(sim: Simulator) -> AsyncIterator[None]:
    """See that the server has no connection left soon after the block."""
    yield
    give_up = time.monotonic() + 5
    while sim.open_connections:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", list(ChatPath))
def test_one_connection_for_many_calls(run: Run, sim: Simulator, transport: HttpxTransport, path: ChatPath) -> None:
    """JSON, streams and refusals in turn use the same connection."""
    endpoint = at(sim.base_url, path=path).evolve(model="M2-her" if path is ChatPath.NATIVE_V2 else "MiniMax-M2.7")
    for number in range(12):
        if number % 5 == 4:
            sim.next(RateLimited())
        stream = number % 2 == 1
        assert run(whole(transport, endpoint.evolve(stream_usage=path is ChatPath.COMPLETIONS), stream=stream))
    assert [request.accepted for request in sim.requests] == [True] * 12
    assert sim.open_connections == len(transport._clients) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("key", [KEY, None])
def test_what_is_sent(run: Run, raw: Servers, transport: HttpxTransport, stream: bool, key: str | None) -> None:
    """Both transports send the same body to the same place under the same headers, but for who they are."""
    server = raw(lambda there, _: there.sendall(HEAD + BRACES))
    endpoint = at(server.url).evolve(api_key=key)
    run(whole(transport, endpoint, stream=stream))
    blocking = RequestsTransport()
    blocking.open(endpoint, asked(endpoint, stream=stream)).close()
    blocking.close()
    (ours, body), (theirs, their_body) = (heard(one) for one in server.heard)
    assert body == their_body == asked(endpoint, stream=stream).body
    for headers in (ours, theirs):
        assert headers.pop("user-agent")
        assert headers.pop("connection", "keep-alive") == "keep-alive"
    assert ours == theirs
    assert ours["accept"] == ("text/event-stream" if stream else "application/json")
    assert ours.get("authorization") == (f"Bearer {key}" if key else None)


def heard(request: bytes) -> tuple[dict[str, str], bytes]:
    """A request as a server heard it: its head, by lower-case names, with the first line as ``""``; its body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    parted = (line.partition(": ") for line in lines)
    return {"": first} | {name.lower(): value for name, _, value in parted}, body


def test_tasks_share_a_transport(run: Run, sim: Simulator, transport: HttpxTransport) -> None:
    """Calls of many tasks at once get each their own answer; of their connections, some are kept for the next."""
    endpoint = at(sim.base_url)
    sim.always(SlowFirstByte(0.3))

    async def many(number: int) -> list[bytes]:
        return await asyncio.gather(*(whole(transport, endpoint, stream=one % 2 == 0) for one in range(number)))

    answers = run(many(aio._KEPT + 40))
    assert all(b'"choices"' in answer for answer in answers)
    assert len(transport._clients) == aio._KEPT
    kept = set(transport._clients)
    run(many(aio._KEPT))
    assert transport._clients == kept
    assert sim.open_connections == aio._KEPT


def test_a_stream_left_early_is_closed(run: Run, sim: Simulator, transport: HttpxTransport) -> None:
    """An answer that goes on for ever is let go of at once, and the next call is not disturbed by its rest."""
    endpoint = at(sim.base_url)
    sim.next(EndlessStream())

    async def leave() -> float:
        async with nothing_open(sim):
            answer = await transport.open(endpoint, asked(endpoint, stream=True))
            assert await answer.read()
            began = time.monotonic()
            await answer.release()
            await answer.close()
            return time.monotonic() - began

    assert run(leave()) < 1
    assert json.loads(run(whole(transport, endpoint)))["choices"]


@pytest.mark.parametrize("moment", [0.05, 0.35])
def test_a_cancelled_call_is_closed(run: Run, sim: Simulator, transport: HttpxTransport, moment: float) -> None:
    """A task cancelled while it waits for the head or for a piece leaves neither connection nor client behind."""
    endpoint = at(sim.base_url)
    sim.next(SlowFirstByte(0.2), SlowDrip(0.4))

    async def cancel() -> None:
        async with nothing_open(sim):
            calls = [asyncio.create_task(read_and_close(transport, endpoint)) for _ in range(3)]
            await asyncio.sleep(moment)
            for call in calls:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(one) for one in ended] == [asyncio.CancelledError] * 3

    sim.always(SlowFirstByte(0.2), SlowDrip(0.4))
    run(cancel())
    sim.heal()
    assert len(transport._idle[endpoint.base_url]) == len(transport._clients) <= 3
    assert run(whole(transport, endpoint))


async def read_and_close(transport: HttpxTransport, endpoint: Endpoint) -> None:
    """Read an answer and close it whatever happens, as a turn does."""
    answer = await transport.open(endpoint, asked(endpoint, stream=True))
    try:
        while await answer.read():
            pass
    finally:
        await answer.close()


def test_errors_are_answers(run: Run, sim: Simulator, transport: HttpxTransport) -> None:
    """A refusal is an answer with its status and type, in JSON or not."""
    endpoint = at(sim.base_url)

    async def refusals() -> None:
        refused = await transport.open(endpoint.evolve(api_key="sk-wrong"), asked(endpoint))
        assert (refused.status, refused.headers["content-type"].split(";")[0]) == (401, "application/json")
        sim.next(HtmlErrorPage(status=502))
        page = await transport.open(endpoint, asked(endpoint))
        assert (page.status, page.headers["content-type"].split(";")[0]) == (502, "text/html")
        assert b"<html" in await page.read()
        for answer in (refused, page):
            await answer.close()
            await answer.close()

    run(refusals())


@pytest.mark.parametrize(
    ("fault", "stream", "limits", "says"),
    [
        (SlowFirstByte(5.0), False, {"read_timeout_s": 0.2}, "sent nothing for 0.2 s"),
        (SlowFirstByte(5.0, after_headers=True), True, {"read_timeout_s": 0.2}, "sent nothing for 0.2 s"),
        (SlowFirstByte(5.0), False, {"timeout_s": 0.2}, " 0.2 s"),
        (SlowFirstByte(5.0, after_headers=True), False, {"timeout_s": 0.2}, "did not finish its answer within 0.2 s"),
        (SlowDrip(0.05, least_chunks=100), True, {"timeout_s": 0.4}, "did not finish its answer within 0.4 s"),
        (SlowDrip(0.15), False, {"read_timeout_s": 0.2, "timeout_s": 0.4}, "did not finish its answer within 0.4 s"),
        (EndlessStream(), True, {"timeout_s": 0.3}, "did not finish its answer within 0.3 s"),
        (EndlessStream(), False, {"timeout_s": 0.3}, "did not finish its answer within 0.3 s"),
    ],
)
def test_deadlines(
    run: Run,
    sim: Simulator,
    transport: HttpxTransport,
    fault: object,
    stream: bool,
    limits: dict[str, float],
    says: str,
) -> None:
    """Silence and dripping end at their deadlines, the total also in the middle of a wait, and nothing stays open."""
    endpoint = at(sim.base_url, **limits)
    sim.next(fault)  # type: ignore[arg-type]

    async def late() -> None:
        async with nothing_open(sim):
            began = time.monotonic()
            with pytest.raises(ChatUnavailableError) as failure:
                await whole(transport, endpoint, stream=stream)
            assert time.monotonic() - began < 0.9
            assert str(failure.value).startswith(endpoint.host)
            assert str(failure.value).endswith(says)
            assert KEY not in told(failure.value)

    run(late())
    assert run(whole(transport, at(sim.base_url), stream=stream))


def test_a_host_that_accepts_nothing(run: Run, transport: HttpxTransport) -> None:
    """Connecting has a deadline of its own."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        endpoint = at(f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout_s=0.3)
        began = time.monotonic()
        with pytest.raises(ChatUnavailableError, match=r"did not accept a connection within 0\.3 s$"):
            run(transport.open(endpoint, asked(endpoint)))
        assert time.monotonic() - began < 2
        for one in waiting:
            one.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        ConnectionReset(ResetAt.BEFORE_HEADERS),
        ConnectionReset(ResetAt.MID_BODY),
        CutStream(after_chunks=0),
        CutStream(after_chunks=1),
    ],
    ids=repr,
)
def test_cuts_and_resets(run: Run, sim: Simulator, transport: HttpxTransport, fault: object, stream: bool) -> None:
    """A connection that breaks before or after bytes is our error, and the next call makes another connection."""
    endpoint = at(sim.base_url)
    run(whole(transport, endpoint))
    sim.next(fault)  # type: ignore[arg-type]
    with pytest.raises(ChatUnavailableError, match=r"cut the connection|cannot be reached") as failure:
        run(whole(transport, endpoint, stream=stream))
    assert KEY not in told(failure.value)
    assert failure.value.retryable
    assert run(whole(transport, endpoint, stream=stream))


def test_a_kept_connection_that_the_server_closed(run: Run, sim: Simulator, transport: HttpxTransport) -> None:
    """A server that closed a kept connection costs no call: it is noticed, and another is made."""
    endpoint = at(sim.base_url)
    port = int(sim.base_url.rpartition(":")[2])
    run(whole(transport, endpoint))
    sim.stop()
    with Simulator(KEY, port=port) as again:
        assert run(whole(transport, endpoint))
        assert len(again.requests) == 1
    sim.start()


def test_nobody_there(run: Run, transport: HttpxTransport) -> None:
    """A port without a server and a host without an address are named, with what to check."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{taken.getsockname()[1]}", "http://no-such-host.invalid"):
            with pytest.raises(ChatUnavailableError, match="cannot be reached; check the base URL") as failure:
                run(transport.open(at(url), asked(at(url))))
            assert KEY not in told(failure.value)


@pytest.mark.parametrize("host", ["*.example", ".example", "xn--", "a" * 70 + ".example"])
def test_a_host_that_no_name_can_be(run: Run, transport: HttpxTransport, host: str) -> None:
    """An address that the HTTP library refuses is our error too."""
    with pytest.raises(ChatUnavailableError) as failure:
        run(transport.open(at(f"http://{host}"), asked(at(f"http://{host}"))))
    assert KEY not in told(failure.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(run: Run, raw: Servers, transport: HttpxTransport, status: int) -> None:
    """A redirect is an answer like any other; its target hears nothing, neither body nor key."""
    thief = raw(lambda there, _: there.sendall(HEAD + BRACES))
    redirect = f"HTTP/1.1 {status} Moved\r\nLocation: {thief.url}/v1/chat/completions\r\nContent-Length: 0\r\n\r\n"
    server = raw(lambda there, _: there.sendall(redirect.encode()))
    endpoint = at(server.url)

    async def ask() -> None:
        answer = await transport.open(endpoint, asked(endpoint))
        assert (answer.status, await answer.read()) == (status, b"")
        await answer.close()

    run(ask())
    assert (len(server.heard), thief.accepted) == (1, 0)
    assert KEY.encode() in server.heard[0]


def test_each_host_hears_its_own_key(run: Run, raw: Servers, transport: HttpxTransport) -> None:
    """Two endpoints on one transport never get each other's key, and one without a key sends none."""
    servers = [raw(lambda there, _: there.sendall(HEAD + BRACES)) for _ in range(3)]
    keys = ["sk-first", "sk-second", None]
    for _ in range(2):
        for server, key in zip(servers, keys, strict=True):
            run(whole(transport, at(server.url).evolve(api_key=key)))
    lines = [[line for one in server.heard for line in one.split(b"\r\n")] for server in servers]
    found = [{line for line in of if b"uthorization" in line} for of in lines]
    assert found == [{b"Authorization: Bearer sk-first"}, {b"Authorization: Bearer sk-second"}, set()]
    assert [server.accepted for server in servers] == [1, 1, 1]


def test_cookies_are_ignored(run: Run, raw: Servers, transport: HttpxTransport) -> None:
    """What a server sets it never gets back."""
    server = raw(lambda there, _: there.sendall(HEAD + b"Set-Cookie: id=1; Path=/\r\n" + BRACES))
    for _ in range(3):
        run(whole(transport, at(server.url)))
    assert not any(b"cookie" in one.lower() for one in server.heard)
    assert [len(client.cookies) for client in transport._clients] == [0]


@pytest.mark.parametrize("key", [KEY, None])
def test_netrc_is_ignored(
    run: Run,
    raw: Servers,
    transport: HttpxTransport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
) -> None:
    """A password of the machine's for that host is not sent, with or without a key of ours."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hush\ndefault login me password hush\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", os.fspath(netrc))
    server = raw(lambda there, _: there.sendall(HEAD + BRACES))
    run(whole(transport, at(server.url).evolve(api_key=key)))
    assert b"Basic" not in server.heard[0]
    assert (b"Bearer" in server.heard[0]) is (key is not None)


def test_a_proxy_of_the_environment_is_used(run: Run, raw: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine names a proxy, requests go there, as they do over the blocking transport."""
    proxy = raw(lambda there, _: there.sendall(HEAD + BRACES))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    endpoint = at("http://api.invalid")
    transport = HttpxTransport()
    assert run(whole(transport, endpoint)) == b"{}"
    run(transport.close())
    assert proxy.heard[0].startswith(b"POST http://api.invalid/v1/chat/completions HTTP/1.1\r\n")


def test_a_long_request_to_a_slow_reader(run: Run, raw: Servers, transport: HttpxTransport) -> None:
    """On a connection that a stream gave back, a long body has the time it needs to be sent."""
    done = b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n"

    def talk(there: socket.socket, _request: bytes) -> None:
        there.sendall(HEAD + done)
        time.sleep(0.02)
        there.sendall(b"0\r\n\r\n")
        time.sleep(0.5)

    server = raw(talk)
    endpoint = at(server.url)

    async def talk_twice() -> None:
        first = await transport.open(endpoint, asked(endpoint))
        assert await first.read() == b" "
        await first.release()
        second = await transport.open(endpoint, asked(endpoint, text="x" * 16_000_000))
        assert second.status == 200
        await second.close()

    run(talk_twice())
    assert server.accepted == 1


def test_an_answer_in_bits(run: Run, raw: Servers, transport: HttpxTransport) -> None:
    """What has arrived is given at once, not held back until a buffer is full."""
    go_on = threading.Event()

    def talk(there: socket.socket, _request: bytes) -> None:
        there.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        go_on.wait(5)
        there.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    endpoint = at(raw(talk).url)

    async def read() -> None:
        answer = await transport.open(endpoint, asked(endpoint))
        assert await answer.read() == b"one"
        go_on.set()
        assert (await answer.read(), await answer.read()) == (b"two", b"")
        await answer.close()

    run(read())


@pytest.mark.parametrize("reply", [b"nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100, b"HTTP"])
def test_what_is_no_http(run: Run, raw: Servers, transport: HttpxTransport, reply: bytes) -> None:
    """Bytes that are no answer are our error."""

    def talk(there: socket.socket, _request: bytes) -> None:
        there.sendall(reply)
        there.shutdown(socket.SHUT_RDWR)

    endpoint = at(raw(talk).url)
    with pytest.raises(ChatUnavailableError) as failure:
        run(whole(transport, endpoint))
    assert KEY not in told(failure.value)


def test_what_cannot_be_unpacked(run: Run, raw: Servers, transport: HttpxTransport) -> None:
    """An answer that says it is packed and is not is our error."""
    garbage = b"not gzip at all"
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(garbage)
    endpoint = at(raw(lambda there, _: there.sendall(head + garbage)).url)
    with pytest.raises(ChatUnavailableError) as failure:
        run(whole(transport, endpoint))
    assert KEY not in told(failure.value)


def test_a_client_from_outside_stays_open(run: Run, sim: Simulator) -> None:
    """What the caller opened, the caller closes; its redirects, cookies and hooks are not ours to follow."""
    http = httpx.AsyncClient()
    borrowed = HttpxTransport(http)
    endpoint = at(sim.base_url)
    run(whole(borrowed, endpoint))
    run(borrowed.close())
    assert not http.is_closed
    assert sim.open_connections == 1
    run(whole(HttpxTransport(http), endpoint))
    assert sim.open_connections == 1
    run(http.aclose())


def test_closing_closes_what_is_open(run: Run, sim: Simulator) -> None:
    """A closed transport has no connection left, also of an answer that nobody closed yet."""
    endpoint = at(sim.base_url)
    transport = HttpxTransport()
    sim.next(EndlessStream())

    async def close() -> None:
        async with nothing_open(sim):
            answer = await transport.open(endpoint, asked(endpoint, stream=True))
            await answer.read()
            await whole(transport, endpoint)
            await transport.close()
            await answer.close()

    run(close())
    assert not transport._clients
    assert not any(transport._idle.values())

"""The transport over ``requests``, against real servers on loopback: connections, deadlines, faults, and the key."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from roleplay import ChatPath, ChatUnavailableError, Endpoint
from roleplay.chat.sync import RequestsTransport, _Adapter
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


@pytest.fixture
def transport() -> Iterator[RequestsTransport]:
    """A transport with a session of its own."""
    one = RequestsTransport()
    yield one
    one.close()


def whole(transport: RequestsTransport, endpoint: Endpoint, *, stream: bool = False, release: bool = True) -> bytes:
    """Make one call and read its answer to the end."""
    answer = transport.open(endpoint, asked(endpoint, stream=stream))
    read = b""
    while piece := answer.read():
        read += piece
        if stream and read.endswith(b"data: [DONE]\n\n"):
            break
    if release:
        answer.release()
    answer.close()
    return read


def connections(transport: RequestsTransport) -> int:
    """How many connections a transport has made."""
    http: Any = transport._http
    adapter = http.get_adapter("http://") if isinstance(http, requests.Session) else http
    pools = adapter.poolmanager.pools
    return sum(pools[key].num_connections for key in pools.keys())  # noqa: SIM118 - it cannot be walked


def test_servers_that_were_not_asked_for_long_are_let_go(
    raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are kept for as many servers as there are pools; none is left when the transport is closed."""
    monkeypatch.setattr("roleplay.chat.sync._POOL", 2)
    transport = RequestsTransport()
    servers = [raw(lambda there, _: there.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")) for _ in range(5)]
    for server in servers * 2:
        whole(transport, at(server.url))
    gc.collect()
    assert isinstance(transport._http, _Adapter)
    lines = transport._http.lines._open
    assert len(lines) <= 2
    transport.close()
    assert all(line.sock is None for line in lines)


@pytest.mark.parametrize("path", list(ChatPath))
def test_one_connection_for_many_calls(sim: Simulator, transport: RequestsTransport, path: ChatPath) -> None:
    """JSON, streams and refusals in turn use the same connection."""
    endpoint = at(sim.base_url, path=path).evolve(model="M2-her" if path is ChatPath.NATIVE_V2 else "MiniMax-M2.7")
    for number in range(12):
        if number % 5 == 4:
            sim.next(RateLimited())
        stream = number % 2 == 1
        assert whole(transport, endpoint.evolve(stream_usage=path is ChatPath.COMPLETIONS), stream=stream)
    assert [request.accepted for request in sim.requests] == [True] * 12
    assert connections(transport) == sim.open_connections == 1


def test_what_is_sent(sim: Simulator, transport: RequestsTransport) -> None:
    """The body goes as it is, with its type and length, and says which answer is wanted."""
    endpoint = at(sim.base_url)
    for stream in (False, True):
        whole(transport, endpoint, stream=stream)
        request = sim.requests[-1]
        assert request.body == asked(endpoint, stream=stream).body
        assert request.headers["content-type"] == "application/json"
        assert request.headers["content-length"] == str(len(request.body))
        assert request.headers["accept"] == ("text/event-stream" if stream else "application/json")
        assert "cookie" not in request.headers


def test_threads_share_a_transport(sim: Simulator, transport: RequestsTransport) -> None:
    """Calls of many threads at once get each their own answer, and no more connections than threads are made."""
    endpoint = at(sim.base_url)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: whole(transport, endpoint, stream=number % 2 == 0), range(48)))
    assert all(b'"choices"' in answer for answer in answers)
    assert connections(transport) <= 8
    assert sim.open_connections <= 8


def test_a_stream_left_early_is_closed(sim: Simulator, transport: RequestsTransport) -> None:
    """An answer that goes on for ever is let go of at once, and the next call is not disturbed by its rest."""
    endpoint = at(sim.base_url)
    sim.next(EndlessStream())
    answer = transport.open(endpoint, asked(endpoint, stream=True))
    assert answer.read()
    began = time.monotonic()
    answer.release()
    answer.close()
    assert time.monotonic() - began < 1
    assert json.loads(whole(transport, endpoint))["choices"]


def test_errors_are_answers(sim: Simulator, transport: RequestsTransport) -> None:
    """A refusal is an answer with its status and type, in JSON or not."""
    endpoint = at(sim.base_url)
    refused = transport.open(endpoint.evolve(api_key="sk-wrong"), asked(endpoint))
    assert (refused.status, refused.headers["content-type"].split(";")[0]) == (401, "application/json")
    sim.next(HtmlErrorPage(status=502))
    page = transport.open(endpoint, asked(endpoint))
    assert (page.status, page.headers["content-type"].split(";")[0]) == (502, "text/html")
    assert b"<html" in page.read()
    for answer in (refused, page):
        answer.close()
        answer.close()


@pytest.mark.parametrize(
    ("fault", "stream", "limits", "says"),
    [
        (SlowFirstByte(5.0), False, {"read_timeout_s": 0.2}, "sent nothing for 0.2 s"),
        (SlowFirstByte(5.0, after_headers=True), True, {"read_timeout_s": 0.2}, "sent nothing for 0.2 s"),
        (SlowFirstByte(5.0), False, {"timeout_s": 0.2}, "sent nothing for 0.2 s"),
        (SlowFirstByte(5.0, after_headers=True), False, {"timeout_s": 0.2}, "did not finish its answer within 0.2 s"),
        (SlowDrip(0.05, least_chunks=100), True, {"timeout_s": 0.4}, "did not finish its answer within 0.4 s"),
        (SlowDrip(0.15), False, {"read_timeout_s": 0.2, "timeout_s": 0.4}, "did not finish its answer within 0.4 s"),
        (EndlessStream(), True, {"timeout_s": 0.3}, "did not finish its answer within 0.3 s"),
        (EndlessStream(), False, {"timeout_s": 0.3}, "did not finish its answer within 0.3 s"),
    ],
)
def test_deadlines(
    sim: Simulator, transport: RequestsTransport, fault: object, stream: bool, limits: dict[str, float], says: str
) -> None:
    """Silence and dripping end at their deadlines, the total also in the middle of a wait, and nothing stays open."""
    endpoint = at(sim.base_url, **limits)
    sim.next(fault)  # type: ignore[arg-type]
    began = time.monotonic()
    with pytest.raises(ChatUnavailableError) as failure:
        whole(transport, endpoint, stream=stream)
    assert time.monotonic() - began < 0.9
    assert str(failure.value) == f"{endpoint.host} {says}"
    assert KEY not in told(failure.value)
    give_up = time.monotonic() + 5
    while sim.open_connections:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert whole(transport, at(sim.base_url), stream=stream)


def test_a_host_that_accepts_nothing(transport: RequestsTransport) -> None:
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
            transport.open(endpoint, asked(endpoint))
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
def test_cuts_and_resets(sim: Simulator, transport: RequestsTransport, fault: object, stream: bool) -> None:
    """A connection that breaks before or after bytes is our error, and the next call makes another connection."""
    endpoint = at(sim.base_url)
    whole(transport, endpoint)
    sim.next(fault)  # type: ignore[arg-type]
    with pytest.raises(ChatUnavailableError, match=r"cut the connection|cannot be reached") as failure:
        whole(transport, endpoint, stream=stream)
    assert KEY not in told(failure.value)
    assert failure.value.retryable
    assert whole(transport, endpoint, stream=stream)


def test_a_kept_connection_that_the_server_closed(sim: Simulator, transport: RequestsTransport) -> None:
    """A server that closed a kept connection costs no call: it is noticed, and another is made."""
    endpoint = at(sim.base_url)
    port = int(sim.base_url.rpartition(":")[2])
    whole(transport, endpoint)
    sim.stop()
    with Simulator(KEY, port=port) as again:
        assert whole(transport, endpoint)
        assert len(again.requests) == 1
    sim.start()


def test_nobody_there(transport: RequestsTransport) -> None:
    """A port without a server and a host without an address are named, with what to check."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{taken.getsockname()[1]}", "http://no-such-host.invalid"):
            with pytest.raises(ChatUnavailableError, match="cannot be reached; check the base URL") as failure:
                transport.open(at(url), asked(at(url)))
            assert KEY not in told(failure.value)


@pytest.mark.parametrize("host", ["*.example", ".example", "xn--", "a" * 70 + ".example"])
def test_a_host_that_no_name_can_be(transport: RequestsTransport, host: str) -> None:
    """An address that the HTTP library refuses is our error too."""
    with pytest.raises(ChatUnavailableError) as failure:
        transport.open(at(f"http://{host}"), asked(at(f"http://{host}")))
    assert KEY not in told(failure.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(raw: Callable[..., Raw], transport: RequestsTransport, status: int) -> None:
    """A redirect is an answer like any other; its target hears nothing, neither body nor key."""
    thief = raw(lambda there, _: there.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}"))
    redirect = f"HTTP/1.1 {status} Moved\r\nLocation: {thief.url}/v1/chat/completions\r\nContent-Length: 0\r\n\r\n"
    server = raw(lambda there, _: there.sendall(redirect.encode()))
    endpoint = at(server.url)
    answer = transport.open(endpoint, asked(endpoint))
    assert (answer.status, answer.read()) == (status, b"")
    answer.close()
    assert (len(server.heard), thief.accepted) == (1, 0)
    assert KEY.encode() in server.heard[0]


def test_each_host_hears_its_own_key(raw: Callable[..., Raw], transport: RequestsTransport) -> None:
    """Two endpoints on one transport never get each other's key, and one without a key sends none."""
    servers = [raw(lambda there, _: there.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")) for _ in range(3)]
    keys = ["sk-first", "sk-second", None]
    for _ in range(2):
        for server, key in zip(servers, keys, strict=True):
            whole(transport, at(server.url).evolve(api_key=key))
    lines = [[line for one in server.heard for line in one.split(b"\r\n")] for server in servers]
    heard = [{line for line in of if b"uthorization" in line} for of in lines]
    assert heard == [{b"Authorization: Bearer sk-first"}, {b"Authorization: Bearer sk-second"}, set()]


def test_cookies_are_ignored(raw: Callable[..., Raw], transport: RequestsTransport) -> None:
    """What a server sets it never gets back."""
    server = raw(lambda there, _: there.sendall(HEAD + b"Set-Cookie: id=1; Path=/\r\nContent-Length: 2\r\n\r\n{}"))
    for _ in range(3):
        whole(transport, at(server.url))
    assert not any(b"cookie" in one.lower() for one in server.heard)


@pytest.mark.parametrize("key", [KEY, None])
def test_netrc_is_ignored(
    raw: Callable[..., Raw],
    transport: RequestsTransport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
) -> None:
    """A password of the machine's for that host is not sent, with or without a key of ours."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hush\ndefault login me password hush\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", os.fspath(netrc))
    server = raw(lambda there, _: there.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}"))
    whole(transport, at(server.url).evolve(api_key=key))
    assert b"Basic" not in server.heard[0]
    assert (b"Bearer" in server.heard[0]) is (key is not None)


def test_a_long_request_to_a_slow_reader(raw: Callable[..., Raw], transport: RequestsTransport) -> None:
    """On a connection that a stream gave back, a long body has the time it needs to be sent."""
    done = b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n"

    def talk(there: socket.socket, _request: bytes) -> None:
        there.sendall(HEAD + done)
        time.sleep(0.02)
        there.sendall(b"0\r\n\r\n")
        time.sleep(0.5)

    server = raw(talk)
    endpoint = at(server.url)
    first = transport.open(endpoint, asked(endpoint))
    assert first.read() == b" "
    first.release()
    second = transport.open(endpoint, asked(endpoint, text="x" * 16_000_000))
    assert second.status == 200
    second.close()
    assert server.accepted == 1


def test_an_answer_in_bits(raw: Callable[..., Raw], transport: RequestsTransport) -> None:
    """What has arrived is given at once, not held back until a buffer is full."""
    go_on = threading.Event()

    def talk(there: socket.socket, _request: bytes) -> None:
        there.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        go_on.wait(5)
        there.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    endpoint = at(raw(talk).url)
    answer = transport.open(endpoint, asked(endpoint))
    assert answer.read() == b"one"
    go_on.set()
    assert (answer.read(), answer.read()) == (b"two", b"")


@pytest.mark.parametrize("reply", [b"nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100, b"HTTP"])
def test_what_is_no_http(raw: Callable[..., Raw], transport: RequestsTransport, reply: bytes) -> None:
    """Bytes that are no answer are our error."""

    def talk(there: socket.socket, _request: bytes) -> None:
        there.sendall(reply)
        there.shutdown(socket.SHUT_RDWR)

    endpoint = at(raw(talk).url)
    with pytest.raises(ChatUnavailableError) as failure:
        whole(transport, endpoint)
    assert KEY not in told(failure.value)


def test_a_session_from_outside_stays_open(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller opened, the caller closes."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)  # else a session has a pool of its own for it
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    session = requests.Session()
    endpoint = at(sim.base_url)
    for _ in range(2):
        borrowed = RequestsTransport(session)
        whole(borrowed, endpoint)
        borrowed.close()
        assert connections(borrowed) == sim.open_connections == 1
    session.close()

"""What this process lacks, or is too busy for, is told as its own and never as the host's."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from roleplay import ChatUnavailableError
from roleplay.chat.aio import HttpxTransport
from roleplay.chat.overload import within
from roleplay.chat.sync import RequestsTransport
from tests.support.http import HEAD, Raw, asked, at

Servers = Callable[[Callable[[socket.socket, bytes], None]], Raw]


def answer(connection: socket.socket, _request: bytes) -> None:
    """Say nothing much."""
    connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")


@contextmanager
def no_file_left() -> Iterator[None]:
    """Lower the limit of open files to those that are open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_without_a_file_for_a_connection_it_is_said_so(raw: Servers, host: str) -> None:
    """In both transports; the host is not to blame, and the base URL not to be checked."""
    url = raw(answer).url.replace("127.0.0.1", host)
    endpoint, blocking = at(url), RequestsTransport()

    async def other() -> None:
        transport = HttpxTransport()
        try:
            with no_file_left():
                await transport.open(endpoint, asked(endpoint))
        finally:
            await transport.close()

    with no_file_left(), pytest.raises(ChatUnavailableError) as one:
        blocking.open(endpoint, asked(endpoint))
    with pytest.raises(ChatUnavailableError) as two:
        asyncio.run(other())
    blocking.close()
    for caught in (one, two):
        assert str(caught.value).startswith("this process has too many open files")
        assert "base URL" not in str(caught.value)
        assert caught.value.retryable


@pytest.mark.parametrize("shell", ["sync", "asyncio"])
def test_a_transport_tells_when_a_request_was_sent(raw: Servers, shell: str) -> None:
    """Before the head of the answer comes, once for each request, on new connections and kept ones."""
    told: list[str] = []

    def talk(connection: socket.socket, request: bytes) -> None:
        time.sleep(0.1)
        told.append("answered")
        answer(connection, request)

    endpoint = at(raw(talk).url)

    def sent() -> None:
        told.append("sent")

    def blocking() -> None:
        transport = RequestsTransport()
        for _ in range(2):
            got = transport.open(endpoint, asked(endpoint), sent)
            while got.read():
                pass
            got.release()
        transport.close()

    async def other() -> None:
        transport = HttpxTransport()
        for _ in range(2):
            got = await transport.open(endpoint, asked(endpoint), sent)
            while await got.read():
                pass
            await got.release()
        await transport.close()

    blocking() if shell == "sync" else asyncio.run(other())
    assert told == ["sent", "answered"] * 2


def test_a_loop_that_stood_still_is_no_fault_of_the_host(raw: Servers) -> None:
    """The application blocks its loop for longer than the time-out for connecting, while the host accepts."""
    endpoint = at(raw(answer).url, connect_timeout_s=0.2)

    async def run() -> int:
        transport = HttpxTransport()
        opening = asyncio.create_task(transport.open(endpoint, asked(endpoint)))
        for _ in range(6):  # whatever it is at
            await asyncio.sleep(0)
            time.sleep(0.4)  # noqa: ASYNC251 - this is what is tested
        got = await opening
        await got.close()
        await transport.close()
        return got.status

    assert asyncio.run(run()) == 200


def test_time_is_up_when_the_loop_went_round_for_so_long() -> None:
    """And what was waited for is cancelled by then."""

    async def run() -> None:
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await within(work(), 0.3)
        assert ended.is_set()
        assert 0.25 < time.monotonic() - began < 5
        assert await within(asyncio.sleep(0.01, "done"), None) == "done"

    asyncio.run(run())

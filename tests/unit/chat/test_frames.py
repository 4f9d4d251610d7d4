"""No frame of an error that leaves the engine holds a secret: tools that report errors show local variables."""

from __future__ import annotations

import asyncio
import pickle
import socket
import traceback
from collections.abc import Callable

import pytest

from roleplay import ChatUnavailableError, Endpoint, InvalidInputError, SettingsError
from roleplay.chat.aio import HttpxTransport
from roleplay.chat.sync import RequestsTransport
from roleplay.settings import environment, resolve
from tests.support.http import HEAD, KEY, Raw, asked

SECRET = "header-secret-4711"


def shown(error: BaseException) -> str:
    """All that is reachable from an error: the chain, with the local variables of its frames."""
    texts, chain = [], [error]
    for one in chain:
        texts += [*traceback.TracebackException.from_exception(one, capture_locals=True).format(), repr(vars(one))]
        chain += [other for other in (one.__cause__, one.__context__) if other is not None]
    return "".join(texts)


def no_secret(error: BaseException) -> bool:
    return KEY not in shown(error) and SECRET not in shown(error) and KEY.encode() not in pickle.dumps(error)


def with_secrets(url: str, **more: object) -> Endpoint:
    headers = {"X-Secret": SECRET}
    return Endpoint("m", base_url=f"{url}/v1?key={SECRET}", window_tokens=8000, api_key=KEY, headers=headers, **more)


def hang_up(connection: socket.socket, _: bytes) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def cut(connection: socket.socket, _: bytes) -> None:
    connection.sendall(HEAD + b"Content-Length: 90\r\n\r\n{")
    connection.shutdown(socket.SHUT_RDWR)


def wait(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)


@pytest.fixture(params=["sync", "asyncio"])
def post(request: pytest.FixtureRequest) -> Callable[[Endpoint], None]:
    """Post a request and read the whole answer."""

    def blocking(endpoint: Endpoint) -> None:
        transport = RequestsTransport()
        answer = transport.open(endpoint, asked(endpoint))
        while answer.read():
            pass

    async def awaiting(endpoint: Endpoint) -> None:
        answer = await HttpxTransport().open(endpoint, asked(endpoint))
        while await answer.read():
            pass

    return blocking if request.param == "sync" else lambda endpoint: asyncio.run(awaiting(endpoint))


@pytest.mark.parametrize("talk", [hang_up, cut, wait])
def test_a_failure_of_the_network_shows_no_secret(
    raw: Callable[..., Raw], post: Callable[[Endpoint], None], talk: Callable[..., None]
) -> None:
    """The HTTP library's errors hold the request; what stands behind ours only names them."""
    with pytest.raises(ChatUnavailableError) as failure:
        post(with_secrets(raw(talk).url, timeout_s=0.5))
    assert no_secret(failure.value)
    assert "Error" in str(failure.value.__cause__) or "Timeout" in str(failure.value.__cause__)
    assert failure.value.__context__ is None


def test_a_host_that_refuses_is_still_explained(post: Callable[[Endpoint], None]) -> None:
    """The system's own words stay."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ChatUnavailableError) as failure:
        post(with_secrets(f"http://127.0.0.1:{port}"))
    assert no_secret(failure.value)
    assert "ConnectionRefusedError" in str(failure.value.__cause__) or "attempts failed" in str(failure.value.__cause__)


def test_a_cancelled_request_shows_no_secret(raw: Callable[..., Raw]) -> None:
    """The frames of the HTTP library go, the cancellation stays the same."""

    async def cancelled() -> BaseException:
        endpoint = with_secrets(raw(wait).url)
        task = asyncio.ensure_future(HttpxTransport().open(endpoint, asked(endpoint)))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as failure:
            await task
        return failure.value

    assert no_secret(asyncio.run(cancelled()))


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": KEY, "window_tokens": 1},
        {"api_key": f"{KEY}\n{KEY}"},
        {"headers": {"X-Secret": f"{SECRET}\n"}, "cap_name": "x"},
        {"headers": {"X-Secret": f"{SECRET}\x00"}},
        {"headers": [("X-Secret", SECRET), ("host", SECRET)]},
        {"query": f"{SECRET} "},
        {"base_url": f"http://127.0.0.1?key={SECRET}", "dialect": "x"},
    ],
)
def test_a_wrong_endpoint_shows_no_secret(fields: dict[str, object]) -> None:
    """Neither when it is made nor when it is changed; what was given is in no frame of ours."""
    for make in (lambda given: Endpoint("m", **given), Endpoint("m", window_tokens=8000).evolve):
        with pytest.raises(InvalidInputError) as failure:
            make(fields) if make.__name__ == "<lambda>" else make(**fields)
        ours = shown(failure.value).partition("roleplay/domain")[2]
        assert KEY not in ours
        assert SECRET not in ours


def test_the_environment_is_in_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ``repr`` would show every key of the process."""
    monkeypatch.setenv("MINIMAX_API_KEY", KEY)
    monkeypatch.setenv("MINIMAX_BASE_URL", "https://elsewhere.example")
    with pytest.raises(SettingsError) as failure:
        resolve("MiniMax-M2.7", environment())
    assert no_secret(failure.value)
    monkeypatch.setenv("ROLEPLAY_API_KEY", f"{KEY} {KEY}")
    monkeypatch.setenv("ROLEPLAY_BASE_URL", "https://elsewhere.example")
    with pytest.raises(SettingsError) as failure:
        resolve("MiniMax-M2.7", environment())
    assert no_secret(failure.value)
    assert len(list(environment())) == len(environment())

"""Refusals of servers that nobody here wrote: pauses that they ask for, and requests that are too long for them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from roleplay import ChatRequestError, ChatUnavailableError, Endpoint, Persona, Retry, TurnStatus
from tests.conftest import Ledger
from tests.support.http import KEY, Raw
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Answer = Callable[[int, bytes], bytes]
LINE = "Tell me of the wolves in winter. " * 12


def answer(body: object, status: str = "200 OK", headers: str = "") -> bytes:
    """An answer of JSON as bytes."""
    data = json.dumps(body).encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )


def said(text: str) -> bytes:
    """A whole reply, which a stream may get too."""
    message = {"role": "assistant", "content": text}
    return answer({"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.fixture
def serve(ledger: Ledger) -> Iterator[Callable[[Answer], Raw]]:
    """Makes a server that answers the n-th request, from 0, as a function of its number and body says."""
    made: list[Raw] = []

    def make(reply: Answer) -> Raw:
        def talk(there: socket.socket, request: bytes) -> None:
            body = request.partition(b"\r\n\r\n")[2]
            ledger.bodies.append(body)
            there.sendall(reply(len(made[-1].heard) - 1, body))

        made.append(Raw(talk))
        return made[-1]

    yield make
    for one in made:
        one.close()


def at(server: Raw, dialect: str, **more: Any) -> Endpoint:
    """A model with a window of 8,192 tokens."""
    return Endpoint("some-model", base_url=server.url, api_key=KEY, dialect=dialect, window_tokens=8_192, **more)


def say(session: Any, mode: str, text: str = "Well?") -> Any:
    """Have a turn, whole or streamed."""
    if mode == "send":
        return session.send(text)
    with session.stream(text) as reply:
        list(reply)
    return reply.turn


@pytest.mark.parametrize("dialect", ["minimax", "openai"])
@pytest.mark.parametrize(
    ("mode", "status", "headers", "least_s"),
    [
        ("send", "429 Too Many Requests", "Retry-After-Ms: 200\r\n", 0.2),
        ("stream", "503 Service Unavailable", "x-ratelimit-reset-requests: 200ms\r\n", 0.2),
        ("send", "503 Service Unavailable", "Retry-After: 1\r\n", 1.0),
    ],
)
def test_the_pause_that_is_asked_for_is_kept(
    sqlite_url: str,
    serve: Callable[[Answer], Raw],
    dialect: str,
    mode: str,
    status: str,
    headers: str,
    least_s: float,
) -> None:
    """The second request comes when the server said, in either shell."""
    times: list[float] = []

    def reply(number: int, _: bytes) -> bytes:
        times.append(time.monotonic())
        return said("ok") if number else answer({"error": {"message": "busy"}}, status, headers)

    model = at(serve(reply), dialect, retry=Retry(attempts=3, first_pause_s=0))
    with Roleplay.open(sqlite_url, model=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona(name="Mira"))])
        turn = say(session, mode)
    assert turn.reply.text == "ok"
    assert len(times) == 2
    assert least_s <= times[1] - times[0] < least_s + 1


def test_a_pause_beyond_the_policy_is_told(sqlite_url: str, serve: Callable[[Answer], Raw]) -> None:
    """Nothing is asked again before its time: the caller learns how long that is."""
    server = serve(lambda _, __: answer({"detail": "busy"}, "429 Too Many Requests", "Retry-After: 3600\r\n"))
    with Roleplay.open(sqlite_url, model=at(server, "openai")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona(name="Mira"))])
        with pytest.raises(ChatUnavailableError) as failure:
            session.send("Well?")
        assert session.turns().items[-1].error["retry_after_s"] == 3600
    assert failure.value.retry_after_s == 3600
    assert len(server.heard) == 1


GROQ = {
    "error": {"message": "Please reduce the length of the messages or completion.", "code": "context_length_exceeded"}
}
GROK = {"code": "400", "error": "This model's maximum prompt length is 1500 but the request contains 5000 tokens."}
TGI = {
    "error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 20 `max_new_tokens`"
}
PROXY = {"error": {"message": "litellm.ContextWindowExceededError: too much", "type": None, "code": "500"}}


@pytest.mark.parametrize("dialect", ["minimax", "openai"])
@pytest.mark.parametrize(
    ("status", "refusal"),
    [("400 Bad Request", GROQ), ("400 Bad Request", GROK), ("500 Internal Server Error", PROXY), ("413 Too Large", {})],
)
def test_a_session_is_never_stuck(
    sqlite_url: str, serve: Callable[[Answer], Raw], dialect: str, status: str, refusal: object
) -> None:
    """Every line is answered by a server that takes half of the window, and later ones with one request."""
    server = serve(lambda _, body: answer(refusal, status) if len(body) > 12_000 else said("The road is long. " * 20))
    with Roleplay.open(sqlite_url, model=at(server, dialect, retry=Retry(attempts=1))) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona(name="Mira"))])
        turns = [say(session, "send" if number % 2 else "stream", LINE) for number in range(40)]
    calls = [len(turn.calls) for turn in turns]
    assert {turn.status for turn in turns} == {TurnStatus.COMPLETED}
    assert 1 <= sum(calls) - 40 <= 4


@pytest.mark.parametrize("refusal", [GROQ, TGI])
def test_a_server_with_a_third_of_the_room_is_spoken_to_again(
    sqlite_url: str, serve: Callable[[Answer], Raw], refusal: object
) -> None:
    """A model that was loaded anew with far less room refuses the shorter request too: a few turns later it speaks,
    though longer ones were answered before."""
    room = [40_000]

    def reply(_: int, body: bytes) -> bytes:
        return answer(refusal, "400 Bad Request") if len(body) > room[0] else said("The road is long. " * 20)

    server = serve(reply)
    with Roleplay.open(sqlite_url, model=at(server, "openai", retry=Retry(attempts=1))) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona(name="Mira"))])
        for _ in range(30):
            session.send(LINE)
        room[0] = len(server.heard[-1]) // 3
        outcomes = []
        for _ in range(12):
            try:
                outcomes.append(len(session.send("And now?").calls))
            except ChatRequestError as error:
                assert error.too_long
                outcomes.append(0)
        assert outcomes.count(0) <= 3, outcomes
        assert all(outcomes[5:]), outcomes
        assert sum(outcomes[5:]) <= 9, outcomes

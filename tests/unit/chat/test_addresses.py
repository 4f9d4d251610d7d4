"""Where a request goes and with which headers, over both transports; what may be a key shows nowhere."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from socket import socket

import pytest

from roleplay import ChatUnavailableError, Endpoint, Persona, Retry
from tests.support.http import HEAD, KEY, Raw, told
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

SECRET = "in-the-query-0123456789"
REPLY = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]}
QUERIES = [f"sig={SECRET}", f"sig={SECRET}%7B&b={{c}}&d=%41"]


def answer(there: socket, _: bytes) -> None:
    """Answer with a whole reply."""
    body = json.dumps(REPLY).encode()
    there.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def head(request: bytes) -> tuple[str, dict[str, str]]:
    """The target of a request, and its headers under their names in small letters."""
    first, *lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return first.split()[1], {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def say(url: str, endpoint: Endpoint, *, stream: bool = False) -> None:
    """Say one line to a model."""
    with Roleplay.open(url, model=endpoint) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        if stream:
            with session.stream("Well?") as reply:
                assert list(reply)
        else:
            session.send("Well?")


@pytest.mark.parametrize("dialect", ["openai", "minimax"])
@pytest.mark.parametrize("stream", [False, True], ids=["send", "stream"])
@pytest.mark.parametrize(
    ("base", "fields", "target"),
    [
        ("/api/paas/v4", {}, "/api/paas/v4/chat/completions"),
        ("/v1beta/openai/", {}, "/v1beta/openai/chat/completions"),
        ("/v1/chat/completions", {}, "/v1/chat/completions"),
        ("/v4", {"path": "/chat/completions"}, "/v4/chat/completions"),
        ("/openai/deployments/a?api-version=1&b", {}, "/openai/deployments/a/chat/completions?api-version=1&b"),
    ],
)
def test_every_address_is_reached(
    raw: Callable[..., Raw], base: str, fields: dict[str, str], target: str, stream: bool, dialect: str
) -> None:
    """The path behind the base URL stands there once, with the query behind it."""
    server = raw(answer)
    say(
        "sqlite://",
        Endpoint("m", base_url=server.url + base, window_tokens=8000, dialect=dialect, **fields),
        stream=stream,
    )
    assert [head(one)[0] for one in server.heard] == [target]


def test_headers_are_sent(raw: Callable[..., Raw]) -> None:
    """Headers of an endpoint are there as they were given, beside its key or in its place."""
    server = raw(answer)
    endpoint = Endpoint("m", base_url=server.url, window_tokens=8000, api_key=KEY)
    say("sqlite://", endpoint.evolve(headers={"api-key": "k-1", "X-Title": "Café", "user-agent": "bot/1"}))
    say("sqlite://", endpoint.evolve(headers={"authorization": "Token t-1"}))
    first, second = (head(one)[1] for one in server.heard)
    assert [first[name] for name in ("api-key", "x-title", "user-agent")] == ["k-1", "Café", "bot/1"]
    assert first["authorization"] == f"Bearer {KEY}"
    assert second["authorization"] == "Token t-1"
    assert all(b.lower().count(b"authorization:") == 1 and KEY.encode() not in b for b in server.heard[1:])
    assert first["content-type"] == second["content-type"] == "application/json"


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("reachable", [True, False])
def test_a_query_and_headers_show_nowhere(
    raw: Callable[..., Raw], tmp_path: Path, caplog: pytest.LogCaptureFixture, query: str, reachable: bool
) -> None:
    """Neither logs of whatever level, nor errors with their causes, nor the database hold them."""
    caplog.set_level(logging.DEBUG)
    server = raw(answer)
    base_url = server.url if reachable else "http://127.0.0.1:9"
    endpoint = Endpoint(
        "m",
        base_url=f"{base_url}/v2?{query}",
        window_tokens=8000,
        headers={"api-key": KEY},
        retry=Retry(attempts=2, first_pause_s=0),
    )
    file = tmp_path / "chats.db"
    shown = ""
    if reachable:
        say(f"sqlite:///{file}", endpoint)
        assert SECRET in head(server.heard[0])[0]
    else:
        with pytest.raises(ChatUnavailableError) as failure:
            say(f"sqlite:///{file}", endpoint)
        shown = told(failure.value)
    db = sqlite3.connect(file)
    stored = "\n".join(db.iterdump())
    db.close()
    assert "127.0.0.1" in stored
    assert "127.0.0.1" in shown + caplog.text
    for secret in (SECRET, KEY):
        assert secret not in stored + shown + caplog.text

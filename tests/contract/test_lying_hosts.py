"""Servers whose reports are not the prompt's tokens: requests stay within the window, and it is said once."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from roleplay import Dialect, Endpoint, Persona
from roleplay.store.access.database import Database
from tests.support.http import KEY, Raw
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

WINDOW = 1_500
CUTS_AT = 700
LINE = "Tell me of the road to the north and of the people who walk it in winter. "
REPLY = "The fire is low and the night is long, and she speaks of the road again. "


class Lying:
    """A server that reports of each prompt what ``report`` makes of its tokens, which are a quarter of its letters."""

    def __init__(self, report: Callable[[int, str], int]) -> None:
        self._report = report
        self.sizes: list[int] = []
        self._raw = Raw(self._answer)
        self.url = self._raw.url

    def _answer(self, connection: socket.socket, request: bytes) -> None:
        messages = json.loads(request.partition(b"\r\n\r\n")[2])["messages"]
        size = sum(len(one["content"]) // 4 + 5 for one in messages)
        self.sizes.append(size)
        reported = self._report(size, "".join(one["role"] + one["content"] for one in messages))
        usage = {"prompt_tokens": reported, "completion_tokens": 20, "total_tokens": reported}
        choice = {"index": 0, "message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"}
        body = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    def close(self) -> None:
        self._raw.close()


@pytest.fixture
def lying() -> Iterator[Callable[[Callable[[int, str], int]], Lying]]:
    """Makes servers, and closes them."""
    made: list[Lying] = []

    def make(report: Callable[[int, str], int]) -> Lying:
        made.append(Lying(report))
        return made[-1]

    yield make
    for one in made:
        one.close()


def uncached() -> Callable[[int, str], int]:
    """Reports what the prompt does not begin with as the one before did."""
    before = ""

    def report(_size: int, prompt: str) -> int:
        nonlocal before
        same = next((i for i, (a, b) in enumerate(zip(prompt, before, strict=False)) if a != b), len(before))
        before = prompt
        return max((len(prompt) - same) // 4, 1)

    return report


def cut(size: int, _prompt: str) -> int:
    """Reports what is left of a prompt that is too long: half."""
    return size if size <= CUTS_AT else CUTS_AT // 2


LIES = {"uncached": uncached, "cut": lambda: cut, "high": lambda: lambda *_: 7_800, "low": lambda: lambda *_: 9}


def at(server: Lying, dialect: Dialect) -> Endpoint:
    """Its model."""
    return Endpoint(
        "some-model",
        base_url=server.url,
        api_key=KEY,
        dialect=dialect,
        window_tokens=WINDOW,
        max_output_tokens=200,
        retry={"attempts": 1},
    )


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of the log."""
    return [one.getMessage() for one in caplog.records if one.name == "roleplay" and one.levelno >= logging.WARNING]


@pytest.mark.parametrize("dialect", list(Dialect)[:2])
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_harms_nobody(
    database_url: str,
    lying: Callable[[Any], Lying],
    caplog: pytest.LogCaptureFixture,
    lie: str,
    dialect: Dialect,
) -> None:
    """Requests are neither above the window nor much below it, the finding says why, and the log has one warning."""
    server = lying(LIES[lie]())
    with Roleplay.open(database_url, model=at(server, dialect)) as rp:
        mira = rp.personas.put(Persona("Mira", "An innkeeper."))
        for talk, turns in enumerate((22, 3)):
            session = rp.sessions.create(cast=[mira])
            for number in range(turns):
                session.send(f"{talk}{number}. " + LINE * 2)
        [known] = rp.calibrations()
        assert known.finding is not None
        assert known.narrow >= 1
        assert known.wide >= 1
        assert max(server.sizes) <= WINDOW - 200
        assert max(server.sizes[12:]) > CUTS_AT // 2
        if lie == "cut":
            assert "cut prompts at" in known.finding
            assert known.limit_tokens is not None
            assert sum(size > CUTS_AT for size in server.sizes) <= 3
        else:
            assert "do not grow with the prompt" in known.finding
            assert known.limit_tokens is None
        [warning] = told(caplog)
        assert known.finding in warning
        assert known.host in warning
        assert "some-model" in warning
    with Roleplay.open(database_url, model=at(server, dialect)) as rp:  # another engine knows, and says it once too
        assert [one.finding for one in rp.calibrations()] == [known.finding]
        assert rp.sessions.get(session.id).preview(LINE).report.prompt_tokens < WINDOW - 200
        rp.sessions.get(session.id).send(LINE)
        assert len(told(caplog)) == 2


def test_a_warning_is_for_all_tenants_of_an_engine(
    database_url: str, lying: Callable[[Any], Lying], caplog: pytest.LogCaptureFixture
) -> None:
    """A host lies to all of them."""
    server = lying(lambda *_: 300)
    with Roleplay.open(database_url, model=at(server, Dialect.OPENAI)) as rp:
        for tenant in ("one", "other"):
            shop = rp.for_tenant(tenant)
            session = shop.sessions.create(cast=[shop.personas.put(Persona("Mira"))])
            for _ in range(8):
                session.send(LINE)
            assert [known.finding is None for known in shop.calibrations()] == [False]
        assert len(told(caplog)) == 1


def test_an_honest_host_is_not_accused(
    database_url: str, lying: Callable[[Any], Lying], caplog: pytest.LogCaptureFixture
) -> None:
    """A host that counts fewer tokens than we do is learned from, and the window is kept all the same."""
    server = lying(lambda size, _prompt: size * 3 // 4)
    with Roleplay.open(database_url, model=at(server, Dialect.OPENAI)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Mira", "An innkeeper."))])
        for number in range(40):
            session.send(f"{number}. " + LINE * 2)
        [known] = rp.calibrations()
        assert (known.finding, known.limit_tokens) == (None, None)
        assert 0.5 <= known.narrow < 0.8
        assert max(server.sizes) <= WINDOW - 200
        assert told(caplog) == []


@pytest.mark.parametrize("reported", [2**63 - 1, 2**62, 10**9 + 1, -1, -(2**63)])
def test_usage_is_added_up_whatever_was_reported(
    database_url: str, lying: Callable[[Any], Lying], reported: int
) -> None:
    """What no call can have cost is no report; where it was stored before that was known, it is in no sum."""
    server = lying(lambda *_: reported)
    with Roleplay.open(database_url, model=at(server, Dialect.OPENAI)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Mira"))])
        turns = [session.send(LINE) for _ in range(2)]
        assert [turn.usage.prompt_tokens for turn in turns] == [None, None]
        assert list(rp.calibrations()) == []
        database = Database.open(database_url)
        for by in ("model", "session", "day"):
            [total] = rp.usage.report(by=by)
            assert (total.calls, total.unreported, total.usage.prompt_tokens) == (2, 2, None)
            assert total.usage.completion_tokens == 40
        sql = text(
            "UPDATE roleplay_model_calls SET prompt_tokens = :n, total_tokens = :n, cached_tokens = 1000000000"
            " WHERE tenant = 'default'"
        )
        database.write(lambda db: db.execute(sql, {"n": reported}))
        database.close()
        [total] = rp.usage.report(by="model")
        assert (total.unreported, total.usage.prompt_tokens, total.usage.total_tokens) == (2, None, None)
        assert type(total.usage.cached_tokens) is int
        assert total.usage.cached_tokens == 2 * 10**9

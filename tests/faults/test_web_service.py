"""A web service whose clients vanish: every turn ends as it should, and whoever comes back is given the same text."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.conftest import KEY, Ledger
from tests.faults.test_many_streams import Dripping, Stored, stored
from tests.support.web_service import Left, Service

CLIENTS = 200
MOMENTS = ("before the body", "in the middle", "at the end")


@dataclass
class Client:
    """A user with a session and one line to say; ``vanishes`` says at which moment, ``heard`` what came before."""

    number: int
    vanishes: str | None = None
    on_disconnect: str = "finish"
    session: str = ""
    turn: str = ""
    heard: str = ""
    followed: str | None = None
    statuses: list[int] = field(default_factory=list)

    @property
    def user(self) -> dict[str, str]:
        """How the user shows who he is."""
        return {"X-User": f"user-{self.number}"}

    @property
    def line(self) -> dict[str, str]:
        """What he says."""
        return {"text": f"Can we cross? {self.number}", "key": "the only one", "on_disconnect": self.on_disconnect}

    async def talk(self, web: httpx.AsyncClient, draw: random.Random) -> None:
        """Begin a session, say the line, and listen to the end or vanish."""
        begun = await web.post("/sessions", headers=self.user)
        self.session = begun.json()["id"]
        try:
            async with asyncio.timeout(draw.random() if self.vanishes == "before the body" else None):
                await self.listen(web, draw)
        except TimeoutError:
            pass

    async def listen(self, web: httpx.AsyncClient, draw: random.Random) -> None:
        """Say the line, and hear as much as is wanted."""
        url, pieces = f"/sessions/{self.session}/lines", draw.randint(1, 5)
        async with web.stream("POST", url, json=self.line, headers=self.user) as answer:
            self.statuses.append(answer.status_code)
            self.turn = answer.headers["X-Turn"]
            async for text in answer.aiter_text():
                self.heard += text
                pieces -= 1
                if pieces == 0 and self.vanishes == "in the middle":
                    return
                if self.vanishes == "at the end" and self.heard.endswith((".", "!", "?")):
                    return

    async def come_back(self, web: httpx.AsyncClient) -> None:
        """Say the line again where the turn is not known, then follow the turn from the first character."""
        if not self.turn:
            answer = await web.post(f"/sessions/{self.session}/lines", json=self.line, headers=self.user)
            self.statuses.append(answer.status_code)
            self.turn = answer.headers["X-Turn"] if answer.status_code == 200 else answer.json()["turn_id"]
        answer = await web.get(f"/sessions/{self.session}/turns/{self.turn}/text", headers=self.user)
        assert answer.status_code == 200
        self.followed = answer.text


@dataclass
class Served:
    """A service with its database and what it speaks to."""

    service: Service
    url: str

    def end(self) -> tuple[Left, dict[str, Stored]]:
        """End the service; gives what was left of it, and what it stored, by session."""
        left = self.service.end()
        return left, {turn.session_id: turn for turn in stored(self.url)}


@pytest.fixture
def served(database_url: str, tmp_path: Path, ledger: Ledger) -> Iterator[Served]:
    """The example service, on each database, speaking to a simulator that takes its time."""
    model = Dripping(tmp_path / "received", 0.15)
    ledger.models.append(model)  # type: ignore[arg-type] - it has bodies as they have
    environment = {
        "DATABASE_URL": database_url,
        "ROLEPLAY_BASE_URL": model.base_url,
        "ROLEPLAY_API_KEY": KEY,
        "ROLEPLAY_DIALECT": "minimax",
    }
    service = Service("fastapi_app", environment, tmp_path / "errors")
    yield Served(service, database_url)
    service.kill()
    model.close()


def clients(on_disconnect: str) -> list[Client]:
    """Many clients, of whom a third will vanish."""
    vanishing = {number: MOMENTS[number % len(MOMENTS)] for number in range(CLIENTS // 3)}
    return [Client(number, vanishing.get(number), on_disconnect) for number in range(CLIENTS)]


@pytest.mark.parametrize("on_disconnect", ["finish", "interrupt"])
def test_clients_vanish(served: Served, on_disconnect: str) -> None:
    """Of 200 clients a third vanish: nothing is left of them but their turns, which they find again."""
    crowd, draw = clients(on_disconnect), random.Random(11)  # noqa: S311 - the same moments each time

    async def run() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=served.service.base_url, limits=limits, timeout=60) as web:
            await asyncio.gather(*(one.talk(web, draw) for one in crowd))
        async with httpx.AsyncClient(base_url=served.service.base_url, limits=limits, timeout=60) as web:
            await asyncio.gather(*(one.come_back(web) for one in crowd if one.vanishes))

    asyncio.run(run())
    left, turns = served.end()
    assert (left.tasks, left.threads, left.files) == ([], [], [])
    assert not re.search("never awaited|ResourceWarning|was destroyed|never retrieved|Traceback", left.said), left.said
    assert len(turns) == CLIENTS
    for one in crowd:
        check(one, turns[one.session])
    ends = Counter(turns[one.session].status for one in crowd if one.vanishes == "in the middle")
    assert ends["completed" if on_disconnect == "finish" else "interrupted"] > 0
    assert set(ends) <= ({"completed"} if on_disconnect == "finish" else {"completed", "interrupted"})


def check(one: Client, turn: Stored) -> None:
    """What a client heard and what he finds again is what is stored."""
    assert set(one.statuses) <= ({200, 409} if one.vanishes else {200})
    assert turn.text
    assert turn.text.startswith(one.heard)
    if one.vanishes is None or one.on_disconnect == "finish":
        assert turn.status == "completed"
    if one.vanishes is None:
        assert one.heard == turn.text
    else:
        assert one.followed == turn.text
    if turn.status == "completed":
        assert turn.finish_reason == "stop"
        assert (turn.prompt_tokens or 0) + (turn.completion_tokens or 0) == turn.total_tokens
        assert turn.total_tokens
    else:
        assert turn.status == "interrupted"


def test_the_service_says_no(served: Served) -> None:
    """Another user's session is not there, and errors are data under their status."""
    user, other = {"X-User": "one"}, {"X-User": "other"}
    with httpx.Client(base_url=served.service.base_url) as web:
        session = web.post("/sessions", headers=user).json()["id"]
        line = {"text": "Is there room?", "key": "first"}
        said = web.post(f"/sessions/{session}/lines", json=line, headers=user)
        turn = said.headers["X-Turn"]
        [stored_turn] = web.get(f"/sessions/{session}/turns", headers=user).json()["items"]
        assert (stored_turn["id"], stored_turn["reply"]["text"]) == (turn, said.text)
        assert web.get(f"/sessions/{session}/turns/{turn}/text?offset=3", headers=user).text == said.text[3:]
        refused = {
            "not_found": web.post(f"/sessions/{session}/lines", json=line, headers=other),
            "invalid_input": web.post(f"/sessions/{session}/lines", json={"text": " ", "key": "2"}, headers=user),
            "idempotency": web.post(f"/sessions/{session}/lines", json={"text": "No?", "key": "first"}, headers=user),
        }
        assert {slug: answer.json()["slug"] for slug, answer in refused.items()} == {slug: slug for slug in refused}
        assert [answer.status_code for answer in refused.values()] == [404, 422, 422]
        for path in (f"turns/{turn}/text", "turns"):
            assert web.get(f"/sessions/{session}/{path}", headers=other).status_code == 404
        assert web.get(f"/sessions/{session}/turns/nobody/text", headers=user).status_code == 404
    left, _ = served.end()
    assert (left.tasks, left.threads, left.files) == ([], [], [])


def test_two_browsers_on_one_session(served: Served) -> None:
    """Each sees what is said to its own seat from joining on; what one whispers is not there for the other."""
    host, guest, stranger = ({"X-User": name} for name in ("host", "guest", "stranger"))
    with httpx.Client(base_url=served.service.base_url, timeout=60) as web:
        url = f"/sessions/{web.post('/sessions', headers=host).json()['id']}"

        def say(user: dict[str, str], text: str, to: list[str] | None = None) -> tuple[str, str]:
            answer = web.post(f"{url}/lines", json={"text": text, "key": text, "to": to}, headers=user)
            assert answer.status_code == 200, answer.text
            return answer.headers["X-Turn"], answer.text

        def heard(user: dict[str, str]) -> list[str]:
            items = web.get(f"{url}/turns", headers=user).json()["items"]
            assert all(turn["calls"] == [] for turn in items)
            return [turn["human"]["text"] for turn in items]

        say(host, "Is there room?")
        for user, status in ((guest, 404), (stranger, 404), (host, 201)):
            joined = web.post(f"{url}/guests", json={"user": "guest", "name": "Mei"}, headers=user)
            assert joined.status_code == status
        say(guest, "And for me?")
        whisper, text = say(guest, "Is he to be trusted?", ["Ferryman"])
        own, _ = say(host, "What does she say?", ["Ferryman"])
        assert heard(host) == ["Is there room?", "And for me?", "What does she say?"]
        assert heard(guest) == ["And for me?", "Is he to be trusted?"]
        assert web.get(f"{url}/turns/{whisper}/text", headers=guest).text == text
        missing = web.get(f"{url}/turns/{'0' * 36}/text", headers=host)
        for turn, user in ((whisper, host), (own, guest)):
            answer = web.get(f"{url}/turns/{turn}/text", headers=user)
            assert answer.status_code == missing.status_code == 404
            assert answer.text == missing.text.replace("0" * 36, turn)
        assert web.post(f"{url}/guests", json={"user": "x", "name": "X"}, headers=guest).status_code == 404
        assert web.get(f"{url}/turns", headers=stranger).status_code == 404
    left, _ = served.end()
    assert (left.tasks, left.threads, left.files) == ([], [], [])

"""A request in the form that a server takes: learned from its refusals, remembered, and rebuilt as it was sent."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from roleplay import ChatError, Endpoint, Persona, Sampling, SessionSettings, TurnStatus
from roleplay.testing import Simulator
from roleplay.testing.simulator import StrictTemplate
from tests.conftest import KEY, Ledger
from tests.support.http import Raw
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

MARA = Persona(
    "Mara", "Keeper of an inn.", greetings=["Sit."], examples=["{{user}}: Cold?\n{{char}}: Always."], note="It snows."
)
TOM = Persona("Tom", "A guest.")
LINE = "The river has risen above the second marker and the ferrymen have gone to the hills. "
CAPPED = SessionSettings(sampling=Sampling(max_completion_tokens=80))
ROLES, NAMES = {"system", "user", "assistant"}, {"role", "content"}


def openai_words(body: dict[str, Any]) -> tuple[int, str] | None:
    """Refuse as OpenAI does."""
    for message in body["messages"]:
        if message["role"] not in ROLES:
            return 400, f"Invalid value: '{message['role']}'. Supported values are: 'system', 'assistant', 'user'."
    return None


def pydantic_words(body: dict[str, Any]) -> tuple[int, str] | None:
    """Refuse as a server of pydantic models does that takes no names."""
    for place, message in enumerate(body["messages"]):
        if message["role"] not in ROLES:
            return 422, f"body.messages.{place}.role: Input should be 'system', 'user', 'assistant' or 'tool'"
        if message.keys() - NAMES:
            return 422, f"body.messages.{place}.name: Extra inputs are not permitted"
    return None


def template_words(body: dict[str, Any]) -> tuple[int, str] | None:
    """Refuse as a server does whose template raises."""
    for place, message in enumerate(body["messages"]):
        if message["role"] != ("user", "assistant")[place % 2]:
            return 500, "Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/..."
    return None


def old_cap(body: dict[str, Any]) -> tuple[int, str] | None:
    """Refuse the new name of the reply cap."""
    return (422, "max_completion_tokens: Extra inputs are not permitted") if "max_completion_tokens" in body else None


def everything(body: dict[str, Any]) -> tuple[int, str] | None:
    """Refuse one thing after the other."""
    return openai_words(body) or old_cap(body) or template_words(body)


Refusing = Callable[[dict[str, Any]], tuple[int, str] | None]


class Picky:
    """A server of raw bytes that refuses what ``refusing`` does not like, and says yes to the rest."""

    def __init__(self, refusing: Refusing) -> None:
        self._refusing = refusing
        self.raw = Raw(self._talk)

    @property
    def bodies(self) -> list[bytes]:
        return [request.partition(b"\r\n\r\n")[2] for request in self.raw.heard]

    def _talk(self, connection: socket.socket, request: bytes) -> None:
        body = json.loads(request.partition(b"\r\n\r\n")[2])
        status, kind, answer = 200, "application/json", b""
        if refused := self._refusing(body):
            status, words = refused
            answer = json.dumps({"error": {"message": words, "type": "some_error"}}).encode()
        elif body["stream"]:
            kind = "text/event-stream"
            answer = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"Yes."}}]}\n\ndata: [DONE]\n\n'
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
            answer = json.dumps({"id": "1", "choices": [choice]}).encode()
        head = f"HTTP/1.1 {status} So\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\n\r\n"
        connection.sendall(head.encode() + answer)


@pytest.fixture
def picky(ledger: Ledger) -> Iterator[Callable[[Refusing], Picky]]:
    """Makes servers of raw bytes, whose requests must be rebuilt after the test."""
    made = []

    def make(refusing: Refusing) -> Picky:
        made.append(Picky(refusing))
        return made[-1]

    yield make
    for one in made:
        ledger.bodies += one.bodies
        one.raw.close()


def at(url: str, dialect: str, **fields: Any) -> Endpoint:
    """A model there, of which nothing else is known."""
    retry = {"attempts": 1}
    return Endpoint("some", base_url=url, dialect=dialect, window_tokens=8192, api_key=KEY, retry=retry, **fields)


def opened(rp: Any, persona: Persona = MARA) -> Any:
    return rp.sessions.create(cast=[rp.personas.put(persona)], user=rp.personas.put(TOM), scene="An inn")


def say(session: Any, text: str, mode: str) -> Any:
    if mode == "send":
        return session.send(text)
    with session.stream(text) as reply:
        assert [delta.text for delta in reply if delta.kind == "speech"]
    return reply.turn


@pytest.mark.parametrize("mode", ["send", "stream"])
@pytest.mark.parametrize(
    ("refusing", "dialect", "forms"),
    [
        (openai_words, "minimax", ["minimax", "openai"]),
        (pydantic_words, "minimax", ["minimax", "openai"]),
        (template_words, "minimax", ["minimax", "strict"]),
        (template_words, "openai", ["openai", "strict"]),
        (template_words, "strict", ["strict"]),
        (old_cap, "minimax", ["minimax", "minimax"]),
        (old_cap, "openai", ["openai", "openai"]),
        (everything, "minimax", ["minimax", "openai", "openai", "strict"]),
    ],
)
def test_the_form_that_is_taken_is_found_once(
    database_url: str, picky: Any, refusing: Refusing, dialect: str, forms: list[str], mode: str
) -> None:
    """The first turn finds it, at whatever status the other was refused and though no retry is left; later ones and
    other sessions begin with it."""
    server = picky(refusing)
    with Roleplay.open(database_url, model=at(server.raw.url, dialect), settings=CAPPED) as rp:
        session = opened(rp)
        turn = say(session, "A room?", mode)
        assert [call.dialect for call in turn.calls] == forms
        assert [call.error is None for call in turn.calls] == [False] * (len(forms) - 1) + [True]
        for later in (session, opened(rp)):
            [call] = say(later, "And supper?", mode).calls
            assert (call.dialect, call.parameters) == (forms[-1], turn.calls[-1].parameters)
        caps = {"max_completion_tokens", "max_tokens"} & set(call.parameters)
        assert caps == ({"max_tokens"} if refusing in {old_cap, everything} else {"max_completion_tokens"})


def test_an_endpoint_can_say_its_form(database_url: str, picky: Any) -> None:
    """Where the form is known before, nothing is refused."""
    server = picky(everything)
    model = at(server.raw.url, "strict", cap_name="max_tokens")
    with Roleplay.open(database_url, model=model, settings=CAPPED) as rp:
        assert len(opened(rp).send("A room?").calls) == 1


@pytest.mark.parametrize("mode", ["send", "stream"])
def test_a_refusal_of_every_form_is_told_in_its_words(database_url: str, picky: Any, mode: str) -> None:
    """Each form is tried once, and the turn is stored as failed with the last words."""
    server = picky(lambda _body: (400, "Unsupported role"))
    with Roleplay.open(database_url, model=at(server.raw.url, "minimax")) as rp:
        session = opened(rp)
        with pytest.raises(ChatError, match="Unsupported role"):
            say(session, "A room?", mode)
        turn = session.turns().items[-1]
    assert [call.dialect for call in turn.calls] == ["minimax", "openai", "strict"]
    assert turn.status is TurnStatus.FAILED


@pytest.mark.parametrize("dialect", ["minimax", "openai", "strict"])
def test_a_conversation_with_a_strict_template(
    database_url: str, simulator: Simulator, endpoint: Endpoint, dialect: str
) -> None:
    """Whatever is asked, while the window stays and after it moved, begins with a user's words and alternates; within
    an epoch each request begins as the one before it. The line before the greeting is in the report."""
    simulator.always(StrictTemplate())
    settings = SessionSettings(budget_tokens=400)
    with Roleplay.open(database_url, model=endpoint.evolve(dialect=dialect), settings=settings) as rp:
        session = opened(rp)
        first = session.send("A room?")
        assert [call.dialect for call in first.calls] == list(dict.fromkeys([dialect, "strict"]))
        opening = section(session.report(first.id))
        assert (opening.required, opening.kept_items, opening.reason) == (True, 1, "required")
        begun = len(simulator.requests)
        turns = []
        for number in range(14):
            turns.append(say(session, f"{number} {LINE}", ("send", "stream")[number % 2]))
            if number % 5 == 2:
                turns += [read(session.regenerate(hint="Shorter.")), read(session.speak())]
        reports = [session.report(turn.id) for turn in turns]
        leads = [request.json["messages"][0]["content"] for request in simulator.requests[begun:]]
    assert all(one.prompt_tokens <= 400 for one in reports)
    kept = [section(one).kept_items for one in reports]
    assert set(kept) == {0, 1}
    reasons = {section(one).reason for one in reports if not section(one).kept_items}
    assert reasons == {"not needed: the first message is a user's"}
    assert all(lead.startswith("# Mara\nKeeper of an inn.\n\n# Tom\nA guest.\n\n# An inn\n\n***\n") for lead in leads)
    changed = [lead != before for before, lead in pairwise(leads)]
    assert sum(changed) > 1
    assert all(one.new_epoch for one, anew in zip(reports[1:], changed, strict=True) if anew)


def section(report: Any) -> Any:
    """What a report says of the line before the model's first."""
    [found] = [one for one in report.sections if one.section == "opening"]
    return found


def read(stream: Any) -> Any:
    with stream as reply:
        list(reply)
    assert reply.turn.status is TurnStatus.COMPLETED
    return reply.turn


@pytest.mark.parametrize(
    "language", [("en", "[It is your turn.]"), ("zh", "[轮到你了。]"), ("ja", "[あなたの番です。]")]
)
def test_the_line_before_a_greeting_is_in_the_sessions_language(
    database_url: str, simulator: Simulator, endpoint: Endpoint, language: tuple[str, str]
) -> None:
    """No word of ours in another language; a persona without a greeting needs none."""
    settings = SessionSettings(language=language[0])
    with Roleplay.open(database_url, model=endpoint.evolve(dialect="strict"), settings=settings) as rp:
        opened(rp).send("A room?")
        opened(rp, MARA.evolve(greetings=[])).send("A room?")
    greeted, other = [request.json["messages"] for request in simulator.requests]
    assert greeted[0]["content"].endswith(f"\n\n{language[1]}")
    assert [message["content"] for message in greeted[1:]] == ["Sit.", "[It snows.]\n\nA room?"]
    assert [message["role"] for message in other] == ["user"]
    assert language[1] not in other[0]["content"]


@pytest.mark.parametrize("dialect", ["minimax", "openai"])
def test_a_request_that_was_too_long_stays_short_in_another_form(
    database_url: str, picky: Callable[[Refusing], Picky], dialect: str
) -> None:
    """A server that looks at the length first, and then at the order of messages, gets one that is right in both."""

    def length_first(body: dict[str, Any]) -> tuple[int, str] | None:
        if sum(len(message["content"]) for message in body["messages"]) > 6000:
            return 400, "This model's maximum context length is exceeded: please reduce the length of the messages"
        return template_words(body)

    server = picky(length_first)
    endpoint = Endpoint("some-model", base_url=server.raw.url, api_key=KEY, window_tokens=9000, dialect=dialect)
    with Roleplay.open(database_url, model=endpoint) as rp:
        mara = rp.personas.put(MARA)
        session = rp.sessions.create(cast=[mara])
        for _ in range(5):
            session.add(LINE * 20)
        turn = session.send("Well?")
    assert (turn.status, [call.attempt for call in turn.calls]) == (TurnStatus.COMPLETED, [1, 2, 3])

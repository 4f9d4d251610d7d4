"""Chat templates that take nothing but user and assistant in turn, in llama.cpp's own server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from roleplay import Endpoint, Persona, Retry, Roleplay, Sampling, SessionSettings, TurnStatus
from tests.conftest import Ledger
from tests.support import shells
from tests.support.template_server import REPLY_TOKENS, WINDOW_TOKENS, TemplateServer, serving

STRICT = ["no_system", "optional_system", "only_two_roles"]
MARA = Persona(
    "Mara",
    "INNKEEPER.",
    greetings=["GREETING, sit."],
    examples=["{{user}}: ASKED?\n{{char}}: ANSWERED."],
    note="NOTED.",
)
TOM = Persona("Tom", "A GUEST.")
FIXED = ["INNKEEPER", "GUEST", "SCENE", "ASKED", "ANSWERED", "NOTED"]
SETTINGS = SessionSettings(sampling=Sampling(max_completion_tokens=REPLY_TOKENS))


@pytest.fixture(scope="module", params=STRICT)
def strict(request: pytest.FixtureRequest) -> Iterator[TemplateServer]:
    """llama.cpp with each of the templates that raise."""
    with serving(request.param) as server:
        yield server


@pytest.fixture
def asked(strict: TemplateServer, ledger: Ledger) -> Iterator[TemplateServer]:
    """The same, whose requests must be rebuilt after the test."""
    strict.clear()
    yield strict
    ledger.bodies += strict.bodies


def endpoint(server: TemplateServer, **fields: Any) -> Endpoint:
    return Endpoint(
        "smol",
        base_url=server.base_url,
        window_tokens=WINDOW_TOKENS,
        max_output_tokens=REPLY_TOKENS,
        retry=Retry(attempts=1),
        **fields,
    )


def opened(rp: Any) -> Any:
    """A session with everything that a context can hold."""
    return rp.sessions.create(cast=[rp.personas.put(MARA)], user=rp.personas.put(TOM), scene="SCENE")


def test_a_persona_with_a_greeting_speaks_to_a_strict_template(sqlite_url: str, asked: TemplateServer) -> None:
    """Whatever is asked of it, each turn is completed; the template raises once, and the form that it takes is known
    from then on, also after the window moved. No word is lost, and the model's first line follows one of the user's."""
    with Roleplay.open(sqlite_url, model=endpoint(asked), settings=SETTINGS) as rp:
        session = opened(rp)
        turns = [session.send("Good evening."), session.send("A room?"), heard(session.stream("And supper?"))]
        turns += [heard(session.regenerate(hint="HINTED.")), heard(session.speak())]
        with session.stream("Wait.") as reply:
            next(iter(reply))
            assert reply.cancel().status is TurnStatus.INTERRUPTED
        turns.append(heard(session.resume()))
        whole = [json.loads(body)["messages"] for body in asked.bodies[1:]]
        session.update(settings=SETTINGS.evolve(budget_tokens=session.report().prompt_tokens - 20))
        turns += [session.send("What else?"), session.send("Good night.")]
        assert session.report().window_start > 1
    assert {turn.status for turn in turns} == {TurnStatus.COMPLETED}
    assert [[call.dialect for call in turn.calls] for turn in turns[:3]] == [
        ["openai", "strict"],
        ["strict"],
        ["strict"],
    ]
    assert len(asked.bodies) == 1 + len(turns) + 1
    for body in asked.bodies[1:]:
        prompt = asked.prompt(json.loads(body)["messages"])  # it raises where the template does
        assert [word for word in FIXED if word not in prompt] == []
    for messages in whole:
        assert messages[0]["content"].endswith("\n\n[It is your turn.]")
        assert messages[1] == {"role": "assistant", "content": "GREETING, sit."}


def heard(stream: Any) -> Any:
    """The turn of a stream that is read to its end."""
    with stream as reply:
        list(reply)
    return reply.turn


@pytest.mark.parametrize("dialect", ["minimax", "strict"])
@pytest.mark.usefixtures("shell")
def test_whatever_was_spoken_before(sqlite_url: str, ledger: Ledger, dialect: str) -> None:
    """Role-play roles lead to the strict form as well; an endpoint that is said to be strict is never refused."""
    with serving("only_two_roles") as server:
        with shells.Roleplay.open(sqlite_url, model=endpoint(server, dialect=dialect), settings=SETTINGS) as rp:
            session = opened(rp)
            calls = [call.dialect for call in session.send("Good evening.").calls]
            assert calls == list(dict.fromkeys([dialect, "strict"]))
            assert len(session.send("A room?").calls) == 1
        ledger.bodies += server.bodies


def test_a_template_that_drops_roles_gets_every_word_folded(sqlite_url: str, ledger: Ledger) -> None:
    """The folded form has no role that could be dropped without a word."""
    with serving("drops_roles") as server, Roleplay.open(sqlite_url, model=endpoint(server), settings=SETTINGS) as rp:
        assert [call.dialect for call in opened(rp).send("Good evening.").calls] == ["openai"]
        [body] = server.bodies
        prompt = server.prompt(json.loads(body)["messages"])
        ledger.bodies.append(body)
    assert [word for word in [*FIXED, "GREETING", "Good evening."] if word not in prompt] == []

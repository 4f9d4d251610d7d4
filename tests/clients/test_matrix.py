"""Clients that nobody here wrote, unmodified, against the simulator.

They hold the simulator to what the protocol is elsewhere: what they cannot read, no server could send them.
"""

from __future__ import annotations

from itertools import cycle

import openai
import pytest

from roleplay.testing import Simulator
from roleplay.testing.simulator import (
    MODELS,
    NATIVE_PATH,
    OPENAI_PATH,
    ContextTooLong,
    InsufficientBalance,
    Overloaded,
    RateLimited,
    UnknownError,
    tokens,
)
from roleplay.testing.simulator.chat_request import Message
from roleplay.testing.simulator.models import Model
from tests.conftest import KEY
from tests.support.clients import CLIENTS, Client, Messages, OpenAI

# What pydantic says of LiteLLM's own values: once when their schemas are built, and at each stream.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_(computed_)?fields' attribute:DeprecationWarning"),
]

MODEL = "MiniMax-M2.7"
HER = "M2-her"
PLAIN: Messages = [
    {"role": "system", "content": "You are Old Tom, who keeps the inn."},
    {"role": "user", "content": "Is there a room left?"},
]
CHINESE: Messages = [
    {"role": "system", "content": "你是老掌柜，守着一家客栈。"},
    {"role": "user", "content": "还有空房吗？🏮"},
]
ROLE_PLAY: Messages = [
    {"role": "system", "name": "Old Tom", "content": "Keeps the inn at the pass."},
    {"role": "user_system", "name": "Mira", "content": "A courier, soaked through."},
    {"role": "group", "name": "The pass", "content": "A storm at night."},
    {"role": "sample_message_user", "name": "Mira", "content": "Any supper?"},
    {"role": "sample_message_ai", "name": "Old Tom", "content": "Stew, if you are quick."},
    {"role": "user", "name": "Mira", "content": "Is there a room left?"},
    {"role": "assistant", "name": "Old Tom", "content": "One, under the roof."},
    {"role": "user", "name": "Mira", "content": "我要了。"},
]
LONG: Messages = [
    PLAIN[0],
    *(
        {"role": role, "content": f"Line {number}. 第{number}句。"}
        for number, role in zip(range(801), cycle(["user", "assistant"]))
    ),
]


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Client]:
    """Each client in turn."""
    found: type[Client] = request.param
    return found


@pytest.fixture(params=["complete", "stream"])
def manner(request: pytest.FixtureRequest) -> str:
    """A whole reply and a stream in turn."""
    found: str = request.param
    return found


def model_named(name: str) -> Model:
    return next(model for model in MODELS if model.id == name)


def cost(messages: Messages, model: str = MODEL) -> int:
    """The tokens of a prompt, as the simulator counts what it receives."""
    received = [Message(one["role"], one["content"], one.get("name", "")) for one in messages]
    return tokens.prompt_tokens(model_named(model), received)[-1]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (PLAIN, "One, under the roof. Mind the third step; it lies."),
        (CHINESE, "有，楼上靠窗那间。🏮只是今夜风大，窗要关紧。"),
        (ROLE_PLAY, "Then it is yours. 钥匙在门后。"),
        (LONG, "We have talked for a long time."),
    ],
    ids=["plain", "chinese", "role-play", "long"],
)
def test_text_and_usage_arrive(
    simulator: Simulator, kind: type[Client], manner: str, messages: Messages, said: str
) -> None:
    """Nothing is lost on either way: the server reads every message as it was given, the client the reply."""
    simulator.say(said)
    told = getattr(kind(simulator.base_url, KEY), manner)(MODEL, messages)
    assert told.text == said
    assert told.finish == "stop"
    assert told.prompt_tokens == cost(messages)
    assert told.completion_tokens == tokens.count(said)
    [request] = simulator.requests
    assert request.accepted, request.refusal
    assert request.path == OPENAI_PATH
    assert request.json is not None
    assert request.json["messages"] == messages
    if manner == "stream":
        assert request.json["stream_options"] == {"include_usage": True}
        assert len(told.pieces) > 2


def test_a_conversation_goes_on(simulator: Simulator, kind: type[Client], manner: str) -> None:
    """Each reply goes back with the next request, and the prompt grows by what was said."""
    client = kind(simulator.base_url, KEY)
    messages = [dict(PLAIN[0])]
    prompts = []
    for number in range(6):
        messages.append({"role": "user", "content": f"Question {number}?"})
        told = getattr(client, manner)(MODEL, messages)
        assert told.text
        assert told.prompt_tokens == cost(messages)
        prompts.append(told.prompt_tokens)
        messages.append({"role": "assistant", "content": told.text})
    assert prompts == sorted(set(prompts))
    assert all(request.accepted for request in simulator.requests)


def test_a_wrong_key_is_an_authentication_error(simulator: Simulator, kind: type[Client], manner: str) -> None:
    """It carries the status and the server's words."""
    with pytest.raises(openai.AuthenticationError, match="login fail") as raised:
        getattr(kind(simulator.base_url, "sk-wrong"), manner)(MODEL, PLAIN)
    assert raised.value.status_code == 401
    assert len(simulator.requests) == 1


def test_an_unknown_model_is_a_bad_request(simulator: Simulator, kind: type[Client], manner: str) -> None:
    """With the name that the server does not know."""
    with pytest.raises(openai.BadRequestError, match="unknown model 'MiniMax-M9'") as raised:
        getattr(kind(simulator.base_url, KEY), manner)("MiniMax-M9", PLAIN)
    assert raised.value.status_code == 400
    assert len(simulator.requests) == 1


def test_a_prompt_that_is_too_long_is_a_bad_request(simulator: Simulator, kind: type[Client], manner: str) -> None:
    """In the service's words."""
    simulator.next(ContextTooLong())
    with pytest.raises(openai.BadRequestError, match="context window exceeds limit") as raised:
        getattr(kind(simulator.base_url, KEY), manner)(MODEL, PLAIN)
    assert raised.value.status_code == 400


@pytest.mark.parametrize("fault", [RateLimited(), Overloaded(), UnknownError()], ids=["429", "529", "500"])
def test_a_client_that_tries_again_gets_its_reply(
    simulator: Simulator, kind: type[Client], manner: str, fault: object
) -> None:
    """By its own retry."""
    simulator.next(fault)
    simulator.say("Now there is time.")
    told = getattr(kind(simulator.base_url, KEY, retries=2), manner)(MODEL, PLAIN)
    assert told.text == "Now there is time."
    assert told.prompt_tokens == cost(PLAIN)
    first, second = simulator.requests
    assert first.json == second.json


@pytest.mark.parametrize("fault", [RateLimited(), InsufficientBalance()], ids=["rate", "balance"])
def test_without_retries_a_rate_limit_is_told(
    simulator: Simulator, kind: type[Client], manner: str, fault: object
) -> None:
    """As the type that every one of them has for 429."""
    simulator.next(fault)
    with pytest.raises(openai.RateLimitError) as raised:
        getattr(kind(simulator.base_url, KEY), manner)(MODEL, PLAIN)
    assert raised.value.status_code == 429
    assert len(simulator.requests) == 1


def test_the_models_are_listed(simulator: Simulator) -> None:
    """Those of the path that these clients speak on."""
    with openai.OpenAI(base_url=f"{simulator.base_url}/v1", api_key=KEY) as client:
        assert [model.id for model in client.models.list()] == [model.id for model in MODELS if not model.native]


def test_the_native_path_speaks_the_same_shapes(simulator: Simulator) -> None:
    """One client can post to any path: it reads the reply as its own, and the stream though no ``[DONE]`` ends it."""
    client = OpenAI(simulator.base_url, KEY)
    simulator.say("Then it is yours. 钥匙在门后。", "Again, then.")
    reply = client.native(HER, ROLE_PLAY)
    assert reply.choices[0].message.content == "Then it is yours. 钥匙在门后。"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == cost(ROLE_PLAY, HER)
    chunks = client.native_stream(HER, ROLE_PLAY)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices if choice.delta]
    assert "".join(delta.content or "" for delta in deltas) == "Again, then."
    assert [request.path for request in simulator.requests] == [NATIVE_PATH] * 2
    assert all(request.accepted for request in simulator.requests)

"""The body of a request: which parameters, in which order, within which ranges."""

from __future__ import annotations

import json

import pytest

from roleplay.domain.context import ContextMessage, Role
from roleplay.domain.endpoint import Dialect, Endpoint
from roleplay.domain.settings import Sampling
from roleplay.errors import InvalidInputError
from roleplay.wire.recipes import CURRENT
from roleplay.wire.request import WireRequest, parameters, parameters_json

ENDPOINT = Endpoint("MiniMax-M2.7")
MESSAGES = [
    ContextMessage(Role.SYSTEM, "Zhuge Liang", "你是诸葛亮。"),
    ContextMessage(Role.USER, "Traveler", 'He said "hi" 🎐'),
]


def test_everything_stands_in_its_order() -> None:
    """All parameters are there, in the order that never changes."""
    full = parameters(ENDPOINT, Sampling(temperature=0.7, top_p=0.9, max_completion_tokens=512), stream=True)
    assert json.dumps(full) == (
        '{"model": "MiniMax-M2.7", "max_completion_tokens": 512, "temperature": 0.7, "top_p": 0.9, "stream": true, '
        '"stream_options": {"include_usage": true}}'
    )


def test_what_is_not_set_is_not_sent() -> None:
    """Only the model, the reply cap and the stream flag are always there."""
    assert parameters(ENDPOINT, Sampling(), stream=False) == {
        "model": "MiniMax-M2.7",
        "max_completion_tokens": 2048,
        "stream": False,
    }


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("stream", [False, True])
def test_the_cap_that_is_reserved_is_sent(dialect: Dialect, stream: bool) -> None:
    """Where sampling says no cap the endpoint's is sent, in the place of one that is said."""
    endpoint = Endpoint("local", window_tokens=512, dialect=dialect, max_output_tokens=16)
    for sampling, cap in ((Sampling(), 16), (Sampling(max_completion_tokens=7), 7)):
        chosen = parameters(endpoint, sampling, stream=stream)
        assert list(chosen)[:3] == ["model", "max_completion_tokens", "stream"]
        assert json.loads(CURRENT.encode(dialect, MESSAGES, chosen))["max_completion_tokens"] == cap


def test_a_server_that_knows_no_stream_options_gets_none() -> None:
    """``stream_usage=False`` leaves ``stream_options`` out."""
    quiet = ENDPOINT.evolve(stream_usage=False)
    assert "stream_options" not in parameters(quiet, Sampling(), stream=True)


@pytest.mark.parametrize("field", ["temperature", "top_p"])
@pytest.mark.parametrize("value", [0.0, -1.0, 1.01, float("nan"), float("inf")])
def test_shares_lie_in_their_range(field: str, value: float) -> None:
    """A temperature or top_p outside of (0, 1] is refused before anything is sent, even past the value's own check."""
    with pytest.raises(InvalidInputError, match=rf"^{field}: .*\(0, 1\]") as caught:
        parameters(ENDPOINT, Sampling.model_construct(**{field: value}), stream=False)
    assert caught.value.field == field


def test_the_cap_is_the_models() -> None:
    """A longer reply than the model may give is refused, and the error names the way to raise the cap."""
    with pytest.raises(InvalidInputError) as caught:
        parameters(ENDPOINT, Sampling(max_completion_tokens=4096), stream=False)
    assert str(caught.value) == (
        "max_completion_tokens: 4096 is above the cap of model MiniMax-M2.7 "
        "(allowed: 1 to 2048; Endpoint(max_output_tokens=...) raises it)"
    )
    raised = ENDPOINT.evolve(max_output_tokens=4096)
    assert parameters(raised, Sampling(max_completion_tokens=4096), stream=False)["max_completion_tokens"] == 4096


def test_a_reply_has_at_least_one_token() -> None:
    """A cap below 1 is refused."""
    with pytest.raises(InvalidInputError, match="max_completion_tokens: is 0"):
        parameters(ENDPOINT, Sampling.model_construct(max_completion_tokens=0), stream=False)


def test_the_body_is_compact_and_begins_with_what_stays() -> None:
    """The bytes are compact UTF-8, the model first, the messages second."""
    body = CURRENT.encode(Dialect.MINIMAX, MESSAGES, parameters(ENDPOINT, Sampling(temperature=1.0), stream=False))
    assert body.decode() == (
        '{"model":"MiniMax-M2.7","messages":[{"role":"system","name":"Zhuge Liang","content":"你是诸葛亮。"},'
        '{"role":"user","name":"Traveler","content":"He said \\"hi\\" 🎐"}],"max_completion_tokens":2048,'
        '"temperature":1.0,"stream":false}'
    )


def test_every_character_is_written_as_json_writes_it() -> None:
    """All of Unicode in one message gives the bytes that the standard library gives: requests of long ago are rebuilt
    byte for byte, whoever encodes them."""
    text = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF)
    body = CURRENT.encode(Dialect.MINIMAX, [ContextMessage(Role.USER, "Traveler", text)], {"model": "m"})
    said = {"role": "user", "name": "Traveler", "content": text}
    assert body == json.dumps({"model": "m", "messages": [said]}, ensure_ascii=False, separators=(",", ":")).encode()


def test_successive_requests_share_their_beginning() -> None:
    """A request with one more message begins with the bytes of the one before, up to the end of its messages."""
    chosen = parameters(ENDPOINT, Sampling(), stream=True)
    before = CURRENT.encode(Dialect.MINIMAX, MESSAGES, chosen)
    after = CURRENT.encode(
        Dialect.MINIMAX, [*MESSAGES, ContextMessage(Role.ASSISTANT, "Zhuge Liang", "Welcome.")], chosen
    )
    assert after.startswith(before[: before.index(b'],"max_completion_tokens"')])


def test_stored_parameters_are_readable_and_give_the_same_bytes() -> None:
    """The JSON text of the parameters, loaded again, makes the same body."""
    chosen = parameters(ENDPOINT, Sampling(temperature=0.1, top_p=0.95), stream=True)
    text = parameters_json(chosen)
    assert text == (
        '{"model":"MiniMax-M2.7","max_completion_tokens":2048,"temperature":0.1,"top_p":0.95,"stream":true,'
        '"stream_options":{"include_usage":true}}'
    )
    stored = json.loads(text)
    assert CURRENT.encode(Dialect.OPENAI, MESSAGES, stored) == CURRENT.encode(Dialect.OPENAI, MESSAGES, chosen)


def test_a_request_is_three_plain_values() -> None:
    """What is posted is a path, bytes, and whether a stream is asked for."""
    assert WireRequest(ENDPOINT.path, b"{}", stream=False) == ("/v1/chat/completions", b"{}", False)

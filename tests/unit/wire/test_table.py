"""The schema of the API, field by field: what sets it in a request, and what gives it of a response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from roleplay.domain.context import ContextMessage, Role
from roleplay.domain.conversation import DeltaKind
from roleplay.domain.endpoint import Dialect, Endpoint
from roleplay.domain.settings import Sampling
from roleplay.wire.reply import ReplyDecoder
from roleplay.wire.request import encode_request, parameters

ENDPOINT = Endpoint("MiniMax-M2.7")

# request field, the arguments that set it, its value in the body
REQUEST: list[tuple[str, dict[str, Any], Any]] = [
    ("model", {"endpoint": Endpoint("MiniMax-M2.5")}, "MiniMax-M2.5"),
    ("stream", {"stream": True}, True),
    ("stream_options.include_usage", {"stream": True}, True),
    ("max_completion_tokens", {"sampling": Sampling(max_completion_tokens=2048)}, 2048),
    ("temperature", {"sampling": Sampling(temperature=0.5)}, 0.5),
    ("top_p", {"sampling": Sampling(top_p=0.9)}, 0.9),
    ("messages.0.role", {"message": ContextMessage(Role.SYSTEM, "a", "b")}, "system"),
    ("messages.0.role", {"message": ContextMessage(Role.USER_SYSTEM, "a", "b")}, "user_system"),
    ("messages.0.role", {"message": ContextMessage(Role.GROUP, "a", "b")}, "group"),
    ("messages.0.role", {"message": ContextMessage(Role.SAMPLE_USER, "a", "b")}, "sample_message_user"),
    ("messages.0.role", {"message": ContextMessage(Role.SAMPLE_AI, "a", "b")}, "sample_message_ai"),
    ("messages.0.role", {"message": ContextMessage(Role.USER, "a", "b")}, "user"),
    ("messages.0.role", {"message": ContextMessage(Role.ASSISTANT, "a", "b")}, "assistant"),
    ("messages.0.name", {"message": ContextMessage(Role.SYSTEM, "Zhuge Liang", "b")}, "Zhuge Liang"),
    ("messages.0.content", {"message": ContextMessage(Role.SYSTEM, "a", "You are wise.")}, "You are wise."),
]

COMMON: dict[str, Any] = {
    "id": "0640",
    "created": 1777421217,
    "model": "MiniMax-M2.7",
    "usage": {
        "total_tokens": 885,
        "prompt_tokens": 769,
        "completion_tokens": 116,
        "completion_tokens_details": {"reasoning_tokens": 37},
        "prompt_tokens_details": {"cached_tokens": 443},
        "cache_creation_input_tokens": 12,
    },
    "input_sensitive": False,
    "input_sensitive_type": 3,
    "output_sensitive": True,
    "output_sensitive_type": 7,
    "output_sensitive_int": 1,
    "base_resp": {"status_code": 0, "status_msg": "success"},
}
SPOKEN = {"role": "assistant", "content": "Sit.", "reasoning_content": "Hm."}
WHOLE = {
    **COMMON,
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "length", "message": SPOKEN}],
}
CHUNK = {
    **COMMON,
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "finish_reason": "length", "delta": SPOKEN}],
}

# response field, the attribute of the decoder that gives it, its value. Two fields of the schema carry no information:
# ``object`` repeats which of the two forms this is, and ``role`` is always ``assistant``.
RESPONSE: list[tuple[str, str, Any]] = [
    ("id", "facts.response_id", "0640"),
    ("created", "facts.response_created", 1777421217),
    ("model", "facts.model_answered", "MiniMax-M2.7"),
    ("choices.0.index", "facts.choice_index", 0),
    ("choices.0.finish_reason", "facts.finish_reason", "length"),
    ("choices.0.message.content", "speech", "Sit."),
    ("choices.0.message.reasoning_content", "reasoning", "Hm."),
    ("usage.total_tokens", "facts.usage.total_tokens", 885),
    ("usage.prompt_tokens", "facts.usage.prompt_tokens", 769),
    ("usage.completion_tokens", "facts.usage.completion_tokens", 116),
    ("usage.completion_tokens_details.reasoning_tokens", "facts.usage.reasoning_tokens", 37),
    ("usage.prompt_tokens_details.cached_tokens", "facts.usage.cached_tokens", 443),
    ("usage.cache_creation_input_tokens", "facts.usage.cache_write_tokens", 12),
    ("input_sensitive", "facts.sensitivity.input_sensitive", False),
    ("input_sensitive_type", "facts.sensitivity.input_sensitive_type", 3),
    ("output_sensitive", "facts.sensitivity.output_sensitive", True),
    ("output_sensitive_type", "facts.sensitivity.output_sensitive_type", 7),
    ("output_sensitive_int", "facts.sensitivity.output_sensitive_int", 1),
    ("base_resp.status_code", "facts.base_resp.status_code", 0),
    ("base_resp.status_msg", "facts.base_resp.status_msg", "success"),
]


def follow(value: Any, path: str) -> Any:
    """Walk a dotted path through objects, lists and attributes."""
    for step in path.split("."):
        if isinstance(value, list):
            value = value[int(step)]
        else:
            value = value[step] if isinstance(value, dict) else getattr(value, step)
    return value


@pytest.mark.parametrize(("field", "arguments", "expected"), REQUEST)
def test_every_request_field_has_its_argument(field: str, arguments: dict[str, Any], expected: object) -> None:
    """Each field of a request is set by an argument of ours."""
    chosen = parameters(
        arguments.get("endpoint", ENDPOINT),
        arguments.get("sampling", Sampling()),
        stream=arguments.get("stream", False),
    )
    message = arguments.get("message", ContextMessage(Role.SYSTEM, "a", "b"))
    body = json.loads(encode_request(Dialect.MINIMAX, [message], chosen))
    assert follow(body, field) == expected


@pytest.mark.parametrize("form", ["whole", "stream"])
@pytest.mark.parametrize(("field", "attribute", "expected"), RESPONSE)
def test_every_response_field_has_its_attribute(form: str, field: str, attribute: str, expected: object) -> None:
    """Each field of a response is given by an attribute of ours, from a body and from a stream alike."""
    assert follow(WHOLE, field) == expected
    if form == "whole":
        decoder = ReplyDecoder(200, "application/json", streamed=False)
        decoder.feed(json.dumps(WHOLE).encode())
    else:
        decoder = ReplyDecoder(200, "text/event-stream", streamed=True)
        decoder.feed(b"data: " + json.dumps(CHUNK).encode() + b"\n\ndata: [DONE]\n\n")
    decoder.finish()
    assert follow(decoder, attribute) == expected


def test_the_table_leaves_no_field_out() -> None:
    """The tables name every field of the request and of the response."""
    sent = {field for field, _, _ in REQUEST}
    body = json.loads(encode_request(
        Dialect.MINIMAX,
        [ContextMessage(Role.SYSTEM, "a", "b")],
        parameters(ENDPOINT, Sampling(temperature=1.0, top_p=1.0, max_completion_tokens=1), stream=True),
    ))  # fmt: skip
    assert {name.split(".")[0] for name in sent} == set(body)
    assert {name for name in sent if name.startswith("messages.0")} == {
        f"messages.0.{key}" for key in body["messages"][0]
    }
    given = {field for field, _, _ in RESPONSE}
    assert {name.split(".")[0] for name in given} | {"object"} == set(WHOLE)
    choice = {*WHOLE["choices"][0]} - {"message"} | {f"message.{name}" for name in SPOKEN if name != "role"}
    assert {name.removeprefix("choices.0.") for name in given if name.startswith("choices.")} == choice


def test_both_kinds_of_words_are_given_as_they_come() -> None:
    """A piece says whether it is speech or reasoning."""
    decoder = ReplyDecoder(200, "text/event-stream", streamed=True)
    said = decoder.feed(b"data: " + json.dumps(CHUNK).encode() + b"\n\n")
    assert [tuple(one) for one in said] == [(DeltaKind.REASONING, "Hm."), (DeltaKind.SPEECH, "Sit.")]

"""The simulator, spoken to over real connections."""

from __future__ import annotations

import base64
import gc
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from roleplay.testing import simulator as sim_module
from roleplay.testing.simulator import (
    MODELS,
    NATIVE_PATH,
    OPENAI_PATH,
    BaseRespInside200,
    CacheUsage,
    ConnectionReset,
    ContentInReasoning,
    ContextTooLong,
    CutStream,
    Done,
    EmojiSplit,
    EmptyRole,
    EmptyWithLength,
    EndlessStream,
    ErrorCode,
    ErrorInStream,
    Fault,
    FinalFullMessage,
    HtmlErrorPage,
    HugeLine,
    InputSensitive,
    InsufficientBalance,
    InvalidUtf8,
    JsonInsteadOfSse,
    LeftoverThink,
    LoneSurrogate,
    MissingNames1000,
    Model,
    NoContentTypeCharset,
    NoDone,
    NoFinalMessage,
    NoNameNoAudio,
    NulInText,
    OutputSensitive,
    Overloaded,
    RateLimited,
    ReasoningContent,
    RefuseRolePlayRoles,
    ResetAt,
    ServiceTier,
    Simulator,
    SlowDrip,
    SlowFirstByte,
    SplitUtf8,
    StrictTemplate,
    SurrogatesSplit,
    ThinkSplit,
    TokenLimit,
    UnknownError,
    UsageLimitReached,
    UsageNull,
    UsageZeroEachChunk,
)

LINE = "The river is high tonight, and the bridge will not hold."


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


def message(role: str, content: str, name: str | None = None) -> dict[str, Any]:
    return {"role": role, "content": content} | ({} if name is None else {"name": name})


def scene() -> list[dict[str, Any]]:
    return [
        message("system", "You are Zhuge Liang, a wise and calm strategist.", "Zhuge Liang"),
        message("user_system", "You are a traveller from modern times.", "Traveller"),
        message("group", "Longzhong, a thatched cottage in the snow", "Longzhong"),
        message("sample_message_user", "The weather is fine.", "Traveller"),
        message("sample_message_ai", "Fine indeed; the wind favours us.", "Zhuge Liang"),
        message("user", "Strategist, may I ask you something?", "Traveller"),
    ]


def plain(text: str = "Hello there") -> list[dict[str, Any]]:
    return [message("system", "You are Mara Voss, a smuggler."), message("user", text)]


def body(messages: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    return {"model": "MiniMax-M2.7", "messages": scene() if messages is None else messages, **fields}


def her(messages: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    return body(messages, **fields) | {"model": "M2-her"}


def post(
    sim: Simulator, sent: Any, path: str = OPENAI_PATH, key: str = "test-key", **options: Any
) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"} | options.pop("headers", {})
    data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return requests.post(sim.base_url + path, data=data, headers=headers, timeout=10, **options)


def events(answer: requests.Response) -> list[Any]:
    """The events of a stream; `[DONE]` as that string."""
    parts = [part[6:] for part in answer.content.decode("utf-8").split("\n\n") if part.startswith("data: ")]
    return [part if part == "[DONE]" else json.loads(part) for part in parts]


def stream(sim: Simulator, path: str = OPENAI_PATH, **fields: Any) -> list[Any]:
    sent = her(stream=True, **fields) if path == NATIVE_PATH else body(stream=True, **fields)
    return events(post(sim, sent, path))


def deltas(found: list[Any], field: str = "content") -> list[str]:
    choices = [event["choices"][0] for event in found if event != "[DONE]" and event["choices"]]
    return [choice["delta"].get(field, "") for choice in choices if "delta" in choice]


def text(answer: requests.Response) -> str:
    said = answer.json()["choices"][0]["message"]["content"]
    assert isinstance(said, str)
    return said


def refused(answer: requests.Response, http: int, code: int, words: str = "") -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["http_code"]) == (http, str(http)), answer.text
    assert error["message"].endswith(f"({code})"), answer.text
    assert words in error["message"], answer.text


# Success


def test_completion_has_the_documented_shape(sim: Simulator) -> None:
    """An accepted request is answered with every field of a completion, and its id is the trace's."""
    answer = post(sim, body())
    found = answer.json()
    assert answer.status_code == 200
    assert found["object"] == "chat.completion"
    assert found["model"] == "MiniMax-M2.7"
    assert found["base_resp"] == {"status_code": 0, "status_msg": ""}
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["choices"][0]["message"].keys() == {"content", "role", "name", "audio_content"}
    assert found["choices"][0]["message"]["name"] == "MiniMax AI"
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["total_characters"] == 0
    assert re.fullmatch("[0-9a-f]{32}", found["id"])
    assert answer.headers["Trace-Id"] == found["id"]
    assert found["output_sensitive"] is False


def test_older_models_answer_in_the_lean_shape(sim: Simulator) -> None:
    """M2.5 and M2.1 answer without name and audio, and with the status message "success"."""
    found = post(sim, body() | {"model": "MiniMax-M2.5"}).json()
    assert found["choices"][0]["message"].keys() == {"content", "role"}
    assert found["base_resp"]["status_msg"] == "success"


def test_reply_is_in_the_voice_of_the_persona(sim: Simulator) -> None:
    """Without a queued text the reply is short, names what it was given, and is the same for the same request."""
    first, again = text(post(sim, body())), text(post(sim, body()))
    assert first == again
    assert "Traveller" in first
    assert "Longzhong" in first
    assert "Strategist, may I ask you something" in first
    assert len(first) < 400
    other = body([*scene()[:-1], message("user", "诸葛先生，可否请教？", "旅人")])
    assert "旅人" in text(post(sim, other))


def test_folded_requests_are_answered_too(sim: Simulator) -> None:
    """Plain roles without names are taken, and the persona's name is read out of its text."""
    found = post(sim, body([*plain(), message("assistant", "Aye?"), message("user", "Where is the ship?")]))
    assert found.status_code == 200
    assert "Where is the ship" in text(found)
    with Simulator(echo_name=True) as echoing:
        assert post(echoing, body(plain())).json()["choices"][0]["message"]["name"] == "Mara Voss"
        nameless = post(echoing, body([message("user", "hi")])).json()
        assert nameless["choices"][0]["message"]["name"] == "MiniMax AI"


def test_queued_texts_come_in_order_and_only_to_answered_requests(sim: Simulator) -> None:
    """Queued texts are said first in, first out; a refused or failed request uses none up."""
    sim.say("one", "two")
    sim.next(UnknownError())
    post(sim, body(temperature=7))
    post(sim, body())
    assert text(post(sim, body())) == "one"
    assert "".join(deltas(stream(sim))) == "two"


def test_stream_has_the_documented_shape(sim: Simulator) -> None:
    """Deltas repeat name and role, usage is null, only the last delta has a finish reason, `[DONE]` ends."""
    sim.say(LINE)
    found = stream(sim)
    assert found[-1] == "[DONE]"
    chunks = found[:-1]
    assert len(chunks) == 2
    assert "".join(deltas(chunks)) == LINE
    assert all(chunk["usage"] is None and chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert all(chunk["choices"][0]["delta"].keys() == {"content", "role", "name", "audio_content"} for chunk in chunks)
    assert ["finish_reason" in chunk["choices"][0] for chunk in chunks] == [False, True]
    assert chunks[-1]["choices"][0]["delta"]["content"] != ""


def test_usage_chunk_comes_when_it_is_asked_for(sim: Simulator) -> None:
    """With `include_usage` one more chunk without choices holds usage and `base_resp`."""
    sim.say(LINE)
    found = stream(sim, stream_options={"include_usage": True})
    tail = found[-2]
    assert found[-1] == "[DONE]"
    assert tail["choices"] == []
    assert tail["base_resp"] == {"status_code": 0, "status_msg": ""}
    sim.say(LINE)
    assert tail["usage"]["completion_tokens"] == post(sim, body()).json()["usage"]["completion_tokens"]


def test_native_stream_ends_with_the_full_message(sim: Simulator) -> None:
    """On the native path there is no `[DONE]`: the last event is the whole completion, with usage."""
    sim.say(LINE)
    *chunks, last = stream(sim, NATIVE_PATH)
    assert "".join(deltas(chunks)) == LINE
    assert last["object"] == "chat.completion"
    assert last["choices"][0]["message"]["content"] == LINE
    assert last["usage"]["prompt_tokens"] > 180


def test_native_completion(sim: Simulator) -> None:
    """M2-her answers on the native path in the official sample's shape."""
    found = post(sim, her(), NATIVE_PATH).json()
    assert found["choices"][0]["message"].keys() == {"content", "role", "name", "audio_content"}
    assert found["usage"].keys() == {"total_tokens", "total_characters", "prompt_tokens", "completion_tokens"}


def test_thinking_is_inline_or_split() -> None:
    """A thinking model puts its reasoning between tags, or in its own field when that was asked for."""
    with Simulator(thinking=True) as sim:
        sim.say(LINE, LINE, LINE)
        found = post(sim, body()).json()
        assert re.fullmatch(r"<think>\n.+\n</think>\n\n" + re.escape(LINE), text(post(sim, body())), re.DOTALL)
        details = found["usage"]["completion_tokens_details"]
        assert 0 < details["reasoning_tokens"] < found["usage"]["completion_tokens"]
        split = post(sim, body(reasoning_split=True)).json()["choices"][0]["message"]
        assert split["content"] == LINE
        assert split["reasoning_details"][0]["text"] == split["reasoning_content"] != ""
        assert "<think>" not in text(post(sim, her(), NATIVE_PATH))


def test_replies_are_cut_at_the_asked_length(sim: Simulator) -> None:
    """A reply is cut at `max_completion_tokens` and says so; reasoning eats of the same budget, first."""
    sim.say("word " * 50)
    found = post(sim, body(max_completion_tokens=7)).json()
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["usage"]["completion_tokens"] == 7
    assert found["choices"][0]["message"]["content"].split() == ["word"] * 7
    with Simulator(thinking=True) as thinking:
        eaten = post(thinking, body(max_completion_tokens=3)).json()
        assert eaten["choices"][0]["message"]["content"].endswith("</think>\n\n")
        assert eaten["choices"][0]["finish_reason"] == "length"


def test_repeated_beginnings_are_cached(sim: Simulator) -> None:
    """A long shared beginning is reported as cached, in whole blocks; a short or a changed one is not."""
    long = [message("system", "You know the tides, the moons and the winds. " * 60), message("user", "Hello")]
    first = post(sim, body(long)).json()["usage"]
    second = post(sim, body([*long, message("assistant", "Aye."), message("user", "And?")])).json()["usage"]
    cached = second["prompt_tokens_details"]["cached_tokens"]
    assert "prompt_tokens_details" not in first
    assert cached % 64 == 0
    assert first["prompt_tokens"] - 64 < cached <= first["prompt_tokens"]
    changed = [message("system", long[0]["content"] + "."), long[1]]
    assert "prompt_tokens_details" not in post(sim, body(changed)).json()["usage"]
    post(sim, body(plain()))
    assert "prompt_tokens_details" not in post(sim, body(plain())).json()["usage"]


def test_tokens_are_not_a_quarter_of_the_characters(sim: Simulator) -> None:
    """The count follows words and Chinese pieces, and every message has its overhead."""
    base = post(sim, body(plain("hi"))).json()["usage"]["prompt_tokens"]
    words = post(sim, body(plain("hi a b c d e f g"))).json()["usage"]["prompt_tokens"]
    chinese = post(sim, body(plain("hi" + "江" * 70))).json()["usage"]["prompt_tokens"]
    assert words - base == 7
    assert chinese - base == 40
    more = [*plain("hi"), message("assistant", "<think>long thoughts</think>yes"), message("user", "hi")]
    assert post(sim, body(more)).json()["usage"]["prompt_tokens"] - base == 5 + 1 + 5 + 1


def test_clock_is_injectable() -> None:
    """`created` comes from the given clock, and grows by the request without one."""
    with Simulator(clock=lambda: 1_234) as sim:
        assert post(sim, body()).json()["created"] == 1_234
    with Simulator() as sim:
        assert [post(sim, body()).json()["created"] for _ in range(2)] == [1_776_838_947, 1_776_838_948]


def test_model_list(sim: Simulator) -> None:
    """The list holds the models of the OpenAI-compatible path, for the right key only."""
    url = f"{sim.base_url}/v1/models"
    found = requests.get(url, headers={"Authorization": "Bearer test-key"}, timeout=5).json()
    assert [entry["id"] for entry in found["data"]] == [model.id for model in MODELS[:-1]]
    assert requests.get(url, timeout=5).status_code == 401
    assert requests.get(f"{sim.base_url}/v1/nothing", timeout=5).status_code == 404
    assert post(sim, body(), "/v1/chat").status_code == 404


# Strictness


def test_wrong_or_missing_key(sim: Simulator) -> None:
    """A wrong key is 401 with 1004; on the native path it is `base_resp` inside 200."""
    refused(post(sim, body(), key="other"), 401, 1004, "login fail")
    refused(post(sim, body(), headers={"Authorization": "test-key"}), 401, 1004)
    native = post(sim, her(), NATIVE_PATH, key="other")
    assert native.status_code == 200
    assert native.json().keys() == {"base_resp"}
    assert native.json()["base_resp"]["status_code"] == 1004


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"{", "Syntax error at index"),
        (b"[]", "Mismatch type"),
        (b'{"model":"MiniMax-M2.7","model":"MiniMax-M2.7","messages":[]}', "duplicate key"),
        (b'{"model":"MiniMax-M2.7","messages":[{"role":"user","role":"user","content":"x"}]}', "duplicate key"),
        (b'{"model":"MiniMax-M2.7","temperature":NaN,"messages":[]}', "Syntax error"),
        (b'{"model":"MiniMax-M2.7","messages":[{"role":"user","content":"\xe4\xbd"}]}', "UTF-8"),
        (b'{"model":"MiniMax-M2.7","messages":[{"role":"user","content":"\\ud83d"}]}', "UTF-8"),
        (b"[" * 200_000, "Syntax error"),
        (b'"' + b"a" * 5_000_001 + b'"', "too large"),
        (b"\xef\xbb\xbf{}", "Syntax error"),
    ],
)
def test_bodies_that_are_no_clean_json_object(sim: Simulator, sent: bytes, words: str) -> None:
    """A body that is too long, not UTF-8, not JSON or says a thing twice is error 2013, and is logged as received."""
    refused(post(sim, sent), 400, 2013, words)
    assert sim.requests[-1].body == sent


def test_surrogate_pairs_are_taken(sim: Simulator) -> None:
    """An escaped pair of surrogates is one character and no error."""
    sent = b'{"model":"MiniMax-M2.7","messages":[{"role":"user","content":"\\ud83d\\ude00"}]}'
    assert post(sim, sent).status_code == 200


def test_content_type_must_be_json(sim: Simulator) -> None:
    """A body of another declared type is refused."""
    refused(post(sim, body(), headers={"Content-Type": "text/plain"}), 400, 2013, "Content-Type")
    assert post(sim, body(), headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0),
        ("temperature", 1.01),
        ("temperature", True),
        ("temperature", "1"),
        ("temperature", None),
        ("top_p", 0.0),
        ("top_p", 2),
        ("max_completion_tokens", 0),
        ("max_completion_tokens", 2_049),
        ("max_completion_tokens", 10.0),
        ("max_completion_tokens", True),
        ("max_tokens", -1),
        ("stream", 1),
        ("stream", "true"),
        ("reasoning_split", 1),
        ("thinking", True),
        ("thinking", {"type": "on"}),
        ("service_tier", "gold"),
        ("n", 2),
        ("tools", {}),
        ("stream_options", {"include_usage": True}),
        ("presence_penalty", 0.5),
        ("stop", ["x"]),
        ("seed", 1),
        ("model", "gpt-4"),
        ("model", "M2-her"),
        ("model", 7),
        ("messages", []),
        ("messages", {}),
    ],
)
def test_parameters_out_of_range_or_unknown(sim: Simulator, field: str, value: Any) -> None:
    """A parameter of a wrong type, out of its range or undocumented is error 2013."""
    refused(post(sim, body() | {field: value}), 400, 2013)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1, "top_p": 0.95, "max_completion_tokens": 2_048},
        {"stream": False, "reasoning_split": True},
        {"stream": True, "stream_options": {"include_usage": False}},
        {"thinking": {"type": "disabled"}, "service_tier": "standard", "n": 1, "tools": [], "max_tokens": 5},
    ],
)
def test_documented_parameters_are_taken(sim: Simulator, fields: dict[str, Any]) -> None:
    """Every documented parameter is taken in its range."""
    assert post(sim, body(**fields)).status_code == 200


def test_native_model_takes_the_fields_of_its_own_page_only(sim: Simulator) -> None:
    """M2-her refuses what only the other page documents, and is refused on the other path."""
    found = post(sim, her(stream=True, stream_options={"include_usage": True}), NATIVE_PATH)
    assert found.status_code == 200
    assert found.json() == {
        "base_resp": {"status_code": 2013, "status_msg": "invalid params, unknown field 'stream_options'"}
    }
    assert found.headers["Content-Type"].startswith("application/json")
    assert post(sim, her(), NATIVE_PATH).json()["base_resp"]["status_code"] == 0
    assert post(sim, body(), NATIVE_PATH).json()["base_resp"]["status_code"] == 2013


def test_missing_fields(sim: Simulator) -> None:
    """Model and messages are required, and the message names the missing one."""
    refused(post(sim, {"model": "MiniMax-M2.7"}), 400, 2013, "expr_path=messages, cause=missing required parameter")
    refused(post(sim, {"messages": scene()}), 400, 2013, "expr_path=model")


def bad_messages() -> list[tuple[str, list[Any], str]]:
    system, persona, group, sample_user, sample_ai, last = scene()
    answer = message("assistant", "Ask.", "Zhuge Liang")
    return [
        ("not an object", ["hello"], "messages[0]"),
        ("unknown role", [message("tool", "x", "T")], "invalid message role"),
        ("role of a wrong type", [{"role": 1, "content": "x"}], "messages[0].role"),
        ("no content", [{"role": "user"}], "messages[0].content"),
        ("content of a wrong type", [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "content"),
        ("blank content", [message("user", " \n")], "chat content is empty"),
        ("unknown field", [{"role": "user", "content": "x", "id": "1"}], "unknown field"),
        ("two systems", [system, system, last], "invalid chat setting"),
        ("late system", [last, system], "invalid chat setting"),
        ("two personas of the user", [system, persona, persona, last], "invalid chat setting"),
        ("two scenes", [system, group, group, last], "invalid chat setting"),
        ("scene before the user's persona", [system, group, persona, last], "invalid chat setting"),
        ("sample before the scene", [system, sample_user, group, last], "invalid chat setting"),
        ("sample after history", [system, last, answer, sample_ai, last], "invalid chat setting"),
        ("two users", [system, last, last], "invalid chat setting"),
        ("two assistants", [system, answer, answer, last], "invalid chat setting"),
        ("assistant last", [system, last, answer], "invalid chat setting"),
        ("no history", [system, persona], "invalid chat setting"),
        ("no name on the persona", [system, message("user_system", "x"), last], "messages[1].name"),
        ("no name on a user", [system, persona, message("user", "x")], "messages[2].name"),
        ("empty name", [message("user", "x", "")], "messages[0].name"),
        ("blank name", [message("user", "x", " ")], "messages[0].name"),
        ("name with blank ends", [message("user", "x", "Ann ")], "messages[0].name"),
        ("name over two lines", [message("user", "x", "A\nB")], "messages[0].name"),
        ("name of a wrong type", [{"role": "user", "content": "x", "name": None}], "messages[0].name"),
    ]


@pytest.mark.parametrize(("sent", "words"), [pytest.param(*case[1:], id=case[0]) for case in bad_messages()])
def test_bad_messages(sim: Simulator, sent: list[Any], words: str) -> None:
    """Whatever a strict server would not take in the list of messages is error 2013."""
    refused(post(sim, body(sent)), 400, 2013, words)
    assert not sim.requests[-1].accepted
    assert sim.requests[-1].refusal


def test_a_greeting_and_lone_examples_are_taken(sim: Simulator) -> None:
    """History may open with the assistant, and an example may lack its user's half."""
    system, persona, _, _, sample_ai, last = scene()
    greeting = message("assistant", "Welcome.", "Zhuge Liang")
    assert post(sim, body([system, persona, sample_ai, sample_ai, greeting, last])).status_code == 200


def test_settings_loosen_rules() -> None:
    """Names and the last word are matters of setting."""
    system, persona, *_, last = scene()
    with Simulator(require_names=False, allow_prefill=True) as sim:
        assert post(sim, body([system, message("user_system", "x"), last])).status_code == 200
        assert post(sim, body([system, last, message("assistant", "I say", "Z")])).status_code == 200
    with Simulator(refuse_roles=True, models=["local", Model("big", max_output_tokens=9_999)]) as sim:
        refused(post(sim, body([system, persona, last]) | {"model": "local"}), 400, 2013, "role: user_system")
        assert post(sim, body(plain()) | {"model": "local"}).status_code == 200
        assert post(sim, body(plain(), max_completion_tokens=9_999) | {"model": "big"}).status_code == 200


def test_control_characters(sim: Simulator) -> None:
    """More than a tenth of control characters is error 1042; fewer pass."""
    refused(post(sim, body([message("user", "ab\x01\x02cdefgh")])), 400, 1042)
    assert post(sim, body([message("user", "abcdefghi\x01\n\t")])).status_code == 200


def test_prompt_longer_than_the_window(sim: Simulator) -> None:
    """A prompt longer than the model's window is error 2013."""
    sent = her([message("user", "a " * 66_000)])
    found = post(sim, sent, NATIVE_PATH).json()
    assert found["base_resp"] == {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}


def test_log_keeps_bytes_and_hides_the_key(sim: Simulator) -> None:
    """The log holds what was received byte for byte, without the key, until it is cleared."""
    sent = json.dumps(body(), indent=3).encode()
    post(sim, sent)
    (logged,) = sim.requests
    assert logged.body == sent
    assert logged.json == body()
    assert logged.accepted
    assert (logged.method, logged.path) == ("POST", OPENAI_PATH)
    assert "test-key" not in repr(logged)
    assert logged.headers["content-type"] == "application/json"
    sim.clear()
    assert sim.requests == []


# Faults


@pytest.mark.parametrize(
    ("fault", "http", "code"),
    [
        (UnknownError(), 500, 1000),
        (RateLimited(), 429, 1002),
        (TokenLimit(), 429, 1039),
        (InsufficientBalance(), 429, 1008),
        (InsufficientBalance(http=500), 500, 1008),
        (UsageLimitReached("soon"), 429, 2056),
        (InputSensitive(), 422, 1026),
        (InputSensitive(http=500), 500, 1026),
        (OutputSensitive(), 422, 1027),
        (ContextTooLong(), 400, 2013),
        (ErrorCode(1001), 500, 1001),
        (ErrorCode(1013), 500, 1013),
        (ErrorCode(1024), 500, 1024),
        (ErrorCode(1033), 500, 1033),
        (ErrorCode(1041), 429, 1041),
        (ErrorCode(2045), 429, 2045),
        (ErrorCode(31_337, http=418, text="teapot"), 418, 31_337),
    ],
)
def test_error_faults(sim: Simulator, fault: Fault, http: int, code: int) -> None:
    """An error comes with its status and number, on the native path inside 200, and then all is well again."""
    sim.next(fault, times=2)
    refused(post(sim, body()), http, code)
    assert post(sim, her(), NATIVE_PATH).json()["base_resp"]["status_code"] == code
    assert post(sim, body()).status_code == 200
    assert [request.accepted for request in sim.requests] == [True] * 3


def test_kinds_of_errors(sim: Simulator) -> None:
    """The error's type follows the status and, for a lack of money, the code."""
    sim.next(Overloaded())
    sim.next(InsufficientBalance())
    sim.next(InputSensitive(http=500))
    found = [post(sim, body()) for _ in range(3)]
    assert [answer.json()["error"]["type"] for answer in found] == [
        "overloaded_error",
        "insufficient_balance_error",
        "api_error",
    ]
    assert found[0].status_code == 529
    assert not found[0].json()["error"]["message"].endswith(")")


def test_errors_inside_200(sim: Simulator) -> None:
    """An error may come as `base_resp` inside a success, bare or in the frame of a completion."""
    sim.next(RateLimited(http=200))
    sim.next(BaseRespInside200(1008))
    sim.next(BaseRespInside200(1027, framed=True))
    found = [post(sim, body(stream=True)) for _ in range(3)]
    assert [answer.status_code for answer in found] == [200] * 3
    assert [answer.json()["base_resp"]["status_code"] for answer in found] == [1002, 1008, 1027]
    assert found[2].json()["choices"] is None


def test_json_in_place_of_a_stream(sim: Simulator) -> None:
    """A stream may be answered with one JSON body: an error, or the whole reply."""
    sim.say(LINE)
    sim.next(JsonInsteadOfSse())
    sim.next(JsonInsteadOfSse(code=0))
    first, second = (post(sim, body(stream=True)) for _ in range(2))
    assert first.headers["Content-Type"].startswith("application/json")
    assert first.json()["base_resp"]["status_code"] == 1002
    assert text(second) == LINE


def test_errors_in_mid_stream(sim: Simulator) -> None:
    """A stream may end in an error event after part of the text; a plain request gets the error itself."""
    sim.next(OutputSensitive(after_chunks=2))
    *chunks, last = stream(sim)
    assert len(chunks) == 2
    assert last["choices"] == []
    assert last["output_sensitive"] is True
    assert last["base_resp"]["status_code"] == 1027
    sim.next(ErrorInStream(1013, after_chunks=0), times=2)
    assert [event["base_resp"]["status_code"] for event in stream(sim)] == [1013]
    refused(post(sim, body()), 500, 1013)


def test_html_page(sim: Simulator) -> None:
    """A gateway's page is HTML with its status, on both paths."""
    sim.next(HtmlErrorPage(503))
    found = post(sim, her(), NATIVE_PATH)
    assert found.status_code == 503
    assert found.headers["Content-Type"].startswith("text/html")


def test_missing_names_may_be_a_server_error(sim: Simulator) -> None:
    """The switch answers missing names with 500 and 1000, and is used up by that."""
    nameless = body([{"role": item["role"], "content": item["content"]} for item in scene()])
    sim.next(MissingNames1000())
    refused(post(sim, nameless), 500, 1000, "unknown error, 999")
    refused(post(sim, nameless), 400, 2013)


@pytest.mark.parametrize(("code", "http"), [(2013, 400), (1000, 500)])
def test_role_play_roles_may_be_refused(sim: Simulator, code: int, http: int) -> None:
    """With the switch the four roles are refused and plain requests are not."""
    sim.always(RefuseRolePlayRoles(code))
    refused(post(sim, body()), http, code)
    assert post(sim, body(plain())).status_code == 200
    sim.heal()
    assert post(sim, body()).status_code == 200


@pytest.mark.parametrize("http", [400, 500])
def test_a_template_may_be_strict(sim: Simulator, http: int) -> None:
    """With the switch nothing but user and assistant in turn is taken, a user first."""
    sim.always(StrictTemplate(http))
    turns = [{"role": role, "content": "Hm."} for role in ("user", "assistant", "user")]
    for messages, words in [
        ([{"role": "system", "content": "A pilot."}, *turns], "System role"),
        ([turns[0], {"role": "group", "content": "A ferry."}, *turns[1:]], "Only user and assistant"),
        (turns[1:], "must alternate"),
        ([turns[0], *turns], "must alternate"),
    ]:
        found = post(sim, body(messages))
        assert found.status_code == http
        assert words in found.json()["error"]["message"]
    assert post(sim, body(turns)).status_code == 200


def test_faults_combine_and_wait_for_valid_requests(sim: Simulator) -> None:
    """Faults of one call act together; a request that breaks a rule leaves them for the next."""
    sim.always(ServiceTier("priority"))
    sim.next(CacheUsage(64), NoNameNoAudio(), times=2)
    refused(post(sim, body(top_p=9)), 400, 2013)
    for _ in range(2):
        found = post(sim, body()).json()
        assert found["usage"]["prompt_tokens_details"] == {"cached_tokens": 64}
        assert found["service_tier"] == "priority"
        assert "name" not in found["choices"][0]["message"]
    assert "name" in post(sim, body()).json()["choices"][0]["message"]
    with pytest.raises(ValueError, match="at least one"):
        sim.next(times=0)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_cut_streams(sim: Simulator, after: int, clean: bool) -> None:
    """A cut stream gives exactly so many deltas and then ends, with or without the end of the HTTP message."""
    sim.next(CutStream(after, clean=clean))
    answer = post(sim, body(stream=True), stream=True)
    assert answer.status_code == 200
    seen = b""
    try:
        for piece in answer.iter_content(None):
            seen += piece
        ended = True
    except requests.exceptions.ChunkedEncodingError:
        ended = False
    assert ended is clean
    assert seen.count(b"data: ") == after
    assert b"finish_reason" not in seen


def test_a_plain_body_is_cut_too(sim: Simulator) -> None:
    """A body that is not streamed is cut in its middle."""
    sim.next(CutStream(1))
    with pytest.raises(requests.exceptions.RequestException):
        post(sim, body())


def test_resets(sim: Simulator) -> None:
    """A reset before the headers gives no answer at all; in mid-body it comes after the deltas."""
    sim.next(ConnectionReset())
    with pytest.raises(requests.exceptions.ConnectionError):
        post(sim, body())
    sim.next(ConnectionReset(ResetAt.MID_BODY, after_chunks=2))
    answer = post(sim, body(stream=True), stream=True)
    pieces = answer.iter_content(None)
    assert next(pieces).startswith(b"data: ")
    with pytest.raises(requests.exceptions.RequestException) as caught:
        list(pieces)
    assert "reset" in str(caught.value).lower()


def test_ends_of_streams(sim: Simulator) -> None:
    """Each end of a stream can be left out or added."""
    sim.next(NoDone())
    assert stream(sim)[-1]["choices"][0]["finish_reason"] == "stop"
    sim.say(LINE)
    sim.next(FinalFullMessage())
    *chunks, full, done = stream(sim)
    assert (full["object"], done) == ("chat.completion", "[DONE]")
    assert full["choices"][0]["message"]["content"] == "".join(deltas(chunks)) == LINE
    sim.next(NoFinalMessage())
    assert stream(sim, NATIVE_PATH)[-1]["object"] == "chat.completion.chunk"
    sim.next(Done())
    assert stream(sim, NATIVE_PATH)[-1] == "[DONE]"


def test_usage_may_be_null_or_zero(sim: Simulator) -> None:
    """Usage may be null although it was asked for, or zeros in each delta with empty roles."""
    sim.next(UsageNull(), times=2)
    found = stream(sim, stream_options={"include_usage": True})
    assert all(event == "[DONE]" or event["usage"] is None for event in found)
    assert post(sim, body()).json()["usage"] is None
    sim.next(UsageZeroEachChunk())
    chunk = stream(sim)[0]
    assert chunk["usage"] == {"total_tokens": 0, "total_characters": 0}
    assert chunk["choices"][0]["delta"]["role"] == chunk["choices"][0]["delta"]["reasoning_content"] == ""
    sim.next(EmptyRole())
    assert set(deltas(stream(sim), "role")) == {""}


def test_think_tags_across_deltas(sim: Simulator) -> None:
    """The tags come character by character, or cut at one place; joined, the stream is whole."""
    sim.say(*[LINE] * 8)
    for at in (None, 1, 2, 3, 4, 5, 6, 7):
        sim.next(ThinkSplit(at))
        found = deltas(stream(sim))
        assert "</think>" not in found
        assert ("<think>" not in found) is (at != 7)
        assert re.fullmatch(r"<think>\n.+\n</think>\n\n" + re.escape(LINE), "".join(found), re.DOTALL)


@pytest.mark.parametrize("cumulative", [False, True])
def test_reasoning_in_its_own_field(sim: Simulator, cumulative: bool) -> None:
    """Reasoning comes in pieces or in snapshots, before the text, and its first delta has no content."""
    sim.say(LINE)
    sim.next(ReasoningContent(cumulative))
    found = stream(sim)
    thoughts = [piece for piece in deltas(found, "reasoning_content") if piece]
    assert "content" not in found[0]["choices"][0]["delta"]
    assert "".join(deltas(found)) == LINE
    assert len(thoughts) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(thoughts)) is cumulative


def test_odd_places_of_the_text(sim: Simulator) -> None:
    """Text may stand in the reasoning field, behind a leftover tag, or be missing for want of budget."""
    sim.say(LINE, LINE, LINE)
    sim.next(ContentInReasoning(), times=2)
    found = post(sim, body()).json()["choices"][0]["message"]
    assert (found["content"], found["reasoning_content"]) == ("", LINE)
    streamed = stream(sim)
    assert ("".join(deltas(streamed)), "".join(deltas(streamed, "reasoning_content"))) == ("", LINE)
    sim.next(LeftoverThink())
    assert text(post(sim, body())) == f"</think>\n\n{LINE}"
    sim.next(EmptyWithLength(), times=2)
    empty = post(sim, body()).json()["choices"][0]
    assert empty["finish_reason"] == "length"
    assert empty["message"]["content"].endswith("</think>\n\n")
    assert text(post(sim, her(), NATIVE_PATH)) == ""


def test_odd_characters(sim: Simulator) -> None:
    """NUL, halves of surrogate pairs and cut emoji come as JSON has them."""
    sim.say("abcd", "abcd", "smile 😀 now", "👩‍🚀 up")
    sim.next(NulInText())
    assert text(post(sim, body())) == "ab\0cd"
    sim.next(LoneSurrogate())
    assert rb"ab\ud83dcd" in post(sim, body()).content
    sim.next(SurrogatesSplit())
    raw = post(sim, body(stream=True)).content
    assert rb'smile \ud83d","' in raw
    assert rb'"content":"\ude00 now"' in raw
    sim.next(EmojiSplit())
    assert deltas(stream(sim)) == ["👩", "\u200d", "🚀", " up"]
    sim.next(EmojiSplit())
    assert "🚀" in deltas(stream(sim))


def test_characters_split_over_writes(sim: Simulator) -> None:
    """Each byte of a character may come in a chunk of its own; joined, the text is whole."""
    sim.say("江上 é 😀")
    sim.next(SplitUtf8())
    pieces = list(post(sim, body(stream=True), stream=True).iter_content(None))
    assert "江".encode()[:1] in pieces
    assert "江上 é 😀" in b"".join(pieces).decode()


def test_broken_characters(sim: Simulator) -> None:
    """A character may lack its end, so that the bytes are no UTF-8; the rest is there."""
    sim.say("abcd", "abcd")
    sim.next(InvalidUtf8(), times=2)
    for streamed in (True, False):
        raw = post(sim, body(stream=streamed)).content
        assert b"ab\xe4\xbdcd" in raw


def test_huge_lines(sim: Simulator) -> None:
    """One line of a stream may be five million bytes long, as text or as a comment."""
    sim.next(HugeLine())
    sim.next(HugeLine(1_000_000, comment=True))
    for size in (5_000_000, 1_000_000):
        raw = post(sim, body(stream=True)).content
        assert size < max(map(len, raw.split(b"\n"))) < size + 1_000
        assert raw.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("streamed", [True, False])
def test_endless_answers(sim: Simulator, streamed: bool) -> None:
    """The answer goes on until the client leaves, and the server notices that."""
    sim.next(EndlessStream())
    answer = post(sim, body(stream=streamed), stream=True)
    pieces = answer.iter_content(None)
    assert all(next(pieces) for _ in range(50))
    answer.close()
    wait_until(lambda: sim.open_connections == 0)


def test_slow_answers(sim: Simulator) -> None:
    """The first byte, the body or every event may wait."""
    sim.next(SlowFirstByte(0.2))
    assert timed(lambda: post(sim, body(), stream=True)) >= 0.2
    sim.next(SlowFirstByte(0.2, after_headers=True))
    assert timed(lambda: post(sim, body(stream=True), stream=True).close()) < 0.2
    sim.next(SlowDrip(0.02), times=2)
    assert timed(lambda: post(sim, body(stream=True))) >= 0.1
    assert timed(lambda: post(sim, body())) >= 0.1


def test_content_type_without_charset(sim: Simulator) -> None:
    """The charset may be left out of the content type."""
    sim.next(NoContentTypeCharset(), times=2)
    assert post(sim, body()).headers["Content-Type"] == "application/json"
    assert post(sim, body(stream=True)).headers["Content-Type"] == "text/event-stream"


def test_every_fault_is_public_and_says_what_it_does() -> None:
    """The package exports every fault, and each has a docstring of its own."""
    known, todo = set(), [Fault]
    while todo:
        found = todo.pop()
        known.add(found)
        todo += found.__subclasses__()
    public = {fault for fault in known if not fault.__name__.startswith("_")}
    assert public <= {getattr(sim_module, name) for name in sim_module.__all__}
    assert all("__doc__" in vars(fault) and not (fault.__doc__ or "").startswith(fault.__name__) for fault in public)


# The server


def timed(call: Any) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def wait_until(holds: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.005)


def raw_request(sent: dict[str, Any], extra: str = "") -> bytes:
    data = json.dumps(sent).encode()
    head = f"POST {OPENAI_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(data)}\r\n{extra}\r\n".encode() + data


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65_536), b""))


def connect(sim: Simulator) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(sim.base_url.rpartition(":")[2])), timeout=5)


def test_connections_are_kept_alive(sim: Simulator) -> None:
    """Requests of one session share a connection, whether streamed or not; the next begins after a stream's end."""
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer test-key"
        for number in range(6):
            sent = body(stream=number % 2 == 1)
            assert session.post(sim.base_url + OPENAI_PATH, json=sent, timeout=5).status_code == 200
            assert sim.open_connections == 1
    wait_until(lambda: sim.open_connections == 0)


def test_requests_in_one_write_are_answered_in_order(sim: Simulator) -> None:
    """Two requests sent at once on one connection get two answers, and `Connection: close` ends it."""
    sim.say("first", "second")
    with connect(sim) as client:
        client.sendall(raw_request(body()) + raw_request(body(), "Connection: close\r\n"))
        seen = read_all(client)
    assert 0 < seen.index(b"first") < seen.index(b"second")


def test_a_body_may_wait_for_leave(sim: Simulator) -> None:
    """A client that expects 100-continue gets it before it sends its body."""
    head, _, data = raw_request(body(), "Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with connect(sim) as client:
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(1_000).startswith(b"HTTP/1.1 100")
        client.sendall(data)
        assert client.recv(1_000).startswith(b"HTTP/1.1 200")


def test_what_is_not_http_is_refused(sim: Simulator) -> None:
    """Bytes that are no HTTP get a 400 and the connection closes."""
    with connect(sim) as client:
        client.sendall(b"hello\r\n\r\n")
        seen = read_all(client)
    assert seen.startswith(b"HTTP/1.1 400")


def test_many_slow_streams_at_once(sim: Simulator) -> None:
    """Three hundred streams drip at the same time in little more than the time of one."""
    sim.always(SlowDrip(0.05))
    request = raw_request(body(stream=True), "Connection: close\r\n")
    started = time.monotonic()
    clients = [connect(sim) for _ in range(300)]
    for client in clients:
        client.sendall(request)
    for client in clients:
        with client:
            assert read_all(client).endswith(b"0\r\n\r\n")
    assert time.monotonic() - started < 5
    assert len(sim.requests) == 300


def test_threads_may_use_it_together(sim: Simulator) -> None:
    """Texts queued and taken from many threads are each said once."""
    sim.say(*map(str, range(64)))
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: text(post(sim, body())), range(64)))
    assert sorted(said, key=int) == list(map(str, range(64)))
    assert len(sim.requests) == 64


def test_stop_leaves_nothing_behind() -> None:
    """Stopping in the midst of a stream ends thread and sockets at once; the log stays, and it may start again."""
    threads = threading.active_count()
    sim = Simulator()
    with pytest.raises(RuntimeError):
        _ = sim.base_url
    with sim:
        with pytest.raises(RuntimeError):
            sim.start()
        sim.always(SlowDrip(30))
        client = connect(sim)
        client.sendall(raw_request(body(stream=True)))
        wait_until(lambda: len(sim.requests) == 1)
        url = sim.base_url
        assert timed(sim.stop) < 1
    sim.stop()
    with client, suppress(ConnectionResetError):
        client.settimeout(1)
        assert read_all(client).count(b"data:") == 0
    assert threading.active_count() == threads
    assert len(sim.requests) == 1
    gc.collect()
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url, timeout=1)
    sim.heal()
    with sim:
        assert post(sim, body()).status_code == 200


def test_it_imports_nothing_else_of_the_library() -> None:
    """The simulator is written from the protocol alone."""
    root = Path(sim_module.__file__).parent
    for path in root.rglob("*.py"):
        found = re.findall(r"(?:from|import) (roleplay[\w.]*)", path.read_text("utf-8"))
        allowed = ("roleplay.testing.simulator", "roleplay.errors")  # its own errors are of the one tree
        assert all(name.startswith(allowed) for name in found), path


@pytest.mark.parametrize("end", ["input", "signal"])
def test_it_runs_as_a_process(tmp_path: Path, end: str) -> None:
    """As a process it prints its URL first, records bodies, and stops at the end of its input or on SIGTERM."""
    record = tmp_path / "bodies"
    command = [sys.executable, "-m", "roleplay.testing.simulator", "--key", "k", "--record", str(record)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        sent = json.dumps(body()).encode()
        headers = {"Authorization": "Bearer k", "Content-Type": "application/json"}
        assert requests.post(url + OPENAI_PATH, data=sent, headers=headers, timeout=5).status_code == 200
        if end == "input":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert [base64.b64decode(line) for line in record.read_bytes().splitlines()] == [sent]

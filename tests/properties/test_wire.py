"""What holds of the wire for all inputs: chunks may break anywhere, and nothing that comes can crash it."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from roleplay.domain.context import ContextMessage, Role
from roleplay.domain.conversation import DeltaKind
from roleplay.domain.endpoint import Dialect, Endpoint
from roleplay.domain.settings import Sampling
from roleplay.errors import ChatError
from roleplay.wire.codes import chat_error
from roleplay.wire.heads import Head
from roleplay.wire.recipes import CURRENT
from roleplay.wire.reply import ReplyDecoder
from roleplay.wire.request import parameters, parameters_json
from roleplay.wire.speech import Increments, speech_of

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["2013", "(1008)"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("id", "created", "model", "choices", "usage", "base_resp", "error", "type", "input_sensitive"),
    *("output_sensitive_type", "total_tokens", "prompt_tokens_details", "status_code", "status_msg", "message", "code"),
    *("delta", "index", "finish_reason", "content", "reasoning_content", "reasoning_details", "text", "http_code"),
]
LIES = st.recursive(
    ANYTHING,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=12,
)
WORDS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<", "think>", "</", "\n", " ", "你", "🎐", "\ud83c", "\udf90", "\0", "a", "Hm."]
    ),
    max_size=12,
).map("".join)
PART = st.fixed_dictionaries({}, optional={"content": WORDS, "reasoning_content": WORDS, "role": st.just("")})
EVENT = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"index": st.just(0), "delta": PART}), max_size=1)},
    optional={
        "id": st.sampled_from(["one", "two"]),
        "usage": st.sampled_from([None, {"total_tokens": 0}, {"total_tokens": 5}, {"total_tokens": 6}]),
        "output_sensitive": st.booleans(),
        "base_resp": st.sampled_from([{"status_code": 0}, {"status_code": 1027, "status_msg": "output new_sensitive"}]),
    },
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
TAILS = [
    b"",
    b"data: [DONE]\n\n",
    b'data: {"choices":[{"finish_reason":"stop"}]}\n\n',
    b"data: {",
    b'error: {"code":500,"message":"slot failed"}\n\n',
    b"event: error\ndata: gone\n\n",
    b"data: ping\n\ndata: null\n\ndata: [done]\n\n",
    b"data: \xff\xfe\n\n",
    b":\n",
]
NAMES = st.text(min_size=1, max_size=5).filter(lambda text: text.strip() and text.isprintable())
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
MESSAGES = st.lists(st.builds(ContextMessage, st.sampled_from(list(Role)), NAMES, TEXTS), max_size=8)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a stream, some of them cut or broken."""
    end = draw(ENDS)
    events = [b"data: " + json.dumps(event).encode() + end * 2 for event in draw(st.lists(EVENT, max_size=5))]
    raw = b"".join(events) + draw(st.sampled_from(TAILS))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\r\n"])) + raw


def outcome(
    chunks: list[bytes],
    status: int = 200,
    content_type: str = "text/event-stream",
    limits: tuple[int, int] = (2000, 2000),
) -> dict[str, Any]:
    """Tell all that a caller can see of an answer; any error but ours is raised."""
    decoder = ReplyDecoder(
        Head(status, {"content-type": content_type}), streamed=True, line_limit=limits[0], reply_limit=limits[1]
    )
    said = []
    error: ChatError | None = None
    for chunk in chunks:
        said += decoder.feed(chunk)
    try:
        said += decoder.finish()
    except ChatError as caught:
        error = caught
    assert all(piece.text for piece in said)
    return {
        "said": ["".join(piece.text for piece in said if piece.kind is kind) for kind in DeltaKind],
        "whole": (decoder.speech, decoder.reasoning, decoder.repaired, decoder.done),
        "facts": {name: value for name, value in asdict(decoder.facts).items() if name != "secrets"},
        "error": error and (type(error), error.to_dict(), getattr(error, "raw", None)),
    }


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """Cut ``raw`` at ``places``, of which some may be the same or beyond its end."""
    edges = [0, *sorted(places), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(
    streams(),
    st.lists(st.integers(0, 300), max_size=12),
    st.sampled_from([(2000, 2000), (2000, 2000), (150, 2000), (2000, 20)]),
)
def test_chunks_may_break_anywhere(raw: bytes, places: list[int], limits: tuple[int, int]) -> None:
    """However a stream is cut, down to single bytes, words, facts and errors are the same."""
    whole = outcome([raw], limits=limits)
    assert outcome(cut(raw, places), limits=limits) == whole
    assert outcome([bytes([byte]) for byte in raw], limits=limits) == whole


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60) | LIES.map(lambda lie: json.dumps(lie).encode()),
    st.sampled_from([b"", b"data:", b"data: {", b"\xef\xbb\xbf{", b"<html>"]),
    st.sampled_from([200, 200, 302, 400, 500]),
    st.sampled_from(["text/event-stream", "application/json", "text/html", ""]),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_any_bytes_give_words_or_a_typed_error(
    raw: bytes, start: bytes, status: int, content_type: str, places: list[int]
) -> None:
    """Whatever bytes come, at whichever status and type, only errors of ours are raised, and cuts change nothing."""
    data = start + raw + b"\n\n"
    assert outcome(cut(data, places), status, content_type) == outcome([data], status, content_type)


@settings(max_examples=150, deadline=None)
@given(st.lists(LIES, max_size=3))
def test_any_json_gives_words_or_a_typed_error(lies: list[Any]) -> None:
    """Whatever JSON comes, as events or as a body, is read, passed over, or a typed error that is clean text."""
    stream = b"".join(b"data: " + json.dumps(lie).encode() + b"\n\n" for lie in lies)
    for seen in (outcome([stream]), outcome([json.dumps(lies).encode()], content_type="application/json")):
        json.dumps(seen["facts"]["response_id"]).encode()
        assert seen["error"] is not None or seen["said"][0]
        assert "\0" not in "".join(seen["said"])
        "".join(seen["said"]).encode()


@settings(deadline=None)
@given(st.integers(100, 599), LIES | st.text(max_size=50))
def test_any_refusal_is_a_typed_error(status: int, body: object) -> None:
    """A refusal of any content has a sentence that can be stored."""
    error = chat_error(status, body)
    assert error.message
    json.dumps(error.to_dict()).encode()
    error.message.encode()


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.lists(st.integers(0, 100), max_size=4),
)
def test_what_is_said_is_what_was_sent(text: str, places: list[int]) -> None:
    """Text without tags comes back as it went in, less the white space before it, from a body and from a stream."""
    if "<think>" in text or "</think>" in text or not text.strip():
        return
    edges = [0, *sorted(places), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    stream = b"".join(
        b"data: " + json.dumps({"choices": [{"delta": {"content": piece}}]}).encode() + b"\n\n" for piece in pieces
    )
    body = json.dumps({"choices": [{"message": {"content": text}}]}, ensure_ascii=False).encode()
    for seen in (outcome([stream, b"data: [DONE]\n\n"]), outcome([body], content_type="application/json")):
        assert seen["whole"][:3] == (text.lstrip(), "", False)


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=6))
def test_snapshots_give_their_text_once(pieces: list[str]) -> None:
    """Texts that each contain all before them give the last of them."""
    snapshots = ["".join(pieces[: count + 1]) for count in range(len(pieces))]
    increments = Increments()
    assert "".join(increments.feed(snapshot) for snapshot in snapshots) == snapshots[-1]


@settings(deadline=None)
@given(
    st.builds(
        Sampling,
        temperature=st.none() | st.floats(0, 1, exclude_min=True),
        top_p=st.none() | st.floats(0, 1, exclude_min=True),
        max_completion_tokens=st.none() | st.integers(1, 2048),
    ),
    st.booleans(),
    st.sampled_from(list(Dialect)),
    MESSAGES,
)
def test_stored_parameters_give_the_same_bytes(
    sampling: Sampling, stream: bool, dialect: Dialect, messages: list[ContextMessage]
) -> None:
    """Parameters stored as text and loaded again make byte-identical text and bodies."""
    chosen = parameters(Endpoint("MiniMax-M2.7"), sampling, stream=stream)
    stored = json.loads(parameters_json(chosen))
    assert parameters_json(stored) == parameters_json(chosen)
    body = CURRENT.encode(dialect, messages, chosen)
    assert CURRENT.encode(dialect, messages, stored) == body
    whole = {"model": chosen["model"], "messages": CURRENT.write(dialect, messages)} | chosen
    assert body == json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


@settings(deadline=None)
@given(MESSAGES, st.sampled_from(list(Dialect)))
def test_a_written_list_is_always_valid(messages: list[ContextMessage], dialect: Dialect) -> None:
    """One system message at most and first, names clean, no blank content, no neighbours of one speaker's role."""
    written = CURRENT.write(dialect, messages)
    roles = [one["role"] for one in written]
    assert "system" not in roles[1:]
    assert all(one["content"].strip() for one in written)
    assert all(one["name"].strip() == one["name"] != "" for one in written if "name" in one)
    turns = [role for role in roles if role in {"user", "assistant"}]
    assert all(one != other for one, other in pairwise(turns))
    if dialect is Dialect.STRICT:
        assert turns == roles
        assert turns[:1] in ([], ["user"])
        assert [list(one) for one in written] == [["role", "content"]] * len(written)


@settings(deadline=None)
@given(MESSAGES, NAMES, TEXTS)
def test_the_strict_form_loses_no_word(messages: list[ContextMessage], name: str, text: str) -> None:
    """What the folded form says is said in the same order; a list that ends with a user's words still does."""
    messages = [*messages, ContextMessage(Role.USER, name, f"Well? {text}")]
    folded, strict = (CURRENT.write(dialect, messages) for dialect in (Dialect.OPENAI, Dialect.STRICT))
    said = "\n\n".join(one["content"] for one in folded)
    assert "\n\n".join(one["content"] for one in strict).removeprefix("…\n\n") == said.removeprefix("…\n\n")
    assert [one["role"] for one in strict][-1:] == [one["role"] for one in folded][-1:]


@given(WORDS)
def test_no_thinking_is_left(text: str) -> None:
    """The speech of a text is what a reply with the same text says, without a tag; taken again, it stays as it is."""
    body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    speech = speech_of(clean)
    assert "<think>" not in speech
    assert "</think>" not in speech
    assert speech_of(speech) == speech
    if "<think>" in clean or "</think>" in clean:
        said = outcome([body], content_type="application/json")["whole"][0]
        while said != (bare := said.replace("<think>", "").replace("</think>", "")):
            said = bare
        assert speech == said

"""Answers of the service, byte by byte: what is said, what is known, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from roleplay.domain.conversation import DeltaKind
from roleplay.domain.usage import BaseResp, Sensitivity, Usage
from roleplay.errors import (
    BadReplyError,
    ChatAuthError,
    ChatError,
    ChatRequestError,
    ChatUnavailableError,
    ContentFilteredError,
    EmptyReplyError,
)
from roleplay.wire.heads import Head
from roleplay.wire.reply import ReplyDecoder, ReplyFacts

DATA = Path(__file__).parents[2] / "data" / "wire"
DONE = b"data: [DONE]\n\n"
QUIET = Sensitivity(
    input_sensitive=False,
    input_sensitive_type=0,
    output_sensitive=False,
    output_sensitive_type=0,
    output_sensitive_int=0,
)


class Reply(NamedTuple):
    speech: str
    reasoning: str
    facts: ReplyFacts
    repaired: bool
    error: ChatError | None


def decode(*chunks: bytes, status: int = 200, content_type: str = "text/event-stream", **limits: int) -> Reply:
    """Feed an answer as the caller does, and tell what came of it."""
    decoder = ReplyDecoder(Head(status, {"content-type": content_type}), streamed=True, **limits)
    said = []
    error = None
    try:
        for chunk in chunks:
            said += decoder.feed(chunk)
            if decoder.done:
                break
        said += decoder.finish()
    except ChatError as caught:
        error = caught
    speech, reasoning = (
        "".join(one.text for one in said if one.kind is kind) for kind in (DeltaKind.SPEECH, DeltaKind.REASONING)
    )
    return Reply(speech, reasoning, decoder.facts, decoder.repaired, error)


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    """Make a chunk of a stream."""
    choice: dict[str, Any] = {"index": 0}
    if delta is not None:
        choice["delta"] = delta
    if finish is not None:
        choice["finish_reason"] = finish
    return b"data: " + json.dumps({"choices": [choice], **fields}).encode() + b"\n\n"


def says(text: str, finish: str | None = None) -> bytes:
    return event({"content": text}, finish)


def body(content: Any, **fields: Any) -> bytes:
    """Make a whole completion."""
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}], **fields}).encode()


# captures ------------------------------------------------------------------------------------------------------------


def test_m2_her_whole() -> None:
    """The vendor's sample of M2-her gives its text and every fact in it."""
    reply = decode((DATA / "m2_her.json").read_bytes(), content_type="application/json; charset=utf-8")
    assert (reply.speech, reply.reasoning, reply.error, reply.repaired) == ("…", "", None, False)
    assert reply.facts == ReplyFacts(
        response_id="05b81ca0cde9e60c3ae4ce7f60103250",
        response_created=1768483232,
        model_answered="M2-her",
        finish_reason="stop",
        choice_index=0,
        usage=Usage(prompt_tokens=176, completion_tokens=23, total_tokens=199),
        sensitivity=QUIET,
        base_resp=BaseResp(status_code=0),
    )


@pytest.mark.parametrize(
    ("file", "speech"), [("m27_think", "56"), ("m25_plain", "56"), ("reasoning_split", "clean answer")]
)
def test_m2x_whole(file: str, speech: str) -> None:
    """Speech and reasoning are told apart in every shape that the M2.x servers use."""
    reply = decode((DATA / f"{file}.json").read_bytes(), content_type="application/json")
    assert (reply.speech, reply.reasoning.strip().strip("…"), reply.error) == (
        speech,
        "reasoning" * (speech == "56"),
        None,
    )
    assert reply.facts.usage.total_tokens == 116
    assert reply.facts.base_resp is not None
    assert reply.facts.base_resp.status_code == 0


def test_m27_tail() -> None:
    """The live tail of a stream gives text, finish reason and usage, cached and reasoning tokens among it."""
    reply = decode((DATA / "m27_tail.sse").read_bytes())
    assert (reply.speech, reply.error, reply.facts.finish_reason) == ("… ∎", None, "stop")
    assert reply.facts.usage == Usage(
        prompt_tokens=769, completion_tokens=116, total_tokens=885, cached_tokens=443, reasoning_tokens=37
    )


def test_m27_first_chunk_alone_is_a_cut_stream() -> None:
    """What came before the cut is given; the error says that the same request may succeed later."""
    reply = decode((DATA / "m27_first_chunk.sse").read_bytes())
    assert (reply.reasoning, reply.facts.response_id) == ("用户用", "06379c22…")
    assert isinstance(reply.error, ChatUnavailableError)
    assert str(reply.error) == "the stream ended before the reply was complete"


def test_native_tail_is_not_said_twice() -> None:
    """The whole message at the end of a native stream adds facts and no text; the end of the bytes ends it."""
    reply = decode((DATA / "native_v2_stream.sse").read_bytes())
    assert (reply.speech, reply.error) == ("你好！…", None)
    assert (reply.facts.usage, reply.facts.finish_reason) == (Usage(total_tokens=73), "stop")


def test_older_servers_zeros_are_not_usage() -> None:
    """All-zero usage in every chunk means that nothing was reported."""
    reply = decode((DATA / "older_server.sse").read_bytes())
    assert (reply.speech, reply.error, reply.facts.usage) == ("你好！…", None, Usage())


@pytest.mark.parametrize("streamed_type", ["application/json", "text/event-stream", ""])
def test_an_envelope_instead_of_a_stream(streamed_type: str) -> None:
    """An error body in place of a stream is read, whatever type it claims."""
    reply = decode((DATA / "base_resp_1004.json").read_bytes(), content_type=streamed_type)
    assert isinstance(reply.error, ChatAuthError)
    assert (reply.error.code, reply.error.status) == (1004, 200)
    assert reply.facts.base_resp is not None
    assert reply.facts.base_resp.status_code == 1004


def test_a_real_http_error() -> None:
    """An HTTP error status gives the typed error of its envelope."""
    reply = decode((DATA / "http_400_unknown_model.json").read_bytes(), status=400, content_type="application/json")
    assert isinstance(reply.error, ChatRequestError)
    assert (reply.error.code, reply.error.status) == (2013, 400)


# the other form ------------------------------------------------------------------------------------------------------


def test_a_whole_completion_instead_of_a_stream() -> None:
    """A server that ignores ``stream`` is understood."""
    assert decode(body("Welcome."), content_type="application/json").speech == "Welcome."


def test_a_stream_instead_of_a_whole_completion() -> None:
    """A server that always streams is understood, even under another content type."""
    decoder = ReplyDecoder(Head(200, {"content-type": "application/json"}), streamed=False)
    assert [one.text for one in decoder.feed(says("Welcome.", "stop") + DONE)] == ["Welcome."]
    assert decoder.done
    assert decoder.finish() == []


def test_an_html_page_is_no_reply() -> None:
    """A page at status 200 cannot be read; at an error status its title is the message."""
    page = b"<html><head><title>Sign in</title></head></html>"
    good = decode(page, content_type="text/html")
    assert type(good.error) is BadReplyError
    assert good.error.raw.startswith("<html>")
    bad = decode(page, status=503, content_type="text/html")
    assert isinstance(bad.error, ChatUnavailableError)
    assert bad.error.message == "Sign in"


def test_an_error_status_with_an_event() -> None:
    """An error sent as an event under an error status is found."""
    reply = decode(b'event: error\ndata: {"error":{"message":"no (1004)"}}\n\n', status=500)
    assert isinstance(reply.error, ChatAuthError)


def test_an_endless_error_page_is_not_read_to_its_end() -> None:
    """Enough of an error body is enough."""
    decoder = ReplyDecoder(Head(502, {"content-type": "text/plain"}), streamed=True)
    decoder.feed(b"x" * 60_000)
    assert not decoder.done
    decoder.feed(b"x" * 60_000)
    assert decoder.done
    with pytest.raises(ChatUnavailableError, match="xxx"):
        decoder.finish()


@pytest.mark.parametrize("chunks", [(), (b"",), (b" \n",), (b"da",), (b'{"choices":[{"mess',)])
def test_bytes_that_end_too_early(chunks: tuple[bytes, ...]) -> None:
    """Nothing, and half a body, may succeed later."""
    reply = decode(*chunks, content_type="application/json")
    assert isinstance(reply.error, BadReplyError if chunks == (b"da",) else ChatUnavailableError)


# streams -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_framing(end: bytes, mark: bytes) -> None:
    """Line ends, a byte order mark, comments, other fields, no space, and data over several lines are all read."""
    lines = [
        b": hello",
        b"event: message",
        b'data:{"choices":[{"delta":{"content":"a"}}]}',
        b"",
        b"retry: 5",
        b"data",
        b"",
        b'data: {"choices":',
        b'data: [{"delta":{"content":"b"}, "finish_reason":"stop"}]}',
        b"",
        b"data: [DONE]",
    ]
    reply = decode(mark + end.join(lines))
    assert (reply.speech, reply.error) == ("ab", None)


def test_nothing_is_read_after_done() -> None:
    """``[DONE]`` ends the reply even where a server goes on."""
    decoder = ReplyDecoder(Head(200, {"content-type": "text/event-stream"}), streamed=True)
    assert [one.text for one in decoder.feed(says("a") + DONE + says("b"))] == ["a"]
    assert decoder.done
    assert decoder.whole
    assert decoder.feed(says("c")) == []
    assert (decoder.finish(), decoder.finish()) == ([], [])


def test_an_open_last_event_counts_when_it_is_whole() -> None:
    """An event without its empty line is read; half an event after the text says nothing."""
    assert decode(says("a", "stop") + event(None, usage={"total_tokens": 7}).rstrip()).facts.usage.total_tokens == 7
    assert decode(says("a", "stop") + b'data: {"usage":{"tot').error is None
    assert isinstance(decode(says("a") + b'data: {"choices":[').error, ChatUnavailableError)


def test_a_stream_without_done_and_finish_reason_was_cut() -> None:
    """The end of the bytes is the end of a reply only when the service has said so."""
    assert decode(says("a")).error is not None
    assert decode(says("a"), DONE).error is None
    assert decode(says("a"), says("", "length")).error is None


def test_a_final_message_speaks_where_nothing_was_streamed() -> None:
    """The text of the whole message is used when no delta had any."""
    message = b"data: " + body("<think>Hm.</think>Welcome.") + b"\n\n"
    assert decode(event({"role": "", "content": ""}), message)[:2] == ("Welcome.", "Hm.")
    assert decode(says("Wel"), message)[:2] == ("Wel", "")


def test_the_last_usage_counts() -> None:
    """Usage that grows from chunk to chunk is not added up; a last zero does not undo it."""
    chunks = [event({"content": "a"}, usage={"total_tokens": n, "prompt_tokens": 5}) for n in (6, 7)]
    reply = decode(*chunks, event({}, "stop", usage={"total_tokens": 0}), DONE)
    assert reply.facts.usage == Usage(prompt_tokens=5, total_tokens=7)


def test_cache_counts_have_two_names() -> None:
    """What a request put into and took from the cache is read from either form."""
    usage = {"total_tokens": 9, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0}
    assert decode(body("a", usage=usage)).facts.usage == Usage(total_tokens=9, cached_tokens=4, cache_write_tokens=0)


def test_one_choice_is_read() -> None:
    """Of several replies the first that began is read."""
    chunk = {"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]}
    reply = decode(b"data: " + json.dumps(chunk).encode() + b"\n\n", DONE)
    assert (reply.speech, reply.facts.choice_index) == ("b", 1)


def test_a_refusal_in_the_middle_keeps_what_was_said() -> None:
    """Text before a filter's cut is given, then the typed error is raised."""
    stop = b'data: {"base_resp":{"status_code":1027,"status_msg":"output new_sensitive"},"output_sensitive_type":2}\n\n'
    reply = decode(says("Once upon <") + stop + says("more"))
    assert reply.speech == "Once upon <"
    assert isinstance(reply.error, ContentFilteredError)
    assert (reply.error.side, reply.error.category, reply.error.code) == ("output", "pornography", 1027)
    assert reply.facts.sensitivity.output_sensitive_type == 2


def test_flags_are_values() -> None:
    """A raised flag without a refusal raises no error, and stays raised."""
    reply = decode(event({"content": "a"}, output_sensitive=True, output_sensitive_type=42), says("b", "stop"),
                   event(None, output_sensitive=False, output_sensitive_type=0))  # fmt: skip
    assert (reply.speech, reply.error) == ("ab", None)
    assert reply.facts.sensitivity == Sensitivity(output_sensitive=True, output_sensitive_type=42)


# reasoning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "speech", "reasoning"),
    [
        (["<think>Hm.</think>\n\nYes."], "Yes.", "Hm."),
        (["\n<th", "ink>\nHm", ".</thi", "nk>\n", "\n Yes."], "Yes.", "Hm."),
        (["</think>\n\nYes."], "Yes.", ""),
        (["</", "think>Yes."], "Yes.", ""),
        (["<think>Hm", ". "], "", "Hm. "),
        (["Yes.<think>Hm.</think>\n\nNo."], "Yes.\n\nNo.", "Hm."),
        (["Yes. <think>Hm.</think>\n\nNo."], "Yes. No.", "Hm."),
        (["a <", "b </thin", "g> <think"], "a <b </thing> <think", ""),
        (["<think>a <think> b</think>c"], "c", "a <think> b"),
        (["  Yes. "], "Yes. ", ""),
    ],
)
def test_thinking_is_told_apart(pieces: list[str], speech: str, reasoning: str) -> None:
    """Tags are found wherever they break, and what only looks like a tag is speech."""
    reply = decode(*(says(piece) for piece in pieces), DONE)
    assert (reply.speech, reply.reasoning) == (speech, reasoning)


@pytest.mark.parametrize(
    "pieces",
    [
        ["I", " see", " it."],
        ["I", "I see", "I see it."],
        ["I", "I", "I see", "I see it.", "I see it."],
        ["", "I see it."],
    ],
)
def test_reasoning_is_new_text_or_the_whole_so_far(pieces: list[str]) -> None:
    """Both habits of the servers give the reasoning once."""
    reply = decode(*(event({"reasoning_content": piece}) for piece in pieces), says("Yes.", "stop"))
    assert (reply.speech, reply.reasoning.removeprefix("I" * (pieces[0] == pieces[1]))[-8:]) == (
        "Yes.",
        "I see it."[-8:],
    )


def test_snapshots_that_end_are_appended() -> None:
    """A piece that does not begin with the text so far is new text from then on."""
    reply = decode(*(event({"reasoning_content": piece}) for piece in ("a", "ab", "c", "abc")), says("Yes.", "stop"))
    assert reply.reasoning == "abcabc"


def test_reasoning_details_count_only_alone() -> None:
    """The second form of the same reasoning is read where the first is missing."""
    details = {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}, 7]}
    assert decode(event(details), says("Yes.", "stop")).reasoning == "Hm."
    assert (
        decode(event({**details, "reasoning_content": "Oh."}), event(details), says("Yes.", "stop")).reasoning == "Oh."
    )


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (says("<think>Hm.</think>", "length"), "whole length went into reasoning"),
        (says("", "content_filter"), "filtered its output"),
        (event({"content": ""}, "stop", output_sensitive=True), "filtered its output"),
        (event({"content": ""}, "stop", input_sensitive=True), "judged the input"),
        (event({"content": "", "reasoning_content": "Hm."}, "stop"), "reasoned and then said nothing"),
        (says(" \n", "stop"), "gave no reason"),
        (DONE, "gave no reason"),
        (b'{"choices":[]}', "gave no reason"),
        (b'{"choices":null,"input_sensitive":true}', "judged the input"),
    ],
)
def test_an_empty_reply_says_why(answer: bytes, why: str) -> None:
    """An answer without visible text is an error, and reasoning never takes its place."""
    reply = decode(answer)
    assert isinstance(reply.error, EmptyReplyError)
    assert why in reply.error.message
    assert reply.speech == ""


def test_reasoning_is_kept_of_a_whole_reply_that_is_empty() -> None:
    """Where ``finish`` raises, the decoder still has the reasoning."""
    decoder = ReplyDecoder(Head(200, {"content-type": "application/json"}), streamed=False)
    decoder.feed(b'{"choices":[{"message":{"content":"","reasoning_content":"Hm."}}]}')
    with pytest.raises(EmptyReplyError):
        decoder.finish()
    assert (decoder.speech, decoder.reasoning) == ("", "Hm.")


# broken text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "text", "repaired"),
    [
        ([r"\ud83c", r"\udf90!"], "🎐!", False),
        ([r"\ud83c\udf90"], "🎐", False),
        ([r"a\ud83c", "b"], "a\ufffdb", True),
        ([r"a\udf90b"], "a\ufffdb", True),
        ([r"a\ud83c"], "a\ufffd", True),
        ([r"\ud83c", r"\ud83c\udf90"], "\ufffd🎐", True),
        ([r"a\u0000b"], "a\ufffdb", True),
        (["a\ufffdb"], "a\ufffdb", False),
    ],
)
def test_characters_are_mended(pieces: list[str], text: str, repaired: bool) -> None:
    """Halves of an emoji are joined over pieces; what cannot be joined or stored is replaced and marked."""
    for field, kind in (("content", 0), ("reasoning_content", 1)):
        chunks = ['data: {"choices":[{"delta":{"%s":"%s"}}]}\n\n' % (field, piece) for piece in pieces]  # noqa: UP031
        reply = decode(*(chunk.encode() for chunk in chunks), *([] if kind == 0 else [says("x")]), DONE)
        assert (reply[kind], reply.repaired, reply.error) == (text, repaired, None)


def test_broken_bytes_are_mended() -> None:
    """Invalid UTF-8 becomes U+FFFD and the reply is marked; a character cut by a chunk is whole."""
    assert decode(b'data: {"choices":[{"delta":{"content":"a\xffb"}}]}\n\n', DONE)[::3] == ("a\ufffdb", True)
    raw = 'data: {"choices":[{"delta":{"content":"诸葛"}}]}\n\n'.encode()
    assert decode(*(raw[at : at + 1] for at in range(len(raw))), DONE)[::3] == ("诸葛", False)


# limits and lies -----------------------------------------------------------------------------------------------------


def test_a_line_has_a_limit() -> None:
    """A line, or an event of many lines, that never ends is given up."""
    for endless in (says("x" * 200), b"data: x\n" * 100, b"x" * 200):
        reply = decode(says("a"), endless, line_limit=100)
        assert (type(reply.error), reply.speech) == (BadReplyError, "a")
        assert "longer than 100 bytes" in str(reply.error)


def test_a_reply_has_a_limit() -> None:
    """Text beyond the limit is given up, in a stream and in a body."""
    stream = decode(*[says("x" * 50)] * 3, reply_limit=100)
    assert (type(stream.error), stream.speech) == (BadReplyError, "x" * 100)
    whole = decode(body("x" * 100), content_type="application/json", reply_limit=100)
    assert type(whole.error) is BadReplyError


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b"[]",
        b"null",
        b'"text"',
        b"{nonsense}",
        b'{"choices":{"index":0}}',
        b'{"choices":[1]}',
        b'{"choices":[{"delta":"a"}]}',
        b'{"choices":[{"message":[1]}]}',
        b'{"choices":[{"delta":{"content":[5]}}]}',
        b'{"choices":[{"delta":{"reasoning_content":5}}]}',
    ],
)
def test_what_is_no_reply_is_a_bad_reply(data: bytes) -> None:
    """Deep nesting, other JSON and wrong types cannot be read; in a stream, what is no object is passed over."""
    streamed = decode(b"data: " + data + b"\n\n")
    assert type(streamed.error) is (BadReplyError if data.startswith(b"{") else ChatUnavailableError)
    whole = decode(data, content_type="application/json")
    assert isinstance(whole.error, BadReplyError | ChatUnavailableError)
    assert (streamed.error.status, whole.error.status) == (200, 200)


def test_facts_of_a_wrong_type_are_not_facts() -> None:
    """Facts that are no facts are passed over; long and odd words are cut and cleaned."""
    wrong = {
        "id": 5,
        "created": "now",
        "model": "m\x00" + "x" * 500,
        "usage": {"total_tokens": 7, "prompt_tokens": -1, "completion_tokens": 2**70, "prompt_tokens_details": []},
        "input_sensitive": "no",
        "input_sensitive_type": True,
        "base_resp": {"status_code": None},
    }
    facts = decode(body("a", **wrong)).facts
    assert (facts.response_id, facts.response_created, facts.base_resp) == (None, None, None)
    assert facts.model_answered is not None
    assert facts.model_answered.startswith("m xx")
    assert len(facts.model_answered) == 200
    assert (facts.usage, facts.sensitivity) == (Usage(total_tokens=7), Sensitivity())


def test_no_key_in_what_is_shown_of_a_bad_reply() -> None:
    """The first part of an unreadable answer holds no key."""
    reply = decode(b"data: {nonsense sk-abcdef0123456789\n\n")
    assert isinstance(reply.error, BadReplyError)
    assert reply.error.raw == "{nonsense ***"


def test_an_error_is_raised_again() -> None:
    """``finish`` raises the same error each time, and feeding on gives nothing."""
    decoder = ReplyDecoder(Head(200, {"content-type": ""}), streamed=True)
    assert decoder.feed(b"data: {nonsense\n\n") == []
    assert decoder.done
    for _ in range(2):
        with pytest.raises(BadReplyError):
            decoder.finish()
    assert decoder.feed(says("a")) == []

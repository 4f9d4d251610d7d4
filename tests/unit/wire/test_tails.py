"""What ends a reply, and what a server may say before, at and after its end: errors, signs of life, other shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from roleplay.domain.usage import Usage
from roleplay.errors import (
    BadReplyError,
    ChatAuthError,
    ChatError,
    ChatRequestError,
    ChatUnavailableError,
    ContentFilteredError,
    EmptyReplyError,
)
from roleplay.wire.codes import is_too_long
from roleplay.wire.heads import Head
from roleplay.wire.reply import ReplyDecoder
from tests.unit.wire.test_reply import DONE, body, decode, event, says


def data(value: Any) -> bytes:
    """An event that holds a value."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def choices(*several: dict[str, Any], **fields: Any) -> bytes:
    """An event with these choices."""
    return data({"choices": list(several), **fields})


ERROR = {"code": 500, "message": "slot failed", "type": "server_error"}
ERRORS: dict[str, bytes] = {
    "field, JSON": b"error: " + json.dumps(ERROR).encode() + b"\n\n",
    "field, wrapped": b"error:" + json.dumps({"error": ERROR}).encode() + b"\n\n",
    "field, text": b"error: slot failed\n\n",
    "field beside data": b'error: slot failed\ndata: {"choices":[]}\n\n',
    "event, flat": b"event: error\ndata: " + json.dumps(ERROR).encode() + b"\n\n",
    "event, text": b"event: error\ndata: slot failed\n\n",
    "event, string": b'event: error\ndata: "slot failed"\n\n',
    "event, other case": b"event: Stream_Error\r\ndata: slot failed\r\n\r\n",
    "event after its data": b"data: slot failed\nevent: error\n\n",
    "object": data({"object": "error", **ERROR}),
    "type": data({"type": "error", "message": "slot failed"}),
    "type, wrapped": data({"type": "error", "error": {"type": "api_error", "message": "slot failed"}}),
    "text": data({"error": "slot failed"}),
    "wrapped": data({"error": ERROR}),
    "with a choice": choices({"index": 0, "delta": {"content": ""}, "finish_reason": "error"}, error=ERROR),
    "of a choice": choices({"index": 0, "delta": {}, "finish_reason": "error", "error": ERROR}),
    "detail": data({"detail": "slot failed"}),
    "flat": data({"message": "slot failed", "code": 500}),
    "flat, words": data({"code": "InternalError", "message": "slot failed", "request_id": "1"}),
    "errors": data({"success": False, "errors": [{"code": 1000, "message": "slot failed"}]}),
    "other names": data({"error_code": 500, "error_msg": "slot failed"}),
    "a code of its own": data({"error_code": 18, "error_msg": "slot failed"}),
    "a short name": data({"errcode": 40001, "errmsg": "slot failed"}),
    "event, failed": b"event: response.failed\ndata: slot failed\n\n",
    "text, the word inside": b"data: upstream connect error: slot failed\n\n",
    "text, a sentence": b"data: An error occurred: slot failed\n\n",
    "no empty line behind": data({"error": ERROR})[:-1],
    "in a list": data([{"error": ERROR}]),
    "no field name": json.dumps({"error": ERROR}).encode() + b"\n\n",
    "text that says so": b"data: Error: slot failed\n\n",
    "string that says so": data("[ERROR] slot failed"),
}


@pytest.mark.parametrize("form", ERRORS)
@pytest.mark.parametrize("done", [b"", DONE])
def test_an_error_in_a_stream_is_an_error(form: str, done: bytes) -> None:
    """In whichever form, with or without text before and an end after; the words are the service's, the text stays."""
    for before, speech in ((b"", ""), (says("Once upon"), "Once upon")):
        reply = decode(before + ERRORS[form] + says(" a time.") + done)
        assert isinstance(reply.error, ChatUnavailableError)
        assert "slot failed" in reply.error.message
        assert (reply.speech, reply.error.status) == (speech, 200)


@pytest.mark.parametrize(
    "form",
    [form for form, raw in ERRORS.items() if raw.startswith(b"data: ") and not raw.startswith(b"data: slot")],
)
def test_an_error_in_a_body_is_an_error(form: str) -> None:
    """The same object as a whole answer."""
    reply = decode(ERRORS[form].removeprefix(b"data: ").strip(), content_type="application/json")
    assert isinstance(reply.error, ChatUnavailableError)
    assert "slot failed" in reply.error.message


def test_text_beside_an_error_is_kept() -> None:
    """What was said before a choice broke off stays, in a body and in an event; filtered text does not."""
    broken = {"index": 0, "message": {"content": "Once upon"}, "finish_reason": "error", "error": ERROR}
    reply = decode(json.dumps({"choices": [broken]}).encode(), content_type="application/json")
    assert isinstance(reply.error, ChatUnavailableError)
    decoder = ReplyDecoder(Head(200, {"content-type": "application/json"}), streamed=False)
    decoder.feed(json.dumps({"choices": [broken]}).encode())
    with pytest.raises(ChatUnavailableError):
        decoder.finish()
    assert decoder.speech == "Once upon"
    filtered = {"base_resp": {"status_code": 1027, "status_msg": "output"}, "choices": [{"delta": {"content": "x"}}]}
    assert isinstance((cut := decode(says("Once ") + data(filtered))).error, ContentFilteredError)
    assert cut.speech == "Once "


@pytest.mark.parametrize(
    "raw",
    [
        b'error: {"code":400,"message":"the request exceeds the available context size. try increasing it"}\n\n',
        b"error: the prompt is too long\n\n",
        data({"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 40303}),
        data({"error": "too many tokens"}),
    ],
)
def test_too_long_is_a_refusal_of_the_request(raw: bytes) -> None:
    """Where the words say that the request is too long, it is known as that, so that a shorter one is made."""
    reply = decode(raw + DONE)
    assert isinstance(reply.error, ChatRequestError)
    assert is_too_long(reply.error)


def test_an_error_keeps_its_class() -> None:
    """The code inside an error decides, as it does at an HTTP status."""
    assert isinstance(decode(b'error: {"code":401,"message":"no"}\n\n').error, ChatAuthError)
    assert isinstance(decode(data({"object": "error", "message": "no", "code": 400})).error, ChatRequestError)


@pytest.mark.parametrize(
    "raw",
    [
        data({"choices": [], "error": None}),
        data({"choices": [{"delta": {}}], "error": {"code": 0, "message": ""}}),
        data({"choices": [{"delta": {}}], "error": ""}),
        data({"message": "processing", "code": 200}),
        data({"status": "queued", "message": "wait"}),
        b"error: null\ndata: {}\n\n",
        b"event: message\ndata: {}\n\n",
    ],
)
def test_what_is_no_error(raw: bytes) -> None:
    """Empty fields and codes of success say nothing."""
    assert decode(says("a") + raw + says("b", "stop"))[::4] == ("ab", None)


@pytest.mark.parametrize("form", [*ERRORS.values(), b"data: {broken\n\n", data({"choices": 5}), b"x" * 300 + b"\n\n"])
def test_what_comes_after_the_end_spoils_nothing(form: bytes) -> None:
    """An error, broken JSON or an endless line after a finish reason leaves the reply whole."""
    reply = decode(says("Welcome.", "stop") + form, line_limit=250)
    assert (reply.speech, reply.error, reply.facts.finish_reason) == ("Welcome.", None, "stop")


def test_facts_come_after_the_end() -> None:
    """Usage after the end counts, also behind an event that cannot be read; one that is no usage is not reported."""
    tail = event({}, "stop") + b"data: {broken\n\n" + data({"choices": [], "usage": {"total_tokens": 7}}) + DONE
    assert decode(says("a") + tail).facts.usage == Usage(total_tokens=7)
    for usage in ("many", [1], {"total_tokens": "7"}, {"total_tokens": 7.5}, -1):
        reply = decode(says("a", "stop") + data({"choices": [], "usage": usage}) + DONE)
        assert (reply.error, reply.facts.usage) == (None, Usage())


@pytest.mark.parametrize(
    "sign",
    [
        *(b": keepalive\n\n", b":\n\n", b"data:\n\n", b"data: : keepalive\n\n", b"data: ping\n\n"),
        *(b"data: null\n\n", b"data: {}\n\n", b"data: []\n\n", b'data: ""\n\n', b"data: 1\n\n", b"id: 4\n\n"),
        *(b"event: ping\ndata: {}\n\n", b"event: ping\n\n", b"retry: 3\n\n", b"\n\n", b'data: {"type":"ping"}\n\n'),
    ],
)
def test_signs_of_life_are_passed_over(sign: bytes) -> None:
    """Before, within and after a reply."""
    reply = decode(sign + says("a") + sign + says("b", "stop") + sign + DONE)
    assert (reply.speech, reply.error) == ("ab", None)


@pytest.mark.parametrize(
    "end",
    [b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"data: [done]\n\n", b"data: [ DONE ]\r\n\r\n", b'data: "[DONE]"\n\n'],
)
def test_the_end_in_its_forms(end: bytes) -> None:
    """Blanks, case and quotes do not matter; nothing after it is read."""
    assert decode(says("a") + end + says("b"))[::4] == ("a", None)


def test_a_field_name_twice_is_read() -> None:
    """A proxy that wraps an event into another loses no word."""
    assert decode(b"data: " + says("a", "stop")).speech == "a"


@pytest.mark.parametrize("broken", [b'data: {"choices":[{"delta":{"content":"b\n\n', b"data: {nonsense}\n\n"])
def test_a_broken_object_before_the_end_is_a_loss(broken: bytes) -> None:
    """A word may be lost, so that the reply is not complete."""
    reply = decode(says("a") + broken + says("c", "stop") + DONE)
    assert (reply.speech, type(reply.error)) == ("a", BadReplyError)


@pytest.mark.parametrize("word", ["", " ", "null", "None", None, 5])
def test_no_finish_reason_is_no_end(word: Any) -> None:
    """A blank reason, or a word for none, does not end a reply."""
    chunk = choices({"index": 0, "delta": {"content": "a"}, "finish_reason": word})
    assert isinstance(decode(chunk).error, ChatUnavailableError)
    assert decode(chunk + DONE).facts.finish_reason is None


# choices -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize("message", [False, True])
def test_an_index_that_counts_up(first: int, message: bool) -> None:
    """One choice in an event is ours; a message beside its delta repeats it and ends nothing."""
    words = ["Once ", "upon ", "a ", "time."]
    chunks = [
        choices({"index": first + at, "delta": {"content": one}} | ({"message": {"content": one}} if message else {}))
        for at, one in enumerate(words)
    ]
    assert decode(*chunks, DONE)[::4] == ("Once upon a time.", None)
    cut = decode(*chunks[:2])
    assert (cut.speech, type(cut.error)) == ("Once upon ", ChatUnavailableError)


def test_of_several_choices_the_first_that_began() -> None:
    """Whatever their order; after our end another choice adds no word."""
    one, two = ({"index": index, "delta": {"content": text}} for index, text in ((1, "a"), (0, "x")))
    assert decode(choices(one, two), choices(two, one), DONE).speech == "aa"
    ended = choices({"index": 1, "delta": {}, "finish_reason": "stop"})
    assert decode(choices(one, two), ended, choices(two), DONE).speech == "a"


def test_messages_in_place_of_deltas() -> None:
    """A server that streams messages, each new text or all so far, loses and doubles nothing."""
    for texts in (["Once ", "upon ", "a time."], ["Once ", "Once upon ", "Once upon a time."]):
        chunks = [choices({"index": 0, "message": {"content": one}}, object="chat.completion.chunk") for one in texts]
        assert isinstance(decode(*chunks).error, ChatUnavailableError)
        assert decode(*chunks, DONE).speech == "Once upon a time."
    last = choices({"index": 0, "message": {"content": "Hi."}, "finish_reason": "stop"}, object="chat.completion")
    assert decode(choices({"message": {"content": "Hi."}}), last).speech == "Hi."
    assert decode(choices({"message": {"content": "Hi."}}, object="chat.completion")).error is None


# the connection ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fed", "complete"),
    [
        (body("a"), True),
        (body("a") + b"\n", True),
        (b'{"error":"no"}', True),
        (body("a")[:-1], False),
        (b"", False),
        (b"5", False),
        (says("a", "stop"), True),
        (says("a") + DONE, True),
        (says("a") + event({}, "stop").rstrip(), True),
        (says("a") + b"error: gone", True),
        (says("a") + b'data: {"choices":[{"fini', False),
        (says("a"), False),
    ],
)
def test_whether_an_answer_is_complete_without_its_connection(fed: bytes, complete: bool) -> None:
    """What can be read to its end is complete; asking twice changes nothing."""
    decoder = ReplyDecoder(Head(200, {"content-type": ""}), streamed=True)
    decoder.feed(fed)
    assert decoder.is_complete() is complete
    assert decoder.is_complete() is complete
    if complete and b"error" not in fed:
        decoder.finish()
        assert decoder.speech == "a"


def test_a_refusal_is_one_without_its_end() -> None:
    """The status says what an error page that breaks off does not."""
    decoder = ReplyDecoder(Head(401, {"content-type": "application/json"}), streamed=False)
    decoder.feed(b'{"error":{"mess')
    assert decoder.is_complete()
    with pytest.raises(ChatAuthError):
        decoder.finish()


# shapes --------------------------------------------------------------------------------------------------------------

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}


@pytest.mark.parametrize(
    ("content", "speech", "reasoning"),
    [
        ([{"type": "text", "text": "Hi."}], "Hi.", ""),
        ([{"type": "text", "text": "Hi"}, {"type": "text", "text": "."}], "Hi.", ""),
        ([THINKING, {"type": "text", "text": "Hi."}], "Hi.", "Hm."),
        ([{"type": "thinking", "thinking": "Hm."}, "Hi."], "Hi.", "Hm."),
        ([{"type": "reasoning", "reasoning": "Hm."}, {"type": "output_text", "text": "Hi."}], "Hi.", "Hm."),
        ([{"type": "reasoning", "text": "Hm."}, {"text": "Hi."}], "Hi.", "Hm."),
        (
            [{"type": "reference", "reference_ids": [1]}, {"type": "image_url"}, {"type": "text", "text": "Hi."}],
            "Hi.",
            "",
        ),
        ({"type": "text", "text": "Hi."}, "Hi.", ""),
    ],
)
def test_content_in_parts(content: Any, speech: str, reasoning: str) -> None:
    """Text is speech, thinking is reasoning, in a stream and in a body; what has no words is passed over."""
    streamed = decode(event({"content": content}), event({}, "stop"), DONE)
    assert (streamed.speech, streamed.reasoning, streamed.error) == (speech, reasoning, None)
    assert decode(body(content), content_type="application/json")[:2] == (speech, reasoning)


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": "Hm."},
        {"reasoning_content": "Hm."},
        {"reasoning_content": "Hm.", "reasoning": "Hm."},
        {"reasoning": "Hm.", "reasoning_details": [{"text": "Hm."}]},
        {"reasoning_content": None, "reasoning": "Hm."},
        {"reasoning_content": "Hm.", "reasoning": {"effort": "low"}},
        {"thinking": "Hm."},
    ],
)
def test_reasoning_has_several_names(fields: dict[str, Any]) -> None:
    """It is read from whichever field has it, and once."""
    assert decode(event({"content": "", **fields}), says("Hi.", "stop"))[:2] == ("Hi.", "Hm.")
    message = {"choices": [{"message": {"content": "Hi.", **fields}}]}
    assert decode(json.dumps(message).encode(), content_type="application/json")[:2] == ("Hi.", "Hm.")


@pytest.mark.parametrize(
    "delta",
    [
        {"refusal": "I cannot."},
        {"content": [{"type": "refusal", "refusal": "I cannot."}]},
        {"content": None, "refusal": "I cannot."},
    ],
)
def test_a_refusal_in_words(delta: dict[str, Any]) -> None:
    """A reply whose only words are a refusal is a typed error that quotes them; words beside it are a reply."""
    reply = decode(event(delta), event({}, "stop"), DONE)
    assert isinstance(reply.error, ContentFilteredError)
    assert (reply.error.side, "I cannot." in reply.error.message) == ("output", True)
    assert decode(event(delta), says("Hi.", "stop"))[::4] == ("Hi.", None)


@pytest.mark.parametrize(
    "delta", [{"tool_calls": [{"index": 0, "function": {"name": "look"}}]}, {"function_call": {"name": "look"}}]
)
def test_a_tool_call_is_no_reply(delta: dict[str, Any]) -> None:
    """The error says so; a tool call beside words leaves the words."""
    reply = decode(event(delta), event({}, "tool_calls"), DONE)
    assert isinstance(reply.error, EmptyReplyError)
    assert "called a tool" in reply.error.message
    assert decode(event({"content": "Hi.", **delta}, "tool_calls")).error is None
    assert decode(event({"content": "Hi.", "tool_calls": []}, "stop")).error is None


@pytest.mark.parametrize("word", ["error", "abort", "insufficient_system_resource"])
def test_a_service_that_breaks_off_before_a_word(word: str) -> None:
    """The same request may succeed later."""
    reply = decode(event({"content": ""}, word), DONE)
    assert isinstance(reply.error, ChatUnavailableError)
    assert word in reply.error.message


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"prompt_cache_hit_tokens": 4}, 4),
        ({"cached_tokens": 4}, 4),
        ({"prompt_tokens_details": {"cached_tokens": 3}, "prompt_cache_hit_tokens": 4}, 3),
        ({"prompt_tokens_details": {"cached_tokens": None}, "cached_tokens": 0}, 0),
    ],
)
def test_usage_has_several_places_and_names(usage: dict[str, Any], cached: int) -> None:
    """In the last event, in its choice, or in a vendor's own field."""
    known = {"prompt_tokens": 19, "completion_tokens": 2, "total_tokens": 21} | usage
    expected = Usage(prompt_tokens=19, completion_tokens=2, total_tokens=21, cached_tokens=cached)
    for last in (
        choices({"index": 0, "delta": {}, "finish_reason": "stop", "usage": known}),
        choices({"index": 0, "delta": {}, "finish_reason": "stop"}, usage=known),
        choices({"index": 0, "delta": {}, "finish_reason": "stop"}, x_groq={"usage": known}),
    ):
        assert decode(says("Hi.") + last + DONE).facts.usage == expected


# think tags ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "speech", "reasoning"),
    [
        ("Be warm.\n</think>\n\nWelcome!", "Welcome!", "Be warm.\n"),
        ("Be warm.</think>Use </think> here.", "Use  here.", "Be warm."),
        ("<think>Hm.</think>The tag </think> ends it.", "The tag  ends it.", "Hm."),
        ("<think>a <think> b</think> c</think>d", "d", "a <think> bc"),
        ("Yes.<think>a <think>b</think> c</think> d", "Yes. d", "a <think>b c"),
        ("Write <think> to begin.", "Write <think> to begin.", ""),
        ("Write <think>\n to <think> begin", "Write <think>\n to <think> begin", ""),
        ("<think>Hm.</think>Yes, <think> it is", "Yes, <think> it is", "Hm."),
        ("Hm.</think>Yes, <think> it is", "Yes, <think> it is", "Hm."),
        (" \n<think>Hm. ", "", "Hm. "),
    ],
)
def test_tags_without_a_partner(text: str, speech: str, reasoning: str) -> None:
    """By one rule, in a body, and in a stream that is cut anywhere."""
    for chunks in ([body(text)], [*(says(letter) for letter in text), DONE]):
        decoder = ReplyDecoder(Head(200, {"content-type": ""}), streamed=True)
        for chunk in chunks:
            decoder.feed(chunk)
        try:
            decoder.finish()
        except EmptyReplyError:
            assert speech == ""
        assert (decoder.speech, decoder.reasoning) == (speech, reasoning)


def test_speech_that_was_given_out_is_taken_back() -> None:
    """A count tells that what was given is no speech; in one chunk, nothing wrong is given at all."""
    decoder = ReplyDecoder(Head(200, {"content-type": ""}), streamed=True)
    decoder.feed(says("Be warm."))
    assert (decoder.speech, decoder.restarts) == ("Be warm.", 0)
    decoder.feed(says("</think>Welcome!"))
    assert (decoder.speech, decoder.reasoning, decoder.restarts) == ("Welcome!", "Be warm.", 1)
    decoder = ReplyDecoder(Head(200, {"content-type": ""}), streamed=True)
    assert [kind.value for kind, _ in decoder.feed(says("Be warm.") + says("</think>Welcome!"))] == [
        "reasoning",
        "speech",
    ]
    assert decoder.restarts == 0


def test_a_cut_reply_keeps_its_open_reasoning() -> None:
    """Only the end of a reply shows that a tag was literal."""
    reply = decode(says("Yes, <think> it is"))
    assert (reply.speech, reply.reasoning, isinstance(reply.error, ChatError)) == ("Yes, ", "it is", True)


def test_reasoning_of_its_own_field_ends_no_speech() -> None:
    """Where the service tells reasoning apart itself, a stray tag in speech is left out."""
    reply = decode(event({"reasoning_content": "Hm."}), says("The tag </think> ends it.", "stop"))
    assert (reply.speech, reply.reasoning) == ("The tag  ends it.", "Hm.")


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
@pytest.mark.parametrize("break_", [b"\n", b"\r\n"])
def test_events_without_an_empty_line_between(break_: bytes, end: bytes) -> None:
    """Each line that holds a whole object is an event, wherever the chunks break."""
    lines = [says("Be "), says("warm.", "stop"), DONE]
    stream = break_.join(line.strip() for line in lines) + end
    for size in (1, 7, len(stream)):
        reply = decode(*(stream[at : at + size] for at in range(0, len(stream), size)))
        assert (reply.speech, reply.error, reply.facts.finish_reason) == ("Be warm.", None, "stop")


def test_an_object_over_several_lines_of_data() -> None:
    """The standard lets one event be written in several lines."""
    lines = json.dumps({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}, indent=1).splitlines()
    reply = decode("".join(f"data: {line}\n" for line in lines).encode() + b"\n")
    assert (reply.speech, reply.error) == ("Hi", None)


@pytest.mark.parametrize("end", [b"\ndata: [DONE]\n\n", b"\n\n[DONE]"])
def test_a_body_with_the_end_of_a_stream(end: bytes) -> None:
    """It is whole."""
    reply = decode(body("Hi") + end)
    assert (reply.speech, reply.error) == ("Hi", None)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ({"success": False, "message": "no such user"}, ChatUnavailableError, "no such user"),
        ({"message": "Invalid API key"}, ChatAuthError, "Invalid API key"),
        ({"title": "Not found"}, ChatUnavailableError, "Not found"),
    ],
)
def test_a_body_with_words_and_no_choices(answer: dict[str, Any], kind: type[ChatError], words: str) -> None:
    """The words are told, since nothing else is there."""
    reply = decode(json.dumps(answer).encode())
    assert (type(reply.error), getattr(reply.error, "message", None)) == (kind, words)


def test_an_error_without_an_empty_line_before_it() -> None:
    """The type of an event belongs to the data behind it, and what was said before is kept."""
    reply = decode(says("Be ").rstrip() + b'\nevent: error\ndata: {"message": "slot failed"}\n\n')
    assert (reply.speech, str(reply.error)) == ("Be ", "slot failed")

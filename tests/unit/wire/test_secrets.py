"""An endpoint's secrets are taken out of what a server sends, however they are written and wherever pieces break."""

from __future__ import annotations

import base64
import binascii
import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roleplay import BadReplyError, ChatError, Endpoint
from roleplay.wire.codes import chat_error
from roleplay.wire.heads import Head, wanted
from roleplay.wire.reply import ReplyDecoder
from roleplay.wire.secrets import NONE, TEXT_LIMIT, SecretFilter, Secrets, secrets_of
from roleplay.wire.words import service_words

KEY = 'hunter2/my+private"key&0'
SECRETS = Secrets([KEY])
PLAIN = Head(200, {"content-type": "text/event-stream"})


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        KEY.upper(),
        quote(KEY),
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        json.dumps(KEY)[1:-1],
        json.dumps(KEY)[1:-1].replace("/", r"\/"),
        html.escape(KEY),
        html.escape(KEY, quote=False),
    ],
)
def test_a_secret_is_found_however_it_is_written(written: str) -> None:
    """As it is, and as URLs, JSON and pages write it."""
    assert SECRETS.in_words(f"Bad key {written}.") == "Bad key ***."
    assert service_words(f"Bad key {written}.", secrets=SECRETS) == "Bad key ***."


@pytest.mark.parametrize("key", [KEY, "sk-abcDEF0123456789/+=xyz", "sk-very\\secret'<0123456789>"])
@pytest.mark.parametrize(
    "write",
    [
        lambda key: "".join(f"\\u{ord(one):04x}" for one in key),
        lambda key: "".join(f"\\u{ord(one):04X}" if one in "+&\"'/<>" else one for one in key.replace("\\", "\\\\")),
        lambda key: "".join(f"\\\\x{ord(one):02x}" for one in key),
        lambda key: json.dumps(json.dumps(json.dumps(key)[1:-1])[1:-1])[1:-1],
        lambda key: "".join(f"%{ord(one):02X}" for one in key),
        lambda key: f"%{ord(key[0]):02x}{quote(key[1:])}",
        lambda key: quote(quote(quote(key, safe=""), safe=""), safe=""),
        lambda key: quote(key, safe="+&"),
        lambda key: "".join(f"&#{ord(one)};" for one in key),
        lambda key: "".join(f"&#x{ord(one):X};" for one in key),
        lambda key: html.escape(html.escape(html.escape(key))),
    ],
)
def test_a_secret_is_found_whichever_of_its_letters_are_escaped(write: Callable[[str], str], key: str) -> None:
    """As a text that is no JSON, or was escaped more than once, may show it."""
    assert Secrets([key]).in_words(f"Bad key {write(key)} here.").replace("\\", "") == "Bad key *** here."


@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:", b"Bearer "])
@pytest.mark.parametrize("pack", [base64.b64encode, base64.urlsafe_b64encode, binascii.hexlify])
def test_a_secret_is_found_where_it_was_packed(pack: Callable[[bytes], bytes], before: bytes) -> None:
    """Wherever it stands in what was packed; the letters that it shares with what is around it stay."""
    packed = pack(before + KEY.encode() + b"?>?>")
    said = SECRETS.in_words(f"Bad {packed.decode()} here.")
    left = "".join(said.removeprefix("Bad ").removesuffix(" here.").split("***"))
    assert "***" in said
    assert len(left) <= len(pack(before + b"?>?>")) + 4


def test_looking_for_secrets_takes_no_long_time() -> None:
    """Whatever a server repeats."""
    for text in ("\\", "\\u0068", "&#104;", "%68", "%25", "&amp;", "hunter2", "h", "&#0", '\\"'):
        began = time.perf_counter()
        SECRETS.in_words((text * TEXT_LIMIT)[:TEXT_LIMIT])
        assert time.perf_counter() - began < 1, text


def test_a_cut_leaves_no_part_of_a_secret() -> None:
    """Neither our own cuts nor those of the server show the long beginning of a secret."""
    for at in range(8, len(KEY)):
        assert SECRETS.in_words(f"Bad key {KEY[:at]}") == "Bad key ***"
    for blanks in range(TEXT_LIMIT - len(KEY) - 1, TEXT_LIMIT):
        assert "h" not in SECRETS.in_words(" " * blanks + KEY)
    for blanks in range(250, 310):
        assert "hunt" not in chat_error(401, {"error": "x" * blanks + " " + KEY}, secrets=SECRETS).message


def test_a_long_secret_that_is_repeated_leaves_no_part() -> None:
    """Words are cut more than once on their way; none of the cuts can leave a part that is not recognised."""
    secret = "".join(f"{number:x}-" for number in range(10_000, 10_400))
    for shape in (lambda text: text, lambda text: {"error": text}, lambda text: {"detail": [{"msg": text}]}):
        error = chat_error(400, shape(f"{secret} " * 40), secrets=Secrets([secret]))
        assert not error.message.replace("*", "").strip()


@pytest.mark.parametrize(("key", "text"), [("none", "none of the nonempty"), ("demo", "demos and a demo")])
def test_a_short_secret_is_replaced_as_a_word_of_errors_alone(key: str, text: str) -> None:
    """A placeholder of few letters is part of many words, and of stories."""
    secrets = Secrets([key])
    assert secrets.in_words(text).count("***") == 1
    assert secrets.in_speech(text) == text
    assert Secrets(["k"]).in_words("k k") == "k k"


def test_words_and_dates_of_headers_and_queries_may_be_said() -> None:
    """A story may hold the title that a header sends; an error hides it all the same."""
    endpoint = Endpoint(
        "m",
        base_url="http://127.0.0.1/v1?api-version=2024-10-21&sig=query%2Fsecret",
        window_tokens=8000,
        api_key="key-0123456789",
        headers={"X-Title": "Winter Road", "X-Token": "token-9876", "Authorization": "Basic basic-credentials"},
    )
    secrets = secrets_of(endpoint)
    said = "The Winter Road of 2024-10-21"
    assert secrets.in_speech(said) == said
    assert secrets.in_words(said) == "The *** of 2024-10-21"
    for value in ("query/secret", "query%2Fsecret", "key-0123456789", "token-9876", "basic-credentials"):
        assert secrets.in_speech(f"It is {value}.") == "It is ***."
        assert secrets.in_words(f"It is {value}.") == "It is ***."
    assert secrets_of(endpoint) is secrets


@given(st.text("hunter2/abc", max_size=12), st.text("2retnuh xyz", max_size=12), st.data())
def test_speech_is_the_same_wherever_its_pieces_break(before: str, after: str, data: st.DataObject) -> None:
    """But for the first three letters of a secret, which may have been given."""
    text = before + KEY + after
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[one:other] for one, other in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    filter_ = SecretFilter(SECRETS)
    said = "".join([*map(filter_.feed, pieces), filter_.flush()])
    whole = SECRETS.in_speech(text)
    assert said in {whole, *(whole.replace("***", KEY[:shown] + "***", 1) for shown in (1, 2, 3))}


@given(st.lists(st.text("abhun .", min_size=1)))
def test_other_speech_is_never_held_back(pieces: list[str]) -> None:
    """Each piece is given when it comes."""
    filter_ = SecretFilter(SECRETS)
    assert [filter_.feed(piece) for piece in pieces] == pieces
    assert filter_.flush() == ""


def test_what_only_begins_like_a_secret_is_given() -> None:
    """At the next piece that shows it, or at the end."""
    filter_ = SecretFilter(SECRETS)
    assert [filter_.feed("The hunt"), filter_.feed("er came"), filter_.feed(" to hunt")] == [
        "The ",
        "hunter came",
        " to ",
    ]
    assert filter_.flush() == "hunt"
    assert SecretFilter(NONE).feed("hunter2") == "hunter2"


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_stream_says_no_secret(field: str) -> None:
    """Neither in pieces nor as a whole, also where a tag stands within it."""
    decoder = ReplyDecoder(PLAIN, streamed=True, secrets=SECRETS)
    said = []
    for letter in f"It is {KEY}.":
        event = {"choices": [{"delta": {field: letter}}]}
        said += decoder.feed(b"data: %b\n\n" % json.dumps(event).encode())
    parts = [f"Or {KEY[:9]}", "<think>hm</think>", f"{KEY[9:]}!"]
    for part in parts:
        event = {"choices": [{"delta": {"content": part}}]}
        said += decoder.feed(b"data: %b\n\n" % json.dumps(event).encode())
    decoder.feed(b"data: [DONE]\n\n")
    assert "private" not in "".join(one.text for one in said if one.kind.value != "speech")
    assert "private" not in decoder.speech + decoder.reasoning
    assert decoder.speech.endswith("Or ***!")


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (401, json.dumps({"error": {"message": f"Bad {KEY}"}})),
        (401, f"Bad {KEY}"),
        (502, f"<title>Bad {html.escape(KEY)}</title>"),
        (200, json.dumps({"base_resp": {"status_code": 1004, "status_msg": f"Bad {KEY}"}})),
        (200, "data: " + json.dumps({"error": f"Bad {KEY}"}) + "\n\n"),
        (200, "error: Bad " + KEY + "\n\n"),
        (200, "{" + KEY + "}"),
        (200, json.dumps({"choices": KEY})),
        (200, json.dumps({"choices": [{"message": {"refusal": f"Bad {KEY}"}, "finish_reason": KEY}], "id": KEY})),
    ],
)
def test_no_error_and_no_fact_holds_a_secret(status: int, data: str) -> None:
    """Whatever the answer, and with it goes every frame that saw its bytes."""
    decoder = ReplyDecoder(Head(status, {}), streamed=True, secrets=SECRETS)
    decoder.feed(data.encode())
    with pytest.raises(ChatError) as failure:
        decoder.finish()
    error = failure.value
    assert "private" not in repr((vars(error), error.args, decoder.facts))
    assert error.__cause__ is error.__context__ is None
    assert {one.name for one in failure.traceback[1:]} == {"finish"}
    assert not isinstance(error, BadReplyError) or "private" not in error.raw


def test_headers_are_handed_on_without_secrets() -> None:
    """A content type can hold one."""
    assert wanted([("content-type", f"text/plain; key={KEY}")], SECRETS) == {"content-type": "text/plain; key=***"}

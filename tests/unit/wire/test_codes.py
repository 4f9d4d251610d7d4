"""Refusals as typed errors: which class, which words, how long to wait, and never a key."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roleplay.domain.conversation import FinishReason
from roleplay.errors import (
    ChatAuthError,
    ChatError,
    ChatQuotaError,
    ChatRequestError,
    ChatUnavailableError,
    ContentFilteredError,
)
from roleplay.wire.codes import CODES, chat_error, is_refusal, is_too_long
from roleplay.wire.heads import wanted
from roleplay.wire.resets import seconds_of_headers, seconds_until_reset
from roleplay.wire.secrets import NONE
from roleplay.wire.words import service_words

DATA = Path(__file__).parents[2] / "data" / "wire"
NOW = datetime(2026, 5, 15, 14, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("file", "status", "kind", "code", "message"),
    [
        ("http_400_unknown_model", 400, ChatRequestError, 2013, "invalid params, unknown model 'x'"),
        ("http_400_context", 400, ChatRequestError, 2013, "invalid params, context window exceeds limit"),
        ("http_401", 401, ChatAuthError, 1004, "login fail: Please carry the API secret key"),
        ("http_422_input", 422, ContentFilteredError, 1026, "input new_sensitive"),
        ("http_422_output", 500, ContentFilteredError, 1027, "output new_sensitive"),
        ("http_429_plan", 429, ChatQuotaError, 2056, "usage limit exceeded, 5-hour usage limit reached"),
        ("http_429_balance", 500, ChatQuotaError, 1008, "insufficient balance"),
        ("http_500_unknown", 500, ChatUnavailableError, 1000, "unknown error, 999"),
        ("http_529", 529, ChatUnavailableError, None, "The server cluster is currently under high load"),
        ("base_resp_1004", 200, ChatAuthError, 1004, "login fail: Please carry the API secret key"),
        ("base_resp_1002", 200, ChatUnavailableError, 1002, "rate limit exceeded(RPM)"),
    ],
)
def test_captures_become_typed_errors(
    file: str, status: int, kind: type[ChatError], code: int | None, message: str
) -> None:
    """Each captured refusal becomes its class, with the service's code and words."""
    body = json.loads((DATA / f"{file}.json").read_text(encoding="utf-8"))
    error = chat_error(status, body)
    assert is_refusal(body)
    assert (type(error), error.code, error.status) == (kind, code, status)
    assert error.message.startswith(message)


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_means_the_same_in_both_envelopes(code: int) -> None:
    """A code gives one class, whichever envelope and status it comes in."""
    native = chat_error(200, {"base_resp": {"status_code": code, "status_msg": "words"}})
    openai = chat_error(418, {"type": "error", "error": {"message": f"words ({code})"}})
    assert type(native) is type(openai) is CODES[code].error
    assert (native.message, openai.message, native.code, openai.code) == ("words", "words", code, code)
    assert native.retryable == CODES[code].retryable


def test_only_passing_troubles_are_retryable() -> None:
    """No code of money, key, content or parameters is worth the same request again."""
    assert {code for code, meaning in CODES.items() if meaning.retryable} == {
        1000, 1001, 1002, 1013, 1024, 1033, 1039, 1041, 2045,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, ChatRequestError),
        (400, ChatRequestError),
        (401, ChatAuthError),
        (402, ChatQuotaError),
        (403, ChatAuthError),
        (404, ChatRequestError),
        (408, ChatUnavailableError),
        (409, ChatUnavailableError),
        (413, ChatRequestError),
        (429, ChatUnavailableError),
        (500, ChatUnavailableError),
        (502, ChatUnavailableError),
        (529, ChatUnavailableError),
    ],
)
@pytest.mark.parametrize("body", ["", {}, {"detail": "no"}, {"error": {"code": 9999}}, [], None])
def test_without_a_code_the_status_decides(status: int, kind: type[ChatError], body: object) -> None:
    """An answer without a known code is judged by its HTTP status, and always has a sentence."""
    error = chat_error(status, body)
    assert type(error) is kind
    assert error.code is None
    assert error.message


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({"error": {"type": "insufficient_balance_error", "message": "pay"}}, ChatQuotaError, None),
        ({"error": {"type": "overloaded_error"}}, ChatUnavailableError, None),
        ({"error": {"message": "bad", "http_code": "400"}}, ChatRequestError, None),
        ({"error": {"message": "slow down", "code": 429}}, ChatUnavailableError, None),
        ({"error": {"message": "no", "code": "1004"}}, ChatAuthError, 1004),
        ({"error": "something broke"}, ChatUnavailableError, None),
        ({"type": "error"}, ChatUnavailableError, None),
        ({"base_resp": {"status_code": 1999, "status_msg": "news"}}, ChatRequestError, 1999),
        ({"base_resp": {"status_code": "1008"}}, ChatQuotaError, 1008),
    ],
)
def test_an_error_inside_a_success_is_judged_by_what_it_says(
    body: dict[str, Any], kind: type[ChatError], code: int | None
) -> None:
    """At HTTP 200 the envelope's own word, status or code decides; an unknown code is not retried."""
    error = chat_error(200, body)
    assert is_refusal(body)
    assert (type(error), error.code) == (kind, code)


@pytest.mark.parametrize(
    "body",
    [{}, {"base_resp": {"status_code": 0}}, {"error": None}, {"base_resp": None}, {"base_resp": {"status_code": True}}],
)
def test_a_success_is_no_refusal(body: dict[str, Any]) -> None:
    """A zero status, a null error and values of a wrong type refuse nothing."""
    assert not is_refusal(body)


def test_a_filter_names_side_and_category() -> None:
    """The error says whose text was judged, and the service's word for why."""
    body = {"base_resp": {"status_code": 1027}, "output_sensitive": True, "output_sensitive_type": 6}
    error = chat_error(200, body)
    assert isinstance(error, ContentFilteredError)
    assert (error.side, error.category, error.message) == ("output", "violence", "output judged sensitive")
    unknown = chat_error(422, {"error": {"message": "input new_sensitive (1026)"}, "input_sensitive_type": 99})
    assert isinstance(unknown, ContentFilteredError)
    assert (unknown.side, unknown.category) == ("input", None)


def test_the_plans_reset_is_seconds_away() -> None:
    """The captured reset time becomes seconds from now."""
    body = json.loads((DATA / "http_429_plan.json").read_text(encoding="utf-8"))
    error = chat_error(429, body, now=NOW)
    assert isinstance(error, ChatQuotaError)
    assert error.retry_after_s == 3600.0


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("resets at 2026-05-15T15:00:00Z (2056)", 3600),
        ("resets at 2026-05-15T23:00:00+08:00", 3600),
        ("It will reset at 2026-05-15 23:00:00 +0800 CST.", 3600),
        ("resets at 2026-05-15 23:00 (UTC+8)", 3600),
        ("resets at 2026-05-15 10:00:00.5-05:00", 3600),
        ("您的限额将在 2026-05-15 15:00:00 重置。", 3600),
        ("Your limit will reset at 2026-05-16", 36000),
        ("reset at 1778857200", 3600),
        ("reset at 1778857200000", 3600),
        ("Your quota will reset after 1h40m15s.", 6015),
        ("Resets in 146h54m51s.", 528891),
        ("try again in 2 hours and 30 minutes", 9000),
        ("Please retry after 500ms", 0.5),
        ("try again in 1.5 seconds", 1.5),
        ("resets at 2026-05-15T13:00:00Z", None),
        ("resets at 2026-06-31T13:00:00Z", None),
        ("resets at 2026-06-30T13:00:00+90:00", None),
        ("rate limit exceeded(RPM)", None),
        ("the model was retired on 2027-01-01", None),
        ("try again later", None),
    ],
)
def test_resets_are_read_in_several_forms(words: str, seconds: float | None) -> None:
    """Durations, dates with and without offset, and Unix times are understood; the rest is left alone."""
    assert seconds_until_reset(words, NOW) == seconds


def test_a_moment_needs_a_now() -> None:
    """Without the time of day a date says nothing, a duration does."""
    assert seconds_until_reset("resets at 2026-05-15T15:00:00Z", None) is None
    assert seconds_until_reset("resets in 5s", None) == 5


@pytest.mark.parametrize(
    "secret",
    [
        "sk-cp-AbCdEf0123456789",
        "sk-ab***wxyz",
        "Bearer AbCdEf0123456789",
        "eyJhbGciOiJSUzI1NiJ9.eyJHcm91cE5hbWUiOiJ4In0.c2lnbmF0dXJl",
        "eyJhbGciOiJSUzI1NiJ9",
        "api_key=AbCdEf0123456789",
        '"Authorization": "Bearer AbCdEf0123456789"',
    ],
)
def test_keys_never_come_back(secret: str) -> None:
    """What looks like a key is not in the error, wherever the service repeats it."""
    error = chat_error(401, {"error": {"message": f"Incorrect API key provided: {secret}, see docs"}})
    page = chat_error(401, f"refused {secret}")
    for shown in (str(error), json.dumps(error.to_dict()), str(page)):
        assert "***" in shown
        assert "0123456789" not in shown
        assert "wxyz" not in shown
        assert "eyJ" not in shown


def test_words_are_short_and_printable() -> None:
    """A message is one line of 300 characters, without control characters and lone surrogates."""
    words = service_words("a\x00b\r\nc\u202ed\ud800" + "x" * 1000)
    assert words.startswith("a b c d\ufffdxxx")
    assert len(words) == 300


def test_a_page_gives_its_title() -> None:
    """An HTML error page says its title, and not its source."""
    page = "<html>\n<head><title>502 Bad\nGateway</title></head><body>nginx</body></html>"
    assert chat_error(502, page).message == "502 Bad Gateway"
    assert chat_error(502, "<p>").message == "the service answered HTTP 502 and gave no reason"
    assert chat_error(502, "upstream connect error").message == "upstream connect error"


@pytest.mark.parametrize("kind", ["invalid_request_error", "BadRequestError", "server_error", "strange"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, ChatAuthError),
        (402, ChatQuotaError),
        (403, ChatAuthError),
        (429, ChatUnavailableError),
        (500, ChatUnavailableError),
        (503, ChatUnavailableError),
        (524, ChatUnavailableError),
    ],
)
def test_a_decisive_status_outweighs_the_type(status: int, expected: type[ChatError], kind: str) -> None:
    """The HTTP status says who is asked to do something, whatever type stands in the body, flat or nested."""
    nested = chat_error(status, {"error": {"message": "Incorrect API key", "type": kind, "code": None}})
    flat = chat_error(status, {"object": "error", "message": "No.", "type": kind, "code": status})
    assert type(nested) is type(flat) is expected


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, ChatQuotaError),
        (429, {"type": "exceeded_current_quota_error"}, ChatQuotaError),
        (429, {"code": "1113"}, ChatQuotaError),
        (403, {"code": "insufficient_user_quota"}, ChatQuotaError),
        (401, {"code": "insufficient_quota"}, ChatAuthError),
        (400, {"code": "billing_hard_limit_reached"}, ChatQuotaError),
        (400, {"code": "Arrearage"}, ChatQuotaError),
        (400, {"code": "invalid_api_key", "type": "invalid_request_error"}, ChatAuthError),
        (400, {"code": "InvalidApiKey"}, ChatAuthError),
        (400, {"message": "API key not valid. Please pass a valid API key."}, ChatAuthError),
        (400, {"code": "rate_limit_exceeded", "type": "tokens"}, ChatUnavailableError),
        (404, {"code": "model_not_found", "type": "invalid_request_error"}, ChatRequestError),
        (400, {"code": "content_filter"}, ContentFilteredError),
        (400, {"code": "content_policy_violation"}, ContentFilteredError),
        (400, {"code": "DataInspectionFailed"}, ContentFilteredError),
        (429, {"code": 429, "status": "RESOURCE_EXHAUSTED"}, ChatUnavailableError),
        (401, {"code": "1002"}, ChatAuthError),
        (500, {"message": "Conversation roles must alternate user/assistant"}, ChatRequestError),
        (200, {"code": "invalid_api_key"}, ChatAuthError),
        (200, {"code": 401, "message": "No auth credentials found"}, ChatAuthError),
        (200, {"code": "rate_limit_exceeded"}, ChatUnavailableError),
        (200, {"code": "model_not_found"}, ChatRequestError),
        (200, {"type": "BadRequestError", "message": "no"}, ChatRequestError),
        (200, {"code": "context_length_exceeded"}, ChatRequestError),
    ],
)
def test_codes_in_words_are_read(status: int, error: dict[str, Any], expected: type[ChatError]) -> None:
    """Codes come before types, quota before rates, and MiniMax's numbers elsewhere count where the status is silent."""
    assert type(chat_error(status, {"error": error})) is expected
    assert type(chat_error(status, {"object": "error", **error, "error": {"param": None}})) is expected


@pytest.mark.parametrize("status", [200, 400, 413, 422, 500, 503])
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Please reduce it.", "code": "context_length_exceeded", "type": "invalid_request_error"}},
        {"message": "Please reduce it.", "type": "invalid_request_error", "code": "context_length_exceeded"},
        {"error": {"code": 400, "message": "no", "type": "exceed_context_size_error"}},
        {"error": {"message": "litellm.ContextWindowExceededError: BadRequestError", "type": None, "code": "400"}},
        {"error": "Trying to keep the first 5000 tokens. The model is loaded with context length of only 4096 tokens."},
        {"code": "400", "error": "This model's maximum prompt length is 4096 but the request contains 5000 tokens."},
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (5000) exceeds the maximum number of tokens (4096)",
                }
            }
        ],
        {"error": {"message": "invalid params, context window exceeds limit (2013)"}},
        {"error": {"message": "requested tokens exceed the context size (1024)"}},
        {"detail": "Prompt length 5000 is greater than max_seq_len 4096"},
        "prompt is too long: 208310 tokens > 200000 maximum",
    ],
)
def test_too_long_at_any_status(status: int, body: object) -> None:
    """What is too long is refused, never unavailable: asked again as it is, it would be refused again."""
    error = chat_error(status, body)
    assert isinstance(error, ChatRequestError)
    assert error.too_long
    assert is_too_long(error)
    assert error.to_dict()["too_long"] is True


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_rate_is_never_too_long(status: int) -> None:
    """Where the status says key or rate, words about tokens do not make a request too long."""
    assert not is_too_long(chat_error(status, {"error": {"message": "too many tokens in the prompt"}}))


@pytest.mark.parametrize("body", ["", {}, "<html><title>413 Request Entity Too Large</title></html>"])
def test_the_status_413_is_too_long(body: object) -> None:
    """Gateways say no more than that."""
    assert is_too_long(chat_error(413, body))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "Not authenticated"}, "Not authenticated"),
        (
            {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {"a": 1}}]},
            "body.model: Field required",
        ),
        (
            {
                "detail": [
                    {"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user'"},
                    {"loc": ["body", "stop"], "msg": "no"},
                ]
            },
            "body.messages.0.role: Input should be 'user'; body.stop: no",
        ),
        ({"detail": {"error": {"message": "deep"}}}, "deep"),
        (
            {"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "Extra inputs"}]}},
            "body.n: Extra inputs",
        ),
        ({"message": ["one", "two"]}, "one; two"),
        ({"error": "just text"}, "just text"),
        ({"error": "Unauthorized", "message": "The token has expired"}, "Unauthorized: The token has expired"),
        ({"errors": [{"message": "first"}, "second"]}, "first; second"),
        ({"msg": "short"}, "short"),
        ({"error": {"msg": "inner"}}, "inner"),
        ([{"error": {"code": 400, "message": "in a list", "status": "INVALID_ARGUMENT"}}], "in a list"),
        ('[{"error": {"message": "in a text"}}]', "in a text"),
        ({"error": {"message": '{"error": {"message": "packed"}}'}}, "packed"),
        (
            {
                "error": {
                    "message": 'litellm.BadRequestError: XException - {"error":{"message":"packed"}}\nModel Group=x'
                }
            },
            "litellm.BadRequestError: XException - packed Model Group=x",
        ),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"upstream"}}'}}},
            "Provider returned error: upstream",
        ),
        ({"error": {"message": None, "type": "overloaded_error"}}, "the service answered HTTP 400 and gave no reason"),
        ({"error": {"message": {"a": {"b": ["c"]}}}}, "the service answered HTTP 400 and gave no reason"),
        ("upstream connect error", "upstream connect error"),
        ("<html><head><title>502 Bad Gateway</title>", "502 Bad Gateway"),
        ({"error": {"message": "<html><title>Blocked</title></html>"}}, "Blocked"),
        ("Range of input length should be [1, 30720]", "Range of input length should be [1, 30720]"),
        ("unexpected { at 3", "unexpected { at 3"),
        ({"error": {"message": "x" * 1000}}, "x" * 300),
    ],
)
def test_the_words_are_found(body: object, words: str) -> None:
    """Whatever envelope they come in, the user reads the server's words, and no source of a structure."""
    error = chat_error(400, body)
    assert error.message.startswith(words)
    assert len(error.message) <= 300
    assert not any(sign in error.message for sign in ("{'", "['", '{"', "None"))


def test_no_envelope_is_read_without_end() -> None:
    """Depth and length of what a server sends are bounded, in objects, lists and texts that hold JSON."""
    deep: object = {"message": "the ground"}
    wide: object = [{"error": "x"}] * 100_000
    packed = "the ground"
    for _ in range(200):
        deep = {"error": [deep]}
    for _ in range(8):
        packed = json.dumps({"message": packed})
    for body in (deep, wide, packed, "{" * 60_000, "[" * 60_000, '{"error":' * 9_000):
        assert len(chat_error(400, body).message) <= 300


def test_keys_do_not_come_back_from_within() -> None:
    """A key in JSON inside a text is hidden as any other."""
    raw = json.dumps({"error": {"message": "Incorrect key sk-cp-AbCdEf0123456789"}})
    error = chat_error(400, {"error": {"message": "Provider returned error", "metadata": {"raw": raw}}})
    assert "***" in str(error)
    assert "AbCd" not in str(error)


SOON = "Fri, 15 May 2026 14:00:07 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "3, 3"}, 3.0),
        ({"retry-after": SOON}, 7.0),
        ({"retry-after": "Fri, 15 May 2026 13:00:00 GMT"}, 0.0),
        ({"retry-after": "2026-05-15T14:00:07Z"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "9" * 15}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "30", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"x-ms-retry-after-ms": "80"}, 0.08),
        ({"retry-after": "2", "x-ratelimit-reset-requests": "9s"}, 2.0),
        ({"x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-requests": "2m59.56s"}, 179.56),
        ({"x-ratelimit-reset-requests": "1h2m3s"}, 3723.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-reset-requests": "8.64s",
                "x-ratelimit-reset-tokens": "2",
                "x-ratelimit-remaining-tokens": "0",
            },
            2.0,
        ),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-reset-tokens": "9s",
                "x-ratelimit-remaining-requests": "0",
            },
            1.0,
        ),
        ({"x-ratelimit-reset": "5"}, 5.0),
        ({"x-ratelimit-reset": str(int(NOW.timestamp()) + 11)}, 11.0),
        ({"x-ratelimit-reset": str((int(NOW.timestamp()) + 11) * 1000)}, 11.0),
        ({"x-ratelimit-reset-after": "4"}, 4.0),
        ({"ratelimit-reset": "6"}, 6.0),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_headers_name_the_pause(headers: dict[str, str], seconds: float | None, status: int) -> None:
    """Seconds, milliseconds, dates, durations and Unix times; of the two limits, the one that is used up."""
    error = chat_error(status, {"error": {"message": "busy"}}, now=NOW, headers=headers)
    assert isinstance(error, ChatUnavailableError)
    assert error.retry_after_s == (None if seconds is None else pytest.approx(seconds))


def test_a_limit_that_is_not_used_up_is_waited_for_at_429_alone() -> None:
    """Many services send their limits with every answer: a fault of theirs has nothing to do with them."""
    headers = {"x-ratelimit-reset-tokens": "20s", "x-ratelimit-remaining-tokens": "9000"}
    waits = [chat_error(status, {}, now=NOW, headers=headers).to_dict()["retry_after_s"] for status in (429, 500)]
    assert waits == [20.0, None]
    inside = chat_error(200, {"error": "busy"}, headers={"x-ratelimit-reset-tokens": "20s"})
    assert inside.to_dict()["retry_after_s"] is None
    assert chat_error(200, {"error": "busy"}, headers={"retry-after": "20"}).to_dict()["retry_after_s"] == 20.0


def test_headers_come_before_words_and_words_before_limits() -> None:
    """The nearest to this refusal counts."""
    body = {"error": {"message": "Please try again in 6s."}}
    told = [{"retry-after": "2"}, {"x-ratelimit-reset-tokens": "9s"}]
    assert [chat_error(429, body, headers=one).to_dict()["retry_after_s"] for one in told] == [2.0, 6.0]
    assert not hasattr(chat_error(401, body, headers=told[0]), "retry_after_s")


def test_words_that_begin_with_an_angle_bracket() -> None:
    """A status in brackets is no page: the words are read."""
    words = "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"
    error = chat_error(400, {"error": {"code": "invalid_parameter_error", "message": words}})
    assert error.message == words
    assert is_too_long(error)


def test_xml_gives_its_message() -> None:
    """Of an XML error, the message is told."""
    page = '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
    assert chat_error(403, page).message == "Access Denied"


def test_any_limit_has_its_reset() -> None:
    """A limit may have a name of its own; the one that is used up counts."""
    headers = wanted(
        [
            ("x-ratelimit-reset-tokens-minute", "12.5"),
            ("x-ratelimit-remaining-tokens-minute", "0"),
            ("x-ratelimit-reset-requests-day", "33011.3"),
            ("x-ratelimit-remaining-requests-day", "1439"),
            ("set-cookie", "secret"),
        ],
        NONE,
    )
    assert "set-cookie" not in headers
    assert seconds_of_headers(headers, 429, None) == 12.5
    assert seconds_of_headers({"ratelimit-reset": "9", "ratelimit-remaining": "3"}, 503, None) is None


@pytest.mark.parametrize(
    ("words", "seconds"), [("Please wait 30 seconds and try again", 30.0), ("try again in about 12 seconds", 12.0)]
)
def test_words_that_ask_to_wait(words: str, seconds: float) -> None:
    """A duration is read behind "wait" and "about" too."""
    assert seconds_until_reset(words, None) == seconds


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("content_filter: SAFETY", FinishReason.CONTENT_FILTER),
        ("normal", FinishReason.STOP),
        ("max_output", FinishReason.LENGTH),
    ],
)
def test_more_words_for_an_end(word: str, reason: FinishReason) -> None:
    """Gemini puts its own word behind, Baidu and MiniMax have others."""
    assert FinishReason.named(word) is reason


@pytest.mark.parametrize(
    "words", ["Access token invalid or no longer valid", "Access token expired", "Invalid API token", "invalid api key"]
)
def test_words_about_a_key(words: str) -> None:
    """A key or token that is refused is the caller's to mend, though the status says success."""
    error = chat_error(200, {"error_code": 110, "error_msg": words})
    assert type(error) is ChatAuthError

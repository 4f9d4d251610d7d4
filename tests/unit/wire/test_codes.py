"""Refusals as typed errors: which class, which words, how long to wait, and never a key."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roleplay.errors import (
    ChatAuthError,
    ChatError,
    ChatQuotaError,
    ChatRequestError,
    ChatUnavailableError,
    ContentFilteredError,
)
from roleplay.wire.codes import CODES, chat_error, is_refusal
from roleplay.wire.resets import seconds_until_reset
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

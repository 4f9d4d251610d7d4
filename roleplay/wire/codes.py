"""What the service's refusals mean: its codes, its two envelopes, and HTTP statuses, as typed errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from roleplay.domain.usage import SensitiveCategory
from roleplay.errors import (
    ChatAuthError,
    ChatError,
    ChatQuotaError,
    ChatRequestError,
    ChatUnavailableError,
    ContentFilteredError,
)
from roleplay.wire.resets import seconds_until_reset
from roleplay.wire.words import service_words

if TYPE_CHECKING:
    from datetime import datetime

_TOO_LONG = re.compile(
    r"context window exceeds|exceeds? (the )?(available |maximum |model's )?context|maximum context length"
    r"|context[_ ]length[_ ]exceeded|prompt is too long|too many tokens",
    re.IGNORECASE,
)


class Meaning(NamedTuple):
    """What a code means. ``note`` stands in where the service gives no words; ``side`` is whose text was filtered."""

    error: type[ChatError]
    note: str
    side: str = "input"

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.error.retryable


CODES: Mapping[int, Meaning] = {
    1000: Meaning(ChatUnavailableError, "unknown error"),
    1001: Meaning(ChatUnavailableError, "request timed out"),
    1002: Meaning(ChatUnavailableError, "rate limit exceeded"),
    1004: Meaning(ChatAuthError, "not authorised"),
    1008: Meaning(ChatQuotaError, "insufficient balance"),
    1013: Meaning(ChatUnavailableError, "internal service error"),
    1024: Meaning(ChatUnavailableError, "internal error"),
    1026: Meaning(ContentFilteredError, "input judged sensitive", "input"),
    1027: Meaning(ContentFilteredError, "output judged sensitive", "output"),
    1028: Meaning(ChatQuotaError, "quota used up"),
    1030: Meaning(ChatQuotaError, "quota used up"),
    1033: Meaning(ChatUnavailableError, "system error"),
    1039: Meaning(ChatUnavailableError, "token limit of the rate window exceeded"),
    1041: Meaning(ChatUnavailableError, "too many connections"),
    1042: Meaning(ChatRequestError, "more than a tenth of the characters are invisible or illegal"),
    2013: Meaning(ChatRequestError, "invalid parameters"),
    2044: Meaning(ChatRequestError, "no permission for this interface"),
    2045: Meaning(ChatUnavailableError, "traffic grows too fast"),
    2049: Meaning(ChatAuthError, "invalid API key"),
    2056: Meaning(ChatQuotaError, "usage limit of the plan exceeded"),
    2061: Meaning(ChatRequestError, "model is not part of the plan"),
}

# The word of an error envelope that has no code.
_KINDS: Mapping[str, type[ChatError]] = {
    "authorized_error": ChatAuthError,
    "authentication_error": ChatAuthError,
    "permission_error": ChatAuthError,
    "insufficient_balance_error": ChatQuotaError,
    "insufficient_quota": ChatQuotaError,
    "rate_limit_error": ChatUnavailableError,
    "overloaded_error": ChatUnavailableError,
    "bad_request_error": ChatRequestError,
    "invalid_request_error": ChatRequestError,
}
_STATUSES: Mapping[int, type[ChatError]] = {
    401: ChatAuthError,
    402: ChatQuotaError,
    403: ChatAuthError,
    408: ChatUnavailableError,
    409: ChatUnavailableError,
    425: ChatUnavailableError,
    429: ChatUnavailableError,
}
_TRAILING_CODE = re.compile(r"\s*\((\d{3,5})\)\s*$")
_TITLE = re.compile(r"<title[^>]{0,200}>(.{0,300}?)</title", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


class _Refusal(NamedTuple):
    """A refusal as the service wrote it; ``status`` is the error's own where the HTTP status is a success."""

    code: int | None
    words: str
    kind: str
    status: int


def is_refusal(body: Mapping[str, Any]) -> bool:
    """Say whether ``body``, a JSON object of the service, is or holds an error: either envelope, at any status."""
    return bool(_base_code(body) or body.get("error") or body.get("type") == "error")


def chat_error(status: int, body: object, *, now: datetime | None = None) -> ChatError:
    """Make the typed error for a refusal.

    ``status`` is the HTTP status, ``body`` the JSON that came, or its text where it is not JSON, ``now`` the moment
    that a reset time in the message is measured from. The service's words are kept, shortened to 300 characters and
    without anything that looks like a key.
    """
    refusal = _refusal(status, body)
    meaning = _meaning(refusal)
    message = refusal.words or meaning.note or f"the service answered HTTP {status} and gave no reason"
    code = refusal.code
    if meaning.error is ContentFilteredError:
        category = _category(body, meaning.side)
        return ContentFilteredError(message, side=meaning.side, category=category, code=code, status=status)
    if meaning.error is ChatUnavailableError:
        wait_s = seconds_until_reset(refusal.words, now)
        return ChatUnavailableError(message, code=code, status=status, retry_after_s=wait_s)
    if meaning.error is ChatQuotaError:
        wait_s = seconds_until_reset(refusal.words, now)
        return ChatQuotaError(message, code=code, status=status, retry_after_s=wait_s)
    return meaning.error(message, code=code, status=status)


def is_too_long(error: ChatError) -> bool:
    """Whether a refusal says that the request is longer than the model's context window.

    MiniMax says so with the catch-all 2013, other servers in words of their own.
    """
    return isinstance(error, ChatRequestError) and _TOO_LONG.search(error.message) is not None


def blames_the_prompt(error: ChatError) -> bool:
    """Whether a refusal as too long speaks of the prompt alone, not of the reply that was asked for beside it."""
    return "completion" not in error.message.lower()


def _meaning(refusal: _Refusal) -> Meaning:
    if refusal.code is not None and refusal.code in CODES:
        return CODES[refusal.code]
    if refusal.kind in _KINDS:
        return Meaning(_KINDS[refusal.kind], "")
    status = refusal.status
    if status in _STATUSES:
        return Meaning(_STATUSES[status], "")
    if status >= 500 or (status < 300 and refusal.code is None):  # it took the request and then failed
        return Meaning(ChatUnavailableError, "")
    return Meaning(ChatRequestError, "")


def _refusal(status: int, body: object) -> _Refusal:
    if isinstance(body, str):
        return _Refusal(None, _page_words(body), "", status)
    if not isinstance(body, dict):
        return _Refusal(None, "", "", status)
    error = body.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, dict) else {}
    words = _first_words(
        _base(body).get("status_msg"), inner.get("message"), error, body.get("message"), body.get("detail")
    )
    code = _base_code(body)
    if trailing := _TRAILING_CODE.search(words):
        code = code or int(trailing[1])
        words = words[: trailing.start()] if code == int(trailing[1]) else words
    named = _number(inner.get("code"))
    if code is None and named in CODES:
        code = named
    kind = inner.get("type")
    return _Refusal(code, words, kind if isinstance(kind, str) else "", _own_status(status, inner))


def _own_status(status: int, inner: Mapping[str, Any]) -> int:
    if status >= 300:
        return status
    candidates = (_number(inner.get(name)) for name in ("http_code", "status", "code"))
    return next((number for number in candidates if number and 400 <= number < 600), status)


def _base(body: Mapping[str, Any]) -> Mapping[str, Any]:
    base = body.get("base_resp")
    return base if isinstance(base, dict) else {}


def _base_code(body: Mapping[str, Any]) -> int | None:
    return _number(_base(body).get("status_code")) or None


def _first_words(*candidates: object) -> str:
    texts = (service_words(one) for one in candidates if isinstance(one, str))
    return next((text for text in texts if text), "")


def _page_words(page: str) -> str:
    if not page.lstrip().startswith("<"):
        return service_words(page)
    title = _TITLE.search(page)
    return service_words(title[1]) if title else ""


def _number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 10**6 else None
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def _category(body: object, side: str) -> str | None:
    number = _number(body.get(f"{side}_sensitive_type")) if isinstance(body, dict) else None
    return next((one.name.lower() for one in SensitiveCategory if one == number), None)

"""What a service's refusals mean: its codes, HTTP statuses and words, as typed errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
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
from roleplay.wire.envelopes import Refusal, number, read_refusal
from roleplay.wire.lengths import counts_the_reply, says_too_long
from roleplay.wire.resets import seconds_of_headers, seconds_until_reset
from roleplay.wire.secrets import NONE, Secrets
from roleplay.wire.words import service_words

if TYPE_CHECKING:
    from datetime import datetime


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


def _named(meaning: Meaning, *names: str) -> dict[str, Meaning]:
    return dict.fromkeys((re.sub("[^a-z0-9]", "", name.lower()) for name in names), meaning)


_AUTH, _QUOTA = Meaning(ChatAuthError, ""), Meaning(ChatQuotaError, "")
_UNAVAILABLE, _REQUEST = Meaning(ChatUnavailableError, ""), Meaning(ChatRequestError, "")
_FILTERED = Meaning(ContentFilteredError, "")
# What services write in ``error.code``, ``error.type`` or ``error.status``, in lower case and without anything else but
# letters and digits: OpenAI, Azure, OpenRouter, Groq, Cerebras, Moonshot, DashScope, Ark, Zhipu, Gemini, vLLM,
# llama.cpp, and the gateways LiteLLM and new-api.
_NAMES: Mapping[str, Meaning] = {
    **_named(_AUTH, "invalid_api_key", "incorrect_api_key", "API_KEY_INVALID", "authorized_error", "unauthenticated"),
    **_named(_AUTH, "authentication_error", "invalid_authentication_error", "authorization_error", "unauthorized"),
    **_named(_AUTH, "permission_error", "permission_denied", "permission_denied_error", "access_denied", "forbidden"),
    **_named(_AUTH, "account_deactivated", "invalid_organization", "invalid_token", "token_expired"),
    **_named(
        _QUOTA, "insufficient_quota", "insufficient_balance", "insufficient_balance_error", "insufficient_credits"
    ),
    **_named(_QUOTA, "billing_hard_limit_reached", "billing_not_active", "payment_required", "budget_exceeded"),
    **_named(_QUOTA, "exceeded_current_quota_error", "insufficient_user_quota", "pre_consume_token_quota_failed"),
    **_named(_QUOTA, "arrearage", "AccountOverdueError", "AllocationQuota.FreeTierOnly", "1113"),
    **_named(_UNAVAILABLE, "rate_limit_exceeded", "rate_limit_error", "rate_limit_reached_error", "too_many_requests"),
    **_named(_UNAVAILABLE, "overloaded_error", "engine_overloaded", "engine_overloaded_error", "server_overloaded"),
    **_named(_UNAVAILABLE, "resource_exhausted", "throttling", "Throttling.RateQuota", "Throttling.AllocationQuota"),
    **_named(_UNAVAILABLE, "unavailable", "unavailable_error", "service_unavailable", "service_unavailable_error"),
    **_named(_UNAVAILABLE, "deadline_exceeded", "request_timeout", "timeout", "internal_server_error", "server_error"),
    **_named(_FILTERED, "content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "1301"),
    **_named(_FILTERED, "data_inspection_failed", "SensitiveContentDetected", "ContentPolicyViolationError"),
    **_named(_FILTERED, "InputTextSensitiveContentDetected", "moderation_blocked"),
    **_named(Meaning(ContentFilteredError, "", "output"), "OutputTextSensitiveContentDetected"),
    **_named(_REQUEST, "model_not_found", "model_not_available", "invalid_request_error", "bad_request_error"),
    **_named(
        _REQUEST, "invalid_argument", "not_found_error", "not_found", "unsupported_parameter", "invalid_parameter"
    ),
    **_named(_REQUEST, "unknown_parameter", "unsupported_value", "invalid_value", "validation_error"),
}
_TOO_LONG_NAMES = frozenset(
    _named(
        _REQUEST,
        "context_length_exceeded",
        "context_window_exceeded",
        "ContextWindowExceededError",
        "exceed_context_size_error",
        "context_limit_exceeded",
        "model_max_prompt_tokens_exceeded",
        "tokens_limit_reached",
        "request_too_large",
        "prompt_too_long",
        "input_too_long",
        "input_length_error",
        "1261",
    )
)
# The statuses that say what happened, whatever type stands in the body.
_DECISIVE: Mapping[int, Meaning] = {401: _AUTH, 402: _QUOTA, 403: _AUTH, 429: _UNAVAILABLE}
_STATUSES = frozenset({408, 409, 425})  # these may pass
_TOO_LARGE = 413
_KEY = r"(?:api.?key|(?:api|access).?token)"
_BAD_KEY = re.compile(
    rf"(?:incorrect|invalid|missing|no|expired) {_KEY}"
    rf"|{_KEY} (?:\w+ )?(?:not valid|(?:is )?invalid|not found|is missing|(?:is |has )?expired)",
    re.IGNORECASE,
)
# llama.cpp answers 500 where a chat template raises; it will raise again.
_TEMPLATE = re.compile(
    r"roles? must alternate|conversation roles|system role not|chat.?template|jinja|raise_exception|template\w*.?error",
    re.IGNORECASE,
)
_OUTPUT = re.compile(r"\boutput|输出", re.IGNORECASE)
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def is_refusal(body: Mapping[str, Any]) -> bool:
    """Say whether ``body``, a JSON object of the service, is or holds an error: either envelope, at any status."""
    return bool(_base_code(body) or _fails(body.get("error")) or "error" in (body.get("type"), body.get("object")))


def _fails(error: object) -> bool:
    """Whether what stands under ``error`` says something: some servers send the field with nothing in it."""
    return any(error.values()) if isinstance(error, dict) else bool(error)


def chat_error(
    status: int,
    body: object,
    *,
    now: datetime | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
    secrets: Secrets = NONE,
) -> ChatError:
    """Make the typed error for a refusal.

    ``status`` is the HTTP status, ``body`` the JSON that came, or its text where it is not JSON, ``now`` the moment
    that a reset time is measured from, ``headers`` those of the answer that are wanted. The service's words are kept,
    without ``secrets`` and anything that looks like a key, shortened to 300 characters.
    """
    body = secrets.in_json(body)  # first of all, since words are cut while they are looked for
    refusal = read_refusal(status, body)
    meaning = _meaning(refusal)
    code = refusal.code or (refusal.named if refusal.named in CODES else None)
    message = service_words(refusal.words, secrets=secrets) or meaning.note or _no_words(status, refusal)
    if meaning.error is ContentFilteredError:
        side = meaning.side if code in CODES or not _OUTPUT.search(message) else "output"
        return ContentFilteredError(message, side=side, category=_category(body, side), code=code, status=status)
    if meaning.error is ChatUnavailableError:
        wait_s = seconds_of_headers(headers, status, now, said=seconds_until_reset(refusal.words, now))
        return ChatUnavailableError(message, code=code, status=status, retry_after_s=wait_s)
    if meaning.error is ChatQuotaError:
        wait_s = seconds_until_reset(refusal.words, now)
        return ChatQuotaError(message, code=code, status=status, retry_after_s=wait_s)
    if meaning.error is ChatRequestError:
        return ChatRequestError(message, code=code, status=status, too_long=_is_too_long(refusal))
    return meaning.error(message, code=code, status=status)


def _no_words(status: int, refusal: Refusal) -> str:
    kind = next((name for name in refusal.names if name in _NAMES or name in _TOO_LONG_NAMES), "")
    return f"the service answered HTTP {status} and gave no reason" + (f" but {kind!r}" if kind else "")


def is_too_long(error: ChatError) -> bool:
    """Whether a refusal says that the request is longer than the model takes, by its code, its status or its words."""
    return isinstance(error, ChatRequestError) and (error.too_long or says_too_long(error.message))


def blames_the_prompt(error: ChatError) -> bool:
    """Whether a refusal as too long speaks of the prompt alone, not of the reply that was asked for beside it."""
    return not counts_the_reply(error.message)


def _meaning(refusal: Refusal) -> Meaning:
    if refusal.code is not None and refusal.code in CODES:
        return CODES[refusal.code]
    named = next((_NAMES[name] for name in refusal.names if name in _NAMES), None)
    status = refusal.status
    if status != 401 and any(_NAMES.get(name) is _QUOTA for name in refusal.names):
        return _QUOTA
    if status in _DECISIVE:
        return _DECISIVE[status]
    if _is_too_long(refusal) or _TEMPLATE.search(refusal.words):
        return _REQUEST
    return _UNAVAILABLE if status >= 500 else _by_name(refusal, named)


def _by_name(refusal: Refusal, named: Meaning | None) -> Meaning:
    """Judge a refusal whose status says little: by its code or type, then by its words."""
    status = refusal.status
    if _BAD_KEY.search(refusal.words):
        return _AUTH
    if named is not None:
        return named
    if refusal.named is not None and refusal.named in CODES:
        return CODES[refusal.named]
    # Of a success without a known code we know that the service took the request and then failed.
    passes = status in _STATUSES or (status < 300 and refusal.code is None)
    return _UNAVAILABLE if passes else _REQUEST


def _is_too_long(refusal: Refusal) -> bool:
    if refusal.status == _TOO_LARGE or not _TOO_LONG_NAMES.isdisjoint(refusal.names):
        return True
    return says_too_long(refusal.words)


def _base_code(body: Mapping[str, Any]) -> int | None:
    base = body.get("base_resp")
    return (number(base.get("status_code")) or None) if isinstance(base, dict) else None


def _category(body: object, side: str) -> str | None:
    kind = number(body.get(f"{side}_sensitive_type")) if isinstance(body, dict) else None
    return next((one.name.lower() for one in SensitiveCategory if one == kind), None)

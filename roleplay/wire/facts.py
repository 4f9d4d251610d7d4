"""What the service says beside the model's words: ids, usage, flags, its own status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from roleplay.domain.usage import BaseResp, Sensitivity, Usage
from roleplay.wire.secrets import NONE, Secrets
from roleplay.wire.words import service_words

NO_USAGE, NO_FLAGS = Usage(), Sensitivity()
_WORD_LIMIT = 200
# A report above this is no count of a call's tokens; so many calls as a database holds can be added up.
_TOKENS_LIMIT = 10**9
_FLAGS = ("input_sensitive", "output_sensitive")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
_TOLD = (*_FLAGS, "input_sensitive_type", "output_sensitive_type", "output_sensitive_int")


@dataclass(slots=True)
class ReplyFacts:
    """The facts of one reply as far as they are known; ``None`` where the service said nothing.

    Words are without ``secrets``, are cut at 200 characters and hold no control characters. Values of a wrong JSON type
    count as not said.
    ``response_created`` is the service's Unix time in seconds.
    """

    response_id: str | None = None
    response_created: int | None = None
    model_answered: str | None = None
    finish_reason: str | None = None
    choice_index: int | None = None
    usage: Usage = NO_USAGE
    sensitivity: Sensitivity = NO_FLAGS
    base_resp: BaseResp | None = None
    secrets: Secrets = field(default=NONE, repr=False, compare=False)

    def observe(self, event: Mapping[str, Any]) -> None:
        """Take what one JSON object of the service says.

        The first id, time and model stay; the last usage counts, unless it is all zeros, which some servers send with
        every chunk; a flag once raised stays raised.
        """
        if self.response_id is None:
            self.response_id = word(event.get("id"), self.secrets)
        if self.response_created is None:
            self.response_created = count(event.get("created"))
        if self.model_answered is None:
            self.model_answered = word(event.get("model"), self.secrets)
        for usage in _usages(event):
            self.usage = _usage(usage) or self.usage
        self.sensitivity = _flagged(self.sensitivity, event)
        if base := event.get("base_resp"):
            self.base_resp = _base_resp(base, self.secrets) or self.base_resp


def word(value: object, secrets: Secrets) -> str | None:
    """Give a short text of the service, cleaned and without ``secrets``, or ``None`` where it is blank or no text."""
    return (service_words(value, _WORD_LIMIT, secrets) or None) if isinstance(value, str) else None


def count(value: object) -> int | None:
    """Give a whole number from 0 that fits a 64-bit column, or ``None`` where ``value`` is none."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def tokens(value: object) -> int | None:
    """Give a number of tokens that one call may have, or ``None`` where ``value`` is none."""
    return value if type(value) is int and 0 <= value <= _TOKENS_LIMIT else None


def _usages(event: Mapping[str, Any]) -> Iterator[object]:
    """Give what may be usage: a field of its own, or where else servers put it; what counts most comes last."""
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict) and "usage" in choices[0]:
        yield choices[0]["usage"]
    if "x_groq" in event:
        yield _part(event, "x_groq").get("usage")
    yield event.get("usage")


def _usage(data: object) -> Usage | None:
    if not isinstance(data, dict):
        return None
    prompt, completion = (_part(data, name) for name in ("prompt_tokens_details", "completion_tokens_details"))
    usage = Usage(
        prompt_tokens=tokens(data.get("prompt_tokens")),
        completion_tokens=tokens(data.get("completion_tokens")),
        total_tokens=tokens(data.get("total_tokens")),
        cached_tokens=_cached(prompt, data),
        cache_write_tokens=tokens(data.get("cache_creation_input_tokens")),
        reasoning_tokens=tokens(completion.get("reasoning_tokens")),
    )
    return usage if any((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)) else None


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}


def _cached(prompt: Mapping[str, Any], data: Mapping[str, Any]) -> int | None:
    """Give the tokens that were read from a cache, wherever a server says so first."""
    if (number := tokens(prompt.get("cached_tokens"))) is not None:
        return number
    return next((number for name in _CACHED if (number := tokens(data.get(name))) is not None), None)


def _flagged(known: Sensitivity, event: Mapping[str, Any]) -> Sensitivity:
    changes: dict[str, Any] = {}
    for name in _TOLD:
        value = event.get(name)
        if value is None:
            continue
        fits = isinstance(value, bool) if name in _FLAGS else count(value) is not None
        before = getattr(known, name)
        if fits and value != before and (value or before is None):
            changes[name] = value
    return known.model_copy(update=changes) if changes else known


def _base_resp(data: object, secrets: Secrets) -> BaseResp | None:
    code = count(data.get("status_code")) if isinstance(data, dict) else None
    if code is None or not isinstance(data, dict):
        return None
    return BaseResp(status_code=code, status_msg=word(data.get("status_msg"), secrets) or "")

"""The head of an answer, as far as reading the answer needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from roleplay.wire.secrets import Secrets

WANTED_HEADERS = frozenset({"content-encoding", "content-type", "retry-after", "retry-after-ms", "x-ms-retry-after-ms"})
"""The headers that a transport hands on, by their names in lower case, beside those of rate limits; no other is looked
at, kept or logged."""
RESET, REMAINING = "ratelimit-reset", "ratelimit-remaining"
"""How the two headers of a rate limit begin, with or without ``x-`` before; the limit's name follows, such as
``-tokens`` or ``-requests-day``."""

_VALUE_LIMIT = 200


class Head(NamedTuple):
    """The HTTP status of an answer, and those of its headers that are wanted."""

    status: int
    headers: Mapping[str, str]


def wanted(headers: Iterable[tuple[str, str]], secrets: Secrets) -> dict[str, str]:
    """Give what a transport hands on of ``headers``, pairs of a name in lower case and its value.

    ``secrets`` are taken out of the values.
    """
    return {name: secrets.in_words(value)[:_VALUE_LIMIT] for name, value in headers if _is_wanted(name)}


def _is_wanted(name: str) -> bool:
    return name in WANTED_HEADERS or name.removeprefix("x-").startswith((RESET, REMAINING))

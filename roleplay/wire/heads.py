"""The head of an answer, as far as reading the answer needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from roleplay.wire.secrets import Secrets

WANTED_HEADERS = frozenset(
    {
        "content-encoding",
        "content-type",
        "retry-after",
        "retry-after-ms",
        "x-ms-retry-after-ms",
        "ratelimit-reset",
        "x-ratelimit-reset",
        "x-ratelimit-reset-after",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
    }
)
"""The headers that a transport hands on, by their names in lower case; no other is looked at, kept or logged."""

_VALUE_LIMIT = 200


class Head(NamedTuple):
    """The HTTP status of an answer, and those of its headers that are in ``WANTED_HEADERS``."""

    status: int
    headers: Mapping[str, str]


def wanted(headers: Iterable[tuple[str, str]], secrets: Secrets) -> dict[str, str]:
    """Give what a transport hands on of ``headers``, pairs of a name in lower case and its value.

    ``secrets`` are taken out of the values.
    """
    return {name: secrets.in_words(value)[:_VALUE_LIMIT] for name, value in headers if name in WANTED_HEADERS}

"""Refusals as too long: by their words, and the limit that these name."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from roleplay.wire.lengths import counts_the_reply, named_limit, says_too_long

# What servers say of requests that are too long, with the limit that is named, and of others.
SAID = json.loads((Path(__file__).parents[2] / "data/wire/lengths.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("words", "limit"), [(one["words"], one["limit"]) for one in SAID["too_long"]])
def test_what_is_too_long(words: str, limit: int | None) -> None:
    """Each wording is understood, in any case of its letters, and the number that it names is the limit."""
    assert says_too_long(words)
    assert says_too_long(words.upper())
    assert named_limit(words) == limit


@pytest.mark.parametrize("words", SAID["about_else"])
def test_what_is_refused_for_something_else(words: str) -> None:
    """Rates, quotas, the cap of the reply alone, other fields and other troubles are not about the length."""
    assert not says_too_long(words)


@pytest.mark.parametrize(
    ("words", "counted"),
    [
        (
            "maximum context length is 4097 tokens, you requested 4500 (2500 in the messages, 2000 in the completion)",
            True,
        ),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096", True),
        ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", True),
        ("Please reduce the length of the messages or completion.", False),
        ("prompt is too long: 208310 tokens > 200000 maximum", False),
    ],
)
def test_whether_the_reply_is_counted(words: str, counted: bool) -> None:
    """Where the room for the reply is named, the prompt alone may not have been too long."""
    assert counts_the_reply(words) is counted


@pytest.mark.parametrize("part", ["prompt ", "input exceeds ", "context 1234 ", "length [1, ", "too long > ", "上下文"])
def test_hostile_words_take_no_time(part: str) -> None:
    """The words of a server cost milliseconds, whatever they are."""
    began = time.process_time()
    for words in (part * (4_000 // len(part)), part + "a" * 4_000, part + "1" * 4_000):
        says_too_long(words)
        named_limit(words)
        counts_the_reply(words)
    assert time.process_time() - began < 0.5

"""When a failed call is made again."""

from __future__ import annotations

import math

import pytest

from roleplay import (
    BadReplyError,
    ChatAuthError,
    ChatError,
    ChatQuotaError,
    ChatRequestError,
    ChatUnavailableError,
    ContentFilteredError,
    EmptyReplyError,
    Retry,
)
from roleplay.chat.retry import pause_before_next

BUSY = ChatUnavailableError("busy")
POLICY = Retry(attempts=4, first_pause_s=1.0, longest_pause_s=3.0, total_s=100.0)


def pause(
    error: ChatError = BUSY, *, policy: Retry = POLICY, attempt: int = 1, elapsed_s: float = 0.0, draw: float = 0.5
) -> float | None:
    """Ask with ordinary values."""
    return pause_before_next(policy, error, attempt=attempt, elapsed_s=elapsed_s, draw=draw)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 0.5), (2, 1.0), (3, 1.5), (4, None), (5, None)])
def test_pauses_double_up_to_the_longest(attempt: int, seconds: float | None) -> None:
    """Half of 1, 2 and then 3 seconds with the draw at a half; after the last attempt there is none."""
    assert pause(attempt=attempt) == seconds


@pytest.mark.parametrize("draw", [0.0, 0.25, math.nextafter(1, 0)])
def test_the_whole_pause_is_drawn(draw: float) -> None:
    """Jitter is full: from nothing to the whole pause."""
    assert pause(draw=draw) == draw


@pytest.mark.parametrize(
    ("code", "attempt", "least", "most"),
    [(1002, 1, 4, 8), (1002, 2, 8, 16), (1002, 3, 10, 20), (1039, 1, 4, 8), (1041, 1, 2, 4), (2045, 2, 4, 8)],
)
def test_who_comes_too_fast_waits_longer(code: int, attempt: int, least: float, most: float) -> None:
    """By the default policy: no rate limit is met again at once, whatever is drawn, unless a time was named."""
    error, policy = ChatUnavailableError("too fast", code=code), Retry(attempts=4)
    assert pause(error, policy=policy, attempt=attempt, draw=0.0) == least
    assert pause(error, policy=policy, attempt=attempt, draw=math.nextafter(1, 0)) == pytest.approx(most)
    named = ChatUnavailableError("too fast", code=code, retry_after_s=1.0)
    assert pause(named, policy=policy, attempt=attempt, draw=0.0) == 1.0


def test_who_wants_no_pause_has_none() -> None:
    policy = Retry(first_pause_s=0, longest_pause_s=20)
    assert pause(ChatUnavailableError("too fast", code=1002), policy=policy, draw=0.9) == 0


@pytest.mark.parametrize(("elapsed_s", "goes_on"), [(0, True), (99.5, True), (99.6, False), (1000, False)])
def test_the_total_is_a_limit(elapsed_s: float, goes_on: bool) -> None:
    """No attempt begins later than the total after the first, its pause counted."""
    assert (pause(elapsed_s=elapsed_s) is not None) is goes_on


@pytest.mark.parametrize(
    ("named", "seconds"),
    [(None, 0.5), (0.0, 0.5), (10.0, 10.5), (99.5, 100.0), (99.6, None), (-5.0, 0.5), (math.inf, None)],
)
def test_a_time_that_the_service_names_is_waited_for(named: float | None, seconds: float | None) -> None:
    """A reset is waited for, spread by the drawn pause, or not at all when it is too far; never a negative time."""
    assert pause(ChatUnavailableError("busy", retry_after_s=named)) == seconds


@pytest.mark.parametrize(
    "error",
    [
        ChatError("?"),
        ChatAuthError("?"),
        ChatQuotaError("?", retry_after_s=0.1),
        ChatRequestError("?"),
        ContentFilteredError("?", side="input"),
        BadReplyError("?"),
        EmptyReplyError("?"),
    ],
)
def test_other_errors_would_come_again(error: ChatError) -> None:
    """Only what may pass is tried again."""
    assert pause(error) is None


@pytest.mark.parametrize("first", [0.0, 1e-9, 86_400.0])
def test_very_many_attempts(first: float) -> None:
    """However many attempts were made, the pause is a number within its limits."""
    policy = Retry(attempts=10**6, first_pause_s=first, longest_pause_s=3.0, total_s=100.0)
    for attempt in (1, 63, 64, 65, 1023, 1025, 999_999):
        found = pause(policy=policy, attempt=attempt, draw=0.9)
        assert found is not None
        assert 0 <= found <= 3.0

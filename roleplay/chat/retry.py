"""When a failed call is made again."""

from __future__ import annotations

from roleplay.domain.endpoint import Retry
from roleplay.errors import ChatError, ChatUnavailableError

# How many times longer one waits when calls come too fast; the limits of 1002 and 1039 are by the minute.
SLOWER = {1002: 16.0, 1039: 16.0, 1041: 8.0, 2045: 8.0}


def pause_before_next(policy: Retry, error: ChatError, *, attempt: int, elapsed_s: float, draw: float) -> float | None:
    """Give the seconds to wait before the next attempt, or ``None`` when there is none.

    ``attempt`` counts from 1, ``elapsed_s`` is the time since the first began, ``draw`` is chance from [0, 1): full
    jitter, so that many clients do not come back together. A reset time that the service named is waited for. Where it
    says that calls come too fast and names none, the pause is longer by the factor in ``SLOWER``, and at least half of
    it is waited for.
    """
    if not isinstance(error, ChatUnavailableError) or attempt >= policy.attempts:
        return None
    factor = SLOWER.get(error.code or 0, 1.0) if error.retry_after_s is None else 1.0
    longest = min(policy.first_pause_s * factor * 2.0 ** min(attempt - 1, 64), policy.longest_pause_s)
    pause = longest * (draw if factor == 1.0 else 0.5 + draw / 2)
    if error.retry_after_s is not None:
        pause += max(error.retry_after_s, 0.0)
    return pause if elapsed_s + pause <= policy.total_s else None

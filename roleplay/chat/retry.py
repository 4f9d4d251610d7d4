"""When a failed call is made again."""

from __future__ import annotations

from roleplay.domain.endpoint import Retry
from roleplay.errors import ChatError, ChatUnavailableError


def pause_before_next(policy: Retry, error: ChatError, *, attempt: int, elapsed_s: float, draw: float) -> float | None:
    """Give the seconds to wait before the next attempt, or ``None`` when there is none.

    ``attempt`` counts from 1, ``elapsed_s`` is the time since the first began, ``draw`` is chance from [0, 1): full
    jitter, so that many clients do not come back together. A reset time that the service named is waited for.
    """
    if not isinstance(error, ChatUnavailableError) or attempt >= policy.attempts:
        return None
    pause = draw * min(policy.first_pause_s * 2.0 ** min(attempt - 1, 64), policy.longest_pause_s)
    if error.retry_after_s is not None:
        pause += max(error.retry_after_s, 0.0)
    return pause if elapsed_s + pause <= policy.total_s else None

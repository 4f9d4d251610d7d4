"""When a used-up quota comes back, read from the service's sentence about it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_ABOUT_WAITING = re.compile(r"reset|retry|again|available|重置|恢复|重试", re.IGNORECASE)
_MOMENT = re.compile(
    r"""(?P<year>\d{4})[-/](?P<month>\d\d?)[-/](?P<day>\d\d?)
        (?:[T\s]+(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.\d+)?)?)?
        (?:\s*\(?(?:UTC|GMT)?\s*(?P<sign>[+-])(?P<off_hours>\d\d?):?(?P<off_minutes>\d\d)?\b)?""",
    re.IGNORECASE | re.VERBOSE,
)
_UNIX_TIME = re.compile(r"reset\w*\s*(?:at|:|=)?\s*(?P<seconds>\d{10})(?P<millis>\d{3})?\b", re.IGNORECASE)
_UNIT = r"days?|d|hours?|hrs?|h|minutes?|mins?|ms|m|seconds?|secs?|s"
_PART = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\s*({_UNIT})(?![a-z])", re.IGNORECASE)
_DURATION = re.compile(rf"\b(?:in|after)\s+({_PART.pattern}(?:[\s,]*(?:and\s+)?{_PART.pattern})*)", re.IGNORECASE)
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_until_reset(words: str, now: datetime | None) -> float | None:
    """Give the seconds from ``now`` (aware) to the reset that ``words`` name, or ``None`` where they name none.

    Reads durations (``1h40m15s``, ``in 30 seconds``), dates with and without a time and an offset (UTC where none is
    written) and Unix times. A moment that has passed, or any moment without ``now``, gives ``None``.
    """
    if not _ABOUT_WAITING.search(words):
        return None
    if duration := _DURATION.search(words):
        return _seconds(duration[1])
    moment = _moment(words)
    if moment is None or now is None or moment <= now:
        return None
    return (moment - now).total_seconds()


def _seconds(duration: str) -> float:
    return sum(float(amount) * _unit_seconds(unit.lower()) for amount, unit in _PART.findall(duration))


def _unit_seconds(unit: str) -> float:
    return _UNIT_SECONDS["ms"] if unit == "ms" else _UNIT_SECONDS[unit[0]]


def _moment(words: str) -> datetime | None:
    try:
        if unix := _UNIX_TIME.search(words):
            return datetime.fromtimestamp(int(unix["seconds"]), UTC)
        if found := _MOMENT.search(words):
            return _written(found)
    except (ValueError, OverflowError):  # the 31st of June, an offset of 90 hours, the year 0
        return None
    return None


def _written(found: re.Match[str]) -> datetime:
    offset = timedelta(hours=int(found["off_hours"] or 0), minutes=int(found["off_minutes"] or 0))
    fields = ("year", "month", "day", "hour", "minute", "second")
    year, month, day, hour, minute, second = (int(found[field] or 0) for field in fields)
    zone = timezone(-offset if found["sign"] == "-" else offset)
    return datetime(year, month, day, hour, minute, second, tzinfo=zone)

"""When to ask again: read from a refusal's headers and from the service's sentence about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

from roleplay.wire.heads import REMAINING, RESET

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
_DURATION = re.compile(
    rf"\b(?:in|after|wait)\s+(?:(?:about|for|approximately)\s+)?({_PART.pattern}(?:[\s,]*(?:and\s+)?{_PART.pattern})*)",
    re.IGNORECASE,
)
_PLAIN_NUMBER = re.compile(r"\+?(\d{1,15}(?:\.\d{1,9})?)", re.ASCII)
_DURATIONS = re.compile(rf"(?:{_PART.pattern}[\s,]*){{1,6}}", re.IGNORECASE)
_UNIX_SECONDS, _UNIX_MILLIS = 10**9, 10**12
_TOO_MANY = 429
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


def seconds_of_headers(
    headers: Mapping[str, str], status: int, now: datetime | None, *, said: float | None = None
) -> float | None:
    """Give the seconds from ``now`` (aware) to the moment that a refusal asks to wait for, or ``None``.

    ``headers`` are in lower case. ``retry-after`` comes before ``said``, what the words of the refusal ask for, and
    both before the resets of a rate limit, which many services send with every answer: they count where ``status`` is
    an error's and, unless it is 429, where they do not say that something is left.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if found := _PLAIN_NUMBER.fullmatch(headers.get(name, "").strip()):
            return float(found[1]) / 1000
    wait_s = _read(headers.get("retry-after"), now)
    if wait_s is not None:
        return wait_s
    return said if said is not None or status < 300 else _of_limits(headers, status, now)


def _of_limits(headers: Mapping[str, str], status: int, now: datetime | None) -> float | None:
    """Give the reset of the limit that is used up; where none is known to be, the latest."""
    used_up: list[float] = []
    unknown: list[float] = []
    left: list[float] = []
    for name, value in headers.items():
        limit = name.removeprefix("x-")
        wait_s = _read(value, now) if limit.startswith(RESET) else None
        if wait_s is None:
            continue
        remains = REMAINING + limit.removeprefix(RESET).removesuffix("-after")
        remaining = _PLAIN_NUMBER.fullmatch((headers.get(f"x-{remains}") or headers.get(remains, "")).strip())
        kind = unknown if remaining is None else left if float(remaining[1]) > 0 else used_up
        kind.append(wait_s)
    return max(used_up or unknown + (left if status == _TOO_MANY else []), default=None)


def _read(value: str | None, now: datetime | None) -> float | None:
    """Read seconds, a duration such as ``6m0s``, a Unix time in seconds or milliseconds, or a date."""
    text = (value or "").strip()
    found = _PLAIN_NUMBER.fullmatch(text.partition(",")[0])  # a header that came twice is joined by commas
    if found and float(found[1]) < _UNIX_SECONDS:
        return float(found[1])
    if _DURATIONS.fullmatch(text):
        return _seconds(text)
    try:
        moment = _unix(float(found[1])) if found else _date(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return None if now is None else max((moment - now).total_seconds(), 0.0)


def _unix(number: float) -> datetime:
    return datetime.fromtimestamp(number / 1000 if number >= _UNIX_MILLIS else number, UTC)


def _date(text: str) -> datetime:
    if found := _MOMENT.match(text):
        return _written(found)
    moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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

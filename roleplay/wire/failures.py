"""Failures that a server reports inside an answer of status 200, in whichever form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from roleplay.wire.codes import is_refusal
from roleplay.wire.envelopes import words_of

if TYPE_CHECKING:
    from roleplay.wire.sse import Frame

CHOICES_LIMIT = 128
"""The choices of one event that are looked at; one is ours, and no service can be asked for so many."""

_NO_WORDS = "the service reported an error and gave no reason"
_ERROR_KIND = re.compile(rb"(?:.*[._-])?(?:error|exception|failed|failure)", re.IGNORECASE | re.DOTALL)
_ERROR_TEXT = re.compile(
    r"error\b|exception\b|\b(?:fatal|traceback|fail(?:ed|ure)|overloaded|bad gateway"
    r"|(?:service|temporarily) unavailable|gateway time-?out|timed out)\b|错误|异常|失败",
    re.IGNORECASE,
)
_ERROR_WITHIN = 200
_BAD_WORD = re.compile(
    r"err|fail|invalid|exce|limit|denied|forbid|unauth|time.?out|unavailable|overload|quota|not.?found", re.IGNORECASE
)
_CODES = ("code", "status_code", "statusCode", "status")
_ERROR_CODES = ("error_code", "errcode")  # any of these but 0 says failure, by its name


def failure_in(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Give the failure that a JSON object of an answer is or holds, as ``chat_error`` reads it, or ``None``."""
    if is_refusal(event):
        return event if event.get("error") or event.get("base_resp") else {"error": event}
    if choices := event.get("choices"):
        return _of_choices(choices)
    if event.get("detail"):
        return event
    if errors := event.get("errors"):
        return {"error": errors[0] if isinstance(errors, list) else errors}
    return _flat(event)


def failure_of(frame: Frame) -> object:
    """Give the failure that an event is by its fields: by its type, or by a field ``error``; else ``None``."""
    if frame.error is not None and (told := _told(frame.error)) is not None:
        return told
    if _ERROR_KIND.fullmatch(frame.kind):
        return _told(frame.data) or {"error": _NO_WORDS}
    return None


def failure_said(data: bytes) -> object:
    """Give the failure that the text of an event is where it holds no object, else ``None``; a page is no failure, but
    an answer that cannot be read."""
    if data.lstrip().startswith(b"<"):
        return None
    value = _loaded(data.decode(errors="replace"))
    if isinstance(value, dict):
        return failure_in(value)
    return {"error": value} if isinstance(value, str) and _ERROR_TEXT.search(value[:_ERROR_WITHIN]) else None


def _loaded(text: str) -> object:
    """Give what a text is as JSON, of a list of one its one, else the text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _of_choices(choices: object) -> Mapping[str, Any] | None:
    """Give the failure of a choice, where one reports its own."""
    for one in choices[:CHOICES_LIMIT] if isinstance(choices, list) else ():
        if isinstance(one, dict) and one.get("error"):
            return {"error": one["error"]}
    return None


def _told(data: bytes) -> object:
    """Read what stands where an error is expected; ``None`` where nothing does."""
    text = data.decode(errors="replace").strip()
    value = _loaded(text)
    if not value:
        return None
    if isinstance(value, dict):
        return failure_in(value) or {"error": value}
    return {"error": value if isinstance(value, str) else text}


def _flat(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Take an object without choices that has words and a code that says failure."""
    code = next((event[name] for name in _CODES if _is_bad(event.get(name))), None)
    code = code or next((event[name] for name in _ERROR_CODES if event.get(name) not in (None, "", "0", 0)), None)
    return {"error": {**event, "code": code}} if code is not None and words_of(event) else None


def _is_bad(code: object) -> bool:
    if isinstance(code, str) and code.isdigit() and len(code) < 10:
        code = int(code)
    if isinstance(code, str):
        return _BAD_WORD.search(code) is not None
    return isinstance(code, int) and not isinstance(code, bool) and (code >= 400 or code < 0)

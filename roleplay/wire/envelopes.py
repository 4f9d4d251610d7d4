"""What a refusal says, whichever envelope it comes in: its words, its codes and a status of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from roleplay.wire.lengths import says_too_long

_DEPTH = 6
_ITEMS = 5
_LAYERS = 50
_TEXT_LIMIT = 64 * 1024
_WORDS_LIMIT = 4000
# Other words may begin with "<" too: some services put a status in angle brackets before them.
_PAGE = re.compile(r"<(?:[!?]|(?:html|head|body|title|p|div|h[1-6]|pre|center|script|error|response)\b)", re.IGNORECASE)
_TITLE = re.compile(r"<(title|message)\b[^>]{0,200}>(.{0,300}?)</\1", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
_NO_NAME = re.compile(r"[^a-z0-9]+")
_TRAILING_CODE = re.compile(r"\s*\((\d{3,5})\)\s*$")
# A gateway writes lines of its own behind those of the service.
_CODE_OF_A_LINE = re.compile(r"\(([12]\d{3})\)[ \t]*$", re.MULTILINE)
_CODES_OF_LIMITS = frozenset({1039, 2013})
_DECODER = json.JSONDecoder(strict=False)
# Where the words stand, the best first; and where an error may be held within another.
_WORDS = (
    "error",
    "message",
    "Message",
    "msg",
    "detail",
    "details",
    "errors",
    "error_description",
    "error_message",
    "errorMessage",
    "error_msg",
    "errmsg",
    "reason",
    "description",
    "title",
)
_INNER = ("error", "message", "detail", "details", "errors", "metadata", "raw", "innererror", "response", "body")
_NAMES = (("code", "error_code", "__type", "reason"), ("error", "type", "status"))
_STATUSES = ("http_code", "status", "status_code", "code")


class Refusal(NamedTuple):
    """A refusal as the service wrote it.

    ``code``: MiniMax's number, from its own places, ``named``: a number that stands where other services write theirs.
    ``names``: codes, then types, in lower case without anything but letters and digits. ``status``: the HTTP status,
    or the error's own where the HTTP status is a success.
    """

    words: str
    code: int | None
    named: int | None
    names: tuple[str, ...]
    status: int


def read_refusal(status: int, body: object) -> Refusal:
    """Read the JSON of a refusal, or its text where it is none."""
    layers = list(islice(_layers(body, _DEPTH), _LAYERS))
    words = words_of(body)
    code = next(filter(None, map(_base_code, layers)), None)
    if (trailing := _TRAILING_CODE.search(words)) and _is_code(trailing, words):
        at_end = int(trailing[1])
        words = words[: trailing.start()] if code in {None, at_end} else words
        code = code or at_end
    elif code is None and (inside := _CODE_OF_A_LINE.search(words)) and _is_code(inside, words):
        code = int(inside[1])
    numbers = (number(layer.get("code")) for layer in layers)
    return Refusal(
        words=words,
        code=code,
        named=next((one for one in numbers if one is not None), None),
        names=tuple(name for kind in _NAMES for layer in layers for key in kind if (name := _name(layer.get(key)))),
        status=status if status >= 300 else _own_status(layers, status),
    )


def words_of(body: object) -> str:
    """Give the words of a refusal for a reader, ``""`` where it has none; never the source of a structure."""
    return _words(body, _DEPTH).strip()


def number(value: object) -> int | None:
    """Give a whole number of at most six digits, also where it is written as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 10**6 else None
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def _layers(value: object, depth: int) -> Iterator[Mapping[str, Any]]:
    """Give the objects that hold an error, the outermost first."""
    if not depth:
        return
    if isinstance(value, str):
        _, inner, _ = _opened(value)
        if inner is not None:
            yield from _layers(inner, depth - 1)
    elif isinstance(value, list):
        for one in value[:_ITEMS]:
            yield from _layers(one, depth - 1)
    elif isinstance(value, dict):
        yield value
        for key in _INNER:
            yield from _layers(value.get(key), depth - 1)


def _words(value: object, depth: int) -> str:
    if not depth:
        return ""
    if isinstance(value, str):
        return _of_text(value, depth)[:_WORDS_LIMIT]
    if isinstance(value, list):
        said = (_words(one, depth - 1).strip() for one in value[:_ITEMS])
        return "; ".join(dict.fromkeys(filter(None, said)))[:_WORDS_LIMIT]
    return _of_object(value, depth)[:_WORDS_LIMIT] if isinstance(value, dict) else ""


def _of_text(text: str, depth: int) -> str:
    if _PAGE.match(text.lstrip()):
        title = _TITLE.search(text)
        return title[2] if title else ""
    before, inner, after = _opened(text)
    if inner is None:
        return text
    said = _words(inner, depth - 1)
    if not said:
        return text if before else ""
    return " ".join(filter(None, (before, said, after)))


def _opened(text: str) -> tuple[str, object, str]:
    """Give the JSON that a text is, or the object that stands in it, with what stands before and behind it."""
    text = text[:_TEXT_LIMIT].strip()
    start = 0 if text.startswith(("[", '"')) else text.find("{")
    try:
        inner, end = _DECODER.raw_decode(text, start) if start >= 0 else (None, 0)
    except (ValueError, RecursionError):
        return text, None, ""
    return text[:start].strip(), inner, text[end:].strip()


def _of_object(value: Mapping[str, Any], depth: int) -> str:
    if said := _words(_base(value).get("status_msg"), depth - 1).strip():
        return said
    found = ((key, _words(value.get(key), depth - 1).strip()) for key in _WORDS)
    told = [(key, said) for key, said in found if said]
    if not told:
        return _raw(value, "", depth)
    key, said = told[0]
    if key == "error" and isinstance(value["error"], str) and len(told) > 1 and told[1][1] not in said:
        said = f"{said}: {told[1][1]}"  # a word for the kind, and then the sentence
    return _raw(value, _placed(value, said), depth)


def _placed(value: Mapping[str, Any], said: str) -> str:
    """Put the place before the words: validators name the field beside them."""
    loc = value.get("loc")
    if not isinstance(loc, list):
        return said
    place = ".".join(str(one) for one in loc[:_DEPTH] if isinstance(one, str | int))
    return f"{place}: {said}" if place else said


def _raw(value: Mapping[str, Any], said: str, depth: int) -> str:
    """Add what a gateway was told by the service behind it."""
    metadata = value.get("metadata")
    raw = _words(metadata.get("raw"), depth - 1).strip() if isinstance(metadata, dict) else ""
    return ": ".join(filter(None, (said, raw))) if raw not in said else said


def _is_code(trailing: re.Match[str], words: str) -> bool:
    """Whether a number in brackets at the end is MiniMax's code, not the limit that a request was too long for."""
    return int(trailing[1]) in _CODES_OF_LIMITS or not says_too_long(words[: trailing.start()])


def _name(value: object) -> str:
    return _NO_NAME.sub("", value[:100].lower()) if isinstance(value, str) else ""


def _own_status(layers: list[Mapping[str, Any]], status: int) -> int:
    found = (number(layer.get(name)) for layer in layers for name in _STATUSES)
    return next((one for one in found if one and 400 <= one < 600), status)


def _base(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    base = layer.get("base_resp")
    return base if isinstance(base, dict) else {}


def _base_code(layer: Mapping[str, Any]) -> int | None:
    return number(_base(layer).get("status_code")) or None

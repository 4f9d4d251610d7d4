"""What an endpoint keeps secret, taken by its own value out of the texts that a server sends.

A server can repeat what it was sent: the key in a refusal, a header in an error page, a query in a stream. Whatever it
says is stored, shown and logged, so each secret is replaced by ``***`` before a text is cut, raised or stored.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from roleplay.domain.endpoint import Endpoint

MASK = "***"
TEXT_LIMIT = 64 * 1024
"""The characters of a text that ``in_words`` looks through; the rest is left out, since no error shows so much."""

# A shorter value is part of many words, so that hiding it would make an error unreadable and protect nothing.
_LEAST = 4
# From this length on, a value hardly stands in a text by chance: it is replaced inside of longer words too, and in what
# the model says. Placeholders such as "none", "EMPTY" or "ollama" are shorter, and words of a story.
_LONG = 8
# The beginning of a secret that a stream may show before it is known to be one. It tells nothing, and to hold back each
# single letter would delay what is said.
_SHOWN = 3
_LETTERED = 128
_SHORT, _KNOWN = 80, 256
_DEPTH = 12
_ITEMS = 20
_FIELDS = 200
# What other headers and queries hold beside secrets: the words of a title, the date of a version.
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:-[a-z]+)?")
_PLAIN = re.compile(rf"[A-Za-z]+(?: [A-Za-z]+)*|{_DATE.pattern}")
_PARTS = re.compile(r"[^\s;,=\"]+")
_ESCAPES = re.compile(r"[\\%&]")
_NAMES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})


class Secrets:
    """The values that no text from outside may show.

    ``keys`` are secrets whatever they look like. ``others``, the values of headers and queries, are replaced in errors
    and facts alike; in what the model says, a value that is nothing but words or a date is left, since a story may hold
    it. Each value is also found as a URL, a JSON text or an HTML page writes it, and in errors and facts also where
    single letters are written so, more than once, or where the value is part of a Base64 or hexadecimal text.

    ``ways``: all that is looked for in errors, ``spoken``: all that is looked for in what the model says.

    Values below 4 characters are not replaced. Values below 8 are replaced in errors and facts where they stand as a
    word of their own, and are left in what the model says.
    """

    def __init__(self, keys: Iterable[str] = (), others: Iterable[str] = ()) -> None:
        keys, others = set(keys), set(others)
        self.ways = _written(keys | others, _LEAST)
        self._words = _pattern(self.ways, re.IGNORECASE)
        self._known: dict[str, str] = {}
        self._packed = [way for one in keys | others if len(one) >= _LONG for way in _packed(one)]
        self._values = tuple(one for one in keys | others if len(one) >= _LEAST)
        self.spoken = _written(keys | {one for one in others if not _PLAIN.fullmatch(one)}, _LONG)
        self._speech = _pattern(self.spoken)
        self._longest = max(map(len, self.spoken), default=0)
        firsts = "".join(sorted({re.escape(one[0]) for one in self.spoken}))
        self._first = re.compile(f"[{firsts}]") if firsts else None

    @cached_property
    def _letters(self) -> re.Pattern[str] | None:
        return _pattern(self._values, re.IGNORECASE, _lettered)

    def in_words(self, text: str) -> str:
        """Give the first ``TEXT_LIMIT`` characters of an error, a fact or a header without the secrets.

        The beginning of a secret at the end is hidden too: the text may have been cut there.
        """
        if self._words is None:
            return text[:TEXT_LIMIT]
        if len(text) > _SHORT:
            return self._without_words(text)
        found = self._known.get(text)  # of a server, most are the same each time: the model, why it ended
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._known[text] = self._without_words(text)
        return found

    def _without_words(self, text: str) -> str:
        assert self._words is not None
        was_cut = len(text) > TEXT_LIMIT
        text = text[:TEXT_LIMIT]
        text = self._words.sub(MASK, text)
        for one in self._packed:
            text = text.replace(one, MASK)
        if _ESCAPES.search(text) and self._letters is not None:
            text = self._letters.sub(MASK, text)
        return self._without_end(text, 1 if was_cut else _LONG)

    def in_speech(self, text: str) -> str:
        """Give what the model said without the secrets, also without the long beginning of one at the end."""
        if self._speech is None:
            return text
        if self._holds(text):
            text = "".join(self.parted(text))
        return self._without_end(text, _LONG)

    def _holds(self, text: str) -> bool:
        for one in self.spoken:  # noqa: SIM110 - for each piece of a stream, and faster than any()
            if one in text:
                return True
        return False

    def in_json(self, value: Any, depth: int = _DEPTH) -> Any:
        """Give the JSON of a refusal without the secrets. What is deeper or longer than a refusal is left out."""
        if self._words is None:
            return value
        if isinstance(value, str):
            return self.in_words(value)
        if not isinstance(value, dict | list):
            return value
        if not depth:
            return None
        if isinstance(value, list):
            return [self.in_json(one, depth - 1) for one in value[:_ITEMS]]
        return {name: self.in_json(one, depth - 1) for name, one in islice(value.items(), _FIELDS)}

    def parted(self, text: str) -> Iterator[str]:
        """Give speech piece by piece, with ``MASK`` for each secret."""
        at = 0
        for start, end in self.places(text):
            yield text[at:start]
            yield MASK
            at = end
        yield text[at:]

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Give where each secret in speech begins and ends."""
        if self._speech is not None and self._holds(text):
            yield from (found.span() for found in self._speech.finditer(text))

    def begins_at(self, text: str, since: int = 0) -> int:
        """Give where, from ``since`` on, the end of ``text`` begins that is the beginning of a secret; else its length.

        A whole secret is no beginning.
        """
        at = max(since, len(text) - self._longest + 1, 0)
        while self._first is not None and (found := self._first.search(text, at)) is not None:
            at = found.start()
            if any(one.startswith(text[at:]) for one in self.spoken):
                return at
            at += 1
        return len(text)

    def _without_end(self, text: str, least: int) -> str:
        at = self.begins_at(text)
        return text[:at] + MASK if len(text) - at >= least else text


class SecretFilter:
    """Takes the secrets out of speech that comes in pieces, wherever the pieces break.

    An end that may be the beginning of a secret is held back once it has more than three characters that match.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._end = ""  # what may be the beginning of a secret
        self._given = 0  # how much of it was given

    def feed(self, text: str) -> str:
        """Give what ``text`` adds."""
        secrets = self._secrets
        if not secrets.spoken or not text:
            return text
        text, at, new = self._end + text, self._given, []
        for start, end in secrets.places(text):
            new += [text[at:start], MASK]
            at = end
        stop = secrets.begins_at(text, at if new else 0)
        self._end = text[stop:]
        if len(self._end) <= _SHOWN:
            stop, self._given = len(text), len(self._end)
        else:
            self._given = max(at - stop, 0)
        new.append(text[at:stop])
        return "".join(new)

    def flush(self) -> str:
        """Give what is held back: ``MASK`` for the long beginning of a secret, since the rest may have been cut off."""
        end, given = self._end, self._given
        self._end, self._given = "", 0
        return MASK if len(end) >= _LONG else end[given:]


@lru_cache(maxsize=256)
def secrets_of(endpoint: Endpoint) -> Secrets:
    """Give the secrets of an endpoint: its key, the values of its headers, its query and the query's values."""
    keys = [endpoint.api_key.get_secret_value()] if endpoint.api_key else []
    others = []
    for name, value in endpoint.headers:
        text = value.get_secret_value()
        parts = _PARTS.findall(text)
        if name.lower() in _CREDENTIALS:
            keys += [text, *parts[1:]]
        else:
            others += [text, *(one for one in parts if len(one) >= _LONG and not _PLAIN.fullmatch(one))]
    if endpoint.query is not None:
        query = endpoint.query.get_secret_value()
        others += [query, unquote(query), *(one for _, one in parse_qsl(query) if not _DATE.fullmatch(one))]
    return Secrets(keys, others)


def _written(values: set[str], least: int) -> tuple[str, ...]:
    """Give each value of at least ``least`` characters in the ways that it can be written, the longest first."""
    ways = {way for value in values if len(value) >= least for way in _ways(value)}
    return tuple(sorted(ways, key=len, reverse=True))


def _packed(value: str) -> Iterator[str]:
    """Give what a Base64 or hexadecimal text shows of a value, wherever in what was packed it stands."""
    data = value.encode()
    yield from (data.hex(), data.hex().upper())
    for before in range(3):
        held = before + len(data)
        text = base64.b64encode(bytes(before) + data).decode()
        core = text[(0, 2, 3)[before] : held * 8 // 6]  # without the letters that others share
        yield from {core, core.replace("+", "-").replace("/", "_")}


def _lettered(value: str) -> str:
    """Give a pattern for a value whose letters are written in any way that a text or a page can write them.

    Of a long value the first letters tell, and all that follows without a blank is taken for the rest.
    """
    rest = r"\S*" if len(value) > _LETTERED else ""
    first, *others = map(_letter, value[:_LETTERED])
    return "".join(
        [f"(?:{first})", *(rf"\\{{0,8}}(?:{one})" for one in others), rest]
    )  # quotes may be escaped, and again


def _letter(one: str) -> str:
    code = f"{ord(one):02x}"
    in_url = "".join(f"%(?:25)*{byte:02x}" for byte in one.encode())
    name = _NAMES.get(one)
    ways = [re.escape(one), in_url, rf"\\(?:u00|x){code}", f"&(?:amp;)*#(?:0*{ord(one)}|x0*{code});"]
    return "|".join([*ways, f"&(?:amp;)*{name};"] if name else ways)


def _ways(value: str) -> Iterator[str]:
    escaped = json.dumps(value)[1:-1]
    yield value
    yield from (escaped, escaped.replace("/", r"\/"), json.dumps(value, ensure_ascii=False)[1:-1])
    for safe in ("", "/", "/:"):
        encoded = quote(value, safe=safe)
        yield from (encoded, re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), encoded))
    yield from (html.escape(value), html.escape(value, quote=False), html.escape(value).replace("&#x27;", "&#39;"))


def _pattern(
    values: tuple[str, ...], flags: int = 0, as_pattern: Callable[[str], str] = re.escape
) -> re.Pattern[str] | None:
    if not values:
        return None
    short = [as_pattern(one) for one in values if len(one) < _LONG]
    ways = [as_pattern(one) for one in values if len(one) >= _LONG]
    if short:
        ways.append(rf"(?<![^\W_])(?:{'|'.join(short)})(?![^\W_])")
    return re.compile("|".join(ways), flags)


NONE = Secrets()

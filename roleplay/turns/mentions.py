"""Who is mentioned in a text: found by display name, by alias, or by one word of a name that nobody else has.

A text is read as units. A unit is a word, a symbol such as an emoji, or a character of a script that is written without
blanks; names are sequences of units. Punctuation only parts units. All names are looked for at once, in time linear in
the text and the names (Aho and Corasick, 1975).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from unicodedata import category, normalize

from roleplay.domain.conversation import Participant
from roleplay.turns.common_words import COMMON_WORDS

_JOINER = "\u200d"
_CONTRACTED = {"s", "d", "m", "ll", "re", "ve"}  # Bob's, he'd, I'm; not D'Artagnan, where it stands before
_NOT = "t"  # don't is no Don
_NOT_BEHIND = (["'", "t"], ["'", "T"])
# Scripts that put no blanks between words. Katakana is a kind of its own: in Japanese it is what parts words.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul, whose particles stand behind a name without a blank
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3041, 0x309F),  # Hiragana
    (0x3105, 0x312F),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7AF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_KATAKANA = ((0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF))
_REGIONS = ((0x1F1E6, 0x1F1FF),)  # two of them are a flag
_SKIN = ((0x1F3FB, 0x1F3FF),)  # goes with the emoji before
_ACCENTS = ((0x0300, 0x036F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE20, 0xFE2F))
_VARIATIONS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))

# What a character is. Letters, not an enumeration, which costs more than all else here.
_WORD, _KANA, _EAST, _SYMBOL, _MARK, _UNSEEN = "wkesmu"
_GOES_ON = _WORD + _KANA  # a character of these goes on with the unit before
_BREAK, _APOSTROPHE, _HYPHEN = " '-"
_APART = _BREAK + _APOSTROPHE
_PARTING = _APART + _HYPHEN


class _Unit(NamedTuple):
    """``text`` is folded, so that letters of either case are the same; of a part behind a hyphen it begins with one,
    since the "ray" of "X-ray" is no Ray. ``capital``: it is written with one. ``parted``: it does not follow the unit
    before it at once, or behind a hyphen."""

    text: str
    kind: str
    capital: bool
    parted: bool

    @property
    def is_name(self) -> bool:
        """Whether it may call somebody, alone of a longer name."""
        return self.kind in (_WORD, _KANA) and len(self.text) > 1 and not self.text.isdecimal()


class _Called(NamedTuple):
    """Who is called so. ``capital``: it must be written with one, as a common word that is a name. ``alone``: no unit
    of its script may stand beside it."""

    seats: tuple[int, ...]
    capital: bool
    alone: bool


_Pattern = tuple[str, ...]
_OF_WORDS = 2


def mentioned(text: str, seats: Iterable[Participant], present: Iterable[Participant] = ()) -> list[int]:
    """Give the numbers of the ``seats`` that a text mentions, in the order in which it does; each once.

    ``present`` are all who may be meant: the name of another of them calls no seat that has a part of it. A name that
    lies within a longer one that was found is not mentioned by it. A whole name calls all who have it, in the order of
    ``seats``; a word of a display name calls nobody where two have it, or where it is a common one.
    """
    wanted = {one.seat: one for one in seats}
    everybody = wanted | {one.seat: one for one in present}  # in the order of seats
    called = _names(everybody.values())
    units = _units(text) if called else []
    found: dict[int, None] = {}
    for pattern in dict.fromkeys(_outermost(_found(called, units))):
        found.update(dict.fromkeys(seat for seat in called[pattern].seats if seat in wanted))
    return list(found)


def _names(everybody: Iterable[Participant]) -> Mapping[_Pattern, _Called]:
    """Give what calls somebody, by the best of four ranks: whole names as they are written, whole names without
    decoration, words of names as they are written, words without decoration."""
    ranks: list[dict[_Pattern, dict[int, bool]]] = [{}, {}, {}, {}]  # whose it is, and whether it demands a capital
    for one in everybody:
        for place, name in enumerate((one.display_name, *one.aliases)):
            units = _units(name)
            for rank, written in enumerate((units, [bare for unit in units for bare in _bare(unit)])):
                if written:
                    ranks[rank].setdefault(_pattern(written), {})[one.seat] = _is_common(written)
                # The words of aliases are not theirs alone, such as of "the girl with the scar".
                for word in _words(written) if place == 0 else ():
                    ranks[_OF_WORDS + rank].setdefault(word, {})[one.seat] = False
    called: dict[_Pattern, _Called] = {}
    for rank, patterns in enumerate(ranks):
        for pattern, seats in patterns.items():
            if pattern not in called and (rank < _OF_WORDS or len(seats) == 1):
                alone = len(pattern) == 1 and _kind(pattern[0][0]) == _EAST
                called[pattern] = _Called(tuple(seats), all(seats.values()), alone)
    return called


def _pattern(units: Sequence[_Unit]) -> _Pattern:
    return tuple([unit.text for unit in units])


def _is_common(units: Sequence[_Unit]) -> bool:
    """Whether a name is made of common words that it writes with a capital, such as Will."""
    return units[-1].capital and all(unit.text in COMMON_WORDS for unit in units)


def _bare(unit: _Unit) -> Iterator[_Unit]:
    """Give a unit without decoration: no symbol, no accent, no hyphen before it."""
    if unit.kind == _SYMBOL:
        return
    letters = [char for char in normalize("NFD", unit.text) if not _within(char, _ACCENTS)]
    yield unit._replace(text=normalize("NFC", "".join(letters)).removeprefix("-"))


def _words(units: Sequence[_Unit]) -> Iterator[_Pattern]:
    """Give the words of a name that has several: what stands between its blanks."""
    words: list[list[_Unit]] = []
    for unit in units:
        if unit.parted or not words:
            words.append([])
        words[-1].append(unit)
    for word in words if len(words) > 1 else []:
        pattern = _pattern(word)
        if len(word) == 1:
            if word[0].is_name and pattern[0] not in COMMON_WORDS:
                yield pattern
        elif word[0].kind != _SYMBOL:
            yield pattern


def _outermost(found: Sequence[tuple[int, _Pattern]]) -> list[_Pattern]:
    """Give what was found, in its order, without what lies within a longer one. ``found`` are begin and pattern, by
    their ends, no two of them with one end."""
    kept: list[tuple[int, _Pattern]] = []
    for begin, pattern in reversed(found):
        if not kept or begin < kept[-1][0]:
            kept.append((begin, pattern))
    return [pattern for _, pattern in reversed(kept)]


def _found(called: Mapping[_Pattern, _Called], units: Sequence[_Unit]) -> list[tuple[int, _Pattern]]:
    """Find for each unit the longest pattern that ends with it and is written as it must be."""
    follow, back, longest = _automaton(called)
    found, node = [], 0
    for end, unit in enumerate(units):
        while node and unit.text not in follow[node]:
            node = back[node]
        node = follow[node].get(unit.text, 0)
        pattern = longest[node]
        if pattern is None:
            continue
        for one in (pattern, (unit.text,)):  # the second where the first demands a capital and has none
            if one in called and _is_meant(called[one], units, end):
                found.append((end + 1 - len(one), one))
                break
    return found


def _is_meant(called: _Called, units: Sequence[_Unit], end: int) -> bool:
    """Whether what calls somebody is written so that it does."""
    if called.capital and not units[end].capital:
        return False
    if not called.alone:
        return True
    after = units[end + 1] if end + 1 < len(units) else None
    before = units[end - 1] if end else None
    follows = after is not None and not after.parted and after.kind == _EAST
    return not follows and (before is None or units[end].parted or before.kind != _EAST)


def _automaton(
    patterns: Iterable[_Pattern],
) -> tuple[list[dict[str, int]], list[int], list[_Pattern | None]]:
    """Give for each node what follows it by unit, the node of its longest proper suffix, and the longest pattern that
    ends with it."""
    follow: list[dict[str, int]] = [{}]
    longest: list[_Pattern | None] = [None]
    for pattern in patterns:
        node = 0
        for unit in pattern:
            if unit not in follow[node]:
                follow[node][unit] = len(follow)
                follow.append({})
                longest.append(None)
            node = follow[node][unit]
        longest[node] = pattern
    back = [0] * len(follow)
    waiting = deque(follow[0].values())
    while waiting:
        node = waiting.popleft()
        for unit, child in follow[node].items():
            behind = back[node]
            while behind and unit not in follow[behind]:
                behind = back[behind]
            back[child] = follow[behind].get(unit, 0)
            longest[child] = longest[child] or longest[back[child]]
            waiting.append(child)
    return follow, back, longest


def _units(text: str) -> list[_Unit]:
    """Read a text as units."""
    parts: list[list[str]] = []  # of each unit: its kind, the kind of what is before it, its characters
    before, joined = _BREAK, False
    for char in normalize("NFKC", text.replace("\u2122", " ")):  # the sign of a trade mark would become letters
        kind = _kind(char)
        if kind == before and kind in _GOES_ON:
            parts[-1].append(char)
        elif kind == _UNSEEN:
            joined = joined or char == _JOINER
            continue
        elif kind in _PARTING:
            # A hyphen or an apostrophe goes with the letters on both sides of it, and with none alone.
            before = _BREAK if before in _PARTING else kind
        elif kind == _MARK:
            if before not in _PARTING:
                parts[-1].append(char)
        elif kind == _SYMBOL and before == _SYMBOL and (joined or _is_one(parts[-1][2:], char)):
            parts[-1].append(char)
        else:
            parts.append([kind, before, char])
            before = kind
        joined = False
    return list(_as_written(parts))


def _is_one(symbols: Sequence[str], after: str) -> bool:
    """Whether a symbol is one with those before it: as the other half of a flag, or as their colour."""
    flag = len(symbols) == 1 and _within(after, _REGIONS) and _within(symbols[0], _REGIONS)
    return flag or _within(after, _SKIN)


def _as_written(parts: Sequence[Sequence[str]]) -> Iterator[_Unit]:
    """Give parts as units, contractions taken off: what is behind an apostrophe goes with the word or goes away."""
    new = tuple.__new__  # a named tuple's own costs three times as much
    for place, (kind, before, *chars) in enumerate(parts):
        written = "".join(chars)
        text = written.casefold()
        if not text.isascii():
            text = normalize("NFC", text)
        if kind == _WORD:
            if before == _APOSTROPHE and (text in _CONTRACTED or text == _NOT):
                continue
            after = parts[place + 1] if place + 1 < len(parts) else ()
            if after[1:] in _NOT_BEHIND:
                text = f"{text}'{_NOT}"
        if before == _HYPHEN:
            text = f"-{text}"
        yield new(_Unit, (text, kind, written[0].isupper() or written[0].istitle(), before in _APART))


@lru_cache(maxsize=8192)
def _kind(char: str) -> str:  # noqa: PLR0911 - one for each kind
    if char in "'\u2019\u2018\u02bc":
        return _APOSTROPHE
    if char in "-\u2010\u2011":
        return _HYPHEN
    found = category(char)
    if (found in {"Cf", "Cc"} and not char.isspace()) or _within(char, _VARIATIONS):
        return _UNSEEN
    if found[0] == "M":
        return _MARK
    if found == "So" or _within(char, _SKIN) or (found == "Sm" and char > "\x7f"):
        return _SYMBOL
    if found[0] not in "LN":
        return _BREAK
    if _within(char, _KATAKANA):
        return _KANA
    return _EAST if _within(char, _UNSPACED) else _WORD


def _within(char: str, ranges: Iterable[tuple[int, int]]) -> bool:
    point = ord(char)
    return any(low <= point <= high for low, high in ranges)

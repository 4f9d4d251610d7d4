"""Weights: what a counter's counts weigh in tokens of the model that is asked, as far as its reports have taught us."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from roleplay.context.counting import ASCII_TOKENS, CJK_TOKENS, Counter
from roleplay.domain.context import DialectDemands, Line

_NAMES = 1024
#: What stands between a name and what is said under it.
COLON_TOKENS = 1


class Size(NamedTuple):
    """The counted tokens of a text, parted by script: of ASCII, and of what UTF-8 writes in several bytes.

    A counter that is off is off by another share for each, so they are calibrated apart.
    """

    narrow: float
    wide: float


class Rates(NamedTuple):
    """What a request costs: tokens of the model for each counted one of either script, for each message, and once."""

    narrow: float
    wide: float
    per_message: float
    fixed: float


def size_of(text: str, tokens: int) -> Size:
    """Part the count of a text by script, without looking at its characters one by one."""
    if text.isascii():
        return Size(tokens, 0.0)
    length = len(text)
    wide = (len(text.encode()) - length) / 2  # what is beyond ASCII mostly takes two bytes more, an emoji three
    weight = wide * CJK_TOKENS
    share = weight / (weight + max(length - wide, 0.0) * ASCII_TOKENS)
    return Size(tokens * (1 - share), tokens * share)


@lru_cache(maxsize=4096)
def _name_size(counter: Counter, name: str) -> Size:
    """A speaker's name; a conversation has few, so they are remembered."""
    return size_of(name, counter.count(name))


def prior(demands: DialectDemands) -> Rates:
    """The rates before anything was reported: counts as they are, which err on the safe side."""
    return Rates(1.0, 1.0, demands.per_message_tokens, demands.fixed_tokens)


class Weights:
    """The prices of messages in requests to one model. ``calibrated`` is the number of reports behind the rates,
    ``user_first`` what the dialect demands of the first message."""

    def __init__(self, counter: Counter, demands: DialectDemands, rates: Rates | None = None, calibrated: int = 0):
        self.counter = counter
        self.rates = rates or prior(demands)
        self.calibrated = calibrated
        self.user_first = demands.user_first
        self._names = demands.names
        self._beside: dict[str, tuple[float, Size]] = {}

    @property
    def fixed(self) -> int:
        """What a request costs beside its messages."""
        return round(self.rates.fixed)

    def beside(self, name: str) -> tuple[float, Size]:
        """Give what a message costs beside its text, and the size of what is counted of that: its name."""
        found = self._beside.get(name)
        if found is None:
            if len(self._beside) >= _NAMES:
                self._beside.clear()
            size = _name_size(self.counter, name) if self._names else Size(0.0, 0.0)
            rates = self.rates
            cost = rates.per_message + rates.narrow * size.narrow + rates.wide * size.wide
            found = self._beside[name] = cost, size
        return found

    def message(self, size: Size, name: str) -> int:
        """Give what a message costs, to the nearest token."""
        beside, _ = self._beside.get(name) or self.beside(name)
        return int(self.rates.narrow * size.narrow + self.rates.wide * size.wide + beside + 0.5)

    def lines(self, lines: Sequence[Line], named_for: int | None = None) -> tuple[list[int], list[tuple[float, float]]]:
        """Give what lines of history cost, each, and their sizes with the names that they are said under, as pairs.

        ``named_for``: the seat in whose contexts each line of another begins with its speaker's name.
        """
        if named_for is not None:
            return self._named_lines(lines, named_for)
        narrow, wide = self.rates.narrow, self.rates.wide
        costs: list[int] = []
        sizes: list[tuple[float, float]] = []
        known, cost, size = self._beside.get, costs.append, sizes.append  # looked up once: history is long
        for _, _, _, name, text, tokens, _ in lines:
            beside, (named_narrow, named_wide) = known(name) or self.beside(name)
            if text.isascii():
                cost(int(narrow * tokens + beside + 0.5))
                size((tokens + named_narrow, named_wide))
            else:
                of_narrow, of_wide = size_of(text, tokens)
                cost(int(narrow * of_narrow + wide * of_wide + beside + 0.5))
                size((of_narrow + named_narrow, of_wide + named_wide))
        return costs, sizes

    def _named_lines(self, lines: Sequence[Line], own: int) -> tuple[list[int], list[tuple[float, float]]]:
        costs, sizes = self.lines(lines)
        for place, line in enumerate(lines):
            if line.seat != own:
                name = self.beside(line.name)[1]
                narrow, wide = name.narrow + COLON_TOKENS, name.wide
                costs[place] += int(self.rates.narrow * narrow + self.rates.wide * wide + 0.5)
                sizes[place] = sizes[place][0] + narrow, sizes[place][1] + wide
        return costs, sizes

    def bounds(self, budget_tokens: int) -> tuple[int, int]:
        """Give how many counted tokens, and how many for each message, no history within the budget exceeds."""
        least = min(self.rates.narrow, self.rates.wide)
        return int(budget_tokens / least) + 1, max(int((self.rates.per_message - 0.5) / least), 0)

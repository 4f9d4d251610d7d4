"""The history window: where it starts, and when it moves.

While everything from its start on stays below the high-water mark, the start stays, so that successive requests share
their prefix and the service's prompt cache pays for most of it. When history overflows, the start moves forward by a
chunk, down to the low-water mark, and then stays again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from roleplay.domain.context import Line

HIGH_WATER = 1.0
LOW_WATER = 0.5


class Marks(NamedTuple):
    """The marks as shares of the room that a request has for history."""

    high: float = HIGH_WATER
    low: float = LOW_WATER


MARKS = Marks()


def first_kept(
    lines: Sequence[Line], costs: Sequence[int], room: int, marks: Marks = MARKS, *, moves: bool = False
) -> int:
    """Give the index of the first line to keep (``len(lines)`` for none): contiguous, whole turns, newest first.

    ``lines`` are oldest first and ``costs`` their tokens. What is kept never costs more than ``room``. ``moves``: an
    epoch begins anyway, so that it goes down to the low-water mark though there is no overflow.
    """
    if sum(costs) <= (room * min(marks.low, marks.high) if moves else room * marks.high):
        return 0
    low = room * min(marks.low, marks.high)
    kept = index = len(lines)
    cost = 0
    while index > 0:
        start = turn_start(lines, index - 1)
        cost += sum(costs[start:index])
        newest_turn = kept == len(lines)
        if cost > (room if newest_turn else low):
            break
        kept = index = start
    return kept


def turn_start(lines: Sequence[Line], index: int) -> int:
    """Give the index of the first line of the turn that a line belongs to."""
    while index > 0 and lines[index - 1].turn_seq == lines[index].turn_seq:
        index -= 1
    return index

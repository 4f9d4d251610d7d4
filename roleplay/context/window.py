"""The history window: where it starts, and when it moves.

While everything from its start on fits, the start stays, so that successive requests share their prefix and the
service's prompt cache pays for most of it. When history overflows, the start moves forward by a chunk, down to a
low-water mark, and then stays again.
"""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.domain.context import Line

LOW_WATER = 0.5


def first_kept(lines: Sequence[Line], costs: Sequence[int], room: int) -> int:
    """Give the index of the first line to keep (``len(lines)`` for none): contiguous, whole turns, newest first.

    ``lines`` are oldest first and ``costs`` their tokens. What is kept never costs more than ``room``.
    """
    if sum(costs) <= room:
        return 0
    low = room * LOW_WATER
    kept = index = len(lines)
    cost = 0
    while index > 0:
        start = _turn_start(lines, index - 1)
        cost += sum(costs[start:index])
        newest_turn = kept == len(lines)
        if cost > (room if newest_turn else low):
            break
        kept = index = start
    return kept


def _turn_start(lines: Sequence[Line], index: int) -> int:
    while index > 0 and lines[index - 1].turn_seq == lines[index].turn_seq:
        index -= 1
    return index

"""Where the history window starts, and when it moves."""

from __future__ import annotations

import pytest

from roleplay.context.window import LOW_WATER, first_kept
from roleplay.domain.context import Line


def turns(*sizes: int) -> list[Line]:
    """Lines of turns with so many messages each."""
    numbers = [turn for turn, size in enumerate(sizes, start=1) for _ in range(size)]
    return [Line(seq, turn, 1, "Nova", "x", 1) for seq, turn in enumerate(numbers, start=1)]


@pytest.mark.parametrize(
    ("sizes", "costs", "room", "first"),
    [
        ((), [], 0, 0),
        ((1,), [5], 5, 0),
        ((1,), [5], 4, 1),
        ((2, 2), [1, 1, 1, 1], 4, 0),
        ((2, 2), [1, 1, 1, 1], 3, 2),
        ((2, 2, 2), [10, 10, 10, 10, 10, 10], 59, 4),
        ((2, 2, 2), [10, 10, 10, 10, 10, 10], 40, 4),
        ((2, 2, 2), [1, 1, 1, 1, 10, 10], 21, 4),
        ((2, 2), [1, 1, 15, 15], 20, 4),
        ((1, 3), [0, 0, 0, 9], 8, 4),
        ((2, 2), [9, 9, 0, 0], 0, 2),
        ((2,), [1, 1], -1, 2),
    ],
)
def test_what_is_kept(sizes: tuple[int, ...], costs: list[int], room: int, first: int) -> None:
    """Everything while it fits; else whole turns down to the low-water mark, the newest even above it."""
    assert first_kept(turns(*sizes), costs, room) == first


def test_half_is_left_free() -> None:
    """After an overflow at most the low-water share is kept, so that the start can stay for many turns."""
    lines = turns(*[2] * 500)
    costs = [10] * 1000
    first = first_kept(lines, costs, 9_999)
    assert sum(costs[first:]) <= LOW_WATER * 9_999 < sum(costs[first - 2 :])

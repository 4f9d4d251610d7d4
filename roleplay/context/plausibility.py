"""Plausibility of reports: whether the prompt tokens that a service reports grow as the prompts do.

Some services report only what they had not cached, or what was left after they cut the prompt, or always the same
number. A report is compared with earlier ones of prompts of other sizes: where the prompt is larger by so much, the
report should be larger by about as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Two prompts are compared where the larger one is larger by this share of itself.
_APART = 0.1
# By how much a report may grow for each token that the prompt should have grown by.
_LEAST_GROWTH = 0.4
_MOST_GROWTH = 3.0
# The share of comparisons that must agree. Other sessions may be in other languages, whose counts are off by other
# shares; so less is asked of them.
_AGREE_WITHIN = 0.5
_AGREE_AMONG = 0.25
_ENOUGH_WITHIN = 2
# A prompt looks cut where its report is between the first two shares of a shorter one's: what is left of a cut prompt
# is half of the window at least. Up to the third share it does where it should be larger by the factor.
_LEFT = 0.48
_FALLEN = 0.8
_STOPPED = 1.05
_BEYOND = 1.2
# How much it speaks for a cut that a report fell, or that it stopped growing.
_FELL_WEIGHS = 3
_STOPPED_WEIGHS = 2


class Point(NamedTuple):
    """The tokens that a prompt was expected to have, those that were reported, and the number of its session."""

    expected: float
    reported: float
    session: int


def follows(earlier: Sequence[Point], new: Point, fixed: float) -> bool | None:
    """Say whether a report grows as its prompt does, by the earlier ones of its session or, for want of these, of all.

    ``fixed`` are the tokens that every request is expected to cost. ``None``: there is none to compare with.
    """
    within: list[bool] = []
    among: list[bool] = []
    for expected, reported, session in earlier:
        larger = new.expected - expected
        if abs(larger) >= _APART * (max(new.expected, expected) - fixed):
            agrees = larger != 0 and _LEAST_GROWTH <= (new.reported - reported) / larger <= _MOST_GROWTH
            (within if session == new.session else among).append(agrees)
    if len(within) >= _ENOUGH_WITHIN:
        return sum(within) > _AGREE_WITHIN * len(within)
    among += within
    return sum(among) > _AGREE_AMONG * len(among) if among else None


def signs_of_cut(whole: Point, new: Point) -> int:
    """Say how much speaks for it that a prompt was cut, beside a shorter one of the same session that was not; 0:
    nothing."""
    share = new.reported / whole.reported
    if new.session != whole.session or new.expected <= whole.expected or not _LEFT <= share <= _STOPPED:
        return 0
    if share <= _FALLEN:
        return _FELL_WEIGHS
    return _STOPPED_WEIGHS if new.expected >= _BEYOND * whole.expected else 0

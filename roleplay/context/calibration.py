"""Calibration: learning from the prompt tokens that a service reports how its counts follow from ours.

A reported prompt is taken for a sum: so much for each token that our counter counted of ASCII and of other text, so
much for each message, so much for the request. The four rates are fitted to the latest reports by least squares that
begin at safe rates and come back to them where nothing is reported any more; a report that is far off what the others
say weighs less, so that no single one misleads.

The fit is believed within bounds, downward only while it is missed by little, and not at all where reports do not grow
as the prompts do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from roleplay.context.builder import Load
from roleplay.context.plausibility import Point, follows, signs_of_cut
from roleplay.context.weights import Rates

# How far the first rates may be off, as standard deviations: shares of a count, tokens of a message and of a request.
_DOUBT = (0.35, 0.35, 4.0, 150.0)
_TRUST = tuple(1 / doubt**2 for doubt in _DOUBT)
# Where the upper half of a 4 × 4 matrix, row by row, has each of its places.
_AT = ((0, 1, 2, 3), (1, 4, 5, 6), (2, 5, 7, 8), (3, 6, 8, 9))
_TINY = 1e-12
# What a report may be off by when the rates are right, as a share of the prompt.
_NOISE = 0.01
# What is left of a report's weight when the next one comes: about the latest 60 speak.
_FADE = 0.985
# While reports are missed by much, older ones are forgotten the sooner: the service may count otherwise now.
_HASTE = 0.1
_SPREADS = 2.5
_SETTLED = 8
_ERROR_FADE = 0.9
# Rates go down to half of the first ones: published vocabularies are not further below our estimate. They go up to four
# times those: a Chinese character costs up to 2.3 tokens in older vocabularies. A hidden preamble may be longer still.
_LEAST = 0.5
_MOST = 4.0
_MOST_FIXED = 4000.0
# A fit that misses the latest reports by this share is believed downward as far as it goes, by the second not at all.
# Services that report honestly are missed by 1 to 6 %; those that do not, by 50 % and more.
_LOW_ERROR = 0.1
_HIGH_ERROR = 0.2
# The latest reports that a new one is compared with are of prompts whose sizes differ by this share.
_TRAIL = 12
_STEP = 0.05
# A report that does not grow as its prompt does adds two doubts, one that does takes one away. From the limit on
# nothing is believed, until there is none left.
_DOUBTS = 2
_DOUBTED = 6
_MOST_DOUBTS = 10
# A report that is off by less is in line with the fit. Where so many of a session were, signs of cuts are believed from
# this sum on.
_IN_LINE = 0.2
_WHOLE = 4
_ALIKE = 0.95
_SIGNS = 6
# A refused request says where the window ends, until so many others were answered: a host may get a larger one.
_LIMIT_SHARE = 0.95
_REMEMBERED = 500
# A report that is larger by this factor than where prompts seemed to be cut says that they are not.
_WHOLE_AGAIN = 1.05
_NOTHING = (0.0,) * 10, (0.0,) * 4


class Observation(NamedTuple):
    """What a request held as we counted it, and the prompt tokens reported for it; ``None``: refused as too long.

    ``session`` is a number that tells the requests of one session from those of most others.
    """

    load: Load
    reported: int | None
    session: int = 0


class Seen(NamedTuple):
    """A report that later ones are compared with."""

    load: Load
    reported: int
    session: int


class Cut(NamedTuple):
    """The longest prompt that seems to have been read whole, the tokens reported for it, and the number of reports
    when a longer one last looked cut."""

    load: Load
    tokens: int
    then: int


class Trust(IntEnum):
    """Whether reports are believed: not yet, since none was seen to grow with its prompt; they are; they are not."""

    UNPROVEN = 0
    BELIEVED = 1
    DOUBTED = 2


class Fit(NamedTuple):
    """What was learned from reports: their weighted sums (the upper half of a 4 × 4 matrix, row by row, and a vector),
    how many there were, the share that the latest were missed by, the smallest load lately refused as too long and
    the largest lately answered, each with the number of reports then.

    ``trail``: the latest reports of prompts of different sizes. ``trust``: whether they are believed; ``doubts``: how
    much speaks against that. ``signs``: how much speaks for it that the latest prompts were cut; ``cut``: where the
    host seems to cut them.
    """

    squares: tuple[float, ...] = _NOTHING[0]
    products: tuple[float, ...] = _NOTHING[1]
    observations: int = 0
    error: float | None = None
    refused: tuple[Load, int] | None = None
    answered: tuple[Load, int] | None = None
    trail: tuple[Seen, ...] = ()
    trust: Trust = Trust.UNPROVEN
    doubts: int = 0
    signs: int = 0
    cut: Cut | None = None


def predicted(rates: Rates, load: Load) -> float:
    """Give the prompt tokens that a load should cost."""
    for_narrow, for_wide, per_message, fixed = rates
    narrow, wide, messages = load
    return for_narrow * narrow + for_wide * wide + per_message * messages + fixed


def rates_of(fit: Fit, start: Rates) -> Rates:
    """Give the rates that are in force by a fit, where ``start`` are those before anything was reported.

    They are at least half of those and at most four times as much; only the fixed cost may be more. They are the first
    ones unless the reports are believed, and not below them where the fit is missed by much or prompts are cut.
    """
    if fit.trust is not Trust.BELIEVED:
        return start
    rates = _fitted(fit.squares, fit.products, start)
    if fit.error is None or fit.cut is not None:
        least = 1.0
    else:
        share = (fit.error - _LOW_ERROR) / (_HIGH_ERROR - _LOW_ERROR)
        least = _LEAST + (1 - _LEAST) * min(max(share, 0.0), 1.0)
    return Rates(*(max(one, first * least) for one, first in zip(rates, start, strict=True)))


@lru_cache(maxsize=256)
def _fitted(squares: tuple[float, ...], products: tuple[float, ...], start: Rates) -> Rates:
    """Give the rates that fit best within their bounds: what is beyond one stays there, and the others fit the rest."""
    bounded: dict[int, float] = {}
    while True:
        half, vector = list(squares), list(products)
        for i, trust in enumerate(_TRUST):
            half[_AT[i][i]] += trust
            vector[i] += trust * start[i]
        for place, value in bounded.items():
            for i in range(4):
                vector[i] -= half[_AT[i][place]] * value
                half[_AT[i][place]] = 0.0
            half[_AT[place][place]], vector[place] = 1.0, value
        solved = _solve(half, vector)
        beyond = {
            i: bound
            for i, one in enumerate(solved)
            if i not in bounded and (bound := min(max(one, _LEAST * start[i]), _most(i, start[i]))) != one
        }
        if not beyond:
            return Rates(*(bounded.get(i, one) for i, one in enumerate(solved)))
        bounded |= beyond


def _most(place: int, first: float) -> float:
    return _MOST * first if place < 3 else max(_MOST * first, _MOST_FIXED)


def learn(fit: Fit, start: Rates, observed: Iterable[Observation]) -> Fit:
    """Give the fit with some observations more, the oldest first; what cannot be a report is left out."""
    for load, reported, session in observed:
        size = predicted(start, load)
        if reported is None:
            smaller = fit.refused is None or size < predicted(start, fit.refused[0])
            # Where longer ones were answered, it was not the length, whatever the service says; unless it says so again
            # before a longer one is answered, since a model may have been loaded anew with less room.
            believed = fit.answered is None or size > predicted(start, fit.answered[0])
            fit = fit._replace(
                refused=(load, fit.observations) if smaller and believed else fit.refused,
                answered=fit.answered if believed else None,
            )
        elif reported > 0:
            seen = Seen(load, reported, session)
            known, fit = fit, _compared(fit, start, seen)
            if fit.signs <= known.signs:  # what looks cut teaches nothing else
                fit = _learned(fit, start, seen)
    return fit


def _learned(fit: Fit, start: Rates, seen: Seen) -> Fit:
    """Fit the rates to one report more."""
    load, reported, _ = seen
    guess = predicted(_fitted(fit.squares, fit.products, start), load)
    if not 0.1 < reported / max(guess, 1.0) < 10:
        return fit
    off = abs(guess - reported) / reported
    if not fit.squares[-1]:
        error = None  # missed by the first rates, not by a fit
    elif fit.error is None:
        error = min(off, 1.0)
    else:
        error = _ERROR_FADE * fit.error + (1 - _ERROR_FADE) * min(off, 1.0)
    missed = off if error is None else error
    spread = max(_SPREADS * (fit.error or 0.0), 2 * _NOISE)
    weight = 1.0 if fit.observations < _SETTLED or off <= spread else spread / off
    scale = weight / (_NOISE * reported) ** 2
    fade = _FADE - min(max(missed - 2 * _NOISE, 0.0), _HASTE)
    x = (load.narrow, load.wide, float(load.messages), 1.0)
    squares = [x[i] * x[j] * scale for i in range(4) for j in range(i, 4)]
    return fit._replace(
        squares=tuple([fade * old + new for old, new in zip(fit.squares, squares, strict=True)]),
        products=tuple([fade * old + one * reported * scale for old, one in zip(fit.products, x, strict=True)]),
        observations=fit.observations + 1,
        error=error,
        refused=fit.refused if _holds(fit, start, load) else None,
        answered=_largest(fit, start, load),
    )


def _compared(fit: Fit, start: Rates, seen: Seen) -> Fit:
    """Compare a report with the latest ones of prompts of other sizes."""
    rates = _fitted(fit.squares, fit.products, start)
    new = _point(rates, seen)
    settled = fit.trust is Trust.BELIEVED and not fit.doubts and _is_in_line(new)
    if settled and abs(new.expected - (before := predicted(rates, fit.trail[-1].load))) < _STEP * (
        before - rates.fixed
    ):
        return fit._replace(signs=0) if fit.signs else fit
    points = [_point(rates, one) for one in fit.trail]
    rounded = Load(round(seen.load.narrow), round(seen.load.wide), seen.load.messages)
    known, fit = fit, fit._replace(trail=(*fit.trail, seen._replace(load=rounded))[-_TRAIL:])
    if known.trust is Trust.BELIEVED and not _is_in_line(new, _STEP):
        edge, whole = _longest_whole(points, new.session)
        if whole is not None and (signs := signs_of_cut(whole, new)):
            signs += fit.signs
            cut = Cut(known.trail[edge].load, int(whole.reported), fit.observations)
            return fit._replace(signs=signs, cut=cut if signs >= _SIGNS else fit.cut)
    return _judged(fit, new, follows=follows(points, new, rates.fixed))


def _longest_whole(points: Sequence[Point], session: int) -> tuple[int, Point | None]:
    """Give the longest prompt of a session that was reported whole, and its place; ``None`` where few were.

    It is the shortest of those that are about as large: where a host cuts, longer ones may be reported as a little
    more. It has the largest of their reports.
    """
    whole = [(point.expected, i) for i, point in enumerate(points) if point.session == session and _is_in_line(point)]
    largest = max((points[i].reported for _, i in whole), default=0.0)
    expected, edge = min((one for one in whole if points[one[1]].reported >= _ALIKE * largest), default=(0.0, 0))
    shorter = sum(other <= expected for other, _ in whole)
    return edge, Point(expected, largest, session) if shorter >= _WHOLE else None


def _judged(fit: Fit, new: Point, *, follows: bool | None) -> Fit:
    """Believe the reports, or not, after one that grew with its prompt or did not (``None``: nobody knows)."""
    doubts, trust = fit.doubts, fit.trust
    if follows is not None:
        doubts = max(doubts - 1, 0) if follows else min(doubts + _DOUBTS, _MOST_DOUBTS)
    if doubts >= _DOUBTED:
        trust = Trust.DOUBTED
    elif follows and not doubts and trust is not Trust.BELIEVED:
        if trust is Trust.DOUBTED:  # what was fitted meanwhile was fitted to reports that were not believed
            fit = fit._replace(squares=_NOTHING[0], products=_NOTHING[1], error=None)
        trust = Trust.BELIEVED
    cut = fit.cut
    if cut is not None:
        is_old = fit.observations - cut.then >= _REMEMBERED
        cut = None if is_old or trust is Trust.DOUBTED or new.reported > _WHOLE_AGAIN * cut.tokens else cut
    signs = 0 if follows else fit.signs
    if (doubts, trust, signs, cut) == (fit.doubts, fit.trust, fit.signs, fit.cut):
        return fit
    return fit._replace(doubts=doubts, trust=trust, signs=signs, cut=cut)


def _point(rates: Rates, seen: Seen) -> Point:
    return Point(predicted(rates, seen.load), seen.reported, seen.session)


def _is_in_line(point: Point, share: float = _IN_LINE) -> bool:
    return abs(point.reported - point.expected) <= share * point.expected


def _largest(fit: Fit, start: Rates, answered: Load) -> tuple[Load, int]:
    """Give the largest load that was answered lately, with the number of reports then."""
    known = fit.answered
    if known is None or fit.observations - known[1] >= _REMEMBERED:
        return answered, fit.observations
    return known if predicted(start, known[0]) > predicted(start, answered) else (answered, fit.observations)


def _holds(fit: Fit, start: Rates, answered: Load) -> bool:
    """Whether a refusal is still to be minded: it is not old, and nothing longer was answered since."""
    if fit.refused is None:
        return False
    load, then = fit.refused
    return fit.observations - then < _REMEMBERED and predicted(start, answered) < predicted(start, load)


def limit_of(fit: Fit, rates: Rates) -> int | None:
    """Give the prompt tokens that a request should stay below after one was refused as too long, or seems to have been
    cut; else ``None``."""
    loads = [known[0] for known in (fit.refused, fit.cut) if known is not None]
    if not loads:
        return None
    return max(int(min(predicted(rates, load) for load in loads) * _LIMIT_SHARE), 1)


def finding_of(fit: Fit) -> str | None:
    """Say in words why the reports of a host are not believed, or not wholly; ``None``: they are."""
    if fit.cut is not None:
        return f"the host seems to cut prompts at {fit.cut.tokens} tokens; requests are kept below that"
    if fit.trust is Trust.DOUBTED:
        return (
            "the reports do not grow with the prompt: the host seems to cut prompts, or reports only what it did not "
            "have cached; nothing is learned from them"
        )
    return None


def _solve(half: Sequence[float], vector: Sequence[float]) -> tuple[float, float, float, float]:
    """Solve a symmetric positive definite system of four by elimination, of which ``half`` is the upper half; columns
    of other sizes do it no harm. Written out, since it is solved in every turn."""
    a, b, c, d, e, f, g, h, i, j = half
    p, q, r, s = vector
    first = max(a, _TINY)
    of_b, of_c, of_d = b / first, c / first, d / first
    e, f, g = e - of_b * b, f - of_b * c, g - of_b * d
    h, i, j = h - of_c * c, i - of_c * d, j - of_d * d
    q, r, s = q - of_b * p, r - of_c * p, s - of_d * p
    second = max(e, _TINY)
    of_f, of_g = f / second, g / second
    h, i, j = h - of_f * f, i - of_f * g, j - of_g * g
    r, s = r - of_f * q, s - of_g * q
    third = max(h, _TINY)
    of_i = i / third
    w = (s - of_i * r) / max(j - of_i * i, _TINY)
    z = (r - i * w) / third
    y = (q - f * z - g * w) / second
    return (p - b * y - c * z - d * w) / first, y, z, w

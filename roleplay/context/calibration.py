"""Calibration: learning from the prompt tokens that a service reports how its counts follow from ours.

A reported prompt is taken for a sum: so much for each token that our counter counted of ASCII and of other text, so
much for each message, so much for the request. The four rates are fitted to the latest reports by least squares that
begin at safe rates and come back to them where nothing is reported any more; a report that is far off what the others
say weighs less, so that no single one misleads.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from roleplay.context.builder import Load
from roleplay.context.pricing import Rates

# How far the first rates may be off, as standard deviations: shares of a count, tokens of a message and of a request.
_DOUBT = (0.35, 0.35, 4.0, 150.0)
# What a report may be off by when the rates are right, as a share of the prompt.
_NOISE = 0.01
# What is left of a report's weight when the next one comes: about the latest 60 speak.
_FADE = 0.985
# While reports are missed by much, older ones are forgotten the sooner: the service may count otherwise now.
_HASTE = 0.1
_SPREADS = 2.5
_SETTLED = 8
_ERROR_FADE = 0.9
_LEAST = Rates(0.2, 0.2, 0.0, 0.0)
_MOST = Rates(4.0, 4.0, 60.0, 4000.0)
# A refused request says where the window ends, until so many others were answered: a host may get a larger one.
_LIMIT_SHARE = 0.95
_REMEMBERED = 500


class Observation(NamedTuple):
    """What a request held as we counted it, and the prompt tokens reported for it; ``None``: refused as too long."""

    load: Load
    reported: int | None


class Fit(NamedTuple):
    """What was learned from reports: their weighted sums (the upper half of a 4 × 4 matrix, row by row, and a vector),
    how many there were, the share that the latest were missed by, the smallest load lately refused as too long and
    the largest lately answered, each with the number of reports then."""

    squares: tuple[float, ...] = (0.0,) * 10
    products: tuple[float, ...] = (0.0,) * 4
    observations: int = 0
    error: float | None = None
    refused: tuple[Load, int] | None = None
    answered: tuple[Load, int] | None = None


def predicted(rates: Rates, load: Load) -> float:
    """Give the prompt tokens that a load should cost."""
    return rates.narrow * load.narrow + rates.wide * load.wide + rates.per_message * load.messages + rates.fixed


@lru_cache(maxsize=256)
def rates_of(fit: Fit, start: Rates) -> Rates:
    """Give the rates that a fit says, where ``start`` are those before anything was reported."""
    if not fit.observations:
        return start
    trust = [1 / doubt**2 for doubt in _DOUBT]
    matrix = [[0.0] * 4 for _ in range(4)]
    sums = iter(fit.squares)
    for i in range(4):
        for j in range(i, 4):
            matrix[i][j] = matrix[j][i] = next(sums)
    for i in range(4):
        matrix[i][i] += trust[i]
    vector = [fit.products[i] + trust[i] * start[i] for i in range(4)]
    solved = _solve(matrix, vector)
    return Rates(*(min(max(one, least), most) for one, least, most in zip(solved, _LEAST, _MOST, strict=True)))


def learn(fit: Fit, start: Rates, observed: Iterable[Observation]) -> Fit:
    """Give the fit with some observations more, the oldest first; what cannot be a report is left out."""
    for load, reported in observed:
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
            continue
        guess = predicted(rates_of(fit, start), load)
        if not 0.1 < reported / max(guess, 1.0) < 10:
            continue
        off = abs(guess - reported) / reported
        error = off if fit.error is None else _ERROR_FADE * fit.error + (1 - _ERROR_FADE) * min(off, 1.0)
        spread = max(_SPREADS * (fit.error or 0.0), 2 * _NOISE)
        weight = 1.0 if fit.observations < _SETTLED or off <= spread else spread / off
        scale = weight / (_NOISE * reported) ** 2
        fade = _FADE - min(max(error - 2 * _NOISE, 0.0), _HASTE)
        x = (load.narrow, load.wide, float(load.messages), 1.0)
        squares = [x[i] * x[j] * scale for i in range(4) for j in range(i, 4)]
        fit = Fit(
            squares=tuple([fade * old + new for old, new in zip(fit.squares, squares, strict=True)]),
            products=tuple([fade * old + one * reported * scale for old, one in zip(fit.products, x, strict=True)]),
            observations=fit.observations + 1,
            error=error,
            refused=fit.refused if _holds(fit, start, load) else None,
            answered=_largest(fit, start, load),
        )
    return fit


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
    """Give the prompt tokens that a request should stay below after one was refused as too long; else ``None``."""
    return None if fit.refused is None else max(int(predicted(rates, fit.refused[0]) * _LIMIT_SHARE), 1)


def _solve(matrix: list[list[float]], vector: list[float]) -> list[float]:
    """Solve a small positive definite system by elimination, in its place; columns of other sizes do it no harm."""
    size = len(vector)
    for i, row in enumerate(matrix):
        pivot = row[i] = max(row[i], 1e-12)
        for j in range(i + 1, size):
            factor = matrix[j][i] / pivot
            vector[j] -= factor * vector[i]
            for k in range(i + 1, size):
                matrix[j][k] -= factor * row[k]
    for i in range(size - 1, -1, -1):
        rest = vector[i]
        for k in range(i + 1, size):
            rest -= matrix[i][k] * vector[k]
        vector[i] = rest / matrix[i][i]
    return vector

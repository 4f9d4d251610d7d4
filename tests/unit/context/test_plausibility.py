"""Services whose reports are not the prompt's tokens: none teaches the rates anything, and honest ones are believed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roleplay import Dialect
from roleplay.context.builder import Load
from roleplay.context.calibration import (
    Fit,
    Observation,
    Trust,
    finding_of,
    learn,
    limit_of,
    predicted,
    rates_of,
)
from roleplay.context.weights import Rates, prior
from roleplay.errors import StoreError
from roleplay.store.records.calibrations import _written, read_fit
from roleplay.wire.dialects import demands

START = prior(demands(Dialect.OPENAI))
BUDGET = 3_400
TRUE = Rates(0.85, 0.85, 5.0, 20.0)
CUT = 2_000
NEW = Fit()


class Asked(NamedTuple):
    """A request as the service sees it: its tokens, the number of its turn, where its history begins."""

    tokens: int
    turn: int
    start: int


class Operation(NamedTuple):
    """What became of a conversation: the fit, and of each request its size by the first rates and its lines."""

    fit: Fit
    sizes: list[float]
    lines: list[int]
    fits: list[Fit]


def conversation(
    host: Callable[[Asked], int],
    turns: int = 100,
    *,
    fit: Fit = NEW,
    budget: int = BUDGET,
    true: Rates = TRUE,
    wide: float = 0.0,
    seed: int = 5,
    session: int = 1,
    steady: bool = False,
) -> Operation:
    """Speak to a host that reports as ``host`` does; the window moves down to half of the budget."""
    draw = random.Random(seed)  # noqa: S311 - sizes, not secrets
    lines: list[float] = []
    start = 0
    sizes, kept, fits = [], [], []
    for turn in range(turns):
        lines.append(120.0 if steady else draw.uniform(60, 180))
        rates, limit = rates_of(fit, START), limit_of(fit, rates_of(fit, START))
        room = budget if limit is None else min(limit, budget)

        def load(first: int) -> Load:
            tokens = 80 + sum(lines[first:])
            return Load(tokens * (1 - wide), tokens * wide, 1 + len(lines) - first)

        if predicted(rates, load(start)) > room:
            while predicted(rates, load(start)) > room / 2 and start < len(lines) - 1:
                start += 2
        held = load(start)
        reported = host(Asked(round(predicted(true, held)), turn, start))
        fit = learn(fit, START, [Observation(held, reported, session)])
        sizes.append(predicted(START, held))
        kept.append(len(lines) - start)
        fits.append(fit)
        lines.append(115.0)
    return Operation(fit, sizes, kept, fits)


def uncached(block: int = 1, least: int = 0, every: int = 0) -> Callable[[Asked], int]:
    """A host that reports only what it has not cached: in blocks, from a least size on, all of it every so many."""
    before = Asked(0, 0, -1)

    def report(asked: Asked) -> int:
        nonlocal before
        cached = before.tokens // block * block if asked.start == before.start and before.tokens >= least else 50
        before = asked
        return asked.tokens if every and asked.turn % every == 0 else max(asked.tokens - cached, 1)

    return report


def drawn(least: int, most: int) -> Callable[[Asked], int]:
    """A host that reports anything."""
    draw = random.Random(3)  # noqa: S311 - as above
    return lambda _asked: draw.randint(least, most)


def summed() -> Callable[[Asked], int]:
    """A host that reports all that it was ever sent."""
    total = 0

    def report(asked: Asked) -> int:
        nonlocal total
        total += asked.tokens
        return total

    return report


LIES: dict[str, Callable[[], Callable[[Asked], int]]] = {
    "uncached": uncached,
    "uncached in blocks": lambda: uncached(128, 1024),
    "uncached but now and then": lambda: uncached(every=5),
    "always 7,800": lambda: lambda _asked: 7_800,
    "always 3,000": lambda: lambda _asked: 3_000,
    "always 1,000": lambda: lambda _asked: 1_000,
    "always 50": lambda: lambda _asked: 50,
    "always 1": lambda: lambda _asked: 1,
    "always too much": lambda: lambda _asked: 2**62,
    "true and 50": lambda: lambda asked: asked.tokens if asked.turn % 2 else 50,
    "true and a third": lambda: lambda asked: asked.tokens if asked.turn % 2 else asked.tokens // 3,
    "true and 7,800": lambda: lambda asked: asked.tokens if asked.turn % 2 else 7_800,
    "anything": lambda: drawn(100, 7_000),
    "all so far": summed,
}
CUTS: dict[str, Callable[[Asked], int]] = {
    "half is left": lambda asked: asked.tokens if asked.tokens <= CUT else CUT // 2,
    "all that fits is left": lambda asked: min(asked.tokens, CUT),
    "whole messages are left": lambda asked: asked.tokens if asked.tokens <= CUT else CUT - asked.tokens * 7 % 200,
}
HONEST: dict[str, tuple[Callable[[Asked], int], Rates]] = {
    "as we count": (lambda asked: asked.tokens, START),
    "fewer": (lambda asked: asked.tokens, TRUE),
    "half": (lambda asked: asked.tokens, Rates(0.52, 0.52, 3.0, 10.0)),
    "double": (lambda asked: asked.tokens, Rates(2.0, 2.0, 5.0, 20.0)),
    "almost four times": (lambda asked: asked.tokens, Rates(3.9, 3.9, 10.0, 20.0)),
    "a hidden preamble": (lambda asked: asked.tokens, Rates(0.8, 0.8, 5.0, 190.0)),
    "a long hidden preamble": (lambda asked: asked.tokens, Rates(0.8, 0.8, 5.0, 1_200.0)),
    "now and then doubled": (lambda asked: asked.tokens * (1 + (asked.turn % 20 == 19)), TRUE),
    "now and then halved": (lambda asked: asked.tokens // (1 + (asked.turn % 20 == 19)), TRUE),
}


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_teaches_nothing(lie: str, steady: bool) -> None:
    """The rates are the first ones, the finding says why, and neither more nor less history is sent than without."""
    told = conversation(LIES[lie](), steady=steady)
    unreported = conversation(lambda _asked: 0, steady=steady)
    assert told.fit.trust is Trust.DOUBTED
    assert "do not grow with the prompt" in str(finding_of(told.fit))
    assert rates_of(told.fit, START) == START
    assert limit_of(told.fit, START) is None
    assert max(told.sizes) <= BUDGET
    assert sum(told.lines[30:]) == pytest.approx(sum(unreported.lines[30:]), rel=0.1)


def test_no_report_is_no_finding() -> None:
    """A host that reports nothing, or 0, is not accused of anything."""
    assert conversation(lambda _asked: 0).fit == Fit()


@pytest.mark.parametrize("lie", CUTS)
def test_a_host_that_cuts_is_sent_less(lie: str) -> None:
    """After a few prompts that were cut, requests stay below where the host cuts, and nothing is believed downward."""
    told = conversation(CUTS[lie])
    finding = finding_of(told.fit)
    assert finding is not None
    assert "the host seems to cut prompts at" in finding
    assert told.fit.cut is not None
    assert 0.85 * CUT < told.fit.cut.tokens <= CUT
    rates = rates_of(told.fit, START)
    assert all(one >= first for one, first in zip(rates, START, strict=True))
    above = [size for size in told.sizes if size * 0.85 > CUT]
    assert len(above) <= 5
    assert max(told.sizes[40:]) * 0.85 < CUT
    assert min(told.lines[40:]) > 3


@pytest.mark.parametrize("host", HONEST)
def test_an_honest_host_is_believed(host: str) -> None:
    """Whatever it counts with, there is no finding and no limit, and its counts are met."""
    report, true = HONEST[host]
    told = conversation(report, true=true, budget=6_000)
    assert finding_of(told.fit) is None
    assert told.fit.trust is Trust.BELIEVED
    assert all(finding_of(fit) is None and fit.refused is None for fit in told.fits)
    held = Load(2_000.0, 0.0, 20)
    assert predicted(rates_of(told.fit, START), held) == pytest.approx(predicted(true, held), rel=0.04)


def test_languages_in_turn_are_no_lie() -> None:
    """Sessions in languages whose counts are off by other shares speak against no one, as they alternate."""
    fit = Fit()
    english = conversation(lambda asked: asked.tokens, 60, true=Rates(0.6, 2.2, 5.0, 20.0))
    chinese = conversation(lambda asked: asked.tokens, 60, true=Rates(0.6, 2.2, 5.0, 20.0), wide=1.0)
    assert english.fit.trust is chinese.fit.trust is Trust.BELIEVED
    draw = random.Random(1)  # noqa: S311 - as above
    for _ in range(200):
        tokens, session = draw.uniform(300, 3_000), draw.randint(1, 6)
        load = Load(tokens, 0.0, 10) if session % 2 else Load(0.0, tokens, 10)
        reported = round(predicted(Rates(0.6, 2.2, 5.0, 20.0), load))
        fit = learn(fit, START, [Observation(load, reported, session)])
        assert finding_of(fit) is None
    assert rates_of(fit, START)[:2] == pytest.approx((0.6, 2.2), rel=0.03)


def test_a_host_becomes_honest_again() -> None:
    """After some reports it is believed, and what it said before is forgotten."""
    told = conversation(lambda asked: 1_000 if asked.turn < 40 else asked.tokens)
    assert told.fits[39].trust is Trust.DOUBTED
    assert told.fits[70].trust is Trust.BELIEVED
    assert rates_of(told.fit, START).narrow == pytest.approx(0.85, rel=0.03)
    lying = conversation(lambda asked: asked.tokens if asked.turn < 40 else 1_000)
    assert lying.fits[39].trust is Trust.BELIEVED
    assert lying.fits[60].trust is Trust.DOUBTED


def test_a_cut_is_forgotten_when_a_longer_prompt_is_whole() -> None:
    """The host may have got a larger window: one longer prompt that is reported whole says so."""
    fit = conversation(CUTS["half is left"]).fit
    load = Load(3_500.0, 0.0, 20)
    assert finding_of(learn(fit, START, [Observation(load, round(predicted(TRUE, load)), 2)])) is None


def test_few_odd_reports_are_no_finding() -> None:
    """One prompt that looks cut does not shorten the next ones."""
    told = conversation(lambda asked: asked.tokens // 2 if asked.turn in {9, 40, 41} else asked.tokens)
    assert all(finding_of(fit) is None for fit in told.fits[:41])
    assert finding_of(told.fit) is None


REPORTS = st.one_of(st.none(), st.integers(-5, 20_000), st.sampled_from([0, 1, 7_800, 10**9, 2**62, 2**63 - 1]))
LOADS = st.builds(Load, st.floats(0, 50_000), st.floats(0, 50_000), st.integers(1, 500))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Observation, LOADS, REPORTS, st.integers(0, 2)), max_size=40))
def test_rates_are_bounded_whatever_is_reported(observed: list[Observation]) -> None:
    """They are between half of the first ones and four times those; only the fixed cost may be more. What was learned
    is read back as it was written, and in parts as in one."""
    fit = Fit()
    for one in observed:
        fit = learn(fit, START, [one])
        rates = rates_of(fit, START)
        for rate, first in zip(rates[:3], START[:3], strict=True):
            assert first / 2 <= rate <= first * 4
        assert START.fixed / 2 <= rates.fixed <= 4_000
        if fit.error is None or fit.error >= 0.2:
            assert all(rate >= first for rate, first in zip(rates, START, strict=True))
    assert fit == learn(Fit(), START, observed)
    assert read_fit(_written(fit)) == fit


def test_a_fit_of_before_is_read() -> None:
    """One that was written before reports were compared has nothing to compare with: it waits to be proven."""
    known = conversation(lambda asked: asked.tokens).fit
    old = json.dumps(json.loads(_written(known))[:6])
    fit = read_fit(old)
    assert (fit.squares, fit.observations, fit.trail, fit.trust) == (known.squares, 100, (), Trust.UNPROVEN)
    assert rates_of(fit, START) == START
    again = conversation(lambda asked: asked.tokens, 3, fit=fit).fit
    assert again.trust is Trust.BELIEVED
    assert rates_of(again, START).narrow == pytest.approx(0.85, rel=0.03)


def test_a_damaged_fit_is_found_when_it_is_read() -> None:
    """Not when a reply has come, whose turn it would leave without an end."""
    fit = conversation(lambda asked: asked.tokens, 30).fit
    for damaged in (fit._replace(trail=()), fit._replace(squares=fit.squares[1:]), fit._replace(products=())):
        with pytest.raises(StoreError, match="calibration"):
            read_fit(_written(damaged))

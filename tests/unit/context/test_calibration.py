"""Learning a model's tokens from what it reports: how near the counts come, and what does not mislead them."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import NamedTuple

import pytest

from roleplay import Dialect, EstimatingCounter
from roleplay.context.builder import Load
from roleplay.context.calibration import Fit, Observation, learn, limit_of, predicted, rates_of
from roleplay.context.weights import Weights, prior, size_of
from roleplay.testing.simulator.tokens import count as real_count
from roleplay.wire.dialects import demands

COUNTER = EstimatingCounter()
START = prior(demands(Dialect.MINIMAX))
PROSE = (
    "the river has risen above our second marker and ferrymen are gone to hills when grain comes late again how long "
    "could a garrison hold that pass before winter considering extraordinary circumstances"
)
ENGLISH = PROSE.split()
CHINESE = "亮躬耕于南阳，先生以为北伐如何？粮草若迟，守军可支几时。风在三更转向，河水便落。"


def english(draw: random.Random) -> str:
    return " ".join(draw.choice(ENGLISH) for _ in range(draw.randint(5, 120))).capitalize() + "."


def chinese(draw: random.Random) -> str:
    return "".join(draw.choice(CHINESE) for _ in range(draw.randint(10, 200)))


def mixed(draw: random.Random) -> str:
    return " ".join(draw.choice((english, chinese))(draw) for _ in range(draw.randint(1, 3)))


class Template(NamedTuple):
    """What a service adds: tokens of each message, of the request, and a vocabulary that is coarser or finer."""

    per_message: int
    fixed: int
    share: float = 1.0

    def reported(self, texts: list[str]) -> int:
        return round(sum(self.share * real_count(one) + self.per_message for one in texts)) + self.fixed


def load_of(texts: list[str]) -> Load:
    sizes = [size_of(one, COUNTER.count(one)) for one in texts]
    return Load(sum(one.narrow for one in sizes), sum(one.wide for one in sizes), len(texts))


def conversation(text: Callable[[random.Random], str], turns: int, seed: int = 7) -> list[list[str]]:
    """The texts of the requests of a conversation whose window moves."""
    draw = random.Random(seed)  # noqa: S311 - texts, not secrets
    front, lines, requests = [text(draw) for _ in range(5)], [], []
    for _ in range(turns):
        lines.append(text(draw))
        if sum(map(COUNTER.count, lines)) > 5_000:
            lines = lines[len(lines) // 2 :]
        requests.append([*front, *lines])
        lines.append(text(draw))
    return requests


@pytest.mark.parametrize("template", [Template(5, 16), Template(9, 180), Template(3, 40, 0.8), Template(4, 12, 1.5)])
@pytest.mark.parametrize("text", [english, chinese, mixed])
def test_counts_come_near(text: Callable[[random.Random], str], template: Template) -> None:
    """From turn 21 to 200 the median error is at most 3 % and the 95th percentile at most 6 %, whatever the service
    counts with."""
    fit, errors = Fit(), []
    for texts in conversation(text, 200):
        load, reported = load_of(texts), template.reported(texts)
        errors.append(abs(predicted(rates_of(fit, START), load) - reported) / reported)
        fit = learn(fit, START, [Observation(load, reported)])
    later = sorted(errors[20:])
    assert statistics.median(later) <= 0.03
    assert later[int(0.95 * len(later))] <= 0.06
    assert fit.observations == 200
    assert fit.error is not None
    assert fit.error < 0.06


def test_what_was_never_seen_stays_on_the_safe_side() -> None:
    """English reports teach nothing of Chinese: its counts stay as they were."""
    template = Template(5, 16)
    seen = [Observation(load_of(texts), template.reported(texts)) for texts in conversation(english, 60)]
    rates = rates_of(learn(Fit(), START, seen), START)
    assert rates.narrow < 0.9
    assert rates.wide == pytest.approx(1.0)


def test_a_wild_report_misleads_nobody() -> None:
    """One report in twenty that is far off changes the counts by less than 3 %; an impossible one is left out."""
    template = Template(5, 16)
    true = [Observation(load_of(texts), template.reported(texts)) for texts in conversation(english, 100)]
    wild = [
        one._replace(reported=one.reported * 2) if n % 20 == 19 and one.reported else one for n, one in enumerate(true)
    ]
    load = true[-1].load
    calm, misled = (predicted(rates_of(learn(Fit(), START, seen), START), load) for seen in (true, wild))
    assert abs(misled - calm) / calm < 0.03
    fit = learn(Fit(), START, true)
    after = learn(fit, START, [Observation(load, 1), Observation(load, 10**9)])
    assert (after.squares, after.products, after.observations) == (fit.squares, fit.products, fit.observations)
    assert rates_of(after, START) == rates_of(fit, START)


def test_a_new_template_is_learned() -> None:
    """When the service begins to count otherwise, the counts follow within some dozens of reports."""
    before, after = Template(5, 16), Template(9, 180)
    requests = conversation(english, 200)
    fit = learn(Fit(), START, [Observation(load_of(one), before.reported(one)) for one in requests[:100]])
    fit = learn(fit, START, [Observation(load_of(one), after.reported(one)) for one in requests[100:]])
    last = requests[-1]
    assert predicted(rates_of(fit, START), load_of(last)) == pytest.approx(after.reported(last), rel=0.03)


def test_a_refusal_sets_a_limit() -> None:
    """The smallest load that was refused bounds later prompts, until a longer one is answered or many were."""
    small, large = Load(900.0, 0.0, 10), Load(2_000.0, 0.0, 10)
    fit = learn(Fit(), START, [Observation(large, None), Observation(small, None), Observation(large, None)])
    limit = limit_of(fit, START)
    assert limit is not None
    assert 0.9 * predicted(START, small) < limit < predicted(START, small)
    shorter = [Observation(Load(500.0, 0.0, 10), 500)]
    assert limit_of(learn(fit, START, shorter), START) is not None
    assert learn(fit, START, shorter * 501).refused is None
    assert learn(fit, START, [Observation(large, 2_100)]).refused is None
    assert limit_of(Fit(), START) is None


@pytest.mark.parametrize(
    ("text", "narrow", "wide"),
    [("plain words", 4, 0), ("", 0, 0), ("先生以为如何", 0, 4), ("ab 先生", 1, 2), ("Ещё", 1, 1)],
)
def test_a_count_is_parted_by_script(text: str, narrow: int, wide: int) -> None:
    """The parts of a count add up to it, whatever the text."""
    tokens = COUNTER.count(text)
    size = size_of(text, tokens)
    assert sum(size) == pytest.approx(tokens)
    assert tuple(size) == pytest.approx((narrow, wide), abs=1.0)


def test_prices_bound_the_walk() -> None:
    """Whatever fits a budget at some prices is within the bounds that history is read by."""
    draw = random.Random(3)  # noqa: S311 - as above
    for _ in range(200):
        rates = START._replace(narrow=draw.uniform(0.3, 3), wide=draw.uniform(0.3, 3), per_message=draw.uniform(0, 20))
        weights = Weights(COUNTER, demands(Dialect.MINIMAX), rates)
        texts = [draw.choice((english, chinese, mixed))(draw) for _ in range(draw.randint(1, 9))]
        counts = [COUNTER.count(one) for one in texts]
        spent = sum(weights.message(size_of(one, n), "Nova") for one, n in zip(texts, counts, strict=True))
        cap, per_message = weights.bounds(spent)
        assert sum(n + per_message for n in counts) <= cap

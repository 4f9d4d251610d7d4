from __future__ import annotations

from roleplay import EstimatingCounter
from roleplay.context.builder import Load
from roleplay.context.calibration import Fit, learn
from roleplay.context.weights import prior
from roleplay.domain.endpoint import Dialect
from roleplay.turns import calibrating
from roleplay.turns.calibrating import LiveCalibration
from roleplay.wire.dialects import demands

NEEDS = demands(Dialect.MINIMAX)


def known_after(reports: int) -> LiveCalibration:
    known = LiveCalibration(EstimatingCounter(), NEEDS, Fit())
    for number in range(reports):
        load = Load(1000.0 + 137 * (number % 17), 5.0 * (number % 3), 40)
        known.observe(load, int(load.narrow * 1.1 + 250), "a session")
    return known


def test_a_batch_is_learned_once_where_nobody_else_has_merged() -> None:
    """What is merged is what is known already, to the last bit, without learning it again."""
    known = known_after(30)
    batch = known.take_waiting()
    again = learn(Fit(), prior(NEEDS), batch)
    learned = known.with_batch(batch)
    assert learned(Fit()) is known.fit
    assert known.fit == again


def test_a_batch_is_learned_anew_on_what_others_merged() -> None:
    others = known_after(12).fit
    known = known_after(30)
    batch = known.take_waiting()
    assert known.with_batch(batch)(others) == learn(others, prior(NEEDS), batch)
    known.merged(others)
    assert known.fit.observations == 30, "less than is known here is not taken"


def test_what_was_observed_while_a_batch_was_taken_is_no_part_of_it() -> None:
    known = known_after(30)
    batch = known.take_waiting()
    known.observe(Load(900.0, 0.0, 40), 1200, "a session")
    assert known.with_batch(batch)(Fit()) == learn(Fit(), prior(NEEDS), batch)
    known.merged(learn(Fit(), prior(NEEDS), batch))
    assert known.fit.observations == 31
    assert calibrating.MERGE_AT > len(known.waiting) == 1

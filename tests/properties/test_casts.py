"""Nobody's context and nobody's view has a line outside its audience or its presence, or under another's name, and all
that a seat may see is there: whoever sits in a session, under whatever name, and whatever is done in whatever order.

``HYPOTHESIS_PROFILE=deep`` tries much more; ``python -m tests.support.casts`` tries random casts without a test.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roleplay.testing import ScriptedModel
from tests.conftest import Ledger
from tests.support import casts
from tests.support.casts import Company, House, Line, Member, Plot, Said, Step
from tests.support.shells import Roleplay

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
RUN = settings(
    max_examples=400 if DEEP else 12,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
STEPS = 50 if DEEP else 20

names = st.sampled_from(casts.NAMES) | st.text(st.sampled_from("".join(casts.PARTS)), min_size=1, max_size=9).filter(
    casts.is_name
)
aliases = st.lists(names, max_size=2).map(tuple)
models = st.builds(Member, st.integers(0, 3), st.none() | names, aliases)
humans = st.builds(Member, st.sampled_from([-1, 3]), names, aliases)
steps = st.builds(Step, st.sampled_from(casts.DOORS), st.integers(0, 23), st.integers(0, 255), st.integers(0, 839))
plots = st.builds(
    Plot,
    st.sampled_from(casts.DIALECTS),
    st.sampled_from([None, casts.SMALL_BUDGET]),
    st.booleans(),
    st.sampled_from(casts.SPEAKING),
    st.lists(models, min_size=1, max_size=5),
    st.lists(humans, min_size=1, max_size=3),
    st.lists(models | humans, max_size=4),
    st.lists(steps, min_size=STEPS // 2, max_size=STEPS),
)


def opened(url: str, model: ScriptedModel, dialect: str) -> House:
    """An engine of a dialect, and its personas."""
    rp: Any = Roleplay.open(url, model=casts.endpoint(dialect), chat=model, tenant=f"tenant of {dialect}")
    return House(rp.__enter__(), model)


@pytest.mark.usefixtures("shell", "unwatched")
def test_nobody_hears_what_was_not_meant_for_them(database_url: str, ledger: Ledger) -> None:
    """Nor a line under another's name; in every dialect, through every door."""
    houses: dict[str, House] = {}
    for dialect in casts.DIALECTS:
        model = ScriptedModel(piece_chars=12)
        ledger.models.append(model)
        houses[dialect] = opened(database_url, model, dialect)

    @RUN
    @given(plots)
    def run(plot: Plot) -> None:
        casts.play(houses[plot.dialect], plot)

    try:
        run()
    finally:
        for house in houses.values():
            house.close()


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize("dialect", casts.DIALECTS)
def test_a_cast_that_lies_is_found_out(sqlite_url: str, ledger: Ledger, dialect: str) -> None:
    """The model of the property fails where it is told that another heard a line, or said it, or was there."""
    model = ScriptedModel(piece_chars=12)
    ledger.models.append(model)
    house = opened(sqlite_url, model, dialect)
    models, humans = [Member(0, "Ann", ()), Member(1, "Anna", ())], [Member(-1, "Bob", ()), Member(-1, "Bo", ())]
    plot = Plot(dialect, None, False, "list", models, humans, [], [])

    def lie(about: Said) -> None:
        line = about.line
        assert line is not None
        lies = {
            "seat": 1 if line.seat != 1 else 2,
            "name": "Bobo",
            "audience": frozenset({3, 4}),
            "moment": 1,
        }
        for what, value in lies.items():
            truth = getattr(line, what)
            company.there.append(frozenset({3, 4}))
            setattr(line, what, value)
            with pytest.raises(AssertionError):
                company.check_request(body, turn, None, "")
            setattr(line, what, truth)
            company.there.pop()
        company.check_request(body, turn, None, "")

    try:
        company = Company(house, plot)
        for who in (0, 1):
            company.perform(Step("send", who, 0, 0))
        company.perform(Step("speak", 1, 0, 2))
        body, turn = model.bodies[-1], company.turns[-1]
        lie(company.turns[0])
        lie(company.turns[1])
        said = company.turns[0].line
        assert said
        extra = Line("⟦0⟧", said.seat, said.name, None, 0)
        company.turns[1].parent = Said(company.turns[0], extra, None)
        with pytest.raises(AssertionError):
            company.check_request(body, turn, None, "")
        company.turns[1].parent = company.turns[0]
        company.check_path(1)
        company.turns[0].audience = frozenset({3})
        with pytest.raises(AssertionError):
            company.check_path(1)
        company.turns[0].audience = None
    finally:
        house.close()

"""Who speaks next, by each strategy, in moments made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roleplay import Participant, PlayedBy, SpeakingMoment
from roleplay.context.draws import SPEAKERS, Draws
from roleplay.turns.strategies import STRATEGIES

NAMES = ("Alice", "Bob", "Cara", "Dora")


def seat(number: int, name: str = "", talkativeness: float = 0.5, order: int | None = None) -> Participant:
    """A seat of the model's."""
    return Participant(
        seat=number,
        played_by=PlayedBy.MODEL,
        display_name=name or NAMES[number - 1],
        persona_id="p",
        persona_version=1,
        order=number if order is None else order,
        talkativeness=talkativeness,
    )


def drawn(seed: str = "seed", fixed: Mapping[str, float] | None = None) -> Callable[[str], float]:
    """What is drawn from a seed, but for some subjects."""
    draws = Draws(seed)
    return lambda subject: (fixed or {}).get(subject, draws.number(SPEAKERS, subject, answered=7))


def moment(
    *talkativeness: float,
    text: str = "Hello.",
    asked: bool = True,
    whispered: bool = False,
    last: int | None = None,
    spoken: Sequence[int] = (),
    reply_to_self: bool = False,
    draw: Callable[[str], float] | None = None,
    present: Sequence[Participant] | None = None,
) -> SpeakingMoment:
    """A moment with a seat for each ``talkativeness``."""
    seats = tuple(seat(number, talkativeness=much) for number, much in enumerate(talkativeness, 1))
    there = seats if present is None else present
    return SpeakingMoment(seats, there, text, asked, whispered, last, spoken, reply_to_self, draw or drawn())


def chosen(name: str, now: SpeakingMoment) -> list[int]:
    """Whom a strategy chooses."""
    return list(STRATEGIES[name](now))


def many(name: str, *talkativeness: float, **facts: object) -> Iterator[list[int]]:
    """Whom a strategy chooses, by four hundred seeds."""
    for number in range(400):
        yield chosen(name, moment(*talkativeness, draw=drawn(str(number)), **facts))  # type: ignore[arg-type]


def test_there_are_five() -> None:
    """The names that settings may say, in the order in which they are told; none can be changed."""
    assert list(STRATEGIES) == ["natural", "list", "pooled", "round_robin", "manual"]
    with pytest.raises(TypeError):
        STRATEGIES["mine"] = list  # type: ignore[index]


def test_who_is_mentioned_speaks_first() -> None:
    """Mentions in their order, the others behind them by chance; who is silent speaks where it is mentioned."""
    assert chosen("natural", moment(0, 0, 0, text="Cara! And Alice?")) == [3, 1]
    orders = list(many("natural", 1, 0, 0, 1, text="Cara!"))
    assert {tuple(one) for one in orders} == {(3, 1, 4), (3, 4, 1)}
    assert 100 < orders.count([3, 1, 4]) < 300


def test_talkativeness_is_how_often_one_speaks() -> None:
    """Of four hundred lines, each answers about as many as it is talkative."""
    found = list(many("natural", 1, 0.75, 0.25, 0))
    counts = [sum(number in one for one in found) for number in (1, 2, 3, 4)]
    assert counts[0] == 400
    assert 260 < counts[1] < 340
    assert 60 < counts[2] < 140
    assert counts[3] == 0


def test_somebody_speaks() -> None:
    """Where nobody would, one does, by chance, whoever is talkative at all; nobody, where nobody is."""
    found = list(many("natural", 1e-9, 1e-9, 0))
    assert {tuple(one) for one in found} == {(1,), (2,)}
    assert 100 < found.count([1]) < 300
    assert chosen("natural", moment(0, 0)) == []
    assert chosen("natural", moment()) == []


def test_nobody_draws_below_nothing() -> None:
    """A draw of 0 itself makes no silent seat speak, and the highest one no talkative seat silent."""
    lowest, highest = (lambda _subject: 0.0), (lambda _subject: 1 - 2**-53)
    assert chosen("natural", moment(0, 0.5, draw=lowest)) == [2]
    assert chosen("natural", moment(1, 0.5, draw=highest)) == [1]


def test_a_whisper_is_answered() -> None:
    """Who hears a whisper is meant by it, the silent one too."""
    assert chosen("natural", moment(0, whispered=True)) == [1]
    assert {tuple(one) for one in many("natural", 0, 0, whispered=True)} == {(1,), (2,)}
    assert chosen("natural", moment(0, 1, whispered=True)) == [2]


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_nobody_replies_to_itself_unasked(name: str) -> None:
    """Unasked, the last speaker is left out, mentioned or not, and where it is the only one; by the setting it is not.
    Asked, everybody may answer."""
    unasked = {"text": "Bob, go on.", "asked": False, "last": 2}
    for one in many(name, 1, 1, 1, **unasked):
        assert one
        assert 2 not in one
    assert chosen(name, moment(1, text="", asked=False, last=1)) == []
    assert any(2 in one for one in many(name, 1, 1, 1, **unasked, reply_to_self=True))
    answers = list(many(name, 1, 1, 1, text="Bob, go on.", last=2))
    assert any(2 in one for one in answers) == (name != "manual")


def test_two_of_one_name_are_two() -> None:
    """The one that spoke last is left out by its seat: the other of its name speaks."""
    there = (seat(1, "Alice", 1), seat(2, "Alice", 1))
    now = moment(asked=False, last=1)._replace(seats=there, present=there)
    assert chosen("natural", now) == [2]
    assert chosen("natural", now._replace(text="Alice?", asked=True)) == [1, 2]


def test_the_name_of_somebody_who_may_not_speak() -> None:
    """A muted one, or a human, who is called by its name is not taken for another that has a part of it."""
    guard, old = seat(1, "Guard", 0), seat(2, "The Old Guard", 0)
    now = moment(text="Old Guard, come.")._replace(seats=(guard,))
    assert chosen("natural", now._replace(present=(guard,))) == [1]
    assert chosen("natural", now._replace(present=(guard, old), text="The old guard, come.")) == []


def test_the_list() -> None:
    """Each seat once, in the order of seats."""
    assert chosen("list", moment(0, 1, 0.5)) == [1, 2, 3]
    assert chosen("list", moment(0, 1, 0.5, asked=False, last=2)) == [1, 3]
    assert chosen("list", moment()) == []


def test_the_pool() -> None:
    """One by chance, of those who have not spoken since the human did; after all have, of all but the last."""
    assert {tuple(one) for one in many("pooled", 0, 0, 0)} == {(1,), (2,), (3,)}
    assert {tuple(one) for one in many("pooled", 0, 0, 0, asked=False, last=1, spoken=(1,))} == {(2,), (3,)}
    assert {tuple(one) for one in many("pooled", 0, 0, 0, asked=False, last=3, spoken=(1, 3))} == {(2,)}
    assert {tuple(one) for one in many("pooled", 0, 0, 0, asked=False, last=2, spoken=(1, 3, 2))} == {(1,), (3,)}
    assert chosen("pooled", moment()) == []


@pytest.mark.parametrize(
    ("asked", "last", "found"),
    [
        (True, None, [1, 2, 3]),
        (True, 1, [2, 3, 1]),
        (True, 3, [1, 2, 3]),
        (False, 1, [2, 3]),
        (False, 3, [1, 2]),
        (True, 9, [1, 2, 3]),
    ],
)
def test_the_round(asked: bool, last: int | None, found: list[int]) -> None:
    """Each seat once, beginning behind the one that spoke last."""
    assert chosen("round_robin", moment(0, 0, 0, asked=asked, last=last)) == found


def test_the_round_knows_who_may_not_speak() -> None:
    """It goes on behind a muted seat, one that was moved, and one that has left."""
    one, two, three = seat(1, order=3), seat(2, order=2), seat(3, order=1)
    now = moment(last=2)._replace(seats=(three, one), present=(three, two, one))
    assert chosen("round_robin", now) == [1, 3]
    there = (seat(1), seat(3))
    assert chosen("round_robin", moment(last=2)._replace(seats=there, present=there)) == [3, 1]


def test_by_hand() -> None:
    """A line calls nobody; where somebody is to speak, one does by chance."""
    assert chosen("manual", moment(1, 1, text="Alice?")) == []
    assert {tuple(one) for one in many("manual", 0, 0, 0, asked=False, last=1)} == {(2,), (3,)}


moments = st.builds(
    SpeakingMoment,
    seats=st.just(()),
    present=st.just(()),
    text=st.sampled_from(["", "Hello.", "Bob and Alice", "Dora's hat", "Eve!"]),
    asked=st.booleans(),
    whispered=st.booleans(),
    last=st.none() | st.integers(1, 6),
    spoken=st.lists(st.integers(1, 6), unique=True),
    reply_to_self=st.booleans(),
    draw=st.integers().map(lambda seed: drawn(str(seed))),
)
casts = st.lists(
    st.builds(
        seat,
        st.integers(1, 6),
        name=st.sampled_from([*NAMES, "Eve"]),
        talkativeness=st.sampled_from([0, 0.3, 0.5, 1]),
        order=st.integers(0, 3),
    ),
    max_size=6,
    unique_by=lambda one: one.seat,
)


@pytest.mark.parametrize("name", list(STRATEGIES))
@given(moments, casts, st.data())
def test_whatever_the_moment(name: str, now: SpeakingMoment, there: list[Participant], data: st.DataObject) -> None:
    """Only seats that may speak, each at most once, the same for the same moment; who left or joins among those that
    may not speak changes nothing but names."""
    may = tuple(one for one in there if data.draw(st.booleans()))
    now = now._replace(seats=may, present=tuple(there))
    found = chosen(name, now)
    assert len(set(found)) == len(found)
    assert set(found) <= {one.seat for one in may}
    assert chosen(name, now) == found
    asked: set[str] = set()

    def counted(subject: str) -> float:
        asked.add(subject)
        return now.draw(subject)

    assert chosen(name, now._replace(draw=counted)) == found
    assert all(int(subject.rsplit(maxsplit=1)[1]) in {one.seat for one in may} for subject in asked)


@pytest.mark.parametrize("name", ["natural", "list", "round_robin"])
@given(moments, casts.filter(len))
def test_another_seat_changes_nothing(name: str, now: SpeakingMoment, there: list[Participant]) -> None:
    """Without the seat that is last in the order, the others are chosen in the order in which they were."""
    there = sorted(there, key=lambda one: (one.order, one.seat))
    *fewer, gone = (one.model_copy(update={"display_name": f"N{one.seat}"}) for one in there)
    more = chosen(name, now._replace(seats=(*fewer, gone), present=(*fewer, gone)))
    less = chosen(name, now._replace(seats=tuple(fewer), present=(*fewer, gone)))
    if more != [gone.seat]:
        assert less == [one for one in more if one != gone.seat]

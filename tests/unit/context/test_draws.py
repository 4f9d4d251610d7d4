"""What is drawn by chance: again from the same seed, or as it was drawn before."""

from __future__ import annotations

import hashlib

import pytest

from roleplay.context.draws import EXAMPLES, Draws, read_draws
from roleplay.context.examples import Rule, choose


def order(draws: Draws, *, kind: str = EXAMPLES, subject: str = "1", count: int = 9, answered: int = 5) -> list[int]:
    return draws.order(kind, subject, count, answered=answered)


def test_a_draw_depends_on_seed_kind_subject_and_the_message_answered() -> None:
    """On each of them, and on nothing else; the dialogues of a seat alone keep an order without kind and subject."""
    assert order(Draws("s")) == order(Draws("s"))
    assert len({tuple(order(Draws(seed))) for seed in "abcdefgh"}) > 6
    assert len({tuple(order(Draws("s"), answered=number)) for number in range(8)}) > 6
    assert len({tuple(order(Draws("s"), kind=kind)) for kind in ("lore", "speaker", EXAMPLES)}) == 3
    assert len({tuple(order(Draws("s"), kind="lore", subject=one)) for one in "abc"}) == 3


def test_dialogues_are_drawn_as_ever() -> None:
    """Their order is that of before draws were kept."""

    def before(place: int) -> bytes:
        return hashlib.blake2b(f"s\x1f5\x1f{place}".encode(), digest_size=8).digest()

    assert order(Draws("s")) == sorted(range(9), key=before)


def test_what_was_drawn_is_not_drawn_again() -> None:
    """A known order stands, whatever the seed; one of another number of things is drawn anew."""
    first = Draws("s")
    drawn = order(first)
    again = Draws("other", read_draws(first.written()))
    assert order(again) == order(again, answered=77) == drawn
    assert again.written() == first.written()
    assert order(Draws("other", read_draws(first.written())), count=4) == order(Draws("other"), count=4)
    assert order(Draws("other", {EXAMPLES: {"1": [0, 0, 1]}}), count=3) == order(Draws("other"), count=3)


def test_nothing_drawn_is_nothing_written() -> None:
    """A policy without chance draws nothing; what was known stays."""
    draws = Draws("s")
    for policy in ("keep", "fade", "relevant"):
        choose(Rule(policy, draws=draws), [1, 2], 9, step=0, epoch=1, texts=["a", "b"], newest="a")  # type: ignore[arg-type]
    assert draws.written() is None
    choose(Rule("random", draws=draws, subject="3"), [1, 2], 9, step=0, epoch=1, texts=["a", "b"], newest="a")
    assert sorted(read_draws(draws.written())[EXAMPLES]["3"]) == [0, 1]
    assert Draws("s", {EXAMPLES: {"1": [0]}}).written() == '{"examples":{"1":[0]}}'


@pytest.mark.parametrize("stored", ["{", "[]", '{"examples":[1]}', '{"examples":{"1":2}}', '{"examples":{"1":["a"]}}'])
def test_what_was_never_written(stored: str) -> None:
    """It is an error, which names nothing of it."""
    with pytest.raises(ValueError, match=r"draws|JSON|Expecting"):
        read_draws(stored)

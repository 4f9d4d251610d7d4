"""Which example dialogues go in where not all of them fit."""

from __future__ import annotations

import pytest

from roleplay.context.examples import FADE_STEPS, Choice, Rule, choose, read_choice, relevance
from roleplay.domain.settings import ExamplePolicy

COSTS = [40, 30, 60, 20, 50]
TEXTS = [
    "Rain over the harbour.",
    "The old king's crown.",
    "How to mend a sail.",
    "A crown of salt.",
    "Harbour lights.",
]


def chosen(
    policy: ExamplePolicy, share: int, *, step: int = 0, epoch: int = 1, seed: str = "s", newest: str = ""
) -> tuple[int, ...]:
    kept, why = choose(Rule(policy, seed), COSTS, share, step=step, epoch=epoch, texts=TEXTS, newest=newest)
    assert len(why) == len(COSTS)
    assert all(why[place].startswith("fits") == (place in kept) for place in range(len(COSTS)))
    assert all(policy in {"keep", "fade"} or "relevance" in one or "drawn" in one for one in why)
    return kept


def test_keep_takes_them_in_order() -> None:
    """In the persona's order, whole ones; one that is too long lets later ones in."""
    assert chosen("keep", 200) == (0, 1, 2, 3, 4)
    assert chosen("keep", 100) == (0, 1, 3)
    assert chosen("keep", 10) == ()


def test_fade_takes_fewer_at_each_step() -> None:
    """A quarter of the share goes at each step, until none is left."""
    kept = [chosen("fade", 200, step=step) for step in range(FADE_STEPS + 2)]
    assert kept == [(0, 1, 2, 3, 4), (0, 1, 2, 3), (0, 1, 3), (0,), (), ()]


def test_relevant_takes_what_the_line_is_about() -> None:
    """Those that share most words with the newest line come first; they stand in the persona's order all the same."""
    assert chosen("relevant", 50, newest="Who wears the crown now?") == (1, 3)
    assert chosen("relevant", 90, newest="What do you see from the harbour?") == (0, 4)
    assert chosen("relevant", 100, newest="") == chosen("keep", 100)


def test_relevance_of_scripts_without_words() -> None:
    """Pairs of characters count where a script has no words; rare ones count more; nothing in common is 0."""
    texts = ["北伐之事，粮草为先。", "今日天晴，风自东来。", "先生饮茶。"]
    scores = relevance(texts, "北伐粮草何日可备？")
    assert scores[0] > 0.1
    assert scores[1:] == [0.0, 0.0]
    assert relevance(["a b c"], "a") == [0.0]
    assert relevance(TEXTS, "HARBOUR")[0] == 1.0


def test_random_is_drawn_from_seed_and_epoch() -> None:
    """The same seed and epoch draw the same; over epochs and seeds all of them have their turn."""
    assert chosen("random", 90) == chosen("random", 90)
    epochs = {chosen("random", 90, epoch=epoch) for epoch in range(50)}
    assert len(epochs) > 3
    assert {place for one in epochs for place in one} == set(range(5))
    assert len({chosen("random", 90, seed=str(seed)) for seed in range(50)}) > 3


def test_a_choice_is_read_as_it_was_written() -> None:
    """Written and read it is equal; what is none is none."""
    one = Choice((0, 3, 70), 2, "keep-abc")
    assert read_choice(one.written(), 80) == one
    assert read_choice(Choice((), 0, "x").written(), 0) == Choice((), 0, "x")


@pytest.mark.parametrize("written", ["", "keep", "keep:1", "keep:one:ff", "keep:1:zz"])
def test_what_is_no_choice(written: str) -> None:
    """Damaged text is no choice, so that one is made anew."""
    assert read_choice(written, 5) is None

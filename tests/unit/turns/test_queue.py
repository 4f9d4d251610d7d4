"""Waiting for another turn, played by hand: who may pass, how often one looks, when one gives up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roleplay import ConflictError, Endpoint
from roleplay.store.records.recovery import Holder
from roleplay.turns.effects import Write
from roleplay.turns.queue import CLAIM_TRIES, FIRST_LOOK_S, LONGEST_LOOK_S, Queue
from tests.support.operations import OWNER, POSITION, Hand

MODEL = Endpoint("MiniMax-M2.7")
LIVE = Holder(session_id="session", turn_id="other", turn_seq=1, attempt=1, owner="them", expired=False)


def queue(hand: Hand, on_conflict: str, wait_s: float = 30.0) -> Queue:
    """The wait of one caller."""
    return Queue(hand.scope(MODEL), on_conflict, wait_s)


def test_who_does_not_wait_is_refused_at_once() -> None:
    hand = Hand()
    with pytest.raises(ConflictError) as caught:
        hand.play(queue(hand, "reject").may_pass(LIVE, None))
    assert caught.value.turn_id == "other"
    assert hand.effects == []


def test_a_fork_passes_unless_it_would_say_the_same_twice() -> None:
    """Beside another's turn it may speak; beside the turn of its own key it may not."""
    hand = Hand()
    assert hand.play(queue(hand, "fork").may_pass(LIVE, None)) is True
    with pytest.raises(ConflictError, match="'order-1'"):
        hand.play(queue(hand, "fork").may_pass(LIVE, "order-1"))
    assert hand.effects == []


@pytest.mark.parametrize("lost", [replace(LIVE, expired=True), replace(LIVE, owner="gone")])
def test_a_turn_that_nobody_drives_is_ended_first(lost: Holder) -> None:
    """Whatever the caller agreed to; then it looks again, without a pause."""
    hand = Hand()
    assert hand.play(queue(hand, "reject").may_pass(lost, None)) is False
    assert len(hand.of(Write)) == len(hand.effects) == 1


def test_what_this_process_drives_is_nobody_elses_to_end() -> None:
    """Whatever its lease says: nothing is written, and it is in the way as before."""
    hand = Hand()
    waiting = queue(hand, "reject")
    waiting._scope.ports.driven["call"] = "other"
    with pytest.raises(ConflictError):
        hand.play(waiting.may_pass(replace(LIVE, owner=OWNER, expired=True), None))
    assert hand.effects == []


def test_who_waits_asks_once_that_a_round_ends_and_again_at_another_attempt() -> None:
    """Another attempt at a turn is asked by nobody yet."""
    hand = Hand()
    waiting = queue(hand, "wait")
    for attempt in (1, 1, 2, 2):
        assert hand.play(waiting.may_pass(replace(LIVE, attempt=attempt), None)) is False
    assert [one.name for one in hand.of(Write)] == ["end round"] * 2
    assert hand.play(queue(hand, "wait").may_pass(LIVE, "order-1")) is False  # the round is its own
    assert len(hand.of(Write)) == 2


def test_looks_become_rarer_and_end_when_the_time_is_up() -> None:
    """While one and the same turn runs: half of each look's time to one and a half, never beyond the wait."""
    hand = Hand()
    waiting = queue(hand, "wait", wait_s=5.0)
    with pytest.raises(ConflictError, match="after 5 s"):
        for _ in range(1_000):
            assert hand.play(waiting.may_pass(LIVE, None)) is False
    pauses = hand.pauses()
    assert FIRST_LOOK_S / 2 < pauses[0] <= FIRST_LOOK_S
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) == LONGEST_LOOK_S
    assert sum(pauses) == pytest.approx(5.0)
    assert len(pauses) < 30


def test_looks_stay_frequent_while_turns_come_and_go() -> None:
    """The more turns have passed by, the sooner one looks again."""
    hand = Hand()
    waiting = queue(hand, "wait")
    for number in range(50):
        hand.play(waiting.may_pass(replace(LIVE, turn_id=f"turn-{number}"), None))
    pauses = hand.pauses()
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[-1] < pauses[0] / 2


def test_who_has_just_spoken_lets_others_look_first() -> None:
    """Only who waits does, and only for a moment after its own turn."""
    hand = Hand()
    waiting = queue(hand, "wait")
    hand.play(waiting.let_others())
    waiting.has_spoken()
    hand.play(waiting.let_others())
    assert hand.pauses() == [FIRST_LOOK_S]
    hand.now_s += LONGEST_LOOK_S
    hand.play(waiting.let_others())
    assert len(hand.pauses()) == 1


def test_a_lost_claim_is_anothers_gain() -> None:
    """Where the head moved, who does not wait is refused; where it stands still, some more tries are free."""
    hand = Hand()
    refused = queue(hand, "reject")
    refused.check(POSITION)
    hand.play(refused.lost_claim(POSITION))
    refused.check(POSITION)
    with pytest.raises(ConflictError, match="was first"):
        refused.check(replace(POSITION, head_seq=2))
    for _ in range(CLAIM_TRIES - 2):
        hand.play(refused.lost_claim(POSITION))
    with pytest.raises(ConflictError, match="changed by others"):
        hand.play(refused.lost_claim(POSITION))
    assert hand.effects == []

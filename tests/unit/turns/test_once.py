"""The same call twice under one key, played by hand: what is told again, what is made again, what is refused."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from roleplay import ChatAuthError, ConflictError, Delta, Endpoint, IdempotencyError, Turn, TurnOptions, TurnStatus
from roleplay.store.records.recovery import Holder
from roleplay.store.records.stored_turns import StoredTurn
from roleplay.turns.effects import Claimed, Emit, Open
from roleplay.turns.queue import Situation
from roleplay.turns.speaking import body_digest, send
from tests.support.operations import END, FREE, POSITION, Hand, said

MODEL = Endpoint("MiniMax-M2.7")
KEYED = TurnOptions(idempotency_key="order-1")
DIGEST = body_digest({"do": "send", "text": "Where to?"}, KEYED)
LIVE = Holder(session_id="session", turn_id="id-1", turn_seq=1, attempt=1, owner="them", expired=False)


def played(hand: Hand, text: str = "Where to?") -> Turn:
    """Say a line under the key."""
    return hand.play(send(hand.scope(MODEL), text, KEYED, stream=True))


@pytest.fixture
def turn() -> Turn:
    """The turn of the first call."""
    return played(Hand([said("Sit."), END]))


def again(turn: Turn, *, live: Holder | None = None, answers: Any = ()) -> Hand:
    """The second call, which finds that turn."""
    hand = Hand(*answers)
    hand.told["situation"].appendleft(Situation(POSITION, mine=[(turn, DIGEST)], live=live, gone=False))
    return hand


@pytest.mark.parametrize("status", [TurnStatus.COMPLETED, TurnStatus.INTERRUPTED])
def test_a_turn_that_said_something_is_told_again(turn: Turn, status: TurnStatus) -> None:
    """With no call, and with its text in one piece."""
    hand = again(turn.model_copy(update={"status": status}))
    assert played(hand).id == turn.id
    said = Delta(text="Sit.", speaker="Nova", seat=1, turn_id=turn.id)
    assert [one.what for one in hand.of(Emit)] == [Claimed(turn.id), said]
    assert hand.of(Open) == []


def test_another_line_under_the_same_key_is_refused(turn: Turn) -> None:
    hand = again(turn)
    with pytest.raises(IdempotencyError, match="order-1"):
        played(hand, "Who are you?")
    assert len(hand.effects) == 1  # the look


def test_a_turn_that_still_runs_is_not_begun_again(turn: Turn) -> None:
    hand = again(turn.model_copy(update={"status": TurnStatus.PENDING, "reply": None}), live=LIVE)
    with pytest.raises(ConflictError, match="order-1"):
        played(hand)
    assert len(hand.effects) == 1


@pytest.mark.parametrize("status", [TurnStatus.FAILED, TurnStatus.INTERRUPTED])
def test_a_turn_that_said_nothing_gets_another_attempt(turn: Turn, status: TurnStatus) -> None:
    """It is the same turn, and not a new one."""
    silent = turn.model_copy(update={"status": status, "reply": None})
    hand = again(silent, answers=[ChatAuthError("no")])
    told = dict.fromkeys(StoredTurn.__slots__) | {
        "id": turn.id, "seq": 1, "kind": "reply", "status": status.value, "attempt": 1, "revision": 1, "round": 1,
        "speaker": 1, "answering": 1, "ordinal": 1, "human_seq": 1, "reply_seq": 2, "human_text": "Where to?",
        "human_name": "User",
        "human_seat": 2,
    }  # fmt: skip
    hand.told["turn"] = deque([StoredTurn(**told)])  # type: ignore[arg-type]
    with pytest.raises(ChatAuthError) as caught:
        played(hand)
    assert caught.value.turn_id == turn.id
    assert len(hand.of(Open)) == 1


def test_a_claim_that_was_lost_looks_again() -> None:
    """Who was first under the key may be this caller's own first call, so that nothing is refused unseen."""
    hand = Hand([said("Sit."), END])
    hand.told["situation"].append(FREE)
    hand.told["claim"] = deque([False, True])
    assert played(hand).status is TurnStatus.COMPLETED
    assert hand.done("situation") == 2
    assert len(hand.of(Open)) == 1

"""A claimed turn, played by hand: when a call is made again, in which form, and when text is kept."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

import pytest

from roleplay import (
    ChatAuthError,
    ChatRequestError,
    ChatUnavailableError,
    ConflictError,
    Dialect,
    Endpoint,
    Persona,
    Sampling,
    Turn,
    TurnOptions,
    TurnStatus,
)
from roleplay.domain.endpoint import Form
from roleplay.turns.effects import Open
from roleplay.turns.reply import FLUSH_CHARS
from roleplay.turns.speaking import send
from tests.support.operations import END, Hand, revision, said

MODEL = Endpoint("MiniMax-M2.7", retry={"attempts": 3, "first_pause_s": 4.0, "longest_pause_s": 6.0, "total_s": 60.0})
ROLES_REFUSED = ChatRequestError("role group is not allowed", code=2013)
TEMPLATE_RAISED = ChatUnavailableError("Jinja Exception: Conversation roles must alternate user/assistant", status=500)
CAP_REFUSED = ChatRequestError("body.max_completion_tokens: Extra inputs are not permitted", status=422)
BUSY = ChatUnavailableError("busy")
BARE_1000 = ChatUnavailableError("unknown error", code=1000)
ANSWER = [said("Sit."), END]
PLAIN = ["system", "user"]


def play(hand: Hand, endpoint: Endpoint = MODEL) -> Turn:
    """Let one line be said and streamed."""
    return hand.play(send(hand.scope(endpoint), "Where to?", TurnOptions(), stream=True))


def test_a_call_is_made_again_as_often_as_the_policy_says() -> None:
    """Pauses double from attempt to attempt, up to the longest, and each attempt is claimed before it is made."""
    hand = Hand(*[ChatUnavailableError("overloaded")] * 9)
    with pytest.raises(ChatUnavailableError):
        play(hand)
    assert len(hand.of(Open)) == 3
    assert hand.pauses() == [2.0, 3.0]  # half of 4 and of 6, which 8 is cut to
    assert hand.done("next attempt") == 2
    assert hand.done("finish") == 1


def test_no_attempt_begins_after_the_last_second() -> None:
    """A reset time that the service names is waited for, unless it lies beyond the policy's end."""
    hand = Hand(ChatUnavailableError("busy", retry_after_s=50.0), ChatUnavailableError("busy", retry_after_s=7.0))
    with pytest.raises(ChatUnavailableError):
        play(hand)
    assert hand.pauses() == [52.0]  # another pause would end at 62 s


@pytest.mark.parametrize(("late_s", "looks"), [(20.0, 0), (40.0, 1)])
def test_a_pause_that_took_too_long_is_followed_by_another_look(late_s: float, looks: int) -> None:
    """Where the lease may end before the call can, it begins anew before the call is made."""
    hand = Hand(BUSY, ANSWER, late_s=late_s)
    assert play(hand).status is TurnStatus.COMPLETED
    assert hand.done("hold on") == looks


def test_a_turn_that_was_lost_in_a_pause_is_not_asked_for_again() -> None:
    hand = Hand(BUSY, ANSWER, late_s=40.0)
    hand.told["hold on"] = deque([False])
    hand.told["finish"] = deque([False, True])
    with pytest.raises(ConflictError, match="took over"):
        play(hand)
    assert len(hand.of(Open)) == 1


@pytest.mark.parametrize(("line_s", "looks"), [(0.0, 0), (20.0, 0), (30.0, 1), (100.0, 1), (120.0, 2)])
def test_a_wait_for_a_place_keeps_the_turn(line_s: float, looks: int) -> None:
    """While a request waits until it may be opened, its lease is begun anew in time for the whole call."""
    hand = Hand(ANSWER)
    hand.line_s = line_s
    turn = play(hand)
    assert turn.status is TurnStatus.COMPLETED
    assert hand.done("hold on") == looks
    assert turn.call is not None
    assert turn.call.total_s == 0.0


def test_a_wait_for_a_place_is_no_time_of_the_retries() -> None:
    """The policy allows 60 s, and the first request waited for 80 s before anything was asked."""
    hand = Hand(BUSY, ANSWER)
    hand.line_s = 80.0
    assert play(hand).status is TurnStatus.COMPLETED
    assert hand.pauses() == [2.0]


def test_a_turn_that_was_lost_before_a_place_was_free_is_not_asked_for() -> None:
    hand = Hand(ANSWER)
    hand.line_s = 80.0
    hand.told["hold on"] = deque([False])
    hand.told["finish"] = deque([False, True])
    with pytest.raises(ConflictError, match="took over"):
        play(hand)
    assert hand.of(Open) == []


def test_what_will_not_pass_is_not_tried_again() -> None:
    hand = Hand(ChatAuthError("no"))
    with pytest.raises(ChatAuthError):
        play(hand)
    assert len(hand.of(Open)) == 1
    assert hand.pauses() == []


def test_after_words_came_nothing_is_said_twice() -> None:
    """A stream that breaks after its first word ends the turn, which keeps it."""
    hand = Hand([said("Sit."), ChatUnavailableError("cut")], ANSWER)
    with pytest.raises(ChatUnavailableError) as caught:
        play(hand)
    assert caught.value.turn_id == "id-1"
    assert len(hand.of(Open)) == 1
    assert hand.counter.texts[-1] == "Sit."


def test_refused_roles_are_folded_at_once_and_remembered() -> None:
    """In words: one more attempt without role-play roles, without a pause, and so from then on for this host."""
    hand = Hand(ROLES_REFUSED, ANSWER, ANSWER)
    hand.told["revision"][0] = revision(Persona("Nova"), scene="A long road.")
    scope = hand.scope(MODEL)
    turn = hand.play(send(scope, "Where to?", TurnOptions(), stream=True))
    assert hand.sent() == [["system", "group", "user"], PLAIN]
    assert hand.pauses() == [0.0]
    assert [call.dialect for call in turn.calls] == ["minimax", "openai"]
    assert dict(scope.tenant_scope.forms) == {(MODEL.host, MODEL.model): Form(Dialect.OPENAI, "max_completion_tokens")}


def test_a_bare_1000_is_folded_and_not_remembered() -> None:
    """It may mean anything, so that the next turn tries the roles again."""
    hand = Hand(BARE_1000, ANSWER)
    hand.told["revision"][0] = revision(Persona("Nova"), scene="A long road.")
    scope = hand.scope(MODEL)
    hand.play(send(scope, "Where to?", TurnOptions(), stream=True))
    assert hand.sent()[1] == PLAIN
    assert not scope.tenant_scope.forms


def test_each_form_is_tried_once() -> None:
    """A host that refuses every form is asked no more; nothing is remembered of it."""
    hand = Hand(*[ROLES_REFUSED] * 4)
    hand.told["revision"][0] = revision(Persona("Nova"), scene="A long road.")
    scope = hand.scope(MODEL)
    with pytest.raises(ChatRequestError):
        hand.play(send(scope, "Where to?", TurnOptions(), stream=True))
    assert hand.sent() == [["system", "group", "user"], PLAIN, ["user"]]
    assert not scope.tenant_scope.forms


def test_what_has_no_such_roles_is_not_folded() -> None:
    """The folded form would have the same roles again, so that ``system`` must have been meant."""
    hand = Hand(ROLES_REFUSED, ANSWER)
    assert play(hand).status is TurnStatus.COMPLETED
    assert hand.sent() == [PLAIN, ["user"]]


@pytest.mark.parametrize("dialect", ["minimax", "openai"])
def test_a_template_that_raises_gets_the_strict_form(dialect: str) -> None:
    """At whatever status it says so: at once, though no retry is left, and so from then on for this host."""
    model = MODEL.evolve(dialect=dialect, retry={"attempts": 1})
    hand = Hand(TEMPLATE_RAISED, ANSWER)
    scope = hand.scope(model)
    turn = hand.play(send(scope, "Where to?", TurnOptions(), stream=True))
    assert hand.sent() == [PLAIN, ["user"]]
    assert hand.pauses() == [0.0]
    assert [call.dialect for call in turn.calls] == [dialect, "strict"]
    assert dict(scope.tenant_scope.forms) == {(model.host, model.model): Form(Dialect.STRICT, "max_completion_tokens")}


def test_another_form_counts_as_no_retry() -> None:
    """After it, the policy has all its attempts."""
    hand = Hand(TEMPLATE_RAISED, BUSY, BUSY, BUSY)
    with pytest.raises(ChatUnavailableError):
        play(hand)
    assert len(hand.of(Open)) == 4
    assert hand.pauses() == [0.0, 2.0, 3.0]


@pytest.mark.parametrize("stream", [True, False])
def test_the_refused_name_of_the_cap_is_swapped(stream: bool) -> None:
    """The same request once more, its cap in the same place under the other name."""
    whole = [b'{"choices":[{"index":0,"message":{"content":"Sit."},"finish_reason":"stop"}]}']
    hand = Hand(CAP_REFUSED, ANSWER if stream else whole)
    scope, options = hand.scope(MODEL), TurnOptions(sampling=Sampling(max_completion_tokens=80, top_p=0.5))
    turn = hand.play(send(scope, "Where to?", options, stream=stream))
    first, second = [one.request.body for one in hand.of(Open)]
    assert second == first.replace(b"max_completion_tokens", b"max_tokens") != first
    assert [list(call.parameters)[1] for call in turn.calls] == ["max_completion_tokens", "max_tokens"]
    assert dict(scope.tenant_scope.forms) == {(MODEL.host, MODEL.model): Form(Dialect.MINIMAX, "max_tokens")}


def test_only_what_was_said_in_words_is_remembered() -> None:
    """A bare 1000 before a refusal in words leaves the roles in doubt, and the cap is known."""
    hand = Hand(BARE_1000, CAP_REFUSED, ANSWER)
    hand.told["revision"][0] = revision(Persona("Nova"), scene="A long road.")
    scope, options = hand.scope(MODEL), TurnOptions(sampling=Sampling(max_completion_tokens=80))
    turn = hand.play(send(scope, "Where to?", options, stream=True))
    assert [(call.dialect, list(call.parameters)[1]) for call in turn.calls] == [
        ("minimax", "max_completion_tokens"),
        ("openai", "max_completion_tokens"),
        ("openai", "max_tokens"),
    ]
    assert dict(scope.tenant_scope.forms) == {(MODEL.host, MODEL.model): Form(Dialect.MINIMAX, "max_tokens")}


def test_after_words_came_no_other_form_is_tried() -> None:
    hand = Hand([said("Sit."), TEMPLATE_RAISED], ANSWER)
    with pytest.raises(ChatUnavailableError):
        play(hand)
    assert len(hand.of(Open)) == 1


def test_another_endpoint_has_forms_of_its_own() -> None:
    """What one host refused is neither remembered nor kept from the next."""
    other = MODEL.evolve(base_url="http://other", dialect="minimax")
    hand = Hand(TEMPLATE_RAISED, *[BUSY] * 3, TEMPLATE_RAISED, ANSWER)
    scope = hand.scope(MODEL, other)
    turn = hand.play(send(scope, "Where to?", TurnOptions(), stream=True))
    assert [call.dialect for call in turn.calls] == ["minimax", *["strict"] * 3, "minimax", "strict"]
    assert list(scope.tenant_scope.forms) == [(other.host, other.model)]


def kept(pieces: int, pace_s: float = 0.0) -> list[int]:
    """The lengths of the text each time that it is stored while so many pieces of twelve characters come."""
    return stored(pieces, pace_s)[:-1]


def stored(pieces: int, pace_s: float) -> list[int]:
    """The same, and at last the whole text."""
    hand = Hand([*[said("twelve chars")] * pieces, END], pace_s=pace_s)
    assert play(hand).status is TurnStatus.COMPLETED
    lengths = [len(text) for text in hand.counter.texts if text.startswith("twelve")]
    assert len(lengths) == hand.done("keep") + hand.done("finish")
    assert lengths[-1] == 12 * pieces
    return lengths


@pytest.mark.parametrize("pace_s", [0.0, 0.02, 0.25, 0.5, 3.0])
def test_text_is_kept_in_time_and_never_quadratically(pace_s: float) -> None:
    """However slowly a reply comes, fewer than four times its characters are stored, its last storing among them."""
    for pieces in (12, 500, 4_000):
        lengths = stored(pieces, pace_s)
        assert all(later > 1.5 * earlier for earlier, later in pairwise(lengths[:-1]))
        assert sum(lengths) < 4 * (12 * pieces)


def test_little_is_lost_of_words_that_come_steadily() -> None:
    """Wherever it breaks off, two thirds of what was said two seconds before are stored."""
    for pieces in range(1, 300):
        steps = [0, *kept(pieces, pace_s=0.25)]
        assert steps[-1] >= (12 * (pieces - 8)) / 1.5


def test_text_is_kept_each_time_that_it_doubled() -> None:
    """Where pieces come at once, length alone decides."""
    lengths = kept(1_000)
    assert lengths[0] >= FLUSH_CHARS
    assert all(later >= 2 * earlier for earlier, later in pairwise(lengths))
    assert len(lengths) == 1 + int(math.log2(12_000 / lengths[0]))


def test_slow_text_is_kept_after_some_seconds() -> None:
    """Where pieces come slowly, little is lost: the first is stored after two seconds."""
    assert kept(4, pace_s=1.0) == [24, 48]
    assert kept(4, pace_s=0.1) == []


def test_who_lost_the_turn_says_nothing_more() -> None:
    """Another process took the turn over: no piece after that is handed on, and the caller is told."""
    hand = Hand([said("x" * FLUSH_CHARS), said("more"), END])
    hand.told["keep"] = hand.told["finish"] = deque([False] * 2)
    with pytest.raises(ConflictError, match="took over"):
        play(hand)
    assert not any("more" in str(effect) for effect in hand.effects)

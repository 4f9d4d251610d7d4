"""Ctrl-C while a reply comes."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from roleplay import ChatSession, Endpoint, Persona, Roleplay, TurnStatus
from roleplay.cli.interrupts import InterruptHandler, InterruptibleTransport
from roleplay.testing import ScriptedModel
from roleplay.turns.effects import Interrupt
from roleplay.wire.request import WireRequest


def press() -> None:
    signal.raise_signal(signal.SIGINT)


class Pressing:
    """A transport that presses Ctrl-C at a place of the conversation, then goes on."""

    def __init__(self, inner: ScriptedModel, reads: int) -> None:
        self.inner = inner
        self.reads = reads

    def open(self, endpoint: Endpoint, request: WireRequest) -> object:
        answer = self.inner.open(endpoint, request)
        read = answer.read
        left = iter(range(self.reads))

        def pressing() -> bytes:
            if next(left, None) is None:
                press()
            return read()

        answer.read = pressing  # type: ignore[method-assign]
        return answer

    def close(self) -> None:
        """Nothing to close."""


Held = tuple[ChatSession, InterruptHandler]


@pytest.fixture
def held(sqlite_url: str, scripted: Callable[..., ScriptedModel]) -> Callable[[int], Held]:
    """A session whose reply is interrupted after so many pieces."""

    def make(reads: int) -> Held:
        interrupts = InterruptHandler()
        model = InterruptibleTransport(Pressing(scripted("one two three four five six"), reads), interrupts)  # type: ignore[arg-type]
        rp = Roleplay.open(sqlite_url, model=Endpoint("MiniMax-M2.7"), chat=model)
        return rp.sessions.create(cast=[rp.personas.put(Persona("Ann"))]), interrupts

    return make


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_press_while_the_model_is_waited_for_ends_the_reply(held: Callable[[int], Held]) -> None:
    """The turn is stored as interrupted with what came, and nothing is raised."""
    session, interrupts = held(2)
    with interrupts, session.stream("go") as reply:
        said = "".join(delta.text for delta in reply)
    assert reply.turn.status is TurnStatus.INTERRUPTED
    assert reply.turn.reply is not None
    assert reply.turn.reply.text == said
    assert session.turns(limit=1).items[-1] == reply.turn


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_press_before_the_first_piece_ends_the_turn_without_text(held: Callable[[int], Held]) -> None:
    """Also where nothing was said yet, also without streaming."""
    session, interrupts = held(0)
    with interrupts:
        turn = session.send("go")
    assert (turn.status, turn.reply) == (TurnStatus.INTERRUPTED, None)


def test_a_press_elsewhere_waits_for_the_next_place() -> None:
    """Nothing is torn while a database commits: the first press is kept."""
    interrupts = InterruptHandler()
    with interrupts:
        press()
        with pytest.raises(Interrupt), interrupts.waiting():
            pass


def test_a_second_press_is_let_through_and_a_third_is_not() -> None:
    """A pause between two attempts can be left."""
    interrupts = InterruptHandler()
    with interrupts:
        press()
        with pytest.raises(Interrupt):
            press()
        press()


def test_afterwards_the_signal_means_what_it_meant() -> None:
    """The brake takes its hands off, and forgets."""
    before = signal.getsignal(signal.SIGINT)
    interrupts = InterruptHandler()
    with interrupts:
        press()
    assert signal.getsignal(signal.SIGINT) is before
    with interrupts, interrupts.waiting():
        assert interrupts.pressed == 0

"""At every point of a turn its process is killed, gets Ctrl-C, or its task is cancelled; what is left is looked at."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roleplay import ChatSession, Endpoint, Persona, Roleplay, Turn, TurnOptions, TurnStatus
from roleplay.store.records import transcript
from roleplay.testing import ScriptedModel
from tests.support.aftermath import AT_ONCE_S, DOUBLED, IN_FLIGHT, count, take_over
from tests.support.mortal import KEY, WORDS, Act, Mortals, Order

LINE = "What did I order?"
OPTIONS = TurnOptions(idempotency_key=KEY)
EVERY_DOOR = (
    "before the claim",
    "claim, after statement 1",
    "claim, before the commit",
    "claim, committed",
    "before the request",
    "the request is sent",
    "before the finish",
    "finish, after statement 1",
    "finish, before the commit",
    "finish, committed",
    "the caller has it",
)
STREAMS = (
    "the first delta is shown",
    "flush 1, after statement 1",
    "flush 1, before the commit",
    "flush 1, committed",
    "flush 2, committed",
)
LAST = ("finish, committed", "the caller has it")
WAYS = ("recover", "repeat", "go on")
OF_KEY = f"SELECT count(*) FROM roleplay_turns WHERE idempotency_key = '{KEY}' AND tenant = 'default'"


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    """The program whose children are killed."""
    with Mortals() as one:
        yield one


class Aftermath:
    """What is left of a session after its process was killed, and what a fresh engine makes of it."""

    def __init__(self, rp: Roleplay, session: ChatSession, door: str) -> None:
        self.rp = rp
        self.session = session
        self.door = door
        database = rp._runtime.database
        found = database.read(lambda db: transcript.by_key(db, "default", session.id, KEY))
        self.left = found[0][0] if found else None

    def say(self, text: str, options: TurnOptions) -> Turn:
        """Speak as the dead process did."""
        if self.door.endswith("send"):
            return self.session.send(text, options=options)
        with self.session.stream(text, options=options) as reply:
            shown = "".join(delta.text for delta in reply)
        assert reply.turn.reply is not None
        assert shown == reply.turn.reply.text
        return reply.turn

    def repeat(self, model: ScriptedModel) -> None:
        """Repeat the call: the model is called again exactly where none of its text was kept; never two replies."""
        before = len(model.bodies)
        kept = None if self.left is None or self.left.reply is None else self.left.reply.text
        model.say(*([] if kept else [WORDS]))
        turn = self.say(LINE, OPTIONS)
        assert len(model.bodies) - before == (0 if kept else 1)
        assert turn.reply is not None
        assert turn.reply.text == (kept or WORDS)
        assert WORDS.startswith(turn.reply.text)
        was = TurnStatus.COMPLETED if self.left is None or kept is None else self.left.status
        assert turn.status is (TurnStatus.INTERRUPTED if was.in_flight else was)
        assert turn.status is TurnStatus.INTERRUPTED or turn.reply.text == WORDS
        if self.left is not None:
            assert turn.id == self.left.id
        again = self.say(LINE, OPTIONS)
        assert (again.id, again.reply) == (turn.id, turn.reply)
        assert len(model.bodies) - before == (0 if kept else 1)


@pytest.mark.parametrize("door", ["send", "stream", "asyncio send", "asyncio stream"])
def test_a_process_may_be_killed_anywhere(
    database_url: str, door: str, mortals: Mortals, scripted: Callable[..., ScriptedModel], tmp_path: Path
) -> None:
    """No committed turn is lost, no key has two replies, nothing stays in flight, and the next turn works at once."""
    model = scripted()
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=model) as rp:
        persona = rp.personas.put(Persona("Huang", "A ferryman."))
        points = all_points(rp, persona, database_url, door, mortals, model, tmp_path / "all")
        for number, point in enumerate(points):
            heard = tmp_path / str(number)
            one = order(rp, persona, database_url, door, "kill", point, heard)
            assert mortals.run(one).signal == signal.SIGKILL, point
            began = time.monotonic()
            look_after(Aftermath(rp, rp.sessions.get(one.session_id), door), WAYS[number % 3], model)
            assert time.monotonic() - began < AT_ONCE_S, f"{point}: the next turn had to wait"
            take_over(model, heard)
        look_at_all(rp, database_url, len(points))


@pytest.mark.parametrize("door", ["send", "stream", "asyncio send", "asyncio stream"])
def test_a_caller_may_leave_anywhere(
    database_url: str, door: str, mortals: Mortals, scripted: Callable[..., ScriptedModel], tmp_path: Path
) -> None:
    """After Ctrl-C or a cancelled task the turn has ended, in the process that goes on living and goes on talking."""
    model = scripted()
    act: Act = "cancel" if door.startswith("asyncio") else "interrupt"
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=model) as rp:
        persona = rp.personas.put(Persona("Huang", "A ferryman."))
        points = all_points(rp, persona, database_url, door, mortals, model, tmp_path / "all")
        for number, point in enumerate(points):
            heard = tmp_path / str(number)
            one = order(rp, persona, database_url, door, act, point, heard)
            died_of, told = mortals.run(one)
            assert died_of == 0, point
            assert told.raised or point in LAST, point
            assert set(told.statuses[1:]) <= {"interrupted", "completed"}, point
            assert told.answer in {WORDS, "You said: And now?"}, point
            found = Aftermath(rp, rp.sessions.get(one.session_id), door)
            assert found.left is None or found.left.status in {TurnStatus.INTERRUPTED, TurnStatus.COMPLETED}
            found.repeat(model)
            take_over(model, heard)
        look_at_all(rp, database_url, len(points))


def all_points(
    rp: Roleplay, persona: Any, url: str, door: str, mortals: Mortals, model: ScriptedModel, heard: Path
) -> list[str]:
    """Let one process live, to learn which points there are."""
    died_of, told = mortals.run(order(rp, persona, url, door, "live", "", heard))
    assert (died_of, told.raised, told.statuses, told.answer) == (0, "", ["completed"] * 2, "You said: And now?")
    take_over(model, heard)
    points = told.points[: told.points.index("the caller has it") + 1]
    assert set(EVERY_DOOR) | (set(STREAMS) if door.endswith("stream") else set()) <= set(points)
    assert len(points) == len(set(points))
    return points


def look_at_all(rp: Roleplay, url: str, points: int) -> None:
    """Look at everything at the end: nothing in flight, nothing doubled, one turn for a key, every call rebuilt."""
    assert list(rp.doctor()) == []
    assert count(url, IN_FLIGHT) == 0
    assert count(url, DOUBLED) == 0
    assert count(url, OF_KEY) == points + 1
    for _ in rp.replay.verify():
        pass


def order(rp: Roleplay, persona: Any, url: str, door: str, act: Act, at: str, heard: Path) -> Order:
    """Make a session with a committed turn, for a child to speak in."""
    session = rp.sessions.create(cast=[persona])
    session.send("Before.")
    return Order(url, session.id, door, LINE, act, at, str(heard))


def look_after(found: Aftermath, way: str, model: ScriptedModel) -> None:
    """Go on after a process was killed, in one of three ways."""
    first = found.session.turns().items[0]
    assert (first.human.text, first.reply.text, first.status) == ("Before.", "You said: Before.", TurnStatus.COMPLETED)
    left = found.left
    lost = [left.id] if left is not None and left.status.in_flight else []
    if way == "recover":
        assert list(found.rp.recover()) == lost
        assert list(found.rp.recover()) == []
    if way == "go on":
        stood_on = found.session.info().head_seq
        model.say("Here.")
        turn = found.session.send("And now?")
        assert turn.reply.text == "Here."
        assert turn.human.parent_seq == stood_on
    if lost and way != "repeat":
        ended = found.session.turn(lost[0])
        assert ended.status is (TurnStatus.FAILED if ended.reply is None else TurnStatus.INTERRUPTED)
        assert ended.error["slug"] == "lost"
    found.repeat(model)
    model.say("Yes.")
    assert found.session.send("Are you there?").reply.text == "Yes."

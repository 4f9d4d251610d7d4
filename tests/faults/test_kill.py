"""A process is killed with SIGKILL at every point of a turn, and what it leaves behind is looked at by another."""

from __future__ import annotations

import base64
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roleplay import ChatSession, Endpoint, Persona, Roleplay, Turn, TurnOptions, TurnStatus
from roleplay.store.database import Database
from roleplay.testing import ScriptedModel
from tests.support.mortal import KEY, WORDS, Mortals, Order

LINE = "What did I order?"
OPTIONS = TurnOptions(idempotency_key=KEY)
AT_ONCE_S = 10.0  # on a busy machine; a lease is 330
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
WAYS = ("recover", "repeat", "go on")
IN_FLIGHT = "SELECT count(*) FROM roleplay_turns WHERE status IN ('pending', 'streaming') AND tenant = 'default'"
OF_KEY = f"SELECT count(*) FROM roleplay_turns WHERE idempotency_key = '{KEY}' AND tenant = 'default'"
DOUBLED = """
SELECT count(*) FROM roleplay_messages a JOIN roleplay_messages b ON a.session_id = b.session_id AND a.tenant = b.tenant
AND a.parent_seq = b.parent_seq AND a.seq < b.seq AND a.role = 'assistant' AND b.role = 'assistant'
"""


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    """The program whose children are killed."""
    with Mortals() as one:
        yield one


class Aftermath:
    """What is left of a session after its process was killed, and what a fresh engine makes of it."""

    def __init__(self, rp: Roleplay, session: ChatSession, heard: Path, door: str) -> None:
        self.rp = rp
        self.session = session
        self.heard = heard
        self.door = door
        self.left = next((turn for turn in session.turns() if turn.human and turn.human.text == LINE), None)

    def calls(self) -> int:
        """How often the model was called with the line, by anybody."""
        return self.heard.read_bytes().count(b"\n") if self.heard.exists() else 0

    def say(self, text: str, options: TurnOptions) -> Turn:
        """Speak as the dead process did."""
        if self.door == "send":
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
        assert turn.status is (TurnStatus.COMPLETED if turn.reply.text == WORDS else TurnStatus.INTERRUPTED)
        if self.left is not None:
            assert turn.id == self.left.id
        again = self.say(LINE, OPTIONS)
        assert (again.id, again.reply) == (turn.id, turn.reply)
        assert len(model.bodies) - before == (0 if kept else 1)


@pytest.mark.parametrize("door", ["send", "stream"])
def test_a_process_may_be_killed_anywhere(
    database_url: str, door: str, mortals: Mortals, scripted: Callable[..., ScriptedModel], tmp_path: Path
) -> None:
    """No committed turn is lost, no key has two replies, nothing stays in flight, and the next turn works at once."""
    model = scripted()
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=model) as rp:
        persona = rp.personas.put(Persona("Huang", "A ferryman."))
        points = mortals.run(order(rp, persona, database_url, door, "", tmp_path / "all")).points
        assert set(EVERY_DOOR) | (set(STREAMS) if door == "stream" else set()) <= set(points)
        assert len(points) == len(set(points))
        take_over(model, tmp_path / "all")
        for number, point in enumerate(points):
            heard = tmp_path / str(number)
            for way in WAYS:
                one = order(rp, persona, database_url, door, point, heard)
                assert mortals.run(one).signal == signal.SIGKILL, point
                began = time.monotonic()
                look_after(Aftermath(rp, rp.sessions.get(one.session_id), heard, door), way, model)
                assert time.monotonic() - began < AT_ONCE_S, f"{point}: the next turn had to wait"
            take_over(model, heard)
        assert list(rp.doctor()) == []
        assert count(database_url, IN_FLIGHT) == 0
        assert count(database_url, DOUBLED) == 0
        assert count(database_url, OF_KEY) == len(points) * len(WAYS) + 1
        for _ in rp.replay.verify():
            pass


def order(rp: Roleplay, persona: Any, url: str, door: str, die_at: str, heard: Path) -> Order:
    """Make a session with a committed turn, for a child to speak in."""
    session = rp.sessions.create(cast=[persona])
    session.send("Before.")
    return Order(url, session.id, door, LINE, die_at, str(heard))


def take_over(model: ScriptedModel, heard: Path) -> None:
    """Add what the children's models heard to what the test's own did."""
    if heard.exists():
        model.bodies += [base64.b64decode(line) for line in heard.read_bytes().splitlines()]


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


def count(url: str, sql: str) -> int:
    """Count rows behind the engine's back."""
    database = Database.open(url)
    number: int = database.read(lambda db: db.exec_driver_sql(sql).scalar())
    database.close()
    return number

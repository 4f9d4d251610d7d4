"""A round's process is killed at every point of every turn, and at any moment; what is left is looked at.

``ROLEPLAY_KILLS=200 python3 dev.py test tests/faults/test_kill_rounds.py -k random -s`` kills so many on each database,
at random points and moments, and prints what became of them; ``ROLEPLAY_KILLS_SEED`` makes the same choices of points
again.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from roleplay import ChatSession, Endpoint, Persona, Roleplay, Seat, Turn, TurnOptions, TurnStatus
from roleplay.store.records import stored_turns, transcript
from roleplay.testing import ScriptedModel
from roleplay.turns.order import read_order
from tests.support.aftermath import AT_ONCE_S, DOUBLED, DOUBLED_IN_ROUND, IN_FLIGHT, count, take_over
from tests.support.mortal import KEY, ROUND_WORDS, Act, Mortals, Order

LINE = "What did we order?"
OPTIONS = TurnOptions(idempotency_key=KEY)
DOORS = ("round", "asyncio round")
WAYS = ("recover", "repeat", "go on")
KILLS = int(os.environ.get("ROLEPLAY_KILLS", "6"))
SEED = os.environ.get("ROLEPLAY_KILLS_SEED") or str(random.SystemRandom().randrange(10**6))
EVERY_TURN = (
    "claim, after statement 1",
    "claim, before the commit",
    "claim, committed",
    "before the request",
    "the request is sent",
    "flush 1, after statement 1",
    "flush 1, before the commit",
    "flush 1, committed",
    "before the finish",
    "finish, after statement 1",
    "finish, before the commit",
    "finish, committed",
    "the caller has it",
)
EVERY_POINT = ["turn 1: before the claim", *(f"turn {turn}: {point}" for turn in (1, 2, 3) for point in EVERY_TURN)]
ENDS_ROUND = "SELECT count(*) FROM roleplay_turns WHERE tenant = 'default' AND ends_round"


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    """The program whose children are killed."""
    with Mortals() as one:
        yield one


class Tally(NamedTuple):
    """Turns that a caller was given before its process was killed, and how many there were once the round had ended."""

    given: int
    turns: int


@dataclass
class Table:
    """Three whom the model plays, all of whom speak in a round, in an order by chance; and who looks after them."""

    rp: Roleplay
    url: str
    model: ScriptedModel
    mortals: Mortals
    folder: Path
    persona: Any = field(init=False)
    sessions: int = field(init=False, default=0)
    hanging: threading.Thread | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.persona = self.rp.personas.put(Persona("Huang", "A ferryman."))

    def order(self, door: str, act: Act, at: str = "") -> Order:
        """Make a session with a committed turn, for a child to call a round in."""
        self.sessions += 1
        cast = [Seat(self.persona, name=name, talkativeness=1) for name in ("Anna", "Ben", "Cara")]
        session = self.rp.sessions.create(cast=cast)
        session.send("Before.")
        return Order(self.url, session.id, door, LINE, act, at, str(self.folder / str(self.sessions)))

    def points(self, door: str) -> list[str]:
        """Let one process live, to learn which points there are."""
        order = self.order(door, "live")
        died_of, told = self.mortals.run(order)
        assert told is not None
        assert (died_of, told.raised, told.statuses) == (0, "", ["completed"] * 4)
        assert told.answer.startswith("You said: ")
        points = told.points[: told.points.index("turn 3: the caller has it") + 1]
        assert set(EVERY_POINT) <= set(points)
        assert len(points) == len(set(points))
        assert given_to(order) == [turn.id for turn in self.of_key(self.rp.sessions.get(order.session_id))]
        return points

    def of_key(self, session: ChatSession) -> list[Turn]:
        """Read the turns of the round's key from the rows."""
        found = self.read(lambda db: transcript.by_key(db, "default", session.id, KEY))
        turns = [turn for turn, _ in found]
        assert [turn.ordinal for turn in turns] == list(range(1, len(turns) + 1))
        assert {turn.round for turn in turns} <= {turn.seq for turn in turns[:1]}
        assert all(turn.status is TurnStatus.COMPLETED for turn in turns[:-1])
        return turns

    def drawn(self, session: ChatSession, first: Turn) -> list[int]:
        """Read the order that was stored with the round's first turn."""
        return read_order(self.read(lambda db: stored_turns.read_turn(db, "default", session.id, first.id, None)).draws)

    def read(self, work: Callable[[Any], Any]) -> Any:
        """Read behind the engine's back."""
        return self.rp._runtime.database.read(work)

    def call(self, session: ChatSession, calls: int) -> list[Turn]:
        """Call the round as the dead process did; the model is asked so many times."""
        before = len(self.model.bodies)
        self.model.say(*[ROUND_WORDS] * calls)
        with session.round(LINE, options=OPTIONS) as replies:
            turns = list(replies.turns())
        assert len(self.model.bodies) - before == calls
        return turns

    def look_after(self, order: Order, way: str, *, spoken: bool = False) -> Tally:
        """Go on after a process was killed, in one of three ways, and look at what the round has become.

        ``spoken``: somebody has spoken since.
        """
        session = self.rp.sessions.get(order.session_id)
        first = session.turns().items[0]
        assert (first.human.text, first.reply.text, first.status) == (
            "Before.",
            "You said: User: Before.",
            TurnStatus.COMPLETED,
        )
        left = self.of_key(session)
        drawn = self.drawn(session, left[0]) if left else None
        shown = given_to(order)
        assert shown == [turn.id for turn in left if turn.reply][: len(shown)]  # none was lost
        lost = [turn.id for turn in left if turn.status.in_flight]
        if way == "recover":
            assert list(self.rp.recover()) == lost
            assert list(self.rp.recover()) == []
        if way == "go on":
            stood_on = session.info().head_seq
            self.model.say("Here.")
            turn = session.send("And now?")
            assert turn.reply.text == "Here."
            assert turn.human.parent_seq == stood_on
            spoken = True
        if lost and way != "repeat":
            ended = session.turn(lost[0])
            assert ended.status is (TurnStatus.FAILED if ended.reply is None else TurnStatus.INTERRUPTED)
            assert ended.error["slug"] == "lost"
        turns = self.repeat(session, left, spoken=spoken)
        assert [turn.speaker for turn in turns] == (drawn or self.drawn(session, turns[0]))[: len(turns)]
        self.model.say("Yes.")
        assert session.send("Are you there?").reply.text == "Yes."
        assert [one for one in self.of_key(session) if one.reply] == turns
        return Tally(len(shown), len(turns))

    def repeat(self, session: ChatSession, left: list[Turn], *, spoken: bool) -> list[Turn]:
        """Repeat the call with its key: what was said is given again, and the rest is said where nobody has spoken
        since; nothing is said twice."""
        said = [turn for turn in left if turn.reply]
        cut = bool(said) and said[-1].status is not TurnStatus.COMPLETED
        over = cut or (spoken and bool(said))
        turns = self.call(session, 0 if over else 3 - len(said))
        assert len(turns) == (len(said) if over else 3)
        assert [turn.id for turn in turns[: len(left)]] == [turn.id for turn in left[: len(turns)]]
        assert [turn.reply for turn in turns[: len(said)]] == [turn.reply for turn in said]
        if cut:
            assert turns[-1].status is TurnStatus.INTERRUPTED
            assert ROUND_WORDS.startswith(turns[-1].text)
            if not spoken:  # kept as it is, it is a turn like others, and the round goes on behind it
                turns[-1] = session.accept(turns[-1].id)
                again = self.call(session, 3 - len(said))
                assert again[: len(said)] == turns
                turns = again
        assert all(turn.text == ROUND_WORDS for turn in turns if turn.id not in {one.id for one in said if cut})
        assert self.call(session, 0) == turns
        return turns

    def look_at_all(self) -> int:
        """Look at everything at the end; gives how many requests came out as they were sent."""
        assert list(self.rp.doctor()) == []
        for order in self.folder.glob("*"):
            if order.suffix == "":
                take_over(self.model, order)
        assert count(self.url, IN_FLIGHT) == 0
        assert count(self.url, DOUBLED) == 0
        assert count(self.url, DOUBLED_IN_ROUND) == 0
        return len(list(self.rp.replay.verify()))


@pytest.fixture
def group(
    database_url: str, mortals: Mortals, scripted: Callable[..., ScriptedModel], tmp_path: Path
) -> Iterator[Table]:
    """A table in a database of its own."""
    folder = tmp_path / "heard"
    folder.mkdir()
    model = scripted()
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=model) as rp:
        table = Table(rp, database_url, model, mortals, folder)
        yield table
        if table.hanging is not None:
            table.hanging.join(AT_ONCE_S)


def given_to(order: Order) -> list[str]:
    """Give the ids of the turns that children were given, each once."""
    return list(dict.fromkeys(order.given.read_text().split())) if order.given.exists() else []


def until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    give_up = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def is_chosen(point: str) -> bool:
    """Whether the process is killed at a point here: in each transaction of each turn once, behind another statement of
    it in each turn, and between two transactions."""
    turn, _, rest = point.partition(": ")
    step, _, where = rest.partition(", ")
    if step in {"before the request", "before the finish"}:
        return False
    within = ("after statement 1", "before the commit", "after statement 2")
    return where in {"", "committed", within[int(turn[-1]) - 1]}


def test_a_round_may_be_killed_anywhere(group: Table) -> None:
    """No turn is lost, no place in the round has two replies, the order stays, and the next turn works at once."""
    points = [point for point in group.points("round") if is_chosen(point)]
    assert len(points) == 1 + 3 * 8
    group.points("asyncio round")
    for number, point in enumerate(points):
        order = group.order(DOORS[number % 2], "kill", point)
        assert group.mortals.run(order).signal == signal.SIGKILL, point
        began = time.monotonic()
        group.look_after(order, WAYS[number % 3])
        assert time.monotonic() - began < AT_ONCE_S, f"{point}: the next turn had to wait"
    group.look_at_all()


def test_rounds_are_killed_at_random(group: Table) -> None:
    """The same at points and moments by chance; the calls that are repeated are killed as well."""
    draw = random.Random(SEED)  # noqa: S311 - to be drawn again
    points = {door: group.points(door) for door in DOORS}
    span_s, kills, given, turns, rounds = 0.3, 0, 0, 0, 0
    slowest_s = 0.0
    while kills < KILLS:
        order = group.order(draw.choice(DOORS), "kill")
        spoken = False
        for _ in range(draw.choice((1, 1, 2, 3))):
            if draw.random() < 0.5:
                one = order._replace(at=draw.choice(points[order.door]))
            else:
                one = order._replace(act="kill later", at=f"{draw.uniform(0, span_s):.4f}")
            died_of, told = group.mortals.run(one)
            kills += died_of == signal.SIGKILL
            if one.act == "kill later":
                span_s *= 0.9 if told else 1.03
            if told is not None:  # it came to its end
                spoken = bool(told.answer)
                break
        began = time.monotonic()
        tally = group.look_after(order, draw.choice(WAYS), spoken=spoken)
        slowest_s = max(slowest_s, time.monotonic() - began)
        assert slowest_s < AT_ONCE_S, f"seed {SEED}, {one}"
        given, turns, rounds = given + tally.given, turns + tally.turns, rounds + 1
    rebuilt = group.look_at_all()
    print(  # noqa: T201 - the figures
        f"seed {SEED}: {kills} kills in {rounds} rounds; {given} turns were acknowledged before, {turns} stood after;"
        f" none lost, doubled or stuck (slowest look {slowest_s:.1f} s); {rebuilt} requests rebuilt byte for byte"
    )


def test_who_waits_speaks_when_the_process_is_killed(group: Table) -> None:
    """Another line has its turn at once, and the round has ended."""
    order, session, left = hung(group)
    model, found = group.model, []
    model.say("Here.")
    waiting = threading.Thread(
        target=lambda: found.append(session.send("My turn.", options=TurnOptions(on_conflict="wait")))
    )
    waiting.start()
    until(lambda: count(group.url, ENDS_ROUND) == 1)
    order.now.touch()
    waiting.join(AT_ONCE_S)
    assert [turn.text for turn in found] == ["Here."]
    turns = group.of_key(session)
    assert [turn.id for turn in turns] == [turn.id for turn in left]
    assert (turns[0], turns[1].status) == (left[0], TurnStatus.FAILED)
    assert session.turns().items[1:] == (turns[0], *found)
    assert group.call(session, 0) == turns[:1]
    group.look_at_all()


def test_who_waits_for_a_round_goes_on_when_its_process_is_killed(group: Table) -> None:
    """Who waits with the round's key is given what was said, and has the rest of it said."""
    order, session, left = hung(group)
    found: list[Turn] = []

    def wait() -> None:
        with session.round(LINE, options=OPTIONS.model_copy(update={"on_conflict": "wait"})) as replies:
            found.extend(replies.turns())

    group.model.say(*[ROUND_WORDS] * 2)
    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    assert count(group.url, ENDS_ROUND) == 0  # who waits with its key ends no round
    order.now.touch()
    waiting.join(AT_ONCE_S)
    assert found == group.of_key(session)
    assert [turn.id for turn in found[:2]] == [turn.id for turn in left]
    assert found[0] == left[0]
    assert [turn.attempt for turn in found] == [1, 2, 1]
    assert [turn.text for turn in found] == [ROUND_WORDS] * 3
    group.look_at_all()


def hung(group: Table) -> tuple[Order, ChatSession, list[Turn]]:
    """Let a process hang in the second turn of a round, until it is told to end itself; gives the turns so far."""
    order = group.order("round", "kill when told", "turn 2: the request is sent")
    session = group.rp.sessions.get(order.session_id)
    group.hanging = threading.Thread(target=lambda: group.mortals.run(order))
    group.hanging.start()
    until(order.here.exists)
    return order, session, group.of_key(session)

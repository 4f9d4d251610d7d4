"""The whole life of a session against a tree in memory: whatever is done in whatever order, both say the same.

``HYPOTHESIS_PROFILE=deep`` runs it for as long as it takes to try much more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select

from roleplay import (
    BudgetError,
    ChatAuthError,
    ChatUnavailableError,
    ConflictError,
    Endpoint,
    IdempotencyError,
    InvalidInputError,
    Persona,
    SessionSettings,
    StoreError,
    TurnOptions,
)
from roleplay.context.languages import LANGUAGES
from roleplay.store.access.database import Database
from roleplay.store.access.tables import Base, TurnRow, table
from roleplay.testing import ScriptedModel
from tests.conftest import Ledger
from tests.support.shells import Roleplay

settings.register_profile("deep", max_examples=400, stateful_step_count=60)
settings.register_profile("shallow", max_examples=12, stateful_step_count=25)
RUN = settings(
    settings.get_profile("deep" if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else "shallow"),
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})
PIECE_CHARS = 64
FLUSH_CHARS = 256
SMALL_BUDGET = 420
BESIDE = "beside"
GREETINGS = ("Hello.", "Hi.")
HINT = "Whisper."
IN_FLIGHT = ("pending", "streaming")

#: How an attempt goes: a reply, a reply after a failure that passes, a refusal; given up after some pieces of the
#: stream; or its process dies, before the model said anything or after some pieces.
PLAIN_ENDS = [("said", 0), ("flaky", 0), ("refused", 0), ("crash", 0)]
ends = st.sampled_from([*PLAIN_ENDS, ("cut", 1), ("cut", 3), ("cut", 9), ("crash", 2), ("crash", 5), ("crash", 9)])
plain_ends = st.sampled_from(PLAIN_ENDS)
lengths = st.sampled_from([1, 40, 700])
picks = st.integers(0, 30)


@dataclass
class Line:
    """What the human said."""

    text: str


@dataclass(eq=False)
class Known:
    """What the model knows of a turn. ``order`` grows with each attempt that begins a reply anew; ``aside``: it was
    spoken beside a turn that ran, and moved no head. ``earlier``: the text and order that the turn had before its last
    attempt, and has again when that gives none."""

    parent: Known | None
    line: Line | None
    order: int
    id: str = ""
    status: str = "pending"
    reply: str | None = None
    hidden: bool = False
    aside: bool = False
    earlier: tuple[str, int] | None = None
    requests: list[int] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.status == "completed"

    def remember(self) -> None:
        """What failed is what it was, as far as it had a text."""
        if self.status == "failed" and self.earlier is not None:
            (self.reply, self.order), self.status = self.earlier, "interrupted"


class World(NamedTuple):
    """What the examples of one run share: a database with another tenant's rows in it."""

    url: str
    database: Database
    ledger: Ledger
    tenants: Iterator[int]
    beside: dict[str, list[Any]]

    @classmethod
    def of(cls, url: str, ledger: Ledger) -> World:
        """Let another tenant talk, and remember its rows."""
        model = ScriptedModel("One.", "Two.")
        ledger.models.append(model)
        with Roleplay.open(url, model=MODEL, chat=model, tenant=BESIDE) as rp:
            session = rp.sessions.create(cast=[rp.personas.put(Persona("Wu", key="same", greetings=GREETINGS))])
            session.tree.hide(session.send("Well?").id)
            session.tree.rewind()
            session.send("And?")
        database = Database.open(url)
        return cls(url, database, ledger, count(1), rows_of(database, BESIDE))


class Went(NamedTuple):
    """How an attempt went: the turn that was given, how many pieces of a stream were taken, what was raised."""

    turn: Any
    taken: int
    error: Exception | None


def rows_of(database: Database, tenant: str) -> dict[str, list[Any]]:
    """Every row of a tenant."""
    tables = [one for one in Base.metadata.sorted_tables if "tenant" in one.c]
    wanted = {one.name: select(one).where(one.c.tenant == tenant) for one in tables}
    return database.read(lambda db: {name: sorted(map(repr, db.execute(rows))) for name, rows in wanted.items()})


class Conversation(RuleBasedStateMachine):
    """One session, and what it must be."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.tenant = f"tenant-{next(world.tenants)}"
        self.model = ScriptedModel(piece_chars=PIECE_CHARS)
        world.ledger.models.append(self.model)
        self.numbers = count(1)
        self.turns: list[Known] = []
        self.head: Known | None = None
        self.moved_from: list[Known | None] = []
        self.keys: list[tuple[str, str, Known]] = []
        self.checked = 0
        self.budget: int | None = None
        self.rp: Any = None

    # What the engine does, and what the model makes of it.

    @initialize(greetings=st.integers(0, 2), budget=st.sampled_from([None, SMALL_BUDGET]))
    def begin(self, greetings: int, budget: int | None) -> None:
        self.budget = budget
        self.open()
        persona = Persona("Huang", "A ferryman.", key="same", greetings=GREETINGS[:greetings])
        settings_ = SessionSettings(budget_tokens=budget)
        self.session = self.rp.sessions.create(cast=[self.rp.personas.put(persona)], settings=settings_)
        for text in GREETINGS[:greetings]:
            self.turns.append(Known(None, None, next(self.numbers), status="completed", reply=text))
        if greetings:
            self.move(self.turns[0])
            for known, turn in zip(
                self.turns, self.session.tree.variants(self.session.turns().items[0].id), strict=True
            ):
                known.id = turn.id

    def open(self) -> None:
        self.rp = Roleplay.open(self.world.url, model=MODEL, chat=self.model, tenant=self.tenant)

    def move(self, to: Known | None) -> None:
        if to is not self.head:
            self.moved_from.append(self.head)
            self.head = to

    def words(self, length: int) -> str:
        return " ".join(f"{next(self.numbers)}." for _ in range(max(length // 4, 1)))

    def pick(self, number: int, *, complete: bool | None = None) -> Known | None:
        """A turn, newest first; one that is complete, or one that failed or was interrupted, when that is asked."""
        found = [one for one in reversed(self.turns) if complete in {None, one.complete}]
        return found[number % len(found)] if found else None

    @property
    def lost(self) -> Known | None:
        """The turn that a process left in flight when it died."""
        return next((one for one in self.turns if one.status in IN_FLIGHT), None)

    def ended(self) -> None:
        """Know that the lost turn is ended now."""
        if (lost := self.lost) is not None:
            lost.status = "interrupted" if lost.reply else "failed"
            lost.remember()

    def path(self, tip: Known | None) -> list[Known]:
        found = []
        while tip is not None:
            found.append(tip)
            tip = tip.parent
        return found[::-1]

    def unresolved(self) -> Known | None:
        """The newest attempt after the head, or at the head's own line since then, if it has not become a reply.

        What was spoken beside another turn is no answer to what failed here.
        """
        head = self.head
        since = [] if head is None else self.turns[self.turns.index(head) + 1 :]
        again = [one for one in since if head and (one.parent, one.line) == (head.parent, head.line)]
        after = [one for one in self.turns if one.parent is head or one in again]
        after = [one for one in after if not (one.complete and one.aside)]
        return after[-1] if after and not after[-1].complete else None

    def family(self, one: Known) -> list[Known]:
        """A turn and the complete turns that answer the same line."""
        beside = [other for other in self.turns if other.line is one.line and (other.complete or other is one)]
        return sorted(beside, key=lambda other: other.order)

    def speak(self, turn: Known, door: Callable[[], Any], how: tuple[str, int], text: str, so_far: str = "") -> None:
        """Let the engine make an attempt at ``turn`` that goes as ``how`` says, and know what must come of it."""
        self.ended()
        was = len(self.model.bodies)
        self.model.say(*script(*how, text))
        went = self.attempt(door, *how)
        if isinstance(went.error, BudgetError):
            assert self.budget is not None
            assert len(self.model.bodies) == was
            self.model._replies.clear()
            return
        if turn not in self.turns:
            self.turns.append(turn)
        turn.requests += range(was, len(self.model.bodies))
        assert len(self.model.bodies) - was == (2 if how[0] == "flaky" else 1)
        if how[0] == "refused":
            assert isinstance(went.error, ChatAuthError)
            turn.id = went.error.turn_id or ""
            turn.reply, turn.status = so_far or None, "interrupted" if so_far else "failed"
        elif how == ("crash", went.taken):
            assert went.taken or type(went.error) is StoreError
            self.know_crash(turn, went.taken, text, so_far)
        else:
            cut = how == ("cut", went.taken)
            turn.id = went.turn.id
            turn.reply = so_far + (text[: PIECE_CHARS * went.taken] if cut else text)
            turn.status = "interrupted" if cut else "completed"
            assert self.session.turn(turn.id) == went.turn
            if turn.complete:
                self.move(turn)

    def know_crash(self, turn: Known, taken: int, text: str, so_far: str) -> None:
        """Know a turn whose process died: what was kept of its text is what came, or a good part of it."""
        [turn.id] = self.in_flight()
        stored = self.session.turn(turn.id)
        turn.status = stored.status.value
        turn.reply = stored.reply.text if stored.reply else None
        kept = turn.reply or ""
        assert (so_far + text).startswith(kept)
        least = flushed(min(taken, -(-len(text) // PIECE_CHARS)), len(so_far))
        assert least <= len(kept) - len(so_far) <= taken * PIECE_CHARS

    def attempt(self, door: Callable[[], Any], end: str, after: int) -> Went:
        """Go through a door and, where it gives a stream, take that as far as the attempt goes."""
        taken = 0
        try:
            got = door()
            if hasattr(got, "cancel"):
                taken = self.take(got, end, after)
        except (ChatAuthError, StoreError, BudgetError) as error:
            return Went(None, taken, error)
        if end == "crash" and taken == after:
            return Went(None, taken, None)
        return Went(got.turn if hasattr(got, "cancel") else got, taken, None)

    def take(self, stream: Any, end: str, after: int) -> int:
        """Take a stream as far as an attempt goes; says how many pieces came."""
        taken = 0
        if end == "crash":
            for _ in stream:
                taken += 1
                if taken == after:
                    abandon(stream)
                    self.bury()
                    return taken
            return taken
        with stream as reply:
            for _ in reply:
                taken += 1
                if end == "cut" and taken == after:
                    break
        return taken

    def bury(self) -> None:
        """Let the owner of the turn in flight be another process, which is dead."""
        row = table(TurnRow).c
        live = (row.tenant == self.tenant) & row.status.in_(IN_FLIGHT)

        def work(db: Connection) -> None:
            [owner] = db.execute(select(row.lease_owner).where(live)).scalars()
            host = owner.rsplit("/", 2)[0]
            db.execute(table(TurnRow).update().where(live).values(lease_owner=f"{host}/99999999/1"))

        self.world.database.write(work)

    def in_flight(self) -> list[str]:
        row = table(TurnRow).c
        wanted = select(row.id).where(row.tenant == self.tenant, row.status.in_(IN_FLIGHT))
        return self.world.database.read(lambda db: list(db.execute(wanted).scalars()))

    def asked_as(self, turn: Known, *more: tuple[str, str], hint: str = "") -> None:
        """Check that the last request holds the visible lines before ``turn``, its line, and nothing else."""
        got = [
            (one["role"], one["content"])
            for one in self.model.requests[-1]["messages"]
            if one["role"] in {"user", "assistant"}
        ]
        before = [line for one in self.path(turn.parent) for line in visible(one)]
        assert turn.line is not None
        rest = [("user", turn.line.text), *more]
        if hint:
            rest[-1] = ("user", f"{rest[-1][1]}\n\n[{hint}]")
        whole = [merged([*before, *rest])]
        if self.budget is not None:
            starts = [one for one in self.path(turn.parent) if visible(one)]
            for number in range(1, len(starts) + 1):
                kept = [line for one in starts[number:] for line in visible(one)]
                whole.append(merged([*kept, *rest]))
        assert got in whole

    # The rules.

    @rule(how=ends, length=lengths)
    def stream(self, how: tuple[str, int], length: int) -> None:
        self.say(self.session.stream, how, length, TurnOptions())

    @rule(how=plain_ends, length=lengths)
    def send(self, how: tuple[str, int], length: int) -> None:
        self.say(self.session.send, how, length, TurnOptions())

    @rule(how=ends, length=lengths)
    def send_with_a_key(self, how: tuple[str, int], length: int) -> None:
        key = f"key-{next(self.numbers)}"
        turn = self.say(self.session.stream, how, length, TurnOptions(idempotency_key=key))
        if turn in self.turns:
            assert turn.line is not None
            self.keys.append((key, turn.line.text, turn))

    def say(self, door: Callable[..., Any], how: tuple[str, int], length: int, options: TurnOptions) -> Known:
        line = Line(f"Line {next(self.numbers)}?")
        turn = Known(self.head, line, next(self.numbers))
        self.speak(turn, lambda: door(line.text, options=options), how, self.words(length))
        if turn in self.turns:
            self.asked_as(turn)
        return turn

    @precondition(lambda self: self.keys)
    @rule(number=picks, how=ends, streams=st.booleans())
    def send_again(self, number: int, how: tuple[str, int], *, streams: bool) -> None:
        key, text, turn = self.keys[number % len(self.keys)]
        options = TurnOptions(idempotency_key=key)
        with pytest.raises(IdempotencyError):
            self.session.send(text + "?", options=options)
        self.ended()  # if it was this turn, or stood in the way
        if self.in_flight():
            self.rp.recover()
        door = self.session.stream if streams else self.session.send
        if turn.reply is not None:
            was = len(self.model.bodies)
            again = door(text, options=options)
            if streams:
                assert "".join(delta.text for delta in again) == turn.reply
                again = again.turn
            assert (again.id, again.status, again.reply.text) == (turn.id, turn.status, turn.reply)
            assert len(self.model.bodies) == was
            return
        self.again(turn, how if streams else PLAIN_ENDS[how[1] % 4], lambda: door(text, options=options))

    def again(self, turn: Known, how: tuple[str, int], door: Callable[[], Any]) -> None:
        """Another attempt at a turn, anew."""
        self.ended()
        turn.earlier = (turn.reply, turn.order) if turn.reply else None
        was = len(turn.requests), turn.reply, turn.order
        turn.reply, turn.order = None, next(self.numbers)
        self.speak(turn, door, how, self.words(40))
        turn.remember()
        if len(turn.requests) == was[0]:
            turn.reply, turn.order = was[1:]
        else:
            self.asked_as(turn)

    @precondition(lambda self: self.pick(0, complete=False))
    @rule(number=picks, how=ends)
    def retry(self, number: int, how: tuple[str, int]) -> None:
        turn = self.pick(number, complete=False)
        assert turn is not None
        self.again(turn, how, lambda: self.session.retry(turn.id))

    @rule(how=ends)
    def retry_the_last(self, how: tuple[str, int]) -> None:
        turn = self.unresolved()
        if turn is None:
            with pytest.raises(InvalidInputError):
                self.session.retry()
            self.ended()
        else:
            self.again(turn, how, self.session.retry)

    @precondition(lambda self: self.pick(0, complete=False))
    @rule(number=picks, how=ends, length=lengths)
    def resume(self, number: int, how: tuple[str, int], length: int) -> None:
        turn = self.pick(number, complete=False)
        assert turn is not None
        if turn is self.lost:  # to resume it ends it, and it has the text again that it had before
            self.ended()
        so_far = turn.reply
        if not so_far:
            with pytest.raises(InvalidInputError):
                self.session.resume(turn.id)
            self.ended()
            return
        was = len(turn.requests)
        self.speak(turn, lambda: self.session.resume(turn.id), how, self.words(length), so_far)
        if len(turn.requests) > was:
            self.asked_as(turn, ("assistant", so_far), ("user", LANGUAGES["en"].go_on))

    @precondition(lambda self: self.pick(0, complete=False))
    @rule(number=picks)
    def accept(self, number: int) -> None:
        turn = self.pick(number, complete=False)
        assert turn is not None
        if turn is self.lost:
            self.ended()
            self.rp.recover()
        if not turn.reply:
            with pytest.raises(InvalidInputError):
                self.session.accept(turn.id)
            return
        self.ended()
        accepted = self.session.accept(turn.id)
        turn.status = "completed"
        assert (accepted.id, accepted.reply.text) == (turn.id, turn.reply)
        self.move(turn)

    @precondition(lambda self: self.turns)
    @rule(number=picks, how=ends, length=lengths, hinted=st.booleans())
    def regenerate(self, number: int, how: tuple[str, int], length: int, *, hinted: bool) -> None:
        old = self.pick(number)
        assert old is not None
        hint = HINT if hinted else ""
        if old.line is None:
            with pytest.raises(InvalidInputError):
                self.session.regenerate(old.id)
            self.ended()
            return
        turn = Known(old.parent, old.line, next(self.numbers))
        self.speak(turn, lambda: self.session.regenerate(old.id, hint=hint), how, self.words(length))
        if turn in self.turns:
            self.asked_as(turn, hint=hint)

    @precondition(lambda self: self.lost is None)
    @rule(length=lengths)
    def speak_beside(self, length: int) -> None:
        """Two lines at once: the first moves the head, the second stays on a branch."""
        lines = Line(f"Line {next(self.numbers)}?"), Line(f"Line {next(self.numbers)}?")
        first, second = (Known(self.head, line, next(self.numbers), status="completed") for line in lines)
        first.reply, second.reply = self.words(length), self.words(40)
        second.aside = True
        was = len(self.model.bodies)
        self.model.say(first.reply, second.reply)
        with self.session.stream(lines[0].text) as reply:
            for refused in (self.session.regenerate, lambda: self.session.accept(reply.turn_id)):
                with pytest.raises(ConflictError):
                    refused()
            beside = self.session.send(lines[1].text, options=TurnOptions(on_conflict="fork"))
            list(reply)
        first.id, second.id = reply.turn.id, beside.id
        first.requests, second.requests = [was], [was + 1]
        self.turns += [first, second]
        self.asked_as(second)
        self.move(first)

    @rule()
    def recover(self) -> None:
        lost = [self.lost.id] if self.lost is not None else []
        assert list(self.rp.recover()) == lost
        self.ended()

    @rule()
    def repair(self) -> None:
        assert all(finding.mendable for finding in self.rp.doctor(repair=True))
        self.ended()

    @precondition(lambda self: self.turns)
    @rule(number=picks, name=st.sampled_from(["choose", "fork"]))
    def stand_on(self, number: int, name: str) -> None:
        turn = self.pick(number)
        assert turn is not None
        door = getattr(self.session.tree, name)
        if not turn.complete:
            with pytest.raises(InvalidInputError):
                door(turn.id)
            if turn is self.lost:
                self.ended()
            return
        self.ended()
        assert door(turn.id).id == turn.id
        self.move(turn)

    @rule(steps=st.integers(1, 4))
    def rewind(self, steps: int) -> None:
        path = self.path(self.head)
        if steps > len(path):
            with pytest.raises(InvalidInputError):
                self.session.tree.rewind(steps)
            return
        self.ended()
        target = path[-steps - 1] if steps < len(path) else None
        went = self.session.tree.rewind(steps)
        assert (went and went.id) == (target and target.id)
        self.move(target)

    @rule()
    def undo(self) -> None:
        if not self.moved_from:
            with pytest.raises(InvalidInputError):
                self.session.tree.undo()
            return
        self.ended()
        target = self.moved_from.pop()
        went = self.session.tree.undo()
        assert (went and went.id) == (target and target.id)
        self.head = target

    @precondition(lambda self: self.pick(0, complete=True))
    @rule(number=picks)
    def edit(self, number: int) -> None:
        old = self.pick(number, complete=True)
        assert old is not None
        self.ended()
        turn = Known(old.parent, old.line, next(self.numbers), status="completed", reply=self.words(9))
        was = len(self.model.bodies)
        turn.id = self.session.tree.edit(old.id, turn.reply).id
        assert len(self.model.bodies) == was
        self.turns.append(turn)
        self.move(turn)

    @precondition(lambda self: self.pick(0, complete=True))
    @rule(number=picks, hidden=st.booleans())
    def hide(self, number: int, *, hidden: bool) -> None:
        turn = self.pick(number, complete=True)
        assert turn is not None
        tree = self.session.tree
        (tree.hide if hidden else tree.show)(turn.id)
        turn.hidden = hidden

    @rule()
    def open_again(self) -> None:
        with self.rp:
            pass
        self.open()
        self.session = self.rp.sessions.get(self.session.id)

    # What holds after every step.

    @invariant()
    def the_path_is_the_models(self) -> None:
        if self.rp is None:
            return
        after = self.unresolved()
        expected = [*self.path(self.head), *([] if after is None else [after])]
        page = self.session.turns()
        assert [shape(turn) for turn in page] == [
            (
                one.id,
                one.status,
                one.line and (one.line.text, one.hidden),
                None if one.reply is None else (one.reply, one.hidden),
                (self.family(one).index(one) + 1, len(self.family(one))),
                len(one.requests),
            )
            for one in expected[-50 - (after is not None) :]
        ]
        head = page.items[-1 - (after is not None)] if self.head is not None else None
        assert self.session.info().head_seq == (head and head.reply.seq)

    @invariant()
    def the_tree_is_the_models(self) -> None:
        if self.rp is None:
            return
        parents = {one.parent for one in self.turns if one.complete}
        tips = [one.id for one in reversed(self.turns) if one.complete and one not in parents]
        assert [turn.id for turn in self.session.tree.branches()] == tips
        if self.turns:
            some = self.turns[-1 - next(self.numbers) % min(len(self.turns), 4)]
            variants = self.session.tree.variants(some.id)
            assert [turn.id for turn in variants] == [one.id for one in self.family(some)]

    @invariant()
    def nothing_is_wrong(self) -> None:
        if self.rp is None:
            return
        lost = self.lost
        assert self.in_flight() == ([] if lost is None else [lost.id])
        assert [finding.kind for finding in self.rp.doctor()] == ([] if lost is None else ["expired lease"])

    @invariant()
    def new_calls_are_rebuilt(self) -> None:
        if self.rp is None:
            return
        for one in self.turns:
            if any(number >= self.checked for number in one.requests):
                self.rebuild(one)
        self.checked = len(self.model.bodies)

    def rebuild(self, one: Known) -> None:
        """Check that a turn's requests come back from the rows as they were received."""
        calls = self.session.turn(one.id).calls
        rebuilt = [self.rp.replay.request(self.session.id, call.id) for call in calls]
        assert rebuilt == [self.model.bodies[number] for number in one.requests]

    def teardown(self) -> None:
        if self.rp is None:
            return
        with self.rp:
            assert sorted(number for one in self.turns for number in one.requests) == [*range(len(self.model.bodies))]
            for one in self.turns:
                self.rebuild(one)
        assert rows_of(self.world.database, BESIDE) == self.world.beside


def script(end: str, after: int, text: str) -> list[Any]:
    """What the model says in an attempt."""
    if end == "refused":
        return [ChatAuthError("refused", code=1004, status=401)]
    if end == "flaky":
        return [ChatUnavailableError("busy", code=1002, status=429), text]
    return [die] if end == "crash" and after == 0 else [text]


def die(_messages: object) -> str:
    """The database cannot be told what becomes of the turn, as when the process dies."""
    raise StoreError("gone")


def abandon(stream: Any) -> None:
    """Let nobody drive a stream any more."""
    driver = getattr(stream, "_target", stream)._driver
    driver._execution._steps.close()
    driver._runtime.unregister(driver)


def flushed(pieces: int, before: int) -> int:
    """How many characters are kept at least when so many pieces have come after ``before`` of them."""
    kept = before
    for length in range(before + PIECE_CHARS, before + pieces * PIECE_CHARS, PIECE_CHARS):  # the last may be short
        kept = length if length >= max(2 * kept, FLUSH_CHARS) else kept
    return kept - before


def visible(one: Known) -> list[tuple[str, str]]:
    """The lines of a turn that contexts hold: both or, where it is hidden, neither, whatever its variants are."""
    if one.hidden:
        return []
    said = [] if one.line is None else [("user", one.line.text)]
    return said if one.reply is None else [*said, ("assistant", one.reply)]


def merged(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one role as one message."""
    return [(role, "\n\n".join(text for _, text in some)) for role, some in groupby(lines, key=lambda line: line[0])]


def shape(turn: Any) -> Any:
    """What the model knows of a stored turn."""
    return (
        turn.id,
        turn.status.value,
        turn.human and (turn.human.text, turn.human.hidden),
        turn.reply and (turn.reply.text, turn.reply.hidden),
        (turn.variant, turn.variants),
        len(turn.calls),
    )


@pytest.mark.usefixtures("shell", "unwatched")
def test_a_conversation_is_what_its_model_says(database_url: str, ledger: Ledger) -> None:
    """Through every order of sends, failures, crashes and moves, the session is what a tree in memory is."""
    world = World.of(database_url, ledger)
    try:
        run_state_machine_as_test(lambda: Conversation(world), settings=RUN)
    finally:
        world.database.close()

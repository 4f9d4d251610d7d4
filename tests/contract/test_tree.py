"""What becomes of a session's tree: every operation that moves its head, adds a variant or changes what is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, Engine, event, insert, select, text

from roleplay import (
    ChatError,
    ChatRequestError,
    ChatUnavailableError,
    ConflictError,
    Endpoint,
    InvalidInputError,
    NotFoundError,
    Persona,
    SessionSettings,
    StoreError,
    TurnOptions,
    TurnStatus,
)
from roleplay.context.languages import LANGUAGES
from roleplay.store.access.database import Database
from roleplay.store.access.tables import Base, HeadMoveRow, MessageRow, SessionRow, TurnRow, table
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})
REFUSED = ChatRequestError("refused", code=2013)
TABLES = [one for one in Base.metadata.sorted_tables if "tenant" in one.c]
# What an operation may write at most, rows of all tables together.
ROWS_LIMIT = 10


class Stage(NamedTuple):
    """An engine with one session, and its model."""

    rp: Any
    session: Any
    model: ScriptedModel
    url: str

    @property
    def tree(self) -> Any:
        return self.session.tree

    def said(self) -> list[str]:
        """The lines of the active path, in order."""
        return lines(self.session.turns())

    def asked(self) -> list[str]:
        """The lines of the last request, without what comes before history."""
        return [one["content"] for one in self.model.requests[-1]["messages"] if one["role"] in {"user", "assistant"}]

    def replies(self, turn: Any) -> list[str]:
        """The replies of all variants of a turn."""
        return [one.reply.text for one in self.tree.variants(turn.id)]

    def rebuilt(self) -> list[bytes]:
        """Every request, rebuilt, in the order of sending."""
        ids = [(session, call) for session, call in self.rp.replay.verify() if session == self.session.id]
        return [self.rp.replay.request(*one) for one in sorted(ids, key=lambda one: one[1])]


def lines(turns: Any) -> list[str]:
    """What was said in some turns."""
    return [line.text for turn in turns for line in (turn.human, turn.reply) if line is not None]


@pytest.fixture
def opened(database_url: str, scripted: Scripted) -> Iterator[Callable[..., Stage]]:
    """Opens an engine on each database in turn, with a session whose model says what it is given."""
    engines = []

    def open_(*replies: object, greetings: tuple[str, ...] = (), **settings: Any) -> Stage:
        model = scripted(*replies)
        rp = Roleplay.open(database_url, model=MODEL, chat=model, settings=SessionSettings(**settings))
        engines.append(rp)
        persona = rp.personas.put(Persona("Huang", "A ferryman.", greetings=greetings))
        return Stage(rp, rp.sessions.create(cast=[persona]), model, database_url)

    yield open_
    for rp in engines:
        with rp:
            pass


def through(stream: Any) -> Any:
    """Take a stream to its end and give its turn."""
    with stream as reply:
        list(reply)
    return reply.turn


def cut(stream: Any) -> Any:
    """Leave a stream after its first piece and give its turn."""
    with stream as reply:
        next(iter(reply))
    return reply.turn


def counts(url: str) -> dict[str, int]:
    """How many rows every table has."""
    database = Database.open(url)
    found = database.read(
        lambda db: {
            one.name: db.execute(text(f"SELECT count(*) FROM {one.name} WHERE tenant IS NOT NULL")).scalar()
            for one in TABLES
        }
    )
    database.close()
    return found


def added(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """By how many rows each table has grown, where it has."""
    return {name.removeprefix("roleplay_"): after[name] - before[name] for name in after if after[name] != before[name]}


def moves(url: str, session_id: str) -> list[tuple[int | None, int | None, str]]:
    """Every move of a session's head: from, to, cause."""
    row = table(HeadMoveRow).c
    wanted = select(row.from_seq, row.to_seq, row.cause).where(row.tenant == "default", row.session_id == session_id)
    database = Database.open(url)
    found = database.read(lambda db: [tuple(one) for one in db.execute(wanted.order_by(row.version))])
    database.close()
    return found


def test_regenerate_adds_a_variant(opened: Callable[..., Stage]) -> None:
    """Another reply to the same line is a turn beside the first, and the session stands on it; nothing is copied."""
    one = opened("Yes.", "One.", "Two.", "Three.")
    one.session.send("Huang?")
    first = one.session.send("Well?")
    before = counts(one.url)
    second = through(one.session.regenerate())
    assert added(before, counts(one.url)) == {"turns": 1, "messages": 1, "model_calls": 1, "head_moves": 1}
    third = through(one.session.regenerate(first.id))
    assert one.said() == ["Huang?", "Yes.", "Well?", "Three."]
    assert one.replies(first) == one.replies(third) == ["One.", "Two.", "Three."]
    assert [(turn.variant, turn.variants) for turn in one.tree.variants(second.id)] == [(1, 3), (2, 3), (3, 3)]
    assert len(set(one.model.bodies[1:4])) == 2  # only "stream" differs
    assert one.session.send("And?").human.parent_seq == third.reply.seq
    assert one.asked() == ["Huang?", "Yes.", "Well?", "Three.", "And?"]


def test_the_usage_of_every_variant_is_kept(opened: Callable[..., Stage]) -> None:
    """What every attempt cost stays with its variant and in the report, also of those that were not chosen."""
    one = opened("One.", "Two words.", REFUSED, "Three.")
    first = one.session.send("Well?")
    second = through(one.session.regenerate())
    with pytest.raises(ChatRequestError) as failure:
        one.session.regenerate()
    third = through(one.session.retry(failure.value.turn_id))
    assert [turn.usage.completion_tokens for turn in one.tree.variants(first.id)] == [1, 2, 1]
    assert [call.error is None for call in third.calls] == [False, True]
    [total] = one.rp.usage.report()
    assert (total.calls, total.unreported, total.usage.completion_tokens) == (4, 1, 4)
    assert [first.call.id, second.call.id] == [turn.call.id for turn in one.tree.variants(third.id)][:2]


def test_regenerate_with_a_hint(opened: Callable[..., Stage]) -> None:
    """A hint goes into the request of its variant alone."""
    one = opened("One.", "Two.", "Three.")
    one.session.send("Well?")
    through(one.session.regenerate(hint="Whisper."))
    assert one.asked() == ["Well?\n\n[Whisper.]"]
    one.session.send("And?")
    assert one.asked() == ["Well?", "Two.", "And?"]
    assert one.rebuilt() == one.model.bodies


def test_regenerate_while_the_session_stands_elsewhere(opened: Callable[..., Stage]) -> None:
    """A variant of an old turn is asked for from before that turn; the session stands on it then."""
    one = opened("One.", "Two.", "Three.", "Four.")
    first = one.session.send("First?")
    one.session.send("Second?")
    last = one.session.send("Third?")
    turn = through(one.session.regenerate(first.id))
    assert one.asked() == ["First?"]
    assert one.said() == ["First?", "Four."]
    assert (turn.variant, turn.variants) == (2, 2)
    assert [tip.id for tip in one.tree.branches()] == [turn.id, last.id]
    assert one.tree.undo().id == last.id


def test_a_greeting_answers_nobody(opened: Callable[..., Stage]) -> None:
    """A greeting cannot be made anew by the model; nothing is written and nobody is asked."""
    one = opened(greetings=("Hello.", "Hi."))
    before = counts(one.url)
    [greeting] = one.session.turns()
    for wrong in (None, greeting.id):
        with pytest.raises(InvalidInputError, match="greeting"):
            one.session.regenerate(wrong)
    for door in (one.session.retry, one.session.resume, one.session.accept):
        with pytest.raises(InvalidInputError):
            door(greeting.id)
    assert counts(one.url) == before
    assert one.model.bodies == []


def test_choose_between_greetings(opened: Callable[..., Stage]) -> None:
    """The alternates of a greeting are its variants, and the one that is chosen opens the conversation."""
    one = opened("Yes.", greetings=("Hello.", "Hi.", "Ho."))
    [greeting] = one.session.turns()
    assert one.replies(greeting) == ["Hello.", "Hi.", "Ho."]
    second = one.tree.variants(greeting.id)[1]
    assert (second.variant, second.variants) == (2, 3)
    assert one.tree.choose(second.id) == second
    one.session.send("Well?")
    assert one.asked() == ["Hi.", "Well?"]
    assert [turn.reply.text for turn in one.tree.branches()] == ["Yes.", "Ho.", "Hello."]


def test_choose_between_variants_and_branches(opened: Callable[..., Stage]) -> None:
    """A variant or another branch's tip is stood on with one row; it is already there when it is the head."""
    one = opened("One.", "Two.", "Three.")
    first = one.session.send("Well?")
    tip = one.session.send("And?")
    other = through(one.session.regenerate(first.id))
    before = counts(one.url)
    assert one.tree.choose(tip.id).id == tip.id
    assert one.said() == ["Well?", "One.", "And?", "Two."]
    assert one.tree.choose(tip.id).id == tip.id
    one.tree.choose(other.id)
    assert one.said() == ["Well?", "Three."]
    assert added(before, counts(one.url)) == {"head_moves": 2}
    assert [tip.id for tip in one.tree.branches()] == [other.id, tip.id]


def test_fork_begins_a_branch(opened: Callable[..., Stage]) -> None:
    """The next line after a fork begins a branch; what followed stays, and not a row was copied."""
    one = opened("One.", "Two.", "Three.", "Four.")
    turns = [one.session.send(line) for line in ("First?", "Second?", "Third?")]
    before = counts(one.url)
    assert one.tree.fork(turns[0].id).id == turns[0].id
    assert added(before, counts(one.url)) == {"head_moves": 1}
    branch = one.session.send("Else?")
    assert one.asked() == ["First?", "One.", "Else?"]
    after = added(before, counts(one.url))
    assert after == {"turns": 1, "messages": 2, "model_calls": 1, "head_moves": 2}
    assert [tip.id for tip in one.tree.branches()] == [branch.id, turns[2].id]
    assert branch.variants == 1
    one.tree.choose(turns[2].id)
    assert one.said() == ["First?", "One.", "Second?", "Two.", "Third?", "Three."]


def test_rewind_steps_back(opened: Callable[..., Stage]) -> None:
    """Some turns back, and before the first, the greeting included; no further."""
    one = opened(*"abcd", greetings=("Hello.",))
    turns = [*one.session.turns(), *(one.session.send(line) for line in "ABC")]
    assert one.tree.rewind(2).id == turns[1].id
    assert one.said() == ["Hello.", "A", "a"]
    assert one.tree.rewind().id == turns[0].id
    for wrong in (0, -1, 2, 10**30):
        with pytest.raises(InvalidInputError):
            one.tree.rewind(wrong)
    assert one.tree.rewind(1) is None
    assert one.said() == []
    with pytest.raises(InvalidInputError):
        one.tree.rewind()
    fresh = one.session.send("D")
    assert one.asked() == ["D"]
    assert fresh.human.parent_seq is None
    assert (fresh.variants, one.session.turns().items[0].id) == (1, fresh.id)
    assert [move[2] for move in moves(one.url, one.session.id)][-4:] == ["rewind"] * 3 + ["reply"]


def test_edit_is_a_new_variant(opened: Callable[..., Stage]) -> None:
    """Other words for a reply are a variant that no model was asked for; the next request holds them."""
    one = opened("One.", "Two.", "Three.")
    first = one.session.send("Well?")
    one.session.send("And?")
    before = counts(one.url)
    edited = one.tree.edit(first.id, "Better.")
    assert added(before, counts(one.url)) == {"turns": 1, "messages": 1, "head_moves": 1}
    assert (edited.calls, edited.usage.total_tokens, edited.status) == ((), None, TurnStatus.COMPLETED)
    assert (edited.human, edited.variant, edited.variants) == (first.human, 2, 2)
    assert (edited.reply.name, edited.reply.parent_seq) == (first.reply.name, first.reply.parent_seq)
    one.session.send("So?")
    assert one.asked() == ["Well?", "Better.", "So?"]
    assert one.session.turn(first.id).reply.text == "One."
    assert one.rebuilt() == one.model.bodies
    again = one.tree.edit(edited.id, "Best.")
    assert one.replies(again) == ["One.", "Better.", "Best."]


def test_edit_of_a_greeting(opened: Callable[..., Stage]) -> None:
    """A greeting in other words is another greeting."""
    one = opened("One.", greetings=("Hello.", "Hi."))
    [greeting] = one.session.turns()
    edited = one.tree.edit(greeting.id, "Welcome.")
    assert (edited.kind, edited.human, edited.variant, edited.variants) == (greeting.kind, None, 3, 3)
    assert one.replies(greeting) == ["Hello.", "Hi.", "Welcome."]
    one.session.send("Well?")
    assert one.asked() == ["Welcome.", "Well?"]


def test_an_edit_leaves_the_window_where_it_was(opened: Callable[..., Stage]) -> None:
    """The window of the request after an edit starts where it started before: the cached prefix stays."""
    one = opened(budget_tokens=400)
    for number in range(30):
        last = one.session.send(f"Line {number} " + "words " * 12)
    assert len(one.asked()) < 30
    while (foreseen := one.session.preview("Next")).report.new_epoch:  # the window would move before the edit
        last = one.session.send("And more?")
    expected = foreseen.messages[:-2]
    one.tree.edit(last.id, "Better.")
    assert one.session.preview("Next").messages[: len(expected)] == expected


def test_hide_and_show(opened: Callable[..., Stage]) -> None:
    """A hidden turn is in the transcript, marked, and in no context; old requests are rebuilt whatever is hidden."""
    one = opened(*"abcd", greetings=("Hello.",))
    turns = [one.session.send(line) for line in "ABC"]
    before = counts(one.url)
    hidden = one.tree.hide(turns[1].id)
    assert (hidden.human.hidden, hidden.reply.hidden) == (True, True)
    assert one.said() == ["Hello.", "A", "a", "B", "b", "C", "c"]
    assert [turn.reply.hidden for turn in one.session.turns()] == [False, False, True, False]
    assert counts(one.url) == before
    one.session.send("D")
    assert one.asked() == ["Hello.", "A", "a", "C", "c", "D"]
    assert one.rebuilt() == one.model.bodies
    shown = one.tree.show(turns[1].id)
    assert (shown.human.hidden, shown.reply.hidden) == (False, False)
    assert one.rebuilt() == one.model.bodies
    one.session.send("E")
    assert one.asked()[3:7] == ["B", "b", "C", "c"]
    one.tree.hide(one.session.turns().items[0].id)
    one.session.send("F")
    assert one.asked()[0] == "A"
    assert one.rebuilt() == one.model.bodies


def test_what_was_hidden_is_kept_as_runs(opened: Callable[..., Stage]) -> None:
    """A recipe says how many messages were skipped and kept, newest first, as it was then, wherever they lie."""
    one = opened(*"abcdefgh", greetings=("Hello.",))
    turns = [one.session.send(line) for line in "ABCD"]
    variant = through(one.session.regenerate())
    found = []
    for hidden in (turns[1], variant, one.session.turns().items[0], turns[0], turns[2]):
        one.tree.hide(hidden.id)
        found.append(one.session.send("Next?"))
    one.tree.show(turns[1].id)
    through(one.session.speak())

    def stored(db: Connection) -> list[Any]:
        sql = "SELECT recipe FROM roleplay_model_calls WHERE tenant = 'default' ORDER BY turn_seq, id"
        return [json.loads(row[0])[0] for row in db.exec_driver_sql(sql)]

    database = Database.open(one.url)
    spans = database.read(stored)
    database.close()
    assert [runs for *_, runs in spans] == [
        *([],) * 5,
        [0, 5, 2, 3],
        [0, 3, 2, 2, 2, 3],
        [0, 5, 2, 2, 2, 2],
        [0, 7, 2, 2],
        [],
        [0, 10, 4, 2],
    ]
    assert one.rebuilt() == one.model.bodies


def test_a_hidden_variant_leaves_the_others_whole(opened: Callable[..., Stage]) -> None:
    """What is hidden is a turn: another variant, old or new, keeps the line that they share."""
    one = opened("a", "b", "b again", "c", "b at last", "d", "e", "f")
    one.session.send("A")
    old = one.session.send("B")
    again = through(one.session.regenerate())
    one.tree.hide(old.id)
    for turn in one.tree.variants(old.id):
        assert turn.human.hidden is turn.reply.hidden is (turn.id == old.id)
    one.session.send("C")
    assert one.asked() == ["A", "a", "B", "b again", "C"]
    last = through(one.session.regenerate(old.id))
    one.session.send("D")
    assert one.asked() == ["A", "a", "B", "b at last", "D"]
    one.tree.edit(old.id, "edited")
    one.session.send("E")
    assert one.asked() == ["A", "a", "B", "edited", "E"]
    one.tree.choose(old.id)
    one.session.send("F")
    assert one.asked() == ["A", "a", "F"]
    one.tree.show(old.id)
    one.tree.hide(last.id)
    assert one.session.turn(again.id).human.hidden is one.session.turn(old.id).human.hidden is False
    assert one.session.turn(last.id).human.hidden is True
    assert one.rebuilt() == one.model.bodies


def test_lines_that_were_hidden_by_themselves_are_their_replies(opened: Callable[..., Stage]) -> None:
    """In a database of before, a hidden turn's line is marked too; its other variants keep it all the same."""
    one = opened("a", "a again", "b", "c")
    old = one.session.send("A")
    through(one.session.regenerate())
    one.tree.hide(old.id)
    sql = "UPDATE roleplay_messages SET hidden = true WHERE role = 'user' AND tenant = 'default'"
    database = Database.open(one.url)
    database.write(lambda db: db.exec_driver_sql(sql))
    database.close()
    one.session.send("B")
    assert one.asked() == ["A", "a again", "B"]
    one.tree.choose(old.id)
    one.session.send("C")
    assert one.asked() == ["C"]
    assert one.rebuilt() == one.model.bodies


def test_what_is_hidden_takes_no_room(opened: Callable[..., Stage]) -> None:
    """A hidden turn, however long its line and its reply, takes no budget from the lines before it."""
    one = opened("One.", "Long. " * 15, "Three.", budget_tokens=200)
    one.session.send("First?")
    one.tree.hide(one.session.send("Second? " * 15).id)
    one.session.send("Third?")
    assert one.asked() == ["First?", "One.", "Third?"]


def test_the_window_keeps_variants_whole(opened: Callable[..., Stage]) -> None:
    """When history is cut, a variant's reply never stays without the line that it answers."""
    one = opened(budget_tokens=160)
    for number in range(20):
        one.session.send(f"Line {number} " + "words " * (number % 7) * 2)
        through(one.session.regenerate())
        assert one.asked()[0].startswith("Line ")
    assert len(one.asked()) < 20


def test_undo_goes_back_move_by_move(opened: Callable[..., Stage]) -> None:
    """Each undo takes back one more move, whatever it was, past earlier undos, and new moves come first."""
    one = opened(*"abcdef", greetings=("Hello.",))
    [greeting] = one.session.turns()
    a, b = one.session.send("A"), one.session.send("B")
    assert one.tree.undo().id == a.id
    c = one.session.send("C")
    other = through(one.session.regenerate(c.id))
    one.tree.choose(b.id)
    one.tree.rewind()
    edited = one.tree.edit(a.id, "e")
    one.tree.fork(greeting.id)
    went = [one.tree.undo() for _ in range(8)]
    expected = [edited.id, a.id, b.id, other.id, c.id, a.id, greeting.id, None]
    assert [turn and turn.id for turn in went] == expected
    with pytest.raises(InvalidInputError):
        one.tree.undo()
    assert one.said() == []
    d = one.session.send("D")
    assert one.tree.undo() is None
    one.tree.choose(d.id)
    one.tree.choose(b.id)
    assert one.tree.undo().id == d.id
    path = moves(one.url, one.session.id)
    assert all(move[0] == before[1] for before, move in pairwise(path))


def test_an_accepted_reply_can_be_undone(opened: Callable[..., Stage]) -> None:
    """Undoing takes back the move; the text stays accepted, on a branch of its own."""
    one = opened("One.", "Two is a longer reply.")
    first = one.session.send("Well?")
    part = cut(one.session.stream("And?"))
    accepted = one.session.accept(part.id)
    assert (accepted.status, accepted.reply.text) == (TurnStatus.COMPLETED, "Two is a lon")
    assert one.tree.undo().id == first.id
    assert one.said() == ["Well?", "One."]
    assert [tip.id for tip in one.tree.branches()] == [part.id]


def test_the_last_attempt_is_shown(opened: Callable[..., Stage]) -> None:
    """``turns()`` ends with the attempt that has not become a reply, marked; it is no part of the next context."""
    one = opened("One.", REFUSED, "Three is a longer reply.", "Four.")
    first = one.session.send("Well?")
    with pytest.raises(ChatRequestError) as failure:
        one.session.send("And?")
    assert [(turn.id, turn.status) for turn in one.session.turns()] == [
        (first.id, TurnStatus.COMPLETED),
        (failure.value.turn_id, TurnStatus.FAILED),
    ]
    part = cut(one.session.stream("So?"))
    assert [turn.id for turn in one.session.turns()] == [first.id, part.id]
    assert [turn.id for turn in one.session.turns(limit=1)] == [first.id, part.id]
    assert one.session.turns().items[-1].status is TurnStatus.INTERRUPTED
    with one.session.stream("Now?") as reply:
        assert one.session.turns().items[-1].status.in_flight
        list(reply)
    assert one.asked() == ["Well?", "One.", "Now?"]
    assert one.said() == ["Well?", "One.", "Now?", "Four."]


def test_a_fork_hides_no_attempt(opened: Callable[..., Stage]) -> None:
    """A turn that was cut off is still the last attempt when another was spoken beside it, on a branch."""
    one = opened("One.", "Two is a longer reply.", "Beside.", "Two.")
    one.session.send("Well?")
    with one.session.stream("And?") as reply:
        one.session.send("So?", options=TurnOptions(on_conflict="fork"))
    cut_off = reply.turn
    assert cut_off.status is TurnStatus.INTERRUPTED
    assert one.session.turns().items[-1].id == cut_off.id
    assert through(one.session.retry()).id == cut_off.id
    assert one.said() == ["Well?", "One.", "And?", "Two."]


@pytest.mark.parametrize("greetings", [(), ("Hello.",)])
def test_a_variant_that_failed_is_the_last_attempt(opened: Callable[..., Stage], greetings: tuple[str, ...]) -> None:
    """A failed ``regenerate`` is shown and found like a failed line, until something newer was said."""
    one = opened("One.", REFUSED, "One again.", REFUSED, "Two.", greetings=greetings)
    first = one.session.send("Well?")
    with pytest.raises(ChatRequestError) as failure:
        through(one.session.regenerate())
    assert [turn.id for turn in one.session.turns()][-2:] == [first.id, failure.value.turn_id]
    turn = through(one.session.retry())
    assert (turn.id, turn.reply.text) == (failure.value.turn_id, "One again.")
    one.tree.choose(first.id)
    assert one.session.turns().items[-1].id == first.id
    with pytest.raises(ChatRequestError) as failure:
        through(one.session.regenerate())
    assert one.session.turns().items[-1].id == failure.value.turn_id
    one.session.send("And?")
    one.tree.rewind()
    assert one.session.turns().items[-1].id == first.id
    with pytest.raises(InvalidInputError, match="complete"):
        one.session.retry()


def test_retry_reuses_the_line(opened: Callable[..., Stage]) -> None:
    """Another attempt at a turn is the same turn with the same line; the partial text before it is no variant."""
    one = opened("One is a longer reply.", ChatUnavailableError("busy", code=1002), "Two.", "Three.")
    part = cut(one.session.stream("Well?"))
    before = counts(one.url)
    turn = through(one.session.retry())
    assert added(before, counts(one.url)) == {"messages": 1, "model_calls": 2, "head_moves": 1}
    assert (turn.id, turn.human, turn.reply.text, turn.status) == (part.id, part.human, "Two.", TurnStatus.COMPLETED)
    assert [call.attempt for call in turn.calls] == [1, 2, 3]
    assert (turn.variant, turn.variants, one.replies(turn)) == (1, 1, ["Two."])
    other = through(one.session.regenerate())
    assert (other.variant, other.variants) == (2, 2)
    assert one.said() == ["Well?", "Three."]


@pytest.mark.parametrize("how", ["refused", "lost"])
def test_a_retry_that_says_nothing_takes_nothing_away(opened: Callable[..., Stage], how: str) -> None:
    """An interrupted turn is what it was when another attempt gave no text: it can be resumed, accepted, retried."""

    def dies(_messages: object) -> str:
        raise StoreError("gone")

    one = opened("One is a longer reply.", REFUSED if how == "refused" else dies, " And more.", "Two.")
    part = cut(one.session.stream("Well?"))
    with pytest.raises((ChatRequestError, StoreError)):
        one.session.retry()
    assert list(one.rp.recover()) == ([part.id] if how == "lost" else [])
    [again] = one.session.turns()
    assert (again.status, again.reply) == (TurnStatus.INTERRUPTED, part.reply)
    assert len(again.calls) == 2
    assert list(one.rp.doctor()) == []
    whole = through(one.session.resume())
    assert (whole.id, whole.reply.text) == (part.id, part.reply.text + " And more.")
    assert one.rebuilt() == one.model.bodies


@pytest.mark.parametrize("door", ["retry", "resume"])
@pytest.mark.parametrize("refused", [{"idempotency_key": "order-1"}, {"metadata": {"a": 1}}])
def test_an_attempt_has_no_key_of_its_own(opened: Callable[..., Stage], door: str, refused: dict[str, Any]) -> None:
    """What a turn has from its first attempt on is not given again: it would be dropped."""
    one = opened("One is a longer reply.")
    cut(one.session.stream("Well?"))
    with pytest.raises(InvalidInputError, match=next(iter(refused))):
        getattr(one.session, door)(options=TurnOptions(**refused))
    assert len(one.model.bodies) == 1


def test_a_retry_that_fails_is_retried(opened: Callable[..., Stage]) -> None:
    """However often a turn fails, it stays one turn, off the path, until an attempt succeeds."""
    one = opened(REFUSED, REFUSED, REFUSED, "At last.")
    with pytest.raises(ChatRequestError):
        one.session.send("Well?")
    for _ in range(2):
        with pytest.raises(ChatRequestError):
            one.session.retry()
    [failed] = one.session.turns()
    assert (failed.status, len(failed.calls), failed.reply) == (TurnStatus.FAILED, 3, None)
    turn = through(one.session.retry())
    assert (turn.id, turn.reply.text) == (failed.id, "At last.")
    assert len(set(one.model.bodies[1:])) == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Once, on a big river there was a ferry.", LANGUAGES["en"]),
        ("从前有一个摆渡的人，住在大江的岸边上，每天都很忙。", LANGUAGES["zh"]),
        ("むかしむかし、大きな川のほとりに渡し守が住んでいました。", LANGUAGES["ja"]),
    ],
    ids=["en", "zh", "ja"],
)
def test_resume_goes_on(opened: Callable[..., Stage], said: str, words: Any) -> None:
    """The model is shown its words so far and asked, in their language, to go on; the reply is both together."""
    rest = said[12:]
    one = opened(said, rest, "Next.")
    part = cut(one.session.stream("Tell me."))
    assert part.reply.text == said[:12]
    before = counts(one.url)
    with one.session.resume() as reply:
        new = "".join(delta.text for delta in reply)
    turn = reply.turn
    assert (new, turn.reply.text) == (rest, said)
    assert (turn.id, turn.status, turn.attempt) == (part.id, TurnStatus.COMPLETED, 2)
    messages = one.model.requests[-1]["messages"][-3:]
    assert [(one["role"], one["name"], one["content"]) for one in messages] == [
        ("user", "User", "Tell me."),
        ("assistant", "Huang", said[:12]),
        ("user", "User", words.go_on),
    ]
    grown = added(before, counts(one.url))
    assert grown.pop("pieces") <= 4
    assert grown == {"model_calls": 1, "head_moves": 1}
    one.session.send("Then?")
    assert one.asked() == ["Tell me.", turn.reply.text, "Then?"]
    assert one.rebuilt() == one.model.bodies


def test_a_resume_that_fails_keeps_the_text(opened: Callable[..., Stage]) -> None:
    """The text so far survives attempts to go on that fail or end early, and can still be accepted or gone on from."""
    one = opened("Once upon a time.", REFUSED, " ferry on a river", "river.")
    part = cut(one.session.stream("Tell me."))
    with pytest.raises(ChatRequestError):
        one.session.resume()
    kept = one.session.turn(part.id)
    assert (kept.status, kept.reply.text, kept.error["code"]) == (TurnStatus.INTERRUPTED, "Once upon a ", 2013)
    longer = cut(one.session.resume(part.id))
    assert longer.reply.text == "Once upon a ferry on a "
    done = through(one.session.resume(part.id))
    assert done.reply.text == "Once upon a ferry on a river."
    assert one.said() == ["Tell me.", done.reply.text]
    assert (done.variants, len(done.calls)) == (1, 4)
    assert one.rebuilt() == one.model.bodies


def test_a_complete_reply_goes_on_in_a_variant(opened: Callable[..., Stage]) -> None:
    """What follows comes in a variant that begins with the text; the text that later requests hold stays as it was."""
    one = opened("Once upon", " a time.", "Next.", " and away.")
    first = one.session.send("Tell me.")
    before = counts(one.url)
    with one.session.resume() as reply:
        new = "".join(delta.text for delta in reply)
    longer = reply.turn
    assert (new, longer.reply.text, longer.human) == (" a time.", "Once upon a time.", first.human)
    assert (longer.id != first.id, longer.variant, longer.variants) == (True, 2, 2)
    assert one.session.turn(first.id) == first.model_copy(update={"variants": 2})
    assert one.asked()[-3:] == ["Tell me.", "Once upon", LANGUAGES["en"].go_on]
    grown = added(before, counts(one.url))
    assert grown.pop("pieces") <= 4
    assert grown == {"turns": 1, "messages": 1, "model_calls": 1, "head_moves": 1, "path_states": 1}
    one.session.send("Then?")
    assert one.asked() == ["Tell me.", "Once upon a time.", "Then?"]
    beside = through(one.session.resume(first.id))
    assert (beside.reply.text, one.said()) == ("Once upon and away.", ["Tell me.", "Once upon and away."])
    assert one.tree.undo().human.text == "Then?"
    assert one.rebuilt() == one.model.bodies


def test_a_complete_reply_that_does_not_go_on(opened: Callable[..., Stage]) -> None:
    """Where nothing was added there is no second copy of the text; the session stands where it stood."""
    one = opened("Once upon", REFUSED, "", " a long time ago.", " a dark night.")
    first = one.session.send("Tell me.")
    for _ in range(2):
        with pytest.raises(ChatError) as failure:
            one.session.resume()
        failed = one.session.turn(failure.value.turn_id)
        assert (failed.status, failed.reply, failed.id != first.id) == (TurnStatus.FAILED, None, True)
        assert one.said() == ["Tell me.", "Once upon", "Tell me."]
    part = cut(one.session.resume())
    assert (part.status, part.reply.text[:14]) == (TurnStatus.INTERRUPTED, "Once upon a lo")
    one.session.accept(part.id)
    assert one.said() == ["Tell me.", part.reply.text]
    assert one.rp.doctor() == []
    assert one.rebuilt() == one.model.bodies


def test_a_complete_reply_whose_variant_crashes(opened: Callable[..., Stage]) -> None:
    """A process that dies while the model goes on leaves the complete reply, and of the variant what was kept."""
    one = opened("Once upon", LONG, LONG, " a time.")
    first = one.session.send("Tell me.")
    lost = crash(one.session.resume(), one.url)
    assert list(one.rp.recover()) == [lost]
    kept = one.session.turn(lost)
    assert (kept.status, kept.reply) == (TurnStatus.FAILED, None)
    stream = one.session.resume(first.id)
    for number, _delta in enumerate(stream):
        if number == 30:
            break
    lost = crash(stream, one.url)
    assert list(one.rp.recover()) == [lost]
    kept = one.session.turn(lost)
    assert kept.status is TurnStatus.INTERRUPTED
    assert ("Once upon" + LONG).startswith(kept.reply.text)
    assert len(kept.reply.text) > 200
    assert through(one.session.resume(first.id)).reply.text == "Once upon a time."
    assert one.session.turn(first.id).reply == first.reply
    assert one.rp.doctor() == []


def lose(url: str) -> None:
    """Let the owner of every turn in flight be a process of this host that died."""
    database = Database.open(url)
    row = table(TurnRow).c
    live = row.status.in_(["pending", "streaming"]) & (row.tenant == "default")

    def work(db: Connection) -> None:
        for session, seq, owner in db.execute(select(row.session_id, row.seq, row.lease_owner).where(live)).all():
            host = owner.rsplit("/", 2)[0]
            here = (row.tenant == "default") & (row.session_id == session) & (row.seq == seq)
            db.execute(table(TurnRow).update().where(here).values(lease_owner=f"{host}/99999999/1"))

    database.write(work)
    database.close()


def crash(stream: Any, url: str) -> str:
    """Let a stream's process die as it stands, and give the turn's id."""
    real = getattr(stream, "_target", stream)
    real._driver._execution._steps.close()
    real._driver._runtime.unregister(real._driver)
    lose(url)
    return str(real.turn_id)


LONG = "A long story. " * 40
AFTER_A_CRASH: dict[str, Callable[[Stage, str], Any]] = {
    "retry": lambda one, lost: through(one.session.retry(lost)),
    "retry the last": lambda one, _lost: through(one.session.retry()),
    "resume": lambda one, lost: through(one.session.resume(lost)),
    "resume the last": lambda one, _lost: through(one.session.resume()),
    "accept": lambda one, lost: one.session.accept(lost),
    "send": lambda one, _lost: one.session.send("Else?"),
    "regenerate": lambda one, lost: through(one.session.regenerate(lost)),
    "undo": lambda one, _lost: one.tree.undo(),
    "rewind": lambda one, _lost: one.tree.rewind(),
    "edit": lambda one, _lost: one.tree.edit(one.session.turns().items[0].id, "Better."),
    "fork": lambda one, _lost: one.tree.fork(one.session.turns().items[0].id),
}


@pytest.mark.parametrize("what", AFTER_A_CRASH)
def test_a_dead_process_bars_no_way(opened: Callable[..., Stage], what: str) -> None:
    """Whatever is done first after a crash ends the lost turn by itself and is done at once; the text is kept."""
    one = opened("One.", LONG, "Three.")
    one.session.send("Well?")
    stream = one.session.stream("Tell me.")
    for number, _delta in enumerate(stream):
        if number == 30:
            break
    lost = crash(stream, one.url)
    assert one.session.turn(lost).status is TurnStatus.STREAMING
    AFTER_A_CRASH[what](one, lost)
    left = one.session.turn(lost)
    assert not left.status.in_flight
    if "retry" not in what:
        assert LONG.startswith(left.reply.text.removesuffix("Three."))
    assert one.rp.doctor() == []
    assert one.rp.recover() == []


def test_a_resume_that_crashes_keeps_the_text(opened: Callable[..., Stage]) -> None:
    """When the process dies while the model goes on, what was there before is there still."""
    one = opened("Once upon a time.", "ferry.", "river.")
    part = cut(one.session.stream("Tell me."))
    crash(one.session.resume(part.id), one.url)
    assert list(one.rp.recover()) == [part.id]
    kept = one.session.turn(part.id)
    assert (kept.status, kept.reply.text) == (TurnStatus.INTERRUPTED, "Once upon a ")
    assert through(one.session.resume()).reply.text == "Once upon a river."


def test_accept_takes_the_text_as_it_is(opened: Callable[..., Stage]) -> None:
    """An interrupted reply becomes the reply; one without text cannot."""
    one = opened("One is a longer reply.", REFUSED, "Three.")
    part = cut(one.session.stream("Well?"))
    with pytest.raises(ChatRequestError) as failure:
        one.session.send("And?")
    with pytest.raises(InvalidInputError):
        one.session.accept(failure.value.turn_id)
    before = counts(one.url)
    accepted = one.session.accept(part.id)
    assert added(before, counts(one.url)) == {"head_moves": 1}
    assert (accepted.status, accepted.reply.text) == (TurnStatus.COMPLETED, "One is a lon")
    one.session.send("So?")
    assert one.asked() == ["Well?", "One is a lon", "So?"]
    with pytest.raises(InvalidInputError):
        one.session.accept(part.id)


def test_the_numbers_of_variants(opened: Callable[..., Stage]) -> None:
    """What is not complete is no variant of another; a turn's number is its place in ``variants``."""
    one = opened("One.", REFUSED, "Two is a longer reply.", "Three.")
    first = one.session.send("Well?")
    with pytest.raises(ChatRequestError) as failure:
        one.session.regenerate()
    part = cut(one.session.regenerate())
    last = through(one.session.regenerate())
    assert [one.session.turn(turn.id).variants for turn in (first, last)] == [2, 2]
    for turn_id in (first.id, failure.value.turn_id, part.id, last.id):
        turn = one.session.turn(turn_id)
        variants = one.tree.variants(turn_id)
        assert variants[turn.variant - 1].id == turn_id
        assert len(variants) == turn.variants
    one.session.accept(part.id)
    assert one.replies(first) == ["One.", "Two is a lon", "Three."]


def test_what_is_not_there(opened: Callable[..., Stage]) -> None:
    """An unknown id, a turn of another session and one of another tenant are not found by any door."""
    one = opened("One.", "Two.")
    one.session.send("Well?")
    beside = one.rp.sessions.create(cast=[one.rp.personas.put(Persona("Wu"))])
    foreign = beside.send("Well?").id
    with Roleplay.open(one.url, model=MODEL, chat=one.model, tenant="other") as other:
        strange = other.sessions.create(cast=[other.personas.put(Persona("Li"))]).send("Well?").id
    doors: list[Callable[[str], Any]] = [
        one.session.turn,
        one.session.regenerate,
        one.session.retry,
        one.session.resume,
        one.session.accept,
        one.tree.choose,
        one.tree.fork,
        lambda turn_id: one.tree.edit(turn_id, "Better."),
        one.tree.hide,
        one.tree.show,
        one.tree.variants,
    ]
    before = counts(one.url)
    for turn_id in ("no-such-turn", foreign, strange):
        for door in doors:
            with pytest.raises(NotFoundError) as failure:
                door(turn_id)
            assert (failure.value.kind, failure.value.key, failure.value.ambiguous) == ("turn", turn_id, False)
    assert counts(one.url) == before


def test_what_cannot_be_done(opened: Callable[..., Stage]) -> None:
    """A complete turn is neither retried nor accepted; an unanswered one is not stood on nor edited."""
    one = opened("One.", REFUSED, "Two is a longer reply.")
    with pytest.raises(InvalidInputError):
        one.session.regenerate()
    with pytest.raises(InvalidInputError):
        one.tree.undo()
    assert one.tree.branches() == []
    first = one.session.send("Well?")
    with pytest.raises(ChatRequestError) as failure:
        one.session.send("And?")
    failed = failure.value.turn_id
    part = cut(one.session.stream("So?"))
    before = counts(one.url)
    for door in (one.session.retry, one.session.accept):
        with pytest.raises(InvalidInputError, match="completed"):
            door(first.id)
    with pytest.raises(InvalidInputError, match="no text"):
        one.session.resume(failed)
    for turn_id in (failed, part.id):
        for name in ("choose", "fork", "hide", "show"):
            with pytest.raises(InvalidInputError):
                getattr(one.tree, name)(turn_id)
        with pytest.raises(InvalidInputError):
            one.tree.edit(turn_id, "Better.")
    for words in ("", " \n", "\x00", "x" * 2_000_000):
        with pytest.raises(InvalidInputError):
            one.tree.edit(first.id, words)
    with pytest.raises(InvalidInputError):
        one.session.regenerate(hint=" ")
    assert counts(one.url) == before


def test_while_a_turn_runs(opened: Callable[..., Stage]) -> None:
    """While a turn runs on the head the head does not move and that turn is let be; nothing is written meanwhile."""
    one = opened("One.", "Two is a longer reply.")
    first = one.session.send("Well?")
    with one.session.stream("And?") as reply:
        before = counts(one.url)
        doors: list[Callable[[], Any]] = [
            one.tree.rewind,
            one.tree.undo,
            lambda: one.tree.edit(first.id, "Better."),
            lambda: one.session.regenerate(first.id),
            one.session.retry,
            one.session.resume,
            lambda: one.session.retry(reply.turn_id),
            lambda: one.session.resume(reply.turn_id),
            lambda: one.session.accept(reply.turn_id),
            lambda: one.tree.choose(reply.turn_id),
            lambda: one.tree.hide(reply.turn_id),
            lambda: one.tree.edit(reply.turn_id, "Better."),
        ]
        for door in doors:
            with pytest.raises(ConflictError) as failure:
                door()
            assert failure.value.turn_id == reply.turn_id
        one.tree.hide(first.id)
        one.tree.show(first.id)
        assert [turn.id for turn in one.tree.branches()] == [first.id]
        assert counts(one.url) == before
        list(reply)
    assert one.said() == ["Well?", "One.", "And?", "Two is a longer reply."]


def test_many_at_once(opened: Callable[..., Stage]) -> None:
    """Threads that choose, rewind, undo and edit at once take turns: each move begins where the one before it ended."""
    one = opened(*"abcdef", greetings=("Hello.", "Hi."))
    turns = [one.session.send(line) for line in "ABC"]
    other = through(one.session.regenerate())
    tips = [turns[0].id, turns[2].id, other.id]

    def wander(number: int) -> None:
        for step in range(6):
            match (number + step) % 4:
                case 0:
                    one.tree.choose(tips[step % 3])
                case 1:
                    one.tree.undo()
                case 2:
                    one.tree.edit(other.id, f"{number} {step}")
                case _:
                    one.tree.fork(turns[0].id)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(wander, range(4)))
    path = moves(one.url, one.session.id)
    assert path[0][0] is None
    assert all(move[0] == before[1] for before, move in pairwise(path))
    assert path[-1][1] == one.session.info().head_seq
    assert one.rp.doctor() == []
    assert len(one.tree.variants(other.id)) == 2 + 6


def test_undo_at_once(opened: Callable[..., Stage]) -> None:
    """Of many undos at once, each takes back another move."""
    one = opened(*"abcdefgh")
    turns = [one.session.send(line) for line in "ABCDEFGH"]
    with ThreadPoolExecutor(6) as pool:
        went = list(pool.map(lambda _: one.tree.undo().id, range(6)))
    assert sorted(went) == sorted(turn.id for turn in turns[1:7])
    assert one.said() == ["A", "a", "B", "b"]


@contextmanager
def written() -> Iterator[list[tuple[str, int]]]:
    """Collect every statement that runs, with the number of rows that it wrote."""
    seen: list[tuple[str, int]] = []

    def look(_c: Connection, cursor: Any, sql: str, *_rest: object) -> None:
        writes = sql.lstrip().startswith(("INSERT", "UPDATE", "DELETE"))
        seen.append((sql, cursor.rowcount if writes else 0))

    event.listen(Engine, "after_cursor_execute", look)
    yield seen
    event.remove(Engine, "after_cursor_execute", look)


def lengthen(url: str, session_id: str, turns: int) -> None:
    """Give a new session a history of so many turns, as sends would have."""
    database = Database.open(url)
    row = table(SessionRow).c
    born = select(row.created_at).where(row.id == session_id, row.tenant == "default")
    at = database.read(lambda db: db.execute(born).scalar())
    plain = {"session_id": session_id, "tenant": "default", "created_at": at}
    common = {"moves_head": True, "kind": "reply", "ordinal": 1, "speaker": 1, "revision": 1, "attempt": 1}
    new_turns = [
        plain
        | common
        | {"seq": n, "id": f"turn-{n}", "parent_turn": n - 1 or None, "from_head": 2 * n - 2 or None, "round": n}
        | {"status": "completed", "human_seq": 2 * n - 1, "reply_seq": 2 * n, "ended_at": at}
        for n in range(1, turns + 1)
    ]
    messages = [
        plain
        | {"seq": n, "parent_seq": n - 1 or None, "turn_seq": (n + 1) // 2, "role": role, "seat": seat, "name": name}
        | {"text": f"Line {n}", "tokens": 3, "counter": "estimate-1", "depth": n, "human_ordinal": (n + 1) // 2}
        | {"model_ordinal": n // 2, "repaired": False, "hidden": False}
        for n in range(1, 2 * turns + 1)
        for role, seat, name in [("user", 2, "User") if n % 2 else ("assistant", 1, "Huang")]
    ]
    head = {"head_seq": 2 * turns, "last_seq": 2 * turns, "last_turn": turns}
    session = table(SessionRow)

    def work(db: Connection) -> None:
        for start in range(0, turns, 200):
            db.execute(insert(table(TurnRow)), new_turns[start : start + 200])
        for start in range(0, 2 * turns, 200):
            db.execute(insert(table(MessageRow)), messages[start : start + 200])
        db.execute(session.update().where(session.c.id == session_id, session.c.tenant == "default").values(**head))

    database.write(work)
    database.close()


def test_every_operation_costs_the_same(opened: Callable[..., Stage]) -> None:
    """After 10 turns and after 1,000, each operation runs the same statements and writes the same few rows."""
    one = opened(budget_tokens=400)
    one.model.usage = False  # nothing is learned that would be merged at one operation and not at another
    costs = []
    for length in (10, 1_000):
        session = one.rp.sessions.create(cast=[one.rp.personas.put(Persona("Huang", key="huang"))])
        lengthen(one.url, session.id, length)
        costs.append(cost_of_everything(one.model, session, f"turn-{length // 2}"))
    short, long = costs
    for name, (statements, rows) in long.items():
        assert (statements, rows) == short[name], name
        assert rows <= ROWS_LIMIT, name


def cost_of_everything(model: ScriptedModel, session: Any, old: str) -> dict[str, tuple[int, int]]:
    """How many statements each operation runs and how many rows it writes; ``old`` is a turn amid history."""
    last = session.send("So that the sheet is known.")
    part = [cut_short(model, session) for _ in range(3)]
    operations: dict[str, Callable[[], Any]] = {
        "send": lambda: session.send("Next?"),
        "regenerate": lambda: through(session.regenerate(last.id)),
        "regenerate an old one": lambda: through(session.regenerate(old)),
        "choose": lambda: session.tree.choose(last.id),
        "edit": lambda: session.tree.edit(last.id, "Better."),
        "edit an old one": lambda: session.tree.edit(old, "Better."),
        "fork": lambda: session.tree.fork(old),
        "undo": session.tree.undo,
        "rewind": lambda: session.tree.rewind(2),
        "hide": lambda: session.tree.hide(old),
        "show": lambda: session.tree.show(old),
        "variants": lambda: session.tree.variants(old),
        "branches": session.tree.branches,
        "accept": lambda: session.accept(part[0]),
        "retry": lambda: through(session.retry(part[1])),
        "resume": lambda: through(session.resume(part[2])),
    }
    cost = {}
    for name, work in operations.items():
        with written() as seen:
            work()
        cost[name] = len(seen), sum(rows for _, rows in seen)
    return cost


def cut_short(model: ScriptedModel, session: Any) -> str:
    """Let a reply be cut off and give the turn's id."""
    model.say("A reply that is cut off.")
    return str(cut(session.stream("Well?")).id)

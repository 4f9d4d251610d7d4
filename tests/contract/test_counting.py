"""A session whose counter is changed goes on at once, and its counts follow between turns, without counting twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

import roleplay
from roleplay import (
    Counter,
    Endpoint,
    EstimatingCounter,
    InvalidInputError,
    Persona,
    SessionSettings,
    TokenizerCounter,
)
from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel
from roleplay.turns import calibrating
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
FILE = Path(__file__).parents[1] / "data" / "tokenizers" / "small_bpe.json"
BUDGET = SessionSettings(budget_tokens=600)
HUANG = Persona("Huang", "A ferryman who rows {{user}} over.")
LIMIT = 60


class Tally:
    """Counts as another counter does, and remembers what it counted, and how many transactions were open then."""

    def __init__(self, counter: Counter, under_way: Callable[[], int] = lambda: 0) -> None:
        self.name = counter.name
        self.exact = counter.exact
        self.counted: list[str] = []
        self.transactions = 0
        self._counter = counter
        self._under_way = under_way

    def count(self, text: str) -> int:
        self.counted.append(text)
        self.transactions = max(self.transactions, self._under_way())
        return self._counter.count(text)


def exact(under_way: Callable[[], int] = lambda: 0) -> Tally:
    """An exact counter that remembers."""
    return Tally(TokenizerCounter.from_file(FILE), under_way)


def silent(scripted: Scripted) -> ScriptedModel:
    """A model that reports no tokens, so that counts are taken as they are."""
    model = scripted()
    model.usage = False
    return model


def line(number: int) -> str:
    """A line that no other is like."""
    return f"{number}. The ferryman looked at the river and then at the sky. 船夫看了看河水，又看了看天色。"


def begun(url: str, model: ScriptedModel, turns: int = 7) -> str:
    """A session that was spoken in with the estimator; its history fits the window."""
    with Roleplay.open(url, model=MODEL, chat=model, settings=BUDGET) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(HUANG)])
        for number in range(turns):
            session.send(line(number))
        assert session.report().counter == "estimate-1"
        assert session.report().window_start == 1
        return str(session.id)


def say_until_the_window_moved(session: Any) -> int:
    """Speak until an epoch begins; gives the number of the next line."""
    for number in range(100, 100 + LIMIT):
        session.send(line(number))
        if session.report().new_epoch:
            return number + 1
    raise AssertionError("the window never moved")


def rows(url: str, session_id: str) -> dict[int, tuple[str, int, str]]:
    """Text, tokens and counter of every message, by number."""
    database = Database.open(url)
    sql = text("SELECT seq, text, tokens, counter FROM roleplay_messages WHERE tenant = 'default' AND session_id = :id")
    found = database.read(lambda db: db.execute(sql, {"id": session_id}).all())
    database.close()
    return {row[0]: (row[1], row[2], row[3]) for row in found}


def test_a_counter_is_changed_and_counts_follow(database_url: str, scripted: Scripted) -> None:
    """Turns go on at once by the counts that are there; after the window has moved, what it kept is counted anew."""
    model = silent(scripted)
    session_id = begun(database_url, model)
    counter = exact()
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=counter) as rp:
        session = rp.sessions.get(session_id)
        session.send(line(50))
        first = session.report()
        assert (first.counter, first.counting, first.foreign_counts) == (counter.name, "estimated", 14)
        number = say_until_the_window_moved(session)
        moved = session.report()
        assert (moved.counting, moved.foreign_counts > 0) == ("estimated", True)
        foreign = {seq for seq, row in rows(database_url, session_id).items() if row[2] == "estimate-1"}
        assert foreign == set(range(1, 15))
        session.send(line(number))
        after = session.report()
        assert (after.counting, after.foreign_counts, after.counter) == ("exact", 0, counter.name)
        assert after.window_start == moved.window_start
        stored = rows(database_url, session_id)
        inside = {seq: row for seq, row in stored.items() if seq >= after.window_start}
        assert {row[2] for row in inside.values()} == {counter.name}
        assert all(tokens == counter.count(words) for words, tokens, _ in inside.values())
        assert {row[2] for seq, row in stored.items() if seq < moved.window_start} == {"estimate-1"}
        for again in range(number + 1, number + 20):
            session.send(line(again))
            assert session.report().counting == "exact"
        assert len(list(rp.replay.verify())) == len(model.bodies)
        calls = [call for turn in session.turns(limit=100) for call in turn.calls]
        assert [rp.replay.request(session_id, call.id) for call in calls] == model.bodies


def test_no_old_line_is_counted_in_a_turn(database_url: str, scripted: Scripted) -> None:
    """A turn counts its own lines; old ones are counted once, in the turn after the window moved."""
    model = silent(scripted)
    session_id = begun(database_url, model)
    counter = exact()
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=counter) as rp:
        session = rp.sessions.get(session_id)
        session.send(line(50))  # the persona's sheet and all names are counted with the first
        due, recounts = foreign_after_a_move(database_url, session, counter), 0
        for number in range(200, 200 + LIMIT):
            old = {row[0] for row in rows(database_url, session_id).values()}
            counter.counted.clear()
            turn = session.send(line(number))
            again = [words for words in counter.counted if words in old]
            own = [words for words in counter.counted if words not in old]
            assert sorted(own) == sorted([turn.human.text, turn.reply.text])
            assert sorted(again) == due
            recounts += bool(due)
            due = foreign_after_a_move(database_url, session, counter)
        assert recounts == 1


def foreign_after_a_move(url: str, session: Any, counter: Counter) -> list[str]:
    """The lines in the window that another counter counted, where the last turn moved it."""
    report = session.report()
    inside = [row for seq, row in rows(url, str(session.id)).items() if seq >= report.window_start]
    return sorted(words for words, _, who in inside if report.new_epoch and who != counter.name)


def test_many_lines_are_counted_a_part_at_a_time(
    database_url: str, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a turn counts anew is bounded; the turns after it go on with the rest, the newest lines first."""
    monkeypatch.setattr(calibrating, "RECOUNT_LIMIT", 1)
    model = silent(scripted)
    session_id = begun(database_url, model)
    counter = exact()
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=counter) as rp:
        session = rp.sessions.get(session_id)
        number = say_until_the_window_moved(session)
        left = [session.report().foreign_counts]
        assert left[0] > 2
        while left[-1]:
            session.send(line(number))
            number += 1
            left.append(session.report().foreign_counts)
        assert [before - 1 for before in left[:-1]] == left[1:]
        assert session.report().counting == "exact"


def test_lines_are_counted_outside_of_transactions(database_url: str, scripted: Scripted) -> None:
    """No transaction is open while a turn counts, and what was counted anew is written in one of its own."""
    model = silent(scripted)
    session_id = begun(database_url, model)
    with transactions() as (under_way, done):
        counter = exact(under_way)
        with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=counter) as rp:
            session = rp.sessions.get(session_id)
            for number in range(20):
                session.send(line(number))
        assert counter.transactions == 0
        recounts = [one for one in done if any(sql.startswith("UPDATE roleplay_messages SET tokens") for sql in one)]
        assert [len(one) for one in recounts] == [1]


@contextmanager
def transactions() -> Iterator[tuple[Callable[[], int], list[list[str]]]]:
    """Gives how many transactions are open, and the statements of each that was committed."""
    under_way: dict[Any, list[str]] = {}
    done: list[list[str]] = []

    def begin(connection: Any) -> None:
        under_way[connection] = []

    def look(connection: Any, _cursor: Any, sql: str, *_rest: object) -> None:
        under_way[connection].append(sql)

    def commit(connection: Any) -> None:
        done.append(under_way.pop(connection))

    def rollback(connection: Any) -> None:
        under_way.pop(connection)

    watched = {"begin": begin, "before_cursor_execute": look, "commit": commit, "rollback": rollback}
    for name, listener in watched.items():
        event.listen(Engine, name, listener)
    try:
        yield (lambda: len(under_way)), done
    finally:
        for name, listener in watched.items():
            event.remove(Engine, name, listener)


def test_what_is_hidden_meanwhile_is_counted_too(database_url: str, scripted: Scripted) -> None:
    """A turn that is hidden between the move of the window and the turn after it is counted when it is shown again."""
    model = silent(scripted)
    session_id = begun(database_url, model)
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=exact()) as rp:
        session = rp.sessions.get(session_id)
        number = say_until_the_window_moved(session)
        assert session.report().foreign_counts == 4
        old = session.turn(6)
        session.tree.hide(old.id)
        session.send(line(number))
        assert session.report().counting == "exact"
        session.tree.show(old.id)
        session.send(line(number + 1))
        assert session.report().counting == "exact"


def test_what_was_stepped_back_over_is_no_obstacle(database_url: str, scripted: Scripted) -> None:
    """When the turn that moved the window is left behind, what it kept is counted, and the path goes on from before."""
    model = silent(scripted)
    session_id = begun(database_url, model)
    counter = exact()
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=counter) as rp:
        session = rp.sessions.get(session_id)
        number = say_until_the_window_moved(session)
        start = session.report().window_start
        session.tree.rewind(1)
        session.send(line(number))
        stored = rows(database_url, session_id)
        assert {row[2] for seq, row in stored.items() if seq >= start} == {counter.name}
        assert {row[2] for seq, row in stored.items() if seq < start} == {"estimate-1"}
        session.send(line(say_until_the_window_moved(session)))
        assert session.report().counting == "exact"


def test_older_lines_come_back_with_their_old_counts(database_url: str, scripted: Scripted) -> None:
    """Who goes back to before the window, or shows what was hidden while it moved, goes on by the counts of then."""
    model = silent(scripted)
    session_id = begun(database_url, model)
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=exact()) as rp:
        session = rp.sessions.get(session_id)
        first, hidden = session.turn(1), session.turn(6)
        session.tree.hide(hidden.id)
        session.send(line(say_until_the_window_moved(session)))
        assert session.report().counting == "exact"
        session.tree.fork(first.id)
        session.send(line(400))
        assert (session.report().counting, session.report().foreign_counts) == ("estimated", 2)
        session.tree.show(hidden.id)
        session.tree.fork(hidden.id)
        session.send(line(401))
        assert (session.report().counting, session.report().foreign_counts) == ("estimated", 12)
        session.send(line(say_until_the_window_moved(session)))
        assert session.report().counting == "exact"


@pytest.mark.parametrize("counter", [EstimatingCounter(), TokenizerCounter.from_file(FILE)], ids=lambda one: one.name)
def test_no_request_is_over_its_budget(database_url: str, scripted: Scripted, counter: Counter) -> None:
    """Whichever counter is in force, and after a change by the counts in force: nothing sent exceeds the budget."""
    model = silent(scripted)
    session_id = begun(database_url, model)
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=counter) as rp:
        session = rp.sessions.get(session_id)
        for number in range(40):
            session.send(line(number) + " The water is high tonight." * (number % 5))
            report = session.report()
            assert report.prompt_tokens <= 600
            if report.foreign_counts == 0:
                told = sum(counter.count(message["content"]) for message in model.requests[-1]["messages"])
                assert told < report.prompt_tokens
        assert report.foreign_counts == 0


def test_counts_of_another_counter_teach_nothing(database_url: str, scripted: Scripted) -> None:
    """What a service reports of a prompt that was partly counted by another says nothing of the counter in force."""
    model = scripted()
    session_id = begun(database_url, model, turns=2)
    counter = exact()

    def learned(rp: Any) -> int:
        return sum(one.observations for one in rp.calibrations() if one.counter == counter.name)

    with Roleplay.open(database_url, model=MODEL, chat=model, settings=BUDGET, counter=counter) as rp:
        session = rp.sessions.get(session_id)
        told = []
        for number in range(2, 2 + LIMIT):
            session.send(line(number))
            told.append(session.report().foreign_counts == 0)
            assert learned(rp) == sum(told)
        assert told == sorted(told)
        assert 0 < sum(told) < len(told)


def test_a_name_that_no_row_has_room_for_is_refused(database_url: str, scripted: Scripted) -> None:
    """It would stand beside every count."""
    counter = exact()
    counter.name = "n" * 33
    database = Database.open(database_url)
    with pytest.raises(InvalidInputError, match=r"counter\.name"):
        roleplay.Roleplay(database, scripted(), endpoint=MODEL, counter=counter)
    database.close()


def test_a_view_counts_as_its_engine(database_url: str, scripted: Scripted) -> None:
    """The counter is the engine's, for every tenant."""
    counter = exact()
    with Roleplay.open(database_url, model=MODEL, chat=scripted(), counter=counter) as rp:
        shop = rp.for_tenant("shop")
        session = shop.sessions.create(cast=[shop.personas.put(HUANG)])
        session.send(line(1))
        assert (session.report().counter, session.report().counting) == (counter.name, "exact")

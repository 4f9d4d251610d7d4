"""Several seats that the model plays: each keeps its own state along the path, and what is drawn goes with variants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, text

from roleplay import ChatSession, Endpoint, Participant, Persona, PlayedBy, Roleplay, SessionSettings, TurnOptions
from roleplay.domain.conversation import SessionInfo, Turn
from roleplay.errors import InvalidInputError
from roleplay.store.access.database import Database
from roleplay.store.records import sessions
from roleplay.store.records import turns as store
from roleplay.store.records.new_rows import CallerFields
from roleplay.store.records.path_states import SHARED, SeatState, read_map, read_state
from roleplay.testing import ScriptedModel
from roleplay.turns.basis import Basis, NewLine, of_new_line, of_no_line
from roleplay.turns.claim import claim_of
from roleplay.turns.effects import Operation, read, write
from roleplay.turns.plan import Plan, ReplyOptions, plan
from roleplay.turns.reply import Reply
from roleplay.turns.scope import RenderedRevision, render_revision, speaking_seat

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
ANNA, HUMAN, BERT = 1, 2, 3
LINE = "And then, when the water was higher than the reeds, what became of the ferry and of those who waited for it?"
EXAMPLES = [f"{{{{user}}}}: Of {word}?\n{{{{char}}}}: Of {word}, {'and so on ' * 6}." for word in ("a", "b", "c", "d")]


class Table(NamedTuple):
    """A session in which the model plays Anna at seat 1 and Bert at seat 3."""

    rp: Roleplay
    session: ChatSession
    model: ScriptedModel
    plans: list[Plan]

    @property
    def database(self) -> Database:
        return self.rp._runtime.database

    def speak(self, seat: int, line: str | None = None) -> Turn:
        """Let a seat speak, to a new line or unasked."""
        turn: Turn = self.rp._runtime.run(self._operation(seat, line))
        return turn

    def _operation(self, seat: int, line: str | None) -> Operation:
        scope = self.session._scope
        position = yield from read("position", lambda db: sessions.position(db, scope.tenant, scope.session_id, seat))
        known: RenderedRevision = yield from render_revision(scope, position.revision)
        said = NewLine(line or "", known.humans[0])
        basis: Basis = of_no_line(position, seat) if line is None else of_new_line(scope, position, seat, said)
        made = yield from plan(scope, basis, speaking_seat(known, seat), ReplyOptions(), stream=False)
        self.plans.append(made)
        claim, at = claim_of(scope, made, CallerFields()), scope.ports.now()
        yield from write("claim", lambda db: store.claim(db, scope.tenant, scope.session_id, claim, at, now=at))
        return (yield from Reply(scope, made, claim, at).run())

    def states(self) -> dict[tuple[int, int], SeatState | None]:
        """The path states there are, by turn and seat."""
        rows = self.rows("SELECT seq, seat, state FROM roleplay_path_states")
        return {(seq, seat): read_state(state) for seq, seat, state in rows}

    def maps(self) -> dict[int, dict[int, int]]:
        """Which turn wrote each seat's state last, by turn."""
        return {seq: read_map(states) for seq, states in self.rows("SELECT seq, states FROM roleplay_turns")}

    def rows(self, sql: str) -> list[Any]:
        whole = f"{sql} WHERE session_id = '{self.session.id}' AND tenant = 'default' ORDER BY 1"
        return self.database.read(lambda db: list(db.execute(text(whole))))

    def change(self, sql: str) -> None:
        whole = f"{sql} AND session_id = '{self.session.id}' AND tenant = 'default'"
        self.database.write(lambda db: db.execute(text(whole)))

    def position(self, seat: int | None = None) -> sessions.Position:
        return self.database.read(lambda db: sessions.position(db, "default", self.session.id, seat))


@pytest.fixture
def table(database_url: str, scripted: Scripted) -> Iterator[Table]:
    """Anna and Bert, who have different things to say of themselves."""
    model = scripted()
    model.usage = False
    settings = SessionSettings(budget_tokens=700)
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=settings, migrate="auto") as rp:
        anna = rp.personas.put(Persona("Anna", "A captain of few words.", key="anna"))
        bert = rp.personas.put(Persona("Bert", "A cook. " + "He talks of soup. " * 40, key="bert"))
        template = rp.sessions.create(cast=[anna]).info()
        guest = Participant(
            seat=BERT,
            played_by=PlayedBy.MODEL,
            display_name="Bert",
            persona_id=bert.id,
            persona_version=bert.version,
            order=BERT,
        )
        info = SessionInfo(**{**dict(template), "id": "01a-two-at-a-table", "cast": (*template.cast, guest)})

        def work(db: Connection) -> None:
            sessions.create(db, "default", info, messages=0)

        rp._runtime.database.write(work)
        yield Table(rp, rp.sessions.get(info.id), model, [])


def test_the_one_asked_about_speaks(table: Table) -> None:
    """A plan names the seat that was asked about; the request is that persona's, the others' lines are users' in it."""
    first = table.speak(ANNA, "Who are you?")
    second = table.speak(BERT)
    third = table.speak(ANNA, "And now?")
    assert [one.speaker.seat for one in table.plans] == [ANNA, BERT, ANNA]
    assert [(one.reply.seat, one.reply.name) for one in (first, second, third) if one.reply] == [
        (ANNA, "Anna"),
        (BERT, "Bert"),
        (ANNA, "Anna"),
    ]
    of_anna, of_bert, again = (json.loads(body)["messages"] for body in table.model.bodies)
    assert "captain" in of_anna[0]["content"]
    assert "cook" in of_bert[0]["content"]
    assert [one["role"] for one in of_bert] == ["system", "user"]
    assert of_bert[1]["content"] == "User: Who are you?\n\nAnna: You said: User: Who are you?"
    assert [one["role"] for one in again] == ["system", "user", "assistant", "user"]
    assert again[2] == {"role": "assistant", "name": "Anna", "content": "You said: User: Who are you?"}


def test_a_turn_of_one_seat_keeps_the_others_state(table: Table) -> None:
    """A change of one seat writes one row and one entry of the map; the window of each is its own, and moves alone."""
    for number in range(12):
        table.speak(ANNA if number % 3 else BERT, f"{number}. {LINE}")
    states, maps = table.states(), table.maps()
    windows = {
        seat: {state.window_start for (_, one), state in states.items() if one == seat and state} for seat in (1, 3)
    }
    assert all(len(found) > 1 for found in windows.values())
    assert windows[ANNA] != windows[BERT]
    before: dict[int, int] = {}
    for seq, named in maps.items():
        seat = ANNA if (seq - 1) % 3 else BERT
        others = {one: turn for one, turn in named.items() if one not in {seat, SHARED}}
        assert others == {one: turn for one, turn in before.items() if one not in {seat, SHARED}}
        assert named[seat] in {seq, before.get(seat)}
        assert ((seq, seat) in states) == (named[seat] == seq)
        before = named
    fronts = {seat: {state.front for (_, one), state in states.items() if one == seat and state} for seat in (1, 3)}
    assert not fronts[ANNA] & fronts[BERT]
    assert table.rp.doctor() == []


def test_each_finds_its_own_state_again(table: Table) -> None:
    """Along any path: after turns of the other, after a fork, a rewind and beside a variant."""
    table.speak(ANNA, LINE)
    second = table.speak(BERT, LINE)
    for _ in range(5):
        table.speak(ANNA, LINE)
    late = {seat: table.position(seat).state for seat in (ANNA, BERT)}
    assert read_state(late[ANNA]) == table.states()[table.maps()[7][ANNA], ANNA]
    assert read_state(late[BERT]) == table.states()[2, BERT]
    table.session.tree.fork(second.id)
    assert read_state(table.position(ANNA).state) == table.states()[1, ANNA]
    table.speak(BERT, "On another branch.")
    assert table.plans[-1].basis.inherited.begun
    assert (8, BERT) not in table.states()
    table.session.tree.undo()
    table.session.tree.undo()
    assert {seat: table.position(seat).state for seat in (ANNA, BERT)} == late


def test_who_answered_answers_again(table: Table) -> None:
    """A variant and another attempt are their turn's speaker's, whosever turn it would be; an edit keeps its words'."""
    table.speak(ANNA, "Who are you?")
    asked = table.speak(BERT, "And you?")
    with table.session.regenerate(asked.id) as other:
        list(other)
    assert other.turn.reply is not None
    assert (other.turn.reply.seat, other.turn.reply.name) == (BERT, "Bert")
    edited = table.session.tree.edit(asked.id, "I am the cook.")
    assert edited.reply is not None
    assert edited.reply.name == "Bert"
    assert [table.maps()[seq] for seq in (2, 3, 4)] == [
        {SHARED: 2, ANNA: 1, BERT: 2},
        {SHARED: 3, ANNA: 1, BERT: 3},
        {SHARED: 2, ANNA: 1, BERT: 2},
    ]
    with pytest.raises(InvalidInputError, match=r"1 \(Anna\), 3 \(Bert\)"):
        table.session.add("I say so.", speaker="model")
    assert table.session.add("I say so.", speaker=BERT).reply.name == "Bert"  # type: ignore[union-attr]
    asked = table.session.add("And what says Anna?")
    with table.session.regenerate(asked.id) as other:
        list(other)
    assert other.turn.reply.name == "Anna"  # type: ignore[union-attr]
    assert table.position().seat == ANNA


def test_all_share_seat_0(table: Table) -> None:
    """What a turn hands on for all is read by every seat's turns, and kept by them."""
    table.speak(ANNA, LINE)
    table.speak(BERT)
    table.speak(BERT)
    table.speak(ANNA, LINE)
    in_turn = [SeatState(last=ANNA, spoken=(ANNA,)), SeatState(last=BERT, spoken=(ANNA, BERT))]
    assert [one.basis.shared for one in table.plans] == [None, in_turn[0], in_turn[1], in_turn[1]]
    assert table.maps()[3] == {SHARED: 2, ANNA: 1, BERT: 2}
    assert read_state(table.position().shared) == in_turn[0]
    assert table.rp.doctor() == []


def test_damage_to_one_state_is_of_no_other(table: Table) -> None:
    """The doctor names it; mended, that seat alone begins anew."""
    table.speak(ANNA, LINE)
    table.speak(BERT, LINE)
    whole = table.states()
    table.change("UPDATE roleplay_path_states SET state = '[5]' WHERE seq = 2 AND seat = 3")
    assert [(one.kind, one.seq) for one in table.rp.doctor(repair=True)] == [("unreadable path state", 2)]
    assert table.states() == whole | {(2, BERT): None}
    table.change("DELETE FROM roleplay_path_states WHERE seq = 2 AND seat = 3")
    assert [(one.kind, one.seq) for one in table.rp.doctor(repair=True)] == [("missing path state", 2)]
    assert table.maps()[2] == {SHARED: 2, ANNA: 1}
    table.change("UPDATE roleplay_turns SET states = '[]' WHERE seq = 2")
    assert [(one.kind, one.seq, one.mended) for one in table.rp.doctor(repair=True)] == [
        ("unreadable path state", 2, True)
    ]
    assert table.maps() == {1: {SHARED: 1, ANNA: 1}, 2: {}}
    assert table.speak(BERT, LINE).reply
    assert table.rp.doctor() == []


def drawn(database: Database, session: ChatSession) -> list[Any]:
    """What each turn of a session drew, as it is stored."""
    sql = f"SELECT draws FROM roleplay_turns WHERE session_id = '{session.id}' AND tenant = 'default' ORDER BY seq"
    return [row[0] for row in database.read(lambda db: db.execute(text(sql)).all())]


def test_a_variant_has_the_draws_of_the_one_beside_it(database_url: str, scripted: Scripted) -> None:
    """What was drawn is stored with the turn that drew it; a variant and an attempt draw it not again, from whatever
    seed; a later turn draws for the message that it answers."""
    model = scripted()
    model.usage = False
    random = SessionSettings(budget_tokens=400, examples="random")
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=random, migrate="auto") as rp:
        database = rp._runtime.database
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman.", examples=EXAMPLES))])
        first = session.send(LINE)
        [once] = drawn(database, session)
        assert sorted(json.loads(once)["examples"]["1"]) == [0, 1, 2, 3]
        front = json.loads(model.bodies[-1])["messages"][:-1]
        for seed in range(4):
            session.update(settings=SessionSettings(seed=seed))
            with session.regenerate(first.id) as reply:
                list(reply)
            assert json.loads(model.bodies[-1])["messages"][:-1] == front
        edited = session.tree.edit(first.id, "As you wish.")
        with session.regenerate(edited.id) as reply:
            list(reply)
        assert drawn(database, session) == [once] * 7
        for _ in range(8):
            session.send(LINE)
        later = drawn(database, session)[7:]
        assert None in later
        assert len(set(later) - {None}) > 1
        assert rp.doctor() == []
        damage = "UPDATE roleplay_turns SET draws = '[]' WHERE seq = 1 AND tenant = 'default'"
        database.write(lambda db: db.execute(text(damage)))
        assert [one.says for one in rp.doctor()] == ["turns.draws holds what is never written there"]


def test_nothing_is_stored_where_nothing_is_drawn(database_url: str, scripted: Scripted) -> None:
    """Policies without chance leave the column empty."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(), migrate="auto") as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman.", examples=EXAMPLES))])
        session.send(LINE, options=TurnOptions())
        with session.regenerate() as reply:
            list(reply)
        assert drawn(rp._runtime.database, session) == [None, None]

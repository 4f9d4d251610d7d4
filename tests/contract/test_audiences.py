"""Nobody's context contains what was not meant for that seat, whatever is done in whatever order, in every dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from roleplay import ChatRequestError, Endpoint, InvalidInputError, Persona, Seat, SessionSettings, TurnOptions
from roleplay.domain.conversation import Turn, TurnStatus
from roleplay.domain.endpoint import Dialect
from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
ANNA, BERT, CORA, DORA, UMA, VIC = 1, 2, 3, 4, 4, 5
MESSAGES = """
SELECT seq, parent_seq, turn_seq, text, audience, revision, hidden FROM roleplay_messages
WHERE tenant = 'default' AND session_id = :session ORDER BY seq
"""
CALLS = """
SELECT c.id, t.seq, t.speaker, t.human_seq, t.parent_turn FROM roleplay_model_calls c
JOIN roleplay_turns t ON t.session_id = c.session_id AND t.seq = c.turn_seq AND t.tenant = c.tenant
WHERE c.tenant = 'default' AND c.session_id = :session
"""
TURNS = """
SELECT seq, human_seq, reply_seq FROM roleplay_turns WHERE tenant = 'default' AND session_id = :session
"""
REVISION = "SELECT revision FROM roleplay_sessions WHERE tenant = 'default' AND id = :session"


class Table:
    """A session of three seats of the model's and two humans, in which every line is another one.

    It keeps who was there under which revision, and reads all messages, so that it can say of any request what must not
    be in it and what must.
    """

    def __init__(self, rp: Any, url: str, model: ScriptedModel, settings: SessionSettings) -> None:
        self.rp, self.model, self.database = rp, model, Database.open(url)
        self._numbers = count(1)
        model.say(*[self._reply] * 200)
        for name in ("Anna", "Bert", "Cora", "Dora"):
            rp.personas.put(Persona(name, f"A traveller called {name}.", key=name.lower()))
        users = [Seat(name="Uma"), Seat(name="Vic")]
        self.session = rp.sessions.create(cast=["anna", "bert", "cora"], users=users, settings=settings)
        self.everything = settings.joiner_sees == "everything"
        self._there: dict[int, set[int]] = {}
        self.note_cast()

    def _reply(self, _messages: list[dict[str, Any]]) -> str:
        return self.words()

    def words(self) -> str:
        """A text that is no part of any other."""
        return f"What is number {next(self._numbers):04}?"

    def rows(self, sql: str) -> Sequence[Any]:
        where = {"session": self.session.id}
        return self.database.read(lambda db: db.execute(text(sql), where).all())

    def note_cast(self) -> None:
        """Note who is here from this revision on."""
        [(revision,)] = self.rows(REVISION)
        self._there[revision] = {one.seat for one in self.session.cast.list()}

    def join(self, who: str) -> int:
        seat: int = self.session.cast.join(who).seat
        self.note_cast()
        return seat

    def leave(self, who: str) -> None:
        self.session.cast.leave(who)
        self.note_cast()

    def send(self, *audience: int, speaker: int = UMA) -> Turn:
        turn: Turn = self.session.send(self.words(), speaker=speaker, options=to(*audience))
        return turn

    def speak(self, seat: int, *audience: int) -> Turn:
        return done(self.session.speak(seat, options=to(*audience)))

    def was_there(self, seat: int, revision: int) -> bool:
        return seat in self._there[max(one for one in self._there if one <= revision)]

    def may_see(self, seat: int, message: Any) -> bool:
        """What the law says, without the code that is to obey it."""
        heard = message.audience is None or str(seat) in message.audience.split(",")
        return heard and (self.everything or self.was_there(seat, message.revision))

    def check(self) -> None:
        """Every request of the session has all lines of its path that its seat may see, and no other line at all."""
        messages = {one.seq: one for one in self.rows(MESSAGES)}
        tips = {one.seq: one.reply_seq or one.human_seq for one in self.rows(TURNS)}
        kept_back = 0
        for call in self.rows(CALLS):
            body = self.rp.replay.request(self.session.id, call.id).decode()
            seq, path = call.human_seq or tips.get(call.parent_turn), set()
            while seq is not None:
                path.add(seq)
                seq = messages[seq].parent_seq
            for one in messages.values():
                seen = self.may_see(call.speaker, one)
                if one.seq in path and not one.hidden and seen:
                    assert one.text in body, (call, one)
                elif one.seq < max(path, default=0) or not seen:
                    assert one.text not in body, (call, one)
                kept_back += one.seq in path and not seen
        assert kept_back, "nothing had to be kept from anybody"


def to(*audience: int) -> TurnOptions:
    return TurnOptions(audience=list(audience) or None)


def done(stream: Any) -> Turn:
    with stream as reply:
        list(reply)
    turn: Turn = stream.turn
    return turn


class Sitting(NamedTuple):
    """Opens tables."""

    url: str
    scripted: Scripted
    opened: list[Any]

    def open(self, dialect: str = "minimax", strategies: Any = None, **settings: Any) -> Table:
        model = self.scripted()
        endpoint = Endpoint("MiniMax-M2.7", dialect=dialect, retry={"first_pause_s": 0})
        rp = Roleplay.open(self.url, model=endpoint, chat=model, strategies=strategies, migrate="auto")
        table = Table(rp.__enter__(), self.url, model, SessionSettings(**{"speaking": "list"} | settings))
        self.opened.append(table)
        return table


@pytest.fixture
def sitting(database_url: str, scripted: Scripted) -> Iterator[Sitting]:
    """Tables; each is checked after its test."""
    one = Sitting(database_url, scripted, [])
    yield one
    try:
        for table in one.opened:
            table.check()
            assert list(table.rp.doctor()) == []
    finally:
        for table in one.opened:
            table.rp.__exit__(None, None, None)
            table.database.close()


@pytest.mark.parametrize("dialect", [one.value for one in Dialect])
def test_a_whisper_is_in_no_request_of_the_others(sitting: Sitting, dialect: str) -> None:
    """Nor is the reply to it, which has its audience; each that hears it hears both."""
    table = sitting.open(dialect)
    table.send()
    whisper = table.send(BERT)
    assert whisper.audience == (BERT, UMA)
    assert whisper.human
    assert whisper.reply
    assert whisper.human.audience == whisper.reply.audience == (BERT, UMA)
    assert whisper.reply.seat == BERT
    for seat in (ANNA, CORA, BERT):
        table.speak(seat)
        table.send(seat, speaker=VIC)
    confided = table.speak(ANNA, CORA)
    assert confided.audience == (ANNA, CORA)
    for seat in (BERT, CORA, ANNA):
        table.speak(seat)
    previewed = table.session.preview(table.words(), speaker="Vic").body.decode()
    assert confided.reply
    assert confided.reply.text in previewed
    assert whisper.reply.text not in previewed


@pytest.mark.parametrize("dialect", [one.value for one in Dialect])
def test_it_stays_so_on_every_path(sitting: Sitting, dialect: str) -> None:
    """After variants, other attempts, forks, rewinds, what was gone on from, and edits."""
    table = sitting.open(dialect)
    session = table.session
    first = table.send()
    whisper = table.send(BERT)
    again = done(session.regenerate(whisper.id))
    assert again.reply
    assert again.reply.audience == again.audience == (BERT, UMA)
    edited = session.tree.edit(again.id, table.words())
    assert edited.reply.audience == edited.audience == (BERT, UMA)
    after = table.speak(ANNA)
    done(session.regenerate(after.id))
    table.model._replies.appendleft(ChatRequestError("no"))
    with pytest.raises(ChatRequestError):
        table.send(CORA)
    retried = done(session.retry())
    assert retried.reply
    assert retried.reply.audience == (CORA, UMA)
    longer = done(session.resume())
    assert longer.reply
    assert longer.reply.audience == (CORA, UMA)
    with session.stream(table.words(), speaker=VIC, options=to(ANNA, CORA)) as stream:
        next(iter(stream))
    assert stream.turn.status is TurnStatus.INTERRUPTED
    resumed = done(session.resume(stream.turn.id))
    assert resumed.reply
    assert resumed.reply.audience == (ANNA, CORA, VIC)
    for seat in (BERT, ANNA):
        table.speak(seat)
    session.tree.fork(whisper.id)
    for seat in (CORA, BERT):
        table.speak(seat)
    session.tree.rewind(2)
    table.speak(ANNA)
    session.tree.undo()
    table.speak(CORA)
    session.tree.fork(first.id)
    table.send(speaker=VIC)
    for refused in (session.regenerate, session.retry, session.resume):
        with pytest.raises(InvalidInputError) as failure:
            done(refused(options=to(ANNA)))
        assert failure.value.field.endswith("audience")


@pytest.mark.parametrize("joiner_sees", ["joining", "everything"])
def test_who_joins_sees_what_the_setting_says(sitting: Sitting, joiner_sees: str) -> None:
    """From joining on, or everything that was said to all; never a whisper."""
    table = sitting.open(joiner_sees=joiner_sees)
    old = table.send()
    table.send(ANNA)
    dora = table.join("dora")
    assert dora > VIC
    table.speak(dora)
    shown = str(table.model.requests[-1]["messages"])
    assert (old.human.text in shown) is (joiner_sees == "everything")  # type: ignore[union-attr]
    table.send(dora, speaker=VIC)
    table.send(BERT)
    # The line is from before, the reply from after: who joined in between sees what was said since, and no more.
    table.session.tree.fork(old.id)
    done(table.session.regenerate(old.id))
    table.speak(dora)
    table.speak(CORA)


@pytest.mark.parametrize("joiner_sees", ["joining", "everything"])
def test_who_leaves_hears_nothing_until_it_is_back(sitting: Sitting, joiner_sees: str) -> None:
    """Old requests are rebuilt as they were; a path from before the leave is seen as far as the seat was there."""
    table = sitting.open(joiner_sees=joiner_sees)
    first = table.send()
    table.send(CORA)
    for _ in range(2):
        table.leave("Cora")
        table.send()
        table.send(BERT)
        with pytest.raises(InvalidInputError):
            table.speak(CORA)
        with pytest.raises(InvalidInputError):
            table.send(CORA)
        assert table.join("cora") == CORA
        table.speak(CORA)
        table.send(CORA)
    table.session.tree.rewind(3)
    table.speak(CORA)
    table.session.tree.fork(first.id)
    table.speak(CORA)
    table.speak(BERT)


def test_a_whispered_round_is_heard_by_who_asked(sitting: Sitting) -> None:
    """Every reply of it has the audience of the first."""
    table = sitting.open(speaking="list")
    table.send()
    with table.session.round(table.words(), speaker=VIC, options=to(ANNA, CORA)) as stream:
        turns = list(stream.turns())
    assert [one.speaker for one in turns] == [ANNA, CORA]
    assert [one.audience for one in turns] == [(ANNA, CORA, VIC)] * 2
    assert [one.reply.audience for one in turns if one.reply] == [(ANNA, CORA, VIC)] * 2
    for seat in (BERT, ANNA):
        table.speak(seat)


def test_said_to_humans_alone_it_is_answered_by_nobody(sitting: Sitting) -> None:
    """It is refused with nothing written; added, no other door lets a seat of the model's answer it."""
    table = sitting.open()
    table.send()
    table.send(BERT)
    before = [len(table.rows(sql)) for sql in (MESSAGES, CALLS, TURNS)], table.session.info().version
    for door in (
        lambda: table.send(VIC),
        lambda: table.session.send(table.words(), speaker="Vic", options=to(VIC)),
        lambda: done(table.session.stream(table.words(), speaker="Uma", options=to(VIC))),
        lambda: done(table.session.round(table.words(), speaker="Uma", options=to(VIC))),
        lambda: done(table.session.speak(options=to(VIC, UMA))),
        lambda: table.session.preview(table.words(), speaker="Uma", options=to(VIC)),
    ):
        with pytest.raises(InvalidInputError) as failure:
            door()
        assert failure.value.field == "audience"
        assert "add()" in str(failure.value)
    assert ([len(table.rows(sql)) for sql in (MESSAGES, CALLS, TURNS)], table.session.info().version) == before
    alone = table.session.add(table.words(), speaker="Uma", options=to(VIC))
    assert alone.audience == (UMA, VIC)
    with pytest.raises(InvalidInputError) as failure:
        done(table.session.regenerate(alone.id))
    assert failure.value.field == "turn_id"
    table.speak(ANNA)


def test_a_line_that_was_added_is_answered_by_who_heard_it(sitting: Sitting) -> None:
    """By the first seat of the model's that may see it, which need not be the session's first."""
    table = sitting.open()
    table.send()
    added = table.session.add(table.words(), speaker="Uma", options=to(CORA))
    answered = done(table.session.regenerate(added.id))
    assert (answered.speaker, answered.audience) == (CORA, (CORA, UMA))
    table.speak(CORA)
    done(table.session.regenerate(answered.id))
    for seat in (ANNA, CORA):
        table.speak(seat)
    dora = table.join("dora")
    late = table.session.add(table.words(), speaker="Uma", options=to(dora))
    table.leave("Dora")
    table.join("dora")
    assert done(table.session.regenerate(late.id)).speaker == dora
    table.leave("Dora")
    with pytest.raises(InvalidInputError) as failure:
        done(table.session.regenerate(late.id))
    assert failure.value.field in {"turn_id", "participant"}


def test_what_was_heard_is_asked_by_todays_rules(sitting: Sitting) -> None:
    """Who joined, saw everything and answered an old line is refused to answer it again once it may not see it."""
    table = sitting.open(joiner_sees="everything")
    old = table.session.add(table.words(), speaker="Uma", options=to(ANNA))
    line = table.session.add(table.words(), speaker="Uma")
    table.join("dora")
    for who in ("Anna", "Bert", "Cora"):
        table.leave(who)
    again = done(table.session.regenerate(line.id))
    assert again.speaker == 6
    table.session.update(settings=SessionSettings(joiner_sees="joining"))
    for turn in (again, line, old):
        with pytest.raises(InvalidInputError) as failure:
            done(table.session.regenerate(turn.id))
        assert failure.value.field == "turn_id"


def test_who_is_next_is_not_told_by_a_whisper(sitting: Sitting) -> None:
    """A strategy is given the newest line only where all who may speak may see it."""
    told: list[str] = []

    def first(moment: Any) -> list[int]:
        told.append(moment.text)
        return [moment.seats[0].seat]

    table = sitting.open(strategies={"spy": first}, speaking="spy")
    said = table.send()
    done(table.session.speak())
    whisper = table.send(BERT, CORA)
    done(table.session.speak())
    table.session.tree.rewind()
    done(table.session.speak(options=to(BERT)))
    assert said.human
    assert said.reply
    assert whisper.human
    assert whisper.reply
    assert told == [said.human.text, said.reply.text, whisper.human.text, "", whisper.reply.text]

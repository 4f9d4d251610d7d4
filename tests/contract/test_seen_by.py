"""Looking at a session as one of its seats: it sees what was said to it while somebody sat there, and nothing else,
through every door; what it says, it says itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roleplay import (
    ChatRequestError,
    ConflictError,
    Endpoint,
    Fact,
    InvalidInputError,
    NotFoundError,
    Persona,
    PlayedBy,
    Seat,
    SessionSettings,
    Turn,
    TurnOptions,
    Verdict,
)
from roleplay.domain.guards import Checked
from roleplay.store.access.database import Database
from roleplay.store.records import transcript
from roleplay.store.records.audience import FOR_EVER, Viewer, may_see
from roleplay.testing import ScriptedModel
from tests.conftest import rows
from tests.house.test_statements import fetched, watched
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})
REFUSED = ChatRequestError("refused", code=2013)
ANNA, BERT, ZOE, MAX = 1, 2, 3, 4
Scripted = Callable[..., ScriptedModel]


def guard(what: Checked) -> Verdict | None:
    """Takes one word out of everything."""
    return Verdict.replace(what.text.replace("damn", "****"), "a word") if "damn" in what.text else None


@dataclass
class Stage:
    """A session with its engine, and what the test knows of it by the rows alone: who was absent when."""

    rp: Any
    session: Any
    database: Database
    everything: bool = False
    present: set[int] = field(default_factory=set)
    absences: dict[int, list[list[int]]] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        return int(self.rows("SELECT revision FROM roleplay_sessions WHERE id = '{id}'")[0][0])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a statement on the session's rows gives."""
        return rows(self.database, sql.replace("{id}", self.session.id))

    def join(self, who: Seat, played_by: PlayedBy) -> int:
        """Seat somebody, and note that the seat was empty until now."""
        seat: int = self.session.cast.join(who, played_by=played_by).seat
        if seat in self.absences and self.absences[seat][-1][1] == FOR_EVER:
            self.absences[seat][-1][1] = self.revision
        else:
            self.absences.setdefault(seat, []).append([1, self.revision])
        self.present.add(seat)
        return seat

    def leave(self, seat: int) -> None:
        """Let somebody leave, and note that the seat is empty from now on."""
        self.session.cast.leave(seat)
        self.absences.setdefault(seat, []).append([self.revision, FOR_EVER])
        self.present.discard(seat)

    def viewer(self, seat: int) -> Viewer:
        """Who looks, as the test knows it."""
        found = [(begin, end) for begin, end in self.absences.get(seat, []) if begin < end]
        return Viewer(seat, tuple(one for one in found if one[1] == FOR_EVER or not self.everything))

    def said(self) -> list[dict[str, Any]]:
        """The session's turns as they are stored."""
        names = ("seq", "id", "parent_turn", "human_seq", "reply_seq", "audience", "revision", "status", "speaker")
        where = "WHERE session_id = '{id}' ORDER BY seq"
        found = self.rows(f"SELECT {', '.join(names)} FROM roleplay_turns {where}")
        return [dict(zip(names, row, strict=True)) for row in found]

    def by_hand(self, seat: int) -> Callable[[Turn], Turn | None]:
        """Shows a turn to a seat, by the predicate and by what is stored: the same turn with less in it, or nothing."""
        viewer = self.viewer(seat)
        turns = {one["id"]: one for one in self.said()}
        found = self.rows("SELECT seq, audience, revision, parent_seq FROM roleplay_messages WHERE session_id = '{id}'")
        heard = {seq for seq, audience, revision, _ in found if may_see(viewer, audience, revision)}
        parents = {seq: parent for seq, _, _, parent in found}

        def is_seen(turn: Turn) -> bool:
            return may_see(viewer, turns[turn.id]["audience"], turns[turn.id]["revision"])

        def numbers(own: dict[str, Any]) -> tuple[int, int]:
            """A turn's place among those that reply at its place, and how many they are."""
            beside = 1, 1
            for one in turns.values():
                same = all(one[name] == own[name] for name in ("human_seq", "parent_turn"))
                if own["human_seq"] is not None:  # the model's added line after it replies, too
                    same = one["reply_seq"] is not None and parents.get(one["reply_seq"]) == own["human_seq"]
                is_seen = may_see(viewer, one["audience"], one["revision"])
                if one is not own and same and is_seen and one["status"] == "completed":
                    beside = beside[0] + (one["reply_seq"] < own["reply_seq"]), beside[1] + 1
            return beside

        def show(turn: Turn) -> Turn | None:
            if not is_seen(turn):
                return None
            human = turn.human if turn.human and turn.human.seq in heard else None
            reply = turn.reply if turn.reply and turn.reply.seq in heard else None
            own = seat == turn.speaker
            known = own or (human is not None and human.seat == seat)
            row = turns[turn.id]
            variant, variants = (1, 1) if row["reply_seq"] is None else numbers(row)
            return turn.model_copy(
                update={
                    "human": human,
                    "reply": reply,
                    "calls": turn.calls if own else (),
                    "metadata": turn.metadata if known else {},
                    "variant": variant,
                    "variants": variants,
                }
            )

        return show

    def check(self, seat: int) -> None:
        """Every door that reads shows a seat what the filter by hand leaves of what there is."""
        view, show, session = self.session.seen_by(seat), self.by_hand(seat), self.session
        path = [one for one in session.iter_turns() if one.status == "completed"]
        shown = [seen for one in path if (seen := show(one))]
        assert [one for one in view.iter_turns() if one.status == "completed"] == shown
        for row in self.said():
            turn = session.turn(row["id"])
            seen = show(turn)
            doors: list[Callable[[], Any]] = [
                lambda row=row: view.turn(row["id"]),
                lambda row=row: view.turn(row["seq"]),
                lambda row=row: view.tree.variants(row["id"]),
                lambda row=row: view.verdicts(row["id"]),
                lambda row=row: view.report(row["id"]),
                lambda row=row: view.follow(row["id"]),
            ]
            if seen is None:
                for door, key in zip(doors, [row["id"], row["seq"], *[row["id"]] * 4], strict=True):
                    with pytest.raises(NotFoundError) as told:
                        door()
                    assert str(told.value) == f"no turn {str(key)!r}"
                continue
            assert doors[0]() == doors[1]() == seen
            beside = [one for other in session.tree.variants(row["id"]) if (one := show(other))]
            assert [plain(one) for one in doors[2]()] == [plain(one) for one in beside]
            replies = [one for one in doors[2]() if one.reply]
            assert [(one.variant, one.variants) for one in replies] == [
                (place, len(replies)) for place in range(1, len(replies) + 1)
            ]
            with doors[5]() as following:
                assert "".join(delta.text for delta in following) == (seen.reply.text if seen.reply else "")
            assert following.turn == seen
        assert [one.id for one in view.tree.branches()] == self.tips(seat)

    def tips(self, seat: int) -> list[str]:
        """The ids of the last turns that a seat sees of each branch, newest first."""
        viewer, said = self.viewer(seat), self.said()
        parents = {one["seq"]: one["parent_turn"] for one in said}
        seen = {one["seq"] for one in said if may_see(viewer, one["audience"], one["revision"])}
        complete = [one for one in said if one["seq"] in seen and one["status"] == "completed"]
        passed: set[int] = set()
        for one in complete:
            before = one["parent_turn"]
            while before is not None:
                passed.add(before)
                before = parents[before]
        return [one["id"] for one in reversed(complete) if one["seq"] not in passed]


def plain(turn: Turn) -> Turn:
    """A turn without its place among variants."""
    return turn.model_copy(update={"variant": 0, "variants": 0})


@pytest.fixture
def stage(database_url: str, scripted: Scripted) -> Iterator[Callable[..., Stage]]:
    """Makes a session in which the model plays Anna and Bert, and Zoe and Max sit."""
    opened: list[Any] = []
    database = Database.open(database_url)

    def make(*replies: object, everything: bool = False, guarded: bool = True, **session: Any) -> Stage:
        engine = Roleplay.open(
            database_url,
            model=MODEL,
            chat=scripted(*replies),
            guards=[guard] if guarded else [],
            keep_originals=True,
            strategies={"first": lambda moment: [moment.seats[0].seat], "all": all_speak},
        )
        rp = engine.__enter__()
        opened.append(engine)
        return begun(rp, database, everything=everything, **session)

    yield make
    for engine in opened:
        engine.__exit__(None, None, None)
    database.close()


def all_speak(moment: Any) -> list[int]:
    """Everybody speaks, in order."""
    return [one.seat for one in moment.seats]


def begun(rp: Any, database: Database, *, everything: bool = False, **session: Any) -> Stage:
    """A new session of the four."""
    for name in ("Anna", "Bert"):
        rp.personas.put(Persona(name, f"{name} keeps an inn.", key=name.lower()))
    how = SessionSettings(speaking="first", joiner_sees="everything" if everything else None)
    made = rp.sessions.create(
        cast=["anna", "bert"],
        users=[Seat(name="Zoe", owner="zoe"), Seat(name="Max", owner="max", aliases=["Maxi"])],
        **{"settings": how, **session},
    )
    return Stage(rp, made, database, everything, {ANNA, BERT, ZOE, MAX})


def to(*seats: int) -> TurnOptions:
    """A whisper."""
    return TurnOptions(audience=seats)


def taken(stream: Any) -> Turn:
    """A reply's turn, once it has ended."""
    with stream as reply:
        list(reply)
    turn: Turn = reply.turn
    return turn


def test_a_seat_sees_what_was_said_to_it(stage: Callable[..., Stage]) -> None:
    """Of public lines and of whispers, in every door that reads; reasons and costs are those of its own turns."""
    one = stage("Open.", "For Zoe, damn.", "For Max.", "To all.")
    session = one.session
    session.send("Good day.", speaker=ZOE, options=TurnOptions(metadata={"from": "zoe"}))
    session.send("A damn secret.", speaker=ZOE, options=to(ANNA))
    session.send("Another.", speaker="Max", options=to("Bert"))
    session.add("It rains.", speaker=MAX, options=to(ZOE))
    session.send("Who is there?", speaker=MAX)
    for seat in (ANNA, BERT, ZOE, MAX):
        one.check(seat)
    said = {seat: [turn.human.text for turn in session.seen_by(seat).turns()] for seat in (ANNA, BERT, ZOE, MAX)}
    assert said == {
        ANNA: ["Good day.", "A **** secret.", "Who is there?"],
        BERT: ["Good day.", "Another.", "Who is there?"],
        ZOE: ["Good day.", "A **** secret.", "It rains.", "Who is there?"],
        MAX: ["Good day.", "Another.", "It rains.", "Who is there?"],
    }
    whisper = session.turn(2)
    assert [verdict.side for verdict in session.verdicts(whisper.id)] == ["human", "reply"]
    assert [verdict.original for verdict in session.seen_by(ZOE).verdicts(whisper.id)] == ["A damn secret."]
    assert [verdict.original for verdict in session.seen_by("anna").verdicts(whisper.id)] == ["For Zoe, damn."]
    assert session.seen_by(ANNA).report(whisper.id) == session.report(whisper.id)
    with pytest.raises(NotFoundError, match="report of turn"):
        session.seen_by(ZOE).report(whisper.id)
    assert session.seen_by(ZOE).turn(1).metadata == {"from": "zoe"}
    assert session.seen_by(MAX).turn(1).metadata == {}
    assert session.seen_by(MAX).turn(1).usage.total_tokens is None


@pytest.mark.parametrize("everything", [False, True])
def test_joins_leaves_and_a_return(stage: Callable[..., Stage], everything: bool) -> None:
    """What was said while nobody sat there is not seen, unless joiners see everything; once left, nothing more is."""
    one = stage(everything=everything)
    session = one.session
    session.send("First.", speaker=ZOE)
    una = one.join(Seat(name="Una", owner="una"), PlayedBy.HUMAN)
    session.send("Second.", speaker=ZOE)
    session.send("Only for Una.", speaker=ZOE, options=to(ANNA, una))
    one.leave(una)
    session.send("Third.", speaker=ZOE)
    view = session.seen_by(una)
    before = ["First."] if everything else []
    assert [turn.human.text for turn in view.turns()] == [*before, "Second.", "Only for Una."]
    with pytest.raises(InvalidInputError, match="has left"):
        view.send("Still here?")
    assert one.join(Seat(name="Una", owner="una"), PlayedBy.HUMAN) == una
    session.send("Fourth.", speaker=ZOE)
    between = ["Third."] if everything else []
    heard = [*before, "Second.", "Only for Una.", *between, "Fourth."]
    assert [turn.human.text for turn in view.turns()] == heard
    one.leave(BERT)
    session.send("Fifth.", speaker=ZOE)
    for seat in (ANNA, BERT, ZOE, una):
        one.check(seat)


def test_a_line_from_before_is_not_shown_with_a_later_variant(stage: Callable[..., Stage]) -> None:
    """A joiner sees the variant that was made since, without the line that it answers, and counts it alone."""
    one = stage("Old.", "New.", "Newest.")
    session = one.session
    first = session.send("Before.", speaker=ZOE)
    una = one.join(Seat(name="Una", owner="una"), PlayedBy.HUMAN)
    second = taken(session.regenerate(first.id))
    assert (second.human.text, second.variant, second.variants) == ("Before.", 2, 2)
    [seen] = session.seen_by(una).turns()
    assert (seen.human, seen.text, seen.variant, seen.variants) == (None, "New.", 1, 1)
    third = taken(session.seen_by(una).regenerate())
    assert (third.human, third.text, third.variant, third.variants) == (None, "Newest.", 2, 2)
    for seat in (ANNA, ZOE, una):
        one.check(seat)


def test_an_edited_whisper_stays_one(stage: Callable[..., Stage]) -> None:
    """Other words for a whispered reply are for the same seats."""
    one = stage("Between us.")
    whisper = one.session.send("Psst.", speaker=ZOE, options=to(ANNA))
    edited = one.session.tree.edit(whisper.id, "Between the two of us.")
    assert edited.audience == edited.reply.audience == (ANNA, ZOE)
    one.check(BERT)
    one.check(ZOE)
    assert list(one.session.seen_by(MAX).turns()) == []


def test_what_is_said_through_the_handle_is_the_seats(stage: Callable[..., Stage]) -> None:
    """It speaks for itself and for nobody else, and what it is given is what it reads afterwards."""
    one = stage(
        "<think>I doubt it.</think>Welcome.",
        "<think>Hm.</think>Again.",
        "Quietly.",
        "Anna's.",
        "I am Anna.",
        guarded=False,
    )
    zoe, anna = one.session.seen_by(ZOE), one.session.seen_by("Anna")
    with zoe.stream("Good day.", options=TurnOptions(metadata={"a": 1})) as reply:
        kinds = {delta.kind.value for delta in reply}
    assert kinds == {"speech"}
    assert reply.turn == zoe.turn(reply.turn_id)
    assert (reply.turn.human.seat, reply.turn.calls, reply.turn.metadata) == (ZOE, (), {"a": 1})
    assert one.session.turn(reply.turn_id).calls[0].reasoning == "I doubt it."
    with one.session.stream("And openly?", speaker=ZOE) as openly:
        assert {delta.kind.value for delta in openly} == {"reasoning", "speech"}
    whisper = zoe.send("Psst.", speaker="zoe", options=to(ANNA))
    assert whisper.audience == (ANNA, ZOE)
    for speaker in (MAX, "Max", ANNA, True, 2.5):
        with pytest.raises(InvalidInputError, match="speaker"):
            zoe.send("As another.", speaker=speaker)
    for speaker in ("narrator", "model", MAX):
        with pytest.raises(InvalidInputError, match="speaker"):
            zoe.add("As another.", speaker=speaker)
    assert zoe.add("I wait.").human.seat == ZOE
    assert taken(zoe.speak(options=to(ANNA))).audience == (ANNA, ZOE)
    with pytest.raises(InvalidInputError, match="participant"):
        anna.speak("Bert")
    spoken = taken(anna.speak())
    assert (spoken.speaker, len(spoken.calls)) == (ANNA, 1)
    assert anna.add("I hum.").reply.seat == anna.add("And hum.", speaker="model").reply.seat == ANNA
    for wrong in (lambda: anna.send("Hello."), lambda: anna.round("Hello."), anna.round):
        with pytest.raises(InvalidInputError, match="played by the model"):
            wrong()
    for seat in (ANNA, BERT, ZOE, MAX):
        one.check(seat)


def test_a_round_is_the_seats_own(stage: Callable[..., Stage]) -> None:
    """Its turns come as the seat sees them, whispered or not."""
    one = stage("One.", "Two.", "Three.", "Four.", settings=SessionSettings(speaking="all"))
    max_ = one.session.seen_by(MAX)
    with max_.round("All of you?") as spoken:
        turns = list(spoken.turns())
    assert [(turn.speaker, turn.text, turn.calls) for turn in turns] == [(ANNA, "One.", ()), (BERT, "Two.", ())]
    assert turns == list(max_.turns())
    with max_.round(options=to(BERT)) as whispered:
        turns = list(whispered.turns())
    assert [(turn.speaker, turn.audience) for turn in turns] == [(BERT, (BERT, MAX))]
    assert len(list(one.session.seen_by(ZOE).turns())) == 2


def test_keys_tell_nothing_of_anothers(stage: Callable[..., Stage]) -> None:
    """The same key and line of two seats are two turns; a seat's own is given again."""
    one = stage("For Zoe.", "For Max.")
    zoe, max_ = one.session.seen_by(ZOE), one.session.seen_by(MAX)
    for key in ("k", "k" * 200):
        options = TurnOptions(idempotency_key=key, audience=[ANNA])
        mine, other = zoe.send("Psst.", options=options), max_.send("Psst.", options=options)
        assert mine.id != other.id
        assert zoe.send("Psst.", speaker="Zoe", options=options) == mine
        assert taken(max_.stream("Psst.", options=options)) == other
        with pytest.raises(ConflictError, match="used for another request") as told:
            max_.send("Other words.", options=options)
        assert told.value.found == other.id
    one.check(ZOE)


def test_nothing_is_moved_through_it(stage: Callable[..., Stage]) -> None:
    """Neither head nor cast nor settings, and no request is shown; the session stays as it was."""
    one = stage("One.", REFUSED)
    turn = one.session.send("One?", speaker=ZOE)
    with pytest.raises(ChatRequestError):
        one.session.send("Two?", speaker=ZOE)
    zoe, before = one.session.seen_by(ZOE), one.session.info()
    tree, cast = zoe.tree, zoe.cast
    moves: list[Callable[[], Any]] = [
        lambda: tree.choose(turn.id),
        lambda: tree.fork(turn.id),
        tree.rewind,
        tree.undo,
        lambda: tree.edit(turn.id, "Other."),
        lambda: tree.hide(turn.id),
        lambda: tree.show(turn.id),
        lambda: zoe.accept(turn.id),
        lambda: zoe.update(scene="Elsewhere."),
        lambda: cast.join(Seat(name="Una", owner="una"), played_by=PlayedBy.HUMAN),
        lambda: cast.leave(MAX),
        lambda: cast.mute(ANNA),
        lambda: cast.move(ANNA, 9),
        lambda: cast.use(ANNA, "bert"),
        lambda: zoe.preview("What would be sent?"),
    ]
    for move in moves:
        with pytest.raises(InvalidInputError, match="seen_by"):
            move()
    assert one.session.info() == before


def test_another_reply_takes_nothing_unseen_off_the_path(stage: Callable[..., Stage]) -> None:
    """A variant of what stands before another's whisper is refused; what stands after it is not."""
    one = stage("One.", "Whispered.", "Two.", REFUSED, "Three.")
    session, zoe = one.session, one.session.seen_by(ZOE)
    first = session.send("One?", speaker=ZOE)
    whisper = session.send("Psst.", speaker=MAX, options=to(BERT))
    for again in (zoe.regenerate, lambda: zoe.regenerate(first.id), lambda: zoe.resume(first.id)):
        with pytest.raises(ConflictError, match="may not see") as told:
            again()
        assert told.value.turn_id is None
    for other in (lambda: zoe.regenerate(whisper.id), lambda: zoe.resume(whisper.id), lambda: zoe.retry(whisper.id)):
        with pytest.raises(NotFoundError, match=f"^no turn '{whisper.id}'$"):
            other()
    assert [turn.id for turn in session.turns()] == [first.id, whisper.id]
    assert taken(session.seen_by(MAX).regenerate()).variants == 2
    with pytest.raises(ChatRequestError) as failed:
        zoe.send("Three?")
    assert [turn.status.value for turn in zoe.turns()] == ["completed", "failed"]
    assert taken(zoe.retry()).id == failed.value.turn_id
    assert [turn.text for turn in zoe.turns()] == ["One.", "Three."]
    one.check(ZOE)
    one.check(BERT)


def test_a_running_whisper_is_not_there(stage: Callable[..., Stage]) -> None:
    """Neither to be followed nor named by what it is in the way of; to its audience it is."""
    told: list[Any] = []
    stages: list[Stage] = []

    def while_it_runs(_messages: object) -> str:
        [one] = stages
        [(running,)] = one.rows("SELECT id FROM roleplay_turns WHERE status IN ('pending', 'streaming')")
        for door in ("follow", "turn", "verdicts", "report"):
            with pytest.raises(NotFoundError, match=f"^no turn '{running}'$"):
                getattr(one.session.seen_by(MAX), door)(running)
        with pytest.raises(ConflictError) as conflict:
            one.session.seen_by(MAX).send("May I?")
        told.extend([running, conflict.value, list(one.session.seen_by(MAX).turns())])
        told.append([turn.id for turn in one.session.seen_by(BERT).turns()])
        with pytest.raises(ConflictError) as conflict:
            one.session.seen_by(ZOE).send("And I?")
        told.append(conflict.value.turn_id)
        return "Done."

    stages.append(stage(while_it_runs))
    turn = stages[0].session.seen_by(ZOE).send("Psst.", options=to(BERT))
    running, conflict, max_sees, bert_sees, zoe_is_told = told
    assert running == turn.id == zoe_is_told
    assert (conflict.turn_id, conflict.found, conflict.expected) == (None, None, None)
    assert turn.id not in str(conflict.to_dict())
    assert (max_sees, bert_sees) == ([], [turn.id])


def test_pages_skip_and_repeat_nothing(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 300 turns, half of them whispered to others, pages of every size are the filter by hand, also where a
    statement passes few turns; none gives more rows than the page is long."""
    one = stage("Open.")
    session = one.session
    session.send("Good day.", speaker=ZOE)
    for number in range(1, 301):
        heard = None if number % 2 else ([BERT] if 100 < number < 200 else [ZOE if number % 3 else ANNA])
        session.add(f"Line {number}.", speaker=MAX, options=TurnOptions(audience=heard))
    whole = list(session.iter_turns())
    for passes in (transcript.PASSES, 7):
        monkeypatch.setattr(transcript, "PASSES", passes)
        for seat, limit in ((ZOE, 7), (BERT, 50), (ANNA, 500)):
            view, show = session.seen_by(seat), one.by_hand(seat)
            expected = [shown.id for turn in whole if (shown := show(turn))]
            found: list[str] = []
            before = None
            while True:
                with watched() as seen:
                    page = view.turns(before=before, limit=limit)
                asked = [each for each in seen if "roleplay_" in each.sql]
                assert max(fetched(one.database, each) for each in asked) <= limit + 2
                if passes > limit:
                    assert len(asked) <= 6
                found += [turn.id for turn in reversed(page.items)]
                if (before := page.older) is None:
                    break
                assert len(page) == limit
            assert found == expected
    view = session.seen_by(ZOE)
    assert list(view.turns(before=f"turn-{session.turns().items[-1].seq + 5}")) == []
    [unseen] = [turn for turn in whole if turn.human.text == "Line 6."]
    assert list(view.turns(before=f"turn-{unseen.seq}")) == []


def test_branches_end_where_a_seat_stops_hearing(stage: Callable[..., Stage]) -> None:
    """A branch of others' whispers alone is none; one that goes on in whispers ends with the last turn that is seen."""
    one = stage()
    session = one.session
    first = session.send("One?", speaker=ZOE)
    session.send("Psst.", speaker=ZOE, options=to(BERT))
    session.send("Two?", speaker=ZOE)
    session.send("Psst again.", speaker=MAX, options=to(ANNA))
    session.tree.fork(first.id)
    session.send("Beside.", speaker=MAX, options=to(ANNA))
    session.send("Beside it.", speaker=MAX, options=to(ANNA))
    taken(session.regenerate())
    session.tree.fork(first.id)
    session.send("Three?", speaker=ZOE)
    for seat in (ANNA, BERT, ZOE, MAX):
        one.check(seat)
    assert [turn.human.text for turn in session.seen_by(ZOE).tree.branches()] == ["Three?", "Two?"]


def test_what_is_told_of_the_session(stage: Callable[..., Stage]) -> None:
    """Its seats without others' owners, no facts, no metadata; where it stands is the last turn that is seen."""
    how = SessionSettings(speaking="first", facts=[Fact(name="weather", text="It rains.")])
    one = stage("Open.", owner="zoe", metadata={"plan": 1}, settings=how)
    session = one.session
    zoe, max_ = session.seen_by(ZOE), session.seen_by("maxi")
    assert (max_.info().head_seq, max_.info().last_turn_at) == (None, session.info().created_at)
    first = session.send("One?", speaker=ZOE)
    session.send("Psst.", speaker=ZOE, options=to(ANNA))
    whole, told, own = session.info(), max_.info(), zoe.info()
    assert (told.owner, own.owner, whole.owner) == (None, "zoe", "zoe")
    assert [seat.owner for seat in told.cast] == [None, None, None, "max"]
    assert [seat.owner for seat in zoe.cast.list()] == [None, None, "zoe", None]
    assert told.settings == whole.settings.evolve(facts=())
    assert (told.metadata, own.metadata, whole.metadata) == ({}, {}, {"plan": 1})
    assert (told.head_seq, told.last_turn_at) == (first.reply.seq, first.created_at)
    assert (own.head_seq, own.last_turn_at) == (whole.head_seq, whole.last_turn_at)


def test_who_looks_must_be_somebody(stage: Callable[..., Stage]) -> None:
    """A seat by number, name or alias; nobody looks through another's handle."""
    one = stage()
    view = one.session.seen_by(ZOE)
    assert repr(getattr(view, "_target", view)).endswith(f"ChatSession({one.session.id!r}).seen_by(3)")
    for wrong in (None, True, 2.0, [3]):
        with pytest.raises(InvalidInputError, match="seat"):
            one.session.seen_by(wrong)
    for nobody in (0, 9, "Nobody", ""):
        with pytest.raises(InvalidInputError, match="is nobody here"):
            one.session.seen_by(nobody).turns()
    assert one.session.seen_by(ZOE).seen_by(ZOE).id == one.session.id
    with pytest.raises(InvalidInputError, match="seat"):
        one.session.seen_by(ZOE).seen_by(MAX)
    with pytest.raises(NotFoundError, match="session"):
        one.rp.erase(session=one.session.id)
        one.session.seen_by(ZOE).turns()


STEP = st.tuples(
    st.sampled_from(["add", "add", "add", "send", "variant", "rewind", "leave", "join", "fork"]),
    st.integers(0, 7),
    st.frozensets(st.integers(0, 7), max_size=3),
)


@given(steps=st.lists(STEP, max_size=12), everything=st.booleans())
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_seat_sees_what_it_may(steps: list[Any], everything: bool, told: Stage) -> None:
    """Whatever is said to whom, whoever comes and goes: a seat's view is the filter of the whole by the predicate."""
    one = begun(told.rp, told.database, everything=everything)
    guests = [Seat(name="Una", owner="una"), Seat(name="Vic"), Seat("bert", name="Bertram")]
    for do, number, heard in steps:
        try:
            act(one, do, number, heard, guests)
        except InvalidInputError:
            continue  # such as the last one who would leave, or nothing to answer
    for seat in sorted(one.present | set(one.absences)):
        one.check(seat)


@pytest.fixture
def told(stage: Callable[..., Stage]) -> Stage:
    """An engine for many sessions."""
    return stage()


def act(one: Stage, do: str, number: int, heard: frozenset[int], guests: list[Seat]) -> None:
    """Do one thing in the session, with whom ``number`` and ``heard`` choose among those present."""
    session, present = one.session, sorted(one.present)
    who = present[number % len(present)]
    options = TurnOptions(audience=[present[place % len(present)] for place in heard] or None)
    if do == "add":
        session.add(f"Line {number}.", speaker=who, options=options)
    elif do == "send":
        session.send(f"Line {number}?", speaker=who, options=options)
    elif do == "variant":
        taken(session.regenerate())
    elif do == "rewind":
        session.tree.rewind(1 + number % 2)
    elif do == "fork":
        said = [row for row in one.said() if row["status"] == "completed"]
        if said:
            session.tree.fork(said[number % len(said)]["id"])
    elif do == "leave":
        one.leave(who)
    else:
        guest = guests[number % len(guests)]
        played_by = PlayedBy.HUMAN if guest.persona is None else PlayedBy.MODEL
        if not any(seat.display_name == guest.name for seat in session.cast.list()):
            one.join(guest, played_by)


def test_an_attempt_is_the_last_that_the_seat_may_see(stage: Callable[..., Stage]) -> None:
    """A whisper that failed hides no failure of the seat's own, and is not shown to it; ``retry`` takes its own."""
    one = stage("One.", REFUSED, REFUSED, "Two.")
    zoe = one.session.seen_by(ZOE)
    one.session.send("One?", speaker=ZOE)
    for view, options in ((zoe, TurnOptions()), (one.session.seen_by(MAX), to(BERT))):
        with pytest.raises(ChatRequestError):
            view.send("Two?", options=options)
    assert [turn.human.seat for turn in one.session.turns()] == [ZOE, MAX]
    assert [(turn.human.seat, turn.status.value) for turn in zoe.turns()] == [(ZOE, "completed"), (ZOE, "failed")]
    assert [turn.human.seat for turn in one.session.seen_by(ANNA).turns()] == [ZOE, ZOE]
    assert [turn.human.seat for turn in one.session.seen_by(BERT).turns()] == [ZOE, MAX]
    assert taken(zoe.retry()).text == "Two."
    one.check(ZOE)
    one.check(MAX)


def test_a_text_from_before_is_not_shown_with_a_later_attempt(stage: Callable[..., Stage]) -> None:
    """Where an attempt that was made since somebody joined gave no text, the text from before stays unseen."""
    one = stage("A long story that is broken off.", REFUSED, guarded=False)
    session = one.session
    with session.stream("Tell me.", speaker=ZOE) as reply:
        next(iter(reply))
    una = one.join(Seat(name="Una", owner="una"), PlayedBy.HUMAN)
    with pytest.raises(ChatRequestError), session.retry() as again:
        list(again)
    assert (reply.turn.text, session.turn(reply.turn_id).text) == ("A long story", "A long story")
    for seat in (ZOE, una):
        one.check(seat)
    with session.seen_by(ZOE).follow(reply.turn_id) as following:
        assert "".join(delta.text for delta in following) == "A long story"


def test_what_is_said_unasked_is_counted_among_what_is_seen(stage: Callable[..., Stage]) -> None:
    """Of two turns without a line at one place, one whispered to others, the seat counts one."""
    one = stage("Open.", "Whispered.", "Aloud.")
    first = one.session.send("Good day.", speaker=ZOE)
    taken(one.session.speak(BERT, options=to(BERT, MAX)))
    one.session.tree.fork(first.id)
    aloud = taken(one.session.speak(ANNA))
    assert (aloud.variant, aloud.variants) == (2, 2)
    seen = one.session.seen_by(ZOE).turn(aloud.id)
    assert (seen.variant, seen.variants) == (1, 1)
    for seat in (ZOE, MAX):
        one.check(seat)


def test_what_comes_after_the_look_is_not_seen() -> None:
    """Who looks as of a revision sees nothing of later ones, in which the seat may have been left meanwhile."""
    viewer = Viewer(ZOE, ((1, 2),)).as_of(4)
    assert [may_see(viewer, None, revision) for revision in range(1, 7)] == [False, True, True, True, False, False]
    left = Viewer(ZOE, ((3, FOR_EVER),))
    assert left.as_of(4) == left

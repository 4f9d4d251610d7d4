"""Who speaks next, through the front doors: chosen once, stored, and by whichever strategy the session names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from roleplay import (
    ChatRequestError,
    Endpoint,
    InvalidInputError,
    Persona,
    Seat,
    SessionSettings,
    SpeakingMoment,
    TurnOptions,
)
from roleplay.testing import ScriptedModel
from tests.support import shells

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
ANNA, BERT, CARA, SAM = 1, 2, 3, 4


class Asked:
    """A product's own strategy: it keeps the moments in which it is asked, and gives what it is told to."""

    def __init__(self) -> None:
        self.moments: list[SpeakingMoment] = []
        self.answer: Any = [CARA, ANNA]

    def __call__(self, moment: SpeakingMoment) -> Any:
        self.moments.append(moment)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Table:
    """Anna, Bert and Cara, whom the model plays, and Sam."""

    def __init__(self, rp: Any, model: ScriptedModel, own: Asked) -> None:
        self.rp, self.model, self.own = rp, model, own
        self.cast = [rp.personas.put(Persona(name, f"{name} is here.")) for name in ("Anna", "Bert", "Cara")]
        self.session = self.create("own")

    def create(self, speaking: str | None, *, user: str = "Sam", **seats: dict[str, Any]) -> Any:
        """Begin a session; ``seats`` say more of some, by their first letters."""
        cast = [Seat(one, **seats.get(one.name, {})) for one in self.cast]
        return self.rp.sessions.create(cast=cast, user=Seat(name=user), settings=SessionSettings(speaking=speaking))


@pytest.fixture
def table(shell: str, database_url: str, scripted: Scripted) -> Iterator[Table]:  # noqa: ARG001 - which door is open
    """A table at which the strategy "own" says who speaks, unless a session says otherwise."""
    model, own = scripted(), Asked()
    with shells.Roleplay.open(database_url, model=MODEL, chat=model, strategies={"own": own}) as rp:
        yield Table(rp, model, own)


def round_of(session: Any, text: str | None = None, **options: Any) -> list[int]:
    """Who speaks in a round."""
    with session.round(text, **options) as replies:
        return [turn.speaker for turn in replies.turns()]


def spoken(stream: Any) -> Any:
    """The turn of a stream, read to its end."""
    with stream as reply:
        list(reply)
    return reply.turn


def test_a_strategy_is_asked_once_and_told_all(table: Table) -> None:
    """To a line, a product's own strategy is asked once; it is told who may speak, who is there, what was said."""
    table.session.cast.mute("Bert")
    assert table.session.send("Is Bert here?").speaker == CARA
    [moment] = table.own.moments
    assert [one.seat for one in moment.seats] == [ANNA, CARA]
    assert [one.seat for one in moment.present] == [ANNA, BERT, CARA, SAM]
    assert [moment.text, moment.asked, moment.whispered] == ["Is Bert here?", True, False]
    assert [moment.last, list(moment.spoken), moment.reply_to_self] == [None, [], False]
    assert 0 <= moment.draw("anything") == moment.draw("anything") < 1
    assert moment.draw("anything") != moment.draw("another thing")

    table.own.answer = [ANNA]
    assert spoken(table.session.speak()).speaker == ANNA
    unasked = table.own.moments[-1]
    assert [unasked.text, unasked.asked] == ["You said: Sam: Is Bert here?", False]
    assert [unasked.last, list(unasked.spoken)] == [CARA, [CARA]]
    assert unasked.draw("anything") != moment.draw("anything")
    assert len(table.own.moments) == 2


def test_a_choice_is_not_made_again(table: Table) -> None:
    """A round follows what was chosen at its beginning; another variant, a rebuilt request and the same key again ask
    nobody."""
    key = TurnOptions(idempotency_key="once")
    assert round_of(table.session, "Hello.", options=key) == [CARA, ANNA]
    table.own.answer = [BERT]
    assert round_of(table.session, "Hello.", options=key) == [CARA, ANNA]
    first, second = table.session.turns().items
    again = spoken(table.session.regenerate(first.id))
    assert again.speaker == CARA
    assert spoken(table.session.regenerate(again.id)).speaker == CARA
    table.session.tree.choose(second.id)
    for turn in (first, second):
        assert table.rp.replay.request(table.session.id, turn.calls[0].id) in table.model.bodies
    assert len(table.own.moments) == 1


def test_a_choice_survives_a_failed_call(table: Table) -> None:
    """A turn whose call failed is spoken by the same seat when it is tried again, and its round goes on as chosen."""
    key = TurnOptions(idempotency_key="once")
    table.model.say(ChatRequestError("no"), ChatRequestError("no"))
    with pytest.raises(ChatRequestError):
        round_of(table.session, "Hello.", options=key)
    table.own.answer = [BERT]
    with pytest.raises(ChatRequestError):
        spoken(table.session.retry())
    assert spoken(table.session.retry()).speaker == CARA
    assert round_of(table.session, "Hello.", options=key) == [CARA, ANNA]
    assert len(table.own.moments) == 1


def test_a_preview_shows_who_would_speak(table: Table) -> None:
    """By chance or not, the request that a preview shows is the one that is sent then."""
    session = table.create("pooled")
    for number in range(12):
        shown = session.preview(f"Line {number}.").messages[0].text
        session.send(f"Line {number}.")
        assert shown == table.model.requests[-1]["messages"][0]["content"]
    assert len({turn.speaker for turn in session.turns().items}) > 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (ValueError("a secret"), "the strategy 'own' raised ValueError"),
        ([ANNA, SAM], f"the strategy 'own' chose {SAM}"),
        ([BERT], f"the strategy 'own' chose {BERT}"),
        (["Anna"], "the strategy 'own' chose 'Anna'"),
        ([[ANNA]], "the strategy 'own' chose [1]"),
        ([True], "the strategy 'own' chose True"),
        (ANNA, "the strategy 'own' gave a int"),
        (None, "the strategy 'own' gave a NoneType"),
        ("", "the strategy 'own' gave a str"),
        (iter([ANNA]), "the strategy 'own' gave a list_iterator"),
    ],
    ids=["raises", "human", "muted", "text", "nested", "truth", "number", "nothing", "blank", "iterator"],
)
def test_a_bad_strategy(table: Table, answer: object, problem: str) -> None:
    """One that raises, or gives anything but seats that may speak: an error that says so, and nothing is written."""
    table.session.cast.mute("Bert")
    before = table.session.info()
    table.own.answer = answer
    for call in (table.session.send, table.session.preview, lambda text: round_of(table.session, text)):
        with pytest.raises(InvalidInputError) as failure:
            call("Hello.")
        assert (failure.value.field, failure.value.problem) == ("speaking", problem)
        assert failure.value.allowed == f"a list of seats: {ANNA}, {CARA}"
        assert failure.value.__cause__ is (answer if isinstance(answer, Exception) else None)
    assert table.session.info() == before
    assert (list(table.session.turns().items), table.model.bodies) == ([], [])


def test_a_strategy_that_repeats_itself(table: Table) -> None:
    """Each seat speaks once in a round, however often it was chosen; any sequence will do."""
    table.own.answer = (CARA, ANNA, CARA)
    assert round_of(table.session, "Hello.") == [CARA, ANNA]


@pytest.mark.parametrize("answer", [[], ()])
def test_nobody_is_chosen(table: Table, answer: Sequence[int]) -> None:
    """Where nobody would speak, the call says what to do instead, and nothing is written."""
    before = table.session.info()
    table.own.answer = answer
    with pytest.raises(InvalidInputError, match=r"text: calls nobody who would speak, by the strategy 'own'.*add"):
        table.session.send("Hello.")
    with pytest.raises(InvalidInputError, match="participant: calls nobody who would speak"):
        table.session.speak()
    assert table.session.info() == before


def test_an_unknown_strategy(table: Table) -> None:
    """A name that no strategy has is refused wherever it is said, with the names that there are."""
    names = "natural, list, pooled, round_robin, manual, own"
    for attempt in (
        lambda: table.create("nonsense"),
        lambda: table.session.update(settings=SessionSettings(speaking="nonsense")),
    ):
        with pytest.raises(InvalidInputError) as failure:
            attempt()
        assert (failure.value.field, failure.value.allowed) == ("speaking", names)


def test_a_strategy_that_is_gone(table: Table, database_url: str) -> None:
    """A session that names a strategy which this engine does not have speaks to nobody; another name mends it."""
    table.session.send("Hello.")
    with shells.Roleplay.open(database_url, model=MODEL, chat=table.model) as other:
        session = other.sessions.get(table.session.id)
        with pytest.raises(InvalidInputError, match=r"speaking: is 'own'.*natural, list"):
            session.send("Hello?")
        session.update(settings=SessionSettings(speaking="list"))
        assert session.send("Hello?").speaker == ANNA
        assert len(session.turns().items) == 2


def test_who_is_muted(table: Table) -> None:
    """A muted seat is in no choice, mentioned or not, and speaks where it is told to; alone, it answers nobody."""
    session = table.create("list")
    session.cast.mute("Bert")
    assert round_of(session, "Bert?") == [ANNA, CARA]
    assert spoken(session.speak("Bert")).speaker == BERT
    assert round_of(session) == [ANNA, CARA]
    session.cast.mute("Anna")
    session.cast.mute("Cara")
    with pytest.raises(InvalidInputError, match="calls nobody"):
        session.send("Anyone?")
    session.cast.mute("Bert", muted=False)
    assert session.send("Anyone?").speaker == BERT


def test_the_default_is_natural(table: Table) -> None:
    """Who is mentioned speaks, in that order, and the silent one too; nobody else, where all are silent."""
    silent = {"talkativeness": 0.0}
    session = table.create(None, Anna=silent, Bert=silent | {"aliases": ("Skipper",)}, Cara=silent)
    assert round_of(session, "Cara, Skipper!") == [CARA, BERT]
    with pytest.raises(InvalidInputError, match="'natural'"):
        session.send("Anyone?")
    assert session.send("Anna?").speaker == ANNA


def test_a_whisper_to_a_silent_one(table: Table) -> None:
    """Who alone hears a whisper answers it; who does not hear it is not chosen by its name."""
    silent = {"talkativeness": 0.0}
    session = table.create("natural", Anna=silent, Bert=silent, Cara=silent)
    turn = session.send("Anna must not know.", options=TurnOptions(audience=["Bert"]))
    assert (turn.speaker, turn.audience) == (BERT, (BERT, SAM))


def test_by_hand(table: Table) -> None:
    """A line is answered by nobody; who is named speaks."""
    session = table.create("manual")
    with pytest.raises(InvalidInputError, match="'manual'"):
        session.send("Anna?")
    session.add("Anna?", speaker="user")
    assert spoken(session.speak("Anna")).speaker == ANNA
    assert spoken(session.speak()).speaker in {BERT, CARA}


def test_taking_turns_follows_the_path(table: Table) -> None:
    """Behind whom the next one stands is what the path says, after a rewind and on a branch."""
    session = table.create("round_robin")
    turns = [session.send(f"{number}.") for number in range(4)]
    assert [turn.speaker for turn in turns] == [ANNA, BERT, CARA, ANNA]
    session.tree.rewind(3)
    assert session.send("Again.").speaker == BERT
    session.tree.fork(turns[2].id)
    assert round_of(session, "All of you.") == [ANNA, BERT, CARA]
    session.tree.rewind(1)
    assert spoken(session.speak()).speaker == CARA


def test_a_pool_follows_the_path(table: Table) -> None:
    """Who has spoken since the last line is what the path says, after a rewind and on a branch."""
    session = table.create("pooled")
    first = session.send("Hello.").speaker
    second = spoken(session.speak())
    third = spoken(session.speak()).speaker
    assert {first, second.speaker, third} == {ANNA, BERT, CARA}
    assert spoken(session.speak()).speaker != third
    session.tree.fork(second.id)
    assert spoken(session.speak()).speaker == third
    session.tree.rewind(2)
    assert spoken(session.speak()).speaker == second.speaker
    anew = [session.send("Hello again.").speaker, spoken(session.speak()).speaker, spoken(session.speak()).speaker]
    assert sorted(anew) == [ANNA, BERT, CARA]


def test_chance_comes_from_the_seed(table: Table) -> None:
    """Two sessions of one seed choose the same; another seat, in the last place, changes none of the draws before."""
    cast = [Seat(one, talkativeness=0.5) for one in table.cast]

    def chosen(seed: int, *more: Seat) -> list[list[int]]:
        settings = SessionSettings(seed=seed)
        session = table.rp.sessions.create(cast=[*cast, *more], user=Seat(name="Sam"), settings=settings)
        return [round_of(session, f"Line {number}.", max_turns=9) for number in range(4)]

    assert chosen(7) == chosen(7)
    assert any(chosen(7) != chosen(seed) for seed in (1, 2, 3))
    silent = Seat(table.cast[0], name="Dora", talkativeness=0.0)
    assert chosen(7, silent) == chosen(7)

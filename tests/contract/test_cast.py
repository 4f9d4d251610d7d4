"""Who sits in a session: seats and their names, who joins and leaves, from whose seat a request is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from roleplay import (
    ChatRequestError,
    Endpoint,
    Fact,
    InvalidInputError,
    NotFoundError,
    Persona,
    PlayedBy,
    Seat,
    SessionSettings,
    TurnOptions,
)
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
FOLDED = Endpoint("MiniMax-M2.7", dialect="openai")
STRICT = Endpoint("MiniMax-M2.7", dialect="strict")
LIST = SessionSettings(speaking="list")
KEYS = ("anna", "ben", "cara")


def people(rp: Any) -> list[Any]:
    """Three personas, each with a greeting."""
    greeting = "I am {{char}}, {{user}}."
    return [rp.personas.put(Persona(key.title(), f"{key} by day.", greetings=[greeting], key=key)) for key in KEYS]


def table(rp: Any, **options: Any) -> Any:
    """A session with all three, and with two humans who have owners of their own."""
    people(rp)
    humans = [Seat(name="Max", owner="user-1"), Seat(name="Eva", owner="user-2")]
    return rp.sessions.create(**{"cast": KEYS, "users": humans, "settings": LIST, "greetings": "none"} | options)


def names(session: Any) -> list[str]:
    return [one.display_name for one in session.cast.list()]


def asked(model: ScriptedModel) -> list[dict[str, str]]:
    """The messages of the last request."""
    messages: list[dict[str, str]] = model.requests[-1]["messages"]
    return messages


def check(rp: Any) -> None:
    assert list(rp.doctor()) == []


def test_seats_are_what_was_asked_for(database_url: str, scripted: Scripted) -> None:
    """Numbered in order, the model's first; with names of their own, the same persona twice under two names."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        people(rp)
        elder = Seat("anna", name="Anna the elder", aliases=["Granny"], talkativeness=0.1, muted=True)
        session = rp.sessions.create(cast=["anna", elder], user=Seat("ben", owner="user-1"), greetings="none")
        cast = session.cast.list()
        assert [(one.seat, one.played_by, one.display_name) for one in cast] == [
            (1, PlayedBy.MODEL, "Anna"),
            (2, PlayedBy.MODEL, "Anna the elder"),
            (3, PlayedBy.HUMAN, "Ben"),
        ]
        assert (cast[1].aliases, cast[1].talkativeness, cast[1].muted) == (("Granny",), 0.1, True)
        assert cast[0].persona_id == cast[1].persona_id
        assert [one.owner for one in cast] == [None, None, "user-1"]
        info = session.info()
        assert info.cast == tuple(cast)
        assert (info.models, info.humans) == (tuple(cast[:2]), (cast[2],))
        assert (info.speaker, info.human) == (cast[0], cast[2])
        check(rp)


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "nobody": ("cast", {"cast": []}),
    "a word": ("cast", {"cast": "anna"}),
    "a number": ("cast[1]", {"cast": ["anna", 7]}),
    "no persona": ("cast[0].persona", {"cast": [Seat(name="Anna")]}),
    "the model's owner": ("cast[0].owner", {"cast": [Seat("anna", owner="user-1")]}),
    "too many": ("cast", {"cast": ["anna"] * 101}),
    "both": ("users", {"user": "ben", "users": ["cara"]}),
    "users as a word": ("users", {"users": "ben"}),
    "no such greetings": ("greetings", {"greetings": "some"}),
    "no such strategy": ("speaking", {"settings": SessionSettings(speaking="loudest")}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_cast_that_cannot_be(database_url: str, scripted: Scripted, name: str) -> None:
    """The field is named, its place with it, and nothing is written."""
    field, options = BAD[name]
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        people(rp)
        with pytest.raises(InvalidInputError) as told:
            rp.sessions.create(**{"cast": ["anna"]} | options)
        assert told.value.field == field
        with pytest.raises(NotFoundError):
            rp.sessions.create(cast=["anna", "nobody"])
        assert not list(rp.sessions.iter())


@pytest.mark.parametrize("fields", [{"talkativeness": 1.5}, {"name": " "}, {"aliases": ["\n"]}, {"muted": 1}])
def test_a_seat_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as told:
        Seat("anna", **fields)
    assert told.value.field.startswith(next(iter(fields)))


def test_all_greet(database_url: str, scripted: Scripted) -> None:
    """One after the other; the first alone with its variants, or nobody."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp, greetings="all")
        assert [turn.text for turn in session.turns()] == [f"I am {key.title()}, Max." for key in KEYS]
        assert [turn.speaker for turn in session.turns()] == [1, 2, 3]
        rp.personas.put(Persona("Anna", "Anna.", greetings=["One.", "Two."], key="anna"))
        first = rp.sessions.create(cast=KEYS)
        assert [turn.text for turn in first.turns()] == ["One."]
        assert [turn.text for turn in first.tree.variants(first.turns().items[0].id)] == ["One.", "Two."]
        assert list(rp.sessions.create(cast=KEYS, greetings="none").turns()) == []
        both = rp.sessions.create(cast=KEYS[:2], greetings="all")
        assert [turn.text for turn in both.turns()] == ["One.", "I am Ben, User."]
        [opened, _] = both.turns()
        assert [turn.text for turn in both.tree.variants(opened.id)] == ["One.", "Two."]
        check(rp)


def test_each_speaks_from_its_seat(database_url: str, scripted: Scripted) -> None:
    """Own lines are the assistant's, without a name; everyone else's are a user's, under their names; the front holds
    the speaker's sheet and who else is there, and is the same whoever asks."""
    model = scripted("Anna here.", "Ben here.", "Ben again.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        people(rp)
        humans = [Seat("cara", name="Max"), Seat(name="Eva")]
        session = rp.sessions.create(cast=KEYS[:2], users=humans, settings=LIST, greetings="none")
        session.send("Who is there?", speaker="Max")
        with session.speak("Ben") as reply:
            assert {(one.seat, one.speaker, one.turn_id) for one in reply} == {(2, "Ben", reply.turn_id)}
        before = asked(model)
        session.add("And I.", speaker="Eva")
        with session.speak("ben") as reply:
            list(reply)
        after = asked(model)
        assert (
            before[:2]
            == after[:2]
            == [
                {
                    "role": "system",
                    "name": "Ben",
                    "content": "ben by day.\n\nAlso here: Anna, Max, Eva. Speak only for Ben, never for anybody else.",
                },
                {"role": "user_system", "name": "Max", "content": "Max: cara by day."},
            ]
        )
        assert after[2:] == [
            {"role": "user", "name": "Max", "content": "Max: Who is there?\n\nAnna: Anna here."},
            {"role": "assistant", "name": "Ben", "content": "Ben here."},
            {"role": "user", "name": "Eva", "content": "Eva: And I."},
        ]
        check(rp)


@pytest.mark.parametrize("endpoint", [FOLDED, STRICT])
def test_names_stand_in_the_other_forms(database_url: str, scripted: Scripted, endpoint: Endpoint) -> None:
    """Every line of another carries its name, alone in its block or not, so that a block only grows at its end."""
    model = scripted("Anna here.", "Ben here.", "Anna once more.")
    with Roleplay.open(database_url, model=endpoint, chat=model) as rp:
        session = table(rp, cast=KEYS[:2])
        session.send("Hello.", speaker="Max")
        first = asked(model)[-1]
        assert first["content"].endswith("Max: Hello.")
        with session.speak("Ben") as reply:
            list(reply)
        assert asked(model)[-1]["content"].endswith("Max: Hello.\n\nAnna: Anna here.")
        session.add("A bell.", speaker="narrator")
        with session.speak("Anna") as reply:
            list(reply)
        assert [one["content"] for one in asked(model)][-3:] == [
            first["content"],
            "Anna here.",
            "Ben: Ben here.\n\nNarrator: A bell.",
        ]
        check(rp)


def test_who_spoke_last_is_the_user_near_the_end(database_url: str, scripted: Scripted) -> None:
    """In the front, ``{{user}}`` is the first human for ever; in the note and in what comes last, the one who spoke."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        sheet = {"description": "A friend of {{user}}.", "note": "Look at {{user}}.", "post_history": "To {{user}}!"}
        rp.personas.put(Persona("Anna", key="anna", **sheet))
        session = rp.sessions.create(cast=["anna"], users=[Seat(name="Max"), Seat(name="Eva")])
        for name in ("Eva", "Max", "Eva"):
            session.send("Hello.", speaker=name)
            messages = asked(model)
            assert messages[0]["content"].startswith("A friend of Max.")
            assert messages[-1]["content"] == f"[Look at {name}.]\n\n{name}: Hello.\n\n[To {name}!]"
        check(rp)


def test_who_speaks_must_be_said(database_url: str, scripted: Scripted) -> None:
    """With two humans there is no default: a wrong name is worse than an error. Names of two seats are refused."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp)
        for wrong, allowed in ((None, "4 (Max), 5 (Eva)"), ("Anna", "4 (Max), 5 (Eva)"), (9, "4 (Max), 5 (Eva)")):
            with pytest.raises(InvalidInputError) as told:
                session.send("Hello.", speaker=wrong)
            assert (told.value.field, told.value.allowed) == ("speaker", allowed)
        with pytest.raises(InvalidInputError, match="several humans"):
            session.add("Hello.")
        assert list(session.turns()) == []
        assert session.send("Hello.", speaker="eva").human.seat == 5
        assert session.add("Hello.", speaker=5).human.name == "Eva"
        twins = rp.sessions.create(cast=["anna", "anna"], greetings="none")
        with pytest.raises(InvalidInputError, match="several seats"):
            twins.speak("Anna")
        with twins.speak(2) as reply:
            list(reply)
        assert reply.turn.speaker == 2
        for bad in (True, 1.5, [], "", 0):
            with pytest.raises(InvalidInputError) as told:
                twins.speak(bad)
            assert told.value.field == "participant"
        check(rp)


def test_cast_changes_are_revisions(database_url: str, scripted: Scripted) -> None:
    """From the next turn on; earlier turns keep theirs, and a change that changes nothing writes nothing."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        first = session.send("Hello.", speaker="Max")
        assert first.revision == 1
        assert session.cast.mute("Anna").muted
        version = session.info().version
        assert session.cast.mute("Anna").muted
        assert session.info().version == version
        assert session.cast.move("Cara", 0).order == 0
        assert names(session) == ["Cara", "Anna", "Ben", "Max", "Eva"]
        second = session.send("And now?", speaker="Max")
        assert (second.revision, second.reply.name) == (3, "Cara")
        assert not session.cast.mute("Anna", muted=False).muted
        rp.personas.put(Persona("Annabel", "Anna, renamed.", key="anna"))
        assert session.cast.use("Anna", "anna").display_name == "Annabel"
        assert session.cast.use("Annabel", "anna", version=1).display_name == "Anna"
        with session.speak("Anna") as reply:
            list(reply)
        assert asked(model)[0]["content"].startswith("anna by day.")
        assert session.turn(first.id) == first
        check(rp)


def test_what_is_said_to_its_end_under_another_name_has_that_name(database_url: str, scripted: Scripted) -> None:
    """A reply that was cut off goes on, or is spoken anew, as who sits there now; its name is no other's."""
    model = scripted("One. " * 9, "two.", "Three. " * 9, "Four.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        for again, persona, called in ((session.resume, "cara", "Cara"), (session.retry, "anna", "Anna")):
            with session.speak(1) as stream:
                next(iter(stream))
            session.cast.use(1, persona)
            with again(stream.turn.id) as rest:
                list(rest)
            turn = session.turn(stream.turn.id)
            assert turn.reply is not None
            assert (turn.reply.name, turn.reply.seat) == (called, 1)
            assert session.info().head_seq == turn.reply.seq
        with session.speak(2) as reply:
            list(reply)
        assert [one["content"].split(":")[0] for one in asked(model) if one["role"] == "user"][-1] == "Cara"
        check(rp)


BAD_CHANGES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "leave nobody": ("seat", lambda cast: cast.leave("Nobody")),
    "leave the narrator": ("seat", lambda cast: cast.leave("narrator")),
    "join no persona": ("seat.persona", lambda cast: cast.join(Seat(name="Dora"))),
    "join a number": ("seat", lambda cast: cast.join(7)),
    "join as nobody": ("played_by", lambda cast: cast.join("anna", played_by="dog")),
    "move to a word": ("order", lambda cast: cast.move("Anna", "first")),
    "mute perhaps": ("muted", lambda cast: cast.mute("Anna", muted="perhaps")),
    "use version 0": ("version", lambda cast: cast.use("Anna", "anna", version=0)),
}


@pytest.mark.parametrize("name", BAD_CHANGES)
def test_a_change_that_cannot_be(database_url: str, scripted: Scripted, name: str) -> None:
    field, change = BAD_CHANGES[name]
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp)
        before = session.info()
        with pytest.raises(InvalidInputError) as told:
            change(session.cast)
        assert told.value.field == field
        with pytest.raises(NotFoundError):
            session.cast.join("dora")
        assert session.info() == before


def test_who_left_comes_back_to_the_same_seat(database_url: str, scripted: Scripted) -> None:
    """Somebody of the same persona, name and owner; others get a new one. The last of a kind stays."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp)
        assert session.cast.leave("Ben").seat == 2
        assert names(session) == ["Anna", "Cara", "Max", "Eva"]
        with pytest.raises(InvalidInputError, match="nobody here"):
            session.speak("Ben")
        assert session.cast.join(Seat("ben", name="Ben the younger")).seat == 6
        assert session.cast.join("ben").seat == 2
        assert session.cast.leave("Eva").seat == 5
        assert session.cast.join(Seat(name="Eva", owner="user-3"), played_by=PlayedBy.HUMAN).seat == 7
        assert session.cast.join(Seat(name="Eva", owner="user-2"), played_by=PlayedBy.HUMAN).seat == 5
        for name in ("Anna", "Ben", "Cara"):
            session.cast.leave(name)
        with pytest.raises(InvalidInputError, match="the last one that the model plays"):
            session.cast.leave("Ben the younger")
        check(rp)


def test_a_rewind_over_a_leave_brings_nobody_back(database_url: str, scripted: Scripted) -> None:
    """The cast belongs to the session, history to the path."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        session.send("Hello.", speaker="Max")
        session.cast.leave("Anna")
        session.send("Who is left?", speaker="Max")
        session.tree.rewind(1)
        assert names(session) == ["Ben", "Cara", "Max", "Eva"]
        assert session.send("And now?", speaker="Max").reply.name == "Ben"
        check(rp)


def test_a_variant_is_its_speakers(database_url: str, scripted: Scripted) -> None:
    """Another variant, and another attempt, are spoken by who spoke; where they have left, that is said."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp)
        session.send("Hello.", speaker="Max")
        with session.speak("Cara") as reply:
            list(reply)
        with session.regenerate() as other:
            list(other)
        assert other.turn.speaker == 3
        session.cast.leave("Cara")
        with pytest.raises(InvalidInputError, match="seat 3"):
            session.regenerate(other.turn.id)
        check(rp)


def test_an_audience_never_changes(database_url: str, scripted: Scripted) -> None:
    """A reply has its line's; another reply to it takes no other."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp)
        turn = session.send("Only you.", speaker="Max", options=TurnOptions(audience=["Ben"]))
        assert (turn.reply.name, turn.audience, turn.human.audience, turn.reply.audience) == ("Ben", *[(2, 4)] * 3)
        with session.regenerate(turn.id) as reply:
            list(reply)
        assert reply.turn.audience == reply.turn.reply.audience == (2, 4)
        for door in ("regenerate", "retry", "resume"):
            with pytest.raises(InvalidInputError) as told:
                getattr(session, door)(options=TurnOptions(audience=[1]))
            assert told.value.field == "audience"
        before = session.info()
        for audience in ((), ["Nobody"], ["Eva"], [99]):
            with pytest.raises(InvalidInputError) as told:
                session.send("You?", speaker="Max", options=TurnOptions(audience=audience))
            assert told.value.field == "audience"
        assert session.info() == before
        added = session.add("Between us.", speaker="Max", options=TurnOptions(audience=["Eva"]))
        assert added.human.audience == (4, 5)
        check(rp)


def test_sessions_are_found_by_a_seats_owner(database_url: str, scripted: Scripted) -> None:
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp, owner="host")
        for owner in ("host", "user-1", "user-2"):
            assert rp.sessions.get(session.id, owner=owner).id == session.id
            assert [one.id for one in rp.sessions.iter(owner=owner)] == [session.id]
            assert [one.id for one in rp.sessions.list(owner=owner)] == [session.id]
        with pytest.raises(NotFoundError):
            rp.sessions.get(session.id, owner="user-3")
        assert list(rp.sessions.list(owner="user-3")) == []


def test_the_narrator_hears_nothing(database_url: str, scripted: Scripted) -> None:
    """A narration has an audience, and no seat of its own in it; it is not what a human said last."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        rp.personas.put(Persona("Anna", note="Look at {{user}}.", key="anna"))
        session = rp.sessions.create(cast=["anna"], users=[Seat(name="Max"), Seat(name="Eva")])
        told = session.add("A ghost.", speaker="narrator", options=TurnOptions(audience=["Eva"]))
        assert told.audience == told.human.audience == (3,)
        assert list(session.seen_by("Max").turns()) == []
        session.send("Hello.", speaker="Eva")
        session.add("The lamp goes out.", speaker="narrator")
        with session.speak() as reply:
            list(reply)
        assert "[Look at Eva.]" in asked(model)[-1]["content"]


def test_a_stranger_inherits_no_seat(database_url: str, scripted: Scripted) -> None:
    """A human without an owner is nobody who could come back; who comes and goes often gets another seat, too."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        people(rp)
        session = rp.sessions.create(cast=["anna", "ben"], users=[Seat(name="Host"), Seat()], greetings="none")
        session.cast.leave("User")
        assert session.cast.join(Seat(), played_by=PlayedBy.HUMAN).seat == 5
        seats = set()
        for _ in range(66):
            session.cast.leave("Ben")
            seats.add(session.cast.join("ben").seat)
        assert seats == {2, 6}


@pytest.mark.parametrize("audience", [[True], [1.0], [None], "Ben", [["Ben"]]])
def test_an_audience_that_cannot_be(audience: Any) -> None:
    with pytest.raises(InvalidInputError) as told:
        TurnOptions(audience=audience)
    assert told.value.field.startswith("audience")


def test_names_are_put_in_once(database_url: str, scripted: Scripted) -> None:
    """A name that reads like a macro stays what it is."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        people(rp)
        facts = SessionSettings(facts=[Fact("{{user}} is ill.", depth=None)])
        cast = ["anna", Seat("ben", name="{char}")]
        session = rp.sessions.create(cast=cast, user=Seat(name="{{time}}"), settings=facts, greetings="none")
        with session.speak("Anna") as reply:
            list(reply)
        front = asked(model)[0]["content"]
        assert "Also here: {char}, {{time}}. Speak only for Anna" in front
        assert "{{time}} is ill." in front


def test_a_line_that_was_added_is_answered_by_who_is_next(database_url: str, scripted: Scripted) -> None:
    """Not by a muted seat, as long as another may answer."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = table(rp, settings=SessionSettings())
        session.cast.mute("Anna")
        added = session.add("Cara, what do you say?", speaker="Max")
        with session.regenerate(added.id) as reply:
            list(reply)
        assert reply.turn.reply.name == "Cara"


def test_who_has_left_leaves_no_turn_stuck(database_url: str, scripted: Scripted) -> None:
    """A failed turn whose speaker has left is answered by another, by its key or as a retry."""
    model = scripted(ChatRequestError("no", code=2013), "Ben here.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = table(rp)
        keyed = TurnOptions(idempotency_key="k")
        with pytest.raises(ChatRequestError):
            session.send("Hello.", speaker="Max", options=keyed)
        session.cast.leave("Anna")
        turn = session.send("Hello.", speaker="Max", options=keyed)
        assert (turn.speaker, turn.reply.name, turn.text) == (2, "Ben", "Ben here.")
        assert session.turn(turn.id) == turn
        check(rp)

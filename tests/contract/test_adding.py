"""Lines that no model was asked for, and a model that speaks when no line asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from roleplay import (
    ChatUnavailableError,
    ConflictError,
    Endpoint,
    IdempotencyError,
    InvalidInputError,
    NotFoundError,
    Persona,
    SessionSettings,
    TurnKind,
    TurnOptions,
    TurnStatus,
)
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"attempts": 1})


def talk(rp: Any, **options: Any) -> Any:
    """A new session with a ferryman."""
    return rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "Rows."))], **options)


def heard(model: ScriptedModel) -> list[tuple[str, str, str]]:
    """The last request's messages behind its system message: role, name, text."""
    return [(one["role"], one["name"], one["content"]) for one in model.requests[-1]["messages"][1:]]


def said(session: Any) -> list[tuple[str, str, str]]:
    """The path: kind, who, what, a line each."""
    lines = []
    for turn in session.turns():
        assert turn.status is TurnStatus.COMPLETED
        lines += [(turn.kind.value, one.name, one.text) for one in (turn.human, turn.reply) if one is not None]
    return lines


def check(rp: Any, session: Any) -> None:
    """Nothing is wrong with the rows, and the page tells each turn as it is told alone."""
    assert list(rp.doctor()) == []
    for turn in session.turns():
        assert session.turn(turn.id) == turn


def test_lines_are_added(database_url: str, scripted: Scripted) -> None:
    """What each speaker said stands on the path without a model call, and reaches the model as it should."""
    model = scripted("Then we cross.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = talk(rp)
        asked = session.add("Can we cross?")
        answered = session.add("Not in this fog.", speaker="model")
        told = session.add("The fog lifts.", speaker="narrator", options=TurnOptions(metadata={"from": "weather"}))
        assert model.bodies == []
        assert [turn.kind for turn in (asked, answered, told)] == [
            TurnKind.IMPORTED,
            TurnKind.IMPORTED,
            TurnKind.NARRATION,
        ]
        assert (asked.human.text, asked.reply, answered.human) == ("Can we cross?", None, None)
        assert answered.reply.text == "Not in this fog."
        assert (told.human.name, dict(told.metadata)) == ("Narrator", {"from": "weather"})
        assert all(turn.calls == () and (turn.variant, turn.variants) == (1, 1) for turn in (asked, answered, told))
        assert session.info().head_seq == told.human.seq
        assert session.send("And now?").reply.text == "Then we cross."
        assert heard(model) == [
            ("user", "User", "Can we cross?"),
            ("assistant", "Huang", "Not in this fog."),
            ("user", "Narrator", "Narrator: The fog lifts.\n\nUser: And now?"),
        ]
        assert said(session)[:3] == [
            ("imported", "User", "Can we cross?"),
            ("imported", "Huang", "Not in this fog."),
            ("narration", "Narrator", "The fog lifts."),
        ]
        check(rp, session)


def test_the_narrator_speaks_the_sessions_language(database_url: str, scripted: Scripted) -> None:
    """His name is the language's word for him; so are the words that ask for a reply where no line does."""
    model = scripted("天亮了。", "上船吧。")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = talk(rp, settings=SessionSettings(language="zh"))
        assert session.add("雾散了。", speaker="narrator").human.name == "旁白"
        list(session.speak())
        list(session.speak())
        assert [text for _, _, text in heard(model)] == ["雾散了。", "天亮了。", "[请说出或做出接下来的内容。]"]


def test_what_cannot_be_added(database_url: str, scripted: Scripted) -> None:
    """Nothing is written for a blank line, nobody's line, or a session that is not there."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = talk(rp)
        for text, speaker in ((" ", "user"), ("a\x00", "narrator"), ("Hm.", "nobody")):
            with pytest.raises(InvalidInputError):
                session.add(text, speaker=speaker)
        with pytest.raises(InvalidInputError):
            session.speak(hint="  ")
        assert session.turns().items == ()
    with Roleplay.open(database_url, model=MODEL, chat=scripted(), tenant="other") as rp, pytest.raises(NotFoundError):
        rp.sessions.get(session.id)


def test_a_key_adds_once(database_url: str, scripted: Scripted) -> None:
    """The same line under the same key is there once; another one is refused."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = talk(rp)
        once = TurnOptions(idempotency_key="import-1")
        first = session.add("Can we cross?", options=once)
        assert session.add("Can we cross?", options=once) == first
        for text, speaker in (("Can we?", "user"), ("Can we cross?", "narrator")):
            with pytest.raises(IdempotencyError):
                session.add(text, speaker=speaker, options=once)
        with pytest.raises(IdempotencyError):
            session.send("Can we cross?", options=once)
        assert len(session.turns().items) == 1


def test_adding_while_a_turn_runs(database_url: str, scripted: Scripted) -> None:
    """A line is refused, waits in vain, or is said on a branch beside the turn, which ends as if nothing was."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("One. " * 40)) as rp:
        session = talk(rp)
        with session.stream("First.") as reply:
            with pytest.raises(ConflictError):
                session.add("Second.")
            with pytest.raises(ConflictError, match=r"after 0\.1 s"):
                session.add("Second.", options=TurnOptions(on_conflict="wait", wait_s=0.1))
            beside = session.add("Second.", options=TurnOptions(on_conflict="fork"))
            assert session.info().head_seq is None
            list(reply)
        assert session.info().head_seq == reply.turn.reply.seq
        assert {turn.id for turn in session.tree.branches()} == {beside.id, reply.turn.id}
        check(rp, session)


def test_added_lines_are_turns_of_the_tree(database_url: str, scripted: Scripted) -> None:
    """They are undone, stepped back over, hidden, forked from, and answered."""
    model = scripted("Yes.", "No.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = talk(rp)
        asked = session.add("Can we cross?")
        told = session.add("The fog lifts.", speaker="narrator")
        assert session.tree.undo() == asked
        session.tree.choose(told.id)
        session.tree.hide(told.id)
        assert session.tree.rewind() == asked
        with session.regenerate(asked.id) as reply:
            list(reply)
        assert (reply.turn.human, reply.turn.reply.text) == (asked.human, "Yes.")
        session.tree.fork(told.id)
        assert session.send("So?").reply.text == "No."
        assert heard(model) == [("user", "User", "Can we cross?\n\nSo?")]
        check(rp, session)


def test_the_model_speaks_unasked(database_url: str, scripted: Scripted) -> None:
    """It opens a session, goes on after its own words, and answers what was added."""
    model = scripted("A cold night.", "Colder than last.", "Hush.", "And then?")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = talk(rp)
        nudge = ("user", "User", "[Say or do what comes next.]")
        with session.speak() as reply:
            assert "".join(delta.text for delta in reply) == "A cold night."
        assert (reply.turn.kind, reply.turn.human) == (TurnKind.REPLY, None)
        assert reply.turn.usage.total_tokens
        assert heard(model) == [nudge]
        list(session.speak(hint="Complain."))
        assert heard(model) == [
            ("assistant", "Huang", "A cold night."),
            ("user", "User", nudge[2] + "\n\n[Complain.]"),
        ]
        session.add("An owl cries.", speaker="narrator")
        list(session.speak())
        assert heard(model)[-1] == ("user", "Narrator", "An owl cries.")
        session.send("What was that?")
        assert heard(model)[-2:] == [("assistant", "Huang", "Hush."), ("user", "User", "What was that?")]
        assert [text for _, _, text in said(session)] == [
            "A cold night.",
            "Colder than last.",
            "An owl cries.",
            "Hush.",
            "What was that?",
            "And then?",
        ]
        check(rp, session)


def test_what_was_said_unasked_has_variants(database_url: str, scripted: Scripted) -> None:
    """Each stands at the same place, and is asked for with the same context."""
    model = scripted("Well.", "Hm.", "So.", "Ah.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = talk(rp)
        session.send("Can we cross?")
        first = session.speak()
        list(first)
        for _ in range(2):
            list(session.regenerate())
        assert model.requests[1]["messages"] == model.requests[2]["messages"] == model.requests[3]["messages"]
        found = session.tree.variants(first.turn_id)
        assert [(one.reply.text, one.variant, one.variants) for one in found] == [
            ("Hm.", 1, 3),
            ("So.", 2, 3),
            ("Ah.", 3, 3),
        ]
        assert [session.turn(one.id) for one in found] == list(found)
        session.tree.choose(found[1].id)
        session.tree.edit(found[1].id, "So be it.")
        assert session.turns().items[-1].variants == 4
        check(rp, session)


def test_speaking_unasked_again(database_url: str, scripted: Scripted) -> None:
    """A reply that nobody asked for is retried and resumed like any other, and a key gives it once."""
    model = scripted("Well.", ChatUnavailableError("busy", code=1002), "Now. " * 40, "Later.", "Once.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = talk(rp)
        session.send("Can we cross?")
        with pytest.raises(ChatUnavailableError) as caught:
            session.speak()
        with session.retry() as reply:
            next(iter(reply))
        assert reply.turn_id == caught.value.turn_id
        assert reply.turn.status is TurnStatus.INTERRUPTED
        assert model.bodies[1] == model.bodies[2]
        list(session.resume())
        assert heard(model)[1] == ("assistant", "Huang", "Well.")
        turn = session.turn(reply.turn_id)
        assert turn.reply.text.endswith("Later.")
        once = TurnOptions(idempotency_key="opening")
        list(session.speak(options=once))
        again = session.speak(options=once)
        assert [delta.text for delta in again] == ["Once."]
        with pytest.raises(IdempotencyError):
            session.speak(hint="Louder.", options=once)
        check(rp, session)


def test_greetings_are_chosen_until_the_first_reply(database_url: str, scripted: Scripted) -> None:
    """A session stands on the first greeting; another one is chosen, and is what the model has said."""
    model = scripted("Quick, then.", "Slowly, then.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        persona = rp.personas.put(Persona("Huang", greetings=["Sit.", "Stand.", "Go."]))
        session = rp.sessions.create(cast=[persona])
        [greeting] = session.turns()
        assert (greeting.reply.text, greeting.variant, greeting.variants) == ("Sit.", 1, 3)
        variants = session.tree.variants(greeting.id)
        assert [one.reply.text for one in variants] == ["Sit.", "Stand.", "Go."]
        for one in (variants[2], variants[1]):
            assert session.tree.choose(one.id) == one
        session.send("Why?")
        assert heard(model)[0] == ("assistant", "Huang", "Stand.")
        session.tree.choose(variants[2].id)
        session.send("Why?")
        assert [text for _, _, text in said(session)] == ["Go.", "Why?", "Slowly, then."]
        check(rp, session)

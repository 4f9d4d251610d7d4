"""Settings in layers, facts, several endpoints, views of tenants: what is in force is sent, told, and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from roleplay import (
    BudgetError,
    ChatUnavailableError,
    Endpoint,
    Fact,
    InvalidInputError,
    Persona,
    Sampling,
    SessionSettings,
    TurnOptions,
    TurnStatus,
)
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator import CutStream
from tests.conftest import KEY
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})


def asked(model: ScriptedModel) -> dict[str, Any]:
    """The last request without its messages."""
    return {name: value for name, value in model.requests[-1].items() if name != "messages"}


def sent(model: ScriptedModel) -> list[tuple[str, str]]:
    """The last request's messages."""
    return [(one["role"], one["content"]) for one in model.requests[-1]["messages"]]


def test_the_nearest_layer_wins(database_url: str, scripted: Scripted) -> None:
    """Each value comes from the nearest layer that says it, and preview and turn name that layer."""
    model = scripted()
    engine = SessionSettings(sampling=Sampling(temperature=0.1, top_p=0.1), budget_tokens=9000, language="en")
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=engine) as rp:
        persona = Persona("Huang", settings=SessionSettings(sampling=Sampling(temperature=0.3), time_zone="Asia/Tokyo"))
        session = rp.sessions.create(
            cast=[rp.personas.put(persona)], settings=SessionSettings(sampling=Sampling(temperature=0.4))
        )
        options = TurnOptions(sampling=Sampling(max_completion_tokens=50), model="MiniMax-M2.5")
        preview = session.preview("Deep?", options=options)
        turn = session.send("Deep?", options=options)
        assert model.bodies[-1] == preview.body
        assert asked(model) == {
            "model": "MiniMax-M2.5",
            "max_completion_tokens": 50,
            "temperature": 0.4,
            "top_p": 0.1,
            "stream": False,
        }
        told = {name: (one.value, one.layer) for name, one in turn.call.settings.items()}
        assert told == {
            "temperature": (0.4, "session"),
            "top_p": (0.1, "engine"),
            "max_completion_tokens": (50, "turn"),
            "model": ("MiniMax-M2.5", "turn"),
            "budget_tokens": (9000, "engine"),
            "language": ("en", "engine"),
            "time_zone": ("Asia/Tokyo", "persona"),
            "high_water": (1.0, "default"),
            "low_water": (0.5, "default"),
            "examples": ("keep", "default"),
            "seed": (None, "default"),
        }
        assert preview.settings == turn.call.settings
        assert session.turn(turn.id) == turn


def test_what_nobody_says_is_told_too(database_url: str, scripted: Scripted) -> None:
    """Values of the model's profile, detected ones and defaults have their layer."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("黄", "摆渡的人。"))])
        told = {name: one.layer for name, one in session.send("深吗？").call.settings.items()}
    assert told == {
        "temperature": "default",
        "top_p": "default",
        "max_completion_tokens": "profile",
        "model": "engine",
        "budget_tokens": "default",
        "language": "detected",
        "time_zone": "default",
        "high_water": "default",
        "low_water": "default",
        "examples": "default",
        "seed": "default",
    }


def test_a_session_changes_and_old_turns_keep_theirs(database_url: str, scripted: Scripted) -> None:
    """Other settings and another scene are in force from the next turn on; what is equal writes nothing."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))], scene="A ferry")
        first = session.send("Deep?")
        changed = session.update(scene="A bridge", settings=SessionSettings(model="M2-her"))
        assert (changed.scene, changed.settings.model) == ("A bridge", "M2-her")
        assert session.update(scene="A bridge").version == changed.version
        second = session.send("Deep now?")
        assert [one.call.model_asked for one in (first, second)] == ["MiniMax-M2.7", "M2-her"]
        assert ("group", "A bridge") in sent(model)
        assert second.revision == first.revision + 1
        assert session.turn(first.id) == first
        with session.regenerate(first.id) as again:
            list(again)
        assert ("group", "A bridge") in sent(model)


def test_facts_have_their_place(database_url: str, scripted: Scripted) -> None:
    """In front, among the history, after the newest line; the nearest of a name counts, a blank one takes it out."""
    model = scripted("Deep enough.")
    standing = SessionSettings(
        facts=[
            Fact("{{char}} owns one boat.", name="boat", depth=None),
            Fact("It rains.", name="weather"),
            Fact("It is night.", name="hour"),
        ]
    )
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))], settings=standing)
        session.send("Deep?")
        own = [Fact("It snows.", name="weather"), Fact("", name="hour"), Fact("Be brief.", name="rule", depth=0)]
        session.send("And now?", options=TurnOptions(facts=own))
        assert sent(model) == [
            ("system", "A ferryman.\n\nHuang owns one boat."),
            ("user", "Deep?"),
            ("assistant", "Deep enough."),
            ("user", "[It snows.]\n\nAnd now?\n\n[Be brief.]"),
        ]
        session.send("And then?")
        assert sent(model)[-1] == ("user", "[It rains.]\n\n[It is night.]\n\nAnd then?")


def test_facts_claim_the_budget_by_priority(database_url: str, scripted: Scripted) -> None:
    """What does not fit is dropped with its reason; a required one that does not fit stops the turn, named."""
    facts = [Fact("word " * 60, name="long", priority=70), Fact("short", name="short", priority=40)]
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(
            cast=[rp.personas.put(Persona("Huang"))], settings=SessionSettings(budget_tokens=80, facts=facts)
        )
        report = session.preview("Deep?").report
        kept = {one.section: one.kept_items for one in report.sections}
        assert (kept["fact long"], kept["fact short"]) == (0, 1)
        assert "tokens, " in next(one.reason for one in report.sections if one.section == "fact long")
        with pytest.raises(BudgetError) as raised:
            session.send("Deep?", options=TurnOptions(facts=[Fact("word " * 90, name="law", priority=100)]))
        assert "fact law" in raised.value.sections
        assert session.turns().items == ()


def test_the_time_of_day_is_the_sessions(database_url: str, scripted: Scripted) -> None:
    """Macros of facts are told in the time zone in force: the same moment, other words."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        fact = Fact("{{date}} {{time}}", name="now", depth=0)
        for zone in ("Pacific/Kiritimati", "Pacific/Midway"):  # a day and an hour apart
            settings = SessionSettings(time_zone=zone, facts=[fact])
            rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))], settings=settings).send("When?")
    days = [one["messages"][-1]["content"].split("[")[1].split()[0] for one in model.requests]
    assert days[0] > days[1]


@pytest.mark.parametrize("reply", ["streamed", "whole"])
def test_another_endpoint_is_asked(database_url: str, scripted: Scripted, reply: str) -> None:
    """When the first is unavailable to the end, the next is asked with its own dialect; each attempt is a call."""
    busy = ChatUnavailableError("busy", code=1002, status=429)
    model = scripted(busy, busy, "Here.")
    first = MODEL.evolve(retry={"attempts": 2, "first_pause_s": 0})
    local = Endpoint("local", base_url="http://127.0.0.1:9/v1", window_tokens=9000)
    with Roleplay.open(database_url, model=[first, local], chat=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))], scene="A ferry")
        if reply == "streamed":
            with session.stream("Deep?") as stream:
                list(stream)
            turn = stream.turn
        else:
            turn = session.send("Deep?")
        assert (turn.status, turn.reply.text) == (TurnStatus.COMPLETED, "Here.")
        assert [(one.model_asked, one.dialect) for one in turn.calls] == [
            ("MiniMax-M2.7", "minimax"),
            ("MiniMax-M2.7", "minimax"),
            ("local", "openai"),
        ]
        assert turn.call.settings["budget_tokens"].value < 9000
        assert {one["role"] for one in model.requests[-1]["messages"]} == {"system", "user"}
        assert session.turn(turn.id) == turn


def test_nobody_else_is_asked_after_words_were_shown(database_url: str, simulator: Simulator) -> None:
    """A stream that breaks in the middle is not begun anew elsewhere."""
    simulator.next(CutStream(after_chunks=2))
    first = Endpoint("MiniMax-M2.7", base_url=simulator.base_url, api_key=KEY, dialect="minimax")
    with Roleplay.open(database_url, model=[first, first.evolve(model="MiniMax-M2.5")]) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        with pytest.raises(ChatUnavailableError), session.stream("Deep?") as stream:
            list(stream)
        [turn] = session.turns()
        assert (turn.status, len(turn.calls)) == (TurnStatus.INTERRUPTED, 1)


def test_a_view_of_another_tenant(database_url: str, scripted: Scripted) -> None:
    """Its own rows, model and settings; closing it closes nothing."""
    model = scripted()
    engine = SessionSettings(sampling=Sampling(temperature=0.1, top_p=0.1))
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=engine) as rp:
        mine = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", key="huang"))])
        view = rp.for_tenant(
            "other", model=Endpoint("M2-her", api_key="k-2"), settings=SessionSettings(sampling=Sampling(top_p=0.2))
        )
        assert view.sessions.list().items == ()
        theirs = view.sessions.create(cast=[view.personas.put(Persona("Huang", key="huang"))])
        turn = theirs.send("Deep?")
        told = {name: (one.value, one.layer) for name, one in turn.call.settings.items()}
        assert (told["temperature"], told["top_p"]) == ((0.1, "engine"), (0.2, "tenant"))
        assert turn.call.model_asked == "M2-her"
        view.close()
        assert mine.send("Still?").call.model_asked == "MiniMax-M2.7"
        assert [one.id for one in rp.sessions.list()] == [mine.id]


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("language", {"language": "xx"}),
        ("time_zone", {"time_zone": "Mars/Olympus"}),
        ("model", {"model": "no-such-model"}),
    ],
)
def test_what_cannot_be_is_named_at_once(
    database_url: str, scripted: Scripted, field: str, settings: dict[str, Any]
) -> None:
    """Wherever settings are given: to the engine, a persona, a session, a change of it."""
    bad = SessionSettings(**settings)
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        persona = rp.personas.put(Persona("Huang"))
        session = rp.sessions.create(cast=[persona])
        for door in (
            lambda: rp.personas.put(Persona("Other", settings=bad)),
            lambda: rp.sessions.create(cast=[persona], settings=bad),
            lambda: session.update(settings=bad),
            lambda: rp.for_tenant("other", settings=bad),
        ):
            with pytest.raises(InvalidInputError) as told:
                door()
            assert told.value.field == field
        assert len(rp.sessions.list()) == 1


def test_two_facts_of_one_name_are_one_too_many() -> None:
    """The field is named."""
    with pytest.raises(InvalidInputError, match=r"^facts: two of them are named 'a'"):
        TurnOptions(facts=[Fact("1", name="a"), Fact("2", name="a")])


@pytest.mark.parametrize(
    ("persona", "line", "language"),
    [
        (Persona("黄", "摆渡的人。"), "深吗？", "zh"),
        (Persona("渡し守", "川のほとりに住んでいる。"), "深いですか？", "ja"),
    ],
)
def test_no_english_word_of_ours(
    database_url: str, scripted: Scripted, persona: Persona, line: str, language: str
) -> None:
    """A Chinese or Japanese session's requests hold no Latin letter beside roles and field names, resumed ones too."""
    model = scripted("船" * 400, "岸。")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(persona)], scene="夜")
        with session.stream(line) as reply:
            next(iter(reply))
        if reply.turn.status is TurnStatus.INTERRUPTED:
            with session.resume(reply.turn.id) as rest:
                list(rest)
        assert session.send(line).call.settings["language"].value == language
    for body in model.bodies:
        for message in json.loads(body)["messages"]:
            assert not any("a" <= char.lower() <= "z" for char in message["content"] + message["name"])

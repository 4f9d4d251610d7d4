"""What no caller may ask: a clear error that names the field, on both databases and in both shells alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from roleplay import AsyncRoleplay, Endpoint, InvalidInputError, NotFoundError, Persona, SettingsError, TurnOptions
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

MODEL = Endpoint("MiniMax-M2.7")
NUL, HALF = "a\x00b", "\ud83d"
ASKED: dict[str, tuple[str, Callable[[Any, Any], object]]] = {
    "an owner that is a number": ("owner", lambda rp, one: rp.sessions.create(cast=[one], owner=17)),
    "an owner with a NUL": ("owner", lambda rp, one: rp.sessions.create(cast=[one], owner=NUL)),
    "a limit that is text": ("limit", lambda rp, _: rp.sessions.list(limit="5")),
    "a limit of nothing": ("limit", lambda rp, _: rp.personas.list(limit=0)),
    "a session named by a number": ("session_id", lambda rp, _: rp.sessions.get(17)),
    "a session named with a NUL": ("session_id", lambda rp, _: rp.sessions.get(NUL)),
    "a persona named by a number": ("name", lambda rp, _: rp.personas.get(17)),
    "a persona named with half a character": ("name", lambda rp, _: rp.personas.get(HALF)),
    "a cursor that is a number": ("before", lambda rp, _: rp.sessions.list(before=5)),
    "a cursor of personas that is a list": ("before", lambda rp, _: rp.personas.list(before=[])),
    "a cast that is no list": ("cast", lambda rp, one: rp.sessions.create(cast=one)),
    "a cast of numbers": ("cast[0]", lambda rp, _: rp.sessions.create(cast=[17])),
}


@pytest.mark.parametrize("asked", ASKED)
def test_the_field_is_named(database_url: str, scripted: Callable[..., ScriptedModel], asked: str) -> None:
    """``InvalidInputError`` says which field, and nothing is written."""
    field, door = ASKED[asked]
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        persona = rp.personas.put(Persona("Huang"))
        with pytest.raises(InvalidInputError) as told:
            door(rp, persona)
        assert told.value.field == field
        assert rp.sessions.list().items == ()


ON_A_TURN: dict[str, Callable[[Any, Any], object]] = {
    "turn": lambda chat, it: chat.turn(it),
    "verdicts": lambda chat, it: chat.verdicts(it),
    "follow": lambda chat, it: chat.follow(it),
    "retry": lambda chat, it: chat.retry(it),
    "resume": lambda chat, it: chat.resume(it),
    "regenerate": lambda chat, it: chat.regenerate(it),
    "regenerate once": lambda chat, it: chat.regenerate(it, options=TurnOptions(idempotency_key="once")),
    "accept": lambda chat, it: chat.accept(it),
    "choose": lambda chat, it: chat.tree.choose(it),
    "fork": lambda chat, it: chat.tree.fork(it),
    "edit": lambda chat, it: chat.tree.edit(it, "Other words."),
    "hide": lambda chat, it: chat.tree.hide(it),
    "show": lambda chat, it: chat.tree.show(it),
    "variants": lambda chat, it: chat.tree.variants(it),
}
OPTIONAL = {"retry", "resume", "regenerate", "regenerate once"}
WITH_OPTIONS: dict[str, Callable[[Any, Any], object]] = {
    "send": lambda chat, it: chat.send("Well?", options=it),
    "stream": lambda chat, it: chat.stream("Well?", options=it),
    "preview": lambda chat, it: chat.preview("Well?", options=it),
    "add": lambda chat, it: chat.add("Well.", options=it),
    "speak": lambda chat, it: chat.speak(options=it),
    "retry": lambda chat, it: chat.retry(options=it),
    "resume": lambda chat, it: chat.resume(options=it),
    "regenerate": lambda chat, it: chat.regenerate(options=it),
}
NUMBERS: dict[str, tuple[str, Callable[[Any, Any], object], tuple[object, ...]]] = {
    "turn": ("turn_id", lambda chat, it: chat.turn(it), (2**70, -1, True)),
    "rewind": ("turns", lambda chat, it: chat.tree.rewind(it), ("x", 1.5, None, 2**70, 0, True)),
    "turns": ("limit", lambda chat, it: chat.turns(limit=it), ("5", 1.5, None, 2**70, 0, True)),
    "follow": ("offset", lambda chat, it: chat.follow(chat.turns().items[0].id, offset=it), ("5", 1.5, 2**70, -1)),
}


@pytest.fixture
def chat(database_url: str, scripted: Callable[..., ScriptedModel]) -> Iterator[Any]:
    """A session with a turn, which nothing here may change."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("Come.")) as rp:
        one = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        one.send("Can we cross?")
        before = one.info(), one.turns()
        yield one
        assert (one.info(), one.turns()) == before


def refused(door: Callable[[Any, Any], object], chat: Any, asked: object) -> str:
    """The field that is named when a door is asked for what cannot be."""
    with pytest.raises(InvalidInputError) as told:
        door(chat, asked)
    return told.value.field


@pytest.mark.parametrize("name", ON_A_TURN)
def test_a_turn_that_cannot_be(chat: Any, name: str) -> None:
    """What is no id of a turn is refused by name; an id that no turn has is not found."""
    door = ON_A_TURN[name]
    for asked in (*([] if name in OPTIONAL else [None]), *([] if name == "turn" else [17]), [], object(), NUL, HALF):
        assert refused(door, chat, asked) == "turn_id", asked
    with pytest.raises(NotFoundError):
        door(chat, "no-such-turn")


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_options_that_cannot_be(chat: Any, name: str) -> None:
    for asked in (None, {}, "wait", TurnOptions):
        assert refused(WITH_OPTIONS[name], chat, asked) == "options", asked


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_cannot_be(chat: Any, name: str) -> None:
    field, door, numbers = NUMBERS[name]
    for asked in numbers:
        assert refused(door, chat, asked) == field, asked


def test_cursors_that_cannot_be(chat: Any) -> None:
    for asked in (5, 1.5, [], object(), "5", "turn-", "turn-9999999999999", NUL, HALF, True):
        assert refused(lambda chat, it: chat.turns(before=it), chat, asked) == "before", asked


def test_a_blocking_model_is_not_for_asyncio(sqlite_url: str) -> None:
    """It is refused when the engine opens, and the error names what to give."""
    with pytest.raises(SettingsError, match="give its twin"):
        asyncio.run(AsyncRoleplay.open(sqlite_url, model=MODEL, chat=ScriptedModel()))

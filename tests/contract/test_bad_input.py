"""What no caller may ask: a clear error that names the field, on both databases and in both shells alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from roleplay import Endpoint, InvalidInputError, NotFoundError, Persona
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
    "a cast that is no list": ("cast", lambda rp, one: rp.sessions.create(cast=one)),
    "a cast of numbers": ("name", lambda rp, _: rp.sessions.create(cast=[17])),
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


def test_a_turn_that_cannot_be(database_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """An id that no turn can have is refused or not found, never an error of the database."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        for door in (session.turn, session.retry, session.regenerate, session.tree.choose):
            with pytest.raises((InvalidInputError, NotFoundError)):
                door(NUL)

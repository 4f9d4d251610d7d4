"""The two front doors are one: the same doors under the same names, with the same arguments, awaited or not."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import roleplay
from roleplay import AsyncRoleplay, Endpoint, Persona, Roleplay
from roleplay.chat.transport import Answer, AsyncAnswer, AsyncTransport, Transport
from roleplay.testing import ScriptedModel

ENDPOINT = Endpoint("MiniMax-M2.7")
TWINS: dict[str, tuple[type, type]] = {
    "Roleplay": (roleplay.Roleplay, roleplay.AsyncRoleplay),
    "Personas": (roleplay.engine.Personas, roleplay.aio.AsyncPersonas),
    "Sessions": (roleplay.engine.Sessions, roleplay.aio.AsyncSessions),
    "UsageReports": (roleplay.engine.UsageReports, roleplay.aio.AsyncUsageReports),
    "Replay": (roleplay.replay.Replay, roleplay.aio.AsyncReplay),
    "ChatSession": (roleplay.ChatSession, roleplay.AsyncChatSession),
    "Tree": (roleplay.session.handle.Tree, roleplay.session.aio.handle.AsyncTree),
    "Cast": (roleplay.session.handle.Cast, roleplay.session.aio.handle.AsyncCast),
    "Stream": (roleplay.session.stream.Stream, roleplay.session.aio.stream.AsyncStream),
    "ReplyStream": (roleplay.ReplyStream, roleplay.AsyncReplyStream),
    "RoundStream": (roleplay.RoundStream, roleplay.AsyncRoundStream),
    "Transport": (Transport, AsyncTransport),
    "Answer": (Answer, AsyncAnswer),
}
PROTOCOLS = {"__enter__": "__aenter__", "__exit__": "__aexit__", "__iter__": "__aiter__"}
AT_ONCE = {"__init__", "for_tenant", "seen_by"}  # methods that have nothing to wait for
ONLY_ASYNC = {
    "Stream.begin",
    "ReplyStream.begin",
    "RoundStream.begin",
}  # what the other one's constructor does, which cannot wait


def plain(text: str) -> str:
    """The same words without what asyncio adds to them."""
    return re.sub(r"\bAsync(?=[A-Z])", "", text)


def doors(kind: type) -> dict[str, Any]:
    """The public methods and properties of a class, and those that ``with`` and ``for`` use, by the blocking name."""
    blocking = {theirs: ours for ours, theirs in PROTOCOLS.items()}
    found: dict[str, Any] = {}
    for one in reversed(kind.__mro__[:-1]):
        for name, value in vars(one).items():
            is_door = callable(value) or isinstance(value, property | classmethod)
            if is_door and (not name.startswith("_") or name in blocking or name in PROTOCOLS or name == "__init__"):
                found[blocking.get(name, name)] = value
    return found


def function(door: Any) -> Callable[..., Any]:
    """The function of a method, class method or property."""
    found: Callable[..., Any] = door.fget if isinstance(door, property) else getattr(door, "__func__", door)
    return found


def signature(door: Any) -> str:
    """Arguments, defaults, annotations and result, as they are written."""
    return plain(str(inspect.signature(function(door))))


def test_no_twin_is_forgotten() -> None:
    """Every public class of asyncio's is compared with its original, which is public as well."""
    named = {name for name in roleplay.__all__ if name.startswith("Async")}
    assert {plain(name) for name in named} <= set(roleplay.__all__)
    modules = (roleplay.aio, roleplay.session.aio.handle, roleplay.session.aio.stream)
    found = {
        name
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and name.startswith("Async")
    }
    assert named <= found | {kind.__name__ for _, kind in TWINS.values()}
    assert {plain(name) for name in found} <= set(TWINS)


@pytest.mark.parametrize("name", TWINS)
def test_the_doors_are_the_same(name: str) -> None:
    """Each door of one is a door of the other: of the same kind, with the same signature."""
    one, twin = map(doors, TWINS[name])
    assert set(one) == set(twin) - {door.partition(".")[2] for door in ONLY_ASYNC if door.startswith(f"{name}.")}
    for door, value in one.items():
        theirs = twin[door]
        assert type(theirs) is type(value), door
        assert signature(theirs) == signature(value), door


@pytest.mark.parametrize("name", TWINS)
def test_what_may_wait_is_awaited(name: str) -> None:
    """A method of asyncio's is a coroutine, or an asynchronous iterator where its original is an iterator; no other
    thing is, and nothing of the blocking side."""
    one, twin = map(doors, TWINS[name])
    for door, value in one.items():
        ours, theirs = function(value), function(twin[door])
        assert not inspect.iscoroutinefunction(ours), door
        assert not inspect.isasyncgenfunction(ours), door
        waits = inspect.iscoroutinefunction(theirs) or inspect.isasyncgenfunction(theirs)
        assert waits is not (isinstance(value, property) or door in AT_ONCE), door
        assert inspect.isasyncgenfunction(theirs) is inspect.isgeneratorfunction(ours), door


@pytest.mark.parametrize("name", TWINS)
def test_the_twin_names_its_original(name: str) -> None:
    """The sentence of each twin sends the reader to its original, or says the same."""
    original, twin = TWINS[name]
    assert f"``{original.__name__}``" in (twin.__doc__ or "")
    theirs = doors(twin)
    for door, value in doors(original).items():
        if door.startswith("_") or isinstance(value, property):
            continue
        said, first = (inspect.getdoc(function(one)) or "" for one in (theirs[door], value))
        assert said in {f"As ``{name}.{door}``.", first}, door


def test_the_handles_have_the_same_parts() -> None:
    """What an engine and a session hold in their hands, and how they show themselves, is the same too."""
    persona = Persona("Huang")
    with Roleplay.open("sqlite://", model=ENDPOINT, chat=ScriptedModel()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(persona)])
        blocking = parts(rp), parts(session), repr(session).replace(session.id, "")

    async def other() -> tuple[dict[str, str], dict[str, str], str]:
        async with await AsyncRoleplay.open("sqlite://", model=ENDPOINT, chat=ScriptedModel().aio) as rp:
            session = await rp.sessions.create(cast=[await rp.personas.put(persona)])
            return parts(rp), parts(session), plain(repr(session)).replace(session.id, "")

    assert asyncio.run(other()) == blocking


def parts(thing: object) -> dict[str, str]:
    """The public attributes of an object, with the kind of each."""
    return {name: plain(type(value).__name__) for name, value in vars(thing).items() if not name.startswith("_")}

"""What callers write, as a type checker without plugins must take it, and below what it must refuse.

Checked by ``dev.py lint``, and by ``.ci/wheel`` on the installed wheel with mypy and with pyright. Both complain of an
``ignore`` that is not needed. A test runs ``allowed``.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from roleplay import (
    AsyncRoleplay,
    ChatUnavailableError,
    Checked,
    Counter,
    Dialect,
    Endpoint,
    ExampleDialogue,
    ExampleLine,
    Fact,
    Message,
    ModelCall,
    Persona,
    Retry,
    Roleplay,
    RoleplayError,
    Sampling,
    SessionSettings,
    Turn,
    TurnEvent,
    TurnOptions,
    Usage,
    Verdict,
    Words,
)
from roleplay.testing import ScriptedModel

# -- values, with one field at a time and with all of them -------------------------------------------------------------


def samplings() -> Sequence[Sampling]:
    return (
        Sampling(),
        Sampling(temperature=0.7),
        Sampling(temperature=1, top_p=None),
        Sampling(top_p=0.9),
        Sampling(max_completion_tokens=300),
        Sampling(temperature=0.7, top_p=0.9, max_completion_tokens=300).evolve(top_p=0.8),
    )


def settings() -> Sequence[SessionSettings]:
    return (
        SessionSettings(),
        SessionSettings(sampling=Sampling(temperature=0.7)),
        SessionSettings(budget_tokens=4000),
        SessionSettings(model="M2-her"),
        SessionSettings(language="zh"),
        SessionSettings(time_zone="Asia/Shanghai"),
        SessionSettings(high_water=0.9),
        SessionSettings(low_water=0.5),
        SessionSettings(examples="fade"),
        SessionSettings(seed=7),
        SessionSettings(facts=[Fact("It rains.")]),
        SessionSettings(facts=(Fact("It rains."), Fact("It is late.", name="hour"))),
    )


def facts() -> Sequence[Fact]:
    return (
        Fact("It rains."),
        Fact(text="It rains."),
        Fact("It rains.", name="weather"),
        Fact("It rains.", depth=None),
        Fact("It rains.", depth=0, priority=100),
    )


def options(endpoint: Endpoint) -> Sequence[TurnOptions]:
    return (
        TurnOptions(),
        TurnOptions(idempotency_key="a"),
        TurnOptions(on_conflict="wait"),
        TurnOptions(on_conflict="wait", wait_s=5),
        TurnOptions(wait_s=2.5),
        TurnOptions(sampling=Sampling(top_p=0.9)),
        TurnOptions(model="M2-her"),
        TurnOptions(model=endpoint),
        TurnOptions(facts=[Fact("It rains.")]),
        TurnOptions(metadata={"id": 7, "tags": ["a"]}),
        TurnOptions(on_disconnect="finish"),
    )


def personas(dialogue: ExampleDialogue) -> Sequence[Persona]:
    sheet: dict[str, Any] = {"name": "Huang", "description": "A ferryman."}
    return (
        Persona("Huang"),
        Persona("Huang", "A ferryman."),
        Persona(name="Huang", description="A ferryman.", key="huang"),
        Persona(
            "Huang", personality="Calm.", scenario="Night.", system_prompt="Play.", post_history="Short.", note="Wet."
        ),
        Persona("Huang", greetings=["Step in."], tags=["river"], nickname="Old Huang"),
        Persona("Huang", greetings=("Step in.", "Sit."), tags={"river"}),
        Persona("Huang", greetings=(f"Step {where}." for where in ("in", "over"))),
        Persona("Huang", examples=[dialogue]),
        Persona("Huang", examples=(dialogue, "{{char}}: Aye.")),
        Persona("Huang", examples=["{{char}}: Aye."]),
        Persona("Huang", examples=[[ExampleLine(speaker="{{char}}", text="Aye.")]]),
        Persona("Huang", examples=[[{"{{user}}": "Deep?"}, {"{{char}}": "Aye."}]]),
        Persona("Huang", metadata={"a": 1}, extensions={"b": [None]}),
        Persona("Huang", settings=SessionSettings(language="zh")),
        Persona(**sheet).evolve(key="huang"),
    )


def dialogues() -> Sequence[ExampleDialogue]:
    line = ExampleLine(speaker="{{char}}", text="Aye.")
    return (
        ExampleDialogue(lines=(line,)),
        ExampleDialogue(lines=[line, line]),
        ExampleDialogue.parse("{{user}}: Deep?\n{{char}}: Aye."),
        ExampleDialogue.parse("Huang: Aye.", names=["Huang"]),
    )


def endpoints() -> Sequence[Endpoint]:
    return (
        Endpoint("MiniMax-M2.7"),
        Endpoint("MiniMax-M2.7", api_key="a-key"),
        Endpoint(model="here", base_url="http://127.0.0.1:11434/v1", window_tokens=8192, dialect="openai"),
        Endpoint("here", window_tokens=8192, dialect=Dialect.STRICT, path="/chat", headers={"X-Team": "a"}),
        Endpoint("here", window_tokens=8192, budget_tokens=None, reply_tokens=500, cap_name="max_tokens", api_key=None),
        Endpoint("here", window_tokens=8192, timeout_s=30, retry=Retry(attempts=5)),
        Endpoint("here", window_tokens=8192, retry={"attempts": 1}),
        Endpoint("here", window_tokens=8192, retry=Retry(first_pause_s=0, longest_pause_s=1.5, total_s=9)),
    )


def answers() -> Sequence[Verdict | Checked | Usage | TurnEvent]:
    return (
        Verdict(),
        Verdict.refuse("rude"),
        Verdict.replace("***", "a number"),
        Checked(side="human", text="Hi.", speaker="You", tenant="default", session_id="s"),
        Usage(),
        TurnEvent(kind="completed", tenant="t", session_id="s", turn_id="t", model="m", host="h", at=datetime.now(UTC)),
    )


# -- what callers give to the engine -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByWords:
    """A counter as a frozen value."""

    name: str = "words"
    exact: bool = True

    def count(self, text: str) -> int:
        return len(text.split())


class ByLength(NamedTuple):
    """A counter as a tuple."""

    name: str = "length"
    exact: bool = False

    def count(self, text: str) -> int:
        return len(text)


class ByBytes:
    """A counter as a plain class."""

    name = "bytes"
    exact = True

    def count(self, text: str) -> int:
        return len(text.encode())


def guard(what: Checked) -> Verdict | None:
    return Verdict.refuse("rude") if "fool" in what.text else None


async def async_guard(what: Checked) -> Verdict | None:
    return guard(what)


def observer(event: TurnEvent) -> None:
    assert event.turn_id


async def async_observer(event: TurnEvent) -> None:
    observer(event)


def open_with_all(url: str, model: ScriptedModel, counter: Counter) -> Roleplay:
    return Roleplay.open(
        url,
        model=["MiniMax-M2.7", Endpoint("M2-her")],
        chat=model,
        settings=SessionSettings(language="en"),
        counter=counter,
        guards=[guard, lambda what: None],  # noqa: ARG005
        observers=[observer],
    )


async def open_async(url: str) -> AsyncRoleplay:
    return await AsyncRoleplay.open(url, guards=[guard, async_guard], observers=[observer, async_observer])


# -- what callers read -------------------------------------------------------------------------------------------------


def read(turn: Turn) -> tuple[str, int | None, Message | None, ModelCall | None, Mapping[str, Any]]:
    return turn.text, turn.usage.total_tokens, turn.reply, turn.call, turn.metadata


def failed(error: RoleplayError) -> tuple[str, int, bool, str | None, Mapping[str, Any]]:
    return error.slug, error.http_status, error.retryable, error.turn_id, error.to_dict()


def allowed(url: str, model: ScriptedModel) -> Sequence[Turn]:
    """Make every value, and hold a conversation with each counter; gives its turns."""
    turns: list[Turn] = []
    assert all((*samplings(), *settings(), *facts(), *answers(), *personas(dialogues()[0])))
    model.say("Aye.", ChatUnavailableError("down"), lambda messages: str(len(messages)))
    for counter in (ByWords(), ByLength(), ByBytes()):
        with open_with_all(url, model, counter) as rp:
            huang = rp.personas.put(Persona("Huang", key="huang"))
            session = rp.sessions.create(cast=[huang], user="huang", metadata={"a": 1}, settings=settings()[-1])
            for one in options(endpoints()[0])[:3]:
                try:
                    turns.append(session.send("Deep?", options=one))
                except RoleplayError as error:
                    failed(error)
            with session.stream("And there?", options=TurnOptions(metadata={"n": 1})) as reply:
                assert [delta.text for delta in reply if delta.kind == "speech"]
            turns.append(reply.turn)
    assert all(read(turn) for turn in turns)
    return turns


# -- what a checker refuses: without these an editor would show nothing ------------------------------------------------


def refused(turn: Turn) -> None:
    """Never run: every line is a mistake that a checker tells before."""
    Persona()  # type: ignore[call-arg]
    Persona("Huang", descripton="A ferryman.")  # type: ignore[call-arg]
    Persona("Huang", tags=[7])  # type: ignore[list-item]
    Persona("Huang", "A ferryman.", "Calm.")  # type: ignore[call-arg]
    Fact()  # type: ignore[call-arg]
    Fact("It rains.", prio=3)  # type: ignore[call-arg]
    Fact("It rains.", depth="top")  # type: ignore[arg-type]
    Sampling(temprature=0.7)  # type: ignore[call-arg]
    Sampling(temperature="hot")  # type: ignore[arg-type]
    SessionSettings(examples="all")  # type: ignore[arg-type]
    TurnOptions(on_conflict="queue")  # type: ignore[arg-type]
    TurnOptions(idempotency="a")  # type: ignore[call-arg]
    Endpoint()  # type: ignore[call-arg]
    Endpoint("here", window="8k")  # type: ignore[call-arg]
    Endpoint("here", window_tokens="8k")  # type: ignore[arg-type]
    Endpoint("here", dialect=7)  # type: ignore[arg-type]
    Retry(attempts="many")  # type: ignore[arg-type]
    ExampleLine(speaker="Huang")  # type: ignore[call-arg]
    len(turn.reply.text)  # type: ignore[union-attr]
    Words()  # type: ignore[call-arg]

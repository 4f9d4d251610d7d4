"""Guards allow, replace and refuse, before a line is stored and before a reply is shown; observers only look on."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from roleplay import (
    ChatAuthError,
    Checked,
    Endpoint,
    Persona,
    RefusedError,
    TurnEvent,
    TurnOptions,
    TurnStatus,
    Verdict,
)
from roleplay.testing import ScriptedModel
from tests.support import shells
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})


def of(side: str, verdict: Verdict, word: str = "") -> Callable[[Checked], Verdict | None]:
    """A guard that says the same of every text of one side that holds a word."""

    def guard(what: Checked) -> Verdict | None:
        return verdict if what.side == side and word in what.text else None

    return guard


def talk(rp: Any) -> Any:
    """A new session."""
    return rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])


def kept(session: Any, turn_id: str) -> list[tuple[str, str, str, str | None]]:
    """What is kept of the verdicts on a turn."""
    return [(one.side, one.action, one.reason, one.original) for one in session.verdicts(turn_id)]


@pytest.mark.parametrize("originals", [True, False])
def test_a_line_is_replaced(database_url: str, scripted: Scripted, originals: bool) -> None:
    """The model sees, and the session keeps, what the guard gave; the original is kept only when that is wanted."""
    model = scripted()
    guards = [of("human", Verdict.replace("My number is ***.", "a number"), "555")]
    with Roleplay.open(database_url, model=MODEL, chat=model, guards=guards, keep_originals=originals) as rp:
        session = talk(rp)
        turn = session.send("My number is 555.")
        assert turn.human.text == "My number is ***."
        assert model.requests[-1]["messages"][-1]["content"] == "My number is ***."
        original = "My number is 555." if originals else None
        assert kept(session, turn.id) == [("human", "replace", "a number", original)]
        assert kept(session, session.send("Hello.").id) == []


def test_a_line_is_refused(database_url: str, scripted: Scripted) -> None:
    """Nothing is written and the model is not asked."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model, guards=[of("human", Verdict.refuse("rude"))]) as rp:
        session = talk(rp)
        with pytest.raises(RefusedError) as told:
            session.send("You fool.")
        assert (told.value.side, told.value.reason, told.value.turn_id) == ("human", "rude", None)
        assert session.turns().items == ()
        assert model.bodies == []


def test_a_reply_is_replaced(database_url: str, scripted: Scripted) -> None:
    """The second guard is asked about what the first left; what is stored is what the caller is given."""
    guards = [
        of("reply", Verdict.replace("The sum is ***."), "42"),
        of("reply", Verdict.replace("It costs something.", "prices"), "***"),
    ]
    with Roleplay.open(
        database_url, model=MODEL, chat=scripted("The sum is 42."), guards=guards, keep_originals=True
    ) as rp:
        session = talk(rp)
        turn = session.send("How much?")
        assert turn.reply.text == "It costs something."
        assert session.turn(turn.id) == turn
        assert kept(session, turn.id) == [
            ("reply", "replace", "", "The sum is 42."),
            ("reply", "replace", "prices", "The sum is ***."),
        ]


def test_a_reply_is_refused(database_url: str, scripted: Scripted) -> None:
    """The turn is stored as failed, with its usage and no text; another attempt may be made."""
    model = scripted("A secret.", "Nothing.")
    with Roleplay.open(
        database_url, model=MODEL, chat=model, guards=[of("reply", Verdict.refuse("no secrets"), "secret")]
    ) as rp:
        session = talk(rp)
        with pytest.raises(RefusedError) as told:
            session.send("What do you know?")
        [turn] = session.turns()
        assert (turn.id, turn.status, turn.reply) == (told.value.turn_id, TurnStatus.FAILED, None)
        assert turn.error["slug"] == "refused"
        assert turn.usage.total_tokens is not None
        assert kept(session, turn.id) == [("reply", "refuse", "no secrets", None)]
        with session.retry() as again:
            list(again)
        assert again.turn.reply.text == "Nothing."


def test_a_stream_is_asked_about_by_the_sentence(database_url: str, scripted: Scripted) -> None:
    """No piece of a sentence is shown before its guard has passed it, nor anything of one that it refused."""
    asked: list[tuple[str, str]] = []

    def guard(what: Checked) -> Verdict | None:
        asked.append((what.before, what.text))
        if "two" in what.text:
            return Verdict.replace("Second. ")
        return Verdict.refuse("too much") if "three" in what.text else None

    text = "This is one. This is two. This is three. This is four."
    only = [lambda what: guard(what) if what.side == "reply" else None]
    with Roleplay.open(database_url, model=MODEL, chat=scripted(text), guards=only) as rp:
        session = talk(rp)
        heard: list[str] = []
        with pytest.raises(RefusedError, match="too much"), session.stream("Count.") as reply:
            heard += [delta.text for delta in reply]
        [turn] = session.turns()
        assert "".join(heard) in {"This is one. Second. ", ""}  # a test's own loop may not keep what came before
        assert (turn.status, turn.reply.text) == (TurnStatus.INTERRUPTED, "This is one. Second. ")
        assert asked == [
            ("", "This is one. "),
            ("This is one. ", "This is two. "),
            ("This is one. Second. ", "This is three. "),
        ]


def test_what_is_no_sentence_is_not_held_for_ever(database_url: str, scripted: Scripted) -> None:
    """A text without an end is asked about in parts of some hundred characters."""
    lengths: list[int] = []

    def guard(what: Checked) -> None:
        if what.side == "reply":
            lengths.append(len(what.text))

    text = "word " * 400
    with Roleplay.open(database_url, model=MODEL, chat=scripted(text), guards=[guard]) as rp:
        reply = talk(rp).stream("Go on.")
        heard = "".join(delta.text for delta in reply)
    assert heard == text
    assert 300 < max(lengths) <= 400


@pytest.mark.parametrize("fault", ["raises", "is slow", "gives nonsense"])
@pytest.mark.parametrize("side", ["human", "reply"])
def test_a_guard_that_fails_refuses(database_url: str, scripted: Scripted, fault: str, side: str) -> None:
    """What was not passed is not said."""

    def guard(what: Checked) -> Any:
        if what.side != side:
            return None
        if fault == "raises":
            raise ValueError("a secret of the product")
        if fault == "is slow":
            return slow()
        return "nonsense"

    def slow() -> Any:
        return time.sleep(0.6) if shells.current == "sync" else asyncio.sleep(0.6)

    with Roleplay.open(database_url, model=MODEL, chat=scripted(), guards=[guard], guard_timeout_s=0.2) as rp:
        session = talk(rp)
        with pytest.raises(RefusedError) as told:
            session.send("Hello?")
        words = {"raises": "failed: ValueError", "is slow": "longer than 0.2 s", "gives nonsense": "failed: TypeError"}
        assert words[fault] in str(told.value)
        assert "secret" not in str(told.value)
        assert [turn.status for turn in session.turns()] == ([] if side == "human" else [TurnStatus.FAILED])


def test_a_key_is_judged_once(database_url: str, scripted: Scripted) -> None:
    """The same call again gives the stored turn, without asking guard or model."""
    asked: list[str] = []

    def guard(what: Checked) -> None:
        asked.append(what.side)

    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model, guards=[guard]) as rp:
        session = talk(rp)
        options = TurnOptions(idempotency_key="k")
        first = session.send("Hello.", options=options)
        assert session.send("Hello.", options=options) == first
    assert asked == ["human", "reply"]
    assert len(model.bodies) == 1


def test_the_log_is_silent_until_it_is_asked_for() -> None:
    """A program that sets up no log sees nothing of ours on its standard error."""
    program = (
        "from roleplay import *; from roleplay.testing import ScriptedModel\n"
        "rp = Roleplay.open('sqlite://', model=Endpoint('MiniMax-M2.7'), chat=ScriptedModel(ChatAuthError('no')))\n"
        "try: rp.sessions.create(cast=[rp.personas.put(Persona('Huang'))]).send('Hello?')\n"
        "except ChatAuthError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_observers_look_on(database_url: str, scripted: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """They are told of each beginning and end, with figures and no text; one that raises changes nothing."""
    seen: list[TurnEvent] = []

    def broken(_event: TurnEvent) -> None:
        raise ValueError("a secret of the product")

    model = scripted("Here, said the ferryman.", ChatAuthError("refused", code=1004, status=401))
    caplog.set_level(logging.DEBUG, logger="roleplay")
    with Roleplay.open(database_url, model=MODEL, chat=model, observers=[broken, seen.append]) as rp:
        session = talk(rp)
        turn = session.send("Where is the ferry?")
        with pytest.raises(ChatAuthError):
            session.send("And the bridge?")
    assert [one.kind for one in seen] == ["claimed", "completed", "claimed", "failed"]
    assert (seen[1].turn_id, seen[1].usage, seen[1].attempts) == (turn.id, turn.usage, 1)
    assert seen[3].error == "chat_auth"
    assert caplog.text.count("an observer failed: ValueError") == 4
    for secret in ("ferr", "bridge", "secret"):
        assert secret not in caplog.text
    assert f"turn={turn.id}" in caplog.text

"""What every database must keep of a turn, whatever happens beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from roleplay import (
    ChatUnavailableError,
    ConflictError,
    Endpoint,
    Persona,
    SessionSettings,
    TurnStatus,
)
from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})

DIE = """
import os, sys
from roleplay import Endpoint, Roleplay
from roleplay.testing import ScriptedModel
url, session_id, how = sys.argv[1:]
model = ScriptedModel((lambda messages: os._exit(9)) if how == "pending" else "word " * 400)
with Roleplay.open(url, model=Endpoint("MiniMax-M2.7"), chat=model) as rp:
    session = rp.sessions.get(session_id)
    if how == "pending":
        session.send("Lost?")
    with session.stream("Lost?") as reply:
        for number, delta in enumerate(reply):
            if number == 60:
                os._exit(9)
"""


@pytest.mark.parametrize(("how", "status"), [("pending", TurnStatus.FAILED), ("streaming", TurnStatus.INTERRUPTED)])
def test_a_dead_process_blocks_nobody(database_url: str, scripted: Scripted, how: str, status: TurnStatus) -> None:
    """The turn of a process that died is ended by the next send on its host, and keeps the text that was stored."""
    model = scripted("Here.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        died = subprocess.run([sys.executable, "-c", DIE, database_url, session.id, how], check=False, timeout=60)
        assert died.returncode == 9
        [lost] = session.turns()
        assert lost.status.in_flight
        assert session.send("Anyone?").reply.text == "Here."
        ended = session.turn(lost.id)
        assert ended.status is status
        assert ended.error["slug"] == "lost"
        assert (ended.reply is None) == (how == "pending")
        assert ended.reply is None or ("word " * 400).startswith(ended.reply.text)
        assert [turn.human.text for turn in session.turns()] == ["Anyone?"]


def test_a_living_process_keeps_its_turn(database_url: str, scripted: Scripted) -> None:
    """A turn whose owner lives is not taken from it."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("One.", "Two.")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        with session.stream("First.") as reply:
            with pytest.raises(ConflictError):
                session.send("Second.")
            assert "".join(delta.text for delta in reply) == "One."
        assert reply.turn.status is TurnStatus.COMPLETED


def test_a_turn_that_was_taken_over_changes_nothing(database_url: str, scripted: Scripted) -> None:
    """When another process has ended the turn, its first owner is told; its text is kept, and nothing else changes."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("One.")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        with pytest.raises(ConflictError), session.stream("First.") as reply:
            end_by_hand(database_url)
            list(reply)
        kept = session.turn(reply.turn_id)
        assert (kept.status, kept.reply.text, kept.usage.total_tokens) == (TurnStatus.INTERRUPTED, "One.", 3)
        assert session.info().head_seq is None


def end_by_hand(url: str) -> None:
    """End every turn in flight, as a recovery elsewhere would."""
    database = Database.open(url)
    sql = "UPDATE roleplay_turns SET status = 'failed', ended_at = created_at WHERE tenant = 'default'"
    database.write(lambda db: db.execute(text(sql)))
    database.close()


def test_of_many_threads_one_has_the_turn(database_url: str, scripted: Scripted) -> None:
    """Threads that speak at once on one head: one turn each time, the others are refused, nothing is doubled."""
    gate = threading.Event()

    def slow(_messages: object) -> str:
        gate.wait(5)
        return "Yes."

    with Roleplay.open(database_url, model=MODEL, chat=scripted(slow)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])

        def say(number: int) -> bool:
            try:
                session.send(f"Line {number}")
            except ConflictError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            said = [pool.submit(say, number) for number in range(8)]
            while sum(one.done() for one in said) < 7:
                pass
            gate.set()
            outcomes = [one.result() for one in said]
        assert outcomes.count(True) == 1
        [turn] = session.turns()
        assert turn.status is TurnStatus.COMPLETED
        assert session.info().version == 3


def test_sessions_do_not_wait_for_each_other(database_url: str, scripted: Scripted) -> None:
    """Threads on sessions of their own all get their replies, each beside its own question."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        persona = rp.personas.put(Persona("Huang"))

        def talk(name: str) -> list[tuple[str, str]]:
            session = rp.sessions.create(cast=[persona])
            for number in range(5):
                session.send(f"{name} {number}")
            return [(turn.human.text, turn.reply.text) for turn in session.turns()]

        with ThreadPoolExecutor(6) as pool:
            for name, said in zip("abcdef", pool.map(talk, "abcdef"), strict=True):
                assert said == [(f"{name} {n}", f"You said: {name} {n}") for n in range(5)]


def test_every_attempt_is_kept(database_url: str, scripted: Scripted) -> None:
    """Each attempt is a model call with its own error; the reply is the last one's."""
    model = scripted(ChatUnavailableError("busy", code=1002), ChatUnavailableError("busy", code=1002), "Now.")
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        turn = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))]).send("Well?")
        assert [(call.attempt, call.error and call.error["code"]) for call in turn.calls] == [
            (1, 1002),
            (2, 1002),
            (3, None),
        ]
        assert turn.reply.text == "Now."
        assert len(set(model.bodies)) == 1


def test_the_window_moves_in_chunks_and_the_prefix_stays(database_url: str, scripted: Scripted) -> None:
    """Over a long session no request exceeds its budget, and most begin with the one before them, byte for byte."""
    model = scripted()
    small = SessionSettings(budget_tokens=600)
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=small) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman. " * 10))])
        for number in range(60):
            report = session.preview(f"Line {number} " + "words " * 10).report
            assert report.prompt_tokens <= 600
            session.send(f"Line {number} " + "words " * 10)
        shared = sum(
            later["messages"][: len(earlier["messages"])] == earlier["messages"]
            for earlier, later in zip(model.requests, model.requests[1:], strict=False)
        )
        starts = {turn.calls[0].id: turn for turn in session.turns(limit=100)}
        assert len(starts) == 60
        assert shared >= 45
        assert len(model.requests[-1]["messages"]) < 40


def test_a_request_is_rebuilt_after_the_session_went_on(database_url: str, scripted: Scripted) -> None:
    """Old requests come back byte for byte when history has grown and the window has moved."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=SessionSettings(budget_tokens=300)) as rp:
        persona = Persona("Huang", "Rows {{user}} over.", note="It rains.", post_history="Stay brief.")
        session = rp.sessions.create(cast=[rp.personas.put(persona)], scene="A ferry, at night")
        for number in range(30):
            session.send(f"雪 {number} 🔥")
        calls = [call for turn in session.turns(limit=100) for call in turn.calls]
        assert [rp.replay.request(session.id, call.id) for call in calls] == model.bodies
        assert model.requests[-1]["messages"][-1]["content"] == "[It rains.]\n\n雪 29 🔥\n\n[Stay brief.]"
        assert len(list(rp.replay.verify())) == 30


def test_a_damaged_row_is_named(database_url: str, scripted: Scripted) -> None:
    """A rebuild that does not give what was sent says so; a reading failure never looks like an empty session."""
    from roleplay import StoreError  # noqa: PLC0415 - beside its use

    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        turn = session.send("Well?")
        change(database_url, "UPDATE roleplay_messages SET text = 'other' WHERE tenant = 'default' AND seq = 1")
        with pytest.raises(StoreError, match=turn.call.id):
            rp.replay.request(session.id, turn.call.id)
        change(database_url, "UPDATE roleplay_messages SET text = 'Well?' WHERE tenant = 'default' AND seq = 1")
        kept = json.dumps(turn.call.parameters)
        for parameters in ('{"temperature": NaN}', r'{"model": "\ud800"}', "[]"):
            change(database_url, f"UPDATE roleplay_model_calls SET parameters = '{parameters}'")
            with pytest.raises(StoreError, match="a model call is stored that cannot be read"):
                session.turns()
        change(database_url, f"UPDATE roleplay_model_calls SET parameters = '{kept}'")


def change(url: str, sql: str) -> None:
    """Run one statement behind the engine's back."""
    database = Database.open(url)
    database.write(lambda db: db.execute(text(sql)))
    database.close()

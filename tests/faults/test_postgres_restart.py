"""PostgreSQL dies and comes back in the middle of turns; and no turn holds a connection while the model speaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from roleplay import ChatUnavailableError, Endpoint, Persona, StoreError, TurnStatus
from roleplay.store.access import database
from roleplay.testing import ScriptedModel
from tests.conftest import Ledger, build_schema
from tests.support.postgres import DURABLE, PostgresServer
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})
WORDS = "word " * 400
AWAY_S = 0.5
TAKES_AGAIN = {"flush": "status=", "next attempt": "attempt=", "finish": "ended_at="}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL of these tests alone, which keeps what it committed."""
    with PostgresServer(DURABLE) as one:
        one.create_template("current", build_schema)
        yield one


@pytest.fixture
def url(server: PostgresServer, ledger: Ledger) -> str:
    """The URL of a database in it."""
    server.start()
    clone = server.clone("current")
    ledger.urls.append(clone)
    return clone


def away(server: PostgresServer, seconds: float = AWAY_S) -> threading.Timer:
    """Kill the server; it comes back by itself after some seconds."""
    server.kill()
    back = threading.Timer(seconds, server.start)
    back.start()
    return back


def test_the_server_restarts_while_the_model_answers(url: str, server: PostgresServer, scripted: Scripted) -> None:
    """The turn is finished on a new connection, and so are the next ones."""

    def restart(_messages: object) -> str:
        server.kill()
        server.start()
        return "Here."

    with Roleplay.open(url, model=MODEL, chat=scripted("Hello.", restart, "Again.")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        assert [session.send(line).reply.text for line in ("Hi.", "Well?", "And?")] == ["Hello.", "Here.", "Again."]
        assert [turn.status for turn in session.turns()] == [TurnStatus.COMPLETED] * 3


def test_a_finish_waits_for_the_server(url: str, server: PostgresServer, scripted: Scripted) -> None:
    """The server is away when the reply is there: it is stored as soon as the server is back."""
    backs = []

    def leave(_messages: object) -> str:
        backs.append(away(server))
        return "Here."

    with Roleplay.open(url, model=MODEL, chat=scripted(leave, "Again.")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        began = time.monotonic()
        assert session.send("Well?").reply.text == "Here."
        assert time.monotonic() - began >= AWAY_S
        backs[0].join()
        assert session.send("And?").reply.text == "Again."
        assert [turn.status for turn in session.turns()] == [TurnStatus.COMPLETED] * 2


def test_a_stream_goes_on_without_the_server(url: str, server: PostgresServer, scripted: Scripted) -> None:
    """The server is away when text should be kept: the stream waits for it and loses nothing."""
    with Roleplay.open(url, model=MODEL, chat=scripted(WORDS)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        shown = []
        with session.stream("Well?") as reply:
            for number, delta in enumerate(reply):
                shown.append(delta.text)
                if number == 30:
                    back = away(server)
        back.join()
        assert "".join(shown) == WORDS
        assert (reply.turn.status, reply.turn.reply.text) == (TurnStatus.COMPLETED, WORDS)
        assert session.turn(reply.turn_id).reply.text == WORDS


def test_a_server_away_for_too_long_leaves_the_turn_to_the_next(
    url: str, server: PostgresServer, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for the server ends with ``StoreError``; the turn is lost, is called so, and blocks nobody."""
    monkeypatch.setattr(database, "SERVER_PATIENCE_S", 0.2)

    def leave(_messages: object) -> str:
        server.kill()
        return "Here."

    with Roleplay.open(url, model=MODEL, chat=scripted(leave, "Again.")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        with pytest.raises(StoreError):
            session.send("Well?")
        with pytest.raises(StoreError):
            session.turns()
        server.start()
        [lost] = session.turns()
        assert lost.status is TurnStatus.PENDING
        assert session.send("And?").reply.text == "Again."
        ended = session.turn(lost.id)
        assert (ended.status, ended.error["slug"]) == (TurnStatus.FAILED, "lost")
        assert list(rp.doctor()) == []


@pytest.mark.parametrize("step", list(TAKES_AGAIN))
def test_a_commit_whose_answer_was_lost_counts_once(
    url: str, server: PostgresServer, scripted: Scripted, step: str
) -> None:
    """The connection breaks after the server committed and before it said so: doing it again changes nothing."""
    server.start()
    lost = LostAnswer(TAKES_AGAIN[step])
    fails = [ChatUnavailableError("busy", code=1002)] if step == "next attempt" else []
    with Roleplay.open(url, model=MODEL, chat=scripted(*fails, WORDS, "Again.")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        with lost, session.stream("Well?") as reply:
            assert "".join(delta.text for delta in reply) == WORDS
        assert lost.happened
        turn = session.turn(reply.turn_id)
        assert (turn.status, turn.reply.text, len(turn.calls)) == (TurnStatus.COMPLETED, WORDS, 1 + len(fails))
        assert session.info().head_seq == turn.reply.seq
        assert session.send("And?").reply.text == "Again."
        assert list(rp.doctor()) == []


class LostAnswer:
    """Commits the first transaction that changes a turn in some way behind SQLAlchemy's back, and cuts its line."""

    def __init__(self, change: str) -> None:
        self._change = change
        self._armed = False
        self.happened = False

    def __enter__(self) -> None:
        event.listen(Engine, "after_cursor_execute", self._look)
        event.listen(Engine, "commit", self._lose)

    def __exit__(self, *_error: object) -> None:
        event.remove(Engine, "after_cursor_execute", self._look)
        event.remove(Engine, "commit", self._lose)

    def _look(self, _c: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        changed = statement.startswith("UPDATE roleplay_turns SET") and self._change in statement.partition("WHERE")[0]
        self._armed = self._armed or (changed and not self.happened)

    def _lose(self, connection: Connection) -> None:
        if self._armed:
            self._armed, self.happened = False, True
            driver = connection.connection.dbapi_connection
            driver.commit()
            driver.close()


def pool_of(rp: Any) -> Any:
    """The pool of an engine's connections, whichever shell it has."""
    store = rp._runtime.database
    if hasattr(store, "_engine"):
        return store._engine.pool
    return getattr(store, "_database", store).engine.pool


def test_no_connection_is_held_while_the_model_answers(database_url: str, scripted: Scripted) -> None:
    """While the model thinks, and between the pieces of a stream, every connection is in the pool."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        held = []

        def count(_messages: object) -> str:
            held.append(pool_of(rp).checkedout())
            return WORDS

        model.say(count, count)
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        session.send("Well?")
        with session.stream("And?") as reply:
            held += [pool_of(rp).checkedout() for _ in reply]
        assert len(held) > 100
        assert set(held) == {0}

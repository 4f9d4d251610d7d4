"""A stream and its reader: who leaves in which way, what becomes of the reply, and who takes it up again."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

import roleplay
from roleplay import (
    ChatError,
    ConflictError,
    Endpoint,
    InvalidInputError,
    NotFoundError,
    Persona,
    TurnOptions,
    TurnStatus,
)
from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator import CutStream, EndlessStream, SlowDrip
from tests.contract.test_turns import DIE, end_by_hand
from tests.support import shells
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
TEXT = ("The ford 🔥 is a mile below the mill, 雪很深, and the mill is where it always was. " * 12).strip()
FINISH = TurnOptions(on_disconnect="finish")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every thread that a reply had has ended with its engine."""
    yield
    assert [one.name for one in threading.enumerate() if one.name == "roleplay-reply"] == []


def talk(rp: Any) -> Any:
    """A new session."""
    return rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])


def ended(session: Any, turn_id: str | None = None, within_s: float = 10.0) -> Any:
    """The turn, or the session's last one, once it has ended."""
    give_up = time.monotonic() + within_s
    while True:
        turn = session.turns().items[-1] if turn_id is None else session.turn(turn_id)
        if not turn.status.in_flight:
            return turn
        assert time.monotonic() < give_up, f"the turn is still {turn.status}"
        time.sleep(0.01)


# What a stream knows


def test_a_stream_knows_its_turn(database_url: str, scripted: Scripted) -> None:
    """The id is there before anything is taken; each piece has its kind and speaker; a plain ``for`` is enough."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(TEXT)) as rp:
        session = talk(rp)
        reply = session.stream("Where?")
        assert session.turn(reply.turn_id).human.text == "Where?"
        with pytest.raises(InvalidInputError, match="has not ended"):
            reply.turn  # noqa: B018 - asking for it is what is tried
        pieces = list(reply)
        assert {(piece.kind.value, piece.speaker) for piece in pieces} == {("speech", "Huang")}
        assert "".join(piece.text for piece in pieces) == TEXT
        assert reply.turn == session.turn(reply.turn_id)
        assert list(reply) == []


@pytest.mark.parametrize("on_disconnect", ["interrupt", "finish"])
def test_the_turn_is_told_after_an_error(
    database_url: str, simulator: Simulator, endpoint: Endpoint, on_disconnect: Any
) -> None:
    """When the service fails in mid-reply, the iteration raises and the stream gives the turn with its text."""
    simulator.say(TEXT)
    simulator.next(CutStream(after_chunks=3))
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        heard = []
        with session.stream("Where?", options=TurnOptions(on_disconnect=on_disconnect)) as reply:
            with pytest.raises(ChatError) as caught:
                heard += [delta.text for delta in reply if delta.kind == "speech"]
            assert list(reply) == []
        assert caught.value.turn_id == reply.turn_id
        assert reply.turn == session.turn(reply.turn_id)
        assert reply.turn.status is TurnStatus.INTERRUPTED
        assert TEXT.startswith(reply.turn.reply.text)


def test_the_turn_is_told_after_it_was_taken_over(database_url: str, scripted: Scripted) -> None:
    """Who lost the turn to another process is told how it stands."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("One.")) as rp:
        session = talk(rp)
        with session.stream("First.") as reply:
            end_by_hand(database_url)
            with pytest.raises(ConflictError):
                list(reply)
        assert reply.turn == session.turn(reply.turn_id)
        assert (reply.turn.status, reply.turn.reply.text) == (TurnStatus.INTERRUPTED, "One.")


# A reader who leaves


def leave_the_block(session: Any, options: TurnOptions) -> str:
    """Read a little, then leave."""
    with session.stream("Where?", options=options) as reply:
        for _ in reply:
            break
    turn_id: str = reply.turn_id
    return turn_id


def fall_out(session: Any, options: TurnOptions) -> str:
    """Read a little, then fail."""
    turn_id = ""
    with pytest.raises(KeyboardInterrupt), session.stream("Where?", options=options) as reply:
        turn_id = reply.turn_id
        for _ in reply:
            raise KeyboardInterrupt
    return turn_id


def drop_it(session: Any, options: TurnOptions) -> str:
    """Never read."""
    turn_id: str = session.stream("Where?", options=options).turn_id
    return turn_id


def drop_it_half_read(session: Any, options: TurnOptions) -> str:
    """Read a little, without a block."""
    for _ in session.stream("Where?", options=options):
        break
    turn_id: str = session.turns().items[-1].id
    return turn_id


LEAVINGS = [leave_the_block, fall_out, drop_it, drop_it_half_read]


@pytest.mark.parametrize("leave", LEAVINGS)
def test_who_leaves_ends_the_reply(
    database_url: str, simulator: Simulator, endpoint: Endpoint, leave: Callable[[Any, TurnOptions], str]
) -> None:
    """However the reader goes, the turn is interrupted at once and the session is free."""
    simulator.next(EndlessStream())
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        turn = ended(session, leave(session, TurnOptions()))
        assert turn.status is TurnStatus.INTERRUPTED
        assert session.send("And now?").status is TurnStatus.COMPLETED
        assert not rp._runtime._on
    if leave is not fall_out:  # its exception is still looked at
        assert until(lambda: simulator.open_connections == 0)


def until(holds: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Whether something comes to hold."""
    give_up = time.monotonic() + within_s
    while not holds() and time.monotonic() < give_up:
        time.sleep(0.01)
    return holds()


def test_a_reader_of_the_blocking_shell_finds_the_session_free(
    database_url: str, simulator: Simulator, endpoint: Endpoint
) -> None:
    """A ``for`` that is left has ended its turn by the next line; asyncio drops iterators a moment later."""
    if shells.current == "asyncio":
        return
    simulator.next(EndlessStream())
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        drop_it_half_read(session, TurnOptions())
        assert session.send("And now?").status is TurnStatus.COMPLETED


def test_a_stream_in_a_ring_is_ended_by_the_collector(
    database_url: str, simulator: Simulator, endpoint: Endpoint
) -> None:
    """A stream that is dropped with others that hold each other is found by the garbage collector."""
    simulator.next(EndlessStream())
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        ring: list[Any] = [session.stream("Where?")]
        ring.append(ring)
        del ring
        gc.collect()
        assert ended(session).status is TurnStatus.INTERRUPTED


@pytest.mark.parametrize("leave", LEAVINGS)
def test_a_reply_goes_on_without_its_reader(
    database_url: str, simulator: Simulator, endpoint: Endpoint, leave: Callable[[Any, TurnOptions], str]
) -> None:
    """With ``finish``, however the reader goes, the turn is completed with its whole text and its usage."""
    simulator.say(TEXT)
    simulator.next(SlowDrip(0.02, least_chunks=20))
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        turn_id = leave(session, FINISH)
        assert session.turn(turn_id).status.in_flight
        turn = ended(session, turn_id)
        assert (turn.status, turn.reply.text) == (TurnStatus.COMPLETED, TEXT)
        assert turn.usage.total_tokens
        assert session.info().head_seq == turn.reply.seq


def test_a_reply_that_goes_on_can_be_cancelled(database_url: str, simulator: Simulator, endpoint: Endpoint) -> None:
    """``cancel()`` interrupts, whatever the options say."""
    simulator.next(EndlessStream())
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        with session.stream("Where?", options=FINISH) as reply:
            heard = next(iter(reply)).text
            turn = reply.cancel()
            heard += "".join(delta.text for delta in reply)
        assert turn == reply.turn == session.turn(reply.turn_id)
        assert turn.status is TurnStatus.INTERRUPTED
        assert turn.reply.text.startswith(heard)


def test_closing_waits_for_a_reply_without_a_reader(
    database_url: str, simulator: Simulator, endpoint: Endpoint
) -> None:
    """A reply that ends within the grace is whole."""
    simulator.say(TEXT)
    simulator.next(SlowDrip(0.02, least_chunks=20))
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        turn_id = leave_the_block(session, FINISH)
        rp.close(grace_s=30)
        assert not rp._runtime._on
    with roleplay.Roleplay.open(database_url, model=endpoint) as later:
        turn = later.sessions.get(session.id).turn(turn_id)
        assert (turn.status, turn.reply and turn.reply.text) == (TurnStatus.COMPLETED, TEXT)


def test_closing_ends_a_reply_without_a_reader(database_url: str, simulator: Simulator, endpoint: Endpoint) -> None:
    """A reply that takes longer is interrupted, and closing does not take long."""
    simulator.next(EndlessStream())
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        turn_id = leave_the_block(session, FINISH)
        began = time.monotonic()
        rp.close(grace_s=0.2)
        assert time.monotonic() - began < 3
    with roleplay.Roleplay.open(database_url, model=endpoint) as later:
        assert later.sessions.get(session.id).turn(turn_id).status is TurnStatus.INTERRUPTED


def test_what_is_refused_is_refused_by_the_call(database_url: str, scripted: Scripted) -> None:
    """A reply that would go on without its reader raises at once what can be known, and writes nothing."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = talk(rp)
        with pytest.raises(InvalidInputError):
            session.stream("  ", options=FINISH)
        assert session.turns().items == ()


def test_a_key_does_not_care_who_stays(database_url: str, scripted: Scripted) -> None:
    """The same call with another ``on_disconnect`` is the same call."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("One.")) as rp:
        session = talk(rp)
        first = session.send("Well?", options=TurnOptions(idempotency_key="a"))
        again = session.stream("Well?", options=TurnOptions(idempotency_key="a", on_disconnect="finish"))
        assert [delta.text for delta in again] == ["One."]
        assert again.turn == first


# A reader who comes


def test_a_turn_that_ended_is_played_back(database_url: str, scripted: Scripted) -> None:
    """From any character on; beyond the last one there is nothing."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(TEXT)) as rp:
        session = talk(rp)
        turn = session.send("Where?")
        for offset in (0, 1, 9, 10, len(TEXT) - 1, len(TEXT), len(TEXT) + 99):
            with session.follow(turn.id, offset=offset) as reply:
                assert reply.turn_id == turn.id
                assert "".join(delta.text for delta in reply) == TEXT[offset:]
            assert reply.turn == turn
        [delta] = session.follow(turn.id)
        assert (delta.kind.value, delta.speaker) == ("speech", "Huang")


def test_what_goes_on_is_not_stored_over_and_over(sqlite_url: str, scripted: Scripted) -> None:
    """A resumed reply begins with the text that is stored already: it is written again when all of it has doubled."""
    written: list[int] = []

    def count(_c: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        if "roleplay_messages" in statement and not statement.startswith("SELECT"):
            texts = [one for one in (values.values() if isinstance(values, dict) else values) if isinstance(one, str)]
            written.extend(len(one) for one in texts if len(one) > len(TEXT))

    with Roleplay.open(sqlite_url, model=MODEL, chat=scripted(TEXT * 8, "And on. " * 200)) as rp:
        session = talk(rp)
        with session.stream("Where?") as reply:
            heard = 0
            while heard < len(TEXT) * 7:
                heard += len(next(iter(reply)).text)
        event.listen(Engine, "before_cursor_execute", count)
        try:
            with session.resume() as reply:
                list(reply)
        finally:
            event.remove(Engine, "before_cursor_execute", count)
    assert written == [len(reply.turn.reply.text)]


def test_who_may_follow(database_url: str, scripted: Scripted) -> None:
    """A turn is followed in its session, by its tenant, from a character that can be."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted("One.")) as rp:
        session = talk(rp)
        turn = session.send("Well?")
        for offset in (-1, 2**31, True, 1.5):
            with pytest.raises(InvalidInputError, match="offset"):
                session.follow(turn.id, offset=offset)
        for other in (talk(rp), session):
            with pytest.raises(NotFoundError):
                other.follow(turn.id if other is not session else "nobody")
    with Roleplay.open(database_url, model=MODEL, chat=scripted(), tenant="other") as rp, pytest.raises(NotFoundError):
        talk(rp).follow(turn.id)


def test_a_running_turn_is_followed_from_elsewhere(database_url: str, simulator: Simulator, endpoint: Endpoint) -> None:
    """Another engine gives the text while it comes, and the whole of it and the turn in the end."""
    simulator.say(TEXT)
    simulator.next(SlowDrip(0.03, least_chunks=40))
    with Roleplay.open(database_url, model=endpoint) as rp, Roleplay.open(database_url, model=endpoint) as elsewhere:
        session = talk(rp)
        turn_id = leave_the_block(session, FINISH)
        followed = elsewhere.sessions.get(session.id).follow(turn_id)
        with pytest.raises(InvalidInputError, match="has not ended"):
            followed.turn  # noqa: B018 - asking for it is what is tried
        pieces = [(delta.text, session.turn(turn_id).status.in_flight) for delta in followed]
        assert "".join(text for text, _ in pieces) == TEXT
        assert pieces[0][1], "nothing was given before the turn had ended"
        assert followed.turn == session.turn(turn_id)
        assert followed.turn.status is TurnStatus.COMPLETED


def test_who_stops_following_changes_nothing(database_url: str, simulator: Simulator, endpoint: Endpoint) -> None:
    """Leaving and cancelling end the following alone."""
    simulator.say(TEXT)
    simulator.next(SlowDrip(0.03, least_chunks=30))
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        turn_id = leave_the_block(session, FINISH)
        with session.follow(turn_id) as reply:
            assert reply.cancel().status.in_flight
            assert list(reply) == []
        with session.follow(turn_id):
            pass
        session.follow(turn_id)
        assert ended(session, turn_id).reply.text == TEXT


def test_closing_ends_the_following(database_url: str, simulator: Simulator, endpoint: Endpoint) -> None:
    """Who follows from an engine that is closed is let go; the turn runs on where it runs."""
    simulator.say(TEXT)
    simulator.next(SlowDrip(0.05, least_chunks=30))
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = talk(rp)
        turn_id = leave_the_block(session, FINISH)
        with Roleplay.open(database_url, model=endpoint) as elsewhere:
            followed = elsewhere.sessions.get(session.id).follow(turn_id)
            elsewhere.close(grace_s=0)
            assert list(followed) == []
            assert followed.turn.status.in_flight
        assert ended(session, turn_id).reply.text == TEXT


def test_a_lost_turn_is_ended_by_who_follows_it(database_url: str, scripted: Scripted) -> None:
    """The text that a dead process kept is given, and the turn is interrupted."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = talk(rp)
        command = [sys.executable, "-c", DIE, database_url, session.id, "streaming"]
        assert subprocess.run(command, check=False, timeout=60).returncode == 9
        [lost] = session.turns()
        assert lost.status.in_flight
        with session.follow(lost.id) as reply:
            text = "".join(delta.text for delta in reply)
        assert (reply.turn.status, reply.turn.reply.text) == (TurnStatus.INTERRUPTED, text)
        assert reply.turn.error["slug"] == "lost"
        assert text
        assert ("word " * 400).startswith(text)


def test_another_attempt_is_another_text(database_url: str, simulator: Simulator, endpoint: Endpoint) -> None:
    """Who has text of an attempt that was given up is told so; who has none is given the new one."""
    simulator.say(TEXT, TEXT)
    simulator.next(CutStream(after_chunks=3))
    with Roleplay.open(database_url, model=endpoint) as rp, Roleplay.open(database_url, model=endpoint) as elsewhere:
        session = talk(rp)
        with pytest.raises(ChatError) as caught:
            list(session.stream("Where?"))
        turn_id = caught.value.turn_id
        by_hand(database_url, IN_FLIGHT)
        theirs = elsewhere.sessions.get(session.id)
        late = theirs.follow(turn_id)
        followed = theirs.follow(turn_id)
        assert TEXT.startswith(next(iter(followed)).text)
        by_hand(database_url, "status = 'interrupted', ended_at = created_at")
        assert session.retry(turn_id).turn_id == turn_id
        with pytest.raises(ConflictError, match="another attempt"):
            list(followed)
        assert "".join(delta.text for delta in late) == ended(session, turn_id).reply.text


IN_FLIGHT = "status = 'streaming', ended_at = NULL, lease_owner = 'elsewhere:1:1', lease_until = '2999-01-01 00:00:00'"


def by_hand(url: str, values: str) -> None:
    """Change every turn, as the process that has it would."""
    database = Database.open(url)
    database.write(lambda db: db.exec_driver_sql(f"UPDATE roleplay_turns SET {values} WHERE tenant = 'default'"))
    database.close()

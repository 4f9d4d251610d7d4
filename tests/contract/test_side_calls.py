"""Calls beside the reply: of another purpose on a turn, which nothing mistakes for the reply's, and of no turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text

from roleplay import ChatRequestError, ChatSession, Endpoint, Persona, Roleplay, StoreError, TurnStatus
from roleplay.domain.usage import Usage
from roleplay.store.access.process import this_owner
from roleplay.store.access.tables import ModelCallRow, table
from roleplay.store.records import side_calls
from roleplay.store.records.new_rows import CallEnding, CallHold, NewCall
from roleplay.testing import ScriptedModel

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
LEASE = timedelta(minutes=5)
CALLS = table(ModelCallRow)


class Beside:
    """An engine and a session in it, with the means to write calls beside those that it makes."""

    def __init__(self, rp: Roleplay, model: ScriptedModel) -> None:
        self.rp = rp
        self.model = model
        self.database = rp._runtime.database
        self.session: ChatSession = rp.sessions.create(cast=[rp.personas.put(Persona("Nova"))])

    def calls(self) -> list[dict[str, Any]]:
        """The calls of the session, as they are stored, the oldest first."""
        mine = select(CALLS).where(CALLS.c.tenant == "default", CALLS.c.session_id == self.session.id)
        rows = self.database.read(lambda db: db.execute(mine.order_by(CALLS.c.created_at, CALLS.c.id)).mappings().all())
        return [dict(row) for row in rows]

    def add(self, like: int = -1, **changes: Any) -> None:
        """Store a later call of another purpose, otherwise as one that is there."""
        calls = self.calls()
        row = [one for one in calls if one["purpose"] == "reply"][like]
        new = row | {"id": f"z-{len(calls)}", "purpose": "director", "attempt": row["attempt"] + 1} | changes
        self.database.write(lambda db: db.execute(insert(CALLS), new))

    def begin(self, call_id: str, *, owner: str | None = None, lease: timedelta = LEASE) -> CallHold:
        """Begin a call of no turn."""
        hold = CallHold("default", self.session.id, call_id, owner or self.rp._scope.ports.owner)
        like = self.calls()[0]
        values = {name: like[name] for name in NewCall._fields} | {"id": call_id, "turn_seq": None}
        at = datetime.now(UTC)

        def work(db: Connection) -> None:
            side_calls.begin(db, hold, NewCall(**values), {}, lease=lease, at=at, now=at)

        self.database.write(work)
        return hold

    def of(self, call_id: str) -> dict[str, Any]:
        """One call as it is stored."""
        [found] = [one for one in self.calls() if one["id"] == call_id]
        return found


@pytest.fixture
def beside(database_url: str, scripted: Scripted) -> Iterator[Beside]:
    """A session on each database."""
    model = scripted("One.", "Two.", "Three.", "Four.")
    with Roleplay.open(database_url, model=MODEL, chat=model, migrate="auto") as rp:
        yield Beside(rp, model)


COSTLY = {"prompt_tokens": 7_000, "completion_tokens": 70, "total_tokens": 7_070, "finish_reason": "length"}


def test_a_later_call_of_another_purpose_is_not_the_replys(beside: Beside) -> None:
    """Turn, pages, usage, report and shared prefix are what they were; it costs what it costs, and is verified."""
    session, rp = beside.session, beside.rp
    turn = session.send("Who are you?")
    session.send("And then?")
    before = session.turns().items, session.report(turn.id), session.report(), session.preview("So?").report
    cost = rp.usage.report()[0]
    for like in (0, 1):
        beside.add(like, report=None, error='{"slug": "odd", "message": "odd", "retryable": true}', **COSTLY)
    assert (session.turns().items, session.report(turn.id), session.report(), session.preview("So?").report) == before
    again = session.turn(turn.id)
    assert again == turn
    assert [call.purpose for call in again.calls] == ["reply"]
    assert (again.usage, again.finish, again.error) == (turn.usage, turn.finish, None)
    [total] = rp.usage.report()
    assert total.calls == cost.calls + 2
    assert total.usage.total_tokens == (cost.usage.total_tokens or 0) + 2 * 7_070
    assert len(list(rp.replay.verify())) == 4
    assert rp.doctor() == []


def test_a_call_of_another_purpose_takes_no_attempt_of_the_reply(beside: Beside) -> None:
    """A retry after it is the reply's second attempt, whatever number the other call has."""
    beside.model._replies.appendleft(ChatRequestError("no"))
    with pytest.raises(ChatRequestError):
        beside.session.send("Who are you?")
    beside.add(attempt=1)
    beside.add(attempt=2, id="z-second")
    with beside.session.retry() as reply:
        list(reply)
    assert reply.turn.status is TurnStatus.COMPLETED
    assert [call.attempt for call in reply.turn.calls] == [1, 2]
    with pytest.raises(StoreError):
        beside.add(like=0, attempt=2, id="z-third")


def test_recovery_ends_the_replys_attempt_and_what_its_owner_had_beside_it(beside: Beside) -> None:
    """A call that had ended stays as it is; one that the dead process was making is lost with the turn."""
    turn = beside.session.send("Who are you?")
    gone = this_owner().rpartition("/")[0] + "/1"
    flight = "status = 'streaming', ended_at = NULL, lease_owner = :gone, lease_until = :until"
    values = {"gone": gone, "until": "2099-01-01 00:00:00.000000", "session": beside.session.id}

    def work(db: Connection) -> None:
        db.execute(text(f"UPDATE roleplay_turns SET {flight} WHERE session_id = :session"), values)
        db.execute(text("UPDATE roleplay_model_calls SET total_s = NULL WHERE session_id = :session"), values)

    beside.add(id="z-ended", attempt=5)
    ended = beside.of("z-ended")
    beside.database.write(work)
    beside.database.write(
        lambda db: db.execute(text("UPDATE roleplay_model_calls SET total_s = 1 WHERE id = 'z-ended'"))
    )
    beside.add(like=0, id="z-running", attempt=4)
    assert list(beside.rp.recover()) == [turn.id]
    assert '"lost"' in beside.of(turn.calls[0].id)["error"]
    assert '"lost"' in beside.of("z-running")["error"]
    assert beside.of("z-ended")["error"] == ended["error"]
    assert beside.session.turn(turn.id).status is TurnStatus.INTERRUPTED


def test_an_unknown_purpose_is_not_written(beside: Beside) -> None:
    beside.session.send("Who are you?")
    like = beside.calls()[0]
    call = NewCall(**{name: like[name] for name in NewCall._fields} | {"purpose": "fun"})
    with pytest.raises(ValueError, match="fun"):
        call.row("default", beside.session.id, datetime.now(UTC))


def test_a_call_of_no_turn_begins_and_ends(beside: Beside) -> None:
    """It is its owner's until it has ended, once, with what it cost."""
    beside.session.send("Who are you?")
    hold = beside.begin("z-alone")
    other = hold._replace(owner="elsewhere/1/2")
    ending = CallEnding(usage=Usage(total_tokens=12), total_s=1.5)
    write = beside.database.write
    now = datetime.now(UTC)
    assert not write(lambda db: side_calls.renew(db, other, lease=LEASE, now=now))
    assert write(lambda db: side_calls.renew(db, hold, lease=2 * LEASE, now=now))
    assert not write(lambda db: side_calls.finish(db, other, ending))
    assert write(lambda db: side_calls.finish(db, hold, ending))
    assert not write(lambda db: side_calls.finish(db, hold, ending))
    stored = beside.of("z-alone")
    assert (stored["total_tokens"], stored["total_s"], stored["lease_until"]) == (12, 1.5, None)
    assert stored["lease_owner"] == hold.owner
    assert len(list(beside.rp.replay.verify())) == 2
    assert [one.calls for one in beside.rp.usage.report()] == [2]


def test_a_call_of_a_turn_has_no_lease_of_its_own(beside: Beside) -> None:
    beside.session.send("Who are you?")
    like = beside.calls()[0]
    call = NewCall(**{name: like[name] for name in NewCall._fields} | {"id": "z"})
    hold = CallHold("default", beside.session.id, "z", "us")
    now = datetime.now(UTC)
    with pytest.raises(StoreError, match="turn_has_the_lease"):
        beside.database.write(lambda db: side_calls.begin(db, hold, call, {}, lease=LEASE, at=now, now=now))


@pytest.mark.parametrize("whose", ["ours", "elsewhere", "gone"])
def test_recovery_ends_a_call_that_was_left(beside: Beside, whose: str) -> None:
    """One of this process that nothing drives, one whose lease has run out, one of a process that died; once."""
    beside.session.send("Who are you?")
    owner = {"ours": None, "elsewhere": "elsewhere/1/2", "gone": this_owner().rpartition("/")[0] + "/1"}[whose]
    hold = beside.begin("z-left", owner=owner, lease=-LEASE if whose == "elsewhere" else LEASE)
    [found] = beside.rp.doctor()
    assert (found.kind, found.fault, found.seq) == ("expired lease", "expired-lease-of-call", None)
    assert list(beside.rp.recover()) == []
    stored = beside.of("z-left")
    assert '"lost"' in stored["error"]
    assert (stored["lease_until"], stored["total_s"]) == (None, None)
    assert not beside.database.write(lambda db: side_calls.finish(db, hold, CallEnding()))
    assert beside.rp.doctor() == []


def test_the_doctor_ends_a_call_that_was_left(beside: Beside) -> None:
    beside.session.send("Who are you?")
    beside.begin("z-left")
    assert [(one.fault, one.mended) for one in beside.rp.doctor(repair=True)] == [("expired-lease-of-call", True)]
    assert '"lost"' in beside.of("z-left")["error"]


@pytest.mark.parametrize("owner", [None, "elsewhere/1/2"])
def test_recovery_leaves_a_call_that_somebody_makes(beside: Beside, owner: str | None) -> None:
    """One that this process drives, whatever its lease says, and one of another host within its lease."""
    beside.session.send("Who are you?")
    beside.begin("z-alone", owner=owner, lease=LEASE if owner else -LEASE)
    beside.rp._scope.ports.driven["z-alone"] = "z-alone"
    assert list(beside.rp.recover()) == []
    assert beside.of("z-alone")["error"] is None
    assert beside.rp.doctor() == []
    del beside.rp._scope.ports.driven["z-alone"]

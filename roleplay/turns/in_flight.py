"""Turns in flight that nobody drives any more: each is ended by whoever finds it."""

from __future__ import annotations

from roleplay.store.records import recovery
from roleplay.store.records.new_rows import Hold
from roleplay.store.records.side_calls import CallHolder
from roleplay.turns.effects import Ports, Steps, read, write
from roleplay.turns.scope import SessionScope


def is_lost(ports: Ports, one: recovery.Holder | CallHolder) -> bool:
    """Whether nobody drives what ``one`` holds any more."""
    return ports.is_left(one.owner, one.key, expired=one.expired)


def end_if_lost(scope: SessionScope, turn_id: str) -> Steps[bool]:
    """End a turn in flight that nobody drives; says whether it is in flight no more."""
    tenant, session_id, now = scope.tenant, scope.session_id, scope.ports.now()
    held: recovery.Holder | None = yield from read(
        "holder", lambda db: recovery.holder(db, tenant, session_id, turn_id, now)
    )
    return held is None or (yield from end_if_left(scope, held))


def end_if_left(scope: SessionScope, held: recovery.Holder) -> Steps[bool]:
    """End a turn in flight if nobody drives it; says whether it did."""
    if not is_lost(scope.ports, held):
        return False
    hold = Hold(scope.tenant, scope.session_id, held.turn_seq, held.attempt, held.owner)
    now = scope.ports.now()
    yield from write("recover", lambda db: recovery.recover(db, hold, at=now))
    return True

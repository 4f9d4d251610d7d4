"""Upkeep: ending what nobody drives any more, and checking and mending what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from roleplay.store.records import recovery, side_calls
from roleplay.store.records.new_rows import CallHold, Hold
from roleplay.store.records.side_calls import CallHolder
from roleplay.store.upkeep.checks import Finding
from roleplay.store.upkeep.doctor import examine, mend
from roleplay.turns.effects import Steps, read, write
from roleplay.turns.in_flight import is_lost
from roleplay.turns.scope import TenantScope


def recover(scope: TenantScope) -> Steps[Sequence[str]]:
    """End every turn in flight whose owner is gone or whose lease has run out, and every such call of no turn; give
    the ids of the turns."""
    at, tenant = scope.ports.now(), scope.tenant
    held: Sequence[recovery.Holder] = yield from read("holders", lambda db: recovery.holders(db, tenant, at))
    ended = []
    for one in held:
        if is_lost(scope.ports, one):
            hold = Hold(tenant, one.session_id, one.turn_seq, one.attempt, one.owner)
            if (yield from write("recover", partial(recovery.recover, hold=hold, at=at))):
                ended.append(one.turn_id)
    calling: Sequence[CallHolder] = yield from read("calls in flight", lambda db: side_calls.holders(db, tenant, at))
    for call in calling:
        if is_lost(scope.ports, call):
            its = CallHold(tenant, call.session_id, call.call_id, call.owner)
            yield from write("recover call", partial(side_calls.recover, hold=its))
    return ended


def doctor(scope: TenantScope, *, repair: bool) -> Steps[Sequence[Finding]]:
    """Check every row of the tenant, and mend what can be mended."""
    at, tenant = scope.ports.now(), scope.tenant
    lost = partial(is_lost, scope.ports)
    found: Sequence[Finding] = yield from read("examine", lambda db: examine(db, tenant, at=at, is_lost=lost))
    if not (repair and found):
        return found
    yield from recover(scope)
    return (yield from write("mend", lambda db: mend(db, tenant, found, at=at, is_lost=lost)))

"""Who waits for whom: what is in the way of a turn, and the wait until it may begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from roleplay.domain.conversation import Turn
from roleplay.errors import ConflictError
from roleplay.store import Connection
from roleplay.store.records import recovery, sessions, transcript, turns
from roleplay.turns.effects import Pause, Steps, read, write
from roleplay.turns.in_flight import end_if_left
from roleplay.turns.past import Ahead, ReadAhead
from roleplay.turns.scope import SessionScope, in_memory

FIRST_LOOK_S = 0.03
SHORTEST_LOOK_S = 0.01
LONGEST_LOOK_S = 0.25
CLAIM_TRIES = 20


class Situation(NamedTuple):
    """Where a session stands, the turns of the caller's key, each with the digest of its arguments, and who holds the
    turn in flight that is in the way. ``gone``: it ended between two statements of the look. ``ahead``: what was read
    with it, where nothing is in the way."""

    position: sessions.Position
    mine: Sequence[tuple[Turn, str]]
    live: recovery.Holder | None
    gone: bool
    ahead: Ahead | None = None


class Queue:
    """The wait of one caller until its turn may begin, as ``on_conflict`` says and for ``wait_s`` seconds at most.

    Nobody keeps a list of who waits: each looks from time to time. While one turn runs, the looks become rarer; while
    turns come and go, they stay frequent, and the more so the longer one has waited, and who has just spoken lets the
    others look first, so that nobody waits for ever.
    """

    def __init__(self, scope: SessionScope, on_conflict: str, wait_s: float) -> None:
        self._scope = scope
        self._on_conflict = on_conflict
        self._wait_s = wait_s
        self._give_up = scope.ports.monotonic() + wait_s
        self._look_s = FIRST_LOOK_S
        self._passed = 0
        self._seen: str | None = None
        self._lost_claims = 0
        self._head: int | None = None
        self._asked: tuple[str, int] | None = None
        self._revision = 0

    def let_others(self) -> Steps[None]:
        """Pause for a look's time after a turn of one's own, without which one would be first again and again."""
        ports, last_spoke = self._scope.ports, self._scope.tenant_scope.last_spoke.get(self._scope.session_id)
        if self._on_conflict == "wait" and last_spoke is not None and ports.monotonic() - last_spoke < LONGEST_LOOK_S:
            yield Pause(min(FIRST_LOOK_S * (0.5 + ports.draw()), self._wait_s))

    def has_spoken(self) -> None:
        """Note that the caller's turn has ended."""
        if self._on_conflict == "wait":
            self._scope.tenant_scope.last_spoke[self._scope.session_id] = self._scope.ports.monotonic()

    def may_pass(self, live: recovery.Holder, key: str | None, revision: int = 0) -> Steps[bool]:
        """Say whether to speak beside the turn in flight ``live``; ``False``, perhaps after a pause: look again.

        A turn that nobody drives any more is ended first. ``key``: the turn is the one that the caller asks for.
        ``revision``: the session's. Raises ``ConflictError``.
        """
        self._revision = revision
        if (yield from end_if_left(self._scope, live)):
            return False
        if self._on_conflict == "wait" and key is None:
            yield from self._end_round(live)
        if self._on_conflict == "fork" and key is None:
            return True
        what = "a turn is still running in this session" if key is None else f"the turn of key {key!r} is still running"
        if self._on_conflict != "wait":
            raise ConflictError(what, found=live.turn_id, turn_id=live.turn_id)
        yield from self._pause(live.turn_id, what)
        return False

    def _end_round(self, live: recovery.Holder) -> Steps[None]:
        """Ask that the round which the turn in flight may be of ends with it, where there can be rounds."""
        known = in_memory(self._scope, self._revision) if self._revision else None
        asked = live.turn_id, live.attempt
        gives_up = self._give_up <= self._scope.ports.monotonic()
        if gives_up or asked == self._asked or (known is not None and len(known.models) == 1):
            return
        self._asked = asked
        yield from write("end round", lambda db: turns.end_round(db, *self._scope.place, live.turn_id))

    def lost_claim(self, position: sessions.Position) -> Steps[None]:
        """Note that somebody changed the session before the claim, and pause. Raises ``ConflictError``."""
        self._lost_claims += 1
        self._head = position.head_seq
        what = "the session is being changed by others"
        if self._on_conflict == "wait":
            yield from self._pause(None, what)
        elif self._lost_claims >= CLAIM_TRIES:
            raise ConflictError(what, expected=self._head)

    def check(self, position: sessions.Position) -> None:
        """Raise ``ConflictError`` when a lost claim was another turn's gain, and the caller did not agree to wait."""
        if self._on_conflict == "reject" and self._lost_claims and position.head_seq != self._head:
            raise ConflictError("another turn was first", expected=self._head, found=position.head_seq)

    def _pause(self, live: str | None, what: str) -> Steps[None]:
        ports = self._scope.ports
        left_s = self._give_up - ports.monotonic()
        if left_s <= 0:
            raise ConflictError(f"{what}, after {self._wait_s:g} s", found=live, turn_id=live)
        if live != self._seen:
            self._seen, self._passed = live, self._passed + 1
            self._look_s = max(FIRST_LOOK_S / (1 + self._passed / 8), SHORTEST_LOOK_S)
        yield Pause(min(self._look_s * (0.5 + ports.draw()), left_s))
        self._look_s = min(1.5 * self._look_s, LONGEST_LOOK_S)


def read_situation(
    scope: SessionScope, key: str | None, ahead: ReadAhead | None = None, *, ordinal: int = 1
) -> Steps[Situation]:
    """Read where the session stands and what is in the way, and where nothing is, what ``ahead`` reads.

    ``ordinal``: which turn of the key's round is asked for.

    Raises ``NotFoundError``.
    """
    tenant, session_id, now = scope.tenant, scope.session_id, scope.ports.now()

    def work(db: Connection) -> Situation:
        # First the position, then the key: a turn of this key that comes later moves the version that the claim names.
        position = sessions.position(db, tenant, session_id)
        mine = [] if key is None else transcript.by_key(db, tenant, session_id, key)
        running = next((one.id for one, _ in mine if one.ordinal == ordinal and one.status.in_flight), None)
        in_flight = running or position.live_turn
        live = None if in_flight is None else recovery.holder(db, tenant, session_id, in_flight, now)
        gone = in_flight is not None and live is None
        is_free = not mine and in_flight is None
        return Situation(position, mine, live, gone, ahead(db, position) if is_free and ahead is not None else None)

    return (yield from read("situation", work))

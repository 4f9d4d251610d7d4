"""One transaction alone on a session: nobody else changes it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, TypeVar

from roleplay.domain.conversation import Turn, TurnStatus
from roleplay.errors import ConflictError, InvalidInputError
from roleplay.store import Connection
from roleplay.store.records import moves, sessions, stored_turns, transcript
from roleplay.store.records.stored_turns import StoredTurn
from roleplay.turns.arguments import turn_key
from roleplay.turns.effects import Steps, write
from roleplay.turns.in_flight import end_if_lost
from roleplay.turns.scope import SessionScope

T = TypeVar("T")


class Alone(NamedTuple):
    """A transaction on a session: where it stands, and when."""

    db: Connection
    scope: SessionScope
    position: sessions.Position
    at: datetime

    @property
    def place(self) -> tuple[Connection, str, str]:
        return self.db, self.scope.tenant, self.scope.session_id

    def ended(self, turn_id: str) -> StoredTurn:
        """Read a turn, which must not be in flight."""
        found = stored_turns.read_turn(*self.place, turn_key(turn_id), None)
        if TurnStatus(found.status).in_flight:
            raise ConflictError("this turn is still running", found=found.id, turn_id=found.id)
        return found

    def complete(self, turn_id: str) -> StoredTurn:
        """Read a turn, which must be complete."""
        found = self.ended(turn_id)
        if found.status != TurnStatus.COMPLETED:
            raise InvalidInputError("turn_id", f"is {found.status}", allowed="a turn that is completed")
        return found

    def turn_at(self, seq: int) -> Turn:
        """Read the turn with a number."""
        return transcript.path(*self.place, from_turn=seq, limit=1)[0]

    def move(self, to: int | None, cause: str, *, undoes: int | None = None) -> None:
        """Move the head, which a turn in flight on it forbids."""
        live = self.position.live_turn
        if live is not None:
            raise ConflictError("a turn is still running in this session", found=live, turn_id=live)
        if to != self.position.head_seq:
            moves.move_head(*self.place, (self.position.head_seq, to), cause=cause, at=self.at, undoes=undoes)


def alone(scope: SessionScope, work: Callable[[Alone], T]) -> Steps[T]:
    """Do the work alone on the session. A turn in flight that is in its way and that nobody drives is ended first.

    Raises ``InvalidInputError`` for who looks at the session as a seat: what a move takes along may be others'.
    """
    if scope.seat is not None:
        problem = f"is what {scope.seat!r:.50} sees, through which nothing is moved or changed"
        raise InvalidInputError("seen_by", problem, allowed="the session's own handle")
    at = scope.ports.now()

    def whole(db: Connection) -> T:
        sessions.lock(db, scope.tenant, scope.session_id)
        return work(Alone(db, scope, sessions.position(db, scope.tenant, scope.session_id), at))

    while True:
        try:
            return (yield from write("move", whole))
        except ConflictError as error:
            if error.turn_id is None or not (yield from end_if_lost(scope, error.turn_id)):
                raise

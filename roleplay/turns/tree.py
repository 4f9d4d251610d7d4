"""Operations that move a session's head or change what its path shows; no model is called and no row is copied.

Each is one transaction, guarded by the session's version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from roleplay.domain.conversation import SessionInfo, Turn, TurnStatus
from roleplay.domain.settings import SessionSettings
from roleplay.errors import ConflictError, InvalidInputError
from roleplay.store import Connection
from roleplay.store.records import moves, recovery, sessions, stored_turns, transcript
from roleplay.store.records import turns as store
from roleplay.store.records.new_rows import NewMessage
from roleplay.store.records.stored_turns import StoredTurn
from roleplay.turns.arguments import line_text, number, scene_text, turn_key
from roleplay.turns.effects import Read, Steps, write
from roleplay.turns.in_flight import end_if_lost
from roleplay.turns.scope import SessionScope

T = TypeVar("T")


class _Now(NamedTuple):
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


def choose(scope: SessionScope, turn_id: str) -> Steps[Turn]:
    """Stand on a turn that is complete, such as another variant of a reply."""
    return (yield from _stand_on(scope, turn_id, "choose"))


def fork(scope: SessionScope, turn_id: str) -> Steps[Turn]:
    """Stand on an earlier turn, so that the next line begins a branch of its own; what followed stays."""
    return (yield from _stand_on(scope, turn_id, "fork"))


def _stand_on(scope: SessionScope, turn_id: str, cause: str) -> Steps[Turn]:
    def work(now: _Now) -> Turn:
        now.move(now.complete(turn_id).tip, cause)
        return transcript.by_id(*now.place, turn_id)

    return (yield from _write(scope, work))


def rewind(scope: SessionScope, turns: int) -> Steps[Turn | None]:
    """Step back over the last ``turns`` turns; gives the turn the session stands on then, ``None`` before the first."""
    number("turns", turns, 1)

    def work(now: _Now) -> Turn | None:
        head, limit = now.position.head_turn, min(turns, now.position.last_turn) + 1
        path = [] if head is None else transcript.numbers(*now.place, from_turn=head, limit=limit)
        if len(path) < turns:
            raise InvalidInputError("turns", f"is {turns}", allowed=f"at most {len(path)}, the turns there are")
        target = now.turn_at(path[turns]) if len(path) > turns else None
        now.move(None if target is None else now.ended(target.id).tip, "rewind")
        return target

    return (yield from _write(scope, work))


def undo(scope: SessionScope) -> Steps[Turn | None]:
    """Take back the last move of the head that was not taken back yet; gives the turn the session stands on then."""

    def work(now: _Now) -> Turn | None:
        move = moves.last_standing(*now.place)
        if move is None:
            raise InvalidInputError("undo", "has nothing left to take back")
        now.move(move.from_seq, "undo", undoes=move.version)
        if move.from_seq is None:
            return None
        head = sessions.position(*now.place).head_turn
        return None if head is None else now.turn_at(head)

    return (yield from _write(scope, work))


def accept(scope: SessionScope, turn_id: str) -> Steps[Turn]:
    """Take an interrupted turn as it is: its text becomes the reply, and the head moves to it."""

    def work(now: _Now) -> Turn:
        found = now.ended(turn_id)
        if found.status != TurnStatus.INTERRUPTED or not found.reply_text:
            raise InvalidInputError("turn_id", f"is {found.status}", allowed="an interrupted turn with text")
        recovery.accept(*now.place, found.seq)
        now.move(found.reply_seq, "accept")
        return transcript.by_id(*now.place, turn_id)

    return (yield from _write(scope, work))


def edit(scope: SessionScope, turn_id: str, text: str) -> Steps[Turn]:
    """Give a reply other words, as a new variant beside it; the head moves to it."""
    words = line_text(text)

    def work(now: _Now) -> Turn:
        found, position = now.complete(turn_id), now.position
        old = transcript.by_id(*now.place, turn_id)
        if old.reply is None:
            raise InvalidInputError("turn_id", "has no reply", allowed="a turn with a reply")
        who, end = (old.reply.seat, old.reply.name), found.end._replace(seq=old.reply.parent_seq)
        message = NewMessage.after(
            end, position.last_seq + 1, who, words, scope.counter, by_human=False, revision=position.revision
        )
        turn = position.new_turn(
            scope.ports.new_id(),
            old.kind,
            found.speaker,
            parent_turn=found.parent_turn,
            states=found.left,
            human_seq=found.human_seq,
            reply_seq=message.seq,
            draws=found.draws,
        )
        sessions.give_out(*now.place, last_seq=message.seq, last_turn=turn.seq)
        store.add_turn(*now.place, turn, now.at)
        store.add_message(*now.place, turn.seq, message, now.at)
        now.move(message.seq, "edit")
        return transcript.by_id(*now.place, turn.id)

    return (yield from _write(scope, work))


def hide(scope: SessionScope, turn_id: str, *, hidden: bool) -> Steps[Turn]:
    """Leave a complete turn out of contexts from now on, or take it in again. It stays where it is, shown as hidden."""

    def work(now: _Now) -> Turn:
        found = now.complete(turn_id)
        # The reply says it for its line too, which may be other variants' as well.
        moves.hide(*now.place, [found.tip] if found.tip is not None else [], hidden=hidden)
        return transcript.by_id(*now.place, turn_id)

    return (yield from _write(scope, work))


def update(scope: SessionScope, label: str | None, settings: SessionSettings | None) -> Steps[SessionInfo]:
    """Give the session another scene label or other settings, as a new revision; earlier turns keep theirs."""
    if settings is not None:
        scope.tenant_scope.check_settings(settings)
    if label is not None:
        scene_text(label)

    def work(now: _Now) -> SessionInfo:
        old = sessions.get(*now.place)
        new = old.scene if label is None else label.strip(), old.settings if settings is None else settings
        if new != (old.scene, old.settings):
            sessions.add_revision(*now.place, now.position.revision + 1, scene=new[0], settings=new[1], at=now.at)
        return sessions.get(*now.place)

    return (yield from _write(scope, work))


def branches(scope: SessionScope) -> Read[Sequence[Turn]]:
    """Give the last turn of every branch, newest first; the session stands on one of them or before it."""
    return Read("branches", lambda db: transcript.tips(db, scope.tenant, scope.session_id))


def variants(scope: SessionScope, turn_id: str) -> Read[Sequence[Turn]]:
    """Give all complete variants of a turn's reply, oldest first, and the turn itself among them."""
    key = turn_key(turn_id)
    return Read("variants", lambda db: transcript.variants(db, scope.tenant, scope.session_id, key))


def _write(scope: SessionScope, work: Callable[[_Now], T]) -> Steps[T]:
    """Do the work alone on the session. A turn in flight that is in its way and that nobody drives is ended first."""
    at = scope.ports.now()

    def whole(db: Connection) -> T:
        sessions.lock(db, scope.tenant, scope.session_id)
        return work(_Now(db, scope, sessions.position(db, scope.tenant, scope.session_id), at))

    while True:
        try:
            return (yield from write("move", whole))
        except ConflictError as error:
            if error.turn_id is None or not (yield from end_if_lost(scope, error.turn_id)):
                raise

"""Operations that move a session's head or change what its path shows; no model is called and no row is copied.

Each is one transaction, guarded by the session's version.
"""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.domain.conversation import SessionInfo, Turn, TurnStatus
from roleplay.domain.settings import SessionSettings
from roleplay.errors import InvalidInputError
from roleplay.store.records import moves, recovery, revisions, sessions, transcript
from roleplay.store.records import turns as store
from roleplay.store.records.new_rows import CallerFields, NewMessage
from roleplay.turns.alone import Alone, alone
from roleplay.turns.arguments import line_text, number, scene_text, turn_key
from roleplay.turns.effects import Read, Steps
from roleplay.turns.scope import SessionScope, viewer_in


def choose(scope: SessionScope, turn_id: str) -> Steps[Turn]:
    """Stand on a turn that is complete, such as another variant of a reply."""
    return (yield from _stand_on(scope, turn_id, "choose"))


def fork(scope: SessionScope, turn_id: str) -> Steps[Turn]:
    """Stand on an earlier turn, so that the next line begins a branch of its own; what followed stays."""
    return (yield from _stand_on(scope, turn_id, "fork"))


def _stand_on(scope: SessionScope, turn_id: str, cause: str) -> Steps[Turn]:
    def work(now: Alone) -> Turn:
        now.move(now.complete(turn_id).tip, cause)
        return transcript.by_id(*now.place, turn_id)

    return (yield from alone(scope, work))


def rewind(scope: SessionScope, turns: int) -> Steps[Turn | None]:
    """Step back over the last ``turns`` turns; gives the turn the session stands on then, ``None`` before the first."""
    number("turns", turns, 1)

    def work(now: Alone) -> Turn | None:
        head, limit = now.position.head_turn, min(turns, now.position.last_turn) + 1
        path = [] if head is None else transcript.numbers(*now.place, from_turn=head, limit=limit)
        if len(path) < turns:
            raise InvalidInputError("turns", f"is {turns}", allowed=f"at most {len(path)}, the turns there are")
        target = now.turn_at(path[turns]) if len(path) > turns else None
        now.move(None if target is None else now.ended(target.id).tip, "rewind")
        return target

    return (yield from alone(scope, work))


def undo(scope: SessionScope) -> Steps[Turn | None]:
    """Take back the last move of the head that was not taken back yet; gives the turn the session stands on then."""

    def work(now: Alone) -> Turn | None:
        move = moves.last_standing(*now.place)
        if move is None:
            raise InvalidInputError("undo", "has nothing left to take back")
        now.move(move.from_seq, "undo", undoes=move.version)
        if move.from_seq is None:
            return None
        head = sessions.position(*now.place).head_turn
        return None if head is None else now.turn_at(head)

    return (yield from alone(scope, work))


def accept(scope: SessionScope, turn_id: str) -> Steps[Turn]:
    """Take an interrupted turn as it is: its text becomes the reply, and the head moves to it."""

    def work(now: Alone) -> Turn:
        found = now.ended(turn_id)
        if found.status != TurnStatus.INTERRUPTED or not found.reply_text:
            raise InvalidInputError("turn_id", f"is {found.status}", allowed="an interrupted turn with text")
        recovery.accept(*now.place, found.seq)
        now.move(found.reply_seq, "accept")
        return transcript.by_id(*now.place, turn_id)

    return (yield from alone(scope, work))


def edit(scope: SessionScope, turn_id: str, text: str) -> Steps[Turn]:
    """Give a reply other words, as a new variant beside it; the head moves to it."""
    words = line_text(text)

    def work(now: Alone) -> Turn:
        found, position = now.complete(turn_id), now.position
        old = transcript.by_id(*now.place, turn_id)
        if old.reply is None:
            raise InvalidInputError("turn_id", "has no reply", allowed="a turn with a reply")
        who, end = (old.reply.seat, old.reply.name), found.end._replace(seq=old.reply.parent_seq)
        message = NewMessage.after(
            end,
            position.last_seq + 1,
            who,
            words,
            scope.counter,
            by_human=False,
            revision=position.revision,
            audience=found.audience,
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
            caller=CallerFields(audience=found.audience),
        )
        sessions.give_out(*now.place, last_seq=message.seq, last_turn=turn.seq)
        store.add_turn(*now.place, turn, now.at)
        store.add_message(*now.place, turn.seq, message, now.at)
        now.move(message.seq, "edit")
        return transcript.by_id(*now.place, turn.id)

    return (yield from alone(scope, work))


def hide(scope: SessionScope, turn_id: str, *, hidden: bool) -> Steps[Turn]:
    """Leave a complete turn out of contexts from now on, or take it in again. It stays where it is, shown as hidden."""

    def work(now: Alone) -> Turn:
        found = now.complete(turn_id)
        # The reply says it for its line too, which may be other variants' as well.
        moves.hide(*now.place, [found.tip] if found.tip is not None else [], hidden=hidden)
        return transcript.by_id(*now.place, turn_id)

    return (yield from alone(scope, work))


def update(scope: SessionScope, label: str | None, settings: SessionSettings | None) -> Steps[SessionInfo]:
    """Give the session another scene label or other settings, as a new revision; earlier turns keep theirs."""
    if settings is not None:
        scope.tenant_scope.check_settings(settings)
    if label is not None:
        scene_text(label)

    def work(now: Alone) -> SessionInfo:
        old = sessions.get(*now.place)
        new = old.scene if label is None else label.strip(), old.settings if settings is None else settings
        if new != (old.scene, old.settings):
            revisions.add_revision(*now.place, now.position.revision + 1, scene=new[0], settings=new[1], at=now.at)
        return sessions.get(*now.place)

    return (yield from alone(scope, work))


def branches(scope: SessionScope) -> Read[Sequence[Turn]]:
    """Give the last turn of every branch, newest first; the session stands on one of them or before it."""
    return Read("branches", lambda db: transcript.tips(db, *scope.place, viewer_in(scope, db)))


def variants(scope: SessionScope, turn_id: str) -> Read[Sequence[Turn]]:
    """Give all complete variants of a turn's reply, oldest first, and the turn itself among them."""
    key = turn_key(turn_id)
    return Read("variants", lambda db: transcript.variants(db, *scope.place, key, viewer_in(scope, db)))

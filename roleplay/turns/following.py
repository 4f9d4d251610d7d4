"""The operation of somebody who follows a turn that others drive: its text as it is kept, until the turn has ended."""

from __future__ import annotations

from roleplay.domain.conversation import Delta, Turn
from roleplay.errors import ConflictError
from roleplay.store import Connection
from roleplay.store.records import snapshots, transcript
from roleplay.turns.arguments import number, turn_key
from roleplay.turns.effects import Claimed, Emit, Interrupt, Operation, Pause, read
from roleplay.turns.in_flight import end_if_left
from roleplay.turns.scope import SessionScope, viewer_in

FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0
OFFSET_LIMIT = 2**31 - 2


def follow(scope: SessionScope, turn_id: str, offset: int) -> Operation:
    """Hand on a turn's text from a character on until the turn has ended, and give the turn.

    A turn in flight that nobody drives is ended first. Who stops following is given the turn as it stood at first.
    Raises ``NotFoundError``, ``InvalidInputError``, and ``ConflictError`` when the text that was handed on is not of
    the turn's reply any more.
    """
    number("offset", offset, 0, OFFSET_LIMIT)
    key = turn_key(turn_id)
    turn: Turn = yield from read("turn", lambda db: transcript.by_id(db, *scope.place, key, viewer_in(scope, db)))
    yield Emit(Claimed(turn.id))
    try:
        return (yield from _follow(scope, turn.id, offset))
    except Interrupt:
        return turn


def _follow(scope: SessionScope, turn_id: str, offset: int) -> Operation:
    ports, place = scope.ports, (scope.tenant, scope.session_id)
    taken, of_reply, look_s = offset, None, FIRST_LOOK_S
    while True:

        def read_situation(db: Connection) -> tuple[snapshots.Snapshot, Turn | None]:
            viewer, at = viewer_in(scope, db), ports.now()
            seen = snapshots.snapshot(db, *place, turn_id, after=taken, at=at, viewer=viewer)  # noqa: B023 - read at once
            return seen, None if seen.live else transcript.by_id(db, *place, turn_id, viewer)

        seen, ended = yield from read("snapshot", read_situation)
        if of_reply is not None and seen.reply_seq != of_reply:
            raise ConflictError("another attempt at this turn has begun", turn_id=turn_id)
        if taken or seen.text:
            of_reply = seen.reply_seq
        if seen.text:
            taken, look_s = taken + len(seen.text), FIRST_LOOK_S
            yield Emit(Delta(text=seen.text, speaker=seen.speaker, seat=seen.seat, turn_id=turn_id))
        if ended is not None:
            return ended
        if seen.live is None or not (yield from end_if_left(scope, seen.live)):
            yield Pause(look_s * (0.5 + ports.draw()))
            look_s = min(1.5 * look_s, LONGEST_LOOK_S)

"""The ground of a reply: the line it answers, the path before it, and what that path hands on.

A new line, another variant and another attempt differ in nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from roleplay.domain.context import Line
from roleplay.errors import ConflictError, InvalidInputError
from roleplay.store import entries, rescue, sessions
from roleplay.turns.effects import Pause, Steps, read, write
from roleplay.turns.scene import Rehearsed, Scene

FIRST_LOOK_S = 0.02
LONGEST_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Ground:
    """What a reply stands on.

    ``line`` is the human line to answer, ``human`` the message to write for it (``None``: it is stored already),
    ``before`` the message before it. ``state`` is what the path hands on. ``again`` is the stored turn that gets
    another attempt (``None``: the reply is a turn of its own).
    """

    stand: sessions.Stand
    line: Line
    human: entries.NewMessage | None
    before: int | None
    parent_turn: int | None
    state_seq: int | None
    state: str | None
    ordinals: tuple[int, int]
    revision: int
    again: rescue.Told | None = None

    def inherited(self, seat: int) -> tuple[int, str]:
        """What the path hands on for a seat: where its window starts (0: at the beginning), its front's digest."""
        start, front = json.loads(self.state).get(str(seat), (0, "")) if self.state else (0, "")
        return start, front


def of_new_line(scene: Scene, stand: sessions.Stand, known: Rehearsed, text: str) -> Ground:
    """Stand on the session's head, with a new human line."""
    human = known.stage.human.participant
    tokens = scene.counter.count(text)
    line = Line(stand.last_seq + 1, stand.last_turn + 1, human.seat, human.display_name, text, tokens)
    ordinals = (stand.human_ordinal + 1, stand.model_ordinal)
    message = entries.NewMessage(
        seq=line.seq,
        parent_seq=stand.head_seq,
        role="user",
        seat=line.seat,
        name=line.name,
        text=text,
        tokens=tokens,
        counter=scene.counter.name,
        depth=sum(ordinals),
        human_ordinal=ordinals[0],
        model_ordinal=ordinals[1],
    )
    return Ground(
        stand=stand,
        line=line,
        human=message,
        before=stand.head_seq,
        parent_turn=stand.head_turn,
        state_seq=stand.state_seq,
        state=stand.state,
        ordinals=ordinals,
        revision=stand.revision,
    )


def of_told(stand: sessions.Stand, told: rescue.Told, *, again: bool) -> Ground:
    """Stand on the human line of a turn that is stored, for another variant of its reply or another attempt at it.

    Raises ``InvalidInputError`` for a turn that answers nobody, such as a greeting.
    """
    if told.human_seq is None or told.human_text is None:
        raise InvalidInputError(
            "turn_id", f"is a {told.kind}, which answers no line", allowed="a turn with a human line"
        )
    line = Line(
        told.human_seq, told.seq, told.human_seat or 0, told.human_name or "", told.human_text, told.human_tokens or 0
    )
    return Ground(
        stand=stand,
        line=line,
        human=None,
        before=told.human_parent,
        parent_turn=told.parent_turn,
        state_seq=told.state_seq,
        state=told.state,
        ordinals=(told.human_ordinal or 0, told.model_ordinal or 0),
        revision=told.revision if again else stand.revision,
        again=told if again else None,
    )


def read_stand(scene: Scene) -> Steps[sessions.Stand]:
    """Read where the session stands. Raises ``NotFoundError``."""
    return (yield from read(lambda db: sessions.stand(db, scene.tenant, scene.session_id)))


def free_stand(scene: Scene, on_conflict: str, wait_s: float) -> Steps[tuple[sessions.Stand, bool]]:
    """Wait, as ``on_conflict`` says, until a turn may begin on the head; give the stand, and whether it may move it.

    A turn whose owner is gone or whose lease has run out is ended first. Raises ``ConflictError``.
    """
    ports = scene.ports
    give_up, look = ports.monotonic() + wait_s, FIRST_LOOK_S
    while True:
        stand = yield from read_stand(scene)
        if stand.live_turn is None or (yield from end_if_lost(scene, stand.live_turn)):
            if stand.live_turn is not None:
                stand = yield from read_stand(scene)
            if stand.live_turn is None:
                return stand, True
        if on_conflict == "fork":
            return stand, False
        if on_conflict != "wait":
            raise ConflictError(
                "a turn is still running in this session", found=stand.live_turn, turn_id=stand.live_turn
            )
        if ports.monotonic() >= give_up:
            raise ConflictError(
                f"a turn was still running in this session after {wait_s:g} s",
                found=stand.live_turn,
                turn_id=stand.live_turn,
            )
        yield Pause(look * (0.5 + ports.draw()))
        look = min(2 * look, LONGEST_LOOK_S)


def end_if_lost(scene: Scene, turn_id: str) -> Steps[bool]:
    """End a turn in flight whose owner is gone or whose lease has run out; says whether it is in flight no more."""
    tenant, session_id, now = scene.tenant, scene.session_id, scene.ports.now()
    held: rescue.Holder | None = yield from read(lambda db: rescue.holder(db, tenant, session_id, turn_id, now))
    if held is None:
        return True
    if not (held.expired or scene.ports.is_gone(held.owner)):
        return False
    hold = entries.Hold(tenant, session_id, held.turn_seq, held.attempt, held.owner)
    yield from write(lambda db: rescue.recover(db, hold, at=now))
    return True


def told(scene: Scene, turn_id: str | None, stand: sessions.Stand) -> Steps[rescue.Told]:
    """Read a turn by its id; without one, the last attempt after the head if there is one, else the head's turn.

    Raises ``NotFoundError``, and ``InvalidInputError`` when nothing was said yet.
    """
    return (yield from read(lambda db: rescue.told(db, scene.tenant, scene.session_id, turn_id, stand.head_turn)))

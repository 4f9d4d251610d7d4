"""Courses that call the model: a new line, another variant, another attempt, the rest of a reply that was cut off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime

from roleplay.domain.conversation import Delta, Turn, TurnStatus
from roleplay.domain.settings import TurnOptions
from roleplay.domain.values import TEXT_LIMIT, text_problem
from roleplay.errors import ConflictError, IdempotencyError, InvalidInputError, StoreError
from roleplay.store import rescue, sessions, transcript
from roleplay.store import turns as store
from roleplay.store.entries import Claim, Hold
from roleplay.turns.effects import Claimed, Course, Emit, Pause, Steps, read, write
from roleplay.turns.ground import (
    FIRST_LOOK_S,
    LONGEST_LOOK_S,
    Ground,
    end_if_lost,
    free_stand,
    of_new_line,
    of_told,
    read_stand,
    told,
)
from roleplay.turns.plan import Plan, Terms, Wish, claim_of, plan
from roleplay.turns.reply import Reply
from roleplay.turns.scene import Rehearsed, Scene, rehearse

CLAIM_TRIES = 20

Grounding = Callable[[sessions.Stand, Rehearsed], Steps[Ground]]


def send(scene: Scene, text: str, options: TurnOptions, *, stream: bool) -> Course:
    """Say ``text`` and give the turn with the reply to it.

    Raises ``InvalidInputError``, ``NotFoundError``, ``BudgetError``, ``ConflictError`` and ``IdempotencyError`` with
    nothing written, and ``ChatError`` with the turn stored as failed or, where text came, interrupted.
    """
    words = checked(text)
    asked: dict[str, str | None] = {"do": "send", "text": words}

    def ground(stand: sessions.Stand, known: Rehearsed) -> Steps[Ground]:
        yield from ()
        return of_new_line(scene, stand, known, words)

    return (yield from _speak(scene, ground, Wish(options.sampling), options, asked, stream=stream))


def regenerate(scene: Scene, turn_id: str | None, hint: str, options: TurnOptions, *, stream: bool) -> Course:
    """Give another variant of a turn's reply, as a turn of its own beside it; the head moves to it."""
    if hint:
        checked(hint, "hint")
    asked = {"do": "regenerate", "turn": turn_id, "hint": hint}

    def ground(stand: sessions.Stand, _known: Rehearsed) -> Steps[Ground]:
        return of_told(stand, (yield from told(scene, turn_id, stand)), again=False)

    return (yield from _speak(scene, ground, Wish(options.sampling, hint=hint), options, asked, stream=stream))


def retry(scene: Scene, turn_id: str | None, options: TurnOptions, *, stream: bool) -> Course:
    """Make another attempt at a turn that failed or was interrupted; its human line is reused."""

    def ground(stand: sessions.Stand, _known: Rehearsed) -> Steps[Ground]:
        return of_told(stand, (yield from _unresolved(scene, turn_id, stand)), again=True)

    return (yield from _speak(scene, ground, Wish(options.sampling), options, None, stream=stream))


def resume(scene: Scene, turn_id: str | None, options: TurnOptions, *, stream: bool) -> Course:
    """Let the model go on from the text of an interrupted turn; the reply is that text and what follows."""
    stand = yield from read_stand(scene)
    found = yield from _unresolved(scene, turn_id, stand)
    if not found.reply_text:
        raise InvalidInputError("turn_id", "has no text to go on from", allowed="an interrupted turn with text")
    so_far = found.reply_text

    def ground(stand: sessions.Stand, _known: Rehearsed) -> Steps[Ground]:
        return of_told(stand, (yield from _unresolved(scene, found.id, stand)), again=True)

    wish = Wish(options.sampling, so_far=so_far)
    return (yield from _speak(scene, ground, wish, options, None, stream=stream))


def preview(scene: Scene, text: str, options: TurnOptions) -> Steps[Plan]:
    """Plan a reply to ``text`` from where the session stands. Writes nothing, whoever else is speaking."""
    words = checked(text)
    stand = yield from read_stand(scene)
    known = yield from rehearse(scene, stand.revision)
    ground = of_new_line(scene, stand, known, words)
    return (yield from plan(scene, ground, known, Wish(options.sampling), stream=False))


def checked(text: str, field: str = "text") -> str:
    """Give a line as it may be stored and sent. Raises ``InvalidInputError``."""
    if not isinstance(text, str):
        raise InvalidInputError(field, f"is a {type(text).__name__}", allowed="a str")
    if problem := text_problem(text):
        raise InvalidInputError(field, problem)
    if not text.strip():
        raise InvalidInputError(field, "is blank", allowed="at least one visible character")
    if len(text) > TEXT_LIMIT:
        raise InvalidInputError(field, f"has {len(text)} characters", allowed=f"at most {TEXT_LIMIT}")
    return text


def _speak(
    scene: Scene,
    grounding: Grounding,
    wish: Wish,
    options: TurnOptions,
    asked: dict[str, str | None] | None,
    *,
    stream: bool,
) -> Course:
    """Claim a turn on the ground that ``grounding`` gives and drive it to its end, once per idempotency key."""
    digest = _body_digest(asked, options) if options.idempotency_key is not None and asked is not None else None
    seen: int | None = None
    for number in range(CLAIM_TRIES):
        if digest is not None:
            done = yield from _answered_before(scene, digest, options, stream=stream)
            if done is not None:
                return done
        stand, free = yield from free_stand(scene, options.on_conflict, options.wait_s)
        if options.on_conflict == "reject" and number and stand.head_seq != seen:
            raise ConflictError("another turn was first", expected=seen, found=stand.head_seq)
        seen = stand.head_seq
        known = yield from rehearse(scene, stand.revision)
        ground = yield from grounding(stand, known)
        made = yield from plan(scene, ground, known, wish, stream=stream)
        metadata = json.dumps(dict(options.metadata), ensure_ascii=False) if options.metadata else None
        key = options.idempotency_key if digest is not None else None
        claim = claim_of(scene, made, Terms(key, digest, metadata, moves_head=free))
        at = scene.ports.now()
        if (yield from _claimed(scene, claim, at)):
            return (yield from Reply(scene, made, claim, at, wish.so_far).course())
        if options.on_conflict == "wait":
            yield Pause(scene.ports.draw() * LONGEST_LOOK_S)
    raise ConflictError("the session is being changed by others", expected=seen)


def _claimed(scene: Scene, claim: Claim, at: datetime) -> Steps[bool]:
    """Write a claim; says whether it stands. A caller who leaves meanwhile leaves no turn in flight behind."""
    try:
        return (yield from write(lambda db: store.claim(db, scene.tenant, scene.session_id, claim, at)))
    except (GeneratorExit, StoreError):
        raise
    except BaseException:
        turn = claim.turn
        hold = Hold(scene.tenant, scene.session_id, turn.seq, turn.attempt, turn.lease_owner or "")
        yield from write(lambda db: rescue.recover(db, hold, at=at))
        raise


def _body_digest(asked: dict[str, str | None], options: TurnOptions) -> str:
    """SHA-256 of what a caller asked for, as canonical JSON."""
    body = {**asked, "sampling": options.sampling.model_dump(), "metadata": dict(options.metadata)}
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _answered_before(scene: Scene, digest: str, options: TurnOptions, *, stream: bool) -> Steps[Turn | None]:
    """Give the turn that this key already made; ``None`` when the caller should make it.

    A turn that failed, or was interrupted before it said anything, gets another attempt. Raises where the key is in use
    for something else, and ``ConflictError`` while its turn runs and is not waited for.
    """
    key, ports = options.idempotency_key or "", scene.ports
    give_up, look = ports.monotonic() + options.wait_s, FIRST_LOOK_S
    while True:
        found = yield from read(lambda db: transcript.by_key(db, scene.tenant, scene.session_id, key))
        if found is None:
            return None
        turn, first_digest = found
        if digest != first_digest:
            raise IdempotencyError(f"the idempotency key {key!r} was used for another request", found=turn.id)
        if not turn.status.in_flight:
            break
        if (yield from end_if_lost(scene, turn.id)):
            continue
        if options.on_conflict != "wait" or ports.monotonic() >= give_up:
            raise ConflictError(f"the turn of key {key!r} is still running", found=turn.id, turn_id=turn.id)
        yield Pause(look * (0.5 + ports.draw()))
        look = min(2 * look, LONGEST_LOOK_S)
    if turn.reply is None and turn.status is not TurnStatus.COMPLETED:
        plain = options.evolve(idempotency_key=None)
        return (yield from retry(scene, turn.id, plain, stream=stream))
    yield Emit(Claimed(turn.id))
    if stream and turn.reply is not None:
        yield Emit(Delta(text=turn.reply.text, speaker=turn.reply.name))
    return turn


def _unresolved(scene: Scene, turn_id: str | None, stand: sessions.Stand) -> Steps[rescue.Told]:
    """Read a turn that failed or was interrupted; without an id, the last attempt after the head.

    Raises ``InvalidInputError`` for a turn that is complete or still runs.
    """
    if turn_id is None:
        last = yield from read(lambda db: transcript.unresolved(db, scene.tenant, scene.session_id, stand.head_turn))
        if last is None:
            raise InvalidInputError("turn_id", "is needed: the last turn is complete")
        turn_id = last.id
    found = yield from told(scene, turn_id, stand)
    if TurnStatus(found.status) not in {TurnStatus.FAILED, TurnStatus.INTERRUPTED}:
        raise InvalidInputError("turn_id", f"is {found.status}", allowed="a turn that failed or was interrupted")
    return found

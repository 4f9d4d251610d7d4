"""Courses that call the model: a new line, another variant, another attempt, the rest of a reply that was cut off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from roleplay.domain.conversation import Delta, Turn, TurnStatus
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.guards import Checked
from roleplay.domain.settings import TurnOptions
from roleplay.domain.values import TEXT_LIMIT, text_problem
from roleplay.errors import ConflictError, IdempotencyError, InvalidInputError, StoreError
from roleplay.store import Connection, rescue, sessions, transcript
from roleplay.store import turns as store
from roleplay.store.entries import CallEnding, Claim, Terms
from roleplay.turns.asked import options_of, turn_key
from roleplay.turns.calibrating import merge_due, recount
from roleplay.turns.effects import Claimed, Course, Emit, Steps, read, write
from roleplay.turns.ground import Ground, Queue, end_if_lost, look, of_new_line, of_no_line, of_told, read_stand, told
from roleplay.turns.guarding import Judged, judge
from roleplay.turns.plan import Plan, Wish, claim_of, plan, reads_ahead
from roleplay.turns.reply import Reply, error_json
from roleplay.turns.scene import Rehearsed, Scene, rehearse

Grounding = Callable[[sessions.Stand, Rehearsed], Steps[Ground]]


def send(scene: Scene, text: str, options: TurnOptions, *, stream: bool) -> Course:
    """Say ``text`` and give the turn with the reply to it.

    Raises ``InvalidInputError``, ``NotFoundError``, ``BudgetError``, ``ConflictError`` and ``IdempotencyError`` with
    nothing written, and ``ChatError`` with the turn stored as failed or, where text came, interrupted.
    """
    words = checked(text)
    asked: dict[str, str | None] = {"do": "send", "text": words}
    judged: list[Judged] = []

    def ground(stand: sessions.Stand, known: Rehearsed) -> Steps[Ground]:
        if not judged:
            judged.append((yield from judged_line(scene, known, words)))
        [passed] = judged
        if passed.refused is not None:
            raise passed.refused
        return replace(of_new_line(scene, stand, known, checked(passed.text)), verdicts=passed.verdicts)

    return (yield from _speak(scene, ground, Wish(options), options, asked, stream=stream, at_head=True))


def judged_line(scene: Scene, known: Rehearsed, words: str) -> Steps[Judged]:
    """Ask the guards about a human line."""
    speaker = known.pair.human.participant.display_name
    asked = Checked(side="human", text=words, speaker=speaker, tenant=scene.tenant, session_id=scene.session_id)
    return (yield from judge(scene, asked)) if scene.watch.guards else Judged(words)


def regenerate(scene: Scene, turn_id: str | None, hint: str, options: TurnOptions, *, stream: bool) -> Course:
    """Give another variant of a turn's reply, as a turn of its own beside it; the head moves to it."""
    if hint:
        checked(hint, "hint")
    asked = {"do": "regenerate", "turn": None if turn_id is None else turn_key(turn_id), "hint": hint}

    def ground(stand: sessions.Stand, _known: Rehearsed) -> Steps[Ground]:
        return of_told(stand, (yield from told(scene, turn_id, stand)), again=False)

    return (yield from _speak(scene, ground, Wish(options, hint=hint), options, asked, stream=stream))


def speak(scene: Scene, hint: str, options: TurnOptions, *, stream: bool) -> Course:
    """Let the model speak after what was said last, without a line to answer."""
    if hint:
        checked(hint, "hint")

    def ground(stand: sessions.Stand, known: Rehearsed) -> Steps[Ground]:
        yield from ()
        return of_no_line(stand, known)

    return (
        yield from _speak(
            scene, ground, Wish(options, hint=hint), options, {"do": "speak", "hint": hint}, stream=stream, at_head=True
        )
    )


def retry(scene: Scene, turn_id: str | None, options: TurnOptions, *, stream: bool) -> Course:
    """Make another attempt at a turn that failed or was interrupted; its human line is reused."""
    _of_an_attempt(options)

    def ground(stand: sessions.Stand, _known: Rehearsed) -> Steps[Ground]:
        return of_told(stand, (yield from _unresolved(scene, turn_id, stand)), again=True)

    return (yield from _speak(scene, ground, Wish(options), options, None, stream=stream))


def resume(scene: Scene, turn_id: str | None, options: TurnOptions, *, stream: bool) -> Course:
    """Let the model go on from the text of a reply; the new reply is that text and what follows.

    An interrupted turn gets another attempt. Beside a complete one, whose text later requests may hold, the longer
    reply is a variant of its own, and the head moves to it.
    """
    _of_an_attempt(options)

    def ground(stand: sessions.Stand, _known: Rehearsed) -> Steps[Ground]:
        found = yield from _to_go_on(scene, turn_id, stand)
        complete = TurnStatus(found.status) is TurnStatus.COMPLETED
        stood = of_told(stand, found, again=not complete, so_far=found.reply_text or "")
        if not found.reply_text:
            raise InvalidInputError("turn_id", "has no text to go on from", allowed="a turn with a reply")
        return stood

    return (yield from _speak(scene, ground, Wish(options), options, None, stream=stream))


def _of_an_attempt(options: TurnOptions) -> None:
    """Raise ``InvalidInputError`` for options that a turn has from its first attempt on."""
    for name in ("idempotency_key", "metadata"):
        if getattr(options, name):
            raise InvalidInputError(name, "is the turn's since its first attempt", allowed="none for another attempt")


def preview(scene: Scene, text: str, options: TurnOptions) -> Steps[Plan]:
    """Plan a reply to ``text`` from where the session stands. Writes nothing, whoever else is speaking."""
    words, wish = checked(text), Wish(options_of(options))
    stand = yield from read_stand(scene)
    known = yield from rehearse(scene, stand.revision, stand.seat)
    ground = of_new_line(scene, stand, known, words)
    return (yield from plan(scene, ground, known, wish, stream=False))


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
    at_head: bool = False,
) -> Course:
    """Claim a turn on the ground that ``grounding`` gives and drive it to its end, once per idempotency key.

    ``at_head``: that ground is the session's head, so that its history may be read with it.
    """
    key = options_of(options).idempotency_key if asked is not None else None
    digest = None if asked is None or key is None else body_digest(asked, options)
    queue = Queue(scene, options.on_conflict, options.wait_s)
    ahead = reads_ahead(scene, wish.options, stream=stream) if at_head else None
    yield from _tidy(scene)
    yield from queue.let_others()
    while True:
        stand, found, live, gone, before = yield from look(scene, key, ahead)
        mine = None if found is None else of_same_body(*found, digest, key)
        if mine is not None and _is_answered(mine):
            return (yield from _told_again(mine, stream=stream))
        running = key if mine is not None and mine.status.in_flight else None
        if gone or (live is not None and not (yield from queue.may_pass(live, running))):
            continue
        queue.check(stand)
        known = yield from rehearse(scene, stand.revision, stand.seat)
        if mine is None:
            ground = yield from grounding(stand, known)
        else:  # it failed, or ended before it said anything
            ground = of_told(stand, (yield from told(scene, mine.id, stand)), again=True)
        known = yield from rehearse(scene, stand.revision, ground.seat)  # perhaps not the one whose turn it is
        made = yield from plan(scene, ground, known, wish, stream=stream, ahead=before)
        metadata = json.dumps(dict(options.metadata), ensure_ascii=False) if options.metadata else None
        claim = claim_of(scene, made, Terms(key, digest, metadata, moves_head=live is None))
        at = scene.ports.now()
        scene.ports.driven[claim.call.id] = claim.turn.id
        try:
            if (yield from _claimed(scene, claim, at)):
                return (yield from Reply(scene, made, claim, at).course())
        finally:
            scene.ports.driven.pop(claim.call.id, None)
            queue.has_spoken()
        yield from queue.lost_claim(stand)


def _tidy(scene: Scene) -> Steps[None]:
    """Do what turns left to be done between them: merge what they taught, count anew what another counter counted."""
    yield from merge_due(scene.calibrated, scene.tenant, scene.ports.now)
    lines = scene.recounts.get(scene.session_id)
    if lines:
        left = yield from recount(scene.counter, scene.tenant, scene.session_id, lines)
        scene.recounts[scene.session_id] = tuple(left)


def _claimed(scene: Scene, claim: Claim, at: datetime) -> Steps[bool]:
    """Write a claim; says whether it stands. A caller who leaves meanwhile leaves no turn in flight behind."""

    def work(db: Connection) -> bool:
        return store.claim(db, scene.tenant, scene.session_id, claim, at, now=scene.ports.now())

    try:
        return (yield from write("claim", work))
    except (GeneratorExit, StoreError):
        raise
    except BaseException as error:
        ending = CallEnding(error=error_json(error))
        yield from write(
            "abandon", lambda db: store.abandon(db, scene.tenant, scene.session_id, claim, ending, at), patient=True
        )
        raise


def body_digest(asked: dict[str, str | None], options: TurnOptions) -> str:
    """SHA-256 of what a caller asked for, as canonical JSON."""
    body: dict[str, Any] = {**asked, "sampling": options.sampling.model_dump(), "metadata": dict(options.metadata)}
    if options.model is not None:
        body["model"] = options.model.model if isinstance(options.model, Endpoint) else options.model
    if options.facts:
        body["facts"] = [fact.model_dump() for fact in options.facts]
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def of_same_body(turn: Turn, first_digest: str, digest: str | None, key: str | None) -> Turn:
    """Give the turn that a key began. Raises ``IdempotencyError`` where it was for something else."""
    if digest != first_digest:
        raise IdempotencyError(f"the idempotency key {key!r} was used for another request", found=turn.id)
    return turn


def _is_answered(turn: Turn) -> bool:
    """Whether a turn is what its caller is given again: complete, or ended after it said something."""
    return not turn.status.in_flight and (turn.reply is not None or turn.status is TurnStatus.COMPLETED)


def _told_again(turn: Turn, *, stream: bool) -> Course:
    """Hand on a stored turn as if it came now."""
    yield Emit(Claimed(turn.id))
    if stream and turn.reply is not None:
        yield Emit(Delta(text=turn.reply.text, speaker=turn.reply.name))
    return turn


def _unresolved(scene: Scene, turn_id: str | None, stand: sessions.Stand) -> Steps[rescue.Told]:
    """Read a turn that failed or was interrupted; without an id, the last attempt after the head.

    Raises ``ConflictError`` for one that still runs, ``InvalidInputError`` for one that is complete.
    """
    if turn_id is None:
        turn_id = yield from _last_attempt(scene, stand)
        if turn_id is None:
            raise InvalidInputError("turn_id", "is needed: the last turn is complete")
    found = yield from _ended(scene, turn_id, stand)
    if TurnStatus(found.status) not in {TurnStatus.FAILED, TurnStatus.INTERRUPTED}:
        raise InvalidInputError("turn_id", f"is {found.status}", allowed="a turn that failed or was interrupted")
    return found


def _to_go_on(scene: Scene, turn_id: str | None, stand: sessions.Stand) -> Steps[rescue.Told]:
    """Read the turn to go on from; without an id, the last attempt after the head, else the head's own turn.

    An attempt beside the head's turn that gave no text, such as a failed one to go on from it, leaves that one the
    last. Raises ``ConflictError`` for a turn that still runs, ``InvalidInputError`` where nothing was said yet.
    """
    if turn_id is not None:
        return (yield from _ended(scene, turn_id, stand))
    last = yield from _last_attempt(scene, stand)
    found = yield from _ended(scene, last, stand)
    if last is None or found.reply_text or stand.head_turn is None:
        return found
    here = yield from told(scene, None, stand)
    beside = (here.parent_turn, here.human_seq) == (found.parent_turn, found.human_seq)
    return here if beside else found


def _last_attempt(scene: Scene, stand: sessions.Stand) -> Steps[str | None]:
    """Give the id of the last attempt after the head, if it has not become a reply."""
    last = yield from read(
        "unresolved", lambda db: transcript.unresolved(db, scene.tenant, scene.session_id, stand.head_turn)
    )
    return None if last is None else last.id


def _ended(scene: Scene, turn_id: str | None, stand: sessions.Stand) -> Steps[rescue.Told]:
    """Read a turn, the head's without an id, and end it first where it is in flight and nobody drives it any more.

    Raises ``ConflictError`` for one that still runs.
    """
    found = yield from told(scene, turn_id, stand)
    if TurnStatus(found.status).in_flight:
        if not (yield from end_if_lost(scene, found.id)):
            raise ConflictError("this turn is still running", found=found.id, turn_id=found.id)
        found = yield from told(scene, found.id, stand)
    return found

"""Operations that call the model: a new line, a variant, another attempt, the rest of a reply that was cut off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from roleplay.domain.conversation import Delta, Participant, PlayedBy, Turn, TurnStatus
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.guards import Checked
from roleplay.domain.settings import SeatRef, TurnOptions
from roleplay.errors import ConflictError, IdempotencyError, InvalidInputError, StoreError
from roleplay.store import Connection
from roleplay.store.records import audience as audiences
from roleplay.store.records import sessions, transcript
from roleplay.store.records import turns as store
from roleplay.store.records.new_rows import CallEnding, CallerFields, Claim
from roleplay.store.records.path_states import read_state, state_of
from roleplay.store.records.stored_turns import StoredTurn
from roleplay.turns.arguments import hint_text, line_text, no_audience, options_of, options_of_attempt, turn_key
from roleplay.turns.basis import (
    Basis,
    NewLine,
    RoundPlace,
    at_seat,
    check_way_back,
    of_new_line,
    of_no_line,
    of_stored_turn,
    read_position,
    read_turn,
)
from roleplay.turns.calibrating import merge_due, recount
from roleplay.turns.claim import claim_of
from roleplay.turns.effects import Claimed, Emit, Operation, Steps, read, write
from roleplay.turns.guarding import GuardedText, ask_guards
from roleplay.turns.in_flight import end_if_lost
from roleplay.turns.incoming import error_json
from roleplay.turns.order import chosen_draws, next_speakers, seats_that_hear
from roleplay.turns.past import reads_ahead
from roleplay.turns.plan import Plan, ReplyOptions, plan
from roleplay.turns.queue import Queue, read_situation
from roleplay.turns.reply import Reply
from roleplay.turns.revisions import RenderedRevision, listed
from roleplay.turns.scope import SessionScope, render_revision, speaking_seat, viewer_in

BasisOf = Callable[[sessions.Position, RenderedRevision], Steps[Basis]]


def send(
    scope: SessionScope, text: str, options: TurnOptions, *, stream: bool, speaker: SeatRef | None = None
) -> Operation:
    """Say ``text`` for the human of a seat and give the turn with the first speaker's reply to it.

    Raises ``InvalidInputError``, ``NotFoundError``, ``BudgetError``, ``ConflictError`` and ``IdempotencyError`` with
    nothing written, and ``ChatError`` with the turn stored as failed or, where text came, interrupted.
    """
    basis, wanted = to_new_line(scope, text, speaker, options), ReplyOptions(options)
    arguments = arguments_of("send", options, text=text, speaker=speaker)
    check = partial(check_line, speaker=speaker, options=options)
    return (yield from speak_once(scope, basis, wanted, options, arguments, stream=stream, at_head=True, check=check))


def check_line(rendered: RenderedRevision, speaker: SeatRef | None, options: TurnOptions) -> None:
    """Raise ``InvalidInputError`` where no such seat can say a line, or nobody of its audience can answer it."""
    seats_that_hear(rendered, audience_of(rendered, human_of(rendered, speaker), options))


def to_new_line(scope: SessionScope, text: str, speaker: SeatRef | None, options: TurnOptions) -> BasisOf:
    """Let the seats that are next answer a new line, about which the guards are asked once."""
    words = line_text(text)
    guarded_text: list[GuardedText] = []

    def basis(position: sessions.Position, rendered: RenderedRevision) -> Steps[Basis]:
        who = human_of(rendered, speaker)
        heard = audience_of(rendered, who, options)
        if not guarded_text:
            guarded_text.append((yield from guarded_line(scope, who, words, heard)))
        [passed] = guarded_text
        if passed.refused is not None:
            raise passed.refused
        line = NewLine(line_text(passed.text), who, heard)
        speakers: list[Participant] = yield from next_speakers(scope, rendered, position, line, heard)
        seat = speakers[0].seat
        here = yield from at_seat(scope, position, seat)
        draws = chosen_draws(speakers, rendered)
        return replace(of_new_line(scope, here, seat, line), verdicts=passed.verdicts, draws=draws)

    return basis


def to_no_line(
    scope: SessionScope,
    who: SeatRef | None,
    options: TurnOptions,
    of_round: RoundPlace | None = None,
    beside: Sequence[int] | None = None,
) -> BasisOf:
    """Let a seat of the model's speak after what was said last, the one that is next where none is named.

    ``beside``: the audience of the round's first turn, to whose speaker it is said, too.
    """

    def basis(position: sessions.Position, rendered: RenderedRevision) -> Steps[Basis]:
        forced = None if who is None else rendered.participant("participant", who, played_by=PlayedBy.MODEL)
        heard = audience_of(rendered, forced, options) if beside is None else audiences.written(beside)
        speakers = [forced] if forced else (yield from next_speakers(scope, rendered, position, None, heard))
        seat = speakers[0].seat
        here = yield from at_seat(scope, position, seat)
        draws = None if forced else chosen_draws(speakers, rendered)
        return replace(of_no_line(here, seat, heard), draws=draws, of_round=of_round)

    return basis


def arguments_of(do: str, options: TurnOptions, **arguments: Any) -> dict[str, Any]:
    """Give what a caller asked for as an idempotency key names it; what is left out is as if it were not there."""
    given = {name: value for name, value in arguments.items() if value is not None}
    heard = {} if options_of(options).audience is None else {"audience": list(options.audience or ())}
    return {"do": do, **given, **heard}


def human_of(rendered: RenderedRevision, speaker: SeatRef | None) -> Participant:
    """Give the human seat that says a line. Raises ``InvalidInputError`` where none is named and there are several."""
    if speaker is not None:
        return rendered.participant("speaker", speaker, played_by=PlayedBy.HUMAN)
    if len(rendered.humans) > 1:
        allowed = listed(rendered.humans)
        raise InvalidInputError("speaker", "is needed: several humans sit here", allowed=allowed)
    return rendered.humans[0]


def audience_of(rendered: RenderedRevision, speaker: Participant | None, options: TurnOptions) -> str | None:
    """Give whom a turn is said to, as it is stored: the seats that the options name, and the speaker."""
    if options.audience is None:
        return None
    seats = {rendered.participant("audience", one).seat for one in options.audience}
    return audiences.written(seats | ({speaker.seat} if speaker else set()))


def guarded_line(scope: SessionScope, who: Participant, words: str, heard: str | None) -> Steps[GuardedText]:
    """Ask the guards about a human line."""
    if not scope.tenant_scope.watch.guards:
        return GuardedText(words)
    line = Checked(
        side="human",
        text=words,
        speaker=who.display_name,
        tenant=scope.tenant,
        session_id=scope.session_id,
        audience=audiences.read(heard),
    )
    return (yield from ask_guards(scope, line))


def regenerate(scope: SessionScope, turn_id: str | None, hint: str, options: TurnOptions, *, stream: bool) -> Operation:
    """Give another variant of a turn's reply, as a turn of its own beside it; the head moves to it."""
    hint_text(hint)
    no_audience(options_of(options))
    arguments = {"do": "regenerate", "turn": None if turn_id is None else turn_key(turn_id), "hint": hint}

    def basis(position: sessions.Position, rendered: RenderedRevision) -> Steps[Basis]:
        return (yield from _of_turn(scope, position, rendered, (yield from read_turn(scope, turn_id, position))))

    return (yield from speak_once(scope, basis, ReplyOptions(options, hint=hint), options, arguments, stream=stream))


def _of_turn(
    scope: SessionScope,
    position: sessions.Position,
    rendered: RenderedRevision,
    turn: StoredTurn,
    *,
    again: bool = False,
    so_far: str = "",
) -> Steps[Basis]:
    """Stand on the human line of a stored turn. Raises ``InvalidInputError`` where nobody may answer it."""
    basis = of_stored_turn(position, turn, again=again, so_far=so_far)
    seat = basis.seat
    if basis.line is not None:
        speakers: list[int] = yield from _answering(scope, position, rendered, turn)
        seat = speakers[0]
    if seat == basis.seat:
        return basis
    states = basis.states
    state = yield from read("state", lambda db: state_of(db, *scope.place, states, seat))
    return replace(basis, seat=seat, state=read_state(state))


def _answering(
    scope: SessionScope, position: sessions.Position, rendered: RenderedRevision, turn: StoredTurn
) -> Steps[list[int]]:
    """Give the seats that answer a stored turn's line again: who answered it; where nobody did, or it said nothing and
    has left, those that are next of the seats that may see the line. Raises ``InvalidInputError`` where none may."""
    answered = turn.answering == turn.speaker and (bool(turn.reply_text) or turn.answering in rendered.speaking)
    seats = [turn.answering] if answered else [one.seat for one in rendered.models]
    line = turn.audience, turn.human_revision
    seats = [seat for seat in seats if audiences.may_see(rendered.viewer(seat), *line)]
    if not seats:
        problem, allowed = "was said to nobody whom the model plays now", "a turn with such a seat in its audience"
        raise InvalidInputError("turn_id", problem, allowed=allowed)
    if len(seats) == 1:
        return seats
    said = NewLine(turn.human_text or "", rendered.humans[0], turn.audience)
    try:
        next_ones: list[Participant] = yield from next_speakers(scope, rendered, position, said, turn.audience)
    except InvalidInputError:  # nobody is called
        return seats
    return [one.seat for one in next_ones if one.seat in seats] or seats


def speak(scope: SessionScope, who: SeatRef | None, hint: str, options: TurnOptions, *, stream: bool) -> Operation:
    """Let a seat of the model's speak after what was said last, without a line to answer."""
    hint_text(hint)
    arguments = arguments_of("speak", options, hint=hint, participant=who)
    basis, wanted = to_no_line(scope, who, options), ReplyOptions(options, hint=hint)
    return (yield from speak_once(scope, basis, wanted, options, arguments, stream=stream, at_head=True))


def retry(scope: SessionScope, turn_id: str | None, options: TurnOptions, *, stream: bool) -> Operation:
    """Make another attempt at a turn that failed or was interrupted; its human line is reused."""
    options_of_attempt(options)

    def basis(position: sessions.Position, rendered: RenderedRevision) -> Steps[Basis]:
        found = yield from _unresolved(scope, turn_id, position)
        return (yield from _of_turn(scope, position, rendered, found, again=True))

    return (yield from speak_once(scope, basis, ReplyOptions(options), options, None, stream=stream))


def resume(scope: SessionScope, turn_id: str | None, options: TurnOptions, *, stream: bool) -> Operation:
    """Let the model go on from the text of a reply; the new reply is that text and what follows.

    An interrupted turn gets another attempt. Beside a complete one, whose text later requests may hold, the longer
    reply is a variant of its own, and the head moves to it.
    """
    options_of_attempt(options)

    def basis(position: sessions.Position, rendered: RenderedRevision) -> Steps[Basis]:
        found = yield from _to_go_on(scope, turn_id, position)
        again, so_far = TurnStatus(found.status) is not TurnStatus.COMPLETED, found.reply_text or ""
        stood = yield from _of_turn(scope, position, rendered, found, again=again, so_far=so_far)
        if not found.reply_text:
            raise InvalidInputError("turn_id", "has no text to go on from", allowed="a turn with a reply")
        return stood

    return (yield from speak_once(scope, basis, ReplyOptions(options), options, None, stream=stream))


def preview(scope: SessionScope, text: str, speaker: SeatRef | None, options: TurnOptions) -> Steps[Plan]:
    """Plan a reply to ``text`` from where the session stands. Writes nothing, whoever else is speaking."""
    words, wanted = line_text(text), ReplyOptions(options_of(options))
    position = yield from read_position(scope)
    rendered = yield from render_revision(scope, position.revision)
    who = human_of(rendered, speaker)
    line = NewLine(words, who, audience_of(rendered, who, options))
    seat = (yield from next_speakers(scope, rendered, position, line, line.audience))[0].seat
    basis = of_new_line(scope, (yield from at_seat(scope, position, seat)), seat, line)
    return (yield from plan(scope, basis, speaking_seat(rendered, seat), wanted, stream=False))


def speak_once(
    scope: SessionScope,
    basis_of: BasisOf,
    wanted: ReplyOptions,
    options: TurnOptions,
    arguments: dict[str, Any] | None,
    *,
    stream: bool,
    at_head: bool = False,
    ordinal: int = 1,
    may_go_on: Callable[[sessions.Position], None] | None = None,
    check: Callable[[RenderedRevision], object] | None = None,
) -> Operation:
    """Claim a turn on the basis that ``basis_of`` gives and drive it to its end, once per idempotency key.

    ``at_head``: that basis is the session's head, so that its history may be read with its position. ``ordinal``: which
    turn of the key's round it is. ``may_go_on`` raises where the session stands elsewhere than the turn needs, also for
    another attempt at it. ``check`` raises for what cannot be, before anybody is waited for.
    """
    key = options_of(options).idempotency_key if arguments is not None else None
    digest = None if arguments is None or key is None else body_digest(arguments, options)
    queue = Queue(scope, options.on_conflict, options.wait_s)
    ahead = reads_ahead(scope, wanted.options, stream=stream) if at_head else None
    yield from _tidy(scope)
    yield from queue.let_others()
    while True:
        position, found, live, gone, before = yield from read_situation(scope, key, ahead, ordinal=ordinal)
        mine = of_same_body(found, digest, key, ordinal)
        if mine is not None and is_answered(mine):
            return (yield from _given_again(mine, stream=stream))
        running = key if mine is not None and mine.status.in_flight else None
        if live is not None and mine is None and check is not None:
            check((yield from render_revision(scope, position.revision)))
        if gone or (live is not None and not (yield from queue.may_pass(live, running, position.revision))):
            continue
        if may_go_on is not None:
            may_go_on(position)
        queue.check(position)
        rendered = yield from render_revision(scope, position.revision)
        if mine is None:
            basis = yield from basis_of(position, rendered)
        else:  # it failed, or ended before it said anything
            found_again = yield from read_turn(scope, mine.id, position)
            basis = yield from _of_turn(scope, position, rendered, found_again, again=True)
        yield from check_way_back(scope, position, basis.parent_turn)
        made = yield from plan(scope, basis, speaking_seat(rendered, basis.seat), wanted, stream=stream, ahead=before)
        metadata = json.dumps(dict(options.metadata), ensure_ascii=False) if options.metadata else None
        claim = claim_of(scope, made, CallerFields(key, digest, metadata, moves_head=live is None))
        at = scope.ports.now()
        scope.ports.driven[claim.call.id] = claim.turn.id
        try:
            if (yield from _claimed(scope, claim, at)):
                return (yield from Reply(scope, made, claim, at).run())
        finally:
            scope.ports.driven.pop(claim.call.id, None)
            queue.has_spoken()
        yield from queue.lost_claim(position)


def _tidy(scope: SessionScope) -> Steps[None]:
    """Do what turns left to be done between them: merge what they taught, count anew what another counter counted."""
    yield from merge_due(scope.tenant_scope.calibrations, scope.tenant, scope.ports.now)
    lines = scope.tenant_scope.recounts.get(scope.session_id)
    if lines:
        left = yield from recount(scope.counter, scope.tenant, scope.session_id, lines)
        scope.tenant_scope.recounts[scope.session_id] = tuple(left)


def _claimed(scope: SessionScope, claim: Claim, at: datetime) -> Steps[bool]:
    """Write a claim; says whether it stands. A caller who leaves meanwhile leaves no turn in flight behind."""

    def work(db: Connection) -> bool:
        return store.claim(db, scope.tenant, scope.session_id, claim, at, now=scope.ports.now())

    try:
        return (yield from write("claim", work))
    except (GeneratorExit, StoreError):
        raise
    except BaseException as error:
        ending = CallEnding(error=error_json(error))
        yield from write(
            "interrupt claim",
            lambda db: store.interrupt_claim(db, scope.tenant, scope.session_id, claim, ending, at),
            patient=True,
        )
        raise


def body_digest(arguments: dict[str, Any], options: TurnOptions) -> str:
    """SHA-256 of what a caller asked for, as canonical JSON."""
    body: dict[str, Any] = {**arguments, "sampling": options.sampling.model_dump(), "metadata": dict(options.metadata)}
    if options.model is not None:
        body["model"] = options.model.model if isinstance(options.model, Endpoint) else options.model
    if options.facts:
        body["facts"] = [fact.model_dump() for fact in options.facts]
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def of_same_body(
    found: Sequence[tuple[Turn, str]], digest: str | None, key: str | None, ordinal: int = 1
) -> Turn | None:
    """Give the turn of a key, or of its round, where there is one yet. Raises ``IdempotencyError`` where the key was
    used for something else."""
    if found and digest != found[0][1]:
        raise IdempotencyError(f"the idempotency key {key!r} was used for another request", found=found[0][0].id)
    return next((turn for turn, _ in found if turn.ordinal == ordinal), None)


def is_answered(turn: Turn) -> bool:
    """Whether a turn is what its caller is given again: complete, or ended after it said something."""
    return not turn.status.in_flight and (turn.reply is not None or turn.status is TurnStatus.COMPLETED)


def _given_again(turn: Turn, *, stream: bool) -> Operation:
    """Hand on a stored turn as if it came now."""
    yield Emit(Claimed(turn.id))
    if stream and turn.reply is not None:
        said = turn.reply
        yield Emit(Delta(text=said.text, speaker=said.name, seat=said.seat, turn_id=turn.id))
    return turn


def _unresolved(scope: SessionScope, turn_id: str | None, position: sessions.Position) -> Steps[StoredTurn]:
    """Read a turn that failed or was interrupted; without an id, the last attempt after the head.

    Raises ``ConflictError`` for one that still runs, ``InvalidInputError`` for one that is complete.
    """
    if turn_id is None:
        turn_id = yield from _last_attempt(scope, position)
        if turn_id is None:
            raise InvalidInputError("turn_id", "is needed: the last turn is complete")
    found = yield from _ended(scope, turn_id, position)
    if TurnStatus(found.status) not in {TurnStatus.FAILED, TurnStatus.INTERRUPTED}:
        raise InvalidInputError("turn_id", f"is {found.status}", allowed="a turn that failed or was interrupted")
    return found


def _to_go_on(scope: SessionScope, turn_id: str | None, position: sessions.Position) -> Steps[StoredTurn]:
    """Read the turn to go on from; without an id, the last attempt after the head, else the head's own turn.

    An attempt beside the head's turn that gave no text, such as a failed one to go on from it, leaves that one the
    last. Raises ``ConflictError`` for a turn that still runs, ``InvalidInputError`` where nothing was said yet.
    """
    if turn_id is not None:
        return (yield from _ended(scope, turn_id, position))
    last = yield from _last_attempt(scope, position)
    found = yield from _ended(scope, last, position)
    if last is None or found.reply_text or position.head_turn is None:
        return found
    here = yield from read_turn(scope, None, position)
    beside = (here.parent_turn, here.human_seq) == (found.parent_turn, found.human_seq)
    return here if beside else found


def _last_attempt(scope: SessionScope, position: sessions.Position) -> Steps[str | None]:
    """Give the id of the last attempt after the head, if it has not become a reply."""
    last = yield from read(
        "unresolved", lambda db: transcript.unresolved(db, *scope.place, position.head_turn, viewer_in(scope, db))
    )
    return None if last is None else last.id


def _ended(scope: SessionScope, turn_id: str | None, position: sessions.Position) -> Steps[StoredTurn]:
    """Read a turn, the head's without an id, and end it first where it is in flight and nobody drives it any more.

    Raises ``ConflictError`` for one that still runs.
    """
    found = yield from read_turn(scope, turn_id, position)
    if TurnStatus(found.status).in_flight:
        if not (yield from end_if_lost(scope, found.id)):
            raise ConflictError("this turn is still running", found=found.id, turn_id=found.id)
        found = yield from read_turn(scope, found.id, position)
    return found

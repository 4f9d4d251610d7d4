"""A claimed turn until its end: its attempts, the text so far, what was kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from roleplay.domain.conversation import Delta, DeltaKind, ModelCall, Participant, Turn
from roleplay.domain.events import TurnEvent
from roleplay.errors import (
    BadReplyError,
    ChatError,
    ChatUnavailableError,
    ConflictError,
    RoleplayError,
    StoreError,
)
from roleplay.store import Connection
from roleplay.store.records import audience, recipes, recovery, transcript, verdicts
from roleplay.store.records import turns as store
from roleplay.store.records.new_rows import Claim, HandedOn, Hold, NewCall, NewMessage
from roleplay.store.records.path_states import map_with
from roleplay.turns.attempts import Attempts, NextAttempt, observe
from roleplay.turns.calibrating import to_warn_of
from roleplay.turns.claim import call_of, lease_of, state_rows
from roleplay.turns.effects import (
    Admit,
    Claimed,
    Emit,
    Ended,
    Interrupt,
    Notify,
    Open,
    Operation,
    Pause,
    Receive,
    Release,
    Steps,
    Warn,
    read,
    write,
)
from roleplay.turns.incoming import IncomingReply, speech_chars, status_of
from roleplay.turns.plan import Plan
from roleplay.turns.scope import SessionScope
from roleplay.wire.heads import Head
from roleplay.wire.reply import Said
from roleplay.wire.request import WireRequest
from roleplay.wire.secrets import secrets_of

FLUSH_CHARS = 256
FLUSH_S = 2.0
FLUSH_GROWTH = 1.5
LINE_S = 60.0
LINE_SPARE_S = 10.0


@dataclass(slots=True)
class Reply:
    """Drives a claimed turn through its attempts to its end."""

    scope: SessionScope
    plan: Plan
    claim: Claim
    claimed_at: datetime
    call: NewCall = field(init=False)
    call_at: datetime = field(init=False)
    held_until: datetime = field(init=False)
    reply_at: datetime | None = field(init=False, default=None)
    past_calls: list[ModelCall] = field(init=False, default_factory=list)
    kept_chars: int = field(init=False, default=0)
    kept: bool = field(init=False, default=False)
    kept_at: float = field(init=False, default=0.0)
    attempts: Attempts = field(init=False)
    incoming: IncomingReply = field(init=False)

    def __post_init__(self) -> None:
        self.call, self.call_at = self.claim.call, self.claimed_at
        self.held_until = self.claimed_at + lease_of(self.plan)
        self.incoming = IncomingReply(self.scope, self.plan, self.claim.turn.id)
        self.kept = self.goes_on
        self.kept_chars = len(self.plan.basis.so_far) if self.goes_on else 0

    @property
    def goes_on(self) -> bool:
        """Whether the turn's own message holds the text that this attempt goes on from."""
        return self.plan.basis.again is not None and bool(self.plan.basis.so_far)

    def run(self) -> Operation:
        """Make attempts until one gives the reply, the policy is used up, or the caller wants no more."""
        self.attempts = Attempts(self.scope, self.claim.turn.attempt, self.scope.ports.monotonic())
        try:
            yield Emit(Claimed(self.claim.turn.id))
            yield Notify("claimed", self._event)
            while True:
                try:
                    yield from self._converse()
                except ChatError as error:
                    yield Release()
                    following = yield from self._what_next(error)
                    if following is None:
                        raise
                    self.plan = following.plan
                    yield from self._next_attempt(error, following.pause_s)
                    yield Pause(following.pause_s)
                    yield from self._hold_on()
                else:
                    self.attempts.remember_form(self.plan.endpoint)
                    break
        except (GeneratorExit, StoreError):
            raise  # the database cannot be told: the turn is nobody's now, and its lease ends for other processes too
        except BaseException as error:
            turn = yield from self._finish(error)
            if isinstance(error, Interrupt):
                return turn
            if isinstance(error, RoleplayError):
                error.turn_id = self.claim.turn.id
            yield Ended(turn)
            raise
        return (yield from self._finish(None))

    def _converse(self) -> Steps[None]:
        endpoint = self.plan.endpoint
        self.kept_at = self.scope.ports.monotonic()
        self.incoming = IncomingReply.beginning(self.scope, self.plan, self.claim.turn.id, self.kept_at)
        yield from self._admitted()
        head: Head = yield Open(endpoint, WireRequest(str(endpoint.path), self.plan.body, self.plan.stream))
        decoder = self.incoming.decode(head)
        try:
            while not decoder.done and (piece := (yield Receive())):
                said, piece = decoder.feed(piece), b""  # so that no frame of an error shows what came
                yield from self._hand_on(said)
        except (ChatUnavailableError, BadReplyError):
            if not decoder.is_complete():
                raise
        yield from self._hand_on(decoder.finish(), last=True)

    def _admitted(self) -> Steps[None]:
        """Wait for a permit to open a request. The host has no part in it: the time counts
        neither as the call's nor as that of its retries."""
        ports = self.scope.ports
        since = ports.monotonic()
        while not (yield Admit()):
            yield from self._hold_on(LINE_SPARE_S, LINE_S)
        self.incoming.began = self.kept_at = ports.monotonic()
        self.attempts.began += self.incoming.began - since

    def _hand_on(self, said: Sequence[Said], *, last: bool = False) -> Steps[None]:
        incoming = self.incoming
        incoming.note_times(said)
        if took_back := incoming.took_back:
            said = incoming.anew(said)
        if said or last:
            said = incoming.in_role(said, last=last)
        if took_back and self.kept:
            yield from self._keep_less()
        if last:
            incoming.check_it_speaks()
        if incoming.guarded is not None:
            said = yield from incoming.through_guards(incoming.guarded, said, last=last)
        if not said:
            return
        incoming.speech_chars += speech_chars(said)
        if not self.plan.stream:
            return
        yield from self._keep()
        for kind, text in said:
            yield Emit(delta_of(self.plan.speaker, self.claim.turn.id, text, kind))

    def _keep_less(self) -> Steps[None]:
        """Store the text again that was kept before some of it was taken back; none, where nothing is left."""
        reply, hold, lease, at = self._message(), self._hold, lease_of(self.plan), self.scope.ports.now()
        speaks = self._speaks

        def work(db: Connection) -> bool:
            if not speaks:
                return store.unsay(db, hold, reply.seq)
            return store.flush(db, hold, reply, first=False, lease=lease, at=at, now=self.scope.ports.now())

        if not (yield from write("keep less", work, patient=True)):
            raise self._taken_over()
        self.kept, self.kept_chars = speaks, len(reply.text) if speaks else 0

    @property
    def _speaks(self) -> bool:
        """Whether the turn has a reply so far. A variant that goes on from another's text has one of its own only when
        something was added."""
        return self.goes_on or bool(self.incoming.speech.strip())

    def _event(self) -> TurnEvent:
        return TurnEvent(
            kind="claimed",
            tenant=self.scope.tenant,
            session_id=self.scope.session_id,
            turn_id=self.claim.turn.id,
            model=self.plan.endpoint.model,
            host=self.plan.endpoint.host,
            at=self.scope.ports.now(),
            audience=audience.read(self.claim.turn.audience),
        )

    def _ended_event(self, turn: Turn) -> TurnEvent:
        call, error = turn.calls[-1], turn.error
        return self._event().model_copy(
            update={
                "kind": turn.status.value,
                "attempts": len(turn.calls),
                "usage": turn.usage,
                "seconds": call.total_s,
                "error": error["slug"] if error else None,
            }
        )

    def _keep(self) -> Steps[None]:
        """Store the text so far when it doubled, or grew by half and some seconds passed.

        So all that is stored on the way stays below three times the text, and with its end below four times.
        """
        length, now = len(self.plan.basis.so_far) + self.incoming.speech_chars, self.scope.ports.monotonic()
        doubled = length >= max(2 * self.kept_chars, FLUSH_CHARS)
        late = now - self.kept_at >= FLUSH_S and length > self.kept_chars * FLUSH_GROWTH
        if not ((doubled or late) and self._speaks):
            return
        reply, lease, at = self._message(), lease_of(self.plan), self.scope.ports.now()

        def work(db: Connection) -> bool:
            first, self.kept = not self.kept, True  # from here on it may be there, whatever becomes of this step
            now = self.scope.ports.now()
            return store.flush(db, self._hold, reply, first=first, lease=lease, at=at, now=now)

        if not (yield from write("keep", work, patient=True)):
            raise self._taken_over()
        self.kept_chars, self.kept_at = length, now
        self.reply_at = self.reply_at or at

    def _warn(self) -> Steps[None]:
        """Log what was found out about the host's reports, where that is new."""
        scope, endpoint = self.scope, self.plan.endpoint
        finding = to_warn_of(scope.tenant_scope.calibrations, self.plan.subject)
        if finding is not None:
            yield Warn(endpoint.model, endpoint.host, finding)

    def _what_next(self, error: ChatError) -> Steps[NextAttempt | None]:
        """Give what to ask next after ``error``; nothing once the caller may have seen some of this reply."""
        said = self.incoming.decoder
        if said is not None and (said.speech or (self.plan.stream and said.reasoning)):
            return None
        return (yield from self.attempts.after(error, self.plan, self.call.attempt))

    def _next_attempt(self, error: ChatError, pause_s: float) -> Steps[None]:
        ended = self.call.id, self.incoming.ending(error)
        draft, settings = self.plan.draft, self.plan.settings
        front, front_digest = recipes.front_of(draft.recipe.front)
        call = call_of(self.scope, self.plan, self.claim.turn.seq, self.call.attempt + 1)
        is_new = call.recipe != self.call.recipe or front_digest != self.call.front_digest
        pieces = {front_digest: front, settings.digest: settings.text} | draft.texts if is_new else {}
        handed = self._handed() if is_new else None
        lease, at = lease_of(self.plan, pause_s), self.scope.ports.now()
        hold = self._hold

        def work(db: Connection) -> bool:
            now = self.scope.ports.now()
            return store.next_attempt(db, hold, ended, call, pieces, handed, lease=lease, at=at, now=now)

        try:
            held = yield from write("next attempt", work, patient=True)
        except GeneratorExit:
            raise
        except BaseException:
            if (yield from read("is held", lambda db: store.is_held(db, hold._replace(attempt=call.attempt)))):
                self.call, self.call_at, self.held_until = call, at, at + lease
            raise
        if not held:
            raise self._taken_over()
        self.past_calls.append(self.call.ended(ended[1], self.call_at, self.plan.settings.text))
        self.call, self.call_at, self.held_until = call, at, at + lease

    def _handed(self) -> HandedOn:
        rows = state_rows(self.plan)
        states = map_with(self.plan.basis.states, rows, self.claim.turn.seq)
        return HandedOn(states, rows, self.plan.draws.written())

    def _hold_on(self, spare_s: float = 0.0, more_s: float = 0.0) -> Steps[None]:
        """Where so much time passed that the lease may not last for the call and ``spare_s`` seconds, begin it anew,
        for ``more_s`` seconds more than a call needs.

        Raises ``ConflictError`` where another process has taken the turn over: then nothing more is asked.
        """
        now = self.scope.ports.now()
        if self.held_until - now >= timedelta(seconds=self.plan.endpoint.timeout_s + spare_s):
            return
        hold, lease = self._hold, lease_of(self.plan, more_s)

        def work(db: Connection) -> bool:
            return store.renew(db, hold, lease=lease, now=self.scope.ports.now())

        if not (yield from write("hold on", work, patient=True)):
            raise self._taken_over()
        self.held_until = now + lease

    def _finish(self, error: BaseException | None) -> Operation:
        """End the turn, and tell who watches."""
        if error is None and (decoder := self.incoming.decoder) is not None:
            if reported := decoder.facts.usage.prompt_tokens:
                observe(self.scope, self.plan, reported)
            if self.plan.draft.moved and self.plan.draft.foreign:
                self.scope.tenant_scope.recounts[self.scope.session_id] = self.plan.draft.foreign
        if error is not None:
            self.incoming.settle()
        turn = yield from self._end(error)
        if not turn.status.in_flight:
            yield Notify(turn.status.value, lambda: self._ended_event(turn))
            yield from self._warn()
        return turn

    def _end(self, error: BaseException | None) -> Operation:
        """End the turn in the database and give it as a later read does.

        Where another process took it over, only the text and usage of this attempt are kept, and ``ConflictError`` is
        raised.
        """
        reply = self._message() if self._speaks else None
        earlier = self.claim.earlier if reply is None else None
        status = status_of(error, has_text=reply is not None or earlier is not None)
        ending = self.incoming.ending(error)
        ended = self.call.id, ending
        turn, hold, at = self.claim.turn, self._hold, self.scope.ports.now()
        moves = error is None and turn.moves_head and turn.reply_seq is not None
        head = (turn.from_head, turn.reply_seq) if moves and turn.reply_seq is not None else None
        alone = self.claim.human is not None

        def work(db: Connection) -> Turn | bool:
            held = store.finish(
                db, hold, status, ended, reply=reply, flushed=self.kept, earlier=earlier, head=head, at=at
            )
            if not held:
                recovery.keep_lost(db, hold, ended, reply, at=at)
            elif self.incoming.guarded is not None:
                verdicts.add(db, *self._place, (turn.seq, hold.attempt), self.incoming.guarded.verdicts, at)
            return held and (alone or transcript.by_id(db, *self._place, turn.id))

        try:
            if error is None:
                yield Release()
            finished: Turn | bool = yield from write("finish", work, patient=True)
        except (GeneratorExit, StoreError):
            raise
        except BaseException as leaving:  # Ctrl-C or a cancelled task: to leave is wanted, not a turn without an end
            finished = yield from write("finish", work, patient=True)
            if not isinstance(leaving, Interrupt):
                raise
        if finished is False:
            yield Ended((yield from read("turn", lambda db: transcript.by_id(db, *self._place, turn.id))))
            raise self._taken_over()
        if isinstance(finished, Turn):
            return finished
        human = self.claim.human.written(turn.seq, self.claimed_at) if self.claim.human else None
        said = reply.written(turn.seq, self.reply_at or at) if reply else None
        calls = [*self.past_calls, self.call.ended(ending, self.call_at, self.plan.settings.text)]
        return turn.ended(self.scope.session_id, status, (human, said), calls, (self.claimed_at, at))

    def _taken_over(self) -> ConflictError:
        return ConflictError("another process took over this turn", turn_id=self.claim.turn.id)

    @property
    def _place(self) -> tuple[str, str]:
        return self.scope.tenant, self.scope.session_id

    @property
    def _hold(self) -> Hold:
        turn = self.claim.turn
        assert turn.lease_owner is not None
        return Hold(self.scope.tenant, self.scope.session_id, turn.seq, self.call.attempt, turn.lease_owner)

    def _message(self) -> NewMessage:
        turn, basis = self.claim.turn, self.plan.basis
        assert turn.reply_seq is not None
        text = basis.so_far + self.incoming.speech
        if basis.so_far or self.incoming.guarded is not None:  # what is put together may make a secret
            text = secrets_of(self.plan.endpoint).in_speech(text)
        decoder = self.incoming.decoder
        repaired = decoder is not None and decoder.repaired
        who = turn.speaker, self.plan.speaker.display_name
        return NewMessage.after(
            basis.end,
            turn.reply_seq,
            who,
            text,
            self.scope.counter,
            by_human=False,
            revision=turn.revision,
            repaired=repaired,
            audience=turn.audience,
        )


def delta_of(speaker: Participant, turn_id: str, text: str, kind: DeltaKind = DeltaKind.SPEECH) -> Delta:
    """Give a piece of a reply as a caller gets it."""
    return Delta(text=text, kind=kind, speaker=speaker.display_name, seat=speaker.seat, turn_id=turn_id)

"""The course of a turn: what happens in which order, without doing any of it.

A course is a generator. It yields the effects that it needs (read, write, open, receive, pause) and is sent their
results or thrown their errors; a shell performs them, blocking or with asyncio. It ends by returning the stored turn or
by raising a typed error, and in either case the database says what happened.

1. *Prepare*: read where the session stands, build the context. Nothing is written; what can be refused is refused here.
2. *Claim*: one short transaction writes the human line, the turn, and the model call with its recipe.
3. *Converse*: the call is made with no transaction open; a stream's text is kept from time to time.
4. *Finish*: one transaction writes the reply, its usage, the status and the head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple


from roleplay.chat.retry import pause_before_next
from roleplay.context.builder import Draft, build
from roleplay.context.counting import Counter
from roleplay.context.macros import expand
from roleplay.context.sheet import Casting, Sheet, render
from roleplay.domain.context import Line, digest
from roleplay.domain.conversation import Delta, DeltaKind, ModelCall, SessionInfo, Turn, TurnKind, TurnStatus
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.persona import Persona
from roleplay.domain.settings import Sampling, TurnOptions
from roleplay.domain.values import TEXT_LIMIT, text_problem
from roleplay.errors import ChatError, ChatUnavailableError, ConflictError, IdempotencyError, InvalidInputError, RoleplayError, StoreError
from roleplay.store import Connection, history, recipes, sessions, transcript
from roleplay.store import turns as store
from roleplay.wire.dialects import demands
from roleplay.wire.reply import ReplyDecoder, Said
from roleplay.wire.request import RECIPE_VERSION, WireRequest, encode_request, parameters, parameters_json

MARGIN_SHARE = 0.05
LEASE_MARGIN_S = 30.0
CLAIM_TRIES = 5
FLUSH_CHARS = 256
FLUSH_S = 2.0
FLUSH_GROWTH = 1.125


class Read(NamedTuple):
    """Run ``work`` in a transaction that only reads; its result is sent back."""

    work: Callable[[Connection], Any]


class Write(NamedTuple):
    """Run ``work`` in a transaction and commit it; its result is sent back."""

    work: Callable[[Connection], Any]


class Open(NamedTuple):
    """Send a request and wait for the head of its answer; ``(status, content type)`` is sent back."""

    endpoint: Endpoint
    request: WireRequest


class Receive(NamedTuple):
    """Wait for the next piece of the answer; its bytes are sent back, ``b""`` at the end."""


class Release(NamedTuple):
    """Let go of the answer, of which nothing more is wanted."""


class Pause(NamedTuple):
    """Wait some seconds."""

    seconds: float


class Emit(NamedTuple):
    """Hand something to the caller: the turn that was claimed, or a piece of its reply."""

    what: Delta | Claimed


class Claimed(NamedTuple):
    """A turn was written and its model call begins."""

    turn_id: str


Effect = Read | Write | Open | Receive | Release | Pause | Emit
Course = Generator[Effect, Any, Turn]


class Interrupt(BaseException):  # noqa: N818 - not an error: the caller wants no more
    """Thrown into a course by a shell whose caller wants no more of a reply."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What a course may not do itself: tell the time, draw, name things, say who it is and who is gone.

    ``now`` gives aware UTC, ``monotonic`` seconds, ``draw`` a number from [0, 1).
    """

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    draw: Callable[[], float]
    new_id: Callable[[], str]
    owner: str
    is_gone: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A revision of a session with its sheet rendered. Immutable, so shells keep the latest ones in memory."""

    stage: sessions.Stage
    sheet: Sheet


@dataclass(frozen=True, slots=True)
class Scene:
    """Which session is spoken in, with what: everything that its turns have in common."""

    tenant: str
    session_id: str
    endpoint: Endpoint
    sampling: Sampling
    budget_tokens: int | None
    counter: Counter
    ports: Ports
    rehearsed: MutableMapping[tuple[Any, ...], Rehearsed]


@dataclass(frozen=True, slots=True)
class Plan:
    """A turn that could be claimed: where the session stood, what would be sent."""

    stand: sessions.Stand
    stage: sessions.Stage
    line: Line
    draft: Draft
    parameters: dict[str, object]
    body: bytes


def send(scene: Scene, text: str, options: TurnOptions, *, stream: bool) -> Course:
    """Say ``text`` and give the turn with the reply to it.

    Raises ``InvalidInputError``, ``NotFoundError``, ``BudgetError``, ``ConflictError`` and ``IdempotencyError`` with
    nothing written, and ``ChatError`` with the turn stored as failed or, where text came, interrupted.
    """
    words = checked(text)
    if options.idempotency_key is not None:
        done = yield from _answered_before(scene, words, options)
        if done is not None:
            if stream and done.reply is not None:
                yield Emit(Delta(text=done.reply.text, speaker=done.reply.name))
            return done
    for _ in range(CLAIM_TRIES):
        plan = yield from plan_reply(scene, words, options.sampling, stream=stream)
        claim = _claim(scene, plan, options, stream=stream)
        at = scene.ports.now()
        if (yield Write(lambda db, new=claim, at=at: store.claim(db, scene.tenant, scene.session_id, new, at))):
            return (yield from _Reply(scene, plan, claim, at, stream=stream).course())
    raise ConflictError("the session is being changed by others", expected=plan.stand.version)


def greetings(info: SessionInfo, persona: Persona, counter: Counter, new_id: Callable[[], str]) -> list[store.Uttered]:
    """Give the turns that open a session: the persona's first greeting and, as its variants, the others."""
    char, user = info.speaker, info.human
    uttered = []
    for number, greeting in enumerate((one for one in persona.greetings if one.strip()), start=1):
        text = expand(greeting, char=char.display_name, user=user.display_name)
        message = store.NewMessage(
            seq=number,
            parent_seq=None,
            role="assistant",
            seat=char.seat,
            name=char.display_name,
            text=text,
            tokens=counter.count(text),
            counter=counter.name,
            depth=1,
            human_ordinal=0,
            model_ordinal=1,
        )
        turn = store.NewTurn(
            seq=number,
            id=new_id(),
            parent_turn=None,
            from_head=None,
            kind=TurnKind.GREETING.value,
            round=number,
            ordinal=1,
            speaker=char.seat,
            revision=1,
            state_seq=None,
            status=TurnStatus.COMPLETED.value,
            human_seq=None,
            reply_seq=number,
        )
        uttered.append(store.Uttered(turn, message))
    return uttered


def checked(text: str) -> str:
    """Give a human line as it may be stored and sent. Raises ``InvalidInputError``."""
    if not isinstance(text, str):
        raise InvalidInputError("text", f"is a {type(text).__name__}", allowed="a str")
    if problem := text_problem(text):
        raise InvalidInputError("text", problem)
    if not text.strip():
        raise InvalidInputError("text", "is blank", allowed="at least one visible character")
    if len(text) > TEXT_LIMIT:
        raise InvalidInputError("text", f"has {len(text)} characters", allowed=f"at most {TEXT_LIMIT}")
    return text


def plan_reply(
    scene: Scene, text: str, sampling: Sampling, *, stream: bool
) -> Generator[Effect, Any, Plan]:
    """Read where the session stands and build the context of a reply to ``text``. Writes nothing."""
    counter, endpoint = scene.counter, scene.endpoint
    stand = yield from _stand(scene)
    known = yield from _rehearse(scene, stand.revision)
    settings = known.stage.settings
    layers = (sampling, settings.sampling, scene.sampling)
    asked = parameters(endpoint, merge(layers), stream=stream)
    budget = settings.budget_tokens or scene.budget_tokens or _budget(endpoint, asked)
    needs = demands(endpoint.dialect)
    seat = known.sheet.seat
    start, _ = _inherited(stand, seat)
    past: list[Line] = []
    if stand.head_seq is not None:
        past = yield Read(
            lambda db: history.path_back(
                db,
                scene.tenant,
                scene.session_id,
                head=stand.head_seq or 0,
                start=start,
                cap=budget,
                per_message=needs.per_message_tokens,
            )
        )
    human = known.stage.human.participant
    line = Line(stand.last_seq + 1, stand.last_turn + 1, human.seat, human.display_name, text, counter.count(text))
    draft = build(
        known.sheet, [*past, line], budget_tokens=budget, window_start=start, counter=counter, demands=needs
    )
    body = encode_request(endpoint.dialect, draft.messages, asked)
    return Plan(stand, known.stage, line, draft, asked, body)


def merge(layers: tuple[Sampling, ...]) -> Sampling:
    """Give for each parameter the first layer's value that is not ``None``; nearest layer first."""
    chosen: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer:
            if value is not None:
                chosen.setdefault(name, value)
    return Sampling(**chosen)


def _budget(endpoint: Endpoint, asked: dict[str, object]) -> int:
    """The window less the reply cap and a margin for what an estimate may be wrong by."""
    cap = asked.get("max_completion_tokens", min(endpoint.max_output_tokens, endpoint.window_tokens // 4))
    assert isinstance(cap, int)
    return max(endpoint.window_tokens - cap - int(endpoint.window_tokens * MARGIN_SHARE), 1)


def _stand(scene: Scene) -> Generator[Effect, Any, sessions.Stand]:
    """Read where the session stands; a turn in flight on its head is ended first when its owner is gone."""
    stand: sessions.Stand = yield Read(lambda db: sessions.stand(db, scene.tenant, scene.session_id))
    turn_id = stand.live_turn
    if turn_id is None:
        return stand
    held: store.Holder | None = yield Read(lambda db: store.holder(db, scene.tenant, scene.session_id, turn_id))
    if held is not None:
        now = scene.ports.now()
        if held.lease_until > now and not scene.ports.is_gone(held.owner):
            raise ConflictError("a turn is still running in this session", found=turn_id, turn_id=turn_id)
        hold = store.Hold(scene.tenant, scene.session_id, held.turn_seq, held.attempt, held.owner)
        yield Write(lambda db: store.recover(db, hold, at=now))
    return (yield Read(lambda db: sessions.stand(db, scene.tenant, scene.session_id)))


def _rehearse(scene: Scene, revision: int) -> Generator[Effect, Any, Rehearsed]:
    key = (scene.tenant, scene.session_id, revision, scene.endpoint.dialect, scene.counter.name)
    known = scene.rehearsed.get(key)
    if known is None:
        stage: sessions.Stage = yield Read(
            lambda db: sessions.stage(db, scene.tenant, scene.session_id, revision)
        )
        sheet = render(casting(stage), scene.counter, demands(scene.endpoint.dialect))
        known = scene.rehearsed[key] = Rehearsed(stage, sheet)
    return known


def casting(stage: sessions.Stage) -> Casting:
    """Give who plays in a session's contexts."""
    model, human = stage.model, stage.human
    persona = model.persona.persona if model.persona else Persona(model.participant.display_name)
    return Casting(
        seat=model.participant.seat,
        char=model.participant.display_name,
        persona=persona,
        user=human.participant.display_name,
        user_persona=human.persona.persona if human.persona else None,
        scene=stage.scene,
    )


def _inherited(stand: sessions.Stand, seat: int) -> tuple[int, str]:
    """What the path hands on for a seat: where its window starts (0: at the beginning), and its front's digest."""
    start, front = json.loads(stand.state).get(str(seat), (0, "")) if stand.state else (0, "")
    return start, front


def body_digest(text: str, options: TurnOptions) -> str:
    """SHA-256 of what a caller asked for, as canonical JSON."""
    asked = {"text": text, "sampling": options.sampling.model_dump(), "metadata": dict(options.metadata)}
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _answered_before(scene: Scene, text: str, options: TurnOptions) -> Generator[Effect, Any, Turn | None]:
    """Give the turn that this key already made. Raises where the key is in use for something else."""
    key = options.idempotency_key or ""
    found = yield Read(lambda db: transcript.by_key(db, scene.tenant, scene.session_id, key))
    if found is None:
        return None
    turn, digest = found
    if digest != body_digest(text, options):
        raise IdempotencyError(f"the idempotency key {key!r} was used for another request", found=turn.id)
    if turn.status.in_flight or (turn.status is TurnStatus.FAILED):
        raise ConflictError(f"the turn of idempotency key {key!r} is {turn.status}", found=turn.id, turn_id=turn.id)
    return turn


def _claim(scene: Scene, plan: Plan, options: TurnOptions, *, stream: bool) -> store.Claim:
    stand, draft, line, ports = plan.stand, plan.draft, plan.line, scene.ports
    speaker = plan.stage.model.participant
    front = recipes.front_text(draft.recipe)
    front_digest = digest(front)
    epoch = (draft.window_start, front_digest)
    same_epoch = stand.state is not None and epoch == _inherited(stand, speaker.seat)
    volatile = {p.digest for p in draft.recipe.tail} | {one.piece.digest for one in draft.recipe.insertions}
    pieces = {d: t for d, t in draft.texts.items() if not same_epoch or d in volatile}
    key = options.idempotency_key
    turn = store.NewTurn(
        seq=stand.last_turn + 1,
        id=ports.new_id(),
        parent_turn=stand.head_turn,
        from_head=stand.head_seq,
        kind=TurnKind.REPLY.value,
        round=stand.last_turn + 1,
        ordinal=1,
        speaker=speaker.seat,
        revision=stand.revision,
        state_seq=stand.state_seq if same_epoch else stand.last_turn + 1,
        status=TurnStatus.PENDING.value,
        human_seq=line.seq,
        reply_seq=line.seq + 1,
        lease_owner=ports.owner,
        lease_until=_lease(scene),
        idempotency_key=key,
        body_digest=body_digest(line.text, options) if key is not None else None,
        metadata_json=json.dumps(dict(options.metadata), ensure_ascii=False) if options.metadata else None,
    )
    return store.Claim(
        version=stand.version,
        last_seq=line.seq + 1,
        last_turn=turn.seq,
        turn=turn,
        human=store.NewMessage(
            seq=line.seq,
            parent_seq=stand.head_seq,
            role="user",
            seat=line.seat,
            name=line.name,
            text=line.text,
            tokens=line.tokens,
            counter=scene.counter.name,
            depth=stand.depth + 1,
            human_ordinal=stand.human_ordinal + 1,
            model_ordinal=stand.model_ordinal,
        ),
        call=store.NewCall(
            id=ports.new_id(),
            turn_seq=turn.seq,
            attempt=1,
            model_asked=scene.endpoint.model,
            host=scene.endpoint.host[:200],
            dialect=scene.endpoint.dialect.value,
            streamed=stream,
            parameters=parameters_json(plan.parameters),
            recipe_version=RECIPE_VERSION,
            front_digest=front_digest,
            recipe=recipes.rest_text(draft.recipe),
            request_digest=hashlib.sha256(plan.body).hexdigest(),
            prompt_count=draft.report.prompt_tokens,
            counter=scene.counter.name,
        ),
        state=None if same_epoch else json.dumps({str(speaker.seat): epoch}, separators=(",", ":")),
        pieces=pieces if same_epoch else pieces | {front_digest: front},
    )


def _lease(scene: Scene) -> datetime:
    return scene.ports.now() + timedelta(seconds=scene.endpoint.timeout_s + LEASE_MARGIN_S)


@dataclass(slots=True)
class _Reply:
    """A claimed turn until its end: its attempts, the text so far, what was kept of it."""

    scene: Scene
    plan: Plan
    claim: store.Claim
    claimed_at: datetime
    stream: bool = field(kw_only=True)
    call: store.NewCall = field(init=False)
    call_at: datetime = field(init=False)
    reply_at: datetime | None = field(init=False, default=None)
    past_calls: list[ModelCall] = field(init=False, default_factory=list)
    decoder: ReplyDecoder | None = field(init=False, default=None)
    began: float = field(init=False, default=0.0)
    first_token_s: float | None = field(init=False, default=None)
    speech_chars: int = field(init=False, default=0)
    kept_chars: int = field(init=False, default=0)
    kept_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.call, self.call_at = self.claim.call, self.claimed_at

    def course(self) -> Course:
        started = self.scene.ports.monotonic()
        try:
            yield Emit(Claimed(self.claim.turn.id))
            while True:
                try:
                    yield from self._converse()
                except ChatError as error:
                    yield Release()
                    pause = self._pause(error, started)
                    if pause is None:
                        raise
                    yield from self._next_attempt(error)
                    yield Pause(pause)
                else:
                    break
        except (GeneratorExit, StoreError, ConflictError):
            raise  # the database cannot be told, or the turn is another's now: its lease decides
        except BaseException as error:
            turn = yield from self._finish(error)
            if isinstance(error, Interrupt):
                return turn
            if isinstance(error, RoleplayError):
                error.turn_id = self.claim.turn.id
            raise
        return (yield from self._finish(None))

    def _converse(self) -> Generator[Effect, Any, None]:
        ports, endpoint = self.scene.ports, self.scene.endpoint
        self.began = self.kept_at = ports.monotonic()
        self.decoder = None
        self.speech_chars = 0
        status, content_type = yield Open(endpoint, WireRequest(endpoint.path.value, self.plan.body, self.stream))
        decoder = ReplyDecoder(status, content_type, streamed=self.stream, now=ports.now())
        self.decoder = decoder
        try:
            while not decoder.done and (piece := (yield Receive())):
                yield from self._hand_on(decoder.feed(piece))
        except ChatUnavailableError:
            if not decoder.whole:
                raise
        yield from self._hand_on(decoder.finish())
        yield Release()

    def _hand_on(self, said: list[Said]) -> Generator[Effect, Any, None]:
        if not said:
            return
        if self.first_token_s is None:
            self.first_token_s = self.scene.ports.monotonic() - self.began
        self.speech_chars += sum(len(text) for kind, text in said if kind is DeltaKind.SPEECH)
        if not self.stream:
            return
        yield from self._keep()
        speaker = self.plan.stage.model.participant.display_name
        for kind, text in said:
            yield Emit(Delta(text=text, kind=kind, speaker=speaker))

    def _keep(self) -> Generator[Effect, Any, None]:
        """Store the text so far when it has doubled, or grown and some seconds passed: never quadratic in its length."""
        length, now = self.speech_chars, self.scene.ports.monotonic()
        doubled = length >= max(2 * self.kept_chars, FLUSH_CHARS)
        late = now - self.kept_at >= FLUSH_S and length > self.kept_chars * FLUSH_GROWTH
        if not (doubled or late):
            return
        reply, first = self._reply_message(), self.kept_chars == 0
        until, at = _lease(self.scene), self.scene.ports.now()
        if not (yield Write(lambda db: store.flush(db, self._hold, reply, first=first, until=until, at=at))):
            raise self._taken_over()
        self.kept_chars, self.kept_at = length, now
        self.reply_at = self.reply_at or at

    def _taken_over(self) -> ConflictError:
        return ConflictError("another process took over this turn", turn_id=self.claim.turn.id)

    def _pause(self, error: ChatError, started: float) -> float | None:
        if self.decoder is not None and (self.decoder.speech or (self.stream and self.decoder.reasoning)):
            return None
        ports = self.scene.ports
        return pause_before_next(
            self.scene.endpoint.retry,
            error,
            attempt=self.call.attempt,
            elapsed_s=ports.monotonic() - started,
            draw=ports.draw(),
        )

    def _next_attempt(self, error: ChatError) -> Generator[Effect, Any, None]:
        ended = self.call.id, self._call_ending(error)
        call = replace(self.call, id=self.scene.ports.new_id(), attempt=self.call.attempt + 1)
        until, at = _lease(self.scene), self.scene.ports.now()
        if not (yield Write(lambda db: store.next_attempt(db, self._hold, ended, call, until=until, at=at))):
            raise self._taken_over()
        self.past_calls.append(self.call.ended(ended[1], self.call_at))
        self.call, self.call_at = call, at
        self.first_token_s = None

    def _finish(self, error: BaseException | None) -> Course:
        """End the turn in the database and give it as a later read does."""
        speech = self.decoder.speech if self.decoder else ""
        if error is None:
            status = TurnStatus.COMPLETED
        else:
            status = TurnStatus.INTERRUPTED if speech or not isinstance(error, ChatError) else TurnStatus.FAILED
        reply = self._reply_message() if speech else None
        ending = self._call_ending(error)
        turn, at = self.claim.turn, self.scene.ports.now()
        head = (turn.from_head, turn.reply_seq) if error is None and turn.reply_seq is not None else None

        ended, flushed = (self.call.id, ending), self.kept_chars > 0
        finished = yield Write(
            lambda db: store.finish(db, self._hold, status, ended, reply=reply, flushed=flushed, head=head, at=at)
        )
        if not finished:
            raise self._taken_over()
        human = self.claim.human.written(turn.seq, self.claimed_at) if self.claim.human else None
        said = reply.written(turn.seq, self.reply_at or at) if reply else None
        calls = [*self.past_calls, self.call.ended(ending, self.call_at)]
        return turn.ended(self.scene.session_id, status, (human, said), calls, (self.claimed_at, at))

    @property
    def _hold(self) -> store.Hold:
        turn = self.claim.turn
        assert turn.lease_owner is not None
        return store.Hold(self.scene.tenant, self.scene.session_id, turn.seq, self.call.attempt, turn.lease_owner)

    def _reply_message(self) -> store.NewMessage:
        decoder, human, turn = self.decoder, self.claim.human, self.claim.turn
        assert decoder is not None
        assert human is not None
        assert turn.reply_seq is not None
        text = decoder.speech
        return store.NewMessage(
            seq=turn.reply_seq,
            parent_seq=human.seq,
            role="assistant",
            seat=turn.speaker,
            name=self.plan.stage.model.participant.display_name,
            text=text,
            tokens=self.scene.counter.count(text),
            counter=self.scene.counter.name,
            depth=human.depth + 1,
            human_ordinal=human.human_ordinal,
            model_ordinal=human.model_ordinal + 1,
            repaired=decoder.repaired,
        )

    def _call_ending(self, error: BaseException | None) -> store.CallEnding:
        total_s = self.scene.ports.monotonic() - self.began
        told = _error_json(error)
        if self.decoder is None:
            return store.CallEnding(error=told, total_s=total_s)
        facts = self.decoder.facts
        return store.CallEnding(
            model_answered=facts.model_answered,
            response_id=facts.response_id,
            response_created=facts.response_created,
            finish_reason=facts.finish_reason,
            usage=facts.usage,
            sensitivity=facts.sensitivity,
            base_resp=facts.base_resp,
            reasoning=self.decoder.reasoning or None,
            error=told,
            first_token_s=self.first_token_s,
            total_s=total_s,
        )


def _error_json(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, RoleplayError):
        return json.dumps(error.to_dict(), ensure_ascii=False)
    slug = "interrupted" if isinstance(error, Interrupt) else type(error).__name__
    return json.dumps({"slug": slug, "message": "the caller ended the reply", "retryable": True})

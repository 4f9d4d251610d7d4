"""The ground of a reply: the line it answers, the path before it, and what that path hands on.

A new line, another variant and another attempt differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from roleplay.context.builder import Inherited
from roleplay.context.weights import Weights
from roleplay.domain.context import Line
from roleplay.domain.conversation import Turn, TurnKind
from roleplay.errors import ConflictError, InvalidInputError
from roleplay.store import Connection
from roleplay.store.records import history, new_rows, recovery, sessions, stored_turns, transcript
from roleplay.store.records.path_states import SeatState, read_state
from roleplay.store.records.stored_turns import StoredTurn
from roleplay.turns.arguments import turn_key
from roleplay.turns.effects import Pause, Steps, read, write
from roleplay.turns.revisions import RenderedRevision
from roleplay.turns.scope import SessionScope

FIRST_LOOK_S = 0.03
SHORTEST_LOOK_S = 0.01
LONGEST_LOOK_S = 0.25
CLAIM_TRIES = 20


@dataclass(frozen=True, slots=True)
class Basis:
    """What a reply stands on.

    ``line`` is the human line to answer (``None``: the model speaks unasked), ``human`` the message to write for it
    (``None``: it is stored already, or there is none), ``before`` the message before it, ``end`` the end of the path
    that the reply follows. ``seat`` is the speaker's, ``state`` what the path hands on for it, ``shared`` for all,
    ``states`` which turn wrote each seat's state last. ``again`` is the stored turn that gets another attempt
    (``None``: the reply is a turn of its own), ``so_far`` the text of its reply that this attempt goes on from (empty:
    the attempt begins anew). ``draws`` is what was drawn by chance for a reply to the same line before, by this turn or
    by the variant that it stands beside.
    """

    position: sessions.Position
    line: Line | None
    human: new_rows.NewMessage | None
    before: int | None
    parent_turn: int | None
    seat: int
    states: str | None
    state: SeatState | None
    shared: SeatState | None
    end: new_rows.PathEnd
    revision: int
    draws: str | None = None
    again: StoredTurn | None = None
    so_far: str = ""
    verdicts: tuple[new_rows.NewVerdict, ...] = ()

    @property
    def inherited(self) -> Inherited:
        """What the path hands on, as a context is built from it."""
        return inherited(self.state)


def inherited(state: SeatState | None) -> Inherited:
    """Give what a path state hands on, as a context is built from it."""
    return Inherited() if state is None else Inherited(state.window_start, state.examples, begun=True)


def of_new_line(scope: SessionScope, position: sessions.Position, rendered: RenderedRevision, text: str) -> Basis:
    """Stand on the session's head, with a new human line."""
    human = rendered.pair.human.participant
    who = human.seat, human.display_name
    message = new_rows.NewMessage.after(
        position.end, position.last_seq + 1, who, text, scope.counter, by_human=True, revision=position.revision
    )
    line = Line(message.seq, position.last_turn + 1, *who, text, message.tokens, message.counter)
    return Basis(
        position=position,
        line=line,
        human=message,
        before=position.head_seq,
        parent_turn=position.head_turn,
        seat=rendered.pair.speaker.participant.seat,
        states=position.states,
        state=read_state(position.state),
        shared=read_state(position.shared),
        end=message.end,
        revision=position.revision,
    )


def of_no_line(position: sessions.Position, rendered: RenderedRevision) -> Basis:
    """Stand on the session's head, with nothing to answer."""
    return Basis(
        position=position,
        line=None,
        human=None,
        before=position.head_seq,
        parent_turn=position.head_turn,
        seat=rendered.pair.speaker.participant.seat,
        states=position.states,
        state=read_state(position.state),
        shared=read_state(position.shared),
        end=position.end,
        revision=position.revision,
    )


def of_stored_turn(position: sessions.Position, turn: StoredTurn, *, again: bool, so_far: str = "") -> Basis:
    """Stand on the human line of a turn that is stored, for another variant of its reply or another attempt at it.

    Raises ``InvalidInputError`` for a turn that no model spoke and that has no human line, such as a greeting.
    """
    line, before = None, turn.tip_seq
    if turn.human_seq is not None and turn.human_text is not None:
        seat, name = turn.human_seat or 0, turn.human_name or ""
        counted = turn.human_tokens or 0, turn.human_counter or ""
        line = Line(turn.human_seq, turn.seq, seat, name, turn.human_text, *counted)
        before = turn.human_parent
    elif turn.kind != TurnKind.REPLY:
        raise InvalidInputError(
            "turn_id", f"is a {turn.kind}, which answers no line", allowed="a turn with a human line"
        )
    return Basis(
        position=position,
        line=line,
        human=None,
        before=before,
        parent_turn=turn.parent_turn,
        seat=turn.answering,
        states=turn.states,
        state=read_state(turn.state),
        shared=read_state(turn.shared),
        end=turn.end,
        revision=position.revision,
        draws=turn.draws,
        again=turn if again else None,
        so_far=so_far,
    )


def read_position(scope: SessionScope) -> Steps[sessions.Position]:
    """Read where the session stands. Raises ``NotFoundError``."""
    return (yield from read("position", lambda db: sessions.position(db, scope.tenant, scope.session_id)))


class Ahead(NamedTuple):
    """The history before the head, read in one transaction with where the session stands, and with which weights."""

    path: history.Path
    head: int
    start: int
    weights: Weights

    def serves(self, basis: Basis, weights: Weights) -> bool:
        """Whether it is the history of a reply, as far as the budget reaches by ``weights``."""
        return (basis.before, basis.inherited.start) == (self.head, self.start) and weights is self.weights


ReadAhead = Callable[[Connection, sessions.Position], Ahead | None]
"""Reads the history before the head, if all that says how far it reaches is known."""


class Situation(NamedTuple):
    """Where a session stands, the turn of the caller's key with the digest of its arguments, and who holds the turn in
    flight that is in the way. ``gone``: it ended between two statements of the look. ``ahead``: what was read with it,
    where nothing is in the way."""

    position: sessions.Position
    mine: tuple[Turn, str] | None
    live: recovery.Holder | None
    gone: bool
    ahead: Ahead | None = None


class Queue:
    """The wait of one caller until its turn may begin, as ``on_conflict`` says and for ``wait_s`` seconds at most.

    Nobody keeps a list of who waits: each looks from time to time. While one turn runs, the looks become rarer; while
    turns come and go, they stay frequent, and the more so the longer one has waited, and who has just spoken lets the
    others look first, so that nobody waits for ever.
    """

    def __init__(self, scope: SessionScope, on_conflict: str, wait_s: float) -> None:
        self._scope = scope
        self._on_conflict = on_conflict
        self._wait_s = wait_s
        self._give_up = scope.ports.monotonic() + wait_s
        self._look_s = FIRST_LOOK_S
        self._passed = 0
        self._seen: str | None = None
        self._lost_claims = 0
        self._head: int | None = None

    def let_others(self) -> Steps[None]:
        """Pause for a look's time after a turn of one's own, without which one would be first again and again."""
        ports, last_spoke = self._scope.ports, self._scope.tenant_scope.last_spoke.get(self._scope.session_id)
        if self._on_conflict == "wait" and last_spoke is not None and ports.monotonic() - last_spoke < LONGEST_LOOK_S:
            yield Pause(min(FIRST_LOOK_S * (0.5 + ports.draw()), self._wait_s))

    def has_spoken(self) -> None:
        """Note that the caller's turn has ended."""
        if self._on_conflict == "wait":
            self._scope.tenant_scope.last_spoke[self._scope.session_id] = self._scope.ports.monotonic()

    def may_pass(self, live: recovery.Holder, key: str | None) -> Steps[bool]:
        """Say whether to speak beside the turn in flight ``live``; ``False``, perhaps after a pause: look again.

        A turn that nobody drives any more is ended first. ``key``: the turn is the one that the caller asks for.
        Raises ``ConflictError``.
        """
        if (yield from end_if_left(self._scope, live)):
            return False
        if self._on_conflict == "fork" and key is None:
            return True
        what = "a turn is still running in this session" if key is None else f"the turn of key {key!r} is still running"
        if self._on_conflict != "wait":
            raise ConflictError(what, found=live.turn_id, turn_id=live.turn_id)
        yield from self._pause(live.turn_id, what)
        return False

    def lost_claim(self, position: sessions.Position) -> Steps[None]:
        """Note that somebody changed the session before the claim, and pause. Raises ``ConflictError``."""
        self._lost_claims += 1
        self._head = position.head_seq
        what = "the session is being changed by others"
        if self._on_conflict == "wait":
            yield from self._pause(None, what)
        elif self._lost_claims >= CLAIM_TRIES:
            raise ConflictError(what, expected=self._head)

    def check(self, position: sessions.Position) -> None:
        """Raise ``ConflictError`` when a lost claim was another turn's gain, and the caller did not agree to wait."""
        if self._on_conflict == "reject" and self._lost_claims and position.head_seq != self._head:
            raise ConflictError("another turn was first", expected=self._head, found=position.head_seq)

    def _pause(self, live: str | None, what: str) -> Steps[None]:
        ports = self._scope.ports
        left_s = self._give_up - ports.monotonic()
        if left_s <= 0:
            raise ConflictError(f"{what}, after {self._wait_s:g} s", found=live, turn_id=live)
        if live != self._seen:
            self._seen, self._passed = live, self._passed + 1
            self._look_s = max(FIRST_LOOK_S / (1 + self._passed / 8), SHORTEST_LOOK_S)
        yield Pause(min(self._look_s * (0.5 + ports.draw()), left_s))
        self._look_s = min(1.5 * self._look_s, LONGEST_LOOK_S)


def read_situation(scope: SessionScope, key: str | None, ahead: ReadAhead | None = None) -> Steps[Situation]:
    """Read where the session stands and what is in the way, and where nothing is, what ``ahead`` reads.

    Raises ``NotFoundError``.
    """
    tenant, session_id, now = scope.tenant, scope.session_id, scope.ports.now()

    def work(db: Connection) -> Situation:
        # First the stand, then the key: a turn of this key that comes later moves the version that the claim names.
        position = sessions.position(db, tenant, session_id)
        mine = None if key is None else transcript.by_key(db, tenant, session_id, key)
        in_flight = position.live_turn if mine is None or not mine[0].status.in_flight else mine[0].id
        live = None if in_flight is None else recovery.holder(db, tenant, session_id, in_flight, now)
        gone = in_flight is not None and live is None
        is_free = mine is None and in_flight is None
        return Situation(position, mine, live, gone, ahead(db, position) if is_free and ahead is not None else None)

    return (yield from read("situation", work))


def end_if_lost(scope: SessionScope, turn_id: str) -> Steps[bool]:
    """End a turn in flight that nobody drives; says whether it is in flight no more."""
    tenant, session_id, now = scope.tenant, scope.session_id, scope.ports.now()
    held: recovery.Holder | None = yield from read(
        "holder", lambda db: recovery.holder(db, tenant, session_id, turn_id, now)
    )
    return held is None or (yield from end_if_left(scope, held))


def end_if_left(scope: SessionScope, held: recovery.Holder) -> Steps[bool]:
    """End a turn in flight if nobody drives it; says whether it did."""
    if not scope.ports.is_left(held.owner, held.turn_id, expired=held.expired):
        return False
    hold = new_rows.Hold(scope.tenant, scope.session_id, held.turn_seq, held.attempt, held.owner)
    now = scope.ports.now()
    yield from write("recover", lambda db: recovery.recover(db, hold, at=now))
    return True


def read_turn(scope: SessionScope, turn_id: str | None, position: sessions.Position) -> Steps[StoredTurn]:
    """Read a turn by its id; without one, the head's turn.

    Raises ``NotFoundError``, and ``InvalidInputError`` when nothing was said yet.
    """
    key = None if turn_id is None else turn_key(turn_id)
    return (
        yield from read(
            "turn", lambda db: stored_turns.read_turn(db, scope.tenant, scope.session_id, key, position.head_turn)
        )
    )

"""The ground of a reply: the line it answers, the path before it, and what that path hands on.

A new line, another variant and another attempt differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from roleplay.context.builder import Inherited
from roleplay.context.pricing import Prices
from roleplay.domain.context import Line
from roleplay.domain.conversation import Turn, TurnKind
from roleplay.errors import ConflictError, InvalidInputError
from roleplay.store import Connection, entries, history, rescue, sessions, transcript
from roleplay.store.path_states import SeatState, read_state
from roleplay.turns.asked import turn_key
from roleplay.turns.effects import Pause, Steps, read, write
from roleplay.turns.scene import Rehearsed, Scene

FIRST_LOOK_S = 0.03
SHORTEST_LOOK_S = 0.01
LONGEST_LOOK_S = 0.25
CLAIM_TRIES = 20


@dataclass(frozen=True, slots=True)
class Ground:
    """What a reply stands on.

    ``line`` is the human line to answer (``None``: the model speaks unasked), ``human`` the message to write for it
    (``None``: it is stored already, or there is none), ``before`` the message before it, ``end`` the end of the path
    that the reply follows. ``seat`` is the speaker's, ``state`` what the path hands on for it, ``shared`` for all,
    ``states`` which turn wrote each seat's state last. ``again`` is the stored turn that gets another attempt
    (``None``: the reply is a turn of its own), ``so_far`` the text of its reply that this attempt goes on from (empty:
    the attempt begins anew). ``draws`` is what was drawn by chance for a reply to the same line before, by this turn or
    by the variant that it stands beside.
    """

    stand: sessions.Stand
    line: Line | None
    human: entries.NewMessage | None
    before: int | None
    parent_turn: int | None
    seat: int
    states: str | None
    state: SeatState | None
    shared: SeatState | None
    end: entries.PathEnd
    revision: int
    draws: str | None = None
    again: rescue.Told | None = None
    so_far: str = ""
    verdicts: tuple[entries.NewVerdict, ...] = ()

    @property
    def inherited(self) -> Inherited:
        """What the path hands on, as a context is built from it."""
        return inherited(self.state)


def inherited(state: SeatState | None) -> Inherited:
    """Give what a path state hands on, as a context is built from it."""
    return Inherited() if state is None else Inherited(state.window_start, state.examples, begun=True)


def of_new_line(scene: Scene, stand: sessions.Stand, known: Rehearsed, text: str) -> Ground:
    """Stand on the session's head, with a new human line."""
    human = known.pair.human.participant
    who = human.seat, human.display_name
    message = entries.NewMessage.after(
        stand.end, stand.last_seq + 1, who, text, scene.counter, by_human=True, revision=stand.revision
    )
    line = Line(message.seq, stand.last_turn + 1, *who, text, message.tokens, message.counter)
    return Ground(
        stand=stand,
        line=line,
        human=message,
        before=stand.head_seq,
        parent_turn=stand.head_turn,
        seat=known.pair.speaker.participant.seat,
        states=stand.states,
        state=read_state(stand.state),
        shared=read_state(stand.shared),
        end=message.end,
        revision=stand.revision,
    )


def of_no_line(stand: sessions.Stand, known: Rehearsed) -> Ground:
    """Stand on the session's head, with nothing to answer."""
    return Ground(
        stand=stand,
        line=None,
        human=None,
        before=stand.head_seq,
        parent_turn=stand.head_turn,
        seat=known.pair.speaker.participant.seat,
        states=stand.states,
        state=read_state(stand.state),
        shared=read_state(stand.shared),
        end=stand.end,
        revision=stand.revision,
    )


def of_told(stand: sessions.Stand, told: rescue.Told, *, again: bool, so_far: str = "") -> Ground:
    """Stand on the human line of a turn that is stored, for another variant of its reply or another attempt at it.

    Raises ``InvalidInputError`` for a turn that no model spoke and that has no human line, such as a greeting.
    """
    line, before = None, told.tip_seq
    if told.human_seq is not None and told.human_text is not None:
        seat, name = told.human_seat or 0, told.human_name or ""
        counted = told.human_tokens or 0, told.human_counter or ""
        line = Line(told.human_seq, told.seq, seat, name, told.human_text, *counted)
        before = told.human_parent
    elif told.kind != TurnKind.REPLY:
        raise InvalidInputError(
            "turn_id", f"is a {told.kind}, which answers no line", allowed="a turn with a human line"
        )
    return Ground(
        stand=stand,
        line=line,
        human=None,
        before=before,
        parent_turn=told.parent_turn,
        seat=told.answering,
        states=told.states,
        state=read_state(told.state),
        shared=read_state(told.shared),
        end=told.end,
        revision=stand.revision,
        draws=told.draws,
        again=told if again else None,
        so_far=so_far,
    )


def read_stand(scene: Scene) -> Steps[sessions.Stand]:
    """Read where the session stands. Raises ``NotFoundError``."""
    return (yield from read("stand", lambda db: sessions.stand(db, scene.tenant, scene.session_id)))


class Ahead(NamedTuple):
    """The history before the head, read in one transaction with where the session stands, and for which prices."""

    path: history.Path
    head: int
    start: int
    prices: Prices

    def serves(self, ground: Ground, prices: Prices) -> bool:
        """Whether it is the history of a reply, as far as the budget reaches by ``prices``."""
        return (ground.before, ground.inherited.start) == (self.head, self.start) and prices is self.prices


ReadAhead = Callable[[Connection, sessions.Stand], Ahead | None]
"""Reads the history before the head, if all that says how far it reaches is known."""


class Seen(NamedTuple):
    """Where a session stands, the turn of the caller's key with the digest of its arguments, and who holds the turn in
    flight that is in the way. ``gone``: it ended between two statements of the look. ``ahead``: what was read with it,
    where nothing is in the way."""

    stand: sessions.Stand
    mine: tuple[Turn, str] | None
    live: rescue.Holder | None
    gone: bool
    ahead: Ahead | None = None


class Queue:
    """The wait of one caller until its turn may begin, as ``on_conflict`` says and for ``wait_s`` seconds at most.

    Nobody keeps a list of who waits: each looks from time to time. While one turn runs, the looks become rarer; while
    turns come and go, they stay frequent, and the more so the longer one has waited, and who has just spoken lets the
    others look first, so that nobody waits for ever.
    """

    def __init__(self, scene: Scene, on_conflict: str, wait_s: float) -> None:
        self._scene = scene
        self._on_conflict = on_conflict
        self._wait_s = wait_s
        self._give_up = scene.ports.monotonic() + wait_s
        self._look_s = FIRST_LOOK_S
        self._passed = 0
        self._seen: str | None = None
        self._lost_claims = 0
        self._head: int | None = None

    def let_others(self) -> Steps[None]:
        """Pause for a look's time after a turn of one's own, without which one would be first again and again."""
        ports, spoke = self._scene.ports, self._scene.spoke.get(self._scene.session_id)
        if self._on_conflict == "wait" and spoke is not None and ports.monotonic() - spoke < LONGEST_LOOK_S:
            yield Pause(min(FIRST_LOOK_S * (0.5 + ports.draw()), self._wait_s))

    def has_spoken(self) -> None:
        """Note that the caller's turn has ended."""
        if self._on_conflict == "wait":
            self._scene.spoke[self._scene.session_id] = self._scene.ports.monotonic()

    def may_pass(self, live: rescue.Holder, key: str | None) -> Steps[bool]:
        """Say whether to speak beside the turn in flight ``live``; ``False``, perhaps after a pause: look again.

        A turn that nobody drives any more is ended first. ``key``: the turn is the one that the caller asks for.
        Raises ``ConflictError``.
        """
        if (yield from end_if_left(self._scene, live)):
            return False
        if self._on_conflict == "fork" and key is None:
            return True
        what = "a turn is still running in this session" if key is None else f"the turn of key {key!r} is still running"
        if self._on_conflict != "wait":
            raise ConflictError(what, found=live.turn_id, turn_id=live.turn_id)
        yield from self._pause(live.turn_id, what)
        return False

    def lost_claim(self, stand: sessions.Stand) -> Steps[None]:
        """Note that somebody changed the session before the claim, and pause. Raises ``ConflictError``."""
        self._lost_claims += 1
        self._head = stand.head_seq
        what = "the session is being changed by others"
        if self._on_conflict == "wait":
            yield from self._pause(None, what)
        elif self._lost_claims >= CLAIM_TRIES:
            raise ConflictError(what, expected=self._head)

    def check(self, stand: sessions.Stand) -> None:
        """Raise ``ConflictError`` when a lost claim was another turn's gain, and the caller did not agree to wait."""
        if self._on_conflict == "reject" and self._lost_claims and stand.head_seq != self._head:
            raise ConflictError("another turn was first", expected=self._head, found=stand.head_seq)

    def _pause(self, live: str | None, what: str) -> Steps[None]:
        ports = self._scene.ports
        left_s = self._give_up - ports.monotonic()
        if left_s <= 0:
            raise ConflictError(f"{what}, after {self._wait_s:g} s", found=live, turn_id=live)
        if live != self._seen:
            self._seen, self._passed = live, self._passed + 1
            self._look_s = max(FIRST_LOOK_S / (1 + self._passed / 8), SHORTEST_LOOK_S)
        yield Pause(min(self._look_s * (0.5 + ports.draw()), left_s))
        self._look_s = min(1.5 * self._look_s, LONGEST_LOOK_S)


def look(scene: Scene, key: str | None, ahead: ReadAhead | None = None) -> Steps[Seen]:
    """Read where the session stands and what is in the way, and where nothing is, what ``ahead`` reads.

    Raises ``NotFoundError``.
    """
    tenant, session_id, now = scene.tenant, scene.session_id, scene.ports.now()

    def work(db: Connection) -> Seen:
        # First the stand, then the key: a turn of this key that comes later moves the version that the claim names.
        stand = sessions.stand(db, tenant, session_id)
        mine = None if key is None else transcript.by_key(db, tenant, session_id, key)
        in_flight = stand.live_turn if mine is None or not mine[0].status.in_flight else mine[0].id
        live = None if in_flight is None else rescue.holder(db, tenant, session_id, in_flight, now)
        gone = in_flight is not None and live is None
        is_free = mine is None and in_flight is None
        return Seen(stand, mine, live, gone, ahead(db, stand) if is_free and ahead is not None else None)

    return (yield from read("look", work))


def end_if_lost(scene: Scene, turn_id: str) -> Steps[bool]:
    """End a turn in flight that nobody drives; says whether it is in flight no more."""
    tenant, session_id, now = scene.tenant, scene.session_id, scene.ports.now()
    held: rescue.Holder | None = yield from read(
        "holder", lambda db: rescue.holder(db, tenant, session_id, turn_id, now)
    )
    return held is None or (yield from end_if_left(scene, held))


def end_if_left(scene: Scene, held: rescue.Holder) -> Steps[bool]:
    """End a turn in flight if nobody drives it; says whether it did."""
    if not scene.ports.is_left(held.owner, held.turn_id, expired=held.expired):
        return False
    hold = entries.Hold(scene.tenant, scene.session_id, held.turn_seq, held.attempt, held.owner)
    now = scene.ports.now()
    yield from write("recover", lambda db: rescue.recover(db, hold, at=now))
    return True


def told(scene: Scene, turn_id: str | None, stand: sessions.Stand) -> Steps[rescue.Told]:
    """Read a turn by its id; without one, the head's turn.

    Raises ``NotFoundError``, and ``InvalidInputError`` when nothing was said yet.
    """
    key = None if turn_id is None else turn_key(turn_id)
    return (yield from read("told", lambda db: rescue.told(db, scene.tenant, scene.session_id, key, stand.head_turn)))

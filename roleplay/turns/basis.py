"""The basis of a reply: the line it answers, the path before it, and what that path hands on.

A new line, another variant and another attempt differ in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from roleplay.context.builder import Inherited
from roleplay.domain.context import Line
from roleplay.domain.conversation import Participant, TurnKind
from roleplay.errors import ConflictError, InvalidInputError
from roleplay.store import Connection
from roleplay.store.records import history, new_rows, sessions, stored_turns, transcript
from roleplay.store.records.path_states import SeatState, read_state, state_of
from roleplay.store.records.stored_turns import StoredTurn
from roleplay.turns.arguments import turn_key
from roleplay.turns.effects import Steps, read
from roleplay.turns.scope import SessionScope, viewer_in


class RoundPlace(NamedTuple):
    """The place of a turn in a round: the number of the round's first turn, and how many come before it and one."""

    first: int
    ordinal: int


class NewLine(NamedTuple):
    """A human line to be said: its text, who says it, and to whom, as an audience is stored."""

    text: str
    speaker: Participant
    audience: str | None = None


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
    audience: str | None = None
    of_round: RoundPlace | None = None
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


def of_new_line(scope: SessionScope, position: sessions.Position, seat: int, said: NewLine) -> Basis:
    """Stand on the session's head, with a new human line that a seat answers."""
    who = said.speaker.seat, said.speaker.display_name
    message = new_rows.NewMessage.after(
        position.end,
        position.last_seq + 1,
        who,
        said.text,
        scope.counter,
        by_human=True,
        revision=position.revision,
        audience=said.audience,
    )
    line = Line(message.seq, position.last_turn + 1, *who, said.text, message.tokens, message.counter)
    return _at_head(position, seat, said.audience, line, message)


def of_no_line(position: sessions.Position, seat: int, audience: str | None = None) -> Basis:
    """Stand on the session's head, with nothing to answer."""
    return _at_head(position, seat, audience, None, None)


def at_seat(scope: SessionScope, position: sessions.Position, seat: int) -> Steps[sessions.Position]:
    """Give the position with what the path hands on for a seat, where that is not the one that it was read for.

    Should the session have moved on meanwhile, the claim finds it out.
    """
    if seat == position.seat:
        return position
    states = position.states
    state: str | None = None
    if states is not None:
        state = yield from read("state", lambda db: state_of(db, *scope.place, states, seat))
    return replace(position, seat=seat, state=state)


def _at_head(
    position: sessions.Position,
    seat: int,
    audience: str | None,
    line: Line | None,
    human: new_rows.NewMessage | None,
) -> Basis:
    return Basis(
        position=position,
        line=line,
        human=human,
        before=position.head_seq,
        parent_turn=position.head_turn,
        seat=seat,
        states=position.states,
        state=read_state(position.state),
        shared=read_state(position.shared),
        end=position.end if human is None else human.end,
        revision=position.revision,
        audience=audience,
    )


def of_stored_turn(position: sessions.Position, turn: StoredTurn, *, again: bool, so_far: str = "") -> Basis:
    """Stand on the human line of a turn that is stored, for another variant of its reply or another attempt at it.

    Raises ``InvalidInputError`` for a turn that no model spoke and that has no human line, such as a greeting, and for
    one whose line was erased.
    """
    line, before = None, turn.tip_seq
    if turn.human_text == history.ERASED:
        raise InvalidInputError("turn_id", "answers a line that was erased", allowed="a turn whose line is there")
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
        audience=turn.audience,
        again=turn if again else None,
        so_far=so_far,
    )


def read_position(scope: SessionScope) -> Steps[sessions.Position]:
    """Read where the session stands. Raises ``NotFoundError``."""
    return (yield from read("position", lambda db: sessions.position(db, scope.tenant, scope.session_id)))


def read_turn(scope: SessionScope, turn_id: str | None, position: sessions.Position) -> Steps[StoredTurn]:
    """Read a turn by its id; without one, the head's turn, or the last before it that the scope's seat may see.

    Raises ``NotFoundError``, and ``InvalidInputError`` when nothing was said yet.
    """
    key = None if turn_id is None else turn_key(turn_id)

    def work(db: Connection) -> StoredTurn:
        viewer, last = viewer_in(scope, db), position.head_turn
        if viewer is not None and key is None:
            last = transcript.last_seen(db, *scope.place, last, viewer)
        return stored_turns.read_turn(db, *scope.place, key, last, viewer)

    return (yield from read("turn", work))


def check_way_back(scope: SessionScope, position: sessions.Position, parent_turn: int | None) -> Steps[None]:
    """Raise ``ConflictError`` where a reply after ``parent_turn`` would take off the path what the scope's seat may not
    see."""

    def work(db: Connection) -> bool:
        viewer, head = viewer_in(scope, db), position.head_turn
        return viewer is None or transcript.is_all_seen(db, *scope.place, viewer, head_turn=head, after=parent_turn)

    if scope.seat is None or parent_turn == position.head_turn:
        return
    if not (yield from read("way back", work)):
        raise ConflictError("the session has gone on since, with what this seat may not see")

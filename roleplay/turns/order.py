"""Who speaks next: asked once, by the strategy in force, and stored with the turn that begins a round."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from roleplay.context.draws import SPEAKERS, Draws, read_draws
from roleplay.domain.cast import SpeakingMoment, Strategy
from roleplay.domain.conversation import Participant
from roleplay.errors import InvalidInputError
from roleplay.store import Connection
from roleplay.store.access.decoding import reads
from roleplay.store.records import audience as audiences
from roleplay.store.records import history, sessions
from roleplay.store.records.path_states import SeatState, read_state
from roleplay.turns.basis import NewLine
from roleplay.turns.effects import Steps, read
from roleplay.turns.revisions import RenderedRevision
from roleplay.turns.scope import SessionScope

_NOTHING_SAID = ""


def next_speakers(
    scope: SessionScope,
    rendered: RenderedRevision,
    position: sessions.Position,
    line: NewLine | None,
    audience: str | None,
) -> Steps[list[Participant]]:
    """Say who speaks next, in order: to a new line, or (``None``) without one. At least one does.

    Raises ``InvalidInputError`` where the audience has no seat of the model's, or where nobody speaks.
    """
    seats = seats_that_hear(rendered, audience)
    if len(rendered.models) == 1 and not seats[0].muted:
        return seats
    seats = [one for one in seats if not one.muted]
    text = line.text if line is not None else (yield from _last_said(scope, rendered, position, seats))
    shared = read_state(position.shared) or SeatState()
    answered = position.last_seq + 1 if line is not None else position.head_seq or 0
    seed = rendered.first.in_force.seed
    draws = Draws(str(scope.session_id if seed is None else seed))
    moment = SpeakingMoment(
        seats=tuple(seats),
        present=rendered.present,
        text=text,
        asked=line is not None,
        whispered=audience is not None,
        last=shared.last or None,
        spoken=() if line is not None else shared.spoken,
        reply_to_self=rendered.rules.reply_to_self,
        draw=partial(draws.number, SPEAKERS, answered=answered),
    )
    name = rendered.rules.speaking
    strategy = scope.tenant_scope.strategies.get(name)
    if strategy is None:
        raise InvalidInputError("speaking", f"is {name!r}", allowed=", ".join(scope.tenant_scope.strategies))
    chosen = _asked(name, strategy, moment) if seats else []
    if not chosen:
        problem = f"calls nobody who would speak, by the strategy {name!r}"
        raise InvalidInputError("text" if line else "participant", problem, allowed="speak(participant), or add()")
    return chosen


def seats_that_hear(rendered: RenderedRevision, audience: str | None) -> list[Participant]:
    """Give the seats of the model's to which something is said. Raises ``InvalidInputError`` where there is none."""
    heard = audiences.read(audience)
    seats = [one for one in rendered.models if heard is None or one.seat in heard]
    if not seats:
        raise InvalidInputError(
            "audience", "has no seat that the model plays", allowed="add(), which asks for no reply"
        )
    return seats


def _asked(name: str, strategy: Strategy, moment: SpeakingMoment) -> list[Participant]:
    """Ask a strategy, and give the seats that it chose, each once. Raises ``InvalidInputError`` where it gives anything
    but numbers of the seats that may speak; its own error is the cause."""
    by_number = {one.seat: one for one in moment.seats}
    allowed = f"a list of seats: {', '.join(map(str, by_number))}"
    try:
        numbers = strategy(moment)
    except Exception as error:
        problem = f"the strategy {name!r} raised {type(error).__name__}"
        raise InvalidInputError("speaking", problem, allowed=allowed) from error
    if isinstance(numbers, str | bytes | bytearray) or not isinstance(numbers, Sequence):
        problem = f"the strategy {name!r} gave a {type(numbers).__name__}"
        raise InvalidInputError("speaking", problem, allowed=allowed)
    for number in numbers:
        if type(number) is not int or number not in by_number:
            raise InvalidInputError("speaking", f"the strategy {name!r} chose {number!r:.50}", allowed=allowed)
    return [by_number[number] for number in dict.fromkeys(numbers)]


def _last_said(
    scope: SessionScope, rendered: RenderedRevision, position: sessions.Position, seats: Sequence[Participant]
) -> Steps[str]:
    """Give the text of the last message, where all of the seats may see it."""
    head = position.head_seq
    if head is None or not seats:
        return _NOTHING_SAID

    def work(db: Connection) -> tuple[str, str | None, int | None] | None:
        return history.message_at(db, *scope.place, head)

    found = yield from read("last message", work)
    if found is None:
        return _NOTHING_SAID
    text, audience, revision = found
    seen = all(audiences.may_see(rendered.viewer(one.seat), audience, revision) for one in seats)
    return text if seen else _NOTHING_SAID


def chosen_draws(speakers: Sequence[Participant], rendered: RenderedRevision) -> str | None:
    """Write who was chosen as what a turn drew, where there was a choice."""
    if len(rendered.models) == 1:
        return None
    draws = Draws("")
    draws.keep(SPEAKERS, "", [one.seat for one in speakers])
    return draws.written()


@reads("what a turn drew by chance")
def read_order(stored: str | None) -> list[int]:
    """Read back who was chosen to speak in a round, the turn's own speaker first; empty where there was no choice."""
    return Draws("", read_draws(stored)).kept(SPEAKERS, "") or []

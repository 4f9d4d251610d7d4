"""A revision of a session, rendered: who is there, by which rules they take turns, and each seat of the model's as it
speaks, with which settings and by which sheets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from roleplay.context.counting import Counter
from roleplay.context.languages import language_of
from roleplay.context.placed import Casting, Player
from roleplay.context.sheet import Sheet, render
from roleplay.domain.conversation import Participant, PlayedBy
from roleplay.domain.persona import Persona
from roleplay.domain.settings import SeatRef
from roleplay.errors import InvalidInputError
from roleplay.store.records.audience import FOR_EVER, Viewer
from roleplay.store.records.revisions import Revision, Seat
from roleplay.turns.in_role import Names
from roleplay.turns.layers import CastRules, InForce, Layer, cast_rules, in_force

if TYPE_CHECKING:
    from roleplay.turns.terms import RequestTerms


@dataclass(frozen=True, slots=True)
class RenderedSeat:
    """A revision of a session as one seat of the model's speaks in it: the settings in force without a turn's own, its
    sheets, and what it may see.

    ``takes_turns``: the model plays others, too. ``names`` are what its replies are kept in role by. ``terms``: those
    of its requests, streamed or not, once they are known. ``sheets``: by the human seat that spoke last.
    """

    speaker: Participant
    viewer: Viewer
    layers: tuple[Layer, ...]
    in_force: InForce
    language: str
    casting: Casting
    counter: Counter
    takes_turns: bool
    names: Names = field(compare=False, repr=False)
    terms: dict[bool, RequestTerms] = field(default_factory=dict, compare=False, repr=False)
    sheets: dict[int, Sheet] = field(default_factory=dict, compare=False, repr=False)

    def sheet(self, asking: int | None = None) -> Sheet:
        """Give what is said of those who play, where the human of a seat spoke last (``None``: the first one)."""
        first = self.casting.humans[0].seat
        seat = first if asking is None else asking
        found = self.sheets.get(seat)
        if found is None:
            human = next((one for one in self.casting.humans if one.seat == seat), self.casting.humans[0])
            found = self.sheets[seat] = render(self.casting._replace(asking=human.name), self.counter)
        return found


@dataclass(frozen=True, slots=True)
class RenderedRevision:
    """A revision of a session: its seats, the rules by which they take turns, and the seats of the model's as they
    speak, by number. Engines keep the latest ones in memory."""

    stored: Revision
    rules: CastRules
    models: tuple[Participant, ...]
    humans: tuple[Participant, ...]
    speaking: Mapping[int, RenderedSeat]

    @property
    def first(self) -> RenderedSeat:
        """The first seat of the model's."""
        return self.speaking[self.models[0].seat]

    @property
    def present(self) -> tuple[Participant, ...]:
        """The seats in which somebody sits, in their order."""
        return tuple(one.participant for one in self.stored.seats if one.present)

    def viewer(self, seat: int) -> Viewer:
        """Say what keeps a seat, left or not, from seeing what was said."""
        return viewer(self.stored, seat, self.rules)

    def seat_of(self, who: SeatRef) -> Participant:
        """Give the seat, left or not, that somebody looks through; of one name, the seat in which somebody sits.

        Raises ``InvalidInputError``.
        """
        left = tuple(one.participant for one in self.stored.seats if not one.present)
        try:
            return named_seat("seat", who, self.present)
        except InvalidInputError as error:
            with contextlib.suppress(InvalidInputError):
                return named_seat("seat", who, left)
            raise error from None

    def participant(self, field_name: str, who: object, *, played_by: PlayedBy | None = None) -> Participant:
        """Give the seat, in which somebody sits, that a caller means by its number, its display name or an alias.

        Raises ``InvalidInputError`` where there is none, where two have that name, or where another plays it.
        """
        return named_seat(field_name, who, self.present, played_by)


def named_seat(
    field_name: str, who: object, seats: tuple[Participant, ...], played_by: PlayedBy | None = None
) -> Participant:
    """Find a seat by its number, its display name or an alias; letters of either case are the same.

    Raises ``InvalidInputError``.
    """
    if isinstance(who, bool) or not isinstance(who, int | str):
        raise InvalidInputError(field_name, f"is a {type(who).__name__}", allowed="a seat's number or a name")
    if isinstance(who, int):
        found = [one for one in seats if one.seat == who]
    else:
        name = who.strip().casefold()
        found = [one for one in seats if one.display_name.casefold() == name]
        found = found or [one for one in seats if name in {alias.casefold() for alias in one.aliases}]
    if played_by is not None:  # a namesake whom another plays is not meant
        found = [one for one in found if one.played_by is played_by] or found
    allowed = listed(seats, played_by)
    if not found:
        raise InvalidInputError(field_name, f"{str(who)[:50]!r} is nobody here", allowed=allowed)
    if len(found) > 1:
        numbers = ", ".join(str(one.seat) for one in found)
        raise InvalidInputError(field_name, f"{str(who)[:50]!r} is the name of several seats", allowed=numbers)
    if played_by not in {None, found[0].played_by}:
        player = "the model" if found[0].played_by is PlayedBy.MODEL else "a human"
        raise InvalidInputError(field_name, f"{str(who)[:50]!r} is played by {player}", allowed=allowed)
    return found[0]


def listed(seats: Iterable[Participant], played_by: PlayedBy | None = None) -> str:
    """Write seats for an error that says what is allowed: the number and the display name of each."""
    return ", ".join(f"{one.seat} ({one.display_name})" for one in seats if played_by in {None, one.played_by})


def viewer(stored: Revision, seat: int, rules: CastRules) -> Viewer:
    """Say what keeps a seat from seeing what was said: ``joiner_sees`` tells whether what was said while nobody sat
    there does; what is said once it was left always does."""
    found = stored.seat(seat)
    absences = found.absences if found else ()
    if rules.joiner_sees == "everything":
        absences = tuple(one for one in absences if one[1] == FOR_EVER)
    return Viewer(seat, absences)


def render_revision(stored: Revision, outer: tuple[Layer, ...], counter: Counter) -> RenderedRevision:
    """Render a revision. ``outer`` are the layers of settings beyond the session's and the persona's."""
    rules = cast_rules((("session", stored.settings), *outer))
    models, humans = stored.played_by(PlayedBy.MODEL), stored.played_by(PlayedBy.HUMAN)
    return RenderedRevision(
        stored,
        rules,
        tuple(one.participant for one in models),
        tuple(one.participant for one in humans),
        {one.participant.seat: _rendered(stored, one, rules, outer, counter) for one in models},
    )


def _rendered(
    stored: Revision, speaker: Seat, rules: CastRules, outer: tuple[Layer, ...], counter: Counter
) -> RenderedSeat:
    persona = speaker.persona.persona if speaker.persona else None
    layers = (("session", stored.settings), *((("persona", persona.settings),) if persona else ()), *outer)
    language = language_spoken(persona, stored.scene)
    who = speaker.participant
    return RenderedSeat(
        who,
        viewer(stored, who.seat, rules),
        layers,
        in_force(layers),
        language,
        casting(stored, speaker),
        counter,
        len(stored.played_by(PlayedBy.MODEL)) > 1,
        names_around(stored, who),
    )


def names_around(stored: Revision, speaker: Participant) -> Names:
    """Give the names of a speaker and of the others who are there, each with its aliases."""
    others = [one.participant for one in stored.seats if one.present and one.participant.seat != speaker.seat]
    return Names(
        (speaker.display_name, *speaker.aliases),
        [(name, one.display_name) for one in others for name in (one.display_name, *one.aliases)],
    )


def language_spoken(persona: Persona | None, scene: str) -> str:
    """Tell the language of a session from its persona and scene, where no layer of settings names one."""
    return language_of(f"{persona.name}{persona.description}{scene}" if persona else scene)


def casting(stored: Revision, speaker: Seat) -> Casting:
    """Give who plays in a seat's contexts."""
    who = speaker.participant
    humans = stored.played_by(PlayedBy.HUMAN)
    players = tuple(
        Player(one.participant.seat, one.participant.display_name, one.persona.persona if one.persona else None)
        for one in humans
    )
    others = [one.participant.display_name for one in stored.seats if one.present and one is not speaker]
    return Casting(
        seat=who.seat,
        char=who.display_name,
        persona=speaker.persona.persona if speaker.persona else Persona(who.display_name),
        humans=players,
        asking=players[0].name,
        others=tuple(others) if stored.is_group else (),
        scene=stored.scene,
        named=stored.is_group,
    )

"""Placed texts: everything that is put into a context beside history, and what the sources that make them are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from roleplay.context.counting import Counter
from roleplay.context.languages import Words
from roleplay.context.weights import Size, size_of
from roleplay.domain.context import Line, Piece, Role, digest
from roleplay.domain.persona import Persona
from roleplay.domain.settings import REQUIRED, Fact


class Rendered(NamedTuple):
    """A message as it will be sent, as a recipe names it, and the size of its text, counted once."""

    section: str
    piece: Piece
    text: str
    size: Size


def rendered(section: str, role: Role, name: str, text: str, counter: Counter) -> Rendered:
    """Give a message as it will be sent, counted."""
    piece = Piece(str(section), role.value, name, digest(text))
    return Rendered(section, piece, text, size_of(text, counter.count(text)))


class Place(NamedTuple):
    """Where a text stands: in front of the history, among its last messages (``depth`` of them come behind the text),
    or behind the newest line. At one place, texts stand in the order of their sources."""

    slot: Literal["front", "among", "behind"]
    depth: int = 0


FRONT = Place("front")
BEHIND = Place("behind")


def at_depth(depth: int) -> Place:
    """Give the place before the last ``depth`` messages of the history."""
    return Place("among", depth)


#: The lines that were said last claim with this priority: behind what the persona is, before all that is added to them.
NEWEST_PRIORITY = 102.0


class PlacedText(NamedTuple):
    """A text that is put into a context beside history: one message, or several that go in whole or not at all.

    ``name`` tells the texts of a section apart; those of one section and name are one row of the report. ``priority``
    says who claims the budget first, the highest; from 100 on a text is required. A caller's facts have whole numbers
    up to 100. ``changes``: the text is another one in most requests, as one that says the time is. ``origin``: what it
    was made from, ``persona``, ``session``, ``turn``, ``engine`` or a layer of settings.

    ``chosen``: one of those among which the policy for example dialogues chooses when an epoch begins; they claim
    together, and only a source that makes its texts once per revision has such. ``if_own_first``: it goes in where the
    first line that is kept is the speaker's own; its tokens are claimed in any case, so that the window does not depend
    on it.
    """

    messages: tuple[Rendered, ...]
    place: Place
    priority: float
    name: str = ""
    changes: bool = False
    origin: str = ""
    chosen: bool = False
    if_own_first: bool = False

    @property
    def section(self) -> str:
        """The section that it belongs to."""
        return self.messages[0].section

    @property
    def required(self) -> bool:
        """Whether no context is built without it."""
        return self.priority >= REQUIRED


class ClaimOrder(NamedTuple):
    """In which order texts claim the budget, each by its number in the list of them: what is required before and behind
    the lines that were said last, and the others before and behind those among which a policy chooses."""

    before_newest: list[int]
    required: list[int]
    before_chosen: list[int]
    chosen: list[int]
    last: list[int]


def claim_order(texts: Sequence[PlacedText]) -> ClaimOrder:
    """Order texts by priority, and those of one priority as they stand."""
    order = ClaimOrder([], [], [], [], [])
    priorities = [text.priority for text in texts]
    for number in sorted(range(len(texts)), key=priorities.__getitem__, reverse=True):
        text = texts[number]
        if text.chosen:
            order.chosen.append(number)
        elif text.required:
            (order.before_newest if text.priority > NEWEST_PRIORITY else order.required).append(number)
        else:
            (order.last if order.chosen else order.before_chosen).append(number)
    return order


class Player(NamedTuple):
    """A human who plays in a context: seat, name and persona, if there is one."""

    seat: int
    name: str
    persona: Persona | None


class Casting(NamedTuple):
    """Who plays in a context: the speaker's seat, name and persona; the humans, in their order;
    ``asking``, the name of the one who spoke last; the names of all ``others``, where there are several that one may
    speak to; the scene. ``named``: each line of another carries its speaker's name."""

    seat: int
    char: str
    persona: Persona
    humans: tuple[Player, ...]
    asking: str
    others: tuple[str, ...] = ()
    scene: str = ""
    named: bool = False

    @property
    def user(self) -> str:
        """The name of the first human, who is meant where the text is to stay the same whoever asks."""
        return self.humans[0].name


class Request(NamedTuple):
    """What one request is for, as the sources of its texts need it.

    ``facts`` are those in force; ``origins`` names the layer of each, under ``fact NAME``. ``now`` gives the time in
    the time zone in force, the same whenever it is asked. ``lines`` are the history that was read, oldest first. The
    reply goes on from the text ``so_far`` and heeds a ``hint``, where there are such. ``user_first``: the dialect
    demands that a user's message comes first.
    """

    casting: Casting
    counter: Counter
    words: Words
    now: Callable[[], datetime]
    lines: Sequence[Line] = ()
    facts: Sequence[Fact] = ()
    origins: Mapping[str, str] = {}
    so_far: str = ""
    hint: str = ""
    user_first: bool = False

    @property
    def unasked(self) -> bool:
        """Whether the reply comes though no line of another asks for it."""
        return not self.lines or self.lines[-1].seat == self.casting.seat


class OfRevision(NamedTuple):
    """A source whose texts stay the same until the session's cast or scene changes: they are made once per revision."""

    section: str
    make: Callable[[Casting, Counter], Sequence[PlacedText]]


class OfRequest(NamedTuple):
    """A source that makes its texts anew for each request."""

    section: str
    make: Callable[[Request], Sequence[PlacedText]]


class HistorySection(NamedTuple):
    """A section of history, which no source makes: where it stands in the order of sections."""

    section: str


Source = OfRevision | OfRequest | HistorySection


def of_revision(section: str) -> Callable[[Callable[[Casting, Counter], Sequence[PlacedText]]], OfRevision]:
    """Make a source of a function that needs no more than who plays."""
    return lambda make: OfRevision(section, make)


def of_request(section: str) -> Callable[[Callable[[Request], Sequence[PlacedText]]], OfRequest]:
    """Make a source of a function that needs to know the request."""
    return lambda make: OfRequest(section, make)

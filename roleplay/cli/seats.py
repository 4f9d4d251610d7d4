"""Which seats a line names: by name, alias or number, also where names hold blanks and commas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from roleplay.domain.conversation import Participant, PlayedBy
from roleplay.domain.settings import SeatRef
from roleplay.errors import InvalidInputError
from roleplay.turns.revisions import listed, named_seat

Seats = Sequence[Participant]

_COMMAS = (",", "\uff0c", "\u3001")
_ENDS = (*_COMMAS, ":", "\uff1a")
_QUOTES = {
    '"': '"',
    "'": "'",
    "\u201c": "\u201d",
    "\u2018": "\u2019",
    "\u00ab": "\u00bb",
    "\u300c": "\u300d",
    "\u300e": "\u300f",
}


def one_seat(command: str, text: str, cast: Seats, played_by: PlayedBy | None = None) -> Participant:
    """Find the seat named by ``text``. Raises ``InvalidInputError`` where more follows the name."""
    seat, rest = first_seat(command, text, cast, played_by)
    if rest:
        raise InvalidInputError(command, f"is followed by {rest[:50]!r}, behind a name", allowed="one name")
    return seat


def several_seats(command: str, text: str, cast: Seats) -> tuple[list[Participant], str]:
    """Split ``text`` into the seats it begins with, separated by commas, and the rest.

    Raises ``InvalidInputError``.
    """
    seat, rest = first_seat(command, text, cast)
    found = [seat]
    while rest.startswith(_COMMAS):
        seat, rest = first_seat(command, rest[1:], cast)
        found.append(seat)
    return found, rest[1:].lstrip() if rest.startswith(_ENDS) else rest


def first_seat(command: str, text: str, cast: Seats, played_by: PlayedBy | None = None) -> tuple[Participant, str]:
    """Split ``text`` into the seat it begins with and the rest.

    The longest whole name counts; without one, a name in quotes or a seat's number. Raises ``InvalidInputError``.
    """
    text = text.strip()
    if not text:
        raise InvalidInputError(command, "names nobody", allowed=listed(cast, played_by))
    named, rest = _split(text, cast)
    return named_seat(command, named, tuple(cast), played_by), rest.lstrip()


def _split(text: str, cast: Seats) -> tuple[SeatRef, str]:
    names = {name.casefold() for one in cast for name in (one.display_name, *one.aliases)}
    longest = 3 * max(map(len, names), default=0)  # one letter may have three for its lower case
    for end in range(min(len(text), longest), 0, -1):
        if text[:end].casefold() in names and _ends(text, end):
            return text[:end], text[end:]
    for end in _closed(text):
        if text[1:end].strip().casefold() in names and _ends(text, end + 1):
            return text[1:end], text[end + 1 :]
    end = next((place for place in range(len(text)) if _ends(text, place)), len(text))
    number = text[:end].removeprefix("#")
    if number.isascii() and number.isdigit() and len(number) < 10:
        return int(number), text[end:]
    return text[:end], text[end:]


def _closed(text: str) -> Iterator[int]:
    """Give each place where the quotation at the start of ``text`` may end."""
    closing = _QUOTES.get(text[0])
    end = text.find(closing, 1) if closing else -1
    while closing and end > 0:
        yield end
        end = text.find(closing, end + 1)


def _ends(text: str, end: int) -> bool:
    """Whether a name may end at ``end``."""
    return end == len(text) or text[end].isspace() or text[end] in _ENDS

"""A sheet: everything of a context but its history, rendered and counted once per revision of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from roleplay.context.counting import Counter
from roleplay.context.placed import Casting, ClaimOrder, OfRequest, OfRevision, PlacedText, Request, Source, claim_order
from roleplay.context.sources import SOURCES
from roleplay.domain.context import digest


class Sheet(NamedTuple):
    """Who plays in a context, and the texts of each source beside its history, in the order of the sources.

    ``later`` are the sources that make their texts for each request, with their places among all. ``texts`` are those
    of all sources, and ``order`` says in which order they claim. ``choice_digest`` names the texts among which a policy
    chooses; another digest means another choice.
    """

    casting: Casting
    later: tuple[tuple[int, Callable[[Request], Sequence[PlacedText]]], ...]
    made: tuple[tuple[PlacedText, ...], ...]
    texts: tuple[PlacedText, ...]
    order: ClaimOrder
    choice_digest: str

    @property
    def seat(self) -> int:
        """The speaker's seat."""
        return self.casting.seat

    def for_request(self, request: Request) -> Sheet:
        """Give the sheet of a revision with the texts of one request."""
        found = {place: texts for place, make in self.later if (texts := make(request))}
        if not found:
            return self
        made = tuple([tuple(found.get(place, texts)) for place, texts in enumerate(self.made)])
        return _sheet(self.casting, self.later, made, self.choice_digest)


def render(casting: Casting, counter: Counter, sources: Sequence[Source] = SOURCES) -> Sheet:
    """Make the texts that stay the same for a revision: macros expanded, what is blank left out, the rest counted."""
    made = tuple(tuple(one.make(casting, counter)) if isinstance(one, OfRevision) else () for one in sources)
    chosen = ["".join(one.piece.digest for one in text.messages) for texts in made for text in texts if text.chosen]
    later = tuple((place, one.make) for place, one in enumerate(sources) if isinstance(one, OfRequest))
    return _sheet(casting, later, made, digest("\n".join(chosen))[:8])


def _sheet(
    casting: Casting,
    later: tuple[tuple[int, Callable[[Request], Sequence[PlacedText]]], ...],
    made: tuple[tuple[PlacedText, ...], ...],
    choice_digest: str,
) -> Sheet:
    texts = tuple([text for texts in made for text in texts])
    return Sheet(casting, later, made, texts, claim_order(texts), choice_digest)

"""A revision of a session as one seat speaks in it: whom it answers, with which settings, by which sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from roleplay.context.counting import Counter
from roleplay.context.languages import language_of
from roleplay.context.placed import Casting
from roleplay.context.sheet import Sheet, render
from roleplay.domain.conversation import PlayedBy
from roleplay.domain.persona import Persona
from roleplay.store.records import sessions
from roleplay.turns.layers import InForce, Layer, in_force

if TYPE_CHECKING:
    from roleplay.turns.terms import RequestTerms


class Pair(NamedTuple):
    """Who speaks, and whom they answer."""

    speaker: sessions.Seat
    human: sessions.Seat


@dataclass(frozen=True, slots=True)
class RenderedRevision:
    """A revision of a session for one seat: whom it answers, the settings in force without a turn's own, its sheet.

    Engines keep the latest ones in memory. ``terms``: those of its requests, streamed or not, once they are known.
    """

    pair: Pair
    layers: tuple[Layer, ...]
    in_force: InForce
    language: str
    sheet: Sheet
    terms: dict[bool, RequestTerms] = field(default_factory=dict, compare=False, repr=False)


def render_seats(revision: sessions.Revision, outer: tuple[Layer, ...], counter: Counter) -> list[RenderedRevision]:
    """Render a revision for every seat that the model plays. ``outer`` are the layers of settings beyond the session's
    and the persona's."""
    return [_rendered(revision, pair, outer, counter) for pair in pairs(revision)]


def pairs(revision: sessions.Revision) -> list[Pair]:
    """Say who answers whom: each seat that the model plays answers the first one that a human plays."""
    human = revision.played_by(PlayedBy.HUMAN)[0]
    return [Pair(speaker, human) for speaker in revision.played_by(PlayedBy.MODEL)]


def _rendered(revision: sessions.Revision, pair: Pair, outer: tuple[Layer, ...], counter: Counter) -> RenderedRevision:
    persona = pair.speaker.persona.persona if pair.speaker.persona else None
    layers = (("session", revision.settings), *((("persona", persona.settings),) if persona else ()), *outer)
    language = language_of(spoken_in(persona, revision.scene))
    return RenderedRevision(pair, layers, in_force(layers), language, render(casting(pair, revision.scene), counter))


def spoken_in(persona: Persona | None, scene: str) -> str:
    """Give the text that tells a session's language, where no layer of settings does."""
    return f"{persona.name}{persona.description}{scene}" if persona else scene


def casting(pair: Pair, scene: str) -> Casting:
    """Give who plays in a seat's contexts."""
    speaker, human = pair
    persona = speaker.persona.persona if speaker.persona else Persona(speaker.participant.display_name)
    return Casting(
        seat=speaker.participant.seat,
        char=speaker.participant.display_name,
        persona=persona,
        user=human.participant.display_name,
        user_persona=human.persona.persona if human.persona else None,
        scene=scene,
    )

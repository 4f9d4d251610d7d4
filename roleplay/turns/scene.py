"""The scene of a turn: which session, spoken in with what, by whom."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from roleplay.context.counting import Counter
from roleplay.context.languages import Words, language_of
from roleplay.context.placed import Casting
from roleplay.context.sheet import Sheet, render
from roleplay.domain.context import Line
from roleplay.domain.conversation import PlayedBy
from roleplay.domain.endpoint import PROFILES, Endpoint, Form
from roleplay.domain.guards import Guard
from roleplay.domain.persona import Persona
from roleplay.domain.values import TEXT_LIMIT, text_problem
from roleplay.errors import InvalidInputError
from roleplay.store import sessions
from roleplay.store.stored import absent
from roleplay.turns.calibrating import Memory
from roleplay.turns.effects import Ports, Steps, read
from roleplay.turns.layers import InForce, Layer, in_force

if TYPE_CHECKING:
    from roleplay.turns.terms import RequestTerms


class Pair(NamedTuple):
    """Who speaks, and whom they answer."""

    speaker: sessions.Seat
    human: sessions.Seat


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A revision of a session as one seat speaks in it: whom it answers, the settings in force without a turn's own,
    its sheet.

    Shells keep the latest ones in memory. ``terms``: those of its requests, streamed or not, once they are known.
    """

    pair: Pair
    layers: tuple[Layer, ...]
    in_force: InForce
    language: str
    sheet: Sheet
    terms: dict[bool, RequestTerms] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Watch:
    """A product's own checks of what is said. ``guard_timeout_s``: how long one may take; ``keep_originals``: whether a
    text that a guard did not allow is kept."""

    guards: tuple[Guard, ...] = ()
    guard_timeout_s: float = 10.0
    keep_originals: bool = False


NO_WATCH = Watch()


@dataclass(frozen=True, slots=True)
class Scene:
    """Which session is spoken in, with what: everything that its turns have in common.

    ``endpoints``: the engine's own, and those that are asked when it is unavailable. ``outer`` are the layers of
    settings beyond the session's and the persona's. ``spoke``: when this engine last ended a turn that was ready to
    wait, by session. ``learned``: in which form a host takes requests for a model, where it refused another.
    ``calibrated``: what it has learned of its models' tokens. ``recounts``: lines that another counter counted, which
    are to be counted anew, by session.
    """

    tenant: str
    session_id: str
    endpoints: tuple[Endpoint, ...]
    outer: tuple[Layer, ...]
    languages: Mapping[str, Words]
    watch: Watch
    counter: Counter
    ports: Ports
    rehearsed: MutableMapping[tuple[Any, ...], Rehearsed] = field(repr=False)  # it holds other sessions
    learned: MutableMapping[tuple[str, str], Form]
    spoke: MutableMapping[str, float]
    calibrated: Memory
    recounts: MutableMapping[str, tuple[Line, ...]]

    def form_of(self, endpoint: Endpoint) -> Form:
        """The form in which a host takes requests for a model, as far as it is known."""
        return self.learned.get((endpoint.host, endpoint.model), Form(endpoint.dialect, endpoint.cap_name))

    def asked_of(self, model: str | Endpoint | None) -> tuple[Endpoint, ...]:
        """Give who is asked for a reply by ``model``, in this order. Raises ``InvalidInputError``."""
        first = self.endpoints[0]
        if model is None or model == first.model:
            return self.endpoints
        if isinstance(model, Endpoint):
            return (model,)
        named = next((one for one in self.endpoints if one.model == model), None)
        if named is not None:
            return (named,)
        its_own = PROFILES.get(first.model)
        if its_own is not None and (model not in PROFILES or PROFILES[model].domains != its_own.domains):
            same = (name for name, profile in PROFILES.items() if profile.domains == its_own.domains)
            known = ", ".join(dict.fromkeys((*(one.model for one in self.endpoints), *same)))
            raise InvalidInputError(
                "model", f"nothing is known of {model!r}", allowed=f"an Endpoint, or one of {known}"
            )
        return (first.evolve(model=model),)


def rehearse(scene: Scene, revision: int, seat: int | None) -> Steps[Rehearsed]:
    """Give a revision of the session as a seat of the model's speaks in it, read when it is not in memory.

    Raises ``StoreError`` where there is no such seat.
    """
    known = in_memory(scene, revision, seat)
    if known is None:
        key = (scene.tenant, scene.session_id, revision, scene.counter.name)
        stage: sessions.Stage = yield from read(
            "rehearse", lambda db: sessions.stage(db, scene.tenant, scene.session_id, revision)
        )
        for pair in pairs(stage):
            scene.rehearsed[(*key, pair.speaker.participant.seat)] = _rehearsed(scene, stage, pair)
        known = scene.rehearsed.get((*key, seat))
        if known is None:
            raise absent(f"seat {seat}", f"revision {revision} of session {scene.session_id}")
    return known


def in_memory(scene: Scene, revision: int, seat: int | None) -> Rehearsed | None:
    """Give a revision as a seat speaks in it, where it was read before."""
    return scene.rehearsed.get((scene.tenant, scene.session_id, revision, scene.counter.name, seat))


def pairs(stage: sessions.Stage) -> list[Pair]:
    """Say who answers whom: each seat that the model plays answers the first one that a human plays."""
    human = stage.played_by(PlayedBy.HUMAN)[0]
    return [Pair(speaker, human) for speaker in stage.played_by(PlayedBy.MODEL)]


def _rehearsed(scene: Scene, stage: sessions.Stage, pair: Pair) -> Rehearsed:
    persona = pair.speaker.persona.persona if pair.speaker.persona else None
    layers = (("session", stage.settings), *((("persona", persona.settings),) if persona else ()), *scene.outer)
    language = language_of(spoken_in(persona, stage.scene))
    return Rehearsed(pair, layers, in_force(layers), language, render(casting(pair, stage.scene), scene.counter))


def spoken_in(persona: Persona | None, scene: str) -> str:
    """Give the text that tells a session's language, where no layer of settings does."""
    return f"{persona.name}{persona.description}{scene}" if persona else scene


def check_label(scene: str) -> None:
    """Raise ``InvalidInputError`` for a scene that cannot be stored and sent."""
    if not isinstance(scene, str):
        raise InvalidInputError("scene", f"is a {type(scene).__name__}", allowed="a str")
    if problem := "is too long" if len(scene) > TEXT_LIMIT else text_problem(scene):
        raise InvalidInputError("scene", problem, allowed=f"at most {TEXT_LIMIT} characters")


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

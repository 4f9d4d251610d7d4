"""The scene of a turn: which session, spoken in with what, by whom."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from roleplay.context.counting import Counter
from roleplay.context.sheet import Casting, Sheet, render
from roleplay.domain.endpoint import Dialect, Endpoint
from roleplay.domain.persona import Persona
from roleplay.domain.settings import Sampling
from roleplay.store import sessions
from roleplay.turns.effects import Ports, Steps, read
from roleplay.wire.dialects import demands


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A revision of a session with its sheet rendered. Immutable, so shells keep the latest ones in memory."""

    stage: sessions.Stage
    sheet: Sheet


@dataclass(frozen=True, slots=True)
class Scene:
    """Which session is spoken in, with what: everything that its turns have in common.

    ``spoke``: when this engine last ended a turn that was ready to wait, by session.
    """

    tenant: str
    session_id: str
    endpoint: Endpoint
    sampling: Sampling
    budget_tokens: int | None
    counter: Counter
    ports: Ports
    rehearsed: MutableMapping[tuple[Any, ...], Rehearsed]
    learned: MutableMapping[tuple[str, str], Dialect]
    spoke: MutableMapping[str, float]

    @property
    def dialect(self) -> Dialect:
        """The dialect that this host takes for this model, as far as it is known."""
        return self.learned.get(self.spoken_to, self.endpoint.dialect)

    @property
    def spoken_to(self) -> tuple[str, str]:
        """Host and model, which a learned dialect belongs to."""
        return self.endpoint.host, self.endpoint.model


def rehearse(scene: Scene, revision: int) -> Steps[Rehearsed]:
    """Give a revision of the session with its sheet, read and rendered when it is not in memory."""
    key = (scene.tenant, scene.session_id, revision, scene.dialect, scene.counter.name)
    known = scene.rehearsed.get(key)
    if known is None:
        stage: sessions.Stage = yield from read(lambda db: sessions.stage(db, scene.tenant, scene.session_id, revision))
        sheet = render(casting(stage), scene.counter, demands(scene.dialect))
        known = scene.rehearsed[key] = Rehearsed(stage, sheet)
    return known


def casting(stage: sessions.Stage) -> Casting:
    """Give who plays in a session's contexts."""
    model, human = stage.model, stage.human
    persona = model.persona.persona if model.persona else Persona(model.participant.display_name)
    return Casting(
        seat=model.participant.seat,
        char=model.participant.display_name,
        persona=persona,
        user=human.participant.display_name,
        user_persona=human.persona.persona if human.persona else None,
        scene=stage.scene,
    )


@lru_cache(maxsize=256)
def merge(layers: tuple[Sampling, ...]) -> Sampling:
    """Give for each parameter the first layer's value that is not ``None``; nearest layer first."""
    chosen: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer:
            if value is not None:
                chosen.setdefault(name, value)
    return Sampling(**chosen)

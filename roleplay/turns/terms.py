"""The terms of a request: who is asked, in which form, with which parameters and within which bounds.

They follow from the settings in force and from what is known of the endpoint, before anything is said. So those of a
revision of a session are worked out once, unless a turn has settings of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from roleplay.context.window import MARKS, Marks
from roleplay.domain.endpoint import Endpoint, Form
from roleplay.domain.settings import TurnOptions
from roleplay.store.records.calibrations import Subject
from roleplay.turns.calibrating import subject
from roleplay.turns.layers import InForce, SettingsText, in_force, of_turn
from roleplay.turns.limits import Budget, budget_of, cap_in_force, window_room
from roleplay.turns.revisions import RenderedSeat
from roleplay.turns.scope import UTC_NAME, SessionScope
from roleplay.wire.request import parameters


@dataclass(frozen=True, slots=True)
class RequestTerms:
    """What a request is bound to. ``others``: who is asked, in this order, when ``endpoint`` is unavailable; ``room``:
    the tokens that a prompt may have in the window; ``subject``: whose tokens they are; ``policy``: how example
    dialogues are chosen."""

    force: InForce
    endpoint: Endpoint
    others: tuple[Endpoint, ...]
    form: Form
    parameters: dict[str, object]
    limit: Budget
    room: int
    subject: Subject
    marks: Marks
    policy: Any
    decided: dict[str, tuple[Any, str]]
    written: dict[str, SettingsText] = field(default_factory=dict, compare=False)

    def settings(self, language: str) -> SettingsText:
        """Write every setting with its layer, where the engine's own words are in ``language``."""
        found = self.written.get(language)
        if found is None:
            said = self.force.origins.get("language", "detected")
            found = self.written[language] = self.force.text_with(self.decided | {"language": (language, said)})
        return found


def request_terms(scope: SessionScope, rendered: RenderedSeat, options: TurnOptions, *, stream: bool) -> RequestTerms:
    """Give the terms of a request. Raises ``InvalidInputError`` for settings that no request can be made with."""
    own = of_turn(options)
    found = known_terms(scope, rendered, stream=stream) if own is None else None
    if found is not None:
        return found
    force = rendered.in_force if own is None else in_force((("turn", own), *rendered.layers))
    model = options.model if isinstance(options.model, Endpoint) else force.model
    endpoint, *others = scope.tenant_scope.endpoints_for(model)
    form = scope.tenant_scope.form_of(endpoint)
    limit = budget_of(force, (endpoint, *others))
    marks, policy = Marks(force.high_water or MARKS.high, force.low_water or MARKS.low), force.examples or "keep"
    layer_of = force.origins.get
    terms = RequestTerms(
        force=force,
        endpoint=endpoint,
        others=tuple(others),
        form=form,
        parameters=parameters(endpoint, force.sampling, stream=stream, cap_name=form.cap_name),
        limit=limit,
        room=window_room(endpoint, force.sampling),
        subject=subject(scope.tenant, endpoint, form.dialect, scope.counter),
        marks=marks,
        policy=policy,
        decided={
            "model": (endpoint.model, layer_of("model", "engine")),
            "max_completion_tokens": cap_in_force(force, endpoint),
            "budget_tokens": (limit.tokens, limit.layer),
            "language": ("", ""),  # its place: a reply may be in another
            "time_zone": (force.time_zone or UTC_NAME, layer_of("time_zone", "default")),
            "high_water": (marks.high, layer_of("high_water", "default")),
            "low_water": (marks.low, layer_of("low_water", "default")),
            "examples": (policy, layer_of("examples", "default")),
        },
    )
    if own is None:
        rendered.terms[stream] = terms
    return terms


def known_terms(scope: SessionScope, rendered: RenderedSeat, *, stream: bool) -> RequestTerms | None:
    """Give the terms of a turn without settings of its own, where they were worked out and still hold."""
    found = rendered.terms.get(stream)
    return found if found is not None and found.form == scope.tenant_scope.form_of(found.endpoint) else None

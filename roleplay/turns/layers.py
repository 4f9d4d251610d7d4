"""The settings in force: layers of them, nearest first, and for each value the layer that it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from roleplay.domain.context import digest
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.settings import ExamplePolicy, Fact, Sampling, SessionSettings, TurnOptions

Layer = tuple[str, SessionSettings]
_PLAIN = ("budget_tokens", "model", "language", "time_zone", "high_water", "low_water", "examples", "seed")


class CastRules(NamedTuple):
    """By which rules the seats of a session take turns; see ``SessionSettings``."""

    speaking: str = "natural"
    round_turns: int = 4
    reply_to_self: bool = False
    joiner_sees: str = "joining"


def cast_rules(layers: Sequence[Layer]) -> CastRules:
    """Give the rules that ``layers``, nearest first, say together."""
    said: dict[str, Any] = {}
    for _, settings in layers:
        for name in CastRules._fields:
            value = getattr(settings, name)
            if value is not None:
                said.setdefault(name, value)
    return CastRules(**said)


class SettingsText(NamedTuple):
    """Settings as they are stored: their text, and the digest that it is stored under."""

    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class InForce:
    """The settings in force for a turn; ``None`` where no layer says. ``origins`` names each value's layer.

    ``facts`` stand in the order of their layers, farthest first, since what is farther changes more rarely.
    """

    sampling: Sampling
    budget_tokens: int | None
    model: str | Endpoint | None
    language: str | None
    time_zone: str | None
    high_water: float | None
    low_water: float | None
    examples: ExamplePolicy | None
    seed: int | None
    facts: tuple[Fact, ...]
    origins: dict[str, str]

    def text_with(self, decided: Mapping[str, tuple[Any, str]]) -> SettingsText:
        """Write every value with its layer as JSON; ``decided`` are (value, layer) of those that are worked out."""
        values: dict[str, Any] = {**dict(self.sampling), **{name: getattr(self, name) for name in _PLAIN}}
        values_by_name = {name: [value, self.origins.get(name, "default")] for name, value in values.items()}
        values_by_name |= {name: list(one) for name, one in decided.items()}
        values_by_name |= {
            f"fact {one.name}": [digest(one.text), self.origins[f"fact {one.name}"]] for one in self.facts
        }
        text = json.dumps(values_by_name, ensure_ascii=False, separators=(",", ":"))
        return SettingsText(text, digest(text))


def in_force(layers: Sequence[Layer]) -> InForce:
    """Give what ``layers``, nearest first, say together: for each setting the nearest that is not ``None``.

    Facts of all layers are in force, the nearest of each name; one of blank text takes itself out.
    """
    values: dict[str, Any] = {}
    facts: dict[str, Fact] = {}
    origins: dict[str, str] = {}
    for layer, settings in layers:
        said = [*settings.sampling, *((name, getattr(settings, name)) for name in _PLAIN)]
        for name, value in said:
            if value is not None and name not in values:
                values[name], origins[name] = value, layer
        for fact in settings.facts[::-1]:
            if fact.name not in facts:
                facts[fact.name] = fact
                origins[f"fact {fact.name}"] = layer
    return InForce(
        sampling=Sampling(**{name: values.get(name) for name in Sampling.model_fields}),
        facts=tuple(fact for fact in reversed(facts.values()) if fact.text.strip()),
        origins=origins,
        budget_tokens=values.get("budget_tokens"),
        model=values.get("model"),
        language=values.get("language"),
        time_zone=values.get("time_zone"),
        high_water=values.get("high_water"),
        low_water=values.get("low_water"),
        examples=values.get("examples"),
        seed=values.get("seed"),
    )


def of_turn(options: TurnOptions) -> SessionSettings | None:
    """Give a turn's own layer, ``None`` when it says nothing."""
    if options.model is None and not options.facts and options.sampling == _NOTHING:
        return None
    name = options.model.model if isinstance(options.model, Endpoint) else options.model
    return SessionSettings(sampling=options.sampling, model=name, facts=options.facts)


_NOTHING = Sampling()

"""The example personas that come with the package."""

from __future__ import annotations

from pathlib import Path

from roleplay.domain.persona import Persona
from roleplay.exchange.persona_files import read_persona

FOR_A_USER = "user"


def folder() -> Path | None:
    """Where the examples are: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).with_name("example_personas")
    beside = Path(__file__).parents[2] / "examples" / "personas"
    return next((one for one in (installed, beside) if one.is_dir()), None)


def example(key: str) -> Persona | None:
    """Give the example persona with this key, or ``None``."""
    return next((one for one in examples() if one.key == key), None)


def examples() -> list[Persona]:
    """Give all example personas, by name of their files."""
    where = folder()
    return [read_persona(path) for path in sorted(where.glob("*.yaml"))] if where else []


def played_by_model(persona: Persona) -> bool:
    """Whether a persona is offered to talk with; one with the tag ``user`` is meant for a person to play."""
    return FOR_A_USER not in persona.tags

"""What callers name, refused by its field where it cannot be: a turn, a number, the options of a turn."""

from __future__ import annotations

from roleplay.domain.settings import TurnOptions
from roleplay.domain.values import text_problem
from roleplay.errors import InvalidInputError

NUMBER_LIMIT = 2**31 - 1


def turn_key(turn_id: object) -> str:
    """Give the id of a turn. Raises ``InvalidInputError`` for what is no id."""
    if not isinstance(turn_id, str):
        raise InvalidInputError("turn_id", f"is a {type(turn_id).__name__}", allowed="the id of a turn, a str")
    if problem := text_problem(turn_id):
        raise InvalidInputError("turn_id", problem, allowed="the id of a turn")
    return turn_id


def number(field: str, value: object, low: int, high: int = NUMBER_LIMIT) -> int:
    """Give a whole number between two others. Raises ``InvalidInputError``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        told = repr(value)[:50] if isinstance(value, int | float | str) else f"a {type(value).__name__}"
        raise InvalidInputError(field, f"is {told}", allowed=f"a whole number, {low} to {high}")
    return value


def options_of(options: object) -> TurnOptions:
    """Give the options of a turn. Raises ``InvalidInputError`` for what is none."""
    if not isinstance(options, TurnOptions):
        raise InvalidInputError("options", f"is a {type(options).__name__}", allowed="a TurnOptions")
    return options

"""Recipes as they are stored: the front once per session under its digest, the rest as one short JSON list."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from roleplay.domain.context import Insertion, Piece, Recipe, Span, digest
from roleplay.store.access.decoding import as_numbers, reads

#: The recipe version that names the messages that were hidden; later ones have runs.
_NAMES_HIDDEN = 1


@lru_cache(maxsize=256)
def front_of(front: tuple[Piece, ...]) -> tuple[str, str]:
    """Write the front of a recipe, which successive turns share, as the text it is stored as, and give its digest."""
    text = _compact(front)
    return text, digest(text)


def rest_text(recipe: Recipe) -> str:
    """Write what is left of a recipe: history, insertions, tail."""
    span = recipe.history
    history: list[Any] = [span.first, span.last, span.seat, span.runs]
    if span.named or span.absences:
        history += [span.named, span.absences]
    return _compact([history, recipe.insertions, recipe.tail])


@reads("the recipe of a request")
def read(front: str, rest: str, version: int) -> Recipe:
    """Read a recipe back from its two texts, as its version writes them."""
    (first, last, seat, skipped, *more), insertions, tail = json.loads(rest)
    named, absences = more or (False, ())
    as_numbers([*skipped, *(number for one in absences for number in one)])
    hidden, runs = (skipped, []) if version == _NAMES_HIDDEN else ([], skipped)
    if len(runs) % 2:
        raise ValueError("a run without its end")
    return Recipe(
        front=tuple(Piece(*one) for one in json.loads(front)),
        history=Span(
            first, last, seat, tuple(hidden), tuple(runs), tuple((begin, end) for begin, end in absences), bool(named)
        ),
        insertions=tuple(Insertion(depth, Piece(*piece)) for depth, piece in insertions),
        tail=tuple(Piece(*one) for one in tail),
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

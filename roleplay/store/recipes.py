"""Recipes as they are stored: the front once per session under its digest, the rest as one short JSON list."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from roleplay.domain.context import Insertion, Piece, Recipe, Span, digest
from roleplay.store.stored import reads


@lru_cache(maxsize=256)
def front_of(front: tuple[Piece, ...]) -> tuple[str, str]:
    """Write the front of a recipe, which successive turns share, as the text it is stored as, and give its digest."""
    text = _compact(front)
    return text, digest(text)


def rest_text(recipe: Recipe) -> str:
    """Write what is left of a recipe: history, insertions, tail."""
    return _compact([recipe.history, recipe.insertions, recipe.tail])


@reads("the recipe of a request")
def read(front: str, rest: str) -> Recipe:
    """Read a recipe back from its two texts."""
    history, insertions, tail = json.loads(rest)
    return Recipe(
        front=tuple(Piece(*one) for one in json.loads(front)),
        history=Span(history[0], history[1], history[2], tuple(history[3])),
        insertions=tuple(Insertion(depth, Piece(*piece)) for depth, piece in insertions),
        tail=tuple(Piece(*one) for one in tail),
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

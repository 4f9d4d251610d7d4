"""What a turn draws by chance: from a seed, so that it can be drawn again, and kept with the turn, so that it need not.

A draw depends on the session's seed, on what is drawn (its kind and its subject) and on the message that is answered;
never on the turn, whose number another variant does not share.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

EXAMPLES = "examples"
SPEAKERS = "speakers"


class Draws:
    """What is drawn in one turn, by kind and subject. ``known`` was drawn before, such as by the variant that the turn
    stands beside, and is not drawn again."""

    def __init__(self, seed: str, known: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._seed = seed
        self._drawn = {kind: dict(subjects) for kind, subjects in (known or {}).items()}

    def order(self, kind: str, subject: str, count: int, *, answered: int) -> list[int]:
        """Draw an order of ``count`` things for the answer to the message ``answered``. A known order of another number
        of things is drawn anew."""
        drawn = self._drawn.setdefault(kind, {})
        order: list[int] = drawn.get(subject, [])
        if sorted(order) != list(range(count)):
            order = sorted(range(count), key=lambda place: _number(self._seed, kind, subject, answered, place))
            drawn[subject] = order
        return list(order)

    def keep(self, kind: str, subject: str, order: Sequence[int]) -> None:
        """Keep an order that was chosen otherwise."""
        self._drawn.setdefault(kind, {})[subject] = list(order)

    def kept(self, kind: str, subject: str) -> list[int] | None:
        """Give an order that was drawn or kept before."""
        known = self._drawn.get(kind, {}).get(subject)
        return None if known is None else list(known)

    def number(self, kind: str, subject: str, *, answered: int) -> float:
        """Give a number from [0, 1) for the answer to the message ``answered``. It is not kept: what follows from it
        is."""
        drawn = _number(self._seed, kind, subject, answered, 0)
        return (int.from_bytes(drawn) >> 11) / 2**53

    def written(self) -> str | None:
        """Write what was drawn as JSON; ``None`` where nothing was."""
        return json.dumps(self._drawn, separators=(",", ":")) if self._drawn else None


def read_draws(stored: str | None) -> dict[str, dict[str, list[int]]]:
    """Read draws back. Raises ``ValueError`` for what was never written."""
    values = {} if stored is None else json.loads(stored)
    orders = [order for subjects in _dict(values).values() for order in _dict(subjects).values()]
    if not all(isinstance(order, list) and {type(place) for place in order} <= {int} for order in orders):
        raise ValueError("draws")
    found: dict[str, dict[str, list[int]]] = values
    return found


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("draws")  # noqa: TRY004 - of a text, as json raises it
    return value


def _number(seed: str, kind: str, subject: str, answered: int, place: int) -> bytes:
    # Dialogues were drawn before draws had kinds and subjects; their order stays what it was.
    names = () if kind == EXAMPLES else (kind, subject)
    parts = map(str, (seed, answered, place, *names))
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()

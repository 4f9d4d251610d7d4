"""The strategies that say who of several seats of the model's speaks next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roleplay.domain.cast import SpeakingMoment, Strategy


def in_order(moment: SpeakingMoment) -> Sequence[int]:
    """Every seat once, in the order of seats."""
    return [one.seat for one in moment.seats]


STRATEGIES: Mapping[str, Strategy] = {"natural": in_order, "list": in_order}

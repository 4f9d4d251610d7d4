"""The two limits of a request, its reply cap and its budget, and where each of them comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from roleplay.domain.endpoint import PROFILES, Endpoint
from roleplay.domain.settings import Sampling
from roleplay.turns.layers import InForce
from roleplay.wire.request import reply_cap

MARGIN_SHARE = 0.05


class Budget(NamedTuple):
    """What bounds a prompt, and the layer that says so.

    ``room``: how many tokens more the windows could hold, where only the default bounds it; else 0.
    """

    tokens: int
    layer: str
    room: int = 0


def budget_of(force: InForce, endpoints: Sequence[Endpoint]) -> Budget:
    """Give the budget of a request that each of ``endpoints`` may be asked: what a layer of settings says, else the
    smallest of what their windows can hold and of their own budgets."""
    if force.budget_tokens is not None:
        return Budget(force.budget_tokens, force.origins["budget_tokens"])
    held = min(_held(one, force.sampling) for one in endpoints)
    bounds = [
        (one.budget_tokens, "endpoint" if "budget_tokens" in one.model_fields_set else "default")
        for one in endpoints
        if one.budget_tokens is not None
    ]
    bound, layer = min(bounds, default=(held, "profile"))
    if held <= bound:
        return Budget(held, "profile")
    return Budget(bound, layer, held - bound if layer == "default" else 0)


def cap_in_force(force: InForce, endpoint: Endpoint) -> tuple[int, str]:
    """Give the reply cap and its layer; where no settings say one, that of what bounds it."""
    cap = reply_cap(endpoint, force.sampling)
    if force.sampling.max_completion_tokens is not None:
        return cap, force.origins["max_completion_tokens"]
    bounds = {
        "reply_tokens": endpoint.reply_tokens,
        "max_output_tokens": endpoint.max_output_tokens,
        "window_tokens": endpoint.window_tokens // 4,
    }
    if any(bounds[field] == cap for field in bounds.keys() & endpoint.model_fields_set):
        return cap, "endpoint"
    return cap, "profile" if endpoint.model in PROFILES else "default"


def window_room(endpoint: Endpoint, sampling: Sampling) -> int:
    """Give the tokens that a prompt may have in the window: what the reply leaves of it."""
    return endpoint.window_tokens - _reserved(endpoint, sampling)


def fitting(sampling: Sampling, endpoint: Endpoint) -> Sampling:
    """Give the sampling to ask another endpoint with, whose reply cap may have to be lower than the one that was said
    for the first."""
    if sampling.max_completion_tokens is None:
        return sampling
    return sampling.model_copy(update={"max_completion_tokens": _reserved(endpoint, sampling)})


def _reserved(endpoint: Endpoint, sampling: Sampling) -> int:
    """What is kept of the window for the reply: its cap, and at most half, so that there is always room to ask."""
    return min(reply_cap(endpoint, sampling), endpoint.max_output_tokens, endpoint.window_tokens // 2)


def _held(endpoint: Endpoint, sampling: Sampling) -> int:
    """What the window can hold, less a margin for what an estimate may be wrong by."""
    return max(window_room(endpoint, sampling) - int(endpoint.window_tokens * MARGIN_SHARE), 1)

"""What a caller may set, for a session or for one turn."""

from __future__ import annotations

from pydantic import Field

from roleplay.domain.values import Input, Key, Metadata


class Sampling(Input):
    """How the model draws its words; ``None`` asks the next layer: turn, session, engine, the service's default.

    ``temperature`` and ``top_p`` lie in (0, 1]; ``max_completion_tokens`` is at least 1 and at most the model's
    ``max_output_tokens``.
    """

    temperature: float | None = Field(None, gt=0, le=1, strict=True, description="a number in (0, 1]")
    top_p: float | None = Field(None, gt=0, le=1, strict=True, description="a number in (0, 1]")
    max_completion_tokens: int | None = Field(None, ge=1, strict=True, description="a whole number from 1")


class SessionSettings(Input):
    """What a session's turns have in common. ``budget_tokens`` bounds the prompt of one request; ``None`` means the
    model's window less the reply cap and a margin.
    """

    sampling: Sampling = Sampling()
    budget_tokens: int | None = Field(None, ge=1, strict=True, description="a whole number from 1")


class TurnOptions(Input):
    """What holds for one turn. ``idempotency_key``: the same key and arguments give the same turn, once.
    ``metadata``: the caller's own, small, never sent to the model.
    """

    idempotency_key: Key | None = None
    sampling: Sampling = Sampling()
    metadata: Metadata = {}


DEFAULT_OPTIONS = TurnOptions()

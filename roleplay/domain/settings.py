"""What a caller may set, for a session or for one turn."""

from __future__ import annotations

from typing import Literal

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


OnDisconnect = Literal["interrupt", "finish"]


class TurnOptions(Input):
    """What holds for one turn. ``idempotency_key``: the same key and arguments give the same turn, once.
    ``metadata``: the caller's own, small, never sent to the model.

    ``on_conflict`` says what happens while another turn runs on the session: ``reject`` raises ``ConflictError``,
    ``wait`` waits for at most ``wait_s`` seconds, ``fork`` speaks beside it, on a branch that the session does not
    stand on. It is decided before the model is called.

    ``on_disconnect`` says what becomes of a stream whose reader leaves early: ``interrupt`` ends the reply there,
    ``finish`` lets it go on to its end without him.
    """

    idempotency_key: Key | None = None
    on_conflict: Literal["reject", "wait", "fork"] = "reject"
    wait_s: float = Field(30.0, ge=0, le=3600, description="seconds, at most 3600")
    sampling: Sampling = Sampling()
    metadata: Metadata = {}
    on_disconnect: OnDisconnect = "interrupt"


DEFAULT_SETTINGS = SessionSettings()
DEFAULT_OPTIONS = TurnOptions()

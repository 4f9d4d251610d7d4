"""The models the simulator serves: their paths, limits, documented fields and the clothes of their replies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OPENAI_PATH = "/v1/chat/completions"
NATIVE_PATH = "/v1/text/chatcompletion_v2"
MODELS_PATH = "/v1/models"

ROLE_PLAY_FIELDS = frozenset({"model", "messages", "stream", "max_completion_tokens", "temperature", "top_p"})
"""The fields of the role-play page."""

OPENAI_FIELDS = ROLE_PLAY_FIELDS | {
    "stream_options",
    "max_tokens",
    "tools",
    "reasoning_split",
    "thinking",
    "service_tier",
    "n",
}
"""What the OpenAI-compatible page documents for the M2 family."""


@dataclass(frozen=True)
class Model:
    """One model: where it is served, what it accepts, how its replies look.

    `context_tokens` and `max_output_tokens` are in the simulator's own tokens. `fields` are the top-level fields of a
    request that are not refused. `thinks` says that the model reasons before it speaks (seen only when the simulator
    was told to show it), `bare` that its messages carry role and content only, `caches` that repeated prefixes are
    reported as cached tokens, `preamble_tokens` what every prompt costs before its first message, and
    `default_system_tokens` what it costs on top when the request has no system message.
    """

    id: str
    path: str = OPENAI_PATH
    context_tokens: int = 204_800
    max_output_tokens: int = 2_048
    fields: frozenset[str] = OPENAI_FIELDS
    thinks: bool = True
    bare: bool = False
    caches: bool = True
    preamble_tokens: int = 16
    default_system_tokens: int = 25

    @property
    def native(self) -> bool:
        """Whether it is served on the native path, whose errors come as `base_resp` inside HTTP 200."""
        return self.path == NATIVE_PATH


MODELS: tuple[Model, ...] = (
    Model("MiniMax-M2.7"),
    Model("MiniMax-M2.7-highspeed"),
    Model("MiniMax-M2.5", bare=True),
    Model("MiniMax-M2.1", bare=True),
    Model(
        "M2-her",
        path=NATIVE_PATH,
        context_tokens=65_536,
        fields=ROLE_PLAY_FIELDS,
        thinks=False,
        caches=False,
        preamble_tokens=180,
        default_system_tokens=0,
    ),
)
"""What a simulator serves unless told otherwise."""


def by_id(models: Iterable[Model | str]) -> dict[str, Model]:
    """The models under their ids; a plain string stands for a model of that id with every default."""
    found = [Model(model) if isinstance(model, str) else model for model in models]
    table = {model.id: model for model in found}
    if len(table) != len(found):
        raise ValueError("two models share an id")
    return table

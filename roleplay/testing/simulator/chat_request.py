"""A request that kept the rules, read."""

from __future__ import annotations

from dataclasses import dataclass

from roleplay.testing.simulator.models import Model

HISTORY_ROLES = frozenset({"user", "assistant"})
ROLE_PLAY_ROLES = frozenset({"user_system", "group", "sample_message_user", "sample_message_ai"})
ROLES = HISTORY_ROLES | ROLE_PLAY_ROLES | {"system"}


@dataclass(frozen=True, slots=True)
class Message:
    """One message as received; `name` is empty when none was sent."""

    role: str
    content: str
    name: str = ""


@dataclass(frozen=True)
class ChatRequest:
    """What an accepted request asks for.

    `max_tokens` is the cap on the completion, reasoning included. `id` (32 hexadecimal digits) and `created` (Unix
    seconds) are those of the answer.
    """

    model: Model
    messages: tuple[Message, ...]
    max_tokens: int
    stream: bool = False
    include_usage: bool = False
    reasoning_split: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    id: str = ""
    created: int = 0

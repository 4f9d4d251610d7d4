"""The prefix cache: how much of a prompt the server has seen before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from roleplay.testing.simulator.chat_request import Message

MINIMUM_TOKENS = 400
"""Shorter shared beginnings are not reported."""

BLOCK_TOKENS = 64
"""Cached tokens come in whole blocks of this size."""


class PrefixCache:
    """Remembers the beginnings of former prompts, message by message, the least recently seen forgotten first.

    `capacity` is the number of remembered prefixes. It is not safe for threads: the server's own thread owns it.
    """

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[int, None] = OrderedDict()

    def cached_tokens(self, model: str, messages: Sequence[Message], sums: Sequence[int]) -> int:
        """The tokens of this prompt's longest remembered beginning, in whole blocks; then remembers the prompt.

        `sums` are the tokens of the prompt up to and including each message.
        """
        seen, prefix, known, shared = self._seen, hash(model), True, 0
        for message, total in zip(messages, sums, strict=True):
            prefix = hash((prefix, message.role, message.name, message.content))
            if prefix in seen:
                seen.move_to_end(prefix)
                shared = total if known else shared
            else:
                known = False
                seen[prefix] = None
        while len(seen) > self._capacity:
            seen.popitem(last=False)
        return shared // BLOCK_TOKENS * BLOCK_TOKENS if shared >= MINIMUM_TOKENS else 0

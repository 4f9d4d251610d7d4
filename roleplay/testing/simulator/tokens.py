"""The simulator's own tokens.

They are words, punctuation marks and pieces of Chinese, Japanese or Korean text, with an overhead for each message. The
counting differs on purpose from a quarter of the characters and from every vocabulary a client might use, so that a
client's calibration has something to learn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from roleplay.testing.simulator.chat_request import Message
from roleplay.testing.simulator.models import Model

MESSAGE_TOKENS = 5
"""What a message costs beside its name and content."""

_PIECE = re.compile(
    "(?P<word>[A-Za-z\u00c0-\u024f]+)"
    "|(?P<east>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+)"
    "|(?P<script>[\u0370-\u1fff]+)"
    r"|(?P<number>\d{1,3})"
    r"|(?P<line>\n+)"
    r"|(?P<space>[ \t]+)"
    "|(?P<other>.)",
    re.DOTALL,
)
_THOUGHT = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def _cost(kind: str | None, piece: str) -> int:
    size = len(piece)
    if kind == "word":
        return 1 + (size - 1) // 7
    if kind == "east":
        return (size * 4 + 6) // 7
    if kind == "script":
        return (size + 1) // 2
    if kind == "space":
        return size // 4
    if kind == "other":
        return 2 if ord(piece) > 0xFFFF else 1
    return 1


def pieces(text: str) -> Iterator[tuple[str, int]]:
    """The text in pieces, each with its tokens; joined they are the text."""
    for match in _PIECE.finditer(text):
        piece = match.group()
        yield piece, _cost(match.lastgroup, piece)


@lru_cache(maxsize=16_384)
def count(text: str) -> int:
    """The tokens of a text."""
    return sum(cost for _, cost in pieces(text))


def shorten(text: str, limit_tokens: int) -> str:
    """The longest beginning of a text that costs at most `limit_tokens`, broken inside a piece if need be."""
    if count(text) <= limit_tokens:
        return text
    kept: list[str] = []
    left = max(limit_tokens, 0)
    for piece, cost in pieces(text):
        if cost > left:
            kept.append(piece[: len(piece) * left // cost])
            break
        kept.append(piece)
        left -= cost
    return "".join(kept)


def message_tokens(message: Message) -> int:
    """What one message of a prompt costs; thoughts left in an assistant's text are not billed."""
    content = message.content
    if message.role == "assistant" and "<think>" in content:
        content = _THOUGHT.sub("", content)
    return MESSAGE_TOKENS + count(content) + (count(message.name) if message.name else 0)


def prompt_tokens(model: Model, messages: Sequence[Message]) -> list[int]:
    """What the prompt costs up to and including each message, the model's own preamble in the first."""
    total = model.preamble_tokens
    if not any(message.role == "system" for message in messages):
        total += model.default_system_tokens
    sums: list[int] = []
    for message in messages:
        total += message_tokens(message)
        sums.append(total)
    return sums

"""What a reply says and how it is dressed, as values that faults may exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from roleplay.testing.simulator import tokens
from roleplay.testing.simulator.chat_request import ChatRequest
from roleplay.testing.simulator.refusals import Refusal


@dataclass(frozen=True)
class Reply:
    """What is said to a request: visible text, the reasoning before it, why it ended.

    `exact` tells that the text was queued by the caller, so that no fault may add anything of its own to it.
    """

    request: ChatRequest
    text: str
    reasoning: str = ""
    finish: str = "stop"
    exact: bool = False


class ReasoningIn(Enum):
    """Where a stream or a message carries the reasoning."""

    CONTENT = "inline, between <think> tags"
    FIELD = "reasoning_content, each delta with its own piece"
    SNAPSHOTS = "reasoning_content, each delta with everything so far"


class UsageIn(Enum):
    """What the usage fields of a reply hold."""

    ASKED = "a usage chunk at the end of a stream that asked for it"
    NULL = "null throughout"
    ZEROS = "zeros in every chunk, and a usage chunk if asked for"


@dataclass(frozen=True)
class Shape:
    """How a reply is dressed.

    `chunk_characters` is the size of a delta and `least_chunks` the number of deltas there must be (texts permitting);
    `split` cuts the text in some other way. `error` ends a stream with an error event after `error_after` deltas.
    """

    speaker: str
    bare: bool = False
    native: bool = False
    chunk_characters: int = 40
    least_chunks: int = 1
    split: Callable[[str], list[str]] | None = None
    role: str = "assistant"
    empty_reasoning_field: bool = False
    text_in_reasoning: bool = False
    reasoning: ReasoningIn = ReasoningIn.CONTENT
    usage: UsageIn = UsageIn.ASKED
    cached_tokens: int | None = None
    service_tier: str = ""
    done: bool = True
    full_message: bool = False
    sse: bool = True
    charset: bool = True
    error: Refusal | None = None
    error_after: int = 0

    @classmethod
    def of(cls, request: ChatRequest, speaker: str, chunk_characters: int) -> Shape:
        """The dress of a well-behaved server's reply to this request."""
        return cls(
            speaker=speaker,
            bare=request.model.bare,
            native=request.model.native,
            chunk_characters=chunk_characters,
            reasoning=ReasoningIn.FIELD if request.reasoning_split else ReasoningIn.CONTENT,
            done=not request.model.native,
            full_message=request.model.native,
        )

    def pieces(self, text: str) -> list[str]:
        """The text in deltas."""
        if self.split is not None:
            return self.split(text) or [""]
        size = max(1, min(self.chunk_characters, len(text) // max(self.least_chunks, 1)))
        return [text[start : start + size] for start in range(0, len(text), size)] or [""]


@dataclass(frozen=True)
class Usage:
    """The tokens of one call; `reasoning` is a part of `completion`, `cached` a part of `prompt`."""

    prompt: int
    completion: int
    reasoning: int = 0
    cached: int = 0


def within_budget(reply: Reply) -> tuple[Reply, Usage]:
    """The reply cut to the tokens it may cost, reasoning first, and what it costs."""
    request = reply.request
    reasoning = tokens.shorten(reply.reasoning, request.max_tokens)
    thought = tokens.count(reasoning)
    text = tokens.shorten(reply.text, request.max_tokens - thought)
    cut = len(reasoning) + len(text) < len(reply.reasoning) + len(reply.text)
    fitting = replace(reply, text=text, reasoning=reasoning, finish="length" if cut else reply.finish)
    return fitting, Usage(request.prompt_tokens, thought + tokens.count(text), thought, request.cached_tokens)

"""Faults in what a reply says and in the dress of its JSON or its events."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from roleplay.testing.simulator.faults.base import Fault
from roleplay.testing.simulator.shape import ReasoningIn, Reply, Shape, UsageIn
from roleplay.testing.simulator.voice import think

_TAG = re.compile(r"(</?think>)")
_EMOJI = "👩‍🚀😀"


def _thinking(reply: Reply) -> Reply:
    return reply if reply.reasoning else replace(reply, reasoning=think(reply.request.messages))


def _with_emoji(reply: Reply) -> Reply:
    if reply.exact or any(ord(character) > 0xFFFF for character in reply.text):
        return reply
    return replace(reply, text=f"{_EMOJI} {reply.text}")


@dataclass(frozen=True)
class NoDone(Fault):
    """The stream ends properly, but without `data: [DONE]`."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, done=False)


@dataclass(frozen=True)
class Done(Fault):
    """The stream ends with `data: [DONE]` on the native path too."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, done=True)


@dataclass(frozen=True)
class FinalFullMessage(Fault):
    """The stream's last event is a `chat.completion` that repeats the whole message and holds the usage."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, full_message=True)


@dataclass(frozen=True)
class NoFinalMessage(Fault):
    """The native stream ends after its last delta, without the full message (and so without usage)."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, full_message=False)


@dataclass(frozen=True)
class UsageNull(Fault):
    """`usage` is null throughout, even where it was asked for."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, usage=UsageIn.NULL)


@dataclass(frozen=True)
class EmptyRole(Fault):
    """Every delta has `role: ""`."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, role="")


@dataclass(frozen=True)
class UsageZeroEachChunk(Fault):
    """Every delta has `role: ""`, `reasoning_content: ""` and a usage of zeros."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, role="", empty_reasoning_field=True, usage=UsageIn.ZEROS)


@dataclass(frozen=True)
class ThinkSplit(Fault):
    """The reply opens with reasoning between `<think>` tags that are cut across deltas.

    With `at` None each character of a tag has a delta of its own; else each tag is cut once, after `at` characters.
    """

    at: int | None = None

    def reply(self, reply: Reply) -> Reply:
        return _thinking(reply)

    def shape(self, shape: Shape) -> Shape:
        plain = replace(shape, split=None)

        def split(text: str) -> list[str]:
            found: list[str] = []
            for part in filter(None, _TAG.split(text)):
                if not _TAG.fullmatch(part):
                    found += plain.pieces(part)
                elif self.at is None:
                    found += part
                else:
                    found += filter(None, (part[: self.at], part[self.at :]))
            return found

        return replace(shape, reasoning=ReasoningIn.CONTENT, split=split)


@dataclass(frozen=True)
class ReasoningContent(Fault):
    """Reasoning comes in `reasoning_content`, in pieces or as cumulative snapshots; the first delta lacks `content`."""

    cumulative: bool = False

    def reply(self, reply: Reply) -> Reply:
        return _thinking(reply)

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, reasoning=ReasoningIn.SNAPSHOTS if self.cumulative else ReasoningIn.FIELD)


@dataclass(frozen=True)
class ContentInReasoning(Fault):
    """`content` is empty and the text stands in `reasoning_content`."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, text_in_reasoning=True)


@dataclass(frozen=True)
class LeftoverThink(Fault):
    """A bare `</think>` leads the content."""

    def reply(self, reply: Reply) -> Reply:
        return replace(reply, text=f"</think>\n\n{reply.text}")


@dataclass(frozen=True)
class EmptyWithLength(Fault):
    """HTTP 200, no visible text, `finish_reason: "length"`: reasoning ate the budget."""

    @property
    def speaks(self) -> bool:
        return False

    def reply(self, reply: Reply) -> Reply:
        empty = replace(reply, text="", finish="length")
        return _thinking(empty) if reply.request.model.thinks else empty


@dataclass(frozen=True)
class NulInText(Fault):
    """A NUL character, escaped as JSON asks, stands in the middle of the text."""

    def reply(self, reply: Reply) -> Reply:
        middle = len(reply.text) // 2
        return replace(reply, text=f"{reply.text[:middle]}\0{reply.text[middle:]}")


@dataclass(frozen=True)
class LoneSurrogate(Fault):
    """The first half of a surrogate pair, as an escape, stands in mid-text; the other half never comes."""

    def reply(self, reply: Reply) -> Reply:
        middle = len(reply.text) // 2
        return replace(reply, text=f"{reply.text[:middle]}\ud83d{reply.text[middle:]}")


@dataclass(frozen=True)
class SurrogatesSplit(Fault):
    r"""Characters beyond U+FFFF come as two escapes in two deltas: `\ud83d`, then `\ude00`."""

    def reply(self, reply: Reply) -> Reply:
        return _with_emoji(reply)

    def shape(self, shape: Shape) -> Shape:
        plain = replace(shape, split=None)

        def split(text: str) -> list[str]:
            found = [""]
            for piece in plain.pieces(text):
                for character in piece:
                    if ord(character) > 0xFFFF:
                        offset = ord(character) - 0x10000
                        found[-1] += chr(0xD800 + (offset >> 10))
                        found.append(chr(0xDC00 + (offset & 0x3FF)))
                    else:
                        found[-1] += character
                found.append("")
            return [piece for piece in found if piece]

        return replace(shape, split=split)


@dataclass(frozen=True)
class EmojiSplit(Fault):
    """Emoji made of several code points are cut across deltas, each code point in its own."""

    def reply(self, reply: Reply) -> Reply:
        return _with_emoji(reply)

    def shape(self, shape: Shape) -> Shape:
        plain = replace(shape, split=None)

        def split(text: str) -> list[str]:
            found: list[str] = []
            for part in filter(None, re.split("([\U00010000-\U0010ffff\u200d\ufe0f])", text)):
                found += plain.pieces(part)
            return found

        return replace(shape, split=split)


@dataclass(frozen=True)
class NoNameNoAudio(Fault):
    """The lean variant: messages of role and content only, `base_resp.status_msg` "success"."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, bare=True)


@dataclass(frozen=True)
class ServiceTier(Fault):
    """Answers name a `service_tier`."""

    tier: str = "standard"

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, service_tier=self.tier)


@dataclass(frozen=True)
class CacheUsage(Fault):
    """The usage reports so many cached prompt tokens, whatever was cached."""

    cached_tokens: int = 443

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, cached_tokens=self.cached_tokens)

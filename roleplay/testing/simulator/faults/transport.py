# ruff: noqa: ARG002 - a fault is given all that it might need, and uses what it does need
"""Faults of the road: cuts, resets, delays, broken bytes, endless and enormous answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from roleplay.testing.simulator.chat_request import ChatRequest
from roleplay.testing.simulator.faults.base import Fault
from roleplay.testing.simulator.shape import Reply, Shape
from roleplay.testing.simulator.steps import Cut, Data, Head, Pause, Reset, Steps

_BROKEN_MARK = "\ue000"
_HUGE_MARK = "\ue001"
_SETTLE_SECONDS = 0.02
"""Time for sent bytes to be read before a reset destroys them."""


def _in_the_middle(reply: Reply, mark: str) -> Reply:
    middle = len(reply.text) // 2
    return replace(reply, text=reply.text[:middle] + mark + reply.text[middle:])


def _stop_after(steps: Steps, chunks: int, request: ChatRequest) -> Steps:
    """The steps up to the first body part that follows `chunks` parts with text; of a plain body, about half."""
    for step in steps:
        if isinstance(step, Data):
            if chunks == 0:
                return
            if not request.stream:
                yield Data(step.octets[: len(step.octets) // 2])
                return
            chunks -= step.text
        yield step


@dataclass(frozen=True)
class CutStream(Fault):
    """The connection closes after so many deltas (0: after the headers); a plain body is cut in its middle.

    With `clean` the HTTP message is ended properly, as by a proxy, but the stream lacks its rest.
    """

    after_chunks: int = 0
    clean: bool = False

    @property
    def speaks(self) -> bool:
        return self.after_chunks > 0

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, least_chunks=max(shape.least_chunks, self.after_chunks + 1))

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        yield from _stop_after(steps, self.after_chunks, request)
        if not (self.clean and request.stream):
            yield Cut()


class ResetAt(Enum):
    """Where a connection is reset."""

    BEFORE_HEADERS = "before headers"
    MID_BODY = "mid body"


@dataclass(frozen=True)
class ConnectionReset(Fault):
    """A TCP reset, before the headers or in mid-body after so many deltas."""

    where: ResetAt = ResetAt.BEFORE_HEADERS
    after_chunks: int = 1

    @property
    def speaks(self) -> bool:
        return self.where is ResetAt.MID_BODY and self.after_chunks > 0

    def shape(self, shape: Shape) -> Shape:
        return CutStream(self.after_chunks).shape(shape)

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        if self.where is ResetAt.MID_BODY:
            yield from _stop_after(steps, self.after_chunks, request)
            yield Pause(_SETTLE_SECONDS)
        yield Reset()


@dataclass(frozen=True)
class SlowFirstByte(Fault):
    """Nothing comes for so many seconds; with `after_headers` the headers come at once and the body waits."""

    seconds: float
    after_headers: bool = False

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        waited = False
        for step in steps:
            if not waited and (isinstance(step, Data) or not self.after_headers):
                waited = True
                yield Pause(self.seconds)
            yield step


@dataclass(frozen=True)
class SlowDrip(Fault):
    """So many seconds before each event; a plain body comes in eight parts. `least_chunks` deltas at least."""

    seconds_per_chunk: float
    least_chunks: int = 4

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, least_chunks=max(shape.least_chunks, self.least_chunks))

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        for step in steps:
            if not isinstance(step, Data):
                yield step
                continue
            size = len(step.octets) if request.stream else len(step.octets) // 8 + 1
            for start in range(0, len(step.octets), size):
                yield Pause(self.seconds_per_chunk)
                yield Data(step.octets[start : start + size], step.text)


@dataclass(frozen=True)
class SplitUtf8(Fault):
    """Each byte of a multi-byte character travels in an HTTP chunk and a write of its own."""

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        for step in steps:
            if not isinstance(step, Data):
                yield step
                continue
            text = step.text
            for piece in re.findall(rb"[\x00-\x7f]+|[\x80-\xff]", step.octets):
                yield Data(piece, text)
                text = False


@dataclass(frozen=True)
class InvalidUtf8(Fault):
    """The first two bytes of a three-byte character stand in the middle of the text, without the third."""

    def reply(self, reply: Reply) -> Reply:
        return _in_the_middle(reply, _BROKEN_MARK)

    def octets(self, data: bytes) -> bytes:
        return data.replace(_BROKEN_MARK.encode(), b"\xe4\xbd")


@dataclass(frozen=True)
class HugeLine(Fault):
    """One delta, or the body, is a line of more than so many bytes; with `comment`, a comment of the stream is."""

    size_bytes: int = 5_000_000
    comment: bool = False

    def reply(self, reply: Reply) -> Reply:
        return reply if self.comment else _in_the_middle(reply, _HUGE_MARK)

    def octets(self, data: bytes) -> bytes:
        mark = _HUGE_MARK.encode()
        return data.replace(mark, b"a" * self.size_bytes) if mark in data else data

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        for step in steps:
            yield step
            if self.comment and request.stream and isinstance(step, Head):
                yield Data(b":" + b"a" * self.size_bytes + b"\n\n")


@dataclass(frozen=True)
class EndlessStream(Fault):
    """The first delta is repeated until the client leaves; a plain body goes on with blanks for ever."""

    seconds_per_chunk: float = 0.002

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, least_chunks=max(shape.least_chunks, 2))

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        for step in steps:
            if isinstance(step, Head):
                kept = tuple(header for header in step.headers if header[0] != "Content-Length")
                yield Head(step.status, kept)
            elif isinstance(step, Data) and step.text:
                part = step if request.stream else Data(step.octets[:-1])
                while True:
                    yield part
                    yield Pause(self.seconds_per_chunk)
                    part = part if request.stream else Data(b" " * 64)
            else:
                yield step


@dataclass(frozen=True)
class NoContentTypeCharset(Fault):
    """`Content-Type` names no charset, so that a client must know the text is UTF-8."""

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, charset=False)

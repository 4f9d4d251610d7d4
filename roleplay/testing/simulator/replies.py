"""Successful answers: the JSON of a completion, the events of a stream, and the steps that carry them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from roleplay.testing.simulator.chat_request import ChatRequest
from roleplay.testing.simulator.refusals import Refusal
from roleplay.testing.simulator.shape import ReasoningIn, Reply, Shape, Usage, UsageIn
from roleplay.testing.simulator.steps import Data, Head, Step

_FLAGS = {
    "input_sensitive": False,
    "output_sensitive": False,
    "input_sensitive_type": 0,
    "output_sensitive_type": 0,
    "output_sensitive_int": 0,
}
_ZEROS = {"total_tokens": 0, "total_characters": 0}

Octets = Callable[[bytes], bytes]
"""What becomes of the bytes of one event or body before they are sent."""


@dataclass(frozen=True)
class Spoken:
    """One reply, cut to its budget, with everything that is needed to write it down."""

    reply: Reply
    usage: Usage
    shape: Shape

    @property
    def request(self) -> ChatRequest:
        """The request that is answered."""
        return self.reply.request

    def steps(self, octets: Octets) -> Iterator[Step]:
        """The answer: a stream of events where one was asked for, else one JSON body."""
        if self.request.stream and self.shape.sse:
            yield Head(200, headers(self.request.id, "text/event-stream", charset=self.shape.charset))
            for event, text in self._events():
                yield Data(octets(b"data: " + (b"[DONE]" if event is None else dump(event)) + b"\n\n"), text)
        else:
            yield from json_steps(200, self.completion(), self.request.id, octets, charset=self.shape.charset)

    def completion(self) -> dict[str, Any]:
        """The JSON body of an answer that is not streamed."""
        body = self._frame("chat.completion")
        body["choices"] = [{"finish_reason": self.reply.finish, "index": 0, "message": self._message()}]
        body["usage"] = {UsageIn.NULL: None, UsageIn.ZEROS: dict(_ZEROS)}.get(self.shape.usage, self._usage())
        body.update(_FLAGS)
        body["base_resp"] = {"status_code": 0, "status_msg": "success" if self.shape.bare else ""}
        return body

    def _message(self) -> dict[str, Any]:
        reply, shape = self.reply, self.shape
        if shape.text_in_reasoning:
            return {"content": "", **self._author(), "reasoning_content": reply.text}
        if not reply.reasoning:
            return {"content": reply.text, **self._author()}
        if shape.reasoning is ReasoningIn.CONTENT:
            return {"content": self._inline(), **self._author()}
        return {"content": reply.text, **self._author(), **_reasoning(reply.reasoning)}

    def _author(self, role: str = "assistant") -> dict[str, Any]:
        author: dict[str, Any] = {"role": role}
        if not self.shape.bare:
            author |= {"name": self.shape.speaker, "audio_content": ""}
        if self.shape.empty_reasoning_field:
            author["reasoning_content"] = ""
        return author

    def _inline(self) -> str:
        reasoning, text = self.reply.reasoning, self.reply.text
        if not reasoning:
            return text
        inner = reasoning if self.shape.bare else f"\n{reasoning}\n"
        return f"<think>{inner}</think>\n\n{text}"

    def _frame(self, kind: str) -> dict[str, Any]:
        frame = {"id": self.request.id, "choices": [], "created": self.request.created, "model": self.request.model.id}
        frame["object"] = kind
        if self.shape.service_tier:
            frame["service_tier"] = self.shape.service_tier
        return frame

    def _usage(self) -> dict[str, Any]:
        usage = self.usage
        cached = usage.cached if self.shape.cached_tokens is None else self.shape.cached_tokens
        counted: dict[str, Any] = {
            "total_tokens": usage.prompt + usage.completion,
            "total_characters": 0,
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
        }
        if usage.reasoning and not self.shape.bare:
            counted["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
        if cached:
            counted["prompt_tokens_details"] = {"cached_tokens": cached}
        return counted

    def _events(self) -> Iterator[tuple[dict[str, Any] | None, bool]]:
        """Each event of the stream, None for `[DONE]`, and whether it carries words."""
        shape = self.shape
        deltas = list(self._deltas())
        error_after = len(deltas) if shape.error is None else shape.error_after
        for place, delta in enumerate(deltas[:error_after], start=1):
            choice: dict[str, Any] = {"index": 0, "delta": delta}
            if place == len(deltas) and shape.error is None:
                choice = {"finish_reason": self.reply.finish, **choice}
            yield self._chunk([choice]), True
        if shape.error is not None:
            yield self._error_event(shape.error), False
            return
        if shape.full_message:
            yield self.completion(), False
        elif not shape.native and self.request.include_usage and shape.usage is not UsageIn.NULL:
            tail = {**self._frame("chat.completion.chunk"), "usage": self._usage()}
            yield {**tail, "base_resp": {"status_code": 0, "status_msg": ""}}, False
        if shape.done:
            yield None, False

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = self._frame("chat.completion.chunk")
        chunk["choices"] = choices
        if not self.shape.native:
            chunk["usage"] = dict(_ZEROS) if self.shape.usage is UsageIn.ZEROS else None
        chunk.update(_FLAGS)
        return chunk

    def _error_event(self, error: Refusal) -> dict[str, Any]:
        event = self._chunk([])
        if error.code == 1027:
            event |= {"output_sensitive": True, "output_sensitive_type": 1}
        return event | {"base_resp": error.base_resp()}

    def _deltas(self) -> Iterator[dict[str, Any]]:
        shape, reply = self.shape, self.reply
        author = self._author(shape.role)
        if shape.native and not shape.empty_reasoning_field:
            author = {"role": shape.role}
        if shape.text_in_reasoning:
            for piece in shape.pieces(reply.text):
                yield {"content": "", **author, "reasoning_content": piece}
            return
        if shape.reasoning is ReasoningIn.CONTENT:
            for piece in shape.pieces(self._inline()):
                yield {"content": piece, **author}
            return
        yield from self._thoughts(author)
        for piece in shape.pieces(reply.text):
            yield {"content": piece, **author}

    def _thoughts(self, author: dict[str, Any]) -> Iterator[dict[str, Any]]:
        sent = ""
        for piece in self.shape.pieces(self.reply.reasoning) if self.reply.reasoning else ():
            content = {"content": ""} if sent else {}
            sent += piece
            yield {**content, **author, **_reasoning(sent if self.shape.reasoning is ReasoningIn.SNAPSHOTS else piece)}


def _reasoning(text: str) -> dict[str, Any]:
    detail = {"type": "reasoning.text", "id": "reasoning-text-1", "format": "MiniMax-response-v1", "index": 0}
    return {"reasoning_content": text, "reasoning_details": [{**detail, "text": text}]}


def dump(value: Any) -> bytes:
    """Compact JSON; lone surrogates are written as escapes, everything else as UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def headers(request_id: str, content_type: str, *, charset: bool = True) -> tuple[tuple[str, str], ...]:
    """The headers of an answer of this type."""
    return (
        ("Content-Type", f"{content_type}; charset=utf-8" if charset else content_type),
        ("Trace-Id", request_id),
        ("Minimax-Request-Id", request_id),
        ("X-Mm-Request-Id", request_id),
        ("X-Session-Id", request_id),
    )


def json_steps(
    status: int, value: Any, request_id: str, octets: Octets | None = None, *, charset: bool = True
) -> Iterator[Step]:
    """A whole JSON body in one write."""
    body = octets(dump(value)) if octets else dump(value)
    yield from page_steps(status, "application/json", body, request_id, charset=charset)


def page_steps(status: int, content_type: str, body: bytes, request_id: str, *, charset: bool = True) -> Iterator[Step]:
    """A whole body of any type in one write."""
    length = ("Content-Length", str(len(body)))
    yield Head(status, (*headers(request_id, content_type, charset=charset), length))
    yield Data(body, text=True)

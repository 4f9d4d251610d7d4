# ruff: noqa: ARG002 - a fault is given all that it might need, and uses what it does need
"""Faults that answer with an error of the API, and those that change which requests are refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from roleplay.testing.simulator.chat_request import ChatRequest
from roleplay.testing.simulator.faults.base import Fault, Page
from roleplay.testing.simulator.messages import MessageRules
from roleplay.testing.simulator.refusals import Refusal, overloaded, refusal
from roleplay.testing.simulator.replies import dump
from roleplay.testing.simulator.shape import Shape
from roleplay.testing.simulator.steps import Head, Steps


class _Refusing(Fault, ABC):
    """Answers every accepted request with one refusal."""

    @abstractmethod
    def refusal(self) -> Refusal:
        """The error that is answered."""

    def instead(self, request: ChatRequest) -> Refusal | Page | None:
        return self.refusal()


@dataclass(frozen=True)
class ErrorCode(_Refusing):
    """Any error by its number (1000, 1001, 1013, ...), with its usual HTTP status and text unless others are given."""

    code: int
    http: int | None = None
    text: str = ""

    def refusal(self) -> Refusal:
        return refusal(self.code, http=self.http, text=self.text)


@dataclass(frozen=True)
class UnknownError(_Refusing):
    """HTTP 500, `unknown error, 999 (1000)`."""

    def refusal(self) -> Refusal:
        return refusal(1000)


@dataclass(frozen=True)
class RateLimited(_Refusing):
    """Too many requests: HTTP 429, or 200 for `base_resp` inside a success status."""

    code: int = 1002
    http: int = 429

    def refusal(self) -> Refusal:
        return refusal(self.code, http=self.http)


@dataclass(frozen=True)
class TokenLimit(_Refusing):
    """Error 1039, too many tokens a minute; `http` 200 for `base_resp` inside a success status."""

    http: int = 429

    def refusal(self) -> Refusal:
        return refusal(1039, http=self.http)


@dataclass(frozen=True)
class BackOff(_Refusing):
    """HTTP 429 or 503 with headers that say when to come again, such as `Retry-After` or `x-ratelimit-reset-tokens`."""

    headers: tuple[tuple[str, str], ...] = (("Retry-After", "1"),)
    http: int = 429

    def refusal(self) -> Refusal:
        return refusal(1002 if self.http == 429 else 1013, http=self.http)

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        for step in steps:
            yield Head(step.status, (*step.headers, *self.headers)) if isinstance(step, Head) else step


@dataclass(frozen=True)
class Overloaded(_Refusing):
    """HTTP 529 without a numeric code."""

    def refusal(self) -> Refusal:
        return overloaded()


@dataclass(frozen=True)
class InsufficientBalance(_Refusing):
    """Error 1008: HTTP 429, or the 500 of an older route."""

    http: int = 429

    def refusal(self) -> Refusal:
        return refusal(1008, http=self.http)


@dataclass(frozen=True)
class UsageLimitReached(_Refusing):
    """Error 2056: the plan's quota is used up; the time of its reset stands in the message."""

    resets_at: str = "2026-05-01T05:00:00Z"

    def refusal(self) -> Refusal:
        return refusal(2056, text=f"usage limit exceeded, resets at {self.resets_at}")


@dataclass(frozen=True)
class InputSensitive(_Refusing):
    """Error 1026: the input filter struck; HTTP 422, or 500 as an `api_error`."""

    http: int = 422

    def refusal(self) -> Refusal:
        return refusal(1026, http=self.http)


@dataclass(frozen=True)
class ContextTooLong(_Refusing):
    """HTTP 400, `context window exceeds limit (2013)`, whatever the length."""

    def refusal(self) -> Refusal:
        return refusal(2013, text="invalid params, context window exceeds limit")


@dataclass(frozen=True)
class BaseRespInside200(_Refusing):
    """HTTP 200 whose `base_resp` holds an error; `framed` puts it into a completion with `choices: null`."""

    code: int
    framed: bool = False

    def refusal(self) -> Refusal:
        return refusal(self.code, http=200)

    def instead(self, request: ChatRequest) -> Refusal | Page | None:
        error = self.refusal()
        if not self.framed:
            return error
        frame = {
            "id": request.id,
            "choices": None,
            "created": request.created,
            "model": request.model.id,
            "usage": None,
        }
        body = {**frame, "object": "chat.completion", "base_resp": error.base_resp()}
        return Page(200, "application/json", dump(body))


@dataclass(frozen=True)
class JsonInsteadOfSse(Fault):
    """A stream was asked for and `application/json` comes: an error inside HTTP 200, or with code 0 the whole reply."""

    code: int = 1002

    def instead(self, request: ChatRequest) -> Refusal | Page | None:
        return refusal(self.code, http=200) if self.code and request.stream else None

    def shape(self, shape: Shape) -> Shape:
        return replace(shape, sse=False)


@dataclass(frozen=True)
class ErrorInStream(Fault):
    """A stream ends in an error event (`base_resp`, no `[DONE]`) after so many deltas; a plain request is refused."""

    code: int = 1027
    after_chunks: int = 1

    @property
    def speaks(self) -> bool:
        return self.after_chunks > 0

    def instead(self, request: ChatRequest) -> Refusal | Page | None:
        return None if request.stream else refusal(self.code)

    def shape(self, shape: Shape) -> Shape:
        least = max(shape.least_chunks, self.after_chunks + 1)
        return replace(shape, error=refusal(self.code), error_after=self.after_chunks, least_chunks=least)


@dataclass(frozen=True)
class OutputSensitive(Fault):
    """Error 1027: the output filter struck, as the whole answer, or in mid-stream after so many deltas."""

    after_chunks: int | None = None
    http: int = 422

    @property
    def speaks(self) -> bool:
        return bool(self.after_chunks)

    def instead(self, request: ChatRequest) -> Refusal | Page | None:
        if self.after_chunks is not None and request.stream:
            return None
        return refusal(1027, http=self.http)

    def shape(self, shape: Shape) -> Shape:
        return ErrorInStream(1027, self.after_chunks or 0).shape(shape)


@dataclass(frozen=True)
class HtmlErrorPage(Fault):
    """A gateway's HTML page in place of anything the API would say."""

    status: int = 502

    def instead(self, request: ChatRequest) -> Refusal | Page | None:
        page = f"<!DOCTYPE html>\n<html><head><title>{self.status}</title></head><body>Bad gateway</body></html>\n"
        return Page(self.status, "text/html", page.encode())


class _Rule(Fault):
    @property
    def bends_rules(self) -> bool:
        return True


@dataclass(frozen=True)
class MissingNames1000(_Rule):
    """A missing name is answered with HTTP 500 and code 1000 in place of 400 and 2013."""

    def rules(self, rules: MessageRules) -> MessageRules:
        return replace(rules, missing_names_code=1000)


@dataclass(frozen=True)
class RefuseRolePlayRoles(_Rule):
    """Any of the four role-play roles is refused, with 2013 (HTTP 400) or 1000 (HTTP 500); other requests are not."""

    code: int = 2013

    def rules(self, rules: MessageRules) -> MessageRules:
        return replace(rules, refused_roles_code=self.code)


@dataclass(frozen=True)
class StrictTemplate(_Rule):
    """The chat template raises, with this HTTP status, unless user and assistant alternate from a user on."""

    http: int = 500

    def rules(self, rules: MessageRules) -> MessageRules:
        return replace(rules, template_http=self.http)

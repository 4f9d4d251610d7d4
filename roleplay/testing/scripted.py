"""A model that says what a script says: no network, no server, deterministic."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from roleplay.domain.endpoint import Endpoint
from roleplay.errors import ChatError
from roleplay.wire.request import WireRequest

Reply = str | ChatError | Callable[[list[dict[str, Any]]], str]


class ScriptedModel:
    """Give it as ``Roleplay.open(..., chat=ScriptedModel(...))``.

    Each call takes the next of ``replies``: a text is said, an error is raised as the service's failure, a function is
    given the request's messages and its result is said. When the script has ended, the last words heard are echoed.
    ``requests`` are the bodies received, parsed; ``bodies`` the same as bytes. Thread-safe.
    """

    def __init__(self, *replies: Reply, piece_chars: int = 12, usage: bool = True) -> None:
        """``piece_chars``: how many characters each piece of a stream has. ``usage``: whether words are reported as
        tokens, or nothing at all."""
        self.bodies: list[bytes] = []
        self._replies = deque(replies)
        self._piece_chars = piece_chars
        self.usage = usage
        self._lock = threading.Lock()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests received so far, as JSON."""
        return [json.loads(body) for body in self.bodies]

    def say(self, *replies: Reply) -> None:
        """Add to the script."""
        with self._lock:
            self._replies.extend(replies)

    def open(self, endpoint: Endpoint, request: WireRequest) -> ScriptedAnswer:  # noqa: ARG002 - the seam's
        """Answer ``request`` from the script."""
        asked = json.loads(request.body)
        with self._lock:
            self.bodies.append(request.body)
            number = len(self.bodies)
            reply = self._replies.popleft() if self._replies else _echo
        if isinstance(reply, ChatError):
            raise reply
        text = reply if isinstance(reply, str) else reply(asked["messages"])
        return ScriptedAnswer(
            _pieces(text, asked, number, request.stream, self._piece_chars, self.usage), request.stream
        )

    def close(self) -> None:
        """Nothing to close."""

    @property
    def aio(self) -> AsyncScriptedModel:
        """The same model, script and requests for ``AsyncRoleplay.open(..., chat=model.aio)``."""
        return AsyncScriptedModel(self)


class AsyncScriptedModel:
    """A scripted model's face for asyncio. A function in the script runs in a thread, so it may block."""

    def __init__(self, model: ScriptedModel) -> None:
        self._model = model

    async def open(self, endpoint: Endpoint, request: WireRequest) -> AsyncScriptedAnswer:
        """As ``ScriptedModel.open``."""
        return AsyncScriptedAnswer(await asyncio.to_thread(self._model.open, endpoint, request))

    async def close(self) -> None:
        """Nothing to close."""


class AsyncScriptedAnswer:
    """An answer whose pieces are known, for asyncio."""

    def __init__(self, answer: ScriptedAnswer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer

    async def read(self) -> bytes:
        """Give the next piece, ``b""`` at the end; other tasks have their turn meanwhile."""
        await asyncio.sleep(0)
        return self._answer.read()

    async def release(self) -> None:
        """Nothing to give back."""

    async def close(self) -> None:
        """Nothing to close."""


class ScriptedAnswer:
    """An answer whose pieces are known."""

    status = 200

    def __init__(self, pieces: list[bytes], stream: bool) -> None:  # noqa: FBT001
        self.headers = {"content-type": "text/event-stream" if stream else "application/json"}
        self._pieces = deque(pieces)

    def read(self) -> bytes:
        """Give the next piece, ``b""`` at the end."""
        return self._pieces.popleft() if self._pieces else b""

    def release(self) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to close."""


def _echo(messages: list[dict[str, Any]]) -> str:
    return f"You said: {messages[-1]['content']}"


def _pieces(
    text: str,
    asked: dict[str, Any],
    number: int,
    stream: bool,  # noqa: FBT001
    size: int,
    reports: bool,  # noqa: FBT001
) -> list[bytes]:
    prompt = sum(len(message["content"].split()) for message in asked["messages"])
    completion = len(text.split())
    spent = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    usage = spent if reports else None
    common = {"id": f"scripted-{number}", "created": number, "model": asked["model"]}
    if not stream:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return [_json(common | {"object": "chat.completion", "choices": [choice], "usage": usage})]
    common |= {"object": "chat.completion.chunk"}
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    events = [common | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": part}}]} for part in parts]
    end = common | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    return [*(b"data: " + _json(event) + b"\n\n" for event in (*events, end)), b"data: [DONE]\n\n"]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()

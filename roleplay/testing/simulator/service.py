"""From one request to the steps of its answer: rules, then faults, then the reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import blake2b
from typing import Any

from roleplay.testing.simulator import tokens, voice
from roleplay.testing.simulator.cache import PrefixCache
from roleplay.testing.simulator.chat_request import ChatRequest
from roleplay.testing.simulator.faults import Fault, Page
from roleplay.testing.simulator.models import MODELS_PATH, NATIVE_PATH, OPENAI_PATH
from roleplay.testing.simulator.received import Log, ReceivedRequest, shown_headers
from roleplay.testing.simulator.refusals import Refusal, RuleBrokenError
from roleplay.testing.simulator.replies import Spoken, json_steps, page_steps
from roleplay.testing.simulator.rules import Rules, check_key, check_window, read_json, read_request
from roleplay.testing.simulator.script import Script
from roleplay.testing.simulator.shape import Reply, Shape, within_budget
from roleplay.testing.simulator.steps import Steps

Clock = Callable[[], int]
"""Unix time in whole seconds."""


@dataclass(frozen=True)
class Manner:
    """How well-behaved replies look: `thinking` shows reasoning, `echo_name` answers under the persona's name."""

    thinking: bool = False
    echo_name: bool = False
    chunk_characters: int = 40


@dataclass(frozen=True)
class Incoming:
    """A request as the connection read it."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: bytes) -> str:
        """The value of a header (its name in lower case), empty when it was not sent."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")


class Service:
    """Answers requests; called from the server's thread alone."""

    def __init__(self, rules: Rules, manner: Manner, script: Script, log: Log, clock: Clock | None = None) -> None:
        self._rules = rules
        self._manner = manner
        self._script = script
        self._log = log
        self._clock = clock
        self._cache = PrefixCache()
        self._arrivals = 0

    def answer(self, incoming: Incoming) -> Steps:
        """The steps that answer a request, which is logged before the first of them is taken."""
        self._arrivals += 1
        request_id = blake2b(b"%d\0%s" % (self._arrivals, incoming.body), digest_size=16).hexdigest()
        if (incoming.method, incoming.path) == ("GET", MODELS_PATH):
            return self._list_models(incoming, request_id)
        if incoming.method != "POST" or incoming.path not in (OPENAI_PATH, NATIVE_PATH):
            self._record(incoming, None, "no such path")
            return page_steps(404, "text/plain", b"404 page not found", request_id)
        return self._chat(incoming, request_id)

    def _list_models(self, incoming: Incoming, request_id: str) -> Steps:
        try:
            check_key(incoming.header(b"authorization"), self._rules)
        except RuleBrokenError as broken:
            self._record(incoming, None, str(broken))
            return _refused(broken.refusal, request_id, native=False)
        self._record(incoming, None)
        created = self._created()
        entries = [
            {"id": model.id, "object": "model", "created": created, "owned_by": "minimax"}
            for model in self._rules.models.values()
            if not model.native
        ]
        return json_steps(200, {"object": "list", "data": entries}, request_id)

    def _chat(self, incoming: Incoming, request_id: str) -> Steps:
        always, queued = self._script.take_faults()
        faults = always + queued
        value: dict[str, Any] | None = None
        try:
            check_key(incoming.header(b"authorization"), self._rules)
            value = read_json(incoming.header(b"content-type"), incoming.body)
            request = self._read(incoming.path, value, faults)
        except RuleBrokenError as broken:
            if queued and not any(fault.bends_rules for fault in queued):
                self._script.give_back(queued)
            self._record(incoming, value, str(broken))
            return _refused(broken.refusal, request_id, native=incoming.path == NATIVE_PATH)
        self._record(incoming, value)
        request = replace(request, id=request_id, created=self._created())
        steps = self._instead(request, faults) or self._reply(request, faults)
        for fault in faults:
            steps = fault.carry(steps, request)
        return steps

    def _read(self, path: str, value: dict[str, Any], faults: tuple[Fault, ...]) -> ChatRequest:
        bent = reduce(lambda rules, fault: fault.rules(rules), faults, self._rules.messages)
        rules = self._rules if bent is self._rules.messages else replace(self._rules, messages=bent)
        request = read_request(path, value, rules)
        model, messages = request.model, request.messages
        sums = tokens.prompt_tokens(model, messages)
        request = replace(request, prompt_tokens=sums[-1])
        check_window(request)
        cached = self._cache.cached_tokens(model.id, messages, sums) if model.caches else 0
        return replace(request, cached_tokens=cached)

    def _instead(self, request: ChatRequest, faults: tuple[Fault, ...]) -> Steps | None:
        for fault in reversed(faults):
            found = fault.instead(request)
            if isinstance(found, Refusal):
                return _refused(found, request.id, native=request.model.native)
            if isinstance(found, Page):
                return page_steps(found.status, found.content_type, found.body, request.id)
        return None

    def _reply(self, request: ChatRequest, faults: tuple[Fault, ...]) -> Steps:
        said = self._script.take_text() if all(fault.speaks for fault in faults) else None
        reply = Reply(request, voice.compose(request.messages)) if said is None else Reply(request, said, exact=True)
        if self._manner.thinking and request.model.thinks:
            reply = replace(reply, reasoning=voice.think(request.messages))
        shape = Shape.of(request, self._speaker(request), self._manner.chunk_characters)
        for fault in faults:
            reply, shape = fault.reply(reply), fault.shape(shape)
        fitting, usage = within_budget(reply)

        def octets(data: bytes) -> bytes:
            return reduce(lambda given, fault: fault.octets(given), faults, data)

        return Spoken(fitting, usage, shape).steps(octets)

    def _speaker(self, request: ChatRequest) -> str:
        return voice.read_scene(request.messages).name if self._manner.echo_name else voice.DEFAULT_SPEAKER

    def _created(self) -> int:
        return self._clock() if self._clock is not None else 1_776_838_946 + self._arrivals

    def _record(self, incoming: Incoming, value: dict[str, Any] | None, refusal: str = "") -> None:
        headers = shown_headers(incoming.headers)
        self._log.add(
            ReceivedRequest(incoming.method, incoming.path, headers, incoming.body, value, not refusal, refusal)
        )


def _refused(refusal: Refusal, request_id: str, *, native: bool) -> Steps:
    status, body = refusal.envelope(request_id, native=native)
    return json_steps(status, body, request_id)

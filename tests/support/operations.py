"""A shell that performs nothing: what an operation asks for is answered as a test says, and kept to be looked at."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from roleplay import Endpoint, EstimatingCounter, Participant, Persona, PlayedBy, RoleplayError, SessionSettings
from roleplay.context.calibration import Fit
from roleplay.domain.persona import StoredPersona
from roleplay.store.records.revisions import Revision, Seat
from roleplay.store.records.sessions import beginning
from roleplay.turns.effects import Admit, Effect, Open, Pause, Ports, Read, Receive, Write
from roleplay.turns.queue import Situation
from roleplay.turns.scope import SessionScope, TenantScope
from roleplay.wire.heads import Head

E = TypeVar("E")
OWNER = "us"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
POSITION = beginning(0)
FREE = Situation(POSITION, mine=(), live=None, gone=False)
END = b"data: [DONE]\n\n"


class CountedTexts(EstimatingCounter):
    """A counter that keeps every text it was asked about: among them, each text that a reply stores."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def count(self, text: str) -> int:
        self.texts.append(text)
        return super().count(text)


class Hand:
    """Answers effects. ``told`` holds what reads and writes give, by their names; what is not told is true.

    ``answers`` are the model's: for each call an error, or pieces of a stream, an error among them where it breaks.
    ``pace_s`` is how long each piece takes, ``late_s`` how much longer each pause than it should. Time passes with
    pieces and pauses alone, and chance is always a half.
    """

    def __init__(
        self, *answers: RoleplayError | Iterable[bytes | RoleplayError], pace_s: float = 0.0, late_s: float = 0.0
    ) -> None:
        self.effects: list[Effect] = []
        self.told: dict[str, deque[Any]] = {"situation": deque([FREE]), "revision": deque([revision(Persona("Nova"))])}
        self.told["calibration"] = deque([Fit()] * 9)
        self.now_s = 0.0
        self.names = 0
        self._answers = deque(answers)
        self._pieces: deque[bytes | RoleplayError] = deque()
        self._pace_s = pace_s
        self._late_s = late_s
        self.line_s = 0.0  # how long the next request waits for a place
        self.counter = CountedTexts()

    def scope(self, endpoint: Endpoint, *others: Endpoint) -> SessionScope:
        """The scope of a session that nobody spoke in yet."""
        ports = Ports(
            now=lambda: BEGAN + timedelta(seconds=self.now_s),
            monotonic=lambda: self.now_s,
            draw=lambda: 0.5,
            new_id=self._name,
            zone=lambda _name: UTC,
            owner=OWNER,
            is_gone=lambda owner: owner == "gone",
        )
        return TenantScope("default", (endpoint, *others), (), self.counter, ports).session("session")

    def play(self, operation: Generator[Effect, Any, E]) -> E:
        """Answer an operation until its end; gives what it gives, raises what it raises."""
        answer: Any = None
        error: RoleplayError | None = None
        try:
            while True:
                effect = operation.throw(error) if error else operation.send(answer)
                self.effects.append(effect)
                answer = error = None
                try:
                    answer = self._answer(effect)
                except RoleplayError as raised:
                    error = raised
        except StopIteration as end:
            result: E = end.value
            return result

    def of(self, kind: type[E]) -> list[E]:
        """The effects of one kind so far."""
        return [one for one in self.effects if isinstance(one, kind)]

    def pauses(self) -> list[float]:
        """The seconds of every pause so far."""
        return [one.seconds for one in self.of(Pause)]

    def done(self, name: str) -> int:
        """How often a reading or a writing of this name was done."""
        return sum(one.name == name for one in (*self.of(Read), *self.of(Write)))

    def sent(self) -> list[list[str]]:
        """The roles of each request."""
        bodies = [json.loads(one.request.body) for one in self.of(Open)]
        return [[message["role"] for message in body["messages"]] for body in bodies]

    def _answer(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            self.now_s += effect.seconds + self._late_s
        if isinstance(effect, Open):
            answer = self._answers.popleft()
            if isinstance(answer, RoleplayError):
                raise answer
            self._pieces = deque(answer)
            return Head(200, {"content-type": "text/event-stream"})
        if isinstance(effect, Receive):
            self.now_s += self._pace_s
            piece = self._pieces.popleft() if self._pieces else b""
            if isinstance(piece, RoleplayError):
                raise piece
            return piece
        if isinstance(effect, Read | Write):
            told = self.told.get(effect.name)
            return told.popleft() if told else True
        return self._admit() if isinstance(effect, Admit) else None

    def _admit(self) -> bool:
        self.now_s += min(self.line_s, 5.0)
        self.line_s = max(self.line_s - 5.0, 0.0)
        return not self.line_s

    def _name(self) -> str:
        self.names += 1
        return f"id-{self.names}"


def revision(persona: Persona, scene: str = "") -> Revision:
    """A persona alone with a human who has none."""
    stored = StoredPersona(id="nova", version=1, persona=persona, created_at=BEGAN)
    model = Participant(
        seat=1, played_by=PlayedBy.MODEL, display_name=persona.name, persona_id="nova", persona_version=1
    )
    human = Participant(seat=2, played_by=PlayedBy.HUMAN, display_name="User", persona_id=None, persona_version=None)
    return Revision(1, scene, SessionSettings(), (Seat(model, stored), Seat(human, None)))


def said(text: str) -> bytes:
    """A piece of a stream."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"

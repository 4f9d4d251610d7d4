"""Processes that kill themselves at a named point of a turn: ``python -m tests.support.mortal``.

The parent (:class:`Mortals`) sends one order a line, as JSON; for each the program forks a child, which opens an engine
of its own, says one line and, at the point that the order names, ends itself with SIGKILL. The program answers with how
the child ended and, when no point was named, with the points that it passed. It has one thread and no connection, so
that a fork of it is a fresh process that need not import anything.

The points are seen from outside: by SQLAlchemy's events and by a transport around the scripted model.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection, Engine, event

from roleplay import Endpoint, Roleplay, TurnOptions
from roleplay.testing import ScriptedModel

ROOT = Path(__file__).parents[2]
KEY = "order-1"
WORDS = " ".join(f"word-{number:03}" for number in range(90))
MODEL = Endpoint("MiniMax-M2.7", retry={"attempts": 1})


class Order(NamedTuple):
    """What one child does. ``die_at``: a point's name, or ``""`` to live; ``heard``: where the model writes bodies."""

    url: str
    session_id: str
    door: str
    line: str
    die_at: str
    heard: str


class Ended(NamedTuple):
    """How a child ended: the signal, 0 for none, and the points that it passed when it lived."""

    signal: int
    points: list[str]


class Mortals:
    """The parent's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.mortal"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, order: Order) -> Ended:
        """Let one child do what the order says, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


class Fate:
    """Names the points of a turn as they are passed, and ends the process at one of them."""

    def __init__(self, die_at: str) -> None:
        self._die_at = die_at
        self._kind = ""
        self._statement = 0
        self._flushes = 0
        self.points: list[str] = []

    def passes(self, point: str) -> None:
        """Note a point; the process may not survive it."""
        self.points.append(point)
        if point == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Look at every statement, before every commit, and whenever a connection is given back."""
        event.listen(Engine, "after_cursor_execute", self._ran)
        event.listen(Engine, "commit", lambda _connection: self._in_transaction("before the commit"))
        event.listen(Engine, "checkin", self._given_back)

    def _ran(self, _c: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith(("INSERT", "UPDATE")):
            return
        if not self._kind:
            self._kind = self._of_first(statement)
            self._statement = 0
        self._statement += 1
        self._in_transaction(f"after statement {self._statement}")

    def _of_first(self, statement: str) -> str:
        if statement.startswith("UPDATE roleplay_sessions"):
            return "claim"
        if "ended_at" in statement:
            return "finish"
        self._flushes += 1
        return f"flush {self._flushes}"

    def _in_transaction(self, where: str) -> None:
        if self._kind:
            self.passes(f"{self._kind}, {where}")

    def _given_back(self, *_ignored: object) -> None:
        self._in_transaction("committed")
        self._kind = ""


class MortalModel:
    """A transport around a scripted model. What it heard is written down before it answers."""

    def __init__(self, fate: Fate, heard: str) -> None:
        self._fate = fate
        self._heard = heard
        self._model = ScriptedModel(WORDS)

    def open(self, endpoint: Endpoint, request: Any) -> MortalAnswer:
        self._fate.passes("before the request")
        answer = self._model.open(endpoint, request)
        with Path(self._heard).open("ab", buffering=0) as record:
            record.write(base64.b64encode(request.body) + b"\n")
        self._fate.passes("the request is sent")
        return MortalAnswer(self._fate, answer)

    def close(self) -> None:
        """Nothing to close."""


class MortalAnswer:
    """An answer whose end is a point."""

    status = 200

    def __init__(self, fate: Fate, answer: Any) -> None:
        self._fate = fate
        self._answer = answer
        self.content_type = answer.content_type

    def read(self) -> bytes:
        return self._answer.read()

    def release(self) -> None:
        self._fate.passes("before the finish")

    def close(self) -> None:
        """Nothing to close."""


def live(order: Order) -> list[str]:
    """Say the order's line and give the points that were passed, if any of them lets us."""
    fate = Fate(order.die_at)
    options = TurnOptions(idempotency_key=KEY)
    with Roleplay.open(order.url, model=MODEL, chat=MortalModel(fate, order.heard)) as rp:
        session = rp.sessions.get(order.session_id)
        fate.watch()
        fate.passes("before the claim")
        if order.door == "send":
            session.send(order.line, options=options)
        else:
            with session.stream(order.line, options=options) as reply:
                for number, _delta in enumerate(reply):
                    if number == 0:
                        fate.passes("the first delta is shown")
        fate.passes("the caller has it")
    return fate.points


def main() -> None:
    """Serve orders until there are no more."""
    for line in sys.stdin:
        order = Order(*json.loads(line))
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            code = 1
            try:
                os.write(tell, json.dumps(live(order)).encode())
                code = 0
            finally:
                os._exit(code)
        os.close(tell)
        with os.fdopen(told) as pipe:
            points = pipe.read()
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a child failed; it has said why"
        print(json.dumps([os.WTERMSIG(status), json.loads(points or "[]")]), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()

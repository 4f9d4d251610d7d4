"""Processes to which something happens at a named point of a turn: ``python -m tests.support.mortal``.

The parent (:class:`Mortals`) sends one order a line, as JSON; for each the program forks a child, which opens an engine
of its own and says one line. At the point that the order names, the child ends itself with SIGKILL, or gets Ctrl-C
(SIGINT), or its task is cancelled; or the program kills it after some time, wherever it is. The program answers with
how the child ended and what it told. It has one thread and no connection, so that a fork of it is a fresh process; one
that need neither import nor compile anything, since the program has said a line of its own before the first order.

The points are seen from outside: by SQLAlchemy's events and by a transport around the scripted model.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from sqlalchemy import Connection, Engine, event

from roleplay import AsyncChatSession, AsyncRoleplay, ChatSession, Endpoint, Persona, Roleplay, Seat, Turn, TurnOptions
from roleplay.testing import ScriptedModel
from tests.support import compiled

ROOT = Path(__file__).parents[2]
KEY = "order-1"
WORDS = " ".join(f"word-{number:03}" for number in range(90))
ROUND_WORDS = " ".join(f"word-{number:03}" for number in range(35))  # kept once on the way
MODEL = Endpoint("MiniMax-M2.7", retry={"attempts": 1})
OPTIONS = TurnOptions(idempotency_key=KEY)
PATIENCE_S = 60
LOOK_S = 0.005
BEGUN = b"begun\n"

Act = Literal["live", "kill", "kill later", "kill when told", "interrupt", "cancel"]


class Order(NamedTuple):
    """What one child does. ``door``: ``send``, ``stream`` or ``round``, or one of them after ``asyncio ``; ``act``:
    what happens at the point ``at``, which for ``kill later`` is in seconds after the child has begun; ``heard``: where
    the model writes the bodies that it hears.

    ``given`` is where the child writes the ids of a round's turns as it is given them. With ``kill when told``, the
    child makes the file ``here`` at the point, and ends once there is ``now``.
    """

    url: str
    session_id: str
    door: str
    line: str
    act: Act
    at: str
    heard: str

    @property
    def given(self) -> Path:
        return Path(self.heard + ".given")

    @property
    def here(self) -> Path:
        return Path(self.heard + ".here")

    @property
    def now(self) -> Path:
        return Path(self.heard + ".now")


class Told(NamedTuple):
    """What a child told before it ended: the points that it passed, the error that its call raised (``""``: none), the
    statuses of the session's turns while it still lived, and what it was answered when it went on, as one does that is
    not to be killed later."""

    points: list[str]
    raised: str
    statuses: list[str]
    answer: str


class Ended(NamedTuple):
    """How a child ended: the signal that killed it, 0 for none, and what it told."""

    signal: int
    told: Told | None


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
        died_of, told = json.loads(self._process.stdout.readline())
        return Ended(died_of, None if told is None else Told(*told))


class Fate:
    """Names the points of a turn as they are passed, those of a round with the turn's number, and lets something happen
    at one of them."""

    def __init__(self, at: str, happen: Callable[[], None], *, of_round: bool = False) -> None:
        self._at = at
        self._of_round = of_round
        self._turn = 0
        self._happen = happen
        self._kind = ""
        self._statement = 0
        self._flushes = 0
        self._on = False
        self.points: list[str] = []

    def passes(self, point: str) -> None:
        """Note a point, before which the process may end."""
        if not self._on:
            return
        if self._of_round:
            point = f"turn {max(self._turn, 1)}: {point}"
        self.points.append(point)
        if point == self._at:
            self._on = False
            self._happen()

    def end(self) -> None:
        """Let nothing happen any more."""
        self._on = False

    def begin(self) -> None:
        """Look at every statement, before every commit, and whenever a connection is given back."""
        self._on = True
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
            self._turn += 1
            self._flushes = 0
            return "claim"
        if "ended_at" in statement:
            return "finish"
        self._flushes += 1
        return f"flush {self._flushes}"

    def _in_transaction(self, where: str) -> None:
        if self._kind:
            self.passes(f"{self._kind}, {where}")

    def _given_back(self, *_ignored: object) -> None:
        kind, self._kind = self._kind, ""
        if kind:
            self.passes(f"{kind}, committed")


class MortalModel:
    """A transport around a scripted model. What it heard is written down before it answers."""

    def __init__(self, fate: Fate, heard: str, *words: str) -> None:
        self._fate = fate
        self._heard = heard
        self._model = ScriptedModel(*words)

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
        self.headers = answer.headers

    def read(self) -> bytes:
        return self._answer.read()

    def release(self) -> None:
        self._fate.passes("before the finish")

    def close(self) -> None:
        """Nothing to close."""


class AsyncMortalModel:
    """The same for asyncio."""

    def __init__(self, model: MortalModel) -> None:
        self._model = model

    async def open(self, endpoint: Endpoint, request: Any) -> AsyncMortalAnswer:
        answer = self._model.open(endpoint, request)
        await asyncio.sleep(0)
        return AsyncMortalAnswer(answer)

    async def close(self) -> None:
        """Nothing to close."""


class AsyncMortalAnswer:
    """The same for asyncio."""

    status = 200

    def __init__(self, answer: MortalAnswer) -> None:
        self._answer = answer
        self.headers = answer.headers

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self._answer.read()

    async def release(self) -> None:
        self._answer.release()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing to close."""


def words_of(order: Order) -> list[str]:
    """What the model says in a child, before it echoes."""
    return [ROUND_WORDS] * 3 if order.door.endswith("round") else [WORDS]


def kill(order: Order) -> None:
    """End this process, at once or when it is told."""
    if order.act == "kill when told":
        order.here.touch()
        while not order.now.exists():
            time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


def given(order: Order, turn: Turn) -> None:
    """Write down that the caller was given a turn of a round."""
    with order.given.open("ab", buffering=0) as record:
        record.write(f"{turn.id}\n".encode())


def begin(order: Order, fate: Fate, tell: int) -> None:
    """Begin: watch for the points, or say that the time runs, with nothing that listens."""
    if order.act == "kill later":
        os.write(tell, BEGUN)
    else:
        fate.begin()


def say(session: ChatSession, order: Order, fate: Fate) -> None:
    """Say the order's line through its door."""
    fate.passes("before the claim")
    if order.door == "round":
        with session.round(order.line, options=OPTIONS) as replies:
            for turn in replies.turns():
                given(order, turn)
                fate.passes("the caller has it")
        return
    if order.door == "send":
        session.send(order.line, options=OPTIONS)
    else:
        with session.stream(order.line, options=OPTIONS) as reply:
            for number, _delta in enumerate(reply):
                if number == 0:
                    fate.passes("the first delta is shown")
    fate.passes("the caller has it")


async def say_async(session: AsyncChatSession, order: Order, fate: Fate) -> None:
    """The same for asyncio."""
    fate.passes("before the claim")
    if order.door == "asyncio round":
        async with await session.round(order.line, options=OPTIONS) as replies:
            async for turn in replies.turns():
                given(order, turn)
                fate.passes("the caller has it")
        return
    if order.door == "asyncio send":
        await session.send(order.line, options=OPTIONS)
    else:
        async with await session.stream(order.line, options=OPTIONS) as reply:
            number = 0
            async for _delta in reply:
                if number == 0:
                    fate.passes("the first delta is shown")
                number += 1
    fate.passes("the caller has it")


def live(order: Order, tell: int) -> Told:
    """Say the order's line in a blocking engine; tell what became of it, as far as one lives to tell."""

    def happen() -> None:
        if order.act.startswith("kill"):
            kill(order)
        os.kill(os.getpid(), signal.SIGINT)

    fate = Fate(order.at, happen, of_round=order.door == "round")
    raised = ""
    with Roleplay.open(order.url, model=MODEL, chat=MortalModel(fate, order.heard, *words_of(order))) as rp:
        session = rp.sessions.get(order.session_id)
        begin(order, fate, tell)
        try:
            say(session, order, fate)
            fate.end()
        except KeyboardInterrupt:
            raised = "KeyboardInterrupt"
        statuses = [turn.status.value for turn in session.turns()]
        if order.act == "kill later":
            return Told(fate.points, raised, statuses, "")
        answer = session.send("And now?").reply
        return Told(fate.points, raised, statuses, answer.text if answer else "")


async def live_async(order: Order, tell: int) -> Told:
    """Say the order's line in an asyncio engine, in a task that may be cancelled."""
    loop = asyncio.get_running_loop()
    task: asyncio.Task[None] | None = None

    def happen() -> None:
        if order.act.startswith("kill"):
            kill(order)
        loop.call_soon_threadsafe(task.cancel)

    fate = Fate(order.at, happen, of_round=order.door == "asyncio round")
    raised = ""
    async with await AsyncRoleplay.open(
        order.url, model=MODEL, chat=AsyncMortalModel(MortalModel(fate, order.heard, *words_of(order)))
    ) as rp:
        session = await rp.sessions.get(order.session_id)

        begin(order, fate, tell)
        task = asyncio.ensure_future(say_async(session, order, fate))
        try:
            await task
            fate.end()
        except asyncio.CancelledError:
            raised = "CancelledError"
        statuses = [turn.status.value for turn in await session.turns()]
        if order.act == "kill later":
            return Told(fate.points, raised, statuses, "")
        answer = (await session.send("And now?")).reply
        return Told(fate.points, raised, statuses, answer.text if answer else "")


def warm_up() -> None:
    """Import and compile what a child would, by a conversation in a database that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/chats.db"
        with Roleplay.open(url, model=MODEL, chat=ScriptedModel()) as rp:
            huang = rp.personas.put(Persona("Huang"))
            session = rp.sessions.create(cast=[huang])
            list(session.stream("Hello?"))
            assert len(session.turns()) == 1
            group = rp.sessions.create(cast=[Seat(huang, name=name, talkativeness=1) for name in ("Anna", "Ben")])
            assert len(list(group.round("Hello?", options=OPTIONS).turns())) == 2
        asyncio.run(warm_up_async(url, session.id))
    importlib.import_module("sqlalchemy.dialects.postgresql.psycopg")
    importlib.import_module("psycopg")
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


async def warm_up_async(url: str, session_id: str) -> None:
    """The same for asyncio."""
    async with await AsyncRoleplay.open(url, model=MODEL, chat=ScriptedModel().aio) as rp:
        session = await rp.sessions.get(session_id)
        async with await session.stream("Hello?") as reply:
            assert [delta async for delta in reply]


def main() -> None:
    """Serve orders until there are no more."""
    with compiled.shared():
        warm_up()
        serve()


def serve() -> None:
    """Let a child do each order, and answer with its end."""
    for line in sys.stdin:
        order = Order(*json.loads(line))
        hear, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(hear)
            signal.alarm(PATIENCE_S)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = 1
            try:
                told = asyncio.run(live_async(order, tell)) if order.door.startswith("asyncio") else live(order, tell)
                os.write(tell, json.dumps(told).encode())
                code = 0
            except BaseException:  # noqa: BLE001 - shown, and told by the exit code
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        os.close(tell)
        with os.fdopen(hear, "rb", buffering=0) as pipe:
            if order.act == "kill later":
                pipe.read(len(BEGUN))
                if not select.select([pipe], [], [], float(order.at))[0]:
                    os.kill(child, signal.SIGKILL)
            said = pipe.readall()
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"{order} failed; it has said why"
        print(json.dumps([os.WTERMSIG(status), json.loads(said or "null")]), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()

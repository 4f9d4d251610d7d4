"""What asyncio makes of 32 conversations at once: `python benchmarks/aio.py [--turns N] [--stream] [--json]`.

*The floor* is what a script without this package would do for 32 conversations on one event loop, and nothing else:
post the messages with a shared ``httpx.AsyncClient``, decode the answer, and keep what was said with ``sqlite3`` in two
synced commits a turn, in the one thread that has the database. *Ours* is ``AsyncRoleplay`` with 32 sessions on one
SQLite file and everything that it promises. Beside them, *sync* is ``Roleplay`` with one session, a turn after the
other.

All run in one process, in blocks that take turns, so that a machine which slows down slows all. The floor posts what
ours has posted, byte for byte, to the same server, which is another process: its processor time is in no figure. The
databases lie in one directory on a real disk, with write-ahead logging and ``synchronous = FULL``. Processor time is
that of this process, all threads, in user and system mode. Wall time is that of one turn among the 32.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from common import (
    FLOOR_SCHEMA,
    HUMAN,
    KEY,
    MODEL,
    PERSONA,
    SCENE,
    USER,
    Ours,
    Server,
    assert_durable,
    filesystem,
    refuse_memory,
)
from turn import BUDGET_TOKENS

from roleplay import AsyncChatSession, AsyncRoleplay, Dialect, Endpoint, SessionSettings

CONVERSATIONS = 32
BLOCK = 5  # turns of each conversation
SYNC_BLOCK = 20
WARM_UP = 6  # blocks: the window of history has then moved in every conversation
TARGET = 0.5


@dataclass
class Measured:
    """What the turns of one side cost. Times in milliseconds; ``cpu`` and ``rate`` have a number for each block."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    @contextmanager
    def block(self, turns: int) -> Iterator[None]:
        """Note what a block of ``turns`` cost."""
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        yield
        self.cpu.append((time.process_time_ns() - cpu) / 1e6 / turns)
        self.rate.append(turns / ((time.perf_counter_ns() - wall) / 1e9))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Note how long a turn took."""
        began = time.perf_counter_ns()
        yield
        self.wall.append((time.perf_counter_ns() - began) / 1e6)

    def figures(self) -> dict[str, float]:
        """Give the figures to show."""
        return {
            "turns_per_s": statistics.median(self.rate),
            "cpu_ms": statistics.fmean(self.cpu),
            "wall_median_ms": statistics.median(self.wall),
            "wall_p95_ms": statistics.quantiles(self.wall, n=20)[-1],
        }


class Floor:
    """The least that it could be: raw ``httpx``, raw ``sqlite3`` in a thread."""

    def __init__(self, path: Path, url: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.executescript(FLOOR_SCHEMA)
        self.db.execute("PRAGMA synchronous = FULL")
        self._url = url
        self._thread = ThreadPoolExecutor(1)
        self._http = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None), timeout=60
        )

    async def turn(self, asked: dict[str, Any]) -> None:
        """Post what ``asked`` says, and keep its last message and the reply."""
        loop = asyncio.get_running_loop()
        human = asked["messages"][-1]
        turn = await loop.run_in_executor(self._thread, self._claim, human["name"], human["content"])
        body = json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        if asked["stream"]:
            async with self._http.stream("POST", self._url, content=body, headers=headers) as answer:
                text, usage = await _streamed(answer)
        else:
            answer = await self._http.post(self._url, content=body, headers=headers)
            answer.raise_for_status()
            reply = answer.json()
            text, usage = reply["choices"][0]["message"]["content"], reply["usage"]
        await loop.run_in_executor(self._thread, self._finish, turn, text, usage)

    def _claim(self, name: str, text: str) -> int:
        self.db.execute("BEGIN IMMEDIATE")
        turn = self.db.execute("INSERT INTO turns (status, created_at) VALUES ('pending', datetime())").lastrowid
        insert = "INSERT INTO messages (turn_id, role, name, text) VALUES (?, ?, ?, ?)"
        self.db.execute(insert, (turn, "user", name, text))
        self.db.execute("COMMIT")
        assert turn is not None
        return turn

    def _finish(self, turn: int, text: str, usage: dict[str, int]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        insert = "INSERT INTO messages (turn_id, role, name, text) VALUES (?, ?, ?, ?)"
        self.db.execute(insert, (turn, "assistant", PERSONA.name, text))
        self.db.execute(
            "UPDATE turns SET status = 'completed', prompt_tokens = ?, completion_tokens = ?, total_tokens = ?, "
            "ended_at = datetime() WHERE id = ?",
            (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"], turn),
        )
        self.db.execute("COMMIT")

    async def close(self) -> None:
        """Close the client and the database."""
        await self._http.aclose()
        self._thread.shutdown()
        self.db.close()


async def _streamed(answer: httpx.Response) -> tuple[str, dict[str, int]]:
    answer.raise_for_status()
    parts: list[str] = []
    usage: dict[str, int] = {}
    async for line in answer.aiter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk = json.loads(line[6:])
        parts += [choice["delta"].get("content", "") for choice in chunk["choices"]]
        usage = chunk.get("usage") or usage
    return "".join(parts), usage


class OursAsync:
    """``AsyncRoleplay`` as ``AsyncRoleplay.open`` makes it, with its sessions."""

    def __init__(self, engine: AsyncRoleplay, sessions: Sequence[AsyncChatSession], *, stream: bool) -> None:
        self._engine = engine
        self.sessions = sessions
        self._stream = stream
        self._said = 0

    @classmethod
    async def open(cls, path: Path, base_url: str, *, stream: bool) -> OursAsync:
        """Open a new database with the sessions in it, and read back that its commits wait for the disk."""
        endpoint = Endpoint(MODEL, base_url=base_url, api_key=KEY, dialect=Dialect.MINIMAX)
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
        engine = await AsyncRoleplay.open(f"sqlite:///{path}", model=endpoint, settings=settings)
        persona, user = await engine.personas.put(PERSONA), await engine.personas.put(USER)
        sessions = [await engine.sessions.create(cast=[persona], user=user, scene=SCENE) for _ in range(CONVERSATIONS)]

        def durable(db: Any) -> None:
            assert_durable(db.connection.driver_connection)

        await engine._runtime.database.write(durable)  # noqa: SLF001 - asked where the turns will be written
        return cls(engine, sessions, stream=stream)

    async def turn(self, session: AsyncChatSession) -> None:
        """Say something in a session and wait for all of the reply."""
        self._said += 1
        text = HUMAN.format(self._said)
        if self._stream:
            async with await session.stream(text) as reply:
                async for _ in reply:
                    pass
        else:
            await session.send(text)

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()


@dataclass(frozen=True)
class Outcome:
    """What one run of this program found."""

    filesystem: str
    server: str
    stream: bool
    conversations: int
    turns: int
    floor: dict[str, float]
    ours: dict[str, float]
    sync: dict[str, float]
    ratio: dict[str, float]


async def conversations(turns: Sequence[Sequence[Callable[[], Awaitable[None]]]], into: Measured) -> None:
    """Have conversations at once, the turns of each in order. What one of them raises ends the run."""

    async def one(mine: Sequence[Callable[[], Awaitable[None]]]) -> None:
        for turn in mine:
            with into.turn():
                await turn()

    with into.block(sum(map(len, turns))):
        await asyncio.gather(*map(one, turns))


def measure(folder: Path, turns: int, *, stream: bool, simulator: bool) -> Outcome:
    """Run all sides, block by block in turn."""
    server = Server(folder / "received", simulator=simulator)
    with asyncio.Runner() as runner:
        ours = runner.run(OursAsync.open(folder / "ours.db", f"{server.base_url}/v1", stream=stream))
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
        sync = Ours(folder / "sync.db", f"{server.base_url}/v1", settings, stream=stream)
        floor = Floor(folder / "floor.db", f"{server.base_url}/v1/chat/completions")
        assert_durable(floor.db)
        with sync.driver() as driver:
            assert_durable(driver)
        ratios: dict[str, list[float]] = {"rate": [], "cpu": [], "wall": []}

        def block(floor_into: Measured, ours_into: Measured, sync_into: Measured) -> None:
            runner.run(conversations([[partial(ours.turn, one)] * BLOCK for one in ours.sessions], ours_into))
            asked = server.bodies(CONVERSATIONS * BLOCK)
            mine = [asked[number::CONVERSATIONS] for number in range(CONVERSATIONS)]
            runner.run(conversations([[partial(floor.turn, body) for body in one] for one in mine], floor_into))
            server.bodies(CONVERSATIONS * BLOCK)
            with sync_into.block(SYNC_BLOCK):
                for _ in range(SYNC_BLOCK):
                    with sync_into.turn():
                        sync.turn()
            server.bodies(SYNC_BLOCK)

        try:
            for _ in range(WARM_UP):
                block(Measured(), Measured(), Measured())
            floor_cost, our_cost, sync_cost = Measured(), Measured(), Measured()
            for _ in range(turns // (CONVERSATIONS * BLOCK)):
                begin = len(our_cost.wall)
                block(floor_cost, our_cost, sync_cost)
                ratios["rate"].append(our_cost.rate[-1] / floor_cost.rate[-1])
                ratios["cpu"].append(our_cost.cpu[-1] / floor_cost.cpu[-1])
                ratios["wall"].append(
                    statistics.median(our_cost.wall[begin:]) / statistics.median(floor_cost.wall[begin:])
                )
        finally:
            runner.run(ours.close())
            runner.run(floor.close())
            sync.close()
            server.close()
    return Outcome(
        filesystem=filesystem(folder),
        server="simulator" if simulator else "fixed replies",
        stream=stream,
        conversations=CONVERSATIONS,
        turns=len(our_cost.wall),
        floor=floor_cost.figures(),
        ours=our_cost.figures(),
        sync=sync_cost.figures(),
        ratio={
            **{name: statistics.median(found) for name, found in ratios.items()},
            "rate_lowest": min(ratios["rate"]),
            "rate_highest": max(ratios["rate"]),
            "cpu_to_sync": our_cost.figures()["cpu_ms"] / sync_cost.figures()["cpu_ms"],
        },
    )


def show(found: Outcome) -> None:
    """Print an outcome for people."""
    how = "stream" if found.stream else "send"
    print(
        f"{found.turns} turns by {how} in {found.conversations} conversations at once; server: {found.server}; ", end=""
    )
    print(f"database on {found.filesystem}\n")
    print(f"{'':<24}{'floor':>12}{'ours':>12}{'ratio':>8}{'sync':>12}")
    labels = {
        "turns_per_s": "turns per second",
        "cpu_ms": "CPU per turn, ms",
        "wall_median_ms": "wall, median, ms",
        "wall_p95_ms": "wall, p95, ms",
    }
    for name, label in labels.items():
        floor, ours, sync = found.floor[name], found.ours[name], found.sync[name]
        print(f"{label:<24}{floor:>12,.2f}{ours:>12,.2f}{ours / floor:>8.2f}{sync:>12,.2f}")
    low, high = found.ratio["rate_lowest"], found.ratio["rate_highest"]
    print(f"\nours to floor, median of blocks: turns per second {found.ratio['rate']:.2f} ", end="")
    print(f"(blocks {low:.2f} to {high:.2f}; target {TARGET:.2f} or more), CPU {found.ratio['cpu']:.2f}, ", end="")
    print(f"wall {found.ratio['wall']:.2f}; CPU, ours to sync: {found.ratio['cpu_to_sync']:.2f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    least = CONVERSATIONS * BLOCK
    parser.add_argument("--turns", type=int, default=20 * least, help=f"turns of each side, in blocks of {least}")
    parser.add_argument("--stream", action="store_true", help="take the replies as streams")
    parser.add_argument("--simulator", action="store_true", help="ask the simulator, not the server of fixed replies")
    parser.add_argument("--dir", type=Path, default=Path(), help="a directory on a real disk; by default this one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    refuse_memory(parser, options.dir)
    if options.turns < least:
        parser.error(f"--turns is {options.turns}; at least {least}")
    with tempfile.TemporaryDirectory(prefix="aio-", dir=options.dir) as folder:
        found = measure(Path(folder), options.turns, stream=options.stream, simulator=options.simulator)
    if options.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

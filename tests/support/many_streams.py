"""A process in which many streams are open at once: ``python -m tests.support.many_streams``, with an order as JSON.

It opens ``AsyncRoleplay``, makes a session for each stream, takes each stream to its first text, holds them all there
until every one is open, and lets them go to their ends, or, where the order says so, cancels some of their tasks at
random moments instead. It prints what it saw as JSON: what was heard, threads, lag of the event loop, memory, sockets,
connections, and what was left after the engine had closed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from roleplay import AsyncChatSession, AsyncRoleplay, Database, Endpoint, Persona

ROOT = Path(__file__).parents[2]
SPARE_FILES = 256
AT_ONCE = 100
LOOK_S = 0.02
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Order:
    """``cancel``: how many of the streams are cancelled, at a random moment of the first ``within_s`` seconds."""

    url: str
    base_url: str
    key: str
    streams: int
    cancel: int = 0
    within_s: float = 0.0
    connect_timeout_s: float = 10.0


@dataclass
class Seen:
    """What the process saw. ``heard`` is the text of each session's stream, as it came; times in seconds."""

    heard: dict[str, str] = field(default_factory=dict)
    open_at_once: int = 0
    in_flight: int = 0
    sockets: int = 0
    threads: int = 0
    threads_of_python: list[str] = field(default_factory=list)
    connections: int = 0
    busy_connections: int = 0
    lag_longest_s: float = 0.0
    lag_open_longest_s: float = 0.0
    lag_open_p99_s: float = 0.0
    cpu_s: float = 0.0
    bytes_per_stream: int = 0
    create_s: float = 0.0
    open_s: float = 0.0
    end_s: float = 0.0
    cancelled: int = 0
    errors: list[str] = field(default_factory=list)
    left_tasks: list[str] = field(default_factory=list)
    left_threads: list[str] = field(default_factory=list)
    left_files: list[str] = field(default_factory=list)

    @classmethod
    def by(cls, order: Order, *, develop: bool = False) -> tuple[Self, str]:
        """Carry out an order in a process of its own; gives what it saw and what it wrote to its error output."""
        mode = ["-X", "dev", "-W", "error"] if develop else []
        done = subprocess.run(
            [sys.executable, *mode, "-m", "tests.support.many_streams", json.dumps(asdict(order))],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"many_streams ended with {done.returncode}: {done.stderr[-4000:]}")
        return cls(**json.loads(done.stdout)), done.stderr


class Crowd:
    """All the streams of one order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._all_open = asyncio.Event()
        self._go = asyncio.Event()
        self._watch = Watch(order.url)
        self._open = 0
        self._lags: list[float] = [0.0]
        self._later_lags: list[float] = []
        self.seen = Seen()

    async def run(self) -> None:
        """Carry out the order."""
        order, seen = self._order, self.seen
        # Several attempts cost time here and would hide a fault; what is refused or cut shows as an error.
        endpoint = Endpoint(
            "MiniMax-M2.7",
            base_url=order.base_url,
            api_key=order.key,
            dialect="minimax",
            connect_timeout_s=order.connect_timeout_s,
            retry={"attempts": 1},
        )
        async with await AsyncRoleplay.open(order.url, model=endpoint) as rp:
            began = time.perf_counter()
            sessions = await self._sessions(rp)
            seen.create_s = time.perf_counter() - began
            gc.collect()
            memory = resident_bytes()
            looking = asyncio.create_task(self._look())
            began, cpu = time.perf_counter(), time.process_time()
            tasks = [asyncio.create_task(self._stream(session)) for session in sessions]
            if order.cancel:
                await self._cancel_some(tasks)
            else:
                await asyncio.wait_for(self._all_open.wait(), PATIENCE_S / 2)
                seen.open_s = time.perf_counter() - began
                seen.bytes_per_stream = (resident_bytes() - memory) // order.streams
                seen.sockets = sum(name.startswith("socket:") for name in open_files())
                seen.in_flight = self._watch.turns_in_flight()
                seen.busy_connections = self._watch.busy_connections()
                self._go.set()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, asyncio.CancelledError):
                    seen.cancelled += 1
                elif outcome is not None:
                    seen.errors.append(repr(outcome))
            seen.end_s, seen.cpu_s = time.perf_counter() - began, time.process_time() - cpu
            looking.cancel()
            await asyncio.wait([looking])
            self._watch.close()
        await asyncio.sleep(0.1)
        seen.left_tasks = [str(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        seen.lag_longest_s = max(self._lags)
        later = sorted(self._later_lags) or [0.0]
        seen.lag_open_longest_s, seen.lag_open_p99_s = later[-1], later[len(later) * 99 // 100]

    async def _sessions(self, rp: AsyncRoleplay) -> list[AsyncChatSession]:
        persona = await rp.personas.put(Persona("Huang", "A ferryman who counts the stones of the far bank."))
        sessions: list[AsyncChatSession] = []
        while len(sessions) < self._order.streams:
            number = min(AT_ONCE, self._order.streams - len(sessions))
            sessions += await asyncio.gather(*(rp.sessions.create(cast=[persona]) for _ in range(number)))
        return sessions

    async def _stream(self, session: AsyncChatSession) -> None:
        heard: list[str] = []
        try:
            async with await session.stream(f"Can we cross? {session.id[-6:]}") as reply:
                self._open += 1
                self.seen.open_at_once = max(self.seen.open_at_once, self._open)
                try:
                    if self._open == self._order.streams:
                        self._all_open.set()
                    if not self._order.cancel:
                        await self._go.wait()
                    async for delta in reply:
                        heard.append(delta.text)  # noqa: PERF401 - what was heard when it is cancelled
                finally:
                    self._open -= 1
        finally:
            self.seen.heard[session.id] = "".join(heard)

    async def _cancel_some(self, tasks: list[asyncio.Task[None]]) -> None:
        draw = random.Random(7)  # noqa: S311 - the same moments each time
        chosen = draw.sample(tasks, self._order.cancel)
        loop = asyncio.get_running_loop()
        for task in chosen:
            loop.call_later(draw.random() * self._order.within_s, task.cancel)
            if draw.random() < 0.3:  # and again, while it may be about to end its turn
                loop.call_later(draw.random() * self._order.within_s, task.cancel)
        await asyncio.sleep(self._order.within_s)

    async def _look(self) -> None:
        """Note threads, connections and how late the event loop comes round."""
        seen = self.seen
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LOOK_S)
            lags = self._later_lags if seen.open_s else self._lags
            lags.append(max(time.perf_counter() - began - LOOK_S, 0.0))
            seen.threads = max(seen.threads, threads())
            if threading.active_count() > len(seen.threads_of_python):
                seen.threads_of_python = sorted(thread.name for thread in threading.enumerate())
            seen.connections = max(seen.connections, self._watch.connections())


class Watch:
    """A connection of its own to the database, which sees what others see."""

    def __init__(self, url: str) -> None:
        self._database = Database.open(url)

    def turns_in_flight(self) -> int:
        """How many turns are in flight."""
        sql = "SELECT count(*) FROM roleplay_turns WHERE tenant = 'default' AND status IN ('pending', 'streaming')"
        return self._number(sql)

    def connections(self) -> int:
        """How many connections a server has beside this one; a file has no server."""
        if self._database.dialect == "sqlite":
            return 0
        return self._number(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def busy_connections(self) -> int:
        """How many of them are in a transaction."""
        if self._database.dialect == "sqlite":
            return 0
        return self._number(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND state <> 'idle'"
        )

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def _number(self, sql: str) -> int:
        return int(self._database.read(lambda db: db.exec_driver_sql(sql).scalar_one()))


def threads() -> int:
    """The threads of this process as the system counts them."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("Threads:")[2].split(maxsplit=1)[0])


def resident_bytes() -> int:
    """The memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> list[str]:
    """What the open file descriptors of this process are."""
    found = []
    for one in list(Path("/proc/self/fd").iterdir()):
        try:
            found.append(str(one.readlink()))
        except OSError:  # the one that lists them
            continue
    return found


def allow_files(number: int) -> None:
    """Raise the limit of open files where it is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        sys.exit(f"{number} open files are needed, and this machine allows {hard}")
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def main(arguments: list[str]) -> None:
    """Carry out the order and print what was seen."""
    order = Order(**json.loads(arguments[0]))
    allow_files(order.streams + SPARE_FILES)
    before = set(open_files())

    async def run() -> Seen:
        crowd = Crowd(order)
        await crowd.run()
        return crowd.seen

    seen = asyncio.run(run())
    gc.collect()
    seen.left_threads = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
    seen.left_files = [name for name in open_files() if name.startswith("socket:") or ".db" in name]
    seen.left_files = sorted(set(seen.left_files) - before)
    sys.stdout.write(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main(sys.argv[1:])

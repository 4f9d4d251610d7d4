"""What a turn costs beside the least that it could cost: `python benchmarks/turn.py [--turns N] [--stream] [--json]`.

*The floor* is what a script without this package would do, and nothing else: post the messages with a shared
``requests.Session``, decode the answer, and keep what was said with ``sqlite3`` in two synced commits (human line and
turn before the call; reply and usage after it). It holds its history in memory and reads nothing back. *Ours* is
``session.send`` (or ``session.stream``) with everything that it promises, over the HTTP client and the database that
``Roleplay.open`` uses.

Both run in one process, in blocks that take turns, so that a machine which slows down slows both. Both post the same
requests, byte for byte, to the same server, which is another process: its processor time is in no figure. Both
databases lie in one directory on a real disk, with write-ahead logging and ``synchronous = FULL``. Processor time is
that of this process, in user and system mode.

The server sends fixed replies, because the simulator takes longer to answer than either side to ask, which would hide
the difference in wall time; ``--simulator`` asks the simulator all the same.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from common import Floor, Ours, Server, assert_durable, filesystem, refuse_memory, size

from roleplay import SessionSettings

BUDGET_TOKENS = 6_200  # room for about 40 messages of history on average, as the window moves
WARM_UP = 200
BLOCK = 20
COUNTED = 40
MOST_CPU = 2.5


@dataclass
class Measured:
    """What the turns of one side cost. Times in milliseconds, a number for each turn."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    bytes_per_turn: float = 0.0
    statements: float = 0.0
    commits: float = 0.0
    rows_read: float = 0.0
    rows_written: float = 0.0

    def figures(self) -> dict[str, float]:
        """Give the figures to show."""
        return {
            "cpu_mean_ms": statistics.fmean(self.cpu),
            "cpu_median_ms": statistics.median(self.cpu),
            "wall_median_ms": statistics.median(self.wall),
            "wall_p95_ms": statistics.quantiles(self.wall, n=20)[-1],
            "statements": self.statements,
            "synced_commits": self.commits,
            "rows_read": self.rows_read,
            "rows_written": self.rows_written,
            "bytes": self.bytes_per_turn,
        }


def timed(turn: Callable[[], None], into: Measured) -> None:
    """Run one turn and note what it cost."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    turn()
    into.cpu.append((time.process_time_ns() - cpu) / 1e6)
    into.wall.append((time.perf_counter_ns() - wall) / 1e6)


@contextmanager
def counting(driver: sqlite3.Connection, into: Measured, turns: int) -> Iterator[None]:
    """Count what goes over ``driver`` in ``turns`` turns: statements, commits, rows. Slows it down."""
    ran: list[str] = []
    read = 0

    def row(_cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal read
        read += 1
        return values

    before = driver.total_changes
    driver.set_trace_callback(ran.append)
    driver.row_factory = row
    try:
        yield
    finally:
        driver.set_trace_callback(None)
        driver.row_factory = None
    frames = sum(one.startswith(("BEGIN", "COMMIT", "ROLLBACK")) for one in ran)
    into.statements = (len(ran) - frames) / turns
    into.commits = sum(one.startswith("BEGIN IMMEDIATE") for one in ran) / turns
    into.rows_read = read / turns
    into.rows_written = (driver.total_changes - before) / turns


@dataclass(frozen=True)
class Outcome:
    """What one run of this program found."""

    filesystem: str
    server: str
    stream: bool
    turns: int
    request_bytes: float
    history_messages: float
    floor: dict[str, float]
    ours: dict[str, float]
    ratio: dict[str, float]


def measure(folder: Path, turns: int, *, stream: bool, simulator: bool) -> Outcome:
    """Run both sides, block by block in turn."""
    server = Server(folder / "received", simulator=simulator)
    settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
    ours = Ours(folder / "ours.db", f"{server.base_url}/v1", settings, stream=stream)
    floor = Floor(folder / "floor.db", f"{server.base_url}/v1/chat/completions")
    floor_cost, our_cost = Measured(), Measured()
    cpu_ratios, wall_ratios, sizes, lengths = [], [], [], []

    def block(number: int, floor_into: Measured, ours_into: Measured) -> list[dict[str, Any]]:
        for _ in range(number):
            timed(ours.turn, ours_into)
        asked = server.bodies(number)
        for body in asked:
            timed(partial(floor.say, body), floor_into)
        server.bodies(number)
        return asked

    try:
        for _ in range(WARM_UP // BLOCK):
            block(BLOCK, Measured(), Measured())
        with ours.driver() as driver:
            assert_durable(driver)
            assert_durable(floor.db)
            before = size(driver), size(floor.db)
        for _ in range(turns // BLOCK):
            floor_part, our_part = Measured(), Measured()
            asked = block(BLOCK, floor_part, our_part)
            sizes += [len(json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode()) for one in asked]
            lengths += [sum(one["role"] in {"user", "assistant"} for one in body["messages"]) - 1 for body in asked]
            cpu_ratios.append(statistics.fmean(our_part.cpu) / statistics.fmean(floor_part.cpu))
            wall_ratios.append(statistics.median(our_part.wall) / statistics.median(floor_part.wall))
            for whole, part in ((our_cost, our_part), (floor_cost, floor_part)):
                whole.cpu += part.cpu
                whole.wall += part.wall
        with ours.driver() as driver:
            our_cost.bytes_per_turn = (size(driver) - before[0]) / len(our_cost.cpu)
            floor_cost.bytes_per_turn = (size(floor.db) - before[1]) / len(floor_cost.cpu)
            borrowed = driver
        with counting(borrowed, our_cost, COUNTED), counting(floor.db, floor_cost, COUNTED):
            block(COUNTED, Measured(), Measured())
    finally:
        ours.close()
        floor.db.close()
        server.close()
    return Outcome(
        filesystem=filesystem(folder),
        server="simulator" if simulator else "fixed replies",
        stream=stream,
        turns=len(our_cost.cpu),
        request_bytes=statistics.fmean(sizes),
        history_messages=statistics.fmean(lengths),
        floor=floor_cost.figures(),
        ours=our_cost.figures(),
        ratio={
            "cpu": statistics.median(cpu_ratios),
            "cpu_lowest": min(cpu_ratios),
            "cpu_highest": max(cpu_ratios),
            "wall": statistics.median(wall_ratios),
        },
    )


def show(found: Outcome) -> None:
    """Print an outcome for people."""
    how = "stream" if found.stream else "send"
    print(f"{found.turns} turns by {how}, both sides in turn; server: {found.server}; database on {found.filesystem}")
    print(f"requests: {found.request_bytes:,.0f} bytes, {found.history_messages:.1f} messages of history, on average\n")
    print(f"{'per turn':<24}{'floor':>12}{'ours':>12}{'ratio':>8}")
    labels = {
        "cpu_mean_ms": "CPU, mean, ms",
        "cpu_median_ms": "CPU, median, ms",
        "wall_median_ms": "wall, median, ms",
        "wall_p95_ms": "wall, p95, ms",
        "statements": "statements",
        "synced_commits": "synced commits",
        "rows_read": "rows read",
        "rows_written": "rows written",
        "bytes": "bytes of database",
    }
    for name, label in labels.items():
        floor, ours = found.floor[name], found.ours[name]
        ratio = f"{ours / floor:8.2f}" if floor else ""
        print(f"{label:<24}{floor:>12,.2f}{ours:>12,.2f}{ratio}")
    cpu, low, high = (found.ratio[name] for name in ("cpu", "cpu_lowest", "cpu_highest"))
    kept = "" if found.stream else f": {'below' if cpu <= MOST_CPU else 'ABOVE'} the {MOST_CPU} that a send may cost"
    print(f"\nCPU, ours to floor, median of blocks: {cpu:.2f} (blocks {low:.2f} to {high:.2f}){kept}")
    print(f"wall, ours to floor, median of blocks: {found.ratio['wall']:.2f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=400, help=f"turns of each side, in blocks of {BLOCK}")
    parser.add_argument("--stream", action="store_true", help="take the replies as streams")
    parser.add_argument("--simulator", action="store_true", help="ask the simulator, not the server of fixed replies")
    parser.add_argument("--dir", type=Path, default=Path(), help="a directory on a real disk; by default this one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    refuse_memory(parser, options.dir)
    if options.turns < BLOCK:
        parser.error(f"--turns is {options.turns}; at least {BLOCK}")
    with tempfile.TemporaryDirectory(prefix="turn-", dir=options.dir) as folder:
        found = measure(Path(folder), options.turns, stream=options.stream, simulator=options.simulator)
    if options.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What one turn costs at a given length of history:
`python benchmarks/context.py [--sizes 100,1000,...] [--turns N] [--beside 200000] [--peers WHICH] [--json]`.

*The floor* is what a script without this package would do that keeps its history on the disk: it reads the newest
messages that fit by counts which it stored with them, posts them with a shared ``requests.Session``, and writes line
and reply with ``sqlite3`` in two synced commits. *Ours* is ``session.send`` over the HTTP client and the database that
``Roleplay.open`` uses. The peers are other libraries that keep conversations, each *as documented*, through the front
door that its documentation shows, and *store only*, with its store alone and the client of the floor:
`benchmarks/documented.py` and `benchmarks/peers.py` say how. A turn is about 300 tokens (``TALK=short`` in the
environment: 90) and the budget 8,000 for everybody who has one. Histories are filled in SQL, or by a peer's own calls.

All sides of a size run in one process, in blocks that take turns, so that a machine which slows down slows all. The
server is another process, whose processor time is in no figure. The databases lie in one directory on a real disk. For
the floor and us, write-ahead logging and ``synchronous = FULL`` are read back and asserted; for peers they are as their
documentation leaves them, and printed. A side whose turn is expected to take longer than a minute, from the size
before, is left out with the reason. A slow side has fewer turns.

Beside the times: ``growth`` is what a turn adds to the database, in bytes and as a multiple of what was said;
``written`` is what the process made the disk write; ``rows`` and ``read`` are the rows that a turn fetches and their
text; ``counted`` the tokens that a counter was made to count; ``request`` the bytes of a request and ``messages`` how
many it held. All are of this run. The server counts the messages of every request, and of one at each length the whole
body is looked through: a side that does not send the history that it should ends the program.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import peers
from common import HUMAN, LONG_REPLY, Server, assert_durable, filesystem, refuse_memory
from documented import DOCUMENTED
from own import OWN
from peers import STORE_ONLY, SYSTEM, UnableError
from tables import SPOKEN_BYTES, Outcome, show, show_page
from watching import Watched, counting_rows, disk_written, settings_of, settle, used, watch

PEERS = {**DOCUMENTED, **STORE_ONLY}
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
PEERS_MOST = 100_000
BESIDE_SIZE = 1_000
BLOCK = 10
WARM_UP = 10
COUNTED = 5
FEWEST = 3
WARM_ENOUGH_S = 0.3  # a turn that takes longer is not told by what is loaded and opened for the first time
LONGEST_S = 60.0  # a turn
SHARE_S = 20.0  # of each side at each size


@dataclass
class Cost:
    """What the turns of one side cost at one length. Times in milliseconds."""

    side: str
    messages: int
    beside: int
    settings: str
    wall: list[float] = field(default_factory=list, repr=False)
    cpu: list[float] = field(default_factory=list, repr=False)
    requests: list[int] = field(default_factory=list, repr=False)
    sent: list[int] = field(default_factory=list, repr=False)
    growth: float = 0.0
    written: float = 0.0
    rows: float = 0.0
    read: float = 0.0
    counted: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Give the figures to show."""
        return {
            "side": self.side,
            "messages": self.messages,
            "beside": self.beside,
            "settings": self.settings,
            "turns": len(self.wall),
            "wall_median_ms": statistics.median(self.wall),
            "wall_p95_ms": statistics.quantiles(self.wall, n=20, method="inclusive")[-1],
            "cpu_ms": statistics.fmean(self.cpu),
            "growth_bytes": self.growth,
            "growth_of_text": self.growth / SPOKEN_BYTES,
            "written_bytes": self.written,
            "rows": self.rows,
            "read_bytes": self.read,
            "tokens_counted": self.counted,
            "request_bytes": statistics.fmean(self.requests),
            "request_messages": statistics.fmean(self.sent),
        }


class Runner:
    """A side at one length, opened and filled, and what it has cost so far."""

    def __init__(self, name: str, path: Path, server: Server, messages: int, beside: int) -> None:
        self._path = path
        self._server = server
        self._ran = 0
        self._past = messages
        self._side = {**OWN, **PEERS}[name](path, f"{server.base_url}/v1/chat/completions")
        try:
            if beside:
                self._side.beside(beside)
            self._side.fill(messages)
            settle(path)
            server.last()
            server.lengths(0)
            began = time.perf_counter()
            self._side.turn()
            self._first_s = time.perf_counter() - began
            warm_up = WARM_UP if self._first_s < WARM_ENOUGH_S else 2
            for _ in range(warm_up - 1):
                self._side.turn()
            self._sent(warm_up)
            if name in PEERS:
                check(name, server.last())
            connections = Watched.of(path)
            if name in OWN:
                for one in connections:
                    assert_durable(one)
            self.cost = Cost(name, messages, beside, settings_of(connections))
            self._before = used(path)
        except BaseException:
            self._side.close()
            raise

    def _sent(self, turns: int) -> list[tuple[int, int]]:
        """Give the lengths of the requests of so many turns, which held what they should."""
        self._server.last()
        came = self._server.lengths(turns)
        wanted = [self._side.sends(self._past + 2 * turn) for turn in range(turns)]
        for (_, messages), allowed in zip(came, wanted, strict=True):
            if messages not in allowed:
                raise SystemExit(f"{self._path.name}: a request held {messages} messages instead of {allowed}")
        self._past += 2 * turns
        return came

    def aim(self, turns: int) -> None:
        """Say how many turns are wanted; a slow side will have fewer."""
        self._turns = max(FEWEST, min(turns, int(SHARE_S / self._first_s)))

    def run(self, part: float) -> None:
        """Run turns until ``part`` of all were run."""
        cost, ran = self.cost, self._ran
        gc.collect()  # so that nobody clears away what another left
        written = disk_written()
        while self._ran < round(self._turns * part):
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            self._side.turn()
            cost.cpu.append((time.process_time_ns() - cpu) / 1e6)
            cost.wall.append((time.perf_counter_ns() - wall) / 1e6)
            self._ran += 1
        cost.written += (disk_written() - written) / self._turns
        came = self._sent(self._ran - ran)
        cost.requests += [length for length, _ in came]
        cost.sent += [messages for _, messages in came]

    def end(self) -> Cost:
        """Count what a turn reads, close, and give what was found."""
        cost = self.cost
        cost.growth = (used(self._path) - self._before) / self._ran
        turns = min(COUNTED, self._ran)
        self._side.tally.tokens = 0
        with counting_rows(self._path) as seen:
            for _ in range(turns):
                self._side.turn()
        self._sent(turns)
        cost.rows, cost.read = seen[0] / turns, seen[1] / turns
        cost.counted = self._side.tally.tokens / turns
        self.close()
        return cost

    def close(self) -> None:
        """Close the side and remove its database."""
        self._side.close()
        for one in self._path.parent.glob(f"{self._path.name}*"):
            one.unlink()


LINE = re.compile(re.escape(HUMAN).replace(re.escape("{}"), r"(\d+)"))


def check(name: str, body: dict[str, Any]) -> None:
    """Look through a request: the system's words, then line and reply by turns, up to a line that follows the one of
    the turn before."""
    said = [(one["role"], _text(one["content"])) for one in body["messages"]]
    roles = ["user" if place % 2 == 0 else "assistant" for place in range(len(said) - 1)]
    lines = [LINE.fullmatch(text) for _, text in said[1::2]]
    numbers = [int(one[1]) for one in lines if one]
    whole = (
        said[0] == ("system", SYSTEM)
        and [role for role, _ in said[1:]] == roles
        and {text for _, text in said[2::2]} == {LONG_REPLY}
        and len(said) % 2 == 0
        and len(numbers) == len(lines)
        and numbers[-1] == numbers[-2] + 1
    )
    if not whole:
        raise SystemExit(f"{name}: a request did not hold the history that it should")


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


class Bench:
    """All sides at all lengths, and why some of them are left out."""

    def __init__(self, folder: Path, turns: int, chosen: Sequence[str]) -> None:
        self._folder = folder
        self._turns = turns
        self._chosen = chosen
        self._server = Server(folder / "received", reply=LONG_REPLY, keep="lengths")
        self._last: dict[str, Cost] = {}
        self.costs: list[Cost] = []
        self.left_out: list[str] = []

    def close(self) -> None:
        """End the server."""
        self._server.close()

    def at(self, messages: int, beside: int = 0) -> None:
        """Measure all sides at one length."""
        runners = [one for name in self._chosen if (one := self._opened(name, messages, beside))]
        try:
            os.sync()  # so that the first to run does not wait for what was filled
            for one in runners:
                one.aim(self._turns)
            rounds = max(1, self._turns // BLOCK)
            for number in range(1, rounds + 1):
                for one in runners:
                    one.run(number / rounds)
            while runners:
                cost = runners[0].end()
                del runners[0]
                self.costs.append(cost)
                if not beside:
                    self._last[cost.side] = cost
                tell(f"{cost.side} at {messages:,}: {statistics.median(cost.wall):,.2f} ms")
        finally:
            for one in runners:
                one.close()

    def _opened(self, name: str, messages: int, beside: int) -> Runner | None:
        reason = "" if beside else self._reason_against(name, messages)
        path = self._folder / f"{re.sub(r'[^a-z]+', '-', name)}.db"
        if not reason:
            tell(f"{name}: making a past of {messages:,} messages" + (f" beside {beside:,}" if beside else ""))
            try:
                return Runner(name, path, self._server, messages, beside)
            except UnableError as error:
                reason = str(error)
            except Exception as error:  # whatever a peer raises is what became of it
                if name in OWN:
                    raise
                reason = f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"
            for one in self._folder.glob(f"{path.name}*"):
                one.unlink()
        where = f"{messages:,} messages" + (f" beside {beside:,}" if beside else "")
        self.left_out.append(f"{name} at {where}: {reason}")
        tell(f"left out: {self.left_out[-1]}")
        return None

    def _reason_against(self, name: str, messages: int) -> str:
        if name in OWN:
            return ""
        if messages > PEERS_MOST:
            return f"peers are measured up to {PEERS_MOST:,}"
        last = self._last.get(name)
        if last is None:
            return "" if messages <= BESIDE_SIZE else "it was left out at the size before"
        seconds = statistics.median(last.wall) / 1e3 * messages / last.messages
        return "" if seconds <= LONGEST_S else f"one turn would take about {seconds:,.0f} s, by the size before"


def tell(line: str) -> None:
    """Say what goes on, apart from what is printed."""
    print(f"context.py: {line}", file=sys.stderr, flush=True)


def versions(chosen: Sequence[str]) -> dict[str, str]:
    """Give the versions of what is measured."""
    found = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    if set(chosen) - set(OWN):
        found |= {name: importlib.metadata.version(name) for name in peers.PACKAGES if _is_installed(name)}
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def numbers(text: str) -> list[int]:
    """Read a list of numbers."""
    return [int(one) for one in text.split(",")]


def names(text: str) -> list[str]:
    """Read a list of peers."""
    groups = {"all": list(PEERS), "none": [], "documented": list(DOCUMENTED), "store-only": list(STORE_ONLY)}
    wanted = groups.get(text) or ([] if text == "none" else text.split(","))
    if unknown := set(wanted) - set(PEERS):
        raise argparse.ArgumentTypeError(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    return wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=numbers, default=list(SIZES), help="messages of history")
    parser.add_argument("--turns", type=int, default=100, help=f"turns of each side at each size, in blocks of {BLOCK}")
    parser.add_argument("--beside", type=int, default=200_000, help="messages of others in a further run; 0: none")
    parser.add_argument("--peers", type=names, default=list(PEERS), help="all, none, documented, store-only, or names")
    parser.add_argument("--dir", type=Path, default=Path(), help="a directory on a real disk; by default this one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    options = parser.parse_args(arguments)
    refuse_memory(parser, options.dir)
    if options.turns < BLOCK or min(options.sizes) < BLOCK:
        parser.error(f"turns and sizes begin at {BLOCK}")
    watch()
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    chosen = [*OWN, *options.peers]
    with tempfile.TemporaryDirectory(prefix="context-", dir=options.dir) as folder:
        bench = Bench(Path(folder), options.turns, chosen)
        try:
            for messages in sorted(options.sizes):
                bench.at(messages)
            if options.beside:
                bench.at(BESIDE_SIZE, options.beside)
        finally:
            bench.close()
    found = Outcome(
        machine=f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, load {load} at the beginning",
        filesystem=filesystem(options.dir),
        versions=versions(chosen),
        spoken_bytes=SPOKEN_BYTES,
        costs=[one.figures() for one in bench.costs],
        left_out=bench.left_out,
    )
    if options.json:
        print(json.dumps(asdict(found), indent=2))
    elif options.markdown:
        show_page(found)
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

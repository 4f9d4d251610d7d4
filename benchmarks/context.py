"""What one turn costs at a given length of history:
`python benchmarks/context.py [--sizes 100,1000,...] [--turns N] [--beside 200000] [--peers WHICH] [--json]`.

*The floor* is what a script without this package would do that keeps its history on the disk: it reads the newest
messages that fit by counts which it stored with them, posts them with a shared ``requests.Session``, and writes line
and reply with ``sqlite3`` in two synced commits. *Ours* is ``session.send`` over the HTTP client and the database that
``Roleplay.open`` uses. The peers are other libraries that keep conversations, each *as documented*, through the front
door that its documentation shows, and *store only*, with its store alone and the client of the floor:
`benchmarks/documented.py` and `benchmarks/peers.py` say how. A turn is about 300 tokens and the budget 8,000 for
everybody who has one. Histories are filled in SQL, or by a peer's own calls.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import peers
from common import (
    FLOOR_SCHEMA,
    HUMAN,
    LONG_REPLY,
    MODEL,
    PERSONA,
    Floor,
    Ours,
    Server,
    assert_durable,
    filesystem,
    markdown,
    plain,
    refuse_memory,
)
from documented import DOCUMENTED
from longpast import grow
from peers import (
    BUDGET_TOKENS,
    OTHER,
    ROOM,
    STORE_ONLY,
    SYSTEM,
    WINDOW,
    Side,
    Tally,
    UnableError,
    about,
    fitting,
    spoken,
)

from roleplay import EstimatingCounter, SessionSettings

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
SPOKEN_BYTES = len(HUMAN.encode()) + len(LONG_REPLY.encode())
GROWTH_TARGET = 2 * SPOKEN_BYTES + 2_048
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
CONNECT = sqlite3.connect


class Watched(sqlite3.Connection):
    """A connection that can be found by its file, whoever opened it."""

    opened: WeakSet[Watched] = WeakSet()
    factories: dict[str, Callable[[Any], Any]] = {}

    def __init__(self, database: Any, *values: Any, **named: Any) -> None:
        super().__init__(database, *values, **named)
        self.file = Path(str(database)).name
        if made := Watched.factories.get(self.file):
            self.row_factory = made(None)
        Watched.opened.add(self)

    @classmethod
    def of(cls, path: Path) -> list[Watched]:
        """Find the open connections to a file."""
        return [one for one in cls.opened if one.file == path.name and _is_open(one)]


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        return connection.execute("SELECT 1").fetchone() is not None
    except sqlite3.ProgrammingError:
        return False


def watch() -> None:
    """Let every connection that is opened from now on be a watched one."""

    def connect(database: Any, *values: Any, **named: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = CONNECT(database, *values, **{"factory": Watched} | named)
        return made

    sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[assignment]


class FloorSide(Floor):
    """The floor with more than one conversation, and with its history on the disk."""

    schema = FLOOR_SCHEMA + (
        "ALTER TABLE messages ADD COLUMN session INTEGER; ALTER TABLE messages ADD COLUMN tokens INTEGER;"
        "CREATE INDEX of_session ON messages (session, id);"
    )

    def __init__(self, path: Path, url: str) -> None:
        super().__init__(path, url)
        self.tally = Tally()
        self._about = self.tally.over(about)
        self._said = 0

    def keep(self, turn: int | None, role: str, name: str, text: str) -> None:
        insert = "INSERT INTO messages (turn_id, role, name, text, session, tokens) VALUES (?, ?, ?, ?, 1, ?)"
        self.db.execute(insert, (turn, role, name, text, self._about(text)))

    def sends(self, past: int) -> range:
        """As those who cut to a budget."""
        return fitting(past)

    def fill(self, messages: int) -> None:
        """Give the conversation a past."""
        self._fill(1, messages)

    def _fill(self, session: int, messages: int) -> None:
        insert = "INSERT INTO messages (turn_id, role, name, text, session, tokens) VALUES (?, ?, ?, ?, ?, ?)"
        for chunk in spoken(messages):
            self.db.execute("BEGIN IMMEDIATE")
            for line, reply in chunk:
                turn = self.db.execute(
                    "INSERT INTO turns VALUES (NULL, 'completed', 7000, 190, 7190, datetime(), datetime())"
                ).lastrowid
                self.db.execute(insert, (turn, "user", "Traveler", line, session, about(line)))
                self.db.execute(insert, (turn, "assistant", PERSONA.name, reply, session, about(reply)))
            self.db.execute("COMMIT")

    def beside(self, messages: int) -> None:
        """Write other conversations."""
        for number in range(messages // OTHER):
            self._fill(2 + number, OTHER)

    def turn(self) -> None:
        """Read what fits, post, keep."""
        self._said += 1
        text = HUMAN.format(self._said)
        left, past = ROOM - self._about(text), []
        newest = "SELECT role, name, text, tokens FROM messages WHERE session = 1 ORDER BY id DESC"
        with closing(self.db.execute(newest)) as rows:
            for role, name, said, tokens in rows:
                left -= tokens
                if left < 0:
                    break
                past.append({"role": role, "name": name, "content": said})
        past.append({"role": "system", "name": PERSONA.name, "content": SYSTEM})
        human = {"role": "user", "name": "Traveler", "content": text}
        self.say({"model": MODEL, "messages": [*reversed(past), human], "stream": False})

    def close(self) -> None:
        """Close the database."""
        self.db.close()


class Counting(EstimatingCounter):
    """The counter of ``Roleplay.open``, with a tally."""

    def __init__(self, tally: Tally) -> None:
        self._count = tally.over(super().count)

    def count(self, text: str) -> int:
        return self._count(text)


class OurSide(Ours):
    """A session of ours that begins with a past."""

    def __init__(self, path: Path, url: str) -> None:
        self.tally = Tally()
        base_url = url.removesuffix("/chat/completions")
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
        super().__init__(path, base_url, settings, counter=Counting(self.tally))

    def sends(self, past: int) -> range:
        """From a low-water mark up to what fits, with the system's words and the examples in messages of their own."""
        return range(min(past, WINDOW // 3), WINDOW + 12)

    def fill(self, messages: int) -> None:
        """Say two things and copy the second."""
        for _ in range(2):
            self.turn()
        grow(self.database, self.session, messages)

    def beside(self, messages: int) -> None:
        """Write other sessions."""
        for _ in range(messages // OTHER):
            session = self.new_session()
            for number in range(2):
                session.send(HUMAN.format(number))
            grow(self.database, session, OTHER)


OWN: dict[str, Callable[[Path, str], Side]] = {"floor": FloorSide, "ours": OurSide}


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


def used(path: Path) -> int:
    """Give the bytes of the pages that a database uses, with those that its log still holds."""
    with closing(sqlite3.Connection(path)) as looking:
        pages, free, size = (
            looking.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


def settle(path: Path) -> None:
    """Bring what was filled from the log into the database, so that no turn has to."""
    with closing(sqlite3.Connection(path)) as looking:
        looking.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def disk_written() -> int:
    """Give the bytes that this process made the disk write, where the system tells; else 0."""
    told = Path("/proc/self/io")
    lines = told.read_text(encoding="ascii").splitlines() if told.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes")), 0)


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
            self.cost = Cost(name, messages, beside, _settings(connections))
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
        with _rows(self._path) as seen:
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


def _settings(connections: Sequence[sqlite3.Connection]) -> str:
    found = {
        f"{one.execute('PRAGMA journal_mode').fetchone()[0]}, "
        f"{SYNCHRONOUS[one.execute('PRAGMA synchronous').fetchone()[0]]}"
        for one in connections
    }
    return " and ".join(sorted(found))


@contextmanager
def _rows(path: Path) -> Iterator[list[int]]:
    """Count the rows that the connections to a file give, whenever they are opened, and the bytes of text in them."""
    seen = [0, 0]
    connections = Watched.of(path)
    before = [one.row_factory for one in connections]

    def factory(made: Any) -> Callable[[sqlite3.Cursor, tuple[Any, ...]], Any]:
        def row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Any:
            seen[0] += 1
            seen[1] += sum(len(value) for value in values if isinstance(value, str | bytes))
            return values if made is None else made(cursor, values)

        return row

    for one, made in zip(connections, before, strict=True):
        one.row_factory = factory(made)
    Watched.factories[path.name] = factory
    try:
        yield seen
    finally:
        del Watched.factories[path.name]
        for one, made in zip(connections, before, strict=True):
            one.row_factory = made


@dataclass(frozen=True)
class Outcome:
    """What one run of this program found."""

    machine: str
    filesystem: str
    versions: dict[str, str]
    spoken_bytes: int
    costs: list[dict[str, Any]]
    left_out: list[str]


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


HEAD = ["history", "side", "turns", "wall, median", "wall, p95", "CPU", "growth", "of text", "written", "rows", "read",
        "counted", "request", "messages", "journal, synchronous"]  # fmt: skip


def _length(one: dict[str, Any]) -> str:
    return f"{one['messages']:,}" + (f" beside {one['beside']:,}" if one["beside"] else "")


def rows(found: Outcome, only: int | None = None) -> list[list[str]]:
    """Give the rows of the table, or those of one length alone; times in milliseconds."""
    return [
        [
            _length(one),
            one["side"],
            str(one["turns"]),
            *(f"{one[name]:,.2f}" for name in ("wall_median_ms", "wall_p95_ms", "cpu_ms")),
            f"{one['growth_bytes']:,.0f}",
            f"{one['growth_of_text']:.2f}",
            *(f"{one[name]:,.0f}" for name in ("written_bytes", "rows", "read_bytes", "tokens_counted")),
            f"{one['request_bytes']:,.0f}",
            f"{one['request_messages']:,.0f}",
            one["settings"],
        ]
        for one in found.costs
        if only is None or (one["messages"] == only and not one["beside"])
    ]


def by_length(found: Outcome) -> tuple[list[str], list[list[str]]]:
    """Give a table of times: a row for each side, a column for each length."""
    cells = {(one["side"], _length(one)): one for one in found.costs}
    lengths, sides = (list(dict.fromkeys(key[place] for key in cells)) for place in (1, 0))

    def cell(side: str, length: str) -> str:
        one = cells.get((side, length))
        return f"{one['wall_median_ms']:,.1f} / {one['cpu_ms']:,.1f}" if one else ""

    return ["wall / CPU, ms", *lengths], [[side, *(cell(side, length) for length in lengths)] for side in sides]


def show_page(found: Outcome) -> None:
    """Print an outcome for a page: times by length, and everything at the length that most sides could stand."""
    lengths = [one["messages"] for one in found.costs if not one["beside"]]
    chosen = max(lengths, key=lambda length: (lengths.count(length), length))
    print(f"{told(found)}\n\n{markdown(*by_length(found))}\n\nAt {chosen:,} messages, a turn:\n")
    head, *lines = ([row[1], *row[3:]] for row in (HEAD, *rows(found, chosen)))
    print(f"{markdown(head, lines)}\n")
    show_verdict(found)


def show(found: Outcome) -> None:
    """Print an outcome for a terminal."""
    print(f"{told(found)}\ntimes in milliseconds, the rest in bytes, rows and tokens a turn\n")
    print(f"{plain(HEAD, rows(found))}\n")
    show_verdict(found)


def told(found: Outcome) -> str:
    """Say what was measured and where."""
    where = f"{found.machine}; databases on {found.filesystem}; {found.spoken_bytes:,} bytes are said in a turn"
    return f"{where}\n{', '.join(f'{name} {version}' for name, version in found.versions.items())}"


def show_verdict(found: Outcome) -> None:
    """Print what was left out, and whether we keep to what we promise."""
    for line in found.left_out:
        print(f"left out: {line}")
    ours = [one for one in found.costs if one["side"] == "ours"]
    most = max(one["growth_bytes"] for one in ours)
    print(f"\nours grows by at most {most:,.0f} bytes a turn: ", end="")
    print(f"{'within' if most <= GROWTH_TARGET else 'ABOVE'} twice the text and 2 KB, {GROWTH_TARGET:,}")
    floor = {_length(one): one for one in found.costs if one["side"] == "floor"}
    for name, what in (("wall_median_ms", "wall"), ("cpu_ms", "CPU")):
        ratios = (f"{one[name] / floor[_length(one)][name]:.2f} at {_length(one)}" for one in ours)
        print(f"{what}, ours to floor: {', '.join(ratios)}")


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

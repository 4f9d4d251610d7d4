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
import base64
import json
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import requests

from roleplay import ChatSession, Database, Dialect, Endpoint, Persona, Roleplay, SessionSettings
from roleplay.chat.sync import RequestsTransport

KEY = "benchmark-key"
MODEL = "MiniMax-M2.7"
BUDGET_TOKENS = 6_200  # room for about 40 messages of history on average, as the window moves
WARM_UP = 200
BLOCK = 20
COUNTED = 40
MOST_CPU = 2.5
CHUNK_CHARS = 40
HUMAN = (
    "Master, the scouts say that the river has risen above the second marker and that the ferrymen have gone to the "
    "hills. If the grain is late again, how long do you think the garrison can hold the pass before winter? ({})"
)
REPLY = (
    "*He turns the cup in his hands and looks at the snow on the sill.* A garrison does not hold a pass with grain; it "
    "holds with the belief that grain is coming. Send forty carts, half of them empty, by the upper road at noon, "
    "where every hungry man can count them. Then send the full ones by night. The river will fall when the wind turns, "
    "and the wind turns at the third watch. Now drink your tea. You have asked me about winter, and not yet why."
)
PERSONA = Persona(
    "Zhuge Liang",
    "Chancellor of Shu. Calm, exact, fond of parables; he answers a question with the question behind it. He knows the "
    "roads, the rivers and the grain of four provinces by heart and pretends to know only the weather.",
    greetings=["You have come through snow, {{user}}. Sit."],
    examples=[
        "{{user}}: Will it rain before the feast?\n{{char}}: The wind turns at the third watch. Bring a cloak.",
        "{{user}}: They outnumber us three to one.\n{{char}}: Then each of them has two to trip over. Open the gates.",
    ],
)
USER = Persona("Traveler", "A student who walked for nine days to ask one question and has since thought of more.")
SCENE = "Longzhong, winter of 207. A hut, a low fire, a map under the tea things."
FLOOR_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE turns (id INTEGER PRIMARY KEY, status TEXT, prompt_tokens INTEGER, completion_tokens INTEGER,
                    total_tokens INTEGER, created_at TEXT, ended_at TEXT);
CREATE TABLE messages (id INTEGER PRIMARY KEY, turn_id INTEGER REFERENCES turns, role TEXT, name TEXT, text TEXT);
"""


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


class Floor:
    """The least that a turn could be: raw ``requests``, raw ``sqlite3``."""

    def __init__(self, path: Path, url: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(FLOOR_SCHEMA)
        self.db.execute("PRAGMA synchronous = FULL")
        self._url = url
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {KEY}"

    def turn(self, asked: dict[str, Any]) -> None:
        """Post what ``asked`` says, and keep its last message and the reply."""
        db, human = self.db, asked["messages"][-1]
        db.execute("BEGIN IMMEDIATE")
        turn = db.execute("INSERT INTO turns (status, created_at) VALUES ('pending', datetime())").lastrowid
        insert = "INSERT INTO messages (turn_id, role, name, text) VALUES (?, ?, ?, ?)"
        db.execute(insert, (turn, "user", human["name"], human["content"]))
        db.execute("COMMIT")
        body = json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        with self._http.post(self._url, data=body, headers=headers, timeout=60, stream=asked["stream"]) as answer:
            answer.raise_for_status()
            text, usage = _streamed(answer) if asked["stream"] else _whole(answer)
        db.execute("BEGIN IMMEDIATE")
        db.execute(insert, (turn, "assistant", PERSONA.name, text))
        db.execute(
            "UPDATE turns SET status = 'completed', prompt_tokens = ?, completion_tokens = ?, total_tokens = ?, "
            "ended_at = datetime() WHERE id = ?",
            (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"], turn),
        )
        db.execute("COMMIT")


def _whole(answer: requests.Response) -> tuple[str, dict[str, int]]:
    reply = answer.json()
    return reply["choices"][0]["message"]["content"], reply["usage"]


def _streamed(answer: requests.Response) -> tuple[str, dict[str, int]]:
    parts: list[str] = []
    usage: dict[str, int] = {}
    for line in answer.iter_lines(chunk_size=None):
        if not line.startswith(b"data: ") or line == b"data: [DONE]":
            continue
        chunk = json.loads(line[6:])
        parts += [choice["delta"].get("content", "") for choice in chunk["choices"]]
        usage = chunk.get("usage") or usage
    return "".join(parts), usage


class Ours:
    """A session as ``Roleplay.open`` makes it, but for two things that the measurement wants to hold in its hands."""

    def __init__(self, path: Path, base_url: str, *, stream: bool) -> None:
        url = f"sqlite:///{path}"
        endpoint = Endpoint(MODEL, base_url=base_url, api_key=KEY, dialect=Dialect.MINIMAX)
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
        Roleplay.open(url, model=endpoint, migrate="auto").close()
        self.database = Database.open(url)
        self._transport = RequestsTransport()
        engine = Roleplay(self.database, self._transport, endpoint=endpoint, settings=settings)
        persona, user = engine.personas.put(PERSONA), engine.personas.put(USER)
        self._session: ChatSession = engine.sessions.create(cast=[persona], user=user, scene=SCENE)
        self._stream = stream
        self._said = 0

    def turn(self) -> None:
        """Say something and wait for all of the reply."""
        self._said += 1
        text = HUMAN.format(self._said)
        if self._stream:
            with self._session.stream(text) as reply:
                for _ in reply:
                    pass
        else:
            self._session.send(text)

    @contextmanager
    def driver(self) -> Iterator[sqlite3.Connection]:
        """Lend the one pooled connection, as ``sqlite3`` knows it."""
        lent = self.database.engine.raw_connection()
        with closing(lent):
            connection: Any = lent.driver_connection
            yield connection

    def close(self) -> None:
        """Close the client and the database."""
        self._transport.close()
        self.database.close()


class Server:
    """The server as a process of its own. It writes each body that it takes to ``record``, in base64, one a line."""

    def __init__(self, record: Path, *, simulator: bool) -> None:
        self._record = record
        self._read = 0
        record.touch()
        if simulator:
            command = ["-m", "roleplay.testing.simulator", "--key", KEY, "--record", str(record)]
        else:
            command = [__file__, "--serve", str(record)]
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()
        if not self.base_url:
            raise SystemExit("the server did not start")

    def bodies(self, number: int) -> list[dict[str, Any]]:
        """Give the bodies that came since the last call, of which there are ``number``."""
        while True:
            lines = self._record.read_bytes()[self._read :].splitlines(keepends=True)
            if len(lines) >= number and lines[-1].endswith(b"\n"):
                break
            time.sleep(0.001)
        self._read += sum(map(len, lines))
        return [json.loads(base64.b64decode(line)) for line in lines]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def serve(record: Path) -> None:
    """Answer every POST on loopback with the same reply, streamed where the body asks for it, until the input ends."""
    usage = {"prompt_tokens": 4000, "completion_tokens": 110, "total_tokens": 4110}
    common = {"id": "0" * 32, "created": 1_776_838_946, "model": MODEL}
    flags = {"input_sensitive": False, "output_sensitive": False, "input_sensitive_type": 0, "output_sensitive_type": 0}
    said = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REPLY}}
    base = {"status_code": 0, "status_msg": ""}
    whole = {"choices": [said], **common, "object": "chat.completion", "usage": usage, **flags, "base_resp": base}
    body = json.dumps(whole).encode()
    head = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n{}\r\n\r\n"
    at_once = [head.format("application/json", f"Content-Length: {len(body)}").encode() + body]
    pieces = [REPLY[start : start + CHUNK_CHARS] for start in range(0, len(REPLY), CHUNK_CHARS)]
    chunks = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}}]} for piece in pieces]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    events = [{**chunk, **common, "object": "chat.completion.chunk", **flags} for chunk in chunks]
    events.append({"choices": [], **common, "object": "chat.completion.chunk", "usage": usage, **flags})
    lines = [*(f"data: {json.dumps(one)}\n\n" for one in events), "data: [DONE]\n\n"]
    in_pieces = [head.format("text/event-stream", "Transfer-Encoding: chunked").encode()]
    in_pieces += [f"{len(line):x}\r\n{line}\r\n".encode() for line in lines]
    in_pieces[-1] += b"0\r\n\r\n"

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as asked, record.open("ab", buffering=0) as kept:
            while asked.readline():
                length = 0
                while (line := asked.readline().strip()) != b"":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                came = asked.read(length)
                for piece in in_pieces if came.endswith(b'"stream":true}') or b'"stream":true,' in came else at_once:
                    connection.sendall(piece)
                kept.write(base64.b64encode(came) + b"\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        sys.stdin.read()


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


def size(driver: sqlite3.Connection) -> int:
    """Give the bytes of a database, with what its log still holds."""
    pages, page_size = (driver.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages * page_size)


def assert_durable(driver: sqlite3.Connection) -> None:
    """Read back that every commit waits for the disk."""
    settings = {name: driver.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    if settings != {"journal_mode": "wal", "synchronous": 2}:
        raise SystemExit(f"the database is not as it should be: {settings}")


def filesystem(folder: Path) -> str:
    """Give the type of the filesystem that ``folder`` lies on, where the system tells."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown"
    entries = [line.split()[1:3] for line in mounts.read_text(encoding="utf-8").splitlines()]
    over = [(place, kind) for place, kind in entries if folder.resolve().is_relative_to(place)]
    return max(over, key=lambda entry: len(entry[0]))[1] if over else "unknown"


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
    ours = Ours(folder / "ours.db", f"{server.base_url}/v1", stream=stream)
    floor = Floor(folder / "floor.db", f"{server.base_url}/v1/chat/completions")
    floor_cost, our_cost = Measured(), Measured()
    cpu_ratios, wall_ratios, sizes, lengths = [], [], [], []

    def block(number: int, floor_into: Measured, ours_into: Measured) -> list[dict[str, Any]]:
        for _ in range(number):
            timed(ours.turn, ours_into)
        asked = server.bodies(number)
        for body in asked:
            timed(partial(floor.turn, body), floor_into)
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
    parser.add_argument("--serve", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return 0
    if filesystem(options.dir) in {"tmpfs", "ramfs"}:
        parser.error(f"{options.dir.resolve()} is in memory, where a synced commit costs nothing; name another --dir")
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

"""What the benchmarks share: the words that are said, the floor, a session of ours, the server, the look at the disk.

Run as a program, it is the server: `python benchmarks/common.py RECORD REPLY KEEP`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import requests

from roleplay import (
    ChatSession,
    Counter,
    Database,
    Dialect,
    Endpoint,
    EstimatingCounter,
    Persona,
    Roleplay,
    SessionSettings,
)
from roleplay.chat.sync import RequestsTransport

KEY = "benchmark-key"
MODEL = "MiniMax-M2.7"
CHUNK_CHARS = 40
FLAGS = {"": False, "_type": 0}
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
LONG_REPLY = (
    f"{REPLY} When I was your age I asked a ferryman how he knew the depth of a river that nobody had measured. He "
    "said: I do not know the depth, I know the places where men have drowned. A map of fear is also a map. Draw me "
    "yours, and leave out the roads; roads are where others have been. *He pushes the brush across the table.*"
)
"""With ``HUMAN`` about 300 tokens a turn, as in prose. With ``TALK=short`` in the environment it is about 90, as in
chats, and a budget holds three times as many messages."""
if os.environ.get("TALK") == "short":
    HUMAN = "If the grain is late again, how long can the garrison hold the pass? Winter is near. ({})"
    LONG_REPLY = (
        "*He turns the cup.* A garrison does not hold a pass with grain; it holds with the belief that grain comes. "
        "Send forty carts by the upper road at noon, half of them empty, and the others by night. Now drink your tea."
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
Said = tuple[str, dict[str, int]]
"""A reply's text and its usage."""


class Floor:
    """The least that a turn could be: raw ``requests``, raw ``sqlite3``."""

    schema = FLOOR_SCHEMA

    def __init__(self, path: Path, url: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(self.schema)
        self.db.execute("PRAGMA synchronous = FULL")
        self._post = poster(url)

    def say(self, asked: dict[str, Any]) -> None:
        """Post what ``asked`` says, and keep its last message and the reply."""
        db, human = self.db, asked["messages"][-1]
        db.execute("BEGIN IMMEDIATE")
        turn = db.execute("INSERT INTO turns (status, created_at) VALUES ('pending', datetime())").lastrowid
        self.keep(turn, "user", human["name"], human["content"])
        db.execute("COMMIT")
        text, usage = self._post(asked)
        db.execute("BEGIN IMMEDIATE")
        self.keep(turn, "assistant", PERSONA.name, text)
        db.execute(
            "UPDATE turns SET status = 'completed', prompt_tokens = ?, completion_tokens = ?, total_tokens = ?, "
            "ended_at = datetime() WHERE id = ?",
            (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"], turn),
        )
        db.execute("COMMIT")

    def keep(self, turn: int | None, role: str, name: str, text: str) -> None:
        """Write a message."""
        insert = "INSERT INTO messages (turn_id, role, name, text) VALUES (?, ?, ?, ?)"
        self.db.execute(insert, (turn, role, name, text))


def poster(url: str) -> Callable[[dict[str, Any]], Said]:
    """Give what posts a request to ``url`` over one shared ``requests.Session`` and gives the reply."""
    http = requests.Session()
    http.headers["Authorization"] = f"Bearer {KEY}"

    def post(asked: dict[str, Any]) -> Said:
        body = json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        with http.post(url, data=body, headers=headers, timeout=60, stream=asked["stream"]) as answer:
            answer.raise_for_status()
            return _streamed(answer) if asked["stream"] else _whole(answer)

    return post


def _whole(answer: requests.Response) -> Said:
    reply = answer.json()
    return reply["choices"][0]["message"]["content"], reply["usage"]


def _streamed(answer: requests.Response) -> Said:
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
    """A session as ``Roleplay.open`` makes it, but for what the measurement wants to hold in its hands."""

    def __init__(
        self,
        path: Path,
        base_url: str,
        settings: SessionSettings,
        *,
        stream: bool = False,
        counter: Counter | None = None,
    ) -> None:
        url = f"sqlite:///{path}"
        endpoint = Endpoint(MODEL, base_url=base_url, api_key=KEY, dialect=Dialect.MINIMAX)
        Roleplay.open(url, model=endpoint, migrate="auto").close()
        self.database = Database.open(url)
        self._transport = RequestsTransport()
        counter = counter or EstimatingCounter()
        self.engine = Roleplay(self.database, self._transport, endpoint=endpoint, settings=settings, counter=counter)
        self.persona, self.user = self.engine.personas.put(PERSONA), self.engine.personas.put(USER)
        self.session = self.new_session()
        self._stream = stream
        self._said = 0

    def new_session(self) -> ChatSession:
        """Create a session."""
        return self.engine.sessions.create(cast=[self.persona], user=self.user, scene=SCENE)

    def turn(self) -> None:
        """Say something and wait for all of the reply."""
        self._said += 1
        text = HUMAN.format(self._said)
        if self._stream:
            with self.session.stream(text) as reply:
                for _ in reply:
                    pass
        else:
            self.session.send(text)

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
    """The server as a process of its own. Of each body that it takes it writes a line to ``record``: the body in
    base64, or, with ``keep="lengths"``, how many bytes and how many messages it had."""

    def __init__(self, record: Path, *, simulator: bool = False, reply: str = REPLY, keep: str = "bodies") -> None:
        self._record = record
        self._read = 0
        record.touch()
        if simulator:
            command = ["-m", "roleplay.testing.simulator", "--key", KEY, "--record", str(record)]
        else:
            command = [__file__, str(record), reply, keep]
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()
        if not self.base_url:
            raise SystemExit("the server did not start")

    def bodies(self, number: int) -> list[dict[str, Any]]:
        """Give the bodies that came since the last call, of which there are ``number``."""
        return [json.loads(base64.b64decode(line)) for line in self._lines(number)]

    def lengths(self, number: int) -> list[tuple[int, int]]:
        """Give the bytes and the messages of the bodies that came since the last call, at least ``number``."""
        return [(int(length), int(messages)) for length, messages in map(bytes.split, self._lines(number))]

    def last(self) -> Any:
        """Wait until all that was answered is recorded, and give the body that came last."""
        return requests.get(self.base_url, timeout=60).json()

    def _lines(self, number: int) -> list[bytes]:
        while True:
            with self._record.open("rb") as record:
                record.seek(self._read)
                lines = record.read().splitlines(keepends=True)
            if len(lines) >= number and (not lines or lines[-1].endswith(b"\n")):
                break
            time.sleep(0.001)
        self._read += sum(map(len, lines))
        return lines

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


class FixedReply:
    """The bytes of an answer that says ``reply``, whole and streamed. A token of the prompt is four bytes of the body,
    which costs the server next to nothing to count."""

    _PROMPT, _TOTAL = 11_111_111, 22_222_222  # as wide as what takes their place, so that no length changes

    def __init__(self, reply: str) -> None:
        self._completion = len(reply) // 4
        usage = {"prompt_tokens": self._PROMPT, "completion_tokens": self._completion, "total_tokens": self._TOTAL}
        common = {"id": "0" * 32, "created": 1_776_838_946, "model": MODEL}
        end = {f"{side}_sensitive{what}": value for side in ("input", "output") for what, value in FLAGS.items()}
        said = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
        base = {"status_code": 0, "status_msg": ""}
        whole = {"choices": [said], **common, "object": "chat.completion", "usage": usage, **end, "base_resp": base}
        body = json.dumps(whole).encode()
        head = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n{}\r\n\r\n"
        self._at_once = [head.format("application/json", f"Content-Length: {len(body)}").encode() + body]
        pieces = [reply[start : start + CHUNK_CHARS] for start in range(0, len(reply), CHUNK_CHARS)]
        chunks = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}}]} for piece in pieces]
        chunks[-1]["choices"][0]["finish_reason"] = "stop"
        events = [{**chunk, **common, "object": "chat.completion.chunk", **end} for chunk in chunks]
        events.append({"choices": [], **common, "object": "chat.completion.chunk", "usage": usage, **end})
        lines = [*(f"data: {json.dumps(one)}\n\n" for one in events), "data: [DONE]\n\n"]
        self._in_pieces = [head.format("text/event-stream", "Transfer-Encoding: chunked").encode()]
        self._in_pieces += [f"{len(line):x}\r\n{line}\r\n".encode() for line in lines]
        self._in_pieces[-1] += b"0\r\n\r\n"

    def to(self, asked: bytes) -> Iterator[bytes]:
        """Give what to send for a request's body, piece by piece."""
        prompt = len(asked) // 4
        counts = {self._PROMPT: prompt, self._TOTAL: prompt + self._completion}
        stream = asked.endswith(b'"stream":true}') or b'"stream":true,' in asked
        for piece in self._in_pieces if stream else self._at_once:
            sent = piece
            if b'"prompt_tokens"' in piece:
                for place, count in counts.items():
                    sent = sent.replace(b"%d" % place, b"%8d" % count)
            yield sent


class Received:
    """The body that came last, once all that came are recorded."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = 0
        self._last = b"null"

    @contextmanager
    def taking(self, body: bytes) -> Iterator[None]:
        """Hold ``body`` while it is answered and recorded."""
        with self._changed:
            self._open += 1
            self._last = body
        try:
            yield
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def last(self) -> bytes:
        """Wait until nothing is left to record, and give the body that came last."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open)
            return self._last


def serve(record: Path, reply: str, keep: str) -> None:
    """Answer every POST on loopback with ``reply``, streamed where the body asks for it, until the input ends. A GET
    is answered with the body that came last. What a record says of a body is written after the answer."""
    fixed = FixedReply(reply)
    received = Received()

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as asked, record.open("ab", buffering=0) as kept:
            while line := asked.readline():
                looks = line.startswith(b"GET ")
                length = 0
                while (line := asked.readline().strip()) != b"":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                came = asked.read(length)
                if looks:
                    body = received.last()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                    continue
                with received.taking(came):
                    for piece in fixed.to(came):
                        connection.sendall(piece)
                    about = b"%d %d" % (length, came.count(b'"role":'))
                    kept.write((about if keep == "lengths" else base64.b64encode(came)) + b"\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        sys.stdin.read()


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


def refuse_memory(parser: argparse.ArgumentParser, folder: Path) -> None:
    """End the program where ``folder`` is no disk."""
    if filesystem(folder) in {"tmpfs", "ramfs"}:
        parser.error(f"{folder.resolve()} is in memory, where a synced commit costs nothing; name another --dir")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a table for a page, its first column of words and the others of figures."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a table for a terminal."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in cells)
        for cells in ([*enumerate(zip(row, widths, strict=True))] for row in (head, *rows))
    )


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

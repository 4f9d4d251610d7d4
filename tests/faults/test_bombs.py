"""Few bytes that become many, and many values in one document, cost a process neither its memory nor its loop."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIB = 2**20
CHOICE = b'{"index":%d,"message":{"role":"assistant","content":"Snow."}}'


def packed(piece: bytes, times: int, before: bytes = b"") -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(before), *(packer.compress(piece) for _ in range(times)), packer.flush()])


def twice(piece: bytes, times: int) -> bytes:
    return packed(packed(piece, times), 1)


BOMBS = {
    "gzip twice": (b"gzip, gzip", lambda: twice(b"a" * MIB, 40)),
    "gzip": (b"gzip", lambda: packed(b"a" * MIB, 40)),
    "json of blanks": (b"gzip", lambda: packed(b" " * MIB, 40, b"{")),
    "one event": (b"gzip", lambda: packed(b"a" * MIB, 40, b"data: ")),
    "many events": (b"gzip", lambda: packed(b"data:{}\n\n" * 100_000, 5)),
    "many comments": (b"gzip", lambda: packed(b":\n" * 500_000, 5)),
    "many deltas": (b"gzip", lambda: packed(b'data:{"choices":[{"delta":{"content":"Snow. "}}]}\n\n' * 10_000, 5)),
    "many choices": (b"identity", lambda: b'{"choices":[' + b",".join(CHOICE % n for n in range(240_000)) + b"]}"),
    "many objects": (b"identity", lambda: b'{"a":[' + b"{}," * 1_300_000 + b"{}]}"),
}


@contextmanager
def served(coding: bytes, body: bytes) -> Iterator[int]:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(body))

    def talk() -> None:
        try:
            while True:
                there, _ = server.accept()
                with there:
                    there.recv(65536)
                    there.sendall(head + body)
                    there.recv(65536)
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=talk, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("shell", ["sync", "asyncio"])
def test_bombs(sqlite_url: str, shell: str) -> None:
    """The process stays below 200 MB, the loop turns, and each turn ends with an error of ours."""
    streamed = {name for name in BOMBS if any(word in name for word in ("event", "delta", "comment"))}
    with ExitStack() as servers:
        ports = {name: servers.enter_context(served(*bodies(name))) for name in BOMBS}
        asked = [f"{'stream' if name in streamed else 'send'}:{port}" for name, port in ports.items()]
        command = [sys.executable, "-m", "tests.support.bombed", shell, sqlite_url, *asked]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name, line in zip(BOMBS, done.stdout.splitlines(), strict=True):
        told = json.loads(line)
        assert told["error"] in {"bad_reply", "chat_unavailable"}, name
        assert told["peak_mib"] < 200, name
        assert told["blocked_s"] < 0.3, name


@cache
def bodies(name: str) -> tuple[bytes, bytes]:
    """Give the coding and the body of one."""
    coding, make = BOMBS[name]
    return coding, make()

"""A host that lets few connections wait to be accepted: ``python -m tests.support.narrow WAITING SECONDS``.

Its first line of output is its address. Each request is answered after SECONDS with a stream of two pieces, and the
connection is closed. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.many_streams import allow_files

ROOT = Path(__file__).parents[2]
SAID = "The ford is free."
FILES = 12_000


class Narrow:
    """The host in a process of its own."""

    def __init__(self, waiting: int, seconds: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.narrow", str(waiting), str(seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the process."""
        self._process.communicate("", timeout=10)


def chunk(text: str, finish: str | None = None) -> bytes:
    """An event of a stream."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14} if finish else None
    event = {"object": "chat.completion.chunk", "choices": [choice], "usage": usage}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def serve(waiting: int, seconds: float) -> None:
    """Answer until the input ends."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
            await asyncio.sleep(seconds)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            writer.write(chunk(SAID[:9]) + chunk(SAID[9:], "stop") + b"data: [DONE]\n\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=waiting)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    allow_files(FILES)
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))

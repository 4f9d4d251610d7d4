"""llama.cpp's own HTTP server, as the toy runs it, with a chat template of a test's.

As a program (``python template_server.py TEMPLATE_FILE``) it writes its address to its standard output and serves until
its standard input is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roleplay.cli import toy, toy_server
from tests.support.http import Raw

TEMPLATES = Path(__file__).parent.parent / "data" / "templates"
WINDOW_TOKENS = 1024
REPLY_TOKENS = 4


class TemplateServer:
    """A running server; ``bodies`` are what it was asked since they were last cleared.

    It is asked by way of a server of raw bytes, which hands on each request as it came and each answer as it comes.
    """

    def __init__(self, base_url: str) -> None:
        self._address = ("127.0.0.1", int(base_url.rpartition(":")[2]))
        self._front = Raw(self._hand_on)
        self.direct_url = base_url
        self.base_url = self._front.url

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all requests so far."""
        return [request.partition(b"\r\n\r\n")[2] for request in self._front.heard]

    def clear(self) -> None:
        """Forget what was asked."""
        self._front.heard.clear()

    def close(self) -> None:
        """Hand nothing on any more."""
        self._front.close()

    def prompt(self, messages: list[dict[str, str]]) -> str:
        """What the template makes of messages."""
        request = urllib.request.Request(  # noqa: S310 -- loopback
            f"{self.direct_url}/apply-template",
            json.dumps({"messages": messages}).encode(),
            {"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            text: str = json.load(response)["prompt"]
        return text

    def _hand_on(self, connection: socket.socket, request: bytes) -> None:
        answer = b""
        with socket.create_connection(self._address, timeout=60) as server, contextlib.suppress(OSError):
            server.sendall(request)
            while not _is_whole(answer) and (piece := server.recv(65536)):
                answer += piece
                connection.sendall(piece)


def _is_whole(answer: bytes) -> bool:
    """Whether an HTTP answer ends here: the server keeps the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return len(body) >= int(length) if length else body.endswith(b"0\r\n\r\n")


@contextlib.contextmanager
def serving(template: str) -> Iterator[TemplateServer]:
    """Serve with a template of ``tests/data/templates``."""
    program = [sys.executable, "-P", __file__, str(TEMPLATES / f"{template}.jinja")]
    root = str(Path(__file__).parent.parent.parent)
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server = TemplateServer(process.stdout.readline().decode().strip())
        try:
            yield server
        finally:
            server.close()
            process.stdin.close()
            process.wait(10)


def main(template: Path) -> None:
    """Serve until standard input ends."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever foreign code prints is not an answer
    import xllamacpp  # noqa: PLC0415 -- only now can it no longer write into the answer

    params: Any = toy_server.parameters(xllamacpp, str(toy._weights()), WINDOW_TOKENS, REPLY_TOKENS)
    params.chat_template = template.read_text(encoding="utf-8")
    params.use_jinja = True
    params.endpoint_props = True
    server = xllamacpp.Server(params)
    with answer:
        answer.write(f"{server.listening_address}\n")
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

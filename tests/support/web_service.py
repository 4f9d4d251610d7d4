"""Serves an application of the examples under uvicorn until its input ends, and tells what is left then.

``python -m tests.support.web_service MODULE``: the first line of its output is the port, the second, at the end, what
was left as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import uvicorn

from tests.support.many_streams import open_files

ROOT = Path(__file__).parents[2]


@dataclass
class Left:
    """What was left of a service after its end: tasks, threads and files of its process, and its error output."""

    tasks: list[str]
    threads: list[str]
    files: list[str]
    said: str = ""


class Service:
    """A service in a process of its own."""

    def __init__(self, module: str, environment: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        path = os.pathsep.join([str(ROOT), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")])
        with errors.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "dev", "-m", "tests.support.web_service", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env={**os.environ, **environment, "PYTHONPATH": path},
            )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        assert port, errors.read_text()
        self.base_url = f"http://127.0.0.1:{port}"

    def end(self) -> Left:
        """Let the service end as on SIGTERM."""
        output, _ = self._process.communicate("", timeout=60)
        said = self._errors.read_text()
        assert self._process.returncode == 0, said[-4000:]
        return Left(**{**json.loads(output), "said": said})

    def kill(self) -> None:
        """End the process, however it stands."""
        self._process.kill()
        self._process.communicate()


async def serve(app: Any) -> list[str]:
    """Serve until the input ends; gives the tasks that are left."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_keep_alive=60))
    running = asyncio.create_task(server.serve([listening]))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await running
    listening.close()
    await asyncio.sleep(0.1)
    return [str(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def main(arguments: list[str]) -> None:
    """Serve a module's ``app``."""
    before = set(open_files())
    tasks = asyncio.run(serve(import_module(arguments[0]).app))
    gc.collect()
    threads = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
    files = [name for name in open_files() if name.startswith("socket:") or ".db" in name]
    sys.stdout.write(json.dumps(asdict(Left(tasks, threads, sorted(set(files) - before)))))


if __name__ == "__main__":
    main(sys.argv[1:])

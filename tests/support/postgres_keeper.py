"""The process that owns one PostgreSQL server for the tests: ``python postgres_keeper.py CONFIG_JSON``.

It is the parent of the server, takes commands over a unix socket, and goes when its last client has gone, however that
happened: a closed connection, Ctrl-C, ``kill -9``. Then it stops the server and removes the directory. It runs in a
session of its own, so that an interrupt meant for the tests does not reach it, and uses the standard library alone.

One command a line, one answer a line, both JSON: ``{"do": "start"}``, ``{"do": "stop"}``, ``{"do": "kill"}`` are
answered by ``{"ok": true, "pid": 123}`` or ``{"ok": false, "error": "…"}``. The keeper serves one command at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

#: Seconds without any client before the first has come; afterwards the keeper goes with its last client.
FIRST_CLIENT_SECONDS = 30.0
#: Seconds for the server to say that it is ready, to stop when asked, and to die when killed.
START_SECONDS = 60.0
STOP_SECONDS = 30.0
#: Seconds between two looks at a file or a process.
POLL_SECONDS = 0.01
#: The line of ``postmaster.pid`` (from 0) in which the server tells its state.
STATUS_LINE = 7


class Config(NamedTuple):
    """What the keeper is told: absolute paths, the ids the server runs under (``None``: the keeper's own), options."""

    run_dir: Path
    bin_dir: Path
    uid: int | None
    gid: int | None
    options: dict[str, str]

    @property
    def data_dir(self) -> Path:
        """Where the cluster lives."""
        return self.run_dir / "data"

    @property
    def log_path(self) -> Path:
        """What the server and ``initdb`` said."""
        return self.run_dir / "server.log"

    @property
    def control_path(self) -> Path:
        """The socket on which commands are taken."""
        return self.run_dir / "control"


class Server:
    """The PostgreSQL process and its data directory.

    Raises:
        RuntimeError: ``initdb`` or the server failed; the text ends with the last lines of the log.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Make the cluster if there is none, start the server unless it runs, wait until it takes connections."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        if not (self._config.data_dir / "PG_VERSION").exists():
            self._init()
        settings = [word for name, value in self._config.options.items() for word in ("-c", f"{name}={value}")]
        program = str(self._config.bin_dir / "postgres")
        self._process = self._popen([program, "-D", str(self._config.data_dir), *settings])
        self._wait_until_ready(self._process)
        return self._process.pid

    def stop(self) -> None:
        """Stop the server in order (its "fast" shutdown: open transactions are rolled back)."""
        self._signal_and_wait(signal.SIGINT)

    def kill(self) -> None:
        """End the server and its backends at once with SIGKILL, as a crash of the machine would."""
        if self._process is None or self._process.poll() is not None:
            return
        backends = children_of(self._process.pid)
        self._signal_and_wait(signal.SIGKILL)
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while any(alive(pid) for pid in backends) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        """End the server without keeping its data in order; unlike :meth:`kill` it frees its shared memory."""
        self._signal_and_wait(signal.SIGQUIT)

    def _init(self) -> None:
        words = [
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        program = str(self._config.bin_dir / "initdb")
        if self._popen([program, "-D", str(self._config.data_dir), *words]).wait() != 0:
            raise RuntimeError(f"initdb failed:\n{self._log_tail()}")

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with self._config.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._config.run_dir,
                env=environ | {"LC_ALL": "C", "TZ": "UTC"},
                user=self._config.uid,
                group=self._config.gid,
                extra_groups=None if self._config.uid is None else [],
                start_new_session=True,
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}:\n{self._log_tail()}")
            if server_state(self._config.data_dir, process.pid) == "ready":
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the server was not ready after {START_SECONDS:.0f} s:\n{self._log_tail()}")

    def _signal_and_wait(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _log_tail(self) -> str:
        return "\n".join(self._config.log_path.read_text(errors="replace").splitlines()[-20:])


def server_state(data_dir: Path, pid: int) -> str:
    """Read what the server with this process id says of itself: "starting", "ready", "stopping", or "" for nothing."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return ""
    if len(lines) <= STATUS_LINE or lines[0] != str(pid):
        return ""
    return lines[STATUS_LINE].strip()


def children_of(pid: int) -> list[int]:
    """List the direct children of a process; none where the machine has no ``ps``."""
    try:
        listing = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    pairs = [line.split() for line in listing.splitlines()]
    return [int(child) for parent, child in pairs if int(parent) == pid]


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be collected by its parent does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


class Keeper:
    """Serves commands until the last client has gone."""

    def __init__(self, config: Config) -> None:
        self._server = Server(config)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(config.control_path))
        self._listener.listen(64)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: dict[socket.socket, bytes] = {}

    def serve(self) -> None:
        """Run until every client has gone, or none came; the server is stopped on the way out."""
        try:
            while self._step():
                pass
        finally:
            self._server.end()

    def _step(self) -> bool:
        patience = None if self._clients else FIRST_CLIENT_SECONDS
        events = self._selector.select(patience)
        if not events:
            return False
        for key, _ in events:
            if key.fileobj is self._listener:
                self._welcome()
            elif not self._hear(key.fileobj):  # type: ignore[arg-type]
                return bool(self._clients)
        return True

    def _welcome(self) -> None:
        client, _ = self._listener.accept()
        self._clients[client] = b""
        self._selector.register(client, selectors.EVENT_READ)

    def _hear(self, client: socket.socket) -> bool:
        """Serve what a client said; ``False`` when it has gone."""
        try:
            said = client.recv(65536)
        except ConnectionError:
            said = b""
        if not said:
            self._selector.unregister(client)
            del self._clients[client]
            client.close()
            return False
        *lines, self._clients[client] = (self._clients[client] + said).split(b"\n")
        for line in lines:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(json.dumps(self._answer(json.loads(line))).encode() + b"\n")
        return True

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            if command["do"] == "start":
                return {"ok": True, "pid": self._server.start()}
            if command["do"] == "stop":
                self._server.stop()
            elif command["do"] == "kill":
                self._server.kill()
            else:
                return {"ok": False, "error": f"no such command: {command['do']}"}
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            return {"ok": False, "error": str(error)}
        return {"ok": True}


def main(argument: str) -> None:
    """Keep one server until nobody needs it, then remove its directory."""
    told = json.loads(argument)
    config = Config(Path(told["run_dir"]), Path(told["bin_dir"]), told["uid"], told["gid"], told["options"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        Keeper(config).serve()
    finally:
        shutil.rmtree(config.run_dir, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])

"""Processes that all speak at once: ``python -m tests.support.crowd``, with what they do as JSON on standard input.

The program forks one process for each session named; every one says so many lines as fast as it can and tells how long
it had to wait for each. All of them begin together.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from roleplay import Endpoint, Roleplay, TurnOptions
from roleplay.testing import ScriptedModel

ROOT = Path(__file__).parents[2]
WAIT_S = 300.0


class Said(NamedTuple):
    """What one process did: seconds for each of its lines, the requests that its model heard, and the ids of the turns
    that it was given, by line."""

    took_s: list[float]
    bodies: list[bytes]
    turns: list[list[str]]


def speak(url: str, sessions: Sequence[str], lines: int, *, keyed: bool = False, rounds: bool = False) -> list[Said]:
    """Let one process for each of ``sessions`` (which may be the same) say so many lines in it, all at once.

    ``keyed``: all say the same lines, each line under a key of its own. ``rounds``: each line is answered by a round.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.crowd"],
        input=json.dumps([url, list(sessions), lines, keyed, rounds]),
        capture_output=True,
        cwd=ROOT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(sessions)
    return [Said(took_s, [base64.b64decode(body) for body in bodies], turns) for took_s, bodies, turns in told]


def talk(who: int, url: str, session_id: str, lines: int, keyed: bool, rounds: bool, begin: int) -> list[Any]:
    """Say the lines of one process; ``begin`` is a pipe that ends when all are ready."""
    model = ScriptedModel()
    took_s, given = [], []
    with Roleplay.open(url, model=Endpoint("MiniMax-M2.7"), chat=model) as rp:
        session = rp.sessions.get(session_id)
        os.read(begin, 1)
        for number in range(lines):
            line = f"all: {number}" if keyed else f"{who}: {number}"
            key = line if keyed else None
            options = TurnOptions(on_conflict="wait", wait_s=WAIT_S, idempotency_key=key)
            began = time.monotonic()
            if rounds:
                with session.round(line, options=options) as replies:
                    turns = list(replies.turns())
            else:
                turns = [session.send(line, options=options)]
            took_s.append(time.monotonic() - began)
            given.append([turn.id for turn in turns])
            assert all(turn.reply is not None for turn in turns)
            assert rounds or turns[0].text == f"You said: {line}"
    return [took_s, [base64.b64encode(body).decode() for body in model.bodies], given]


def main() -> int:
    """Fork, let all begin, print a line for each, and say how many failed."""
    url, sessions, lines, keyed, rounds = json.load(sys.stdin)
    begin, ready = os.pipe()
    children = {}
    for who, session_id in enumerate(sessions):
        hear, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ready)
            code = 1
            try:
                with os.fdopen(tell, "w") as out:
                    json.dump(talk(who, url, session_id, lines, keyed, rounds, begin), out)
                code = 0
            except Exception:  # noqa: BLE001 - the parent shows it
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        os.close(tell)
        children[child] = os.fdopen(hear)
    time.sleep(0.5)
    os.close(ready)
    said = [told.read() for told in children.values()]
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    print(*said, sep="\n")  # noqa: T201 - the answer
    return failed


if __name__ == "__main__":
    sys.exit(main())

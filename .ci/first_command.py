"""Hold a conversation of five turns by the first command of the README, with a fresh home and no key.

Every turn is a process of its own that goes on with the last session, so what is said was also stored. Fails on an
error, an empty reply, or one word more than six times running.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PERSONA = "examples/personas/innkeeper.yaml"
LINES = (
    "Good evening. Is there a room left for the night?",
    "What is cooking? It smells wonderful.",
    "Who is the man by the window?",
    "谢谢。这家客栈是你的吗？",
    "Thank you. Good night!",
)
#: One word may stand this often in a row.
RUN_LIMIT = 6
#: A word: letters and digits together, but a Chinese or Japanese character is one by itself.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
#: Seconds that one turn may take, start of the model included.
TURN_SECONDS = 120


def main() -> None:
    """Talk five times and look at each reply."""
    with tempfile.TemporaryDirectory() as home:
        environ = fresh_environment(home)
        for number, line in enumerate(LINES):
            start = time.monotonic()
            reply = talk([PERSONA] if number == 0 else ["--continue"], line, environ)
            print(f"turn {number + 1}, {time.monotonic() - start:.1f} s\n  > {line}\n  < {reply}", flush=True)
            if problem := problem_with(reply):
                sys.exit(f"turn {number + 1}: {problem}")


def fresh_environment(home: str) -> dict[str, str]:
    """Give the environment of somebody who has neither key nor settings nor a session yet."""
    strange = ("ROLEPLAY_", "MINIMAX_", "XDG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)} | {"HOME": home}


def talk(session: list[str], line: str, environ: Mapping[str, str]) -> str:
    """Say one line by the command and give the reply."""
    command = [sys.executable, str(ROOT / "dev.py"), "chat", *session, "-m", line, "--json"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        timeout=TURN_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}: {' '.join(command)}\n{done.stdout}")
    return reply_in(done.stdout)


def reply_in(printed: str) -> str:
    """Give the reply of the turn that was printed as JSON, on the last line or as the whole."""
    last = printed.strip().rpartition("\n")[2]
    turn: Any
    try:
        turn = json.loads(last)
    except ValueError:
        turn = json.loads(printed)
    reply = turn["reply"]
    if not isinstance(reply, str):
        sys.exit(f"no reply: {printed}")
    return reply


def problem_with(reply: str) -> str | None:
    """Say what is wrong with a reply, if anything is."""
    words = WORD.findall(reply.lower())
    if not words:
        return "an empty reply"
    word, run = max(((word, len(list(same))) for word, same in groupby(words)), key=lambda pair: pair[1])
    return f"{word!r} {run} times running" if run > RUN_LIMIT else None


if __name__ == "__main__":
    main()

"""A process that reads all it is sent: ``python -m tests.support.memory_hog SHELL DATABASE BASE_URL KEY MODE ...``.

It says a line for each mode, ``stream`` or ``whole``, and prints a line of JSON about it: the error, the status of the
turn, how many characters were heard and stored, and the most memory that the process had until then.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from roleplay import BadReplyError, Endpoint, Persona
from tests.support import shells

MODEL = "MiniMax-M2.7"


def peak_kib() -> int:
    """The most memory that this program had. What Linux tells as ``ru_maxrss`` may be that of the one before it."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def main(shell: str, database: str, base_url: str, key: str, modes: Sequence[str]) -> None:
    """Say a line for each mode; the first is for warming up."""
    shells.current = shell
    endpoint = Endpoint(MODEL, base_url=base_url, api_key=key, dialect="minimax", retry={"attempts": 1})
    with shells.Roleplay.open(database, model=endpoint) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        for mode in modes:
            heard, slug = 0, None
            try:
                if mode == "whole":
                    session.send("And then?")
                else:
                    with session.stream("And then?") as reply:
                        for delta in reply:
                            heard += len(delta.text)
            except BadReplyError as error:
                slug = error.slug
            turn = session.turns(limit=1).items[-1]
            told = {
                "error": slug,
                "status": turn.status.value,
                "heard": heard,
                "stored": len(turn.reply.text) if turn.reply else 0,
                "peak_kib": peak_kib(),
            }
            sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:5], sys.argv[5:])

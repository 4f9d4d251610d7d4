"""What memory a session of a million messages takes beside an empty one: `python benchmarks/memory.py [--messages N]`.

Each is opened in a process of its own, which lists the last page, previews a line and sends it, and tells the most
memory that it ever held. The databases are filled beforehand, by another process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import HUMAN, KEY, LONG_REPLY, MODEL, Ours, Server, filesystem, refuse_memory
from longpast import grow

from roleplay import Dialect, Endpoint, Roleplay, SessionSettings

BUDGET_TOKENS = 8_000
MOST_MB = 30.0


def use(path: Path, session_id: str, base_url: str) -> float:
    """Use a session, and give the most memory that this process ever held, in MB."""
    endpoint = Endpoint(MODEL, base_url=base_url, api_key=KEY, dialect=Dialect.MINIMAX)
    settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
    with Roleplay.open(f"sqlite:///{path}", model=endpoint, settings=settings) as rp:
        session = rp.sessions.get(session_id)
        session.turns()
        session.preview(HUMAN)
        session.send(HUMAN)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def measure(folder: Path, messages: int) -> dict[str, float]:
    """Make both sessions, and use each."""
    server = Server(folder / "received", reply=LONG_REPLY, keep="lengths")
    base_url = f"{server.base_url}/v1"
    found = {}
    try:
        for name, length in (("empty", 0), ("long", messages)):
            path = folder / f"{name}.db"
            ours = Ours(path, base_url, SessionSettings(budget_tokens=BUDGET_TOKENS))
            if length:
                for _ in range(2):
                    ours.turn()
                grow(ours.database, ours.session, length)
            ours.close()
            command = [sys.executable, __file__, "--use", str(path), ours.session.id, base_url]
            found[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        server.close()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="messages of the long session")
    parser.add_argument("--dir", type=Path, default=Path(), help="a directory on a real disk; by default this one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--use", nargs=3, metavar=("DB", "SESSION", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.use:
        path, session_id, base_url = options.use
        print(use(Path(path), session_id, base_url))
        return 0
    refuse_memory(parser, options.dir)
    with tempfile.TemporaryDirectory(prefix="memory-", dir=options.dir) as folder:
        found = measure(Path(folder), options.messages)
    more = found["long"] - found["empty"]
    if options.json:
        print(json.dumps({"messages": options.messages, "most_mb": found, "more_mb": more}, indent=2))
    else:
        print(f"most memory, with a database on {filesystem(options.dir)}:")
        print(f"  an empty session                {found['empty']:8.1f} MB")
        print(f"  one of {options.messages:>9,} messages       {found['long']:8.1f} MB")
        print(f"  more                            {more:8.1f} MB: ", end="")
        print(f"{'within' if more <= MOST_MB else 'ABOVE'} the {MOST_MB:.0f} MB that it may be")
    return 0


if __name__ == "__main__":
    sys.exit(main())

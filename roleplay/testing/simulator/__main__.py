"""The simulator as a process of its own: `python -m roleplay.testing.simulator`.

The first line of its output is the base URL. It stops on SIGTERM, on an interrupt, or at the end of its input when
that is a pipe or a terminal.
"""

from __future__ import annotations

import argparse
import base64
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from types import FrameType
from typing import BinaryIO, NoReturn

from roleplay.errors import SettingsError
from roleplay.testing.simulator.faults import SlowDrip
from roleplay.testing.simulator.received import ReceivedRequest

try:
    from roleplay.testing.simulator.simulator import Simulator
except SettingsError as error:
    sys.exit(str(error))


class _StopError(Exception):
    """SIGTERM came."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the simulator until it is told to stop; returns the exit status."""
    options = _parser().parse_args(arguments)
    with ExitStack() as stack, suppress(_StopError, KeyboardInterrupt):
        signal.signal(signal.SIGTERM, _stop)
        record = stack.enter_context(options.record.open("ab", buffering=0)) if options.record else None
        simulator = Simulator(
            options.key,
            port=options.port,
            thinking=options.thinking,
            refuse_roles=options.refuse_roles,
            on_request=_recorder(record),
        )
        if options.drip:
            simulator.always(SlowDrip(options.drip))
        stack.enter_context(simulator)
        sys.stdout.write(f"{simulator.base_url}\n")
        sys.stdout.flush()
        _wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m roleplay.testing.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes any that is free")
    parser.add_argument("--key", default="test-key", help="the only API key taken")
    parser.add_argument("--drip", type=float, default=0.0, metavar="SECONDS", help="wait so long before each event")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append each received body, base64, one a line")
    parser.add_argument("--thinking", action="store_true", help="let the models that reason show it")
    parser.add_argument("--refuse-roles", action="store_true", help="refuse the four role-play roles")
    return parser


def _recorder(record: BinaryIO | None) -> Callable[[ReceivedRequest], None] | None:
    if record is None:
        return None

    def write(request: ReceivedRequest) -> None:
        record.write(base64.b64encode(request.body) + b"\n")

    return write


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _StopError


def _wait() -> None:
    """Returns at the end of the input; where the input cannot end, waits for a signal."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None else -1
    if descriptor >= 0 and (stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor)):
        while os.read(descriptor, 4_096):
            pass
    else:
        Event().wait()


if __name__ == "__main__":
    sys.exit(main())

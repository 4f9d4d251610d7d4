"""What this process itself is too busy or too poor for, so that no host is blamed for it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

TICK_S = 0.25
LATE_S = 0.1
LATE_COUNTS_S = 0.02
_TOO_MANY_FILES = "this process has too many open files (raise the limit, as with 'ulimit -n', or begin less at once)"
_LACKS = {
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: "this machine has too many open files",
    errno.EADDRNOTAVAIL: "this machine has no port left for another connection, or no such address of its own",
    errno.ENOBUFS: "this machine has no memory left for another connection",
    errno.ENOMEM: "this machine has no memory left for another connection",
}


def shortage(error: BaseException) -> str | None:
    """Say what this process or machine lacked, where that is what an error of a connection came from."""
    for one in _all_of(error):
        if isinstance(one, socket.gaierror):  # a name that cannot be looked up does not tell why
            if not _can_open():
                return _TOO_MANY_FILES
        elif isinstance(one, OSError) and one.errno in _LACKS:
            return _LACKS[one.errno]
    return None


def _all_of(error: BaseException) -> Iterator[BaseException]:
    """Give an error, those that it holds, and all that it came from."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        held = [
            *one.args,
            *getattr(one, "exceptions", ()),
            getattr(one, "reason", None),
            one.__cause__,
            one.__context__,
        ]
        left += [inner for inner in held if isinstance(inner, BaseException)]


def _can_open() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


async def within(work: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """Wait for ``work``, for ``seconds`` in which the event loop was free. Raises ``TimeoutError`` after them.

    A loop that stands still, or has thousands of things to do, is no fault of a host that answered meanwhile: what is
    done when the loop comes round is done in time, and a round that came late counts little.
    """
    task = asyncio.ensure_future(work)
    clock = asyncio.get_running_loop().time
    left = float("inf") if seconds is None else seconds
    try:
        while not task.done():
            if left <= 0:
                raise TimeoutError  # noqa: TRY301 - it is cancelled below, as for any other error
            tick, began = min(TICK_S, left), clock()
            await asyncio.wait((task,), timeout=tick)
            late = clock() - began - tick > LATE_S
            left -= LATE_COUNTS_S if late else tick
        return task.result()
    except BaseException:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is None and hasattr(made := task.result(), "aclose"):
            await made.aclose()  # it was made after all, and nobody takes it
        raise

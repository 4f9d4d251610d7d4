"""Who holds a turn in flight: a name for this process, and whether another on this host is dead."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path


def this_owner() -> str:
    """Name this process: host, boot and process namespace, process id, and when it started."""
    pid = os.getpid()
    return f"{_host()}/{pid}/{_started(pid)}"


def is_dead(owner: str) -> bool:
    """Whether ``owner`` is a process of this host that runs no more. Of another host nothing is known: ``False``."""
    host, _, rest = owner.rpartition("/")
    host, _, pid = host.rpartition("/")
    if host != _host() or not (pid.isascii() and pid.isdigit()):
        return False
    return _started(int(pid)) != rest


@cache
def _host() -> str:
    boot = _first_line("/proc/sys/kernel/random/boot_id")[:8]
    try:
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")  # noqa: PTH115 - the target is no path
    except OSError:
        namespace = ""
    return f"{socket.gethostname()[:100]}:{boot}:{namespace}"


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; ``alive`` where the system does not tell; ``""`` when it is gone."""
    stat = _first_line(f"/proc/{pid}/stat")
    if stat:
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    if os.name != "posix":
        return "alive"
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except PermissionError:
        return "alive"
    return "" if Path("/proc/self/stat").exists() else "alive"


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""

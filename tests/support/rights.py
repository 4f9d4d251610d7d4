"""Doing something with the rights of a common user: as root, nothing is read-only."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_CAPSET = {"x86_64": 126, "aarch64": 91}
_VERSION = 0x20080522


def without_rights(work: Callable[[], T]) -> T:
    """Do ``work`` in a thread that may do what the owner of a file may, and give its result.

    Linux gives and takes capabilities by thread; those that the thread starts have no more.
    """
    outcome: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            if os.geteuid() == 0:
                _drop()
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return outcome[0]


def _drop() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION, 0))
    nothing = ctypes.create_string_buffer(struct.pack("6I", *[0] * 6))
    assert libc.syscall(_CAPSET[platform.machine()], header, nothing) == 0, os.strerror(ctypes.get_errno())

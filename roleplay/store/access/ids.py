"""Identifiers: UUIDv7 (RFC 9562), so that ids made later sort later."""

from __future__ import annotations

import os
import threading
import time

ID_LENGTH = 36

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Make an id, later in order than every id that this process made before."""
    global _last  # noqa: PLW0603 - one process-wide clock keeps the order over threads
    stamp = (time.time_ns() // 1_000_000) << 12 | int.from_bytes(os.urandom(2)) >> 5
    with _lock:
        _last = stamp = max(stamp, _last + 1)
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64
    value |= 0b10 << 62 | int.from_bytes(os.urandom(8)) >> 2
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

"""SQLite's files, opened beside the engine: as they are, or encrypted where ROLEPLAY_TESTS is "encrypted"."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

ENCRYPTED = os.environ.get("ROLEPLAY_TESTS") == "encrypted"
DB_KEY = bytes(range(32))


def connect(url: str, **options: Any) -> Any:
    """Open the file of a URL, by the driver that the engine of this test uses."""
    path = url.removeprefix("sqlite:///")
    if not ENCRYPTED:
        return sqlite3.connect(path, **options)
    from sqlcipher3 import dbapi2  # noqa: PLC0415 - the wheel is tested without it

    driver = dbapi2.connect(path, **options)
    driver.execute(f"PRAGMA key = \"x'{DB_KEY.hex()}'\"")
    return driver

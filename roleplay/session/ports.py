"""What the shells give an operation: the real clock, chance, ids, and this process as the owner of its turns."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from roleplay.store.access.ids import new_id
from roleplay.store.access.process import is_dead, this_owner
from roleplay.turns.effects import Ports

_driven: dict[str, str] = {}  # of the process: engines beside each other are one owner


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo | None:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def ports() -> Ports:
    """Give the ports of this process."""
    return Ports(
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        draw=random.random,
        new_id=new_id,
        zone=_zone,
        owner=this_owner(),
        is_gone=is_dead,
        driven=_driven,
    )

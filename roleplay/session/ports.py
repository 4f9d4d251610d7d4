"""What the shells give a course: the real clock, chance, ids, and this process as the owner of its turns."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

from roleplay.store.ids import new_id
from roleplay.store.lease import is_dead, this_owner
from roleplay.turns.effects import Ports

_driven: dict[str, str] = {}  # of the process: engines beside each other are one owner


def ports() -> Ports:
    """Give the ports of this process."""
    return Ports(
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        draw=random.random,
        new_id=new_id,
        owner=this_owner(),
        is_gone=is_dead,
        driven=_driven,
    )

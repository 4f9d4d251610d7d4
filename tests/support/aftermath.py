"""What tests look at once a process was killed."""

from __future__ import annotations

import base64
from pathlib import Path

from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel

AT_ONCE_S = 10.0  # on a busy machine; a lease is 330
IN_FLIGHT = "SELECT count(*) FROM roleplay_turns WHERE status IN ('pending', 'streaming') AND tenant = 'default'"
#: Replies of which two answer the same message.
DOUBLED = """
SELECT count(*) FROM roleplay_messages a JOIN roleplay_messages b ON a.session_id = b.session_id AND a.tenant = b.tenant
AND a.parent_seq = b.parent_seq AND a.seq < b.seq AND a.role = 'assistant' AND b.role = 'assistant'
"""
#: Turns of which two have the same place in the round of a key.
DOUBLED_IN_ROUND = """
SELECT count(*) FROM roleplay_turns a JOIN roleplay_turns b ON a.session_id = b.session_id AND a.tenant = b.tenant
AND a.idempotency_key = b.idempotency_key AND a.ordinal = b.ordinal AND a.seq < b.seq
"""


def count(url: str, sql: str) -> int:
    """Count rows behind the engine's back."""
    database = Database.open(url)
    number: int = database.read(lambda db: db.exec_driver_sql(sql).scalar())
    database.close()
    return number


def take_over(model: ScriptedModel, heard: Path) -> None:
    """Add what the children's models heard to what the test's own did."""
    if heard.exists():
        model.bodies += [base64.b64decode(line) for line in heard.read_bytes().splitlines()]

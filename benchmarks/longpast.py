"""A long past in a moment: rows such as sends write, without the sends.

They are copies of the newest turn, renumbered, so they are as long as real ones and have every column that a turn
writes. None of it was ever sent: what is replayed of it has no meaning.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection

from roleplay import ChatSession, Database

STEP = 25_000  # turns a transaction
ID = "printf('01900000-0000-7000-8000-%012x', :turn + n)"
SERIES = "WITH RECURSIVE n(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM n WHERE n < :last)"
COPIES: dict[str, tuple[str, dict[str, str]]] = {
    "roleplay_turns": (
        "t.seq = :turn",
        {
            "id": ID,
            **dict.fromkeys(("seq", "parent_turn", "round"), "{0} + n"),
            **dict.fromkeys(("from_head", "human_seq", "reply_seq"), "{0} + 2 * n"),
        },
    ),
    "roleplay_messages": (
        "t.seq IN (:head - 1, :head)",
        {
            **dict.fromkeys(("turn_seq", "human_ordinal", "model_ordinal"), "{0} + n"),
            **dict.fromkeys(("seq", "parent_seq", "jump_seq", "depth"), "{0} + 2 * n"),
        },
    ),
    "roleplay_model_calls": ("t.turn_seq = :turn", {"id": ID, "turn_seq": "{0} + n"}),
    "roleplay_head_moves": (
        "t.version = :version",
        {"version": "{0} + :step * n", **dict.fromkeys(("from_seq", "to_seq"), "{0} + 2 * n")},
    ),
}
"""Which rows of a turn are copied, and which columns differ: of a column, by its name."""
GROWN = """
UPDATE roleplay_sessions SET version = version + :step * :turns, head_seq = head_seq + 2 * :turns,
    last_seq = last_seq + 2 * :turns, last_turn = last_turn + :turns WHERE id = :session
"""


class _Newest(NamedTuple):
    turn: int
    head: int
    version: int
    step: int
    depth: int


def grow(database: Database, session: ChatSession, messages: int) -> None:
    """Give a session of two turns or more a past, until it has ``messages`` messages."""
    newest = database.read(lambda db: _newest(db, session.id))
    turns = (messages - newest.depth) // 2
    values = {"session": session.id} | newest._asdict()
    for first in range(1, turns + 1, STEP):
        bounds = {"first": first, "last": min(first + STEP - 1, turns)}
        database.write(partial(_copy, values | bounds))
    if turns > 0:
        database.write(lambda db: db.exec_driver_sql(GROWN, values | {"turns": turns}))


def _newest(db: Connection, session_id: str) -> _Newest:
    moves = "SELECT version FROM roleplay_head_moves WHERE session_id = :session ORDER BY version DESC LIMIT 2"
    last, before = db.exec_driver_sql(moves, {"session": session_id}).scalars()
    found = db.exec_driver_sql(
        "SELECT s.last_turn, s.head_seq, m.depth FROM roleplay_sessions AS s "
        "JOIN roleplay_messages AS m ON m.session_id = s.id AND m.seq = s.head_seq WHERE s.id = :session",
        {"session": session_id},
    ).one()
    return _Newest(found[0], found[1], last, last - before, found[2])


def _copy(values: dict[str, Any], db: Connection) -> None:
    for table, (which, changed) in COPIES.items():
        columns = [row[1] for row in db.exec_driver_sql(f"PRAGMA table_info({table})")]
        copied = ", ".join(changed.get(name, "{0}").format(f"t.{name}") for name in columns)
        db.exec_driver_sql(
            f"INSERT INTO {table} ({', '.join(columns)}) {SERIES} SELECT {copied} FROM n CROSS JOIN {table} AS t "
            f"WHERE t.session_id = :session AND {which}",
            values,
        )

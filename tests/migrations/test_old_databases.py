"""Databases that earlier versions wrote are opened, verified and talked on with."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from roleplay import Database, Dialect, Endpoint, Roleplay, StoreError
from roleplay.store.access import schema
from roleplay.store.records.ancestry import jump_depth
from roleplay.testing import ScriptedModel
from roleplay.wire.recipes import RECIPE_VERSION, VERSIONS

VERSIONS_OF_CALLS = "SELECT DISTINCT recipe_version FROM roleplay_model_calls WHERE tenant = 'default'"
MESSAGES = """
SELECT m.session_id, m.seq, m.parent_seq, m.jump_seq, m.revision, t.revision FROM roleplay_messages m
JOIN roleplay_turns t ON t.session_id = m.session_id AND t.seq = m.turn_seq ORDER BY m.session_id, m.seq
"""
CALLS = "SELECT session_id, id, turn_seq, attempt, recipe, total_tokens, error FROM roleplay_model_calls ORDER BY 1, 2"
FIXTURES = Path(__file__).parents[1] / "fixtures"
DATABASES = sorted(FIXTURES.glob("*.db"))


def test_there_are_some() -> None:
    """The databases are found."""
    assert DATABASES


@pytest.mark.parametrize("path", DATABASES, ids=lambda path: path.stem)
def test_an_old_database_lives_on(path: Path, tmp_path: Path) -> None:
    """Every stored request is rebuilt byte for byte, nothing is found wrong, and each session goes on."""
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    with Roleplay.open(f"sqlite:///{copy}", model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel()) as rp:
        verified = len(list(rp.replay.verify()))
        assert verified >= 2 * 9
        assert rp.doctor() == []
        for info in rp.sessions.list():
            session = rp.sessions.get(info.id)
            before = [turn.id for turn in session.turns()]
            assert session.send("Still there?", speaker=info.human.seat).reply.text
            assert [turn.id for turn in session.turns()][: len(before)] == before
        assert len(list(rp.replay.verify())) == verified + len(rp.sessions.list())
    assert versions_of(copy) == versions_of(path) | {RECIPE_VERSION}


@pytest.mark.parametrize("path", DATABASES, ids=lambda path: path.stem)
def test_every_message_gets_what_new_ones_have(path: Path, tmp_path: Path) -> None:
    """Its revision and its jump pointer, as if it were written now; up, down and up again keeps every row."""
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    database = Database.open(f"sqlite:///{copy}")
    for to in ("0003", "up"):
        schema.upgrade(database)
        with closing(sqlite3.connect(copy)) as db:
            rows = db.execute(MESSAGES).fetchall()
            assert rows == right(rows)
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
            kept = db.execute(CALLS).fetchall()
        if to != "up":
            schema.downgrade(database, to)
            with closing(sqlite3.connect(copy)) as db:
                assert db.execute(CALLS).fetchall() == kept
    database.close()


def right(rows: list[Any]) -> list[Any]:
    """The rows with the jump pointers that follow from their parents by the rule, found by walks."""
    found, parents = [], {(session, seq): parent for session, seq, parent, *_ in rows}
    for session, seq, _, _, said_under, its in rows:
        path = [seq]
        while (before := parents[session, path[-1]]) is not None:
            path.append(before)
        found.append((session, seq, parents[session, seq], path[len(path) - jump_depth(len(path))], its, its))
        assert said_under == its
    return found


def test_a_damaged_database_is_upgraded_too(tmp_path: Path) -> None:
    """What is broken in it is for the doctor to tell, which speaks to this version's schema alone."""
    copy = tmp_path / "damaged.db"
    shutil.copy(FIXTURES / "0003_conversation.db", copy)
    with closing(sqlite3.connect(copy)) as db, db:
        db.execute("DELETE FROM roleplay_turns WHERE seq = 5")
        db.execute("DELETE FROM roleplay_messages WHERE seq = 4")
        db.execute("DELETE FROM roleplay_pieces WHERE rowid % 2 = 0")
    with Roleplay.open(f"sqlite:///{copy}", model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel()) as rp:
        assert {one.fault for one in rp.doctor()} >= {"orphan-call", "broken-message-link", "missing-text"}


def versions_of(path: Path) -> set[int]:
    """The recipe versions of the calls in a database."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return {row[0] for row in db.execute(VERSIONS_OF_CALLS)}


def test_hidden_messages_are_named_in_the_first_recipes() -> None:
    """One database shows all that recipes of version 1 hold: what was hidden among what was kept, and thoughts."""
    with closing(sqlite3.connect(f"file:{FIXTURES / 'recipe_1_conversation.db'}?mode=ro", uri=True)) as db:
        recipes = [json.loads(row[0]) for row in db.execute("SELECT recipe FROM roleplay_model_calls")]
        hidden = {len(history[3]) for history, _, _ in recipes}
        assert hidden >= {0, 1, 2, 10, 13, 11}
        thoughts = "SELECT count(*) FROM roleplay_messages WHERE role = 'assistant' AND text LIKE '%think>%'"
        assert db.execute(thoughts).fetchone()[0] == 2 * 3


def test_what_is_not_known_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of a version of later, or in a dialect that its version never had, is not rebuilt as something else."""
    copy = tmp_path / "later.db"
    shutil.copy(FIXTURES / "recipe_1_conversation.db", copy)
    monkeypatch.setitem(VERSIONS, 1, VERSIONS[1]._replace(dialects=frozenset({Dialect.MINIMAX})))  # type: ignore[arg-type]
    with Roleplay.open(f"sqlite:///{copy}", model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel()) as rp:
        with pytest.raises(StoreError, match="has the dialect openai, which recipe version 1 does not write"):
            list(rp.replay.verify())
        with closing(sqlite3.connect(copy)) as db, db:
            db.execute("UPDATE roleplay_model_calls SET recipe_version = 99")
        with pytest.raises(StoreError, match="has recipe version 99, which is not known here"):
            list(rp.replay.verify())

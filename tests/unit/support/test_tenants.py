"""The check of every statement's tenant catches what it should."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine

from tests.support import tenants

BOUND = [
    "SELECT id FROM roleplay_sessions WHERE tenant = ? AND id = ?",
    "SELECT s.id FROM roleplay_sessions AS s WHERE s.id = %(id)s AND s.tenant = %(tenant)s::VARCHAR",
    "SELECT m.seq FROM roleplay_turns t LEFT JOIN roleplay_messages m ON (m.tenant = :tenant AND m.seq = t.seq)",
    "UPDATE roleplay_turns SET status = ? WHERE (roleplay_turns.tenant = ?)",
    "INSERT INTO roleplay_pieces (session_id, digest, tenant, text) VALUES (?, ?, ?, ?)",
    "INSERT INTO roleplay_pieces (session_id, tenant) SELECT s.id, s.tenant FROM roleplay_sessions s WHERE s.tenant=?",
    "PRAGMA table_info(roleplay_turns)",
    "SELECT version_num FROM roleplay_alembic_version",
    "SELECT 1",
]
BARE = [
    "SELECT id, tenant FROM roleplay_sessions WHERE id = ?",
    "SELECT id FROM roleplay_sessions WHERE id = ? ORDER BY tenant",
    "SELECT id FROM roleplay_sessions WHERE id = ? OR tenant = ?",
    "SELECT id FROM roleplay_sessions WHERE tenant IS NOT NULL",
    "SELECT t.id FROM roleplay_turns t JOIN roleplay_messages m ON m.tenant = t.tenant WHERE t.id = ?",
    "SELECT tenant = ? FROM roleplay_sessions",
    "UPDATE roleplay_sessions SET tenant = ? WHERE id = ?",
    "UPDATE roleplay_sessions SET version = ?, tenant = ? WHERE id = ?",
    "DELETE FROM roleplay_turns WHERE session_id = ? /* tenant */",
    "INSERT INTO roleplay_pieces (session_id, digest, text) VALUES (?, ?, 'tenant')",
    "INSERT INTO roleplay_pieces (session_id, tenant) SELECT s.id, s.tenant FROM roleplay_sessions s WHERE s.id = ?",
]


@pytest.mark.parametrize("sql", BOUND)
def test_a_tenant_that_is_given_holds(sql: str) -> None:
    assert tenants.keeps_to_its_tenant(sql)


@pytest.mark.parametrize("sql", BARE)
def test_a_tenant_that_is_only_spoken_of_does_not(sql: str) -> None:
    assert not tenants.keeps_to_its_tenant(sql)


def test_the_engine_is_caught_and_a_test_is_not(every_statement_has_its_tenant: list[str]) -> None:
    """The same statement counts where code of the package runs it."""
    bare = BARE[0].replace("?", "'x'")
    names: dict[str, Any] = {}
    exec(compile(f"def run(db): db.exec_driver_sql({bare!r})", f"{tenants.PACKAGE}/store/new.py", "exec"), names)
    with create_engine("sqlite://").connect() as db:
        db.exec_driver_sql("CREATE TABLE roleplay_sessions (id TEXT, tenant TEXT)")
        db.exec_driver_sql(bare)
        assert every_statement_has_its_tenant == []
        names["run"](db)
    assert every_statement_has_its_tenant == [bare]
    every_statement_has_its_tenant.clear()  # or this test fails, as any other would

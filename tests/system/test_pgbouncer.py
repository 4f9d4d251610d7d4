"""The behaviour of turns behind a proxy that pools transactions, for both shells.

The tests are those of the contract, with another database. They are no part of an ordinary run, since PgBouncer comes
with no Python package: ``python3 dev.py test tests/system``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from roleplay import Endpoint, Persona, Roleplay
from roleplay.store.access.database import Database
from roleplay.testing import ScriptedModel
from tests.conftest import Ledger
from tests.contract.test_close import *  # noqa: F403 - its tests
from tests.contract.test_once import *  # noqa: F403 - its tests
from tests.contract.test_turns import *  # noqa: F403 - its tests
from tests.support.pgbouncer import SHARED, PgBouncer
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture(scope="module")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """The proxy in front of the server of this run."""
    with PgBouncer(postgres) as one:
        yield one


@pytest.fixture
def database_url(postgres: PostgresServer, pgbouncer: PgBouncer, ledger: Ledger) -> str:
    """A database of this test alone, through the proxy; takes the place of both kinds."""
    url = pgbouncer.in_front_of(postgres.clone("current"))
    ledger.urls.append(url)
    return url


def test_transactions_share_connections(
    database_url: str, pgbouncer: PgBouncer, scripted: Callable[..., ScriptedModel]
) -> None:
    """Many clients talk at once over a few server connections, which change hands after every transaction."""
    seen: set[int] = set()
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=scripted()) as rp:
        persona = rp.personas.put(Persona("Huang"))

        def talk(number: int) -> list[str]:
            session = rp.sessions.create(cast=[persona])
            return [session.send(f"{number}: {line}").reply.text for line in range(5)]

        with ThreadPoolExecutor(12) as pool:
            for number, said in enumerate(pool.map(talk, range(12))):
                assert said == [f"You said: {number}: {line}" for line in range(5)]
        [mine] = [row for row in pgbouncer.show("POOLS") if row["database"] in database_url]
        assert mine["pool_mode"] == "transaction"
        assert mine["cl_active"] > SHARED
        assert mine["sv_active"] + mine["sv_idle"] + mine["sv_used"] <= SHARED
        database = Database.open(database_url)
        for _ in range(20):
            seen |= {database.read(lambda db: db.exec_driver_sql("SELECT pg_backend_pid()").scalar())}
        database.close()
    assert len(seen) <= SHARED

"""How Alembic reaches the database: the connection it was handed, or the address given with ``-x url=``.

Only tables of this package are looked at, since the host application may share the database.
"""

from __future__ import annotations

from typing import Any

from alembic import context

from roleplay.store.access.database import Database
from roleplay.store.access.schema import VERSION_TABLE
from roleplay.store.access.tables import Base, UtcDateTime


def _ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    return kind != "table" or (name or "").startswith("roleplay_")


def _plain(kind: str, item: Any, _context: Any) -> str | bool:
    """Write our own column type as the plain one, since revisions never import the package."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def _migrate(connection: Any) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_plain,
        include_object=_ours,
        transactional_ddl=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run() -> None:
    handed = context.config.attributes.get("connection")
    if handed is not None:
        _migrate(handed)
        return
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("say which database: alembic -x url=sqlite:///scratch.db ...")
    database = Database.open(url)
    try:
        database.migrate(_migrate)
    finally:
        database.close()


_run()

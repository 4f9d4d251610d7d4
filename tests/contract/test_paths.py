"""The two ways of a turn's statements to SQLite: told to who listens, or straight to the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from roleplay import Endpoint, Persona
from roleplay.store.access import prepared
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay
from tests.support.tenants import UNWATCHED

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the statements that go straight to SQLite's driver."""
    ran: list[str] = []
    plain = prepared._Cursor

    def cursor(driver: Any) -> Any:
        ran.append("straight")
        return plain(driver)

    monkeypatch.setattr(prepared, "_Cursor", cursor)
    return ran


def test_the_path_of_this_run(sqlite_url: str, scripted: Scripted, straight: list[str]) -> None:
    """Every statement of a turn takes the path that the run is for: the other one is not taken even once."""
    told: list[str] = []
    plain = Connection.exec_driver_sql

    def tell(self: Connection, *args: Any, **options: Any) -> Any:
        told.append("told")
        return plain(self, *args, **options)

    with Roleplay.open(sqlite_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        straight.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "exec_driver_sql", tell)
            assert session.send("Where to?").reply
    taken, left = (straight, told) if UNWATCHED else (told, straight)
    assert len(taken) > 5
    assert left == []


def test_who_listens_is_told(sqlite_url: str, scripted: Scripted, straight: list[str]) -> None:
    """From when somebody listens, no statement of a turn passes by, in an engine that is open already too."""
    heard: list[str] = []

    def listen(_c: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        heard.append(statement)

    with Roleplay.open(sqlite_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        session.send("Where to?")
        straight.clear()
        event.listen(Engine, "before_cursor_execute", listen)
        try:
            session.send("And then?")
        finally:
            event.remove(Engine, "before_cursor_execute", listen)
    assert straight == []
    assert sum("INSERT INTO roleplay_messages" in one for one in heard) == 2

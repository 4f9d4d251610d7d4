"""Personas among writers: a key is one persona's, and of two that write at once none fails unsaid."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from roleplay import ConflictError, Endpoint, InvalidInputError, NotFoundError, Persona, Roleplay, StoredPersona
from roleplay.testing import ScriptedModel
from tests.support.postgres import PostgresServer

MODEL = Endpoint("MiniMax-M2.7")


def test_a_key_is_one_personas(database_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """Another persona's key is refused as input, with nothing written; one's own may stay or go."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        nova = rp.personas.put(Persona("Nova", key="nova"))
        echo = rp.personas.put(Persona("Echo", key="echo"))
        with pytest.raises(InvalidInputError, match="'echo' is the key of another persona") as failure:
            rp.personas.put(Persona("Nova", "Renamed.", key="echo"), persona_id=nova.id)
        assert failure.value.field == "key"
        assert (rp.personas.get("nova"), rp.personas.get("echo")) == (nova, echo)
        freed = rp.personas.put(Persona("Nova"), persona_id=nova.id)
        assert (freed.version, freed.key) == (2, None)
        assert rp.personas.put(Persona("Echo", key="nova"), persona_id=echo.id).key == "nova"


def test_many_write_one_key_at_once(database_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """Each writer's persona is a version of the one persona, or its writer is told that another was first."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:

        def put(number: int) -> StoredPersona | None:
            try:
                return rp.personas.put(Persona("Nova", f"Number {number}.", key="nova"))
            except ConflictError:
                return None

        with ThreadPoolExecutor(8) as pool:
            stored = [one for one in pool.map(put, range(24)) if one is not None]
        newest = rp.personas.get("nova")
        assert {one.id for one in stored} == {newest.id}
        assert sorted(one.version for one in stored) == list(range(1, newest.version + 1))
        assert [rp.personas.get(one.id, version=one.version) for one in stored] == stored


@pytest.mark.parametrize("version", [0, -1, 2, 2**31, 2**63, 2**80])
def test_a_version_that_is_not_there(database_url: str, scripted: Callable[..., ScriptedModel], version: int) -> None:
    """Any number that is no version of the persona is not found, however large."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        nova = rp.personas.put(Persona("Nova"))
        with pytest.raises(NotFoundError):
            rp.personas.get(nova.id, version=version)


def test_the_beginning_of_an_id_in_any_collation(postgres: PostgresServer) -> None:
    """A database that sorts as a language does finds things by the beginning of their ids too."""
    url = make_linguistic(postgres)
    with Roleplay.open(url, model=MODEL, chat=ScriptedModel(), migrate="auto") as rp:
        nova = rp.personas.put(Persona("Nova"))
        session = rp.sessions.create(cast=[nova])
        for length in (1, 8, 9, 13, 20, 36):
            assert rp.personas.get(nova.id[:length]) == nova
            assert rp.sessions.get(session.id[:length]).id == session.id
        for stranger in ("f", "g", "~", f"{session.id}0"):
            with pytest.raises(NotFoundError):
                rp.sessions.get(stranger)


def make_linguistic(postgres: PostgresServer) -> str:
    """Make an empty database whose order of texts is a language's."""
    with psycopg.connect(
        host=str(postgres.run_dir), port=5432, user="postgres", dbname="postgres", autocommit=True
    ) as db:
        db.execute("CREATE DATABASE linguistic TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'")
    return postgres.url("linguistic")

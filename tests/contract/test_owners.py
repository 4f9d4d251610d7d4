"""Whose a session is: another owner's and another tenant's are as if they were not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from roleplay import Endpoint, InvalidInputError, NotFoundError, Persona, PlayedBy, Seat
from roleplay.operations import sessions as operations
from roleplay.store.access.database import Database
from roleplay.store.access.tables import Base
from roleplay.testing import ScriptedModel
from tests.house.test_statements import postgres_plans, sqlite_plan, touched, watched
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

MODEL = Endpoint("MiniMax-M2.7")


@pytest.fixture
def both(database_url: str, scripted: Callable[..., ScriptedModel]) -> Iterator[tuple[Any, Any]]:
    """The engines of two tenants in one database."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as one:
        one.personas.put(Persona("Huang", key="huang"))
        with Roleplay.open(database_url, model=MODEL, chat=scripted(), tenant="beside") as other:
            other.personas.put(Persona("Huang", key="huang"))
            yield one, other


def refused(rp: Any, name: str, owner: str | None) -> dict[str, Any]:
    """What is told of a session that is not found."""
    with pytest.raises(NotFoundError) as failure:
        rp.sessions.get(name, owner=owner)
    return failure.value.to_dict()


def test_anothers_session_is_not_found(both: tuple[Any, Any]) -> None:
    """By its id or its beginning, and what is told is what would be told of one that never was."""
    rp, other = both
    ada = rp.sessions.create(cast=["huang"], owner="ada")
    nobodys = rp.sessions.create(cast=["huang"])
    never = "0198f2c4-7a10-7c1e-9b3f-1f7a90b4c5d6"
    for name in (ada.id, ada.id[:30], nobodys.id):
        for owner in ("bo", "", "ADA", "ada ", "a" * 500, "%"):
            told = refused(rp, name, owner)
            assert told == refused(rp, never, owner) | {"message": f"no session {name!r}", "key": name}
            assert (told["key"], told["ambiguous"]) == (name, False)
        refused(other, name, None)
        refused(other, name, "ada")
    assert rp.sessions.get(ada.id, owner="ada").id == rp.sessions.get(ada.id).id == ada.id
    assert rp.sessions.get(nobodys.id).id == nobodys.id


def test_the_beginning_of_an_id_tells_nothing_of_others(both: tuple[Any, Any]) -> None:
    """It is unique when it is among the owner's own, however many others have ids that begin so."""
    rp, other = both
    for owner in ("bo", "bo", None):
        rp.sessions.create(cast=["huang"], owner=owner)
    mine = rp.sessions.create(cast=["huang"], owner="ada")
    other.sessions.create(cast=["huang"], owner="ada")
    assert rp.sessions.get("0", owner="ada").id == mine.id
    assert refused(rp, "0", "cy")["ambiguous"] is False
    assert refused(rp, "0", "bo")["ambiguous"] is True
    assert refused(rp, "0", None)["ambiguous"] is True


def test_lists_and_walks_are_an_owners(both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and walks of one owner hold that owner's sessions, of all owners all, of another tenant none of them."""
    rp, other = both
    monkeypatch.setattr(operations, "ITER_PAGE", 3)
    made = [rp.sessions.create(cast=["huang"], owner=("ada", "bo", None)[n % 3], metadata={"n": n}) for n in range(12)]
    theirs = other.sessions.create(cast=["huang"], owner="ada")
    for owner, wanted in (("ada", made[::3]), ("bo", made[1::3]), (None, made), ("cy", []), ("", [])):
        walked = list(rp.sessions.iter(owner=owner))
        assert [one.id for one in walked] == [one.id for one in wanted]
        paged, before = [], None
        while page := rp.sessions.list(owner=owner, limit=3, before=before):
            paged += page.items
            if (before := page.older) is None:
                break
        assert paged == walked[::-1]
        assert all(owner is None or one.owner == owner for one in walked)
    assert [one.metadata["n"] for one in rp.sessions.iter()] == list(range(12))
    assert [one.id for one in other.sessions.iter()] == [theirs.id]


def test_a_walk_gives_each_session_once(both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when something is said in them on the way, which changes their place in lists."""
    rp, _ = both
    monkeypatch.setattr(operations, "ITER_PAGE", 2)
    made = [rp.sessions.create(cast=["huang"]).id for _ in range(5)]
    walked = []
    for info in rp.sessions.iter():
        rp.sessions.get(info.id).send("Good night.")
        rp.sessions.get(made[-1]).send("Are you awake?")
        walked.append(info.id)
    assert walked == made


def test_a_session_is_found_by_a_seats_owner_too(both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """By everybody who sits there or has sat there, once; never by an owner who is somebody else, nor by one of the
    same name of another tenant."""
    rp, other = both
    monkeypatch.setattr(operations, "ITER_PAGE", 3)
    ada, bo = Seat(name="Ada", owner="ada"), Seat(name="Bo", owner="bo")
    seats = ([ada], [bo], [ada, bo], [Seat(name="A", owner="ada"), Seat(name="B", owner="ada")], [Seat(name="C")])
    made = [
        rp.sessions.create(cast=["huang"], users=users, owner=owner)
        for owner in ("cy", "ada", None)
        for users in seats
        for _ in range(2)
    ]
    for number in range(4):
        other.sessions.create(cast=["huang"], users=[ada, bo], owner=("ada", None)[number % 2])
    made[2].cast.join(Seat(name="D"), played_by=PlayedBy.HUMAN)
    made[2].cast.leave("Bo")
    whose = {one.id: ({info.owner} | {seat.owner for seat in info.humans}) for one in made if (info := one.info())}
    whose[made[2].id].add("bo")  # who has left
    for owner in ("ada", "bo", "cy", "ad", "", "nobody"):
        wanted = [one.id for one in made if owner in whose[one.id]]
        assert [one.id for one in rp.sessions.iter(owner=owner)] == wanted
        paged, before = [], None
        while page := rp.sessions.list(owner=owner, limit=3, before=before):
            paged += [one.id for one in page.items]
            if (before := page.older) is None:
                break
        assert paged == wanted[::-1]
        for one in made:
            if one.id in wanted:
                assert rp.sessions.get(one.id, owner=owner).id == one.id
            elif owner:
                refused(rp, one.id, owner)
        assert refused(rp, "0", owner or "nobody")["ambiguous"] is (len(wanted) > 1)
        if wanted:
            refused(other, wanted[0], owner)


MANY = 5_000
FEW = 3
CROWD = {
    "sqlite": "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :many)",
    "postgresql": "WITH n(n) AS (SELECT generate_series(1, :many))",
}


def test_an_owner_is_looked_up_by_an_index(both: tuple[Any, Any], database_url: str) -> None:
    """Among thousands of sessions of others, finding and listing an owner's reads about as many rows as it gives,
    whoever else has sessions, or sits in them."""
    rp, _ = both
    ada = Seat(name="Ada", owner="ada")
    for _ in range(FEW):
        rp.sessions.create(cast=["huang"], owner="ada")
        last = rp.sessions.create(cast=["huang"], users=[ada, Seat(name="Bo")], owner="bo")
    database = Database.open(database_url)

    def crowd(db: Connection) -> None:
        begin = CROWD[db.dialect.name]
        new = "cast(100000 + n AS varchar(36))"
        for name, key, changes in (
            ("sessions", "id", {"id": new, "owner": "'other' || (n % 9)"}),
            ("participants", "session_id", {"session_id": new, "owner": "'x' || n"}),
        ):
            names = [column.name for column in Base.metadata.tables[f"roleplay_{name}"].c]
            values = ", ".join(changes.get(column, f"x.{column}") for column in names)
            rows = f"SELECT {values} FROM roleplay_{name} x, n WHERE x.tenant = 'default' AND x.{key} = :id"
            into = f"INSERT INTO roleplay_{name} ({', '.join(names)})"
            whole = f"{into} {begin} {rows}" if db.dialect.name == "sqlite" else f"{begin} {into} {rows}"
            db.execute(text(whole), {"many": MANY, "id": last.id})

    database.write(crowd)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    with watched() as seen:
        assert len(rp.sessions.list(owner="ada", limit=4).items) == 4
        assert len(list(rp.sessions.iter(owner="ada"))) == 2 * FEW
        assert rp.sessions.get(last.id, owner="ada").id == last.id
        assert rp.sessions.get(last.id[:35], owner="ada").id == last.id
        refused(rp, "100001", "ada")
    asked = [one for one in seen if "roleplay_sessions" in one.sql and "ada" in str(one.values)]
    assert len(asked) == 6  # a walk asks for more than there is
    for one in asked:
        if database.dialect == "sqlite":
            scans = [step for step in sqlite_plan(database, one) if step.startswith("SCAN") and "SUBQUERY" not in step]
            assert not [step for step in scans if re.match(r"SCAN (own|seated|roleplay_\w+)", step)], one.sql
        else:
            nodes = postgres_plans(database_url, [one], analyze=True)
            assert not [node for node in nodes if node["Node Type"] == "Seq Scan" and "roleplay_" in str(node)], one.sql
            assert sum(map(touched, nodes)) <= 200, one.sql
    database.close()


@pytest.mark.parametrize("owner", [12, b"ada", "a\x00", "\ud800"])
def test_what_can_be_no_owner_is_refused(both: tuple[Any, Any], owner: Any) -> None:
    """The field is named by every door."""
    rp, _ = both
    session = rp.sessions.create(cast=["huang"], owner="ada")
    doors: list[Callable[[], object]] = [
        lambda: rp.sessions.create(cast=["huang"], owner=owner),
        lambda: rp.sessions.get(session.id, owner=owner),
        lambda: rp.sessions.list(owner=owner),
        lambda: list(rp.sessions.iter(owner=owner)),
    ]
    for door in doors:
        with pytest.raises(InvalidInputError) as failure:
            door()
        assert failure.value.field == "owner"


def test_metadata_is_kept_and_never_sent(both: tuple[Any, Any]) -> None:
    """It comes back as it was given, and the model does not see it; nor does the model see whose the session is."""
    rp, _ = both
    persona = Persona("Nova", metadata={"marker": "of-the-persona"}, tags=("a-tag",), extensions={"x": "an-extension"})
    given = {"marker": "of-the-session", "更多": [1, None, {"x": 0.5}]}
    session = rp.sessions.create(cast=[rp.personas.put(persona)], owner="owner-1", metadata=given)
    assert dict(rp.sessions.get(session.id).info().metadata) == given
    sent = session.preview("Hello?").body.decode()
    assert not [word for word in ("of-the", "a-tag", "an-extension", "owner-1", "marker") if word in sent]


@pytest.mark.parametrize("door", ["list", "iter"])
def test_a_page_is_few_statements(both: tuple[Any, Any], door: str) -> None:
    """However many sessions are on it."""
    rp, _ = both
    counts = []
    for number in (2, 20):
        for _n in range(number):
            rp.sessions.create(cast=["huang"], owner="ada", scene=f"Room {number}")
        with watched() as seen:
            found = list(getattr(rp.sessions, door)(owner="ada"))
        assert len(found) >= number
        assert all(one.speaker.display_name == "Huang" and one.scene.startswith("Room") for one in found)
        counts.append(sum("roleplay_" in one.sql for one in seen))
    assert counts[0] == counts[1] <= 3

"""Whose a session is: another owner's and another tenant's are as if they were not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from roleplay import Endpoint, InvalidInputError, NotFoundError, Persona
from roleplay.operations import sessions as operations
from roleplay.testing import ScriptedModel
from tests.house.test_statements import watched
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

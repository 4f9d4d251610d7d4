"""What becomes of personas: versions and who wrote them, lost updates, archives, walks through all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from roleplay import (
    ConflictError,
    Endpoint,
    ExampleDialogue,
    InvalidInputError,
    NotFoundError,
    Persona,
)
from roleplay import (
    Roleplay as Blocking,
)
from roleplay.operations import personas as operations
from roleplay.testing import ScriptedModel
from tests.house.test_statements import watched, written
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

MODEL = Endpoint("MiniMax-M2.7")
HUANG = Persona("Huang", "A ferryman.", key="huang", examples=["{{user}}: Deep?\n{{char}}: Deep enough."])


@pytest.fixture
def rp(database_url: str, scripted: Callable[..., ScriptedModel]) -> Iterator[Any]:
    """An engine of each kind on each database in turn, with a tenant beside whose personas have the same keys."""
    beside = Blocking.open(database_url, model=MODEL, chat=ScriptedModel(), migrate="auto", tenant="beside")
    with beside, Roleplay.open(database_url, model=MODEL, chat=scripted()) as one:
        theirs = [beside.personas.put(Persona(name, "Theirs.", key=name.lower())) for name in ("Huang", "Nova")]
        yield one
        assert [beside.personas.get(persona.id) for persona in theirs] == theirs
        assert len(beside.personas.versions("huang")) == 1


def test_a_version_keeps_who_wrote_it_and_why(rp: Any) -> None:
    """Author and message belong to the version that they were given with, and to no other."""
    first = rp.personas.put(HUANG, author="ada", message="The first draft.")
    second = rp.personas.put(HUANG.evolve(note="It rains."))
    third = rp.personas.put(HUANG, author="bo")
    assert [(one.version, one.author, one.message) for one in (first, second, third)] == [
        (1, "ada", "The first draft."),
        (2, "", ""),
        (3, "bo", ""),
    ]
    assert rp.personas.get("huang") == third
    assert rp.personas.get("huang", version=1) == first
    assert list(rp.personas.versions("huang")) == [third, second, first]


def test_equal_content_writes_nothing(rp: Any) -> None:
    """An equal persona is the version that is there, with its own author, whoever puts it."""
    first = rp.personas.put(HUANG, author="ada")
    with written() as rows:
        assert rp.personas.put(HUANG, author="bo", message="Again.", expected_version=1) == first
    assert not rows


def test_no_change_is_lost(rp: Any) -> None:
    """Who names the version they changed is refused when it is not the newest any more; 0 means none yet."""
    first = rp.personas.put(HUANG, expected_version=0)
    second = rp.personas.put(HUANG.evolve(note="Mine."), expected_version=1)
    for expected in (0, 1, 3):
        for persona_id in (None, first.id):
            with pytest.raises(ConflictError, match="at version 2") as failure:
                rp.personas.put(HUANG.evolve(note="Yours."), persona_id=persona_id, expected_version=expected)
            assert (failure.value.expected, failure.value.found) == (expected, 2)
    for key in ("nobody", None):
        with pytest.raises(ConflictError, match="there is no such persona") as failure:
            rp.personas.put(HUANG.evolve(key=key), expected_version=2)
        assert (failure.value.expected, failure.value.found) == (2, 0)
    assert list(rp.personas.versions("huang")) == [second, first]
    assert [one.id for one in rp.personas.iter()] == [first.id]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expected_version", -1),
        ("expected_version", True),
        ("expected_version", "1"),
        ("author", " "),
        ("author", None),
        ("author", "a" * 201),
        ("author", "a\x00"),
        ("message", "\ud800"),
        ("message", "m" * 10_001),
    ],
)
def test_what_cannot_be_noted_is_refused(rp: Any, field: str, value: object) -> None:
    """The field is named and nothing is written."""
    with pytest.raises(InvalidInputError) as failure:
        rp.personas.put(HUANG, **{field: value})
    assert failure.value.field == field
    assert len(rp.personas.list()) == 0


def test_pages_of_versions(rp: Any) -> None:
    """A page ends where the next begins; a name that finds nothing, and a cursor that is none, are told."""
    stored = [rp.personas.put(HUANG.evolve(note=str(number))) for number in range(5)]
    first = rp.personas.versions("huang", limit=2)
    second = rp.personas.versions(stored[0].id, limit=2, before=first.older)
    last = rp.personas.versions(stored[0].id[:20], limit=2, before=second.older)
    assert [*first, *second, *last] == stored[::-1]
    assert last.older is None
    assert len(rp.personas.versions("huang", limit=5)) == 5
    assert rp.personas.versions("huang", limit=5).older is None
    with pytest.raises(NotFoundError):
        rp.personas.versions("nova")
    for cursor in ("turn-3", "version-x", "version--1", "", "version-" + "9" * 20):
        with pytest.raises(InvalidInputError) as failure:
            rp.personas.versions("huang", before=cursor)
        assert failure.value.field == "before"
    with pytest.raises(InvalidInputError):
        rp.personas.versions("huang", limit=0)


def test_an_archived_persona_takes_no_new_seat(rp: Any) -> None:
    """It is in no list and sits in no new session; where it sits, it goes on; it is found by name all the same."""
    huang, guest = rp.personas.put(HUANG), rp.personas.put(Persona("Guest"))
    session = rp.sessions.create(cast=[huang], user=guest)
    archived = rp.personas.archive("huang")
    assert archived.archived_at is not None
    assert archived.model_copy(update={"archived_at": None}) == huang
    with written() as rows:
        assert rp.personas.archive(huang.id) == archived
    assert not sum(rows.values())
    assert rp.personas.get("huang") == rp.personas.get(huang.id, version=1) == archived
    assert list(rp.personas.list()) == list(rp.personas.iter()) == [guest]
    for field, seats in (
        ("cast[0]", {"cast": [huang]}),
        ("cast[0]", {"cast": ["huang"]}),
        ("user", {"user": huang.id}),
    ):
        with pytest.raises(InvalidInputError, match="'huang' is archived") as failure:
            rp.sessions.create(**({"cast": [guest]} | seats))
        assert failure.value.field == field
    assert session.send("Still there?").reply.name == "Huang"
    with pytest.raises(NotFoundError):
        rp.personas.archive("nova")


@pytest.mark.parametrize("change", [{}, {"note": "Back again."}])
def test_putting_it_again_brings_it_back(rp: Any, change: dict[str, str]) -> None:
    """By its key or its id, with equal content or with other; only other content is another version."""
    huang = rp.personas.put(HUANG)
    for number, options in enumerate(({}, {"persona_id": huang.id}), start=1):
        rp.personas.archive("huang")
        change = {name: f"{value} {number}" for name, value in change.items()}
        back = rp.personas.put(HUANG.evolve(**change), **options)
        assert (back.id, back.version, back.archived_at) == (huang.id, 1 + number * len(change), None)
        assert rp.personas.get("huang") == back
        assert list(rp.personas.list()) == [back]
    assert rp.sessions.create(cast=["huang"]).id


def test_a_walk_gives_each_once(rp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they were made, a page at a time, with what is changed or made meanwhile."""
    monkeypatch.setattr(operations, "ITER_PAGE", 3)
    stored = [rp.personas.put(Persona(f"P{number}")) for number in range(7)]
    seen = []
    for one in rp.personas.iter():
        seen.append(one.id)
        if one.id == stored[1].id:
            rp.personas.put(Persona("P0", "Changed."), persona_id=stored[0].id)
            rp.personas.put(Persona("P6", "Changed."), persona_id=stored[6].id)
            stored.append(rp.personas.put(Persona("P7")))
    assert seen == [one.id for one in stored]
    assert next(iter(rp.personas.iter())).version == 2  # left in the middle, it holds nothing


@pytest.mark.parametrize("door", ["list", "iter", "versions"])
def test_a_page_is_few_statements(rp: Any, door: str) -> None:
    """However many personas are on it, and however much they have to say."""
    counts = []
    for number in (2, 12):
        for one in range(number):
            rp.personas.put(Persona("Huang", examples=HUANG.examples * 3, key="same", note=f"{number} {one}"))
            rp.personas.put(Persona(f"P{one}", examples=HUANG.examples * (one % 3)))
        page = {"list": rp.personas.list, "iter": rp.personas.iter, "versions": lambda: rp.personas.versions("same")}
        with watched() as seen:
            found = list(page[door]())
        assert len(found) >= number
        assert all(found)
        counts.append(sum("roleplay_" in one.sql for one in seen))
    assert counts[0] == counts[1] <= (6 if door == "versions" else 3)


def test_the_dialogues_are_each_ones_own(rp: Any) -> None:
    """Reading many at once mixes nobody's lines."""
    said = [tuple(ExampleDialogue.parse(f"{{{{char}}}}: {n} {m}") for m in range(n)) for n in range(4)]
    stored = [rp.personas.put(Persona(f"P{n}", examples=examples)) for n, examples in enumerate(said)]
    changed = rp.personas.put(Persona("P2", examples=said[1]), persona_id=stored[2].id)
    assert list(rp.personas.list()) == [changed, stored[3], stored[1], stored[0]]
    assert [one.persona.examples for one in rp.personas.versions(changed.id)] == [said[1], said[2]]

"""Reading what is stored: pages and walks of a path in few statements, values as stable JSON, properties that do no
I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from roleplay import (
    ChatRequestError,
    ContextReport,
    Endpoint,
    InvalidInputError,
    NotFoundError,
    Page,
    Persona,
    SessionInfo,
    StoredPersona,
    Turn,
    TurnStatus,
)
from roleplay.session import handle
from roleplay.testing import ScriptedModel
from tests.house.test_statements import Seen, watched
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})
REFUSED = ChatRequestError("refused", code=2013)


@pytest.fixture
def rp(database_url: str, scripted: Callable[..., ScriptedModel]) -> Iterator[Any]:
    """An engine of each kind on each database in turn, with a tenant beside that has a session of the same persona."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(), tenant="beside") as beside:
        spoken(beside).send("Beside.")
        with Roleplay.open(database_url, model=MODEL, chat=scripted()) as one:
            yield one
        assert [info.scene for info in beside.sessions.iter()] == ["A ferry."]


def spoken(rp: Any, *greetings: str) -> Any:
    """A session, with greetings if there are some."""
    persona = rp.personas.put(Persona("Huang", "A ferryman.", greetings=greetings))
    return rp.sessions.create(cast=[persona], scene="A ferry.", metadata={"b": 1, "a": {"d": 1, "c": 2}})


def asked(seen: list[Seen]) -> list[str]:
    """The statements on our tables."""
    return [one.sql for one in seen if "roleplay_" in one.sql]


def regenerated(session: Any) -> Any:
    """Another variant of the head's reply."""
    with session.regenerate() as reply:
        list(reply)
    return reply.turn


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_a_page_is_two_statements(rp: Any, limit: int) -> None:
    """The newest and every older one, in a short session and in a longer one with many variants and attempts."""
    session = spoken(rp, "Step in.", "Mind the step.")
    shapes = set()
    for number in range(12):
        session.send(f"Line {number}.")
        for _ in range(number % 4):
            regenerated(session)
        before = None
        while True:
            with watched() as seen:
                page = session.turns(before=before, limit=limit)
            shapes.add((before is None, tuple(asked(seen))))
            if (before := page.older) is None:
                break
    assert {len(sqls) for _, sqls in shapes} == {2}


def test_a_page_knows_its_variants(rp: Any) -> None:
    """Each turn of it as it is known alone and among its variants: numbers, calls, text."""
    session = spoken(rp, "Step in.", "Mind the step.", "Again you?")
    for number in range(5):
        session.send(f"Line {number}.")
        for _ in range(number):
            last = regenerated(session)
        if number == 2:
            session.tree.choose(session.tree.variants(last.id)[0].id)
        if number == 3:
            session.tree.edit(last.id, "Other words.")
    page = session.turns()
    assert [(one.variant, one.variants) for one in page] == [(1, 3), (1, 1), (2, 2), (1, 3), (5, 5), (5, 5)]
    for one in page:
        assert session.turn(one.id) == session.turn(one.seq) == one
        beside = session.tree.variants(one.id)
        assert beside[one.variant - 1] == one
        assert [(other.variant, other.variants) for other in beside] == [
            (place, len(beside)) for place in range(1, len(beside) + 1)
        ]
    assert page.items[-1] in session.tree.branches()
    session.tree.choose(session.tree.variants(page.items[0].id)[2].id)
    assert [(one.variant, one.variants) for one in session.turns()] == [(3, 3)]


def test_what_did_not_become_a_reply_is_on_the_newest_page_alone(
    database_url: str, scripted: Callable[..., ScriptedModel]
) -> None:
    """At its end, beyond the limit, until something else is said; it is no variant of anything."""
    model = scripted(REFUSED, "One.", REFUSED, "Two.", "Two again.", REFUSED)
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = spoken(rp)
        assert list(session.turns()) == []
        with pytest.raises(ChatRequestError):
            session.send("First?")
        assert [one.status for one in session.turns(limit=1)] == [TurnStatus.FAILED]
        session.send("First!")
        with pytest.raises(ChatRequestError):
            session.send("Second?")
        page = session.turns(limit=1)
        assert [one.status for one in page] == [TurnStatus.COMPLETED, TurnStatus.FAILED]
        assert page.older is None
        session.send("Second!")
        assert regenerated(session).variants == 2
        with pytest.raises(ChatRequestError), session.regenerate() as reply:
            list(reply)
        page = session.turns(limit=1)
        assert [one.status for one in page] == [TurnStatus.COMPLETED, TurnStatus.FAILED]
        assert (page.items[0].variant, page.items[0].variants) == (2, 2)
        assert [one.human.text for one in session.turns(before=page.older)] == ["First!"]
        session.tree.rewind()
        assert [(one.human.text, one.status.value) for one in session.turns()] == [
            ("First!", "completed"),
            ("Second!", "failed"),
        ]
        session.tree.rewind()
        assert list(session.turns()) == []


def test_a_walk_gives_the_path_backwards(rp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path as it was at the beginning, a page at a time, whatever is said on the way."""
    monkeypatch.setattr(handle, "ITER_PAGE", 3)
    session = spoken(rp, "Step in.")
    for number in range(7):
        session.send(f"Line {number}.")
    path = [one.id for one in session.turns()]
    walked = []
    for one in session.iter_turns():
        walked.append(one.id)
        if len(walked) == 2:
            session.tree.rewind(6)
            session.send("Another branch.")
    assert walked == path[::-1]
    assert len(list(session.iter_turns())) == 3
    assert list(spoken(rp).iter_turns()) == []


@pytest.mark.parametrize("cursor", ["turn-", "turn-x", "turn--1", "version-1", "", "turn-" + "9" * 10, "turn-１"])
def test_a_cursor_of_nothing_is_refused(rp: Any, cursor: str) -> None:
    """The field is named."""
    with pytest.raises(InvalidInputError) as failure:
        spoken(rp).turns(before=cursor)
    assert failure.value.field == "before"


def test_a_session_that_is_gone_is_not_an_empty_one(rp: Any) -> None:
    """Its newest page is not found, by every door that reads it."""
    session = spoken(rp)
    stranger = rp.sessions.get(session.id)
    object.__setattr__(stranger._scope, "session_id", "0198f2c4-7a10-7c1e-9b3f-1f7a90b4c5d6")
    for door in (stranger.turns, stranger.info, lambda: list(stranger.iter_turns())):
        with pytest.raises(NotFoundError):
            door()


FIELDS = {
    StoredPersona: "id version persona created_at author message archived_at",
    SessionInfo: "id owner scene settings cast metadata version head_seq created_at last_turn_at",
    Turn: "id session_id seq kind status round ordinal attempt revision human reply variant variants calls metadata"
    " created_at ended_at",
    ContextReport: "budget_tokens prompt_tokens overhead_tokens counter counting sections window_start new_epoch"
    " calibrated foreign_counts shared_tokens",
    Page: "items older newer",
}


def test_values_are_stable_json(rp: Any) -> None:
    """Dumped and read they are the same; fields come in the order in which they are written here, and new ones after
    them; ids and moments are texts; no body of a request or an answer is among them."""
    session = spoken(rp, "Step in.")
    turn = session.send("Hello?")
    regenerated(session)
    values: list[BaseModel] = [
        rp.personas.list().items[0],
        session.info(),
        turn,
        session.turns(),
        session.preview("Well?").report,
    ]
    for value in values:
        kind = type(value)
        plain = value.model_dump(mode="json")
        text = json.dumps(plain, ensure_ascii=False)
        again = (Page[Turn] if kind is Page else kind).model_validate_json(text)
        assert again.model_dump(mode="json") == plain
        assert json.dumps(again.model_dump(mode="json"), ensure_ascii=False) == text
        if kind is not Page:
            assert again == value
        assert list(plain)[: len(FIELDS[kind].split())] == FIELDS[kind].split()
        for path, one in leaves(plain):
            name = path.rpartition(".")[2]
            assert one is None or isinstance(one, str) or not name.endswith(("id", "_at")), path
        assert "A ferryman." not in text or kind is StoredPersona
    assert "messages" not in turn.calls[0].parameters


def leaves(plain: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a JSON value that holds nothing else, with its place."""
    if isinstance(plain, dict):
        for name, one in plain.items():
            yield from leaves(one, f"{path}.{name}")
    elif isinstance(plain, list):
        for one in plain:
            yield from leaves(one, path)
    else:
        yield path, plain


def test_no_property_asks_the_database(rp: Any) -> None:
    """Neither of a value nor of a door: what may wait is a method."""
    session = spoken(rp, "Step in.")
    turn = session.send("Hello?")
    things = [turn, session.info(), rp.personas.list().items[0], session, rp, session.tree, session.turns()]
    things = [getattr(one, "_target", one) for one in things]
    read = 0
    with watched() as seen:
        for thing in things:
            for name in dir(type(thing)):
                if isinstance(getattr(type(thing), name, None), property) and not name.startswith("_"):
                    getattr(thing, name)
                    read += 1
            str(thing), repr(thing)
    assert read > 8
    assert seen == []

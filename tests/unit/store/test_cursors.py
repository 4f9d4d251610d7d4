"""Cursors come from outside: what is not ours is refused, whatever it is."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roleplay import Endpoint, InvalidInputError, Persona, Roleplay
from roleplay.store.access.cursors import after, page_of
from roleplay.testing import ScriptedModel


def cursor(value: object) -> str:
    """Write anything as a cursor is written."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


NOW = "2026-05-01T12:00:00+00:00"
HOSTILE: list[Any] = [
    "",
    " ",
    "%%%",
    "null",
    "é",
    "\ud800",
    "A" * 100_000,
    cursor(None),
    cursor(5),
    cursor([]),
    cursor([NOW]),
    cursor([NOW, "id", "more"]),
    cursor([NOW, 5]),
    cursor([NOW, None]),
    cursor([NOW, ["id"]]),
    cursor([5, "id"]),
    cursor(["yesterday", "id"]),
    cursor(["2026-05-01T12:00:00", "id"]),
    cursor(["0001-01-01T00:00:00+14:00", "id"]),
    cursor(["9999-12-31T23:59:59-14:00", "id"]),
    cursor([NOW, "id\x00"]),
    cursor([NOW, "\ud800"]),
    cursor({"a": 1, "b": 2}),
    base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    base64.urlsafe_b64encode(b"[" + b"9" * 10_000 + b', "id"]').decode(),
    5,
    b"bytes",
    [NOW, "id"],
]


@pytest.mark.parametrize("given_cursor", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_cursor(given_cursor: Any) -> None:
    """Anything that this package did not write is refused as such."""
    with pytest.raises(InvalidInputError) as failure:
        after(given_cursor)
    assert failure.value.field == "before"
    assert failure.value.__cause__ is None


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_nothing_but_our_error(text: str) -> None:
    """Whatever the text, it is a cursor or it is refused."""
    try:
        after(text)
    except InvalidInputError:
        return


def test_there_and_back() -> None:
    """A page's cursor is read as the place of its last item, and a page that is whole has none."""
    at = datetime(2026, 5, 1, 12, 0, 0, 123456, UTC)
    page = page_of(["item"], more=True, last=lambda: (at, "some-id"))
    assert page.older is not None
    moment, key = after(page.older)
    assert (moment.value, key.value) == (at, "some-id")  # type: ignore[attr-defined]
    assert page_of(["item"], more=False, last=lambda: (at, "x")).older is None


def test_a_page_of_turns_takes_its_own_cursors_only(database_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """Neither another list's cursor nor a made-up one gives turns; one beyond the session gives none."""
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Nova", greetings=["Hi"]))])
        for before in ("", "turn", "turn-", "turn--1", "turn-1e3", "turn-²", "turn-1 ", "Turn-1", cursor(NOW)):
            with pytest.raises(InvalidInputError):
                session.turns(before=before)
        assert len(session.turns(before="turn-999999999")) == 0


def test_lists_refuse_hostile_cursors(database_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """Through the front door, on a real database, no cursor fails in any other way."""
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=scripted()) as rp:
        for hostile in HOSTILE:
            for door in (rp.personas.list, rp.sessions.list):
                with pytest.raises(InvalidInputError):
                    door(before=hostile)
        far = cursor(["9999-12-31T23:59:59+00:00", "'; DROP TABLE roleplay_sessions; --"])
        assert len(rp.sessions.list(before=far)) == 0

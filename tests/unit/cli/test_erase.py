"""The erase command: it counts, asks, erases, and says what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roleplay import Endpoint, Roleplay, Seat
from roleplay.testing import ScriptedModel
from tests.unit.cli.conftest import Command


@pytest.fixture
def told(spoken: Command, persona_file: Path) -> Command:
    """A database with a persona and a session."""
    assert spoken("persona", "add", persona_file).code == 0
    assert spoken("chat", "zhuge-liang", "-m", "Well?").code == 0
    return spoken


def sessions(command: Command) -> list[str]:
    """The ids that are stored."""
    return [one["id"] for one in json.loads(command("session", "list", "--json").out)["items"]]


def test_it_asks_first(told: Command) -> None:
    """At a terminal, with what would go; only yes is yes."""
    [one] = sessions(told)
    asked = told("erase", "--session", one[:8], typed=b"n\n", terminal=True)
    assert asked.code == 130
    assert "erase for good: 1 session, 2 turns, 3 messages?" in asked.err
    assert sessions(told) == [one]
    ended = told("erase", "--session", one[:8], typed=b"y\n", terminal=True)
    assert ended.code == 0
    assert "not ours to remove: backups" in ended.err
    assert sessions(told) == []
    assert told("doctor").code == 0


def test_a_script_says_yes(told: Command) -> None:
    """Where nobody can be asked nothing is erased without ``--yes``; a dry run needs none."""
    for flags in ((), ("--json",)):
        refused = told("erase", "--persona", "zhuge-liang", "--cascade", *flags)
        assert refused.code == 2
        assert "--yes" in refused.err
    looked = told("erase", "--persona", "zhuge-liang", "--cascade", "--dry-run")
    assert "personas\t1\n" in looked.out
    assert "nothing was erased" in looked.err
    assert len(sessions(told)) == 1
    receipt = json.loads(told("erase", "--persona", "zhuge-liang", "--cascade", "--yes", "--json").out)
    assert (receipt["erased"]["sessions"], receipt["erased"]["personas"], receipt["files"]) == (1, 1, "wiped")
    assert sessions(told) == []


def test_seats_in_sessions_of_others(told: Command, tmp_path: Path) -> None:
    """They are told apart from what goes, before and after."""
    [path] = tmp_path.glob("*.db")
    with Roleplay.open(f"sqlite:///{path}", model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel()) as rp:
        seats = [Seat(name="Ann", owner="ann"), Seat(name="Bo", owner="bo")]
        session = rp.sessions.create(cast=["zhuge-liang"], users=seats, owner="bo")
        session.send("Well?", speaker="Ann")
        session.send("And?", speaker="Ann")
    asked = told("erase", "--owner", "ann", typed=b"n\n", terminal=True)
    assert "erase for good: 1 seat in sessions of others, 2 lines in sessions of others?" in asked.err
    done = told("erase", "--owner", "ann", "--yes")
    assert "blanked seats\t1\nblanked lines\t2\nblanked calls\t2\n" in done.out
    assert told("doctor").code == 0
    assert len(sessions(told)) == 2


def test_mistakes_erase_nothing(told: Command) -> None:
    """Each has its exit code, and says what is allowed."""
    for code, words in (
        (2, ("--persona", "zhuge-liang")),
        (2, ()),
        (2, ("--owner", "x", "--idle-since", "2020-01-01")),
        (2, ("--idle-since", "yesterday")),
        (2, ("--owner", "x", "--cascade")),
        (4, ("--session", "ffff")),
        (4, ("--persona", "nobody")),
    ):
        assert told("erase", *words, "--yes").code == code, words
    assert len(sessions(told)) == 1


def test_idle_ones(told: Command) -> None:
    """A date is a day of this machine; nothing to erase is no mistake."""
    nothing = told("erase", "--idle-since", "2020-01-01", "--yes")
    assert (nothing.code, nothing.out) == (0, "")
    assert "there is nothing of it" in nothing.err
    assert told("erase", "--idle-since", "2999-01-01T00:00+00:00", "--yes").code == 0
    assert sessions(told) == []

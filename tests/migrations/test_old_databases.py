"""Databases that earlier versions wrote are opened, verified and talked on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from roleplay import Endpoint, Roleplay
from roleplay.testing import ScriptedModel

FIXTURES = Path(__file__).parents[1] / "fixtures"
DATABASES = sorted(FIXTURES.glob("*.db"))


def test_there_are_some() -> None:
    """The databases are found."""
    assert DATABASES


@pytest.mark.parametrize("path", DATABASES, ids=lambda path: path.stem)
def test_an_old_database_lives_on(path: Path, tmp_path: Path) -> None:
    """Every stored request is rebuilt byte for byte, nothing is found wrong, and each session goes on."""
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    with Roleplay.open(f"sqlite:///{copy}", model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel()) as rp:
        verified = len(list(rp.replay.verify()))
        assert verified >= 2 * 9
        assert rp.doctor() == []
        for info in rp.sessions.list():
            session = rp.sessions.get(info.id)
            before = [turn.id for turn in session.turns()]
            assert session.send("Still there?").reply.text
            assert [turn.id for turn in session.turns()][: len(before)] == before
        assert len(list(rp.replay.verify())) == verified + len(rp.sessions.list())

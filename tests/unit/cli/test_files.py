"""The command line on files that are read-only, named by URI, or encrypted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from roleplay import Persona, Roleplay
from roleplay.cli.opening import location
from roleplay.testing import ScriptedModel
from tests.support.rights import without_rights
from tests.unit.cli.conftest import Command

MODEL = "MiniMax-M2.7"
READING = (
    ("session", "list"),
    ("session", "show", "01"),
    ("usage",),
    ("context", "01"),
    ("persona", "list"),
    ("persona", "show", "nova"),
    ("doctor",),
    ("db", "check"),
)


@pytest.fixture
def said(sqlite_url: str, tmp_path: Path, scripted: Callable[..., ScriptedModel]) -> Path:
    """A file with one turn."""
    with Roleplay.open(sqlite_url, model=MODEL, chat=scripted("I see.")) as rp:
        rp.sessions.create(cast=[rp.personas.put(Persona("Nova", key="nova"))]).send("It hurts.")
    return tmp_path / "chats.db"


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_what_reads_reads_what_cannot_be_written(command: Command, said: Path, arguments: tuple[str, ...]) -> None:
    """A file and a folder without the right to write are enough for it, by path and by URI."""
    folder = said.with_name("there")
    folder.mkdir()
    shutil.copy(said, folder / "chats.db")
    (folder / "chats.db").chmod(0o444)
    folder.chmod(0o555)
    path = folder / "chats.db"
    for db in (str(path), f"file:{path}?mode=ro", f"file://{path}", f"sqlite:///file:{path}?mode=ro&uri=true"):
        ended = without_rights(lambda db=db: command(*arguments, "--db", db))
        assert ended.code == 0, (db, ended.err)
    folder.chmod(0o755)


def test_what_writes_says_why_it_cannot(command: Command, said: Path) -> None:
    """One line and the code of the database's failures; nothing is made."""
    ended = command("persona", "add", "examples/none.yaml", "--db", f"file:{said}?mode=ro")
    assert ended.code != 0
    ended = command("erase", "--session", "01", "--yes", "--db", f"file:{said}?mode=ro")
    assert ended.code != 0
    assert "Traceback" not in ended.err


def test_a_uri_names_a_file(command: Command, tmp_path: Path) -> None:
    """Its file is looked for before it is opened, and is printed as it was named."""
    missing = f"file:{tmp_path}/no%20such.db?mode=ro"
    assert location(missing).file == tmp_path / "no such.db"
    assert location("file::memory:").file is None
    assert location("sqlite:///file:x?mode=memory&uri=true").file is None
    ended = command("session", "list", "--db", missing)
    assert "no such.db" in ended.err
    assert list(tmp_path.glob("*no*")) == []

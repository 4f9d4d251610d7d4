"""Which database, which model."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from roleplay import Endpoint, InvalidInputError, SettingsError
from roleplay.cli import opening, toy
from roleplay.cli.opening import NoModel, counter_named, location, model_for
from roleplay.testing import Simulator
from roleplay.wire.request import WireRequest
from tests.conftest import KEY
from tests.unit.cli.conftest import Command

TOKENIZER = Path(__file__).parents[2] / "data" / "tokenizers" / "small_bpe.json"


def test_the_nearest_word_names_the_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The option, else the environment, else a file in the user's data."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("ROLEPLAY_DB", raising=False)
    assert location(None).file == tmp_path / "roleplay" / "roleplay.db"
    monkeypatch.setenv("ROLEPLAY_DB", "postgresql://ann:secret@host:5/name?password=secret")
    assert location(None).shown == "postgresql://ann@host:5/name"
    assert location(None).file is None
    chosen = location("chats.db")
    assert (chosen.url, chosen.shown) == ("sqlite:///chats.db", str(Path.cwd() / "chats.db"))
    assert location("sqlite:///x.db?timeout=3").file == Path("x.db")
    assert location("sqlite://").file is None


def test_a_path_with_a_question_mark_is_refused() -> None:
    """It would be cut there."""
    with pytest.raises(InvalidInputError, match="question mark"):
        location("what?.db")


def test_our_own_folder_is_for_its_owner_alone(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is made at the first use, with mode 0700."""
    monkeypatch.delenv("ROLEPLAY_DB")
    assert command("persona", "list").code == 0
    folder = tmp_path / "data" / "roleplay"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "roleplay.db").is_file()


def test_a_folder_that_cannot_be_made_is_told(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line, and where else to go."""
    monkeypatch.delenv("ROLEPLAY_DB")
    (tmp_path / "data").write_text("no folder")
    ended = command("persona", "list")
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert "choose a place with --db or ROLEPLAY_DB" in ended.err


def test_a_named_place_is_not_made_up(command: Command, tmp_path: Path) -> None:
    """A typing error in --db makes neither a folder nor a database."""
    assert command("session", "list", "--db", "none.db").code == 4
    assert command("--db", "none.db", "usage").code == 4
    assert command("persona", "add", tmp_path / "x.yaml", "--db", "no/such.db").code == 4
    assert command("db", "upgrade", "--db", "no/such.db").code == 4
    assert not list(tmp_path.glob("no*"))


def test_what_shows_stored_things_speaks_to_no_model() -> None:
    """Its transport refuses."""
    with pytest.raises(SettingsError):
        NoModel().open(Endpoint("MiniMax-M2.7"), WireRequest("/", b"", stream=False))
    NoModel().close()


def test_without_a_key_the_toy_speaks_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one line names both ways out; a model that was named is never replaced by the toy."""
    monkeypatch.setattr(toy, "toy_available", lambda: True)
    assert model_for(None) is None
    with pytest.raises(SettingsError, match="no API key"):
        model_for("MiniMax-M2.7")
    monkeypatch.setattr(toy, "toy_available", lambda: False)
    with pytest.raises(SettingsError, match=r"export MINIMAX_API_KEY=\.\.\., or .*pip install"):
        model_for(None)


def test_the_toy_says_what_it_is_and_how_to_leave_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of another model goes on with it; at the end stand the other models."""
    with Simulator(KEY, models=[toy.MODEL]) as small:

        def start() -> toy.ToyServer:
            waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
            return toy.ToyServer(
                small.base_url, KEY, subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )

        monkeypatch.setattr(toy, "toy_available", lambda: True)
        monkeypatch.setattr(toy, "start_toy", start)
        monkeypatch.setenv("ROLEPLAY_DB", "toy.db")
        ended = command("chat", "zhuge-liang", "-m", "雪停了吗？")
        assert ended.code == 0
        assert "a toy on this machine: it shows the engine and not the wit" in ended.err
        assert "go on: roleplay chat --continue\n" in ended.err
        assert all(word in ended.err for word in ("MINIMAX_API_KEY=", "11434/v1", "vLLM"))
        assert command("chat", "-c", "-m", "还在吗？").code == 0


def test_a_missing_toy_is_told_before_anything_is_written(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No database, no session: only the line."""
    monkeypatch.setattr(opening.toy, "toy_available", lambda: False)
    ended = command("chat", "innkeeper", "-m", "hi")
    assert (ended.code, ended.out, ended.err.count("\n")) == (3, "", 1)
    assert not list(tmp_path.glob("*.db"))


def test_the_environment_names_a_tokenizer(
    monkeypatch: pytest.MonkeyPatch, spoken: Command, persona_file: Path
) -> None:
    """A chat counts by it; what is no tokenizer is refused before anything is written."""
    assert counter_named() is None
    monkeypatch.setenv("ROLEPLAY_TOKENIZER", str(persona_file))
    refused = spoken("chat", persona_file, "-m", "Well?")
    assert (refused.code, refused.out) == (3, "")
    assert "ROLEPLAY_TOKENIZER cannot be used: path: is no tokenizer" in refused.err
    assert spoken("session", "list").out == ""
    monkeypatch.setenv("ROLEPLAY_TOKENIZER", str(TOKENIZER))
    counter = counter_named()
    assert counter is not None
    told = spoken("chat", persona_file, typed=b"/context Well?\n")
    assert told.code == 0
    assert f"exact by {counter.name}" in told.out + told.err
    spoken("chat", persona_file, "-m", "Well?")
    session = spoken("session", "list").out.split()[0]
    assert f"exact by {counter.name}" in spoken("context", session, "--next", "And now?").out

"""What is written and read through streams that are not UTF-8: no character becomes another, and none is lost."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from roleplay.testing import Simulator
from tests.conftest import KEY, Ledger

PERSONA = "name: Mira\nkey: mira\ndescription: 旅館の女将。 😊 é\n"
ENCODINGS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "UTF-16": {"PYTHONIOENCODING": "utf-16"},
}


class Shell:
    """Runs commands in processes of their own, with streams as an environment makes them."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.streams = {name: value for name, value in environment.items() if name.startswith(("LC_", "PYTHON"))}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
        self._environment = kept | {"ROLEPLAY_DB": str(folder / "own.db"), "NO_COLOR": "1"} | environment

    def run(self, *arguments: str, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command on pipes."""
        return subprocess.run(
            self._command(arguments), input=typed, capture_output=True, check=False, env=self._environment
        )

    def seen(self, *arguments: str) -> str:
        """Run a command on a terminal and give what is seen there."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            self._command(arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=self._environment
        )
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # the other end was closed
            pass
        finally:
            os.close(ours)
            process.wait(60)
        return shown.decode(self._environment["PYTHONIOENCODING"]).replace("\r\n", "\n")

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        program = "import sys; from roleplay.cli.main import run; run()"
        return [sys.executable, "-c", program, *arguments]


@pytest.fixture(params=ENCODINGS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    """A shell of an encoding, with a stored persona."""
    one = Shell(tmp_path, **ENCODINGS[request.param])
    (tmp_path / "mira.yaml").write_text(PERSONA, encoding="utf-8")
    assert one.run("persona", "add", str(tmp_path / "mira.yaml")).returncode == 0
    return one


def test_what_is_shown_into_a_file_is_the_same_persona(shell: Shell) -> None:
    """``persona show`` into a file and ``persona add`` of it change nothing; ``--json`` is JSON in UTF-8."""
    shown = shell.run("persona", "show", "mira")
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert "旅館の女将。 😊 é" in shown.stdout.decode("utf-8")
    (shell.folder / "again.yaml").write_bytes(shown.stdout)
    assert shell.run("persona", "add", str(shell.folder / "again.yaml")).stdout.startswith(b"unchanged Mira, version 1")
    told = json.loads(shell.run("persona", "show", "mira", "--json").stdout.decode("utf-8"))
    assert told["persona"]["description"] == "旅館の女将。 😊 é"


@pytest.mark.parametrize("shell", ["cp1252"], indirect=True)
def test_errors_in_a_pipe_are_utf_8_too(shell: Shell) -> None:
    """For people and for scripts."""
    told = shell.run("chat", "mira", "-m", " ", "--json").stderr.decode("utf-8")
    assert json.loads(told)["slug"] == "invalid_input"


@pytest.mark.parametrize("shell", ["cp1252"], indirect=True)
def test_what_is_piped_in_is_read_as_utf_8(shell: Shell, simulator: Simulator, ledger: Ledger) -> None:
    """Whatever the locale: what was said is stored and sent as it was typed."""
    ledger.urls.append(f"sqlite:///{shell.folder / 'own.db'}")
    one = Shell(
        shell.folder,
        ROLEPLAY_BASE_URL=simulator.base_url,
        ROLEPLAY_API_KEY=KEY,
        ROLEPLAY_DIALECT="minimax",
        **shell.streams,
    )
    said = one.run("chat", "mira", "--json", typed="\ufeff空いていますか é\r\n".encode())
    assert json.loads(said.stdout.decode("utf-8"))["human"] == "空いていますか é"


def test_a_terminal_shows_an_escape_and_says_so(tmp_path: Path) -> None:
    """What its encoding has is shown; what it has not is an escape, never ``?``."""
    shell = Shell(tmp_path, PYTHONIOENCODING="cp1252")
    (tmp_path / "mira.yaml").write_text(PERSONA, encoding="utf-8")
    shell.run("persona", "add", str(tmp_path / "mira.yaml"))
    seen = shell.seen("persona", "show", "mira")
    assert r"description: \u65c5\u9928\u306e\u5973\u5c06\u3002 \ud83d\ude0a é" in seen
    assert "this terminal (cp1252) cannot show some characters" in seen
    assert "cannot show" not in Shell(tmp_path, PYTHONIOENCODING="utf-8").seen("persona", "show", "mira")


def test_a_persona_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    """With line and byte, or as UTF-16, which some shells write."""
    shell = Shell(tmp_path)
    (tmp_path / "one.yaml").write_bytes("name: Mira\ndescription: caf\u00e9\n".encode("latin-1"))
    (tmp_path / "two.yaml").write_text("name: Mira\n", encoding="utf-16")
    assert b"is not UTF-8 at byte 27, in line 2" in shell.run("persona", "add", str(tmp_path / "one.yaml")).stderr
    assert b"is UTF-16" in shell.run("persona", "add", str(tmp_path / "two.yaml")).stderr

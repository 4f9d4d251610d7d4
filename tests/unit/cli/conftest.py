"""The command line, run inside this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from roleplay.cli.main import main
from roleplay.testing import Simulator
from tests.conftest import KEY, Ledger

PERSONA = """\
name: Zhuge Liang
description: Chancellor of Shu, calm.
greetings: ["You have come through snow, {{user}}. Sit."]
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def sqlite_url(tmp_path: Path, ledger: Ledger) -> str:
    """The URL of a SQLite file that does not exist yet: the command line makes its own."""
    url = f"sqlite:///{tmp_path / 'chats.db'}"
    ledger.urls.append(url)
    return url


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, sqlite_url: str
) -> Command:
    """Runs a command with an input, a database of its own, and no model."""
    monkeypatch.setenv("ROLEPLAY_DB", sqlite_url)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, typed: bytes = b"", terminal: bool = False) -> Ended:
        stdin = io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8")
        for stream in (stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
        monkeypatch.setattr(sys, "stdin", stdin)
        code = main([str(one) for one in arguments])
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def spoken(command: Command, monkeypatch: pytest.MonkeyPatch, simulator: Simulator) -> Command:
    """Runs a command with the simulator behind it."""
    monkeypatch.setenv("ROLEPLAY_BASE_URL", simulator.base_url)
    monkeypatch.setenv("ROLEPLAY_API_KEY", KEY)
    monkeypatch.setenv("ROLEPLAY_DIALECT", "minimax")
    return command


@pytest.fixture
def persona_file(tmp_path: Path) -> Path:
    """A persona that people wrote."""
    path = tmp_path / "zhuge_liang.yaml"
    path.write_text(PERSONA, encoding="utf-8")
    return path

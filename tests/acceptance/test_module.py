"""``python -m roleplay`` is the command line too."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest


def call(folder: Path, words: Sequence[str], **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    return subprocess.run(
        words, cwd=folder, env=os.environ | environ, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("options", [["-m"], ["-Pm"]])
def test_help_begins_as_it_was_called(tmp_path: Path, options: list[str]) -> None:
    """The words before the arguments are those that were typed."""
    program = [sys.executable, *options, "roleplay"]
    shown = call(tmp_path, [*program, "--help"], PATH="/nowhere")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.split("[OPTIONS]")[0].split() == ["Usage:", *shlex.join(program).split()]


def test_advice_can_be_followed(tmp_path: Path) -> None:
    """It names the same program, and does what it says."""
    program = [sys.executable, "-m", "roleplay"]
    assert call(tmp_path, [*program, "--version"]).stdout.split()[1] == version("roleplay-engine")
    missing = call(tmp_path, [*program, "db", "check", "--db", "it.db"], PATH="/nowhere")
    assert missing.returncode == 8
    advice = missing.stderr.strip().split("run: ")[1]
    assert advice == f"{shlex.join(program)} db upgrade --db it.db"
    assert call(tmp_path, shlex.split(advice)).returncode == 0
    assert call(tmp_path, [*program, "db", "check", "--db", "it.db"]).returncode == 0


def test_a_python_on_the_path_goes_by_its_name(tmp_path: Path) -> None:
    """As people type it, and not where it lies."""
    python = Path(sys.executable)
    wrong = call(tmp_path, [str(python), "-m", "roleplay", "bogus"], PATH=str(python.parent))
    assert wrong.returncode == 2
    assert wrong.stderr.strip().endswith(f"Try: {python.name} -m roleplay --help")

"""The programs of ``examples/`` run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roleplay import Endpoint, Persona, Roleplay
from roleplay.testing import ScriptedModel, Simulator
from tests.conftest import KEY

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a program as a stranger would, with a model of the environment and a folder of its own.

    The notebook's database ends with it, so that its requests cannot be rebuilt: the server is nobody else's.
    """
    simulator = Simulator(KEY)

    def work(*command: str) -> str:
        environ = os.environ | {
            "ROLEPLAY_BASE_URL": simulator.base_url,
            "ROLEPLAY_API_KEY": KEY,
            "ROLEPLAY_DIALECT": "minimax",
            "ROLEPLAY_MODEL": "MiniMax-M2.7",
        }
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with simulator:
        yield work


def test_persona_batch(run: Run, tmp_path: Path) -> None:
    """Each persona of the folder gets the trait once; the second run finds nothing to do."""
    url = f"sqlite:///{tmp_path / 'chats.db'}"
    with Roleplay.open(url, model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel()) as rp:
        rp.personas.put(Persona("Huang", key="huang"))
        rp.personas.put(Persona("Nameless"))
    program = str(EXAMPLES / "persona_batch.py")
    assert sorted(run(program, url).splitlines()) == ["Huang: version 2", "Nameless: version 2"]
    assert run(program, url) == ""


def test_notebook(run: Run) -> None:
    """All cells run; the variants stand side by side."""
    said = run(str(EXAMPLES / "notebook.py"))
    assert "kept 1 of 1: required" in said
    assert all(f"'temperature': {one}" in said for one in (0.2, 0.6, 1.0))


def test_a_products_own_tests(run: Run) -> None:
    """They pass, and each of them ran."""
    assert "2 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_my_bot.py"))

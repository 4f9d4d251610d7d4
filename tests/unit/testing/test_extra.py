"""A plain install, without the library that the simulator serves HTTP with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLAIN = """
import runpy, sys

class Without:
    def find_spec(self, name, *_rest):
        if name.partition(".")[0] == "h11":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
"""
LACKS = "the simulator needs an extra: pip install 'roleplay-engine[testing]'"


def plain(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program where ``h11`` cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", PLAIN + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_scripted_model_needs_no_extra() -> None:
    """Nor do the faults and the models, which are values."""
    done = plain("from roleplay.testing import ScriptedModel; from roleplay.testing.simulator import CutStream, MODELS")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_example_needs_no_extra(tmp_path: Path) -> None:
    """The personas of others are put by a plain install."""
    run = "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    card = ROOT / "tests/data/cards/full_v2_card.json"
    done = plain(run, "examples/put_foreign_personas.py", f"sqlite:///{tmp_path / 'chats.db'}", str(card))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("room", ["roleplay.testing", "roleplay.testing.simulator"])
def test_the_simulator_names_its_extra(room: str) -> None:
    """Asking for the server without its library says what to install."""
    done = plain(f"from {room} import Simulator")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"roleplay.errors.SettingsError: {LACKS}"


def test_the_program_names_its_extra() -> None:
    """As a program, the simulator says it in one line."""
    done = plain("runpy.run_module('roleplay.testing.simulator', run_name='__main__', alter_sys=True)")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{LACKS}\n")


@pytest.mark.parametrize("room", ["roleplay.testing", "roleplay.testing.simulator"])
def test_other_names_are_unknown(room: str) -> None:
    """What is not there is missed as anywhere else."""
    with pytest.raises(AttributeError, match="has no attribute 'Nobody'"):
        _ = __import__(room, fromlist=["ScriptedModel"]).Nobody

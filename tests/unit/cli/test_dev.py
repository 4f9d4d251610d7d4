"""``dev.py`` hands every command of the engine on, and tells it how it was called."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from roleplay.cli.main import app

DEV = Path(__file__).parents[3] / "dev.py"


class Became(Exception):  # noqa: N818 - no error: nothing is started here
    """The program that ``dev.py`` would go on as."""


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of ``dev.py``, which installs nothing and starts nothing here."""
    names: dict[str, Any] = runpy.run_path(str(DEV))["main"].__globals__

    def become(command: list[str]) -> None:
        raise Became(command)

    names["become"] = become
    names["ensure"] = lambda parts: names.update(ensured=parts)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "dev.py"])
    monkeypatch.setattr(sys, "argv", ["my checkout/dev.py"])
    return names


def test_it_knows_the_commands_of_the_engine(dev: dict[str, Any]) -> None:
    """A new one is handed on too."""
    assert set(dev["ROLEPLAY_COMMANDS"]) == set(get_command(app).commands)


def test_a_command_is_handed_on_with_what_was_typed(dev: dict[str, Any]) -> None:
    """What the engine prints can be typed: its name is what was typed before the command."""
    with pytest.raises(Became) as became:
        dev["main"](["session", "show", "a b"])
    command = became.value.args[0]
    assert command[-4:] == ["python3 'my checkout/dev.py'", "session", "show", "a b"]
    ran = [sys.executable, *command[1:-3], "persona", "--bogus"]
    told = subprocess.run(ran, capture_output=True, text=True, check=False, timeout=60)
    assert told.stderr.endswith("Try: python3 'my checkout/dev.py' persona --help\n")
    assert told.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "variable", "parts"),
    [
        (["chat", "innkeeper"], None, ["engine", "toy"]),
        (["--debug", "chat"], None, ["engine", "toy"]),
        (["usage"], None, ["engine"]),
        (["chat"], "ROLEPLAY_MODEL", ["engine"]),
        (["chat"], "MINIMAX_API_KEY", ["engine"]),
    ],
)
def test_the_toy_is_installed_for_those_who_need_it(
    dev: dict[str, Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str | None, parts: list[str]
) -> None:
    """To talk with no model of one's own."""
    if variable:
        monkeypatch.setenv(variable, "x")
    with pytest.raises(Became):
        dev["main"](arguments)
    assert dev["ensured"] == parts


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["engine", "toy", "dev"]),
        (["-q", "tests/unit"], ["engine", "toy", "dev"]),
        (["-q", "tests/clients"], ["engine", "toy", "dev", "clients"]),
        (["tests/clients/test_matrix.py::test_it[x/y]"], ["engine", "toy", "dev", "clients"]),
    ],
)
def test_the_clients_of_others_are_installed_for_their_tests_alone(
    dev: dict[str, Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    """The rest of the suite does not need them."""
    monkeypatch.chdir(DEV.parent)
    monkeypatch.delenv("COVERAGE", raising=False)
    with pytest.raises(Became):
        dev["main"](["test", *arguments])
    assert dev["ensured"] == parts


def test_a_command_that_is_none_is_refused_before_anything_is_installed(
    dev: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With all that there are."""
    with pytest.raises(SystemExit) as ended:
        dev["main"](["persno"])
    assert ended.value.code == 2
    assert "there are chat, persona, " in capsys.readouterr().err


def test_the_lowest_versions_are_those_that_are_declared(dev: dict[str, Any]) -> None:
    """A bound that is changed is tried: each requirement of the package and its extras is pinned at its lower bound."""
    pins = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, _, version in (line.partition("==") for line in dev["LOWEST"].read_text().splitlines())
    }
    declared = dev["lowest"](tomllib.loads(dev["PROJECT"].read_text())["project"])
    assert len(declared) > 10
    for one in declared:
        name, _, bound = re.sub(r"\[.*?\]", "", one).partition("==")
        pinned = pins[re.sub(r"[-_.]+", "-", name).lower()]
        assert pinned in {bound, f"{bound}.0"}, f"{one}: run python3 dev.py pin lowest"


def test_a_bound_is_the_first_of_its_words(dev: dict[str, Any]) -> None:
    """Of all extras, whatever else is said."""
    project = {"dependencies": ["a>=1.2,<3"], "optional-dependencies": {"x": ["b[c]>=4"], "y": ["d>=5.0.1"]}}
    assert dev["lowest"](project) == ["a==1.2", "b[c]==4", "d==5.0.1"]


@pytest.mark.parametrize("words", [["highest"], ["lowest", "lowest"]])
def test_pin_refuses_what_it_does_not_know(
    dev: dict[str, Any], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Nothing is resolved then."""
    with pytest.raises(SystemExit) as ended:
        dev["main"](["pin", *words])
    assert ended.value.code == 2
    assert "'lowest'" in capsys.readouterr().err

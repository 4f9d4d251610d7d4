"""The commands that are printed: they can be typed as they stand, and find the same database."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from roleplay.cli.hints import without_password
from roleplay.cli.main import main
from roleplay.testing import Simulator
from tests.unit.cli.conftest import PERSONA, Command


def test_they_begin_as_this_command_was_called(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Help, advice and errors of every kind name what was typed."""
    command("db", "upgrade")
    for arguments in (["persona", "list"], ["session", "list"], ["chat", "nobody"], ["db", "bogus"], ["chat", "-h"]):
        main(arguments, program="python3 dev.py")
        out, err = capsys.readouterr()
        assert "python3 dev.py " in out + err, arguments
        assert " roleplay " not in out + err.removeprefix("roleplay: "), arguments


def test_they_name_the_database_that_this_command_was_given(
    spoken: Command, tmp_path: Path, simulator: Simulator
) -> None:
    """Wherever ``--db`` stood, and whatever its name; one from the environment is found without."""
    (tmp_path / "my file.db").touch()
    flag = " --db 'my file.db'"
    assert f"persona add FILE.yaml{flag}\n" in spoken("--db", "my file.db", "persona", "list").err
    assert f"chat PERSONA{flag}\n" in spoken("session", "list", "--db", "my file.db").err
    assert f"chat --continue{flag}\n" in spoken("chat", "innkeeper", "-m", "a", "--db", "my file.db").err
    assert f"persona list{flag}, roleplay session list{flag}" in spoken("chat", "nobody", "--db", "my file.db").err
    assert "go on: roleplay chat --continue\n" in spoken("chat", "innkeeper", "-m", "a").err
    assert simulator.requests


@pytest.mark.parametrize("there", [False, True])
def test_a_schema_is_upgraded_where_it_is_missing(command: Command, tmp_path: Path, *, there: bool) -> None:
    """A file that is missing and one with nothing in it get the same advice, which can be followed."""
    if there:
        (tmp_path / "old.db").touch()
    told = command("db", "check", "--db", "old.db").err
    assert told.endswith("run: roleplay db upgrade --db old.db\n")
    assert command(*shlex.split(told.split("run: roleplay ")[1])).code == 0
    assert command("db", "check", "--db", "old.db").code == 0


@pytest.mark.parametrize(("key", "typed"), [("ann", "ann"), ("my key", "'my key'"), ("a.yaml", None), ("-m", None)])
def test_a_key_is_printed_so_that_it_can_be_typed(spoken: Command, tmp_path: Path, key: str, typed: str | None) -> None:
    """One that would be read as a file or an option is not printed: the id does."""
    path = tmp_path / "file.yaml"
    path.write_text(PERSONA + f"key: '{key}'\n", encoding="utf-8")
    printed = spoken("persona", "add", path).out.split(" · ")[1]
    [stored] = json.loads(spoken("persona", "list", "--json").out)["items"]
    assert printed == f"roleplay chat {typed or stored['id']}\n"
    assert spoken(*shlex.split(printed)[1:], "-m", "hi").code == 0


def test_a_password_is_not_printed() -> None:
    """Neither from the login nor from the parameters; a file may be called what it likes."""
    assert without_password("postgresql://ann:secret@host:5/name?password=secret") == "postgresql://ann@host:5/name"
    assert without_password("postgresql://host:5/name") == "postgresql://host:5/name"
    assert without_password("postgresql://ann:se#c?r/et@host/name") == "postgresql://ann@host/name"
    assert without_password("postgresql://ann:sec@r/et@host/name") == "postgresql://ann@***"
    assert without_password("sqlite:///a:b@c.db?timeout=3") == "sqlite:///a:b@c.db?timeout=3"


@pytest.mark.parametrize(
    ("arguments", "code", "slug"),
    [
        (["session", "show", "nothing", "--json"], 4, "not_found"),
        (["chat", "nobody", "-m", "hi", "--json"], 4, "not_found"),
        (["persona", "show", "", "--json"], 2, "invalid_input"),
        (["usage", "--db", "none.db", "--json"], 4, "not_found"),
        (["db", "check", "--db", "none.db", "--json"], 8, "schema"),
        (["usage", "--by", "moon", "--json"], 2, "error"),
    ],
)
def test_an_error_is_json_where_json_is_asked_for(spoken: Command, arguments: list[str], code: int, slug: str) -> None:
    """One object on the last line of standard error, nothing on standard output, the same exit code."""
    spoken("db", "upgrade")
    ended = spoken(*arguments)
    assert (ended.code, ended.out) == (code, "")
    told = json.loads(ended.err)
    assert told["slug"] == slug
    assert {"message", "retryable", "turn_id"} <= told.keys()


def test_a_person_who_types_with_json_gets_errors_as_json(spoken: Command) -> None:
    """A program may sit at a terminal, too."""
    ended = spoken("chat", "innkeeper", "--json", typed=b"/bogus\n", terminal=True)
    assert json.loads(next(line for line in ended.err.splitlines() if line.startswith("{")))["field"] == "/bogus"

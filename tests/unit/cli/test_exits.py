"""The table of exit codes, and the one line of an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from roleplay import (
    BudgetError,
    ChatAuthError,
    ChatError,
    ChatUnavailableError,
    ConflictError,
    IdempotencyError,
    InvalidInputError,
    NotFoundError,
    RoleplayError,
    SchemaError,
    SettingsError,
    StoreError,
)
from roleplay.cli.exits import LINE_LIMIT, ExitCode, epilog, exit_code, one_line, safe, sentence
from tests.unit.cli.conftest import Command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInputError("text", "is blank"), 2),
        (SettingsError("no key"), 3),
        (NotFoundError("persona", "x"), 4),
        (ConflictError("busy"), 5),
        (IdempotencyError("used"), 5),
        (ChatAuthError("refused", code=1004), 6),
        (ChatUnavailableError("gone"), 6),
        (ChatError("what"), 6),
        (BudgetError({"system": 9}, 3), 7),
        (StoreError("disk"), 8),
        (SchemaError("newer", found="9", expected="1"), 8),
        (RoleplayError("else"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: RoleplayError, code: int) -> None:
    """The code follows from the error's class."""
    assert exit_code(error) == code


def test_the_help_lists_every_exit_code(command: Command) -> None:
    """The table in the help is the table in force, and so is the one in the reference."""
    page = (Path(__file__).parents[3] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert all(f"| {code.value} | {code.meaning} |" in page for code in ExitCode)
    ended = command("--help")
    assert ended.code == 0
    assert all(f"{code.value:>3}  {code.meaning}" in ended.out for code in ExitCode)
    assert epilog().count("\n") == len(ExitCode) + 1


def test_a_sentence_is_one_line_that_says_what_to_do() -> None:
    """Line breaks and control characters of a service are no longer either."""
    told = sentence(ChatAuthError("login\nfail \x1b[31m", code=1004))
    assert told == (
        "login fail ␛[31m (code 1004); check the key in ROLEPLAY_API_KEY or MINIMAX_API_KEY, "
        "and that it belongs to this host"
    )
    assert len(one_line("x" * 5_000)) == LINE_LIMIT


def test_what_is_safe_for_a_terminal_has_no_control_sequence() -> None:
    """ESC, C0, DEL and C1 become visible signs; line ends and tabs stay; carriage returns go."""
    assert safe("a\x1b[2J\x07b\r\nc\td\x7f\x9b31m\x85") == "a␛[2J␇b\nc\td␡\ufffd31m\ufffd"


def test_a_usage_error_is_one_line(command: Command) -> None:
    """Unknown commands and options are told like every other error."""
    ended = command("persona", "ad")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("roleplay: No such command 'ad'.")
    assert ended.err.endswith("Try: roleplay persona --help\n")
    assert ended.err.count("\n") == 1
    assert command("chat", "--nope").err.startswith("roleplay: No such option")
    assert command("persona").err.startswith("roleplay: Missing command.")


def test_an_unexpected_error_shows_its_trace_only_when_asked(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line without --debug, the way there with it, on request of the environment too."""

    def break_it(*_: object, **__: object) -> None:
        raise ZeroDivisionError("what\nnow")

    monkeypatch.setattr("roleplay.cli.personas.show_list", break_it)
    plain = command("persona", "list")
    assert plain.code == 1
    assert plain.err == (
        "roleplay: unexpected ZeroDivisionError: what now; run again with 'roleplay --debug ...' to see where\n"
    )
    assert "Traceback" in command("--debug", "persona", "list").err
    monkeypatch.setenv("ROLEPLAY_DEBUG", "1")
    assert "Traceback" in command("persona", "list").err


def test_the_version_is_told(command: Command) -> None:
    """The distribution's name and version."""
    assert command("--version").out.startswith("roleplay-engine 0.")

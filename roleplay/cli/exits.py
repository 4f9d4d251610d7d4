"""How a command ends: the table of exit codes, and the one line that says what went wrong and what to do."""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from typing import Self

from roleplay.cli import hints
from roleplay.errors import (
    BudgetError,
    ChatAuthError,
    ChatError,
    ChatQuotaError,
    ChatRequestError,
    ChatUnavailableError,
    ConflictError,
    ContentFilteredError,
    InvalidInputError,
    NotFoundError,
    RoleplayError,
    SchemaError,
    SettingsError,
    StoreError,
)

LINE_LIMIT = 600


class ExitCode(IntEnum):
    """What a command's end tells a script. The number is the exit code, ``meaning`` its line in the help."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """Make a member that is its number and knows its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "done"
    UNEXPECTED = 1, "an error nobody foresaw: run again with --debug"
    USAGE = 2, "the command or its input is not right; nothing was written"
    SETTINGS = 3, "a key, a model or a package is missing"
    NOT_FOUND = 4, "no such persona, session or file"
    CONFLICT = 5, "someone else wrote first, or a reply is still running"
    CHAT = 6, "the chat service failed: key, quota, model, network, filter"
    BUDGET = 7, "what must be sent does not fit the token budget"
    STORE = 8, "the database failed, its schema is older or newer, or doctor left damage"
    INTERRUPTED = 130, "Ctrl-C"
    PIPE_CLOSED = 141, "the reader of the output went away"


_CODES: tuple[tuple[type[RoleplayError], ExitCode], ...] = (
    (SettingsError, ExitCode.SETTINGS),
    (InvalidInputError, ExitCode.USAGE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (ConflictError, ExitCode.CONFLICT),
    (BudgetError, ExitCode.BUDGET),
    (ChatError, ExitCode.CHAT),
    (StoreError, ExitCode.STORE),
)
_ADVICE: tuple[tuple[type[RoleplayError], str], ...] = (
    (ChatAuthError, "check the key in ROLEPLAY_API_KEY or MINIMAX_API_KEY, and that it belongs to this host"),
    (ChatQuotaError, "top up the account or wait for the reset, then say it again"),
    (ChatUnavailableError, "try again in a moment"),
    (ContentFilteredError, "say it in other words"),
    (ChatRequestError, "check --model or ROLEPLAY_MODEL, and ROLEPLAY_BASE_URL"),
    (ChatError, "try again"),
    (ConflictError, "let the other finish, then try again"),
    (BudgetError, "shorten them, or take a model with a larger window (ROLEPLAY_WINDOW_TOKENS)"),
    (SchemaError, ""),
    (StoreError, "check --db or ROLEPLAY_DB"),
)
_C0 = {code: chr(0x2400 + code) for code in range(32)} | {0x7F: "\u2421"}
_C1 = dict.fromkeys(range(0x80, 0xA0), "\ufffd")
_VISIBLE = {**_C0, **_C1, ord("\n"): "\n", ord("\t"): "\t", ord("\r"): ""}


def safe(text: str) -> str:
    """Give ``text`` as it may go to a terminal: control characters become visible signs, line ends and tabs stay."""
    return text.translate(_VISIBLE)


def one_line(text: str) -> str:
    """Give ``text`` safe for a terminal, in one line of bounded length."""
    line = safe(" ".join(text.split()))
    return line if len(line) <= LINE_LIMIT else line[: LINE_LIMIT - 1] + "…"


def exit_code(error: RoleplayError) -> ExitCode:
    """Give the exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.UNEXPECTED)


def sentence(error: RoleplayError) -> str:
    """Give an error as one line: what happened and, where its own words do not say it, what to do."""
    advice = next((words for kind, words in _ADVICE if isinstance(error, kind)), "")
    # the library names the command that mends a schema as it is called by itself
    words = str(error).replace(f"{hints.PROGRAM} db upgrade", hints.command("db upgrade"))
    return one_line(f"{words}; {advice}" if advice else words)


def last_sentence(error: RoleplayError) -> str:
    """Give the error that ends a command as one line, with the way back to a reply that failed."""
    if isinstance(error, ChatError) and error.turn_id is not None:
        return f"{sentence(error)} · {hints.command('chat --continue')}, then /retry asks again"
    return sentence(error)


def complain(line: str) -> None:
    """Write the one line of an error to standard error."""
    sys.stderr.write(f"roleplay: {one_line(line)}\n")
    sys.stderr.flush()


def complain_json(error: RoleplayError) -> None:
    """Write an error to standard error as one JSON object on a line, for a script."""
    sys.stderr.write(json.dumps(error.to_dict(), ensure_ascii=False) + "\n")
    sys.stderr.flush()


def epilog() -> str:
    """Give the table of exit codes for the help; the first character keeps its lines apart."""
    return "\b\nExit codes:\n" + "\n".join(f"  {code.value:>3}  {code.meaning}" for code in ExitCode)

"""What a line that begins with a slash does inside a chat."""

from __future__ import annotations

from collections.abc import Callable

from roleplay.cli import show
from roleplay.cli.conversation import Conversation
from roleplay.errors import InvalidInputError

HISTORY_TURNS = 20
HELP = """\
/history [N]      the last N turns, 20 when left out
/usage            what this session cost so far
/context [TEXT]   what would be sent with TEXT, and what is left out and why
/quit             end the chat; everything is stored already
//...             says a line that begins with a slash"""


class Quit(Exception):  # noqa: N818 - not an error: the person has said enough
    """The person wants to end the chat."""


def is_command(line: str) -> bool:
    """Whether a line is a command and not said: one slash before it, not two."""
    return line.startswith("/") and not line.startswith("//")


def unslashed(line: str) -> str:
    """Give what is said by a line that is no command."""
    return line.removeprefix("/") if line.startswith("//") else line


class Commands:
    """The commands of one conversation."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._known: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/history": self._history,
            "/usage": self._usage,
            "/context": self._context,
            "/quit": self._quit,
        }

    def do(self, line: str) -> None:
        """Do what ``line`` says. Raises ``InvalidInputError`` for what it does not know, and ``Quit``."""
        word, _, rest = line.strip().partition(" ")
        command = self._known.get(word)
        if command is None:
            raise InvalidInputError(word, "is no command; // says a line with a slash", allowed=" ".join(self._known))
        command(rest.strip())

    def _help(self, _rest: str) -> None:
        show.say(HELP)

    def _history(self, rest: str) -> None:
        if rest and not (rest.isdecimal() and 1 <= int(rest) <= 500):
            raise InvalidInputError("/history", f"is followed by {rest!r}", allowed="a number from 1 to 500")
        self._talk.show_last(int(rest or HISTORY_TURNS))

    def _usage(self, _rest: str) -> None:
        mine = [one for one in self._talk.rp.usage.report(by="session") if one.key == self._talk.session.id]
        if not mine:
            show.say("no model was called in this session")
        for one in mine:
            show.say(f"{one.calls} calls · {show.tokens(one.usage)}{show.unreported(one)}")

    def _context(self, rest: str) -> None:
        report = self._talk.session.preview(rest or "…").report
        show.say(f"{report.prompt_tokens} of {report.budget_tokens} tokens, {report.counting} by {report.counter}")
        columns = ("section", "kept", "dropped", "tokens", "why")
        show.table(
            columns,
            (
                (
                    one.section,
                    str(one.kept_items),
                    str(one.claimed_items - one.kept_items),
                    str(one.kept_tokens),
                    one.reason,
                )
                for one in report.sections
            ),
        )

    def _quit(self, _rest: str) -> None:
        raise Quit

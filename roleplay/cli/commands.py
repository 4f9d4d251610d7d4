"""What a line that begins with a slash does inside a chat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from roleplay.cli import seats, show
from roleplay.cli.context import draw
from roleplay.cli.conversation import Conversation, calls_nobody
from roleplay.domain.conversation import PlayedBy, Turn, TurnKind
from roleplay.domain.settings import DEFAULT_OPTIONS
from roleplay.errors import InvalidInputError
from roleplay.turns.rounds import LIMIT as ROUND_LIMIT

HISTORY_TURNS = 20


class Quit(Exception):  # noqa: N818 - not an error: the person has said enough
    """The person wants to end the chat."""


class Command(NamedTuple):
    """A command: how it is written, what it does in a few words, and what does it. It gives the turn it spoke."""

    usage: str
    about: str
    do: Callable[[str], Turn | None]

    @property
    def name(self) -> str:
        return self.usage.partition(" ")[0]


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
        self.groups: dict[str, Sequence[Command]] = {
            "Look": (
                Command(
                    "/history [N]", f"the last N turns with their numbers, {HISTORY_TURNS} if left out", self._history
                ),
                Command("/variants", "all variants of the last reply", self._variants),
                Command("/branches", "the last turn of every branch", self._branches),
                Command("/context [TEXT]", "what would be sent with TEXT, what is left out and why", self._context),
                Command("/usage", "what this session cost so far", self._usage),
            ),
            "The last reply": (
                Command("/swipe [HINT]", "another one; HINT says how it should be", self._swipe),
                Command("/choose N", "take the variant or branch that ends in turn N", self._choose),
                Command("/edit TEXT", "give it other words, as another variant", self._edit),
                Command("/retry", "ask again, where it failed or was interrupted", self._retry),
                Command("/continue", "let it go on from its text", self._continue),
                Command("/accept", "keep it as it is, where it was interrupted", self._accept),
            ),
            "The path": (
                Command("/rewind [N]", "step back over the last N turns, one if left out", self._rewind),
                Command("/fork N", "stand on turn N; the next line begins a branch there", self._fork),
                Command("/undo", "take back the last reply or step", self._undo),
                Command("/hide N", "keep turn N from the model", self._hide),
                Command("/show N", "let the model see turn N again", self._show),
            ),
            "Who speaks": (
                Command("/as [NAME]", "speak as NAME from now on; without a name, who can", self._as),
                Command("/whisper NAME TEXT", "say it to NAME alone, or to several: Ann, Ben", self._whisper),
                Command("/next [NAME]", "let NAME speak, or whoever is next", self._next),
                Command("/round [N]", "let those speak who are next, at most N", self._round),
                Command("/narrate TEXT", "add a line of the narrator's; nobody is asked", self._narrate),
                Command("/cast", "who is here, who plays them, who is muted", self._cast),
                Command("/mute NAME", "let NAME speak only when told to; off: as before", self._mute),
            ),
            "And": (
                Command("/help", "this list", self._help),
                Command("/quit", "end the chat; everything is stored already", self._quit),
            ),
        }
        self._known = {one.name: one for group in self.groups.values() for one in group}

    def do(self, line: str) -> Turn | None:
        """Do what ``line`` says; gives the turn of the reply that it asked for, if it asked for one.

        Raises ``InvalidInputError`` for what it does not know, what the engine raises, and ``Quit``.
        """
        word, _, rest = line.strip().partition(" ")
        command = self._known.get(word)
        if command is None:
            raise InvalidInputError(word, "is no command; // says a line with a slash", allowed=" ".join(self._known))
        return command.do(rest.strip())

    def _help(self, _rest: str) -> None:
        for title, group in self.groups.items():
            show.say(title, style=show.NAME)
            for one in group:
                show.say(f"  {one.usage:<18}  {one.about}")
        show.say("N is a turn's number in /history, or its id. //... says a line that begins with a slash.")

    def _history(self, rest: str) -> None:
        if rest and not (_is_number(rest) and 1 <= int(rest) <= 500):
            raise InvalidInputError("/history", f"is followed by {rest!r}", allowed="a number from 1 to 500")
        self._talk.show_last(int(rest or HISTORY_TURNS), numbered=True)

    def _usage(self, _rest: str) -> None:
        mine = [one for one in self._talk.rp.usage.report(by="session") if one.key == self._talk.session.id]
        if not mine:
            show.say("no model was called in this session")
        for one in mine:
            show.say(f"{one.calls} calls · {show.tokens(one.usage)}{show.unreported(one)}")

    def _context(self, rest: str) -> None:
        with _needing_somebody("/context"):
            draw(self._talk.session.preview(rest or "…", speaker=self._talk.human.seat).report)

    def _variants(self, _rest: str) -> None:
        here = self._talk.stand()
        self._list(self._talk.session.tree.variants(here.id), here)

    def _branches(self, _rest: str) -> None:
        last = self._talk.session.turns(limit=1).items
        self._list(self._talk.session.tree.branches(), last[0] if last else None)

    def _list(self, turns: Sequence[Turn], here: Turn | None) -> None:
        """List turns by number, with a star at the one that the session stands on."""
        rows = (
            ("*" if here is not None and one.id == here.id else "", str(one.seq), show.who(one), show.excerpt(one))
            for one in turns
        )
        show.table(("", "turn", "who", "said"), rows)

    def _swipe(self, hint: str) -> Turn | None:
        talk, attempt = self._talk, self._talk.unresolved()
        last = attempt or talk.stand()
        if last.kind is TurnKind.GREETING:
            self._next_greeting(last)
            return None
        return talk.hear(lambda: talk.session.regenerate(last.id, hint=hint), audience=last.audience)

    def _next_greeting(self, last: Turn) -> None:
        """A greeting answers nobody, so that no model is asked: the persona has others, or has not."""
        tree = self._talk.session.tree
        greetings = tree.variants(last.id)
        place = next(number for number, one in enumerate(greetings, start=1) if one.id == last.id)
        if len(greetings) == 1:
            raise InvalidInputError("/swipe", "the persona has no other greeting", allowed="say something first")
        self._talk.tell(tree.choose(greetings[place % len(greetings)].id))

    def _choose(self, which: str) -> None:
        self._talk.tell(self._talk.session.tree.choose(self._id("/choose", which)))

    def _edit(self, words: str) -> None:
        if (attempt := self._talk.unresolved()) is not None:
            self._refuse("/edit", attempt)
        self._talk.tell(self._talk.session.tree.edit(self._talk.stand().id, words))

    def _retry(self, _rest: str) -> Turn:
        attempt = self._attempt("/retry", "/swipe gives another reply")
        return self._talk.hear(lambda: self._talk.session.retry(attempt.id), audience=attempt.audience)

    def _continue(self, _rest: str) -> Turn:
        last = self._talk.unresolved()
        if last is None or (last.reply is None and self._talk.is_beside(last)):
            last = self._talk.stand()
        elif last.reply is None:
            self._refuse("/continue", last)
        so_far = last.reply.text if last.reply else ""
        return self._talk.hear(lambda: self._talk.session.resume(last.id), so_far=so_far, audience=last.audience)

    def _accept(self, _rest: str) -> None:
        attempt = self._attempt("/accept", "it is kept already")
        if attempt.reply is None:
            self._refuse("/accept", attempt)
        self._talk.tell(self._talk.session.accept(attempt.id))

    def _attempt(self, command: str, instead: str) -> Turn:
        """Give the last attempt, which has not become a reply. Raises ``InvalidInputError`` when there is none."""
        attempt = self._talk.unresolved()
        if attempt is None:
            raise InvalidInputError(command, "the last reply is whole", allowed=instead)
        return attempt

    def _refuse(self, command: str, attempt: Turn) -> NoReturn:
        raise InvalidInputError(
            command, f"the last reply {show.how_it_ended(attempt)}", allowed=show.offer(attempt) or "wait for its end"
        )

    def _rewind(self, rest: str) -> None:
        if rest and not (_is_number(rest) and int(rest)):
            raise InvalidInputError("/rewind", f"is followed by {rest!r}", allowed="a number of turns from 1")
        self._stands_on(self._talk.session.tree.rewind(int(rest or 1)))

    def _fork(self, which: str) -> None:
        self._stands_on(self._talk.session.tree.fork(self._id("/fork", which)))

    def _undo(self, _rest: str) -> None:
        self._stands_on(self._talk.session.tree.undo())

    def _stands_on(self, turn: Turn | None) -> None:
        if turn is None:
            show.note("you stand before the first turn")
        else:
            self._talk.tell(turn)

    def _hide(self, which: str) -> None:
        self._talk.tell(self._talk.session.tree.hide(self._id("/hide", which)))

    def _show(self, which: str) -> None:
        self._talk.tell(self._talk.session.tree.show(self._id("/show", which)))

    def _id(self, command: str, which: str) -> str:
        """Give the id of the turn that was named by its number or id."""
        if not which:
            raise InvalidInputError(command, "names no turn", allowed="a turn's number in /history, or its id")
        named = which.removeprefix("#")
        return self._talk.session.turn(int(named) if _is_number(named) else which).id

    def _as(self, name: str) -> None:
        talk, humans = self._talk, self._talk.look().humans
        if name:
            talk.human = seats.one_seat("/as", name, talk.info.cast, PlayedBy.HUMAN)
            show.note(f"you speak as {talk.cast.name(talk.human.seat)}")
        else:
            mine = talk.human.seat
            show.table(
                ("", "seat", "name"),
                (("*" if one.seat == mine else "", str(one.seat), one.display_name) for one in humans),
            )

    def _whisper(self, rest: str) -> Turn:
        audience, text = seats.several_seats("/whisper", rest, self._talk.look().cast)
        if not text:
            names = ", ".join(self._talk.cast.name(one.seat) for one in audience)
            raise InvalidInputError("/whisper", f"says nothing to {names}", allowed="/whisper NAME[, NAME] TEXT")
        return self._talk.say(text, audience)

    def _next(self, name: str) -> Turn:
        talk, cast = self._talk, self._talk.look().cast
        who = seats.one_seat("/next", name, cast, PlayedBy.MODEL).seat if name else None
        with _needing_somebody("/next"):
            return talk.hear(lambda: talk.session.speak(who))

    def _round(self, rest: str) -> Turn:
        if rest and not (_is_number(rest) and 1 <= int(rest) <= ROUND_LIMIT):
            raise InvalidInputError("/round", f"is followed by {rest!r}", allowed=f"a number from 1 to {ROUND_LIMIT}")
        self._talk.look()
        with _needing_somebody("/round"):
            return self._talk.hear_round(None, max_turns=int(rest) if rest else None)

    def _narrate(self, text: str) -> Turn:
        return self._talk.add(text, "narrator", DEFAULT_OPTIONS, "the narrator said it")

    def _cast(self, _rest: str) -> None:
        rows = (
            (
                str(one.seat),
                one.display_name,
                "the model" if one.played_by is PlayedBy.MODEL else "a human",
                "muted" if one.muted else "",
                ", ".join(one.aliases),
            )
            for one in self._talk.look().cast
        )
        show.table(("seat", "name", "played by", "muted", "also called"), rows)

    def _mute(self, rest: str) -> None:
        talk = self._talk
        seat, word = seats.first_seat("/mute", rest, talk.look().cast, PlayedBy.MODEL)
        if word not in {"", "on", "off"}:
            raise InvalidInputError("/mute", f"is followed by {word[:50]!r}, behind a name", allowed="on, off, nothing")
        muted = not seat.muted if not word else word == "on"
        talk.session.cast.mute(seat.seat, muted=muted)
        name = talk.cast.name(seat.seat)
        show.note(f"{name} speaks only when told to: /next {name}" if muted else f"{name} speaks as before")

    def _quit(self, _rest: str) -> NoReturn:
        raise Quit


@contextmanager
def _needing_somebody(command: str) -> Iterator[None]:
    """Say in words of the chat that nobody speaks unasked."""
    try:
        yield
    except InvalidInputError as error:
        if not calls_nobody(error):
            raise
        raise InvalidInputError(command, "calls nobody who speaks unasked", allowed="/next NAME") from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10

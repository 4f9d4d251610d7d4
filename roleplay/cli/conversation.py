"""One session being spoken in: a line goes there, the reply is shown as it comes, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal, Self

from roleplay.cli import show
from roleplay.cli.exits import sentence
from roleplay.cli.interrupts import InterruptHandler
from roleplay.domain.conversation import Delta, DeltaKind, Participant, PlayedBy, SessionInfo, Turn, TurnStatus
from roleplay.domain.settings import DEFAULT_OPTIONS, TurnOptions
from roleplay.engine import Roleplay
from roleplay.errors import ChatError, InvalidInputError, RoleplayError
from roleplay.session import ChatSession, ReplyStream, RoundStream
from roleplay.turns.arguments import Speaker
from roleplay.turns.effects import Interrupt
from roleplay.turns.layers import cast_rules

MANUAL = "manual"
Shown = Literal["pieces", "whole", "nothing"]


@dataclass(frozen=True)
class OutputOptions:
    """How replies are asked for and shown. ``max_turns`` bounds a round, else the session's own setting."""

    stream: bool = True
    as_json: bool = False
    max_turns: int | None = None


class Conversation:
    """A session with somebody at the terminal, or a script. ``human`` is the seat that speaks here."""

    def __init__(self, rp: Roleplay, session: ChatSession, interrupts: InterruptHandler, output: OutputOptions) -> None:
        self.rp = rp
        self.session = session
        self.info: SessionInfo = session.info()
        self.human: Participant = self.info.human
        self._interrupts = interrupts
        self._output = output
        self._bound_told = output.as_json

    @property
    def cast(self) -> show.CastNames:
        """How those who are here are named and coloured."""
        return show.CastNames(self.info)

    def look(self) -> SessionInfo:
        """Read anew who is here: others may have joined."""
        self.info = self.session.info()
        return self.info

    def say(self, text: str, audience: Sequence[Participant] = ()) -> Turn:
        """Say a line, to an ``audience`` alone if there is one, show what is replied, and give the last stored turn.

        Where the model plays several, a line begins a round. Where nobody would answer, it is added. Raises what
        ``ChatSession.send`` raises.
        """
        info = self.look()
        heard = sorted({one.seat for one in (*audience, self.human)}) if audience else None
        options = TurnOptions(audience=heard) if heard else DEFAULT_OPTIONS
        if audience and not any(one.played_by is PlayedBy.MODEL for one in audience):
            return self.add(text, self.human.seat, options, "no reply was asked for")
        try:
            if len(info.models) > 1:
                self._tell_bound(info)
                return self.hear_round(text, options=options, audience=heard)
            if self._output.stream:
                begin = partial(self.session.stream, text, speaker=self.human.seat, options=options)
                return self.hear(begin, audience=heard)
            return self._told(lambda: self._sent(text, options))
        except InvalidInputError as error:
            if not calls_nobody(error):
                raise
        return self.add(text, self.human.seat, options, "nobody speaks unasked; /next NAME lets somebody speak")

    def add(self, text: str, speaker: Speaker, options: TurnOptions, remark: str) -> Turn:
        """Add a line that nobody is asked to answer, and give its turn. Raises what ``ChatSession.add`` raises."""
        turn = self.session.add(text, speaker=speaker, options=options)
        if self._output.as_json:
            self._note(turn)
        else:
            show.note(f"saved · {remark}")
        return turn

    def hear(
        self, begin: Callable[[], ReplyStream], *, so_far: str = "", audience: Sequence[int] | None = None
    ) -> Turn:
        """Show the reply that ``begin`` gives, after the text that it goes on from, and give the stored turn.
        ``audience`` are the seats that may see it.

        Raises what ``begin`` raises.
        """
        return self._told(lambda: self._streamed(begin, so_far, audience))

    def hear_round(
        self,
        text: str | None,
        *,
        max_turns: int | None = None,
        options: TurnOptions = DEFAULT_OPTIONS,
        audience: Sequence[int] | None = None,
    ) -> Turn:
        """Show a round as it comes, each turn with how it ended, and give its last turn; ``text`` begins it, if any.

        Raises what ``ChatSession.round`` raises.
        """
        bound = max_turns or self._output.max_turns
        speaker = None if text is None else self.human.seat
        begin = partial(self.session.round, text, speaker=speaker, max_turns=bound, options=options)
        noted: list[Turn] = []
        return self._told(lambda: self._round(begin, audience, noted), noted)

    def tell(self, turn: Turn) -> None:
        """Show a turn that a command changed or that the session stands on now."""
        if self._output.as_json:
            self._note(turn)
        else:
            show.turn(turn, self.cast, numbered=True)

    def show_last(self, count: int, *, numbered: bool = False) -> None:
        """Show the last turns of the session, oldest first."""
        self.look()
        for turn in self.session.turns(limit=count):
            show.turn(turn, self.cast, numbered=numbered)

    def stand(self) -> Turn:
        """Give the turn that the session stands on. Raises ``InvalidInputError`` where nothing was said yet."""
        last = [turn for turn in self.session.turns(limit=1) if turn.status is TurnStatus.COMPLETED]
        if not last:
            raise InvalidInputError("turn", "there is none yet", allowed="say something first")
        return last[-1]

    def unresolved(self) -> Turn | None:
        """Give the last attempt, if it has not become a reply."""
        last = self.session.turns(limit=1).items[-1:]
        return last[0] if last and last[0].status is not TurnStatus.COMPLETED else None

    def is_beside(self, attempt: Turn) -> bool:
        """Whether an attempt answers the line of the turn that the session stands on."""
        here = next((turn for turn in self.session.turns(limit=1) if turn.status is TurnStatus.COMPLETED), None)
        lines = [None if turn is None or turn.human is None else turn.human.seq for turn in (here, attempt)]
        return lines[0] is not None and lines[0] == lines[1]

    def complaint(self, error: RoleplayError) -> str:
        """Give an error as one line, with what can be done about the turn that it left."""
        if not isinstance(error, ChatError) or error.turn_id is None:
            return sentence(error)
        offer = show.offer(self.session.turn(error.turn_id))
        return f"{sentence(error)} · {offer}" if offer else sentence(error)

    def _told(self, reply: Callable[[], Turn], noted: Sequence[Turn] = ()) -> Turn:
        """Get a reply, which Ctrl-C ends, and show how it ended, unless that is ``noted``."""
        try:
            with self._interrupts:
                turn = reply()
        except Interrupt:  # it came between two steps; what is stored says how far the turn got
            last = self.session.turns(limit=1).items
            if not last:
                raise KeyboardInterrupt from None
            turn = last[-1]
        except RoleplayError as error:
            if self._output.as_json and error.turn_id is not None:
                self._note(self.session.turn(error.turn_id))
            raise
        if turn.id not in {one.id for one in noted}:
            self._note(turn)
        return turn

    def _note(self, turn: Turn) -> None:
        """Tell how a turn ended; for a script, all of it."""
        if self._output.as_json:
            cast = self.cast
            show.write_json(show.turn_json(turn, cast.name(turn.speaker), of_several=cast.of_several))
        else:
            show.note(show.ending(turn))

    def _tell_bound(self, info: SessionInfo) -> None:
        """Say once, before the first round, how many replies a line may cost."""
        rules = cast_rules((("session", info.settings),))
        if not self._bound_told and rules.speaking == MANUAL:
            show.note("a line here is added and not answered; /next NAME lets somebody speak")
        elif not self._bound_told:
            bound = self._output.max_turns or rules.round_turns
            show.note(f"a line here is answered by up to {bound}; /next lets one more speak")
        self._bound_told = True

    def _sent(self, text: str, options: TurnOptions) -> Turn:
        turn = self.session.send(text, speaker=self.human.seat, options=options)
        if turn.reply is not None and not self._output.as_json:
            show.message(turn.reply, self.cast)
        return turn

    def _streamed(self, begin: Callable[[], ReplyStream], so_far: str, audience: Sequence[int] | None) -> Turn:
        with begin() as reply, self._line(audience, so_far) as line:
            for delta in reply:
                line.take(delta)
        return reply.turn

    def _round(self, begin: Callable[[], RoundStream], audience: Sequence[int] | None, noted: list[Turn]) -> Turn:
        stream = begin()
        turns = stream.turns()
        try:
            with stream, self._line(audience) as line:
                for delta in stream:
                    if line.turn_id not in {"", delta.turn_id}:
                        line.end()
                        self._note_until(line.turn_id, turns, noted)
                    line.take(delta)
        finally:  # the stream has ended in any case
            self._note_until("", stream.turns(), noted)
        return noted[-1]

    def _note_until(self, turn_id: str, turns: Iterator[Turn], noted: list[Turn]) -> None:
        """Tell of the turns of a round that have ended, up to the one with that id."""
        for turn in turns:
            self._note(turn)
            noted.append(turn)
            if turn.id == turn_id:
                return

    def _line(self, audience: Sequence[int] | None, so_far: str = "") -> _ReplyLine:
        pieces: Shown = "pieces" if self._output.stream else "whole"
        shown: Shown = "nothing" if self._output.as_json else pieces
        return _ReplyLine(self.cast, audience, so_far, shown)


class _ReplyLine:
    """Writes replies: by ``pieces`` as they come, or a ``whole`` one when it has ended, or ``nothing``. A line that was
    begun is ended, whatever happens."""

    def __init__(
        self,
        cast: show.CastNames,
        audience: Sequence[int] | None,
        so_far: str,
        shown: Shown,
    ) -> None:
        self.turn_id = ""
        self._cast = cast
        self._audience = audience
        self._so_far = so_far
        self._shown = shown
        self._begun = False
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(failed=kind is not None)

    def take(self, delta: Delta) -> None:
        """Take a piece of a reply."""
        self.turn_id = delta.turn_id
        if delta.kind is not DeltaKind.SPEECH:
            return
        if not self._begun:
            self._begun = True
            self._label = self._cast.label(delta.speaker, delta.seat, self._audience)
            self._style = self._cast.style(delta.seat)
            self._piece(self._label, self._style)
            self._piece(self._so_far)
        self._said += delta.text
        self._piece(delta.text)

    def end(self, *, failed: bool = False) -> None:
        """End the line of a reply that has ended; one that ``failed`` is no whole one."""
        if self._begun:
            self._piece("\n")
            if self._said and self._shown == "whole" and not failed:
                show.speech(self._label, self._so_far + self._said, style=self._style)
        self._begun, self._said = False, ""

    def _piece(self, text: str, style: str = "") -> None:
        if self._shown == "pieces":
            show.say(text, style=style, end="")


def calls_nobody(error: InvalidInputError) -> bool:
    """Whether something was refused, with nothing written, because nobody would speak."""
    return error.field in {"text", "participant"} and error.problem.startswith("calls nobody")

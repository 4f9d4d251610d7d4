"""One session being spoken in: a line goes there, the reply is shown as it comes, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from roleplay.cli import show
from roleplay.cli.exits import sentence
from roleplay.cli.interrupts import InterruptHandler
from roleplay.domain.conversation import DeltaKind, SessionInfo, Turn, TurnStatus
from roleplay.engine import Roleplay
from roleplay.errors import ChatError, InvalidInputError, RoleplayError
from roleplay.session import ChatSession, ReplyStream
from roleplay.turns.effects import Interrupt


@dataclass(frozen=True)
class OutputOptions:
    """How replies are asked for and shown."""

    stream: bool = True
    as_json: bool = False


class Conversation:
    """A session with somebody at the terminal, or a script."""

    def __init__(self, rp: Roleplay, session: ChatSession, interrupts: InterruptHandler, output: OutputOptions) -> None:
        self.rp = rp
        self.session = session
        self.info: SessionInfo = session.info()
        self._interrupts = interrupts
        self._output = output

    @property
    def speaker(self) -> str:
        """The name of whom the model plays."""
        return self.info.speaker.display_name

    def say(self, text: str) -> Turn:
        """Say a line, show the reply, and give the stored turn. Raises what ``ChatSession.send`` raises."""
        if self._output.stream:
            return self.hear(lambda: self.session.stream(text))
        return self._told(lambda: self._sent(text))

    def hear(self, begin: Callable[[], ReplyStream], *, so_far: str = "") -> Turn:
        """Show the reply that ``begin`` gives, after the text that it goes on from, and give the stored turn.

        Raises what ``begin`` raises.
        """
        return self._told(lambda: self._streamed(begin, so_far))

    def tell(self, turn: Turn) -> None:
        """Show a turn that a command changed or that the session stands on now."""
        if self._output.as_json:
            show.write_json(show.turn_json(turn, self.speaker))
        else:
            show.turn(turn, self.speaker, numbered=True)

    def show_last(self, count: int, *, numbered: bool = False) -> None:
        """Show the last turns of the session, oldest first."""
        for turn in self.session.turns(limit=count):
            show.turn(turn, self.speaker, numbered=numbered)

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

    def _told(self, reply: Callable[[], Turn]) -> Turn:
        """Get a reply, which Ctrl-C ends, and show how it ended."""
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
                show.write_json(show.turn_json(self.session.turn(error.turn_id), self.speaker))
            raise
        if self._output.as_json:
            show.write_json(show.turn_json(turn, self.speaker))
        else:
            show.note(show.ending(turn))
        return turn

    def _sent(self, text: str) -> Turn:
        turn = self.session.send(text)
        if turn.reply is not None and not self._output.as_json:
            show.speech(turn.reply.name, turn.reply.text)
        return turn

    def _streamed(self, begin: Callable[[], ReplyStream], so_far: str) -> Turn:
        with begin() as reply:
            self._show(reply, so_far)
        return reply.turn

    def _show(self, reply: ReplyStream, so_far: str) -> None:
        """Write the reply as it comes. A line that was begun is ended, whatever happens."""
        if self._output.as_json or not self._output.stream:
            said = "".join(delta.text for delta in reply if delta.kind is DeltaKind.SPEECH)
            if said and not self._output.as_json:
                show.speech(self.speaker, so_far + said)
            return
        begun = False
        try:
            for delta in reply:
                if delta.kind is not DeltaKind.SPEECH:
                    continue
                if not begun:
                    show.say(f"{delta.speaker}: ", style=show.NAME, end="")
                    show.say(so_far, end="")
                begun = True
                show.say(delta.text, end="")
        finally:
            if begun:
                show.say("")

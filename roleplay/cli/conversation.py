"""One session being spoken in: a line goes there, the reply is shown as it comes, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from roleplay.cli import show
from roleplay.cli.interrupts import Brake
from roleplay.domain.conversation import DeltaKind, SessionInfo, Turn
from roleplay.engine import Roleplay
from roleplay.errors import RoleplayError
from roleplay.session import ChatSession, ReplyStream
from roleplay.turns.effects import Interrupt


@dataclass(frozen=True)
class Manner:
    """How replies are asked for and shown."""

    stream: bool = True
    as_json: bool = False


class Conversation:
    """A session with somebody at the terminal, or a script."""

    def __init__(self, rp: Roleplay, session: ChatSession, brake: Brake, manner: Manner) -> None:
        self.rp = rp
        self.session = session
        self.info: SessionInfo = session.info()
        self._brake = brake
        self._manner = manner

    @property
    def speaker(self) -> str:
        """The name of whom the model plays."""
        return self.info.speaker.display_name

    def say(self, text: str) -> Turn:
        """Say a line, show the reply, and give the stored turn. Raises what ``ChatSession.send`` raises."""
        try:
            with self._brake:
                turn = self._streamed(text) if self._manner.stream else self._sent(text)
        except Interrupt:  # it came between two steps; what is stored says how far the turn got
            turn = self.session.turns(limit=1).items[-1]
        except RoleplayError as error:
            if self._manner.as_json and error.turn_id is not None:
                show.write_json(show.turn_json(self.session.turn(error.turn_id), self.speaker))
            raise
        if self._manner.as_json:
            show.write_json(show.turn_json(turn, self.speaker))
        else:
            show.note(show.ending(turn))
        return turn

    def show_last(self, count: int) -> None:
        """Show the last turns of the session, oldest first."""
        for turn in self.session.turns(limit=count):
            show.turn(turn, self.speaker)

    def _sent(self, text: str) -> Turn:
        turn = self.session.send(text)
        if turn.reply is not None and not self._manner.as_json:
            show.speech(turn.reply.name, turn.reply.text)
        return turn

    def _streamed(self, text: str) -> Turn:
        with self.session.stream(text) as reply:
            self._show(reply)
        return reply.turn

    def _show(self, reply: ReplyStream) -> None:
        """Write the reply as it comes. A line that was begun is ended, whatever happens."""
        begun = False
        try:
            for delta in reply:
                if self._manner.as_json or delta.kind is not DeltaKind.SPEECH:
                    continue
                if not begun:
                    show.say(f"{delta.speaker}: ", style=show.NAME, end="")
                begun = True
                show.say(delta.text, end="")
        finally:
            if begun:
                show.say("")

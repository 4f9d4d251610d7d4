"""How a session opens: with the greeting of a persona, and its alternates as variants; or with one of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from roleplay.context.counting import Counter
from roleplay.context.macros import expand
from roleplay.domain.conversation import Participant, SessionInfo, TurnKind
from roleplay.domain.persona import Persona
from roleplay.store.records import sessions
from roleplay.store.records.new_rows import AddedTurn, NewMessage, PathEnd
from roleplay.store.records.revisions import FIRST_REVISION


class Opening(NamedTuple):
    """The turns that open a session, and the message that it stands on then, ``None`` where there is none."""

    turns: list[AddedTurn]
    head: int | None


def opening(
    info: SessionInfo,
    greeters: Sequence[tuple[Participant, Persona]],
    counter: Counter,
    new_id: Callable[[], str],
) -> Opening:
    """Give the turns that open a session: the first greeting of each persona, one after the other, and its others as
    variants of it."""
    added: list[AddedTurn] = []
    end, parent_turn = PathEnd(), None
    for char, persona in greeters:
        first: AddedTurn | None = None
        for greeting in persona.greetings:
            if greeting.strip():
                text = expand(greeting, char=char.display_name, user=info.human.display_name)
                number, who = len(added) + 1, (char.seat, char.display_name)
                message = NewMessage.after(end, number, who, text, counter, by_human=False, revision=FIRST_REVISION)
                turn = sessions.beginning(len(added)).new_turn(
                    new_id(),
                    TurnKind.GREETING,
                    char.seat,
                    parent_turn=parent_turn,
                    states=None,
                    human_seq=None,
                    reply_seq=number,
                )
                one = AddedTurn(turn, message)
                added.append(one)
                first = first or one
        if first is not None:
            end, parent_turn = first.message.end, first.turn.seq
    return Opening(added, end.seq)

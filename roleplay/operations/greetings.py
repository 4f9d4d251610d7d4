"""How a session opens: with the persona's greeting, and its alternates as variants."""

from __future__ import annotations

from collections.abc import Callable

from roleplay.context.counting import Counter
from roleplay.context.macros import expand
from roleplay.domain.conversation import SessionInfo, TurnKind
from roleplay.domain.persona import Persona
from roleplay.store.records import sessions
from roleplay.store.records.new_rows import AddedTurn, NewMessage


def greetings(info: SessionInfo, persona: Persona, counter: Counter, new_id: Callable[[], str]) -> list[AddedTurn]:
    """Give the turns that open a session: the persona's first greeting and, as its variants, the others."""
    char, user = info.speaker, info.human
    added = []
    for number, greeting in enumerate((one for one in persona.greetings if one.strip()), start=1):
        text = expand(greeting, char=char.display_name, user=user.display_name)
        position = sessions.beginning(number - 1)
        message = NewMessage.after(
            position.end, number, (char.seat, char.display_name), text, counter, by_human=False, revision=1
        )
        turn = position.new_turn(
            new_id(),
            TurnKind.GREETING,
            char.seat,
            parent_turn=None,
            states=None,
            human_seq=None,
            reply_seq=number,
        )
        added.append(AddedTurn(turn, message))
    return added

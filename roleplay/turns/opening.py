"""How a session opens: with the persona's greeting, and its alternates as variants."""

from __future__ import annotations

from collections.abc import Callable

from roleplay.context.counting import Counter
from roleplay.context.macros import expand
from roleplay.domain.conversation import SessionInfo, TurnKind, TurnStatus
from roleplay.domain.persona import Persona
from roleplay.store.entries import NewMessage, NewTurn, Uttered


def greetings(info: SessionInfo, persona: Persona, counter: Counter, new_id: Callable[[], str]) -> list[Uttered]:
    """Give the turns that open a session: the persona's first greeting and, as its variants, the others."""
    char, user = info.speaker, info.human
    uttered = []
    for number, greeting in enumerate((one for one in persona.greetings if one.strip()), start=1):
        text = expand(greeting, char=char.display_name, user=user.display_name)
        message = NewMessage(
            seq=number,
            parent_seq=None,
            role="assistant",
            seat=char.seat,
            name=char.display_name,
            text=text,
            tokens=counter.count(text),
            counter=counter.name,
            depth=1,
            human_ordinal=0,
            model_ordinal=1,
        )
        turn = NewTurn(
            seq=number,
            id=new_id(),
            parent_turn=None,
            from_head=None,
            kind=TurnKind.GREETING.value,
            round=number,
            ordinal=1,
            speaker=char.seat,
            revision=1,
            states=None,
            status=TurnStatus.COMPLETED.value,
            human_seq=None,
            reply_seq=number,
        )
        uttered.append(Uttered(turn, message))
    return uttered

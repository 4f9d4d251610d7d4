"""What a caller says of a seat, and how a strategy says who speaks next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import Field

from roleplay.domain.conversation import DEFAULT_TALKATIVENESS, Participant
from roleplay.domain.persona import StoredPersona
from roleplay.domain.values import Input, Key, Name

Played = StoredPersona | str
"""A persona as ``personas.put`` gave it, or its key or id."""


class Seat(Input):
    """Somebody to be seated: ``Seat("anna", name="Anna the elder")``.

    ``persona`` as ``personas.put`` gave it, or by key or id; a human's seat may have none. ``name`` is the display
    name, by default what the persona is called; ``aliases`` are other names that it is called by. ``talkativeness`` is
    how likely it speaks unasked, from 0 to 1. A ``muted`` one speaks only when it is told to. ``owner``, of human seats
    only, is your own id of who sits there.
    """

    persona: Played | None = None
    name: Name | None = None
    aliases: tuple[Name, ...] = Field(default=(), max_length=50)
    talkativeness: float = Field(default=DEFAULT_TALKATIVENESS, ge=0, le=1, description="a number from 0 to 1")
    muted: bool = Field(default=False, strict=True, description="True or False")
    owner: Key | None = None

    if TYPE_CHECKING:  # as a caller may write it

        def __init__(
            self,
            persona: Played | None = None,
            *,
            name: str | None = None,
            aliases: Sequence[str] = (),
            talkativeness: float = DEFAULT_TALKATIVENESS,
            muted: bool = False,
            owner: str | None = None,
        ) -> None: ...

    else:

        def __init__(self, persona: Played | None = None, **fields: Any) -> None:
            super().__init__(persona=persona, **fields)


class SpeakingMoment(NamedTuple):
    """What a strategy knows when it says who speaks next.

    ``seats``: who may speak, in the order of seats: played by the model, present, not muted, in the audience.
    ``present``: all who are there, humans and muted ones too, so that a name is not mistaken for another's. ``text`` is
    the newest line that all of ``seats`` may see, and ``asked`` says that a human has just said it, so that it is to be
    answered; ``whispered``, that it is for these seats alone. ``last`` is the seat of the model's that spoke last,
    ``spoken`` those that spoke since a human did, as far as all may see. ``reply_to_self`` is the setting. ``draw``
    gives a number from [0, 1) for a subject, the same whenever it is asked: nothing else may be left to chance. A
    subject should name the seat that it is drawn for, so that another seat, or another draw, changes nothing.
    """

    seats: Sequence[Participant]
    present: Sequence[Participant]
    text: str
    asked: bool
    whispered: bool
    last: int | None
    spoken: Sequence[int]
    reply_to_self: bool
    draw: Callable[[str], float]

    @property
    def free(self) -> list[Participant]:
        """The seats without the one that spoke last, where nobody asks and a seat may not reply to itself."""
        itself = None if self.asked or self.reply_to_self else self.last
        return [one for one in self.seats if one.seat != itself]


class Strategy(Protocol):
    """Says who speaks next: gives numbers of ``seats`` in the order in which they speak, none where nobody does. Pure:
    it reads no clock, draws nothing but by ``draw`` and changes nothing. Its choice is stored and not made again."""

    def __call__(self, moment: SpeakingMoment, /) -> Sequence[int]: ...

"""What a language file says."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """``go_on`` asks for the rest of a reply that was cut off, ``speak`` for the next words where no line does;
    ``user`` and ``narrator`` name who has no other name. ``opening`` is the user's line before a history that begins
    with the model's, where a server demands one; it must fit at the beginning and in the middle of a conversation.
    ``others`` tells who else is there (``{names}``), and that the model speaks for ``{char}`` alone."""

    go_on: str
    speak: str
    user: str
    narrator: str
    opening: str = "[…]"
    others: str = "[{names}] ≠ [{char}]"

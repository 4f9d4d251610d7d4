"""What is asked of one reply: texts of the engine's own and of the turn, all of them required."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.context.placed import BEHIND, FRONT, PlacedText, Request, of_request, rendered
from roleplay.context.sources.persona import SHEET_PRIORITY
from roleplay.domain.context import Role, Section

REPLY_PRIORITY = 101.0  # required, and told of behind the newest line


@of_request(Section.OPENING)
def opening(request: Request) -> Sequence[PlacedText]:
    """The user's line before a history that begins with the speaker's, for a dialect that demands a user first."""
    if not request.user_first:
        return ()
    said = rendered(Section.OPENING, Role.USER, request.casting.user, request.words.opening, request.counter)
    return (PlacedText((said,), FRONT, SHEET_PRIORITY, origin="engine", if_own_first=True),)


@of_request(Section.SPEAK)
def speak(request: Request) -> Sequence[PlacedText]:
    """The request for the next words, where no line asks for them."""
    if not request.unasked:
        return ()
    said = rendered(Section.SPEAK, Role.USER, request.casting.asking, request.words.speak, request.counter)
    return (PlacedText((said,), BEHIND, REPLY_PRIORITY, origin="engine"),)


@of_request(Section.SO_FAR)
def so_far(request: Request) -> Sequence[PlacedText]:
    """The beginning of a reply that was cut off, and the request for the rest of it."""
    if not request.so_far:
        return ()
    casting, counter = request.casting, request.counter
    begun = rendered(Section.SO_FAR, Role.ASSISTANT, casting.char, request.so_far, counter)
    go_on = rendered(Section.SO_FAR, Role.USER, casting.asking, request.words.go_on, counter)
    return (
        PlacedText((begun,), BEHIND, REPLY_PRIORITY, origin="turn"),
        PlacedText((go_on,), BEHIND, REPLY_PRIORITY, origin="engine"),
    )


@of_request(Section.HINT)
def hint(request: Request) -> Sequence[PlacedText]:
    """The caller's hint for this reply alone."""
    if not request.hint:
        return ()
    said = rendered(Section.HINT, Role.SYSTEM, request.casting.char, request.hint, request.counter)
    return (PlacedText((said,), BEHIND, REPLY_PRIORITY, origin="turn"),)

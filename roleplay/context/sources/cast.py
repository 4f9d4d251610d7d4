"""Who else is there, in a session of more than two."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.context.emit import in_one_line
from roleplay.context.placed import FRONT, PlacedText, Request, of_request, rendered
from roleplay.context.sources.persona import SHEET_PRIORITY
from roleplay.domain.context import Role, Section


@of_request(Section.CAST)
def others(request: Request) -> Sequence[PlacedText]:
    """A line that names the others, so that the model knows whom not to speak for."""
    casting = request.casting
    if not casting.others:
        return ()
    text = request.words.others.replace("{names}", ", ".join(map(in_one_line, casting.others)))
    text = text.replace("{char}", in_one_line(casting.char))
    said = rendered(Section.CAST, Role.SYSTEM, casting.char, text, request.counter)
    return (PlacedText((said,), FRONT, SHEET_PRIORITY, origin="session"),)

"""Who else is there, in a session of more than two."""

from __future__ import annotations

import re
from collections.abc import Sequence

from roleplay.context.emit import in_one_line
from roleplay.context.placed import FRONT, PlacedText, Request, of_request, rendered
from roleplay.context.sources.persona import SHEET_PRIORITY
from roleplay.domain.context import Role, Section

_NAMED = re.compile(r"\{(?:names|char)\}")


@of_request(Section.CAST)
def others(request: Request) -> Sequence[PlacedText]:
    """A line that names the others, so that the model knows whom not to speak for."""
    casting = request.casting
    if not casting.others:
        return ()
    said = {"{names}": ", ".join(map(in_one_line, casting.others)), "{char}": in_one_line(casting.char)}
    text = _NAMED.sub(lambda found: said[found[0]], request.words.others)  # names may hold such words themselves
    message = rendered(Section.CAST, Role.SYSTEM, casting.char, text, request.counter)
    return (PlacedText((message,), FRONT, SHEET_PRIORITY, origin="session"),)

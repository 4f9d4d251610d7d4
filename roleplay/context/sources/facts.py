"""The caller's own texts: the facts of all layers of settings."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.context.macros import expand, expand_moment
from roleplay.context.placed import FRONT, PlacedText, Request, at_depth, of_request, rendered
from roleplay.domain.context import Role, Section
from roleplay.domain.settings import Fact


@of_request(Section.FACT)
def facts(request: Request) -> Sequence[PlacedText]:
    """Each fact at its depth or in front, with the time of day where it asks for it."""
    return [_placed(fact, request) for fact in request.facts]


def _placed(fact: Fact, request: Request) -> PlacedText:
    casting = request.casting
    user = casting.user if fact.depth is None else casting.asking
    told = expand_moment(fact.text, request.now())  # before the names, which may hold such words themselves
    text = expand(told, char=casting.char, user=user)
    return PlacedText(
        (rendered(Section.FACT, Role.SYSTEM, fact.name, text.strip(), request.counter),),
        FRONT if fact.depth is None else at_depth(fact.depth),
        fact.priority,
        name=fact.name,
        changes=told != fact.text,
        origin=request.origins.get(f"fact {fact.name}", ""),
    )

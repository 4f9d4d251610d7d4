"""The sources of a context: each makes the placed texts of one section.

To add one, write its function in a file here, with ``of_revision`` or ``of_request``, and name it in the list.
"""

from __future__ import annotations

from roleplay.context.placed import HistorySection, Source
from roleplay.context.sources import cast, facts, persona, reply
from roleplay.domain.context import Section

#: In the order in which texts of one place are sent, and in which reports list the sections.
SOURCES: tuple[Source, ...] = (
    persona.system,
    cast.others,
    facts.facts,
    persona.user_persona,
    persona.scene,
    persona.examples,
    reply.opening,
    HistorySection(Section.HISTORY),
    persona.note,
    HistorySection(Section.NEWEST),
    reply.speak,
    reply.so_far,
    reply.hint,
    persona.post_history,
)

_ORDER = {source.section: place for place, source in enumerate(SOURCES)}


def order_of(section: str) -> int:
    """Give a section's place in the order; one that no source makes any more comes last."""
    return _ORDER.get(section, len(_ORDER))

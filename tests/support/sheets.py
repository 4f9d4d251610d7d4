"""What a sheet holds, by what it is to a test."""

from __future__ import annotations

from typing import NamedTuple

from roleplay.context.placed import FRONT, Rendered
from roleplay.context.sheet import Sheet
from roleplay.domain.context import Section


class Parts(NamedTuple):
    """The messages of a sheet: what is always in front, whole dialogues, note and post-history instruction."""

    front: tuple[Rendered, ...]
    examples: tuple[tuple[Rendered, ...], ...]
    note: Rendered | None
    post_history: Rendered | None


def parts(sheet: Sheet) -> Parts:
    """Part the texts of a sheet."""
    one = {text.section: text.messages[0] for text in sheet.texts}
    return Parts(
        front=tuple(said for text in sheet.texts if text.place == FRONT and not text.chosen for said in text.messages),
        examples=tuple(text.messages for text in sheet.texts if text.chosen),
        note=one.get(Section.NOTE),
        post_history=one.get(Section.POST_HISTORY),
    )

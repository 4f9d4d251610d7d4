"""A sheet: everything of a context but its history, rendered and counted once per revision of a session."""

from __future__ import annotations

import re
from typing import NamedTuple

from roleplay.context.counting import Counter
from roleplay.context.languages import Words
from roleplay.context.macros import expand
from roleplay.context.pricing import Size, size_of
from roleplay.domain.context import Piece, Role, Section, digest
from roleplay.domain.persona import CHAR, USER, Persona
from roleplay.domain.values import visible

_TITLE_END = re.compile("[\n.,;:!?\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u3001]")
_TITLE_LIMIT = 60
_NO_TITLE = "…"


class Rendered(NamedTuple):
    """A text as it will be sent, as a recipe names it, and the size of the text, counted once."""

    section: Section
    piece: Piece
    text: str
    size: Size


class Casting(NamedTuple):
    """Who plays in a context: the speaker's seat, name and persona, the human's name and persona, the scene."""

    seat: int
    char: str
    persona: Persona
    user: str
    user_persona: Persona | None
    scene: str


class Wanted(NamedTuple):
    """What is wanted of one reply: ``unasked``, that it comes though no line asks for it; that it goes on from the text
    ``so_far``; that it heeds a ``hint``."""

    unasked: bool = False
    so_far: str = ""
    hint: str = ""


class Sheet(NamedTuple):
    """The rendered pieces of a context beside its history. ``examples`` are whole dialogues, named by their digest."""

    seat: int
    char: str
    user: str
    front: tuple[Rendered, ...]
    examples: tuple[tuple[Rendered, ...], ...]
    note: Rendered | None
    post_history: Rendered | None
    examples_digest: str = ""
    wish: tuple[Rendered, ...] = ()

    def with_wish(self, wanted: Wanted, words: Words, counter: Counter) -> Sheet:
        """Give the sheet of one reply of which something is wanted, which is required then."""
        unasked, so_far, hint = wanted
        if not (unasked or so_far or hint):
            return self

        wish = []
        if unasked:
            wish.append(rendered(Section.SPEAK, Role.USER, self.user, words.speak, counter))
        if so_far:
            wish.append(rendered(Section.SO_FAR, Role.ASSISTANT, self.char, so_far, counter))
            wish.append(rendered(Section.SO_FAR, Role.USER, self.user, words.go_on, counter))
        if hint:
            wish.append(rendered(Section.HINT, Role.SYSTEM, self.char, hint, counter))
        return self._replace(wish=tuple(wish))


def render(casting: Casting, counter: Counter) -> Sheet:
    """Expand macros, leave out what is blank, count what is left.

    A persona of whom only the name is known is described by that name.
    """

    def piece(section: Section, role: Role, name: str, text: str) -> Rendered | None:
        words = expand(text, char=casting.char, user=casting.user).strip()
        return rendered(section, role, name, words, counter) if words else None

    persona, human = casting.persona, casting.user_persona
    title = _title(expand(casting.scene, char=casting.char, user=casting.user))
    sheet = (persona.system_prompt, persona.description, persona.personality, persona.scenario)
    who = "\n\n".join(part.strip() for part in sheet if part.strip()) or persona.name
    about = (human.description, human.personality) if human else ()
    about_user = "\n\n".join(part.strip() for part in about if part.strip())
    front = (
        piece(Section.SYSTEM, Role.SYSTEM, casting.char, who),
        piece(Section.USER_PERSONA, Role.USER_SYSTEM, casting.user, about_user),
        piece(Section.SCENE, Role.GROUP, title, casting.scene),
    )
    examples = []
    for dialogue in persona.examples:
        lines = [piece(Section.EXAMPLES, *_voice(line.speaker, casting), line.text) for line in dialogue.lines]
        examples.append(tuple(line for line in lines if line is not None))
    whole = tuple(dialogue for dialogue in examples if dialogue)
    return Sheet(
        seat=casting.seat,
        char=casting.char,
        user=casting.user,
        front=tuple(one for one in front if one is not None),
        examples=whole,
        note=piece(Section.NOTE, Role.SYSTEM, casting.char, persona.note),
        post_history=piece(Section.POST_HISTORY, Role.SYSTEM, casting.char, persona.post_history),
        examples_digest=digest("\n".join("".join(line.piece.digest for line in one) for one in whole))[:8],
    )


def rendered(section: Section, role: Role, name: str, text: str, counter: Counter) -> Rendered:
    """Give a text as it will be sent, counted."""
    piece = Piece(section.value, role.value, name, digest(text))
    return Rendered(section, piece, text, size_of(text, counter.count(text)))


def _voice(speaker: str, casting: Casting) -> tuple[Role, str]:
    if speaker in {CHAR, casting.char, casting.persona.name}:
        return Role.SAMPLE_AI, casting.char
    return Role.SAMPLE_USER, casting.user if speaker == USER else speaker


def _title(scene: str) -> str:
    """The scene's first words: the ``group`` message needs a name, and a scene has no other."""
    title = _TITLE_END.split(scene.strip(), maxsplit=1)[0].strip()
    title = title[:_TITLE_LIMIT].strip() or scene.strip()[:_TITLE_LIMIT].strip()
    return title if any(visible(char) for char in title) else _NO_TITLE

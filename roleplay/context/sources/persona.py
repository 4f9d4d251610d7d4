"""What is said of those who play and of the scene: made once for each revision of a session."""

from __future__ import annotations

import re
from collections.abc import Sequence

from roleplay.context.counting import Counter
from roleplay.context.macros import expand
from roleplay.context.placed import (
    BEHIND,
    FRONT,
    Casting,
    PlacedText,
    Player,
    Rendered,
    at_depth,
    of_revision,
    rendered,
)
from roleplay.domain.context import Role, Section
from roleplay.domain.persona import CHAR, USER
from roleplay.domain.values import NAME_LIMIT, visible

SHEET_PRIORITY = 103.0  # required
POST_HISTORY_PRIORITY = 99.8
NOTE_PRIORITY = 99.5
EXAMPLES_PRIORITY = 50.5
NOTE_DEPTH = 1

_TITLE_END = re.compile("[\n.,;:!?\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u3001]")
_TITLE_LIMIT = 60
_NO_TITLE = "…"


@of_revision(Section.SYSTEM)
def system(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
    """The speaker's persona. One of whom only the name is known is described by that name."""
    persona = casting.persona
    sheet = (persona.system_prompt, persona.description, persona.personality, persona.scenario)
    said = _said(Section.SYSTEM, Role.SYSTEM, casting.char, _joined(*sheet) or persona.name, casting, counter)
    return [PlacedText((one,), FRONT, SHEET_PRIORITY, origin="persona") for one in said]


@of_revision(Section.USER_PERSONA)
def user_persona(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
    """The personas of the humans: of several, under their names in one text, so that it is the same whoever asks."""
    about = [(one.name, _of_human(one, casting)) for one in casting.humans]
    told = [(name, text) for name, text in about if text]
    if not told:
        return ()
    text = told[0][1] if len(casting.humans) == 1 else "\n\n".join(f"{name}: {text}" for name, text in told)
    name = ", ".join(name for name, _ in told)[:NAME_LIMIT]
    one = rendered(Section.USER_PERSONA, Role.USER_SYSTEM, name, text, counter)
    return [PlacedText((one,), FRONT, SHEET_PRIORITY, origin="persona")]


def _of_human(human: Player, casting: Casting) -> str:
    persona = human.persona
    about = _joined(persona.description, persona.personality) if persona else ""
    return expand(about, char=casting.char, user=human.name).strip()


@of_revision(Section.SCENE)
def scene(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
    """The label of the conversation, named by its first words: its role needs a name, and a scene has no other."""
    title = _title(expand(casting.scene, char=casting.char, user=casting.user))
    said = _said(Section.SCENE, Role.GROUP, title, casting.scene, casting, counter)
    return [PlacedText((one,), FRONT, SHEET_PRIORITY, origin="session") for one in said]


@of_revision(Section.EXAMPLES)
def examples(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
    """The example dialogues that teach the persona's voice, each whole."""
    dialogues = []
    for dialogue in casting.persona.examples:
        said: list[Rendered] = []
        for line in dialogue.lines:
            said += _said(Section.EXAMPLES, *_voice(line.speaker, casting), line.text, casting, counter)
        if said:
            dialogues.append(PlacedText(tuple(said), FRONT, EXAMPLES_PRIORITY, origin="persona", chosen=True))
    return dialogues


@of_revision(Section.NOTE)
def note(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
    """The persona's reminder before the newest line."""
    said = _said(Section.NOTE, Role.SYSTEM, casting.char, casting.persona.note, _near(casting), counter)
    return [PlacedText((one,), at_depth(NOTE_DEPTH), NOTE_PRIORITY, origin="persona") for one in said]


@of_revision(Section.POST_HISTORY)
def post_history(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
    """The persona's last instruction, behind the newest line."""
    post_history, near = casting.persona.post_history, _near(casting)
    said = _said(Section.POST_HISTORY, Role.SYSTEM, casting.char, post_history, near, counter)
    return [PlacedText((one,), BEHIND, POST_HISTORY_PRIORITY, origin="persona") for one in said]


def _said(section: str, role: Role, name: str, text: str, casting: Casting, counter: Counter) -> tuple[Rendered, ...]:
    """Give a text with its macros expanded as a message; nothing for a blank one."""
    words = expand(text, char=casting.char, user=casting.user).strip()
    return (rendered(section, role, name, words, counter),) if words else ()


def _near(casting: Casting) -> Casting:
    """Who plays in a text near the end: its human is the one who spoke last."""
    return casting._replace(humans=(Player(0, casting.asking, None),))


def _joined(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _voice(speaker: str, casting: Casting) -> tuple[Role, str]:
    if speaker in {CHAR, casting.char, casting.persona.name}:
        return Role.SAMPLE_AI, casting.char
    return Role.SAMPLE_USER, casting.user if speaker == USER else speaker


def _title(scene: str) -> str:
    title = _TITLE_END.split(scene.strip(), maxsplit=1)[0].strip()
    title = title[:_TITLE_LIMIT].strip() or scene.strip()[:_TITLE_LIMIT].strip()
    return title if any(visible(char) for char in title) else _NO_TITLE

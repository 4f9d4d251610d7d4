"""Personas and the example dialogues that teach their voice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field

from roleplay.domain.settings import DEFAULT_SETTINGS, SessionSettings
from roleplay.domain.values import NO_METADATA, Input, Key, Metadata, Name, Text, Utc, Value
from roleplay.errors import InvalidInputError

CHAR = "{{char}}"
USER = "{{user}}"
_SPEAKERS = {"{{char}}": CHAR, "<bot>": CHAR, "<char>": CHAR, "{{user}}": USER, "<user>": USER}


class ExampleLine(Input):
    """One line of an example dialogue. ``speaker`` is ``{{char}}``, ``{{user}}`` or somebody's name."""

    speaker: Name
    text: Annotated[Text, Field(min_length=1)]


class ExampleDialogue(Input):
    """Lines that teach a persona's voice. It goes into a context whole or not at all."""

    lines: Annotated[tuple[ExampleLine, ...], Field(min_length=1)]

    if TYPE_CHECKING:  # as a caller may write it

        def __init__(self, *, lines: Iterable[ExampleLine]) -> None: ...

    @classmethod
    def parse(cls, text: str, *, names: Iterable[str] = ()) -> Self:
        """Read ``Speaker: words`` lines; a line without a speaker goes on with the line before.

        Speakers are ``{{char}}`` and ``{{user}}`` (``<BOT>`` and ``<USER>``, any case) and the ``names`` given. A name
        may be decorated (``**Nova:**``, ``"Nova":``) and the colon may be full-width.

        Raises ``InvalidInputError`` when words stand before the first speaker or nothing is said at all.
        """
        named = {name: name for name in names}
        speakers = _SPEAKERS | {name.casefold(): name for name in named}
        pattern = "|".join(re.escape(name) for name in sorted(_SPEAKERS | named, key=len, reverse=True))
        line_start = re.compile(rf"\s*[*_\"“]*({pattern})[*_\"”]*\s*[:\uff1a][*_\"”]*\s*(.*)", re.IGNORECASE)
        said: list[tuple[str, list[str]]] = []
        for number, line in enumerate(text.strip().splitlines(), start=1):
            found = line_start.match(line)
            if found and (speaker := speakers.get(found[1].casefold())):  # a pattern takes ı for i, a name does not
                said.append((speaker, [found[2]]))
            elif said:
                said[-1][1].append(line)
            elif line.strip():
                known = ", ".join(f"{name}:" for name in dict.fromkeys(speakers.values()))
                raise InvalidInputError("examples", f"line {number} stands before the first speaker", allowed=known)
        lines = [ExampleLine(speaker=who, text=words) for who, part in said if (words := "\n".join(part).strip())]
        if not lines:
            raise InvalidInputError("examples", "nobody says anything", allowed="lines such as '{{char}}: words'")
        return cls(lines=tuple(lines))


def _dialogue(value: Any) -> Any:
    if isinstance(value, str):
        return ExampleDialogue.parse(value)
    if isinstance(value, list | tuple):
        return {"lines": [_line(line) for line in value]}
    return value


def _line(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1:
        ((speaker, text),) = value.items()
        return {"speaker": _SPEAKERS.get(str(speaker).casefold(), speaker), "text": text}
    return value


def _listed(value: Any) -> Any:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ValueError("should be a list of texts")  # noqa: TRY004 - pydantic names the field of a ValueError
    return value


class Persona(Input):
    """A character sheet, played by the model or by a human. Only ``name`` is required.

    ``description`` becomes the ``system`` message when the model plays it and ``user_system`` when a human does;
    ``system_prompt`` stands before it; ``personality`` and ``scenario`` follow it. ``note`` stands near the end of
    every context, ``post_history`` after the newest line. ``greetings``: the first opens a session, the others are its
    variants. ``examples`` may be given as text (see ``ExampleDialogue.parse``). ``key`` is unique per tenant and names
    the persona in files, URLs and commands. ``tags``, ``metadata`` and ``extensions`` are never sent. ``settings`` are
    the persona's layer of settings in every session in which the model plays it.

    Texts may hold ``{{char}}`` and ``{{user}}``; they are replaced when a context is built.
    """

    name: Name
    description: Text = ""
    personality: Text = ""
    scenario: Text = ""
    greetings: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = ()
    examples: Annotated[
        tuple[Annotated[ExampleDialogue, BeforeValidator(_dialogue)], ...], BeforeValidator(_listed)
    ] = ()
    system_prompt: Text = ""
    post_history: Text = ""
    note: Text = ""
    nickname: Name | None = None
    tags: Annotated[tuple[Name, ...], BeforeValidator(_listed)] = ()
    metadata: Metadata = {}
    extensions: Metadata = {}
    settings: SessionSettings = SessionSettings()
    key: Key | None = None

    if TYPE_CHECKING:  # as a caller may write it: lists are taken too, and dialogues as text

        def __init__(  # noqa: PLR0913 - one for each field
            self,
            name: str,
            description: str = "",
            *,
            personality: str = "",
            scenario: str = "",
            greetings: Iterable[str] = (),
            examples: Iterable[ExampleDialogue | Sequence[ExampleLine | Mapping[str, str]] | str] = (),
            system_prompt: str = "",
            post_history: str = "",
            note: str = "",
            nickname: str | None = None,
            tags: Iterable[str] = (),
            metadata: Metadata = NO_METADATA,
            extensions: Metadata = NO_METADATA,
            settings: SessionSettings = DEFAULT_SETTINGS,
            key: str | None = None,
        ) -> None: ...

    else:

        def __init__(self, name: str, description: str = "", **fields: Any) -> None:
            super().__init__(name=name, description=description, **fields)

    @property
    def called(self) -> str:
        """The name others use: the nickname when there is one."""
        return self.nickname or self.name


class StoredPersona(Value):
    """A version of a persona as it is stored. ``version`` counts from 1; every version stays as it was.

    ``author`` and ``message`` say who wrote it and why. ``archived_at`` is the persona's: since then it is in no list
    and takes no seat in a new session.
    """

    id: str
    version: int
    persona: Persona
    created_at: Utc
    author: str = ""
    message: str = ""
    archived_at: Utc | None = None

    @property
    def name(self) -> str:
        return self.persona.name

    @property
    def key(self) -> str | None:
        return self.persona.key

"""With whom a chat is held: what was asked for, or what a person chooses from a list. Nothing is written here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from roleplay.cli import hints, show
from roleplay.cli.examples import example, examples, played_by_model
from roleplay.domain.cast import Seat
from roleplay.domain.persona import Persona, StoredPersona
from roleplay.engine import Roleplay
from roleplay.errors import InvalidInputError, NotFoundError
from roleplay.exchange.persona_files import names_file, read_persona

OFFERED = 20
SEARCHED = 100
NAMED = "name:"


@dataclass(frozen=True)
class Going:
    """A stored session to go on with."""

    session_id: str


@dataclass(frozen=True)
class Beginning:
    """A persona to begin a session with; a ``Persona`` is yet to be put."""

    persona: StoredPersona | Persona


@dataclass(frozen=True)
class Offer:
    """One line of what there is to choose from."""

    target: Going | Beginning
    words: str


def how_to_add() -> str:
    """Say how somebody brings a persona of their own."""
    return f"a persona of your own: {hints.command('persona add FILE.yaml')}"


def find(rp: Roleplay, who: str) -> Going | Beginning:
    """Find whom ``who`` names: a persona file, a persona, a session, or an example that comes with the package.

    Raises ``NotFoundError``, also where several ids begin so, and what a persona file raises.
    """
    if names_file(who):
        return Beginning(read_persona(Path(who)))
    persona, session_id = _persona(rp, who), _session(rp, who)
    exact = persona is not None and who in {persona.key, persona.id}
    if persona is not None and session_id is not None and not exact:
        raise NotFoundError("persona or session", who, ambiguous=True)
    if persona is None and session_id is not None:
        return Going(session_id)
    found = persona or example(who)
    if found is None:
        raise NotFoundError(
            "persona or session", who, hint=f"see: {hints.command('persona list')}, {hints.command('session list')}"
        )
    return Beginning(found)


def find_persona(rp: Roleplay, who: str) -> StoredPersona | Persona:
    """Find the persona that ``who`` names: a file, a stored one, or an example. Raises ``NotFoundError``."""
    if names_file(who):
        return read_persona(Path(who))
    found = _persona(rp, who) or example(who)
    if found is None:
        raise NotFoundError("persona", who, hint=f"see: {hints.command('persona list')}")
    return found


def find_human(rp: Roleplay, who: str) -> StoredPersona | Persona | Seat:
    """Find whom a human plays: as ``find_persona`` does or, behind ``name:``, a name of somebody without a persona.

    Raises ``NotFoundError`` and ``InvalidInputError``.
    """
    try:
        return find_persona(rp, who)
    except NotFoundError as error:
        if error.ambiguous or names_file(who):
            raise
        if who.startswith(NAMED):
            return Seat(name=who.removeprefix(NAMED))
        hint = f"see: {hints.command('persona list')}; somebody without a persona: {NAMED}{who}"
        raise NotFoundError("persona", who, hint=hint) from error


def last_session(rp: Roleplay, target: Going | Beginning | None) -> Going:
    """Find the session that was used last, of the target's persona if there is one. Raises ``NotFoundError``."""
    if isinstance(target, Going):
        return target
    persona_id = _stored_id(rp, target.persona) if target else None
    page = rp.sessions.list(limit=SEARCHED)
    while True:
        for info in page:
            if target is None or persona_id in {one.persona_id for one in info.models}:
                return Going(info.id)
        if page.older is None or persona_id is None:
            name = target.persona.name if target else "any persona"
            raise NotFoundError("stored session with", name, hint=f"begin one: {hints.command('chat PERSONA')}")
        page = rp.sessions.list(limit=SEARCHED, before=page.older)


def _stored_id(rp: Roleplay, persona: StoredPersona | Persona) -> str | None:
    if isinstance(persona, Persona):
        stored = _persona(rp, persona.key) if persona.key else None
        return stored.id if stored and stored.key == persona.key else None
    return persona.id


def _persona(rp: Roleplay, who: str) -> StoredPersona | None:
    try:
        return rp.personas.get(who)
    except NotFoundError as error:
        if error.ambiguous:
            raise
        return None


def _session(rp: Roleplay, who: str) -> str | None:
    try:
        return rp.sessions.get(who).id
    except NotFoundError as error:
        if error.ambiguous:
            raise
        return None


def offers(rp: Roleplay) -> list[Offer]:
    """List what may be chosen: the last session, the stored personas, the examples that are not stored yet."""
    found = []
    for info in rp.sessions.list(limit=1):
        when = info.last_turn_at.astimezone().strftime("%Y-%m-%d %H:%M")
        found.append(Offer(Going(info.id), f"go on: {show.heading(info)} · {when}"))
    stored = rp.personas.list(limit=OFFERED)
    mine = [one for one in stored if played_by_model(one.persona)]
    found += [Offer(Beginning(one), _words(one.persona, one.id)) for one in mine]
    keys = {one.key for one in stored}
    fresh = [one for one in examples() if played_by_model(one) and one.key not in keys]
    return found + [Offer(Beginning(one), f"{_words(one, '')} (example)") for one in fresh]


def _words(persona: Persona, persona_id: str) -> str:
    key = persona.key or persona_id[:8]
    return persona.name if key == persona.name else f"{persona.name} · {key}"


def choose(rp: Roleplay) -> Going | Beginning:
    """Let a person choose from a numbered list; without a terminal, show the list.

    Raises ``InvalidInputError`` where nobody can answer, or the answer is no number of the list.
    """
    listed = offers(rp)
    for number, offer in enumerate(listed, start=1):
        show.say(f"{number:>3}  {offer.words}")
    show.say(how_to_add(), style=show.DIM)
    if not sys.stdin.isatty():
        raise InvalidInputError(
            "who", "say whom to talk to", allowed=f"{hints.command('chat PERSONA')}, {hints.command('chat --continue')}"
        )
    answer = input("number [1]: ").strip() if listed else ""
    if not listed or not (answer or "1").isdecimal() or not 1 <= int(answer or "1") <= len(listed):
        raise InvalidInputError("number", f"is {answer!r}", allowed=f"1 to {len(listed)}")
    return listed[int(answer or "1") - 1].target

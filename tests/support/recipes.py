"""The bytes of every recipe version, pinned: contexts that show all that emission and writing do, and their digests.

``python -m tests.support.recipes`` writes the digests of versions that have none yet; those that are there stay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from roleplay.domain.context import Insertion, Line, Piece, Recipe, Role, Section, Span, digest
from roleplay.domain.endpoint import Dialect
from roleplay.wire.recipes import VERSIONS

KEPT = Path(__file__).parents[1] / "data" / "recipes"
PARAMETERS = {"model": "m", "max_completion_tokens": 256, "temperature": 0.5, "top_p": 1.0, "stream": True}
ME, YOU, THIRD = 1, 2, 3


class Context(NamedTuple):
    """What emission is given."""

    recipe: Recipe
    texts: dict[str, str]
    lines: list[Line]


class Part(NamedTuple):
    """A rendered piece, with its text."""

    section: Section
    role: Role
    name: str
    text: str

    @property
    def piece(self) -> Piece:
        """As a recipe names it."""
        return Piece(self.section.value, self.role.value, self.name, digest(self.text))


def context(
    said: Sequence[tuple[int, str, str]] = (),
    *,
    front: Sequence[Part] = (),
    among: Sequence[tuple[int, Part]] = (),
    tail: Sequence[Part] = (),
    named: bool = False,
) -> Context:
    """A context of what was said (seat, name, text), with its pieces; ``named``: each line of others with its name."""
    lines = [Line(seq, (seq + 1) // 2, seat, name, text, 1) for seq, (seat, name, text) in enumerate(said, start=1)]
    recipe = Recipe(
        front=tuple(part.piece for part in front),
        history=Span(min(len(lines), 1), len(lines), ME, named=named),
        insertions=tuple(Insertion(depth, part.piece) for depth, part in among),
        tail=tuple(part.piece for part in tail),
    )
    parts = [*front, *(part for _, part in among), *tail]
    return Context(recipe, {part.piece.digest: part.text for part in parts}, lines)


SYSTEM = Part(Section.SYSTEM, Role.SYSTEM, "Nova", "You are Nova, a pilot.")
RULES = Part(Section.FACT, Role.SYSTEM, "rules", "Nobody lands at night.")
PLACE = Part(Section.FACT, Role.SYSTEM, "place", "  The dock.\n")
PERSONA = Part(Section.USER_PERSONA, Role.USER_SYSTEM, "Traveler", "Wet and late. 夜 🎐")
NAMED_ALONE = Part(Section.USER_PERSONA, Role.USER_SYSTEM, "Traveler", " Traveler ")
SCENE = Part(Section.SCENE, Role.GROUP, "The dock", 'A "dock"\\pier\twith\u2028lines')
SAMPLE_USER = Part(Section.EXAMPLES, Role.SAMPLE_USER, "Traveler", "Fuel?")
SAMPLE_AI = Part(Section.EXAMPLES, Role.SAMPLE_AI, "Nova", "<think>Low?</think>Low.")
NOTE = Part(Section.NOTE, Role.SYSTEM, "Nova", "It is late.")
HOUR = Part(Section.FACT, Role.SYSTEM, "hour", "It is 23:10.")
POST = Part(Section.POST_HISTORY, Role.SYSTEM, "Nova", "Stay terse.")
SPEAK = Part(Section.SPEAK, Role.USER, "Traveler", "Go on.")
SO_FAR = Part(Section.SO_FAR, Role.ASSISTANT, "Nova", "<think>So</think>The river")
OPENING = Part(Section.OPENING, Role.USER, "Traveler", "[It is your turn.]")
HINT = Part(Section.HINT, Role.SYSTEM, "Nova", "Whisper.")
OTHERS = Part(Section.CAST, Role.SYSTEM, "Nova", "Also here: Kit, Traveler. Speak for Nova alone.")
BOTH = Part(Section.USER_PERSONA, Role.USER_SYSTEM, "Traveler, Kit", "Traveler: Wet and late.\n\nKit: Young.")
FRONT = [SYSTEM, PERSONA, SCENE]
SAID = [(ME, "Nova", "Welcome."), (YOU, "Traveler", "Where to?"), (ME, "Nova", "Ceres."), (YOU, "Traveler", "Go.")]
THOUGHTS = [
    "<think>Hm.</think>Aye.",
    "<think>Hm.</think>\n\n",
    "<think>and no end",
    "Hm.</think> Aye.",
    "A <think>b</think> c",
    "Aye.<think>x</think>\n\n<think>y</think>\n\nNo.",
    "Literally </think> and <think>nested <think>twice</think></think>.",
    "<thinking>Kept.</thinking> 1 < 2",
    "  blanks around  ",
]
ODD_NAMES = ["Traveler\nof\tlands", "\u200bZero\u200d", " Ann\u00a0Lee\u2003", "夜\u202e", 'O\'Hara \\ "B"']

#: By what they show. One that is here is never changed; a new one is pinned from the next version on.
CONTEXTS: dict[str, Context] = {
    "nothing": context(),
    "front alone": context(front=FRONT),
    "one line and nothing else": context([(YOU, "Traveler", "Hello?")]),
    "every section": context(
        SAID,
        front=[SYSTEM, RULES, PERSONA, SCENE, SAMPLE_USER, SAMPLE_AI],
        among=[(1, NOTE)],
        tail=[HINT, POST],
    ),
    "several system pieces in front": context(SAID, front=[SYSTEM, PLACE, RULES, PERSONA, SCENE]),
    "a front that begins with no system": context(SAID, front=[PERSONA, SCENE, RULES]),
    "a persona of a name alone": context(SAID, front=[SYSTEM, NAMED_ALONE]),
    "late instructions": context(SAID, front=FRONT, among=[(0, HOUR), (1, NOTE), (2, RULES), (4, PLACE), (9, POST)]),
    "late instructions of one depth": context(SAID, front=FRONT, among=[(1, HOUR), (1, NOTE), (1, RULES)]),
    "late instructions behind the last line": context(SAID, front=FRONT, tail=[HINT, POST]),
    "late instructions and no line": context(front=FRONT, among=[(0, HOUR), (3, NOTE)], tail=[POST]),
    "late instructions and no human line": context(SAID[:1], front=FRONT, among=[(1, NOTE)], tail=[POST]),
    "spoken unasked": context(SAID[:3], front=FRONT, among=[(1, NOTE)], tail=[SPEAK, POST]),
    "gone on": context(SAID, front=FRONT, among=[(1, NOTE)], tail=[SO_FAR, SPEAK, HINT, POST]),
    "neighbours of one role": context(
        [
            (ME, "Nova", "One."),
            (ME, "Nova", "Two."),
            (YOU, "Traveler", "Three?"),
            (YOU, "Traveler", "Four?"),
            (ME, "Nova", "Five."),
            (YOU, "Traveler", "Six?"),
            (YOU, "Traveler", "Seven?"),
        ],
        front=FRONT,
        among=[(2, NOTE)],
    ),
    "several speakers": context(
        [
            (THIRD, "Narrator", "The rain stops."),
            (ME, "Nova", "At last."),
            (YOU, "Traveler", "Now?"),
            (THIRD, "Narrator", "A bell."),
            (ME, "Old Nova", "Aye."),
            (ME, "Nova", "Aye!"),
            (THIRD, "Kit", "Wait!"),
        ],
        front=FRONT,
        among=[(1, NOTE)],
    ),
    "other speakers and no persona": context([(THIRD, "Kit", "Wait!"), (YOU, "Traveler", "Why?")], front=[SYSTEM]),
    "blank texts": context(
        [(YOU, "Traveler", ""), (ME, "Nova", " \n"), (YOU, "Traveler", "Well?"), (ME, "Nova", "\u3000"), SAID[3]],
        front=[SYSTEM, Part(Section.SCENE, Role.GROUP, "Dock", " ")],
    ),
    "thoughts in the model's texts": context(
        [one for text in THOUGHTS for one in ((YOU, "Traveler", "And?"), (ME, "Nova", text))], front=FRONT
    ),
    "thoughts in the human's texts": context([(YOU, "Traveler", text) for text in THOUGHTS], front=FRONT),
    "odd names": context(
        [(seat, name, "Hm.") for name in ODD_NAMES for seat in (YOU, ME)],
        front=[Part(Section.SYSTEM, Role.SYSTEM, name, "Hm.") for name in ODD_NAMES[:2]],
    ),
    "odd characters": context([(YOU, "Traveler", "\x01\x7f\u2028\"\\/<&'\ud7ff\U0010ffff\t\r\n é e\u0301 👩\u200d🚀")]),
    "an opening before the model's line": context(SAID, front=[*FRONT, OPENING], among=[(1, NOTE)]),
    "every line of others named": context(
        [*SAID, (THIRD, "Kit", "Wait!"), (YOU, "Traveler", "Why?"), (ME, "Nova", "Aye."), (THIRD, "Kit", "Hm.")],
        front=[SYSTEM, OTHERS, BOTH, SCENE],
        among=[(1, NOTE)],
        tail=[POST],
        named=True,
    ),
    "lines of others named, each alone": context(SAID, front=FRONT, tail=[SPEAK], named=True),
    "lines of two of one name": context(
        [(YOU, "Traveler", "Traveler: Me?"), (THIRD, "Traveler", "You."), (ME, "Nova", "Both.")],
        front=[SYSTEM, OTHERS],
        among=[(0, HOUR)],
        named=True,
    ),
    "odd names before lines": context([(seat, name, "Hm.") for name in ODD_NAMES for seat in (YOU, ME)], named=True),
    "nothing said, lines named": context(front=FRONT, tail=[SPEAK], named=True),
}


def digests(number: int) -> dict[str, dict[str, str]]:
    """Give the digest of each context's request in each dialect that a version knows."""
    version = VERSIONS[number]
    return {
        dialect.value: {name: digest_of(number, dialect, name) for name in CONTEXTS}
        for dialect in Dialect
        if dialect in version.dialects
    }


def digest_of(number: int, dialect: Dialect, name: str) -> str:
    """Give the digest of one context's request."""
    version = VERSIONS[number]
    context = CONTEXTS[name]
    body = version.encode(dialect, version.emit(*context), PARAMETERS, named=context.recipe.history.named)
    return hashlib.sha256(body).hexdigest()


def path_of(number: int) -> Path:
    """Where the digests of a version are kept."""
    return KEPT / f"version_{number}.json"


def kept(number: int) -> dict[str, dict[str, str]]:
    """Read the digests of a version."""
    found: dict[str, dict[str, str]] = json.loads(path_of(number).read_text(encoding="utf-8"))
    return found


def changes(number: int) -> Iterator[str]:
    """Say of which version, dialect and context the request is another one than was kept."""
    known: Any = kept(number)
    for dialect in Dialect:
        if (dialect in VERSIONS[number].dialects) != (dialect.value in known):
            yield f"recipe version {number} and its file differ about whether it knows the dialect {dialect.value}"
        elif dialect.value in known:
            for name, digest_then in known[dialect.value].items():
                if digest_of(number, dialect, name) != digest_then:
                    yield f"recipe version {number}, dialect {dialect.value}, context {name!r}"


def main() -> None:
    """Write the digests of versions that have none yet."""
    KEPT.mkdir(exist_ok=True)
    for number in VERSIONS:
        if not path_of(number).exists():
            path_of(number).write_text(json.dumps(digests(number), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

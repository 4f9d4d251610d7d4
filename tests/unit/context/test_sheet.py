"""Rendering a sheet: macros, blanks, names, costs; and counting and expanding below it."""

from __future__ import annotations

import pytest

from roleplay import Counter, Dialect, EstimatingCounter, Persona, Role
from roleplay.context import sheet as sheets
from roleplay.context.macros import expand
from roleplay.context.placed import Casting, Player, Rendered
from roleplay.context.weights import Weights
from roleplay.domain.context import Section
from roleplay.wire.dialects import demands
from tests.support.sheets import Parts, parts

COUNTER = EstimatingCounter()
NEEDS = demands(Dialect.MINIMAX)


def cast(persona: Persona, *, user: Persona | None = None, called: str = "Traveler", scene: str = "") -> Casting:
    """A persona in seat 1, played to a human."""
    humans = (Player(2, called, user),)
    return Casting(seat=1, char=persona.called, persona=persona, humans=humans, asking=called, scene=scene)


def render(casting: Casting, counter: Counter) -> Parts:
    """A sheet by its parts."""
    return parts(sheets.render(casting, counter))


def told(pieces: tuple[Rendered, ...]) -> list[tuple[str, str, str]]:
    """Role, name and text of pieces."""
    return [(piece.piece.role, piece.piece.name, piece.text) for piece in pieces]


def test_everything_of_a_persona_has_its_place() -> None:
    """Prompt, description, personality and scenario are the system text; note and post-history stand for themselves."""
    persona = Persona(
        "Nova",
        "{{char}} flies.",
        personality="Dry.",
        scenario="{{user}} boards.",
        system_prompt="Play {{char}}.",
        note="It is late, <USER>.",
        post_history="Stay <BOT>.",
        examples=["{{user}}: Fuel?\n{{char}}: Low.\nMechanic: Very."],
    )
    sheet = render(cast(persona, user=Persona("T", "A clerk.", personality="Shy."), scene="Dock 9."), COUNTER)
    assert told(sheet.front) == [
        ("system", "Nova", "Play Nova.\n\nNova flies.\n\nDry.\n\nTraveler boards."),
        ("user_system", "Traveler", "A clerk.\n\nShy."),
        ("group", "Dock 9", "Dock 9."),
    ]
    assert [told(dialogue) for dialogue in sheet.examples] == [
        [
            ("sample_message_user", "Traveler", "Fuel?"),
            ("sample_message_ai", "Nova", "Low.\nMechanic: Very."),
        ]
    ]
    assert sheet.note is not None
    assert sheet.post_history is not None
    assert (sheet.note.text, sheet.post_history.text) == ("It is late, Traveler.", "Stay Nova.")


def test_blanks_are_left_out() -> None:
    """A persona of whom only the name is known is described by it, and no blank piece is made."""
    sheet = render(cast(Persona("Echo", " \n", note=" ", post_history="\t"), user=Persona("T")), COUNTER)
    assert told(sheet.front) == [("system", "Echo", "Echo")]
    assert (sheet.examples, sheet.note, sheet.post_history) == ((), None, None)


def test_a_nickname_is_the_name_but_both_speak() -> None:
    """Example lines under the persona's name, its nickname and {{char}} are all its own."""
    persona = Persona(
        "Zhuge Liang",
        nickname="Kongming",
        examples=[[{"Zhuge Liang": "1"}, {"Kongming": "2"}, {"<bot>": "3"}, {"Guan Yu": "4"}]],
    )
    [dialogue] = render(cast(persona), COUNTER).examples
    assert [(piece.piece.role, piece.piece.name) for piece in dialogue] == [(Role.SAMPLE_AI, "Kongming")] * 3 + [
        (Role.SAMPLE_USER, "Guan Yu")
    ]


@pytest.mark.parametrize(
    ("scene", "title"),
    [
        ("Longzhong, 207 AD", "Longzhong"),
        ("{{user}}'s house: night", "Traveler's house"),
        ("隆中，公元207年", "隆中"),
        ("...", "..."),
        ("a" * 100, "a" * 60),
        ("first\nsecond", "first"),
    ],
)
def test_the_title_of_a_scene(scene: str, title: str) -> None:
    """The group message is named by the scene's first words, macros expanded as in its text."""
    [_, group] = render(cast(Persona("Nova"), scene=scene), COUNTER).front
    assert (group.section, group.piece.role, group.piece.name) == (Section.SCENE, Role.GROUP, title)


def test_what_a_piece_costs() -> None:
    """A piece costs its text, its name where names are sent, and the dialect's overhead."""
    [piece] = render(cast(Persona("Nova", "A pilot.")), COUNTER).front
    words = COUNTER.count("A pilot.")
    named, unnamed = Weights(COUNTER, NEEDS), Weights(COUNTER, NEEDS._replace(names=False))
    assert named.message(piece.size, "Nova") == words + COUNTER.count("Nova") + NEEDS.per_message_tokens
    assert unnamed.message(piece.size, "Nova") == words + NEEDS.per_message_tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{char}} {{USER}} {{ Char }}", "A B A"),
        ("<BOT><char><User>", "AAB"),
        ("{{random}} {char} {{{char}}} {{char", "{{random}} {char} {A} {{char"),
        ("", ""),
    ],
)
def test_macros(text: str, expected: str) -> None:
    """Known macros of any case are replaced, every other brace stays."""
    assert expand(text, char="A", user="B") == expected


def test_a_name_is_never_expanded() -> None:
    """A user who calls himself {{char}} stays that: what was put in is not read again."""
    assert expand("{{user}} & {{char}}", char="{{user}}", user="{{char}}") == "{{char}} & {{user}}"
    sheet = render(cast(Persona("Nova", "Meets {{user}}."), called="{{char}}", scene="{{user}}"), COUNTER)
    assert told(sheet.front) == [("system", "Nova", "Meets {{char}}."), ("group", "{{char}}", "{{char}}")]


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("a", 1, 1),
        ("The wind turns at the third watch.", 8, 12),
        ("亮躬耕于南阳，苟全性命于乱世", 8, 14),
        ("🎐🎐🎐", 6, 9),
        ("Ещё раз, пожалуйста", 8, 14),
    ],
)
def test_the_estimate_is_on_the_safe_side(text: str, least: int, most: int) -> None:
    """Estimates lie above what is published for the script, and not absurdly above."""
    assert least <= COUNTER.count(text) <= most


def test_counting_is_additive_on_the_safe_side() -> None:
    """Parts counted apart never cost less than the whole, so that sums of parts bound it."""
    text = "The wind 风 turns 🎐 at the third watch. Ещё! " * 20
    for cut in range(0, len(text), 37):
        assert COUNTER.count(text[:cut]) + COUNTER.count(text[cut:]) >= COUNTER.count(text)

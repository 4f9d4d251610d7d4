"""Reading example dialogues, and the names of a persona."""

from __future__ import annotations

import pytest

from roleplay import ExampleDialogue, InvalidInputError, Persona


def lines(text: str, *names: str) -> list[tuple[str, str]]:
    """Parse and give (speaker, text) pairs."""
    return [(line.speaker, line.text) for line in ExampleDialogue.parse(text, names=names).lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{user}}: Hi\n{{char}}: Yes", [("{{user}}", "Hi"), ("{{char}}", "Yes")]),
        ("{{USER}}: Hi\n<BOT>: Yes\n<char>: No", [("{{user}}", "Hi"), ("{{char}}", "Yes"), ("{{char}}", "No")]),
        ("<USER>：你好", [("{{user}}", "你好")]),
        ("  {{char}} :  spaced  ", [("{{char}}", "spaced")]),
        ("**{{char}}:** bold", [("{{char}}", "bold")]),
        ('"{{char}}": quoted', [("{{char}}", "quoted")]),
        ("{{char}}: one\ntwo\n\nthree", [("{{char}}", "one\ntwo\n\nthree")]),
        ("{{char}}: ratio 3:1\nNote: not a speaker", [("{{char}}", "ratio 3:1\nNote: not a speaker")]),
        ("{{char}}:\n{{user}}: after nothing", [("{{user}}", "after nothing")]),
        ("\n\n{{char}}: after blank lines\n\n", [("{{char}}", "after blank lines")]),
        ("{{char}}: a\r\n{{user}}: b\r\n", [("{{char}}", "a"), ("{{user}}", "b")]),
    ],
)
def test_parsing(text: str, expected: list[tuple[str, str]]) -> None:
    """Speakers in any of their spellings begin lines; other lines go on with the one before."""
    assert lines(text) == expected


def test_names_may_speak() -> None:
    """Given names are speakers too, decorated or not, and the longer of two wins."""
    assert lines("Nova: hi\n*Nova Prime*: ho\nnova: ha", "Nova", "Nova Prime") == [
        ("Nova", "hi"),
        ("Nova Prime", "ho"),
        ("Nova", "ha"),
    ]
    assert lines("A.B: dot\nAxB: not a speaker", "A.B") == [("A.B", "dot\nAxB: not a speaker")]


@pytest.mark.parametrize("stranger", ["Nına: dotless", "NİNA: dotted"])
def test_a_letter_that_only_a_pattern_takes_for_another(stranger: str) -> None:
    """A name spelled with another letter is somebody else, so its line goes on with the one before."""
    assert lines(f"Nina: hi\n{stranger}", "Nina") == [("Nina", f"hi\n{stranger}")]
    with pytest.raises(InvalidInputError):
        lines(stranger, "Nina")


@pytest.mark.parametrize("name", ["İbrahim", "ıssız", "Straße", "Ὀδυσσεύς", "ſ", "Kelvin\u212a", "诸葛亮", "(a|b)*"])
def test_every_name_finds_itself(name: str) -> None:
    """A name of any script is found in its own spelling."""
    assert lines(f"{name}: hi", name) == [(name, "hi")]


@pytest.mark.parametrize("text", ["", " \n ", "words first\n{{char}}: late", "{{char}}:", "{{char}}:  \n  "])
def test_what_is_no_dialogue(text: str) -> None:
    """Words before a speaker, and speakers without words, are refused with what is allowed."""
    with pytest.raises(InvalidInputError) as failure:
        ExampleDialogue.parse(text)
    assert failure.value.field == "examples"
    assert failure.value.allowed


def test_parsing_is_linear() -> None:
    """A long text of colons and decorations is read at once, not tried in every way."""
    text = "{{char}}: go\n" + "*" * 50_000 + "\n" + '"_*' * 20_000 + ":" * 20_000
    assert len(lines(text)[0][1]) > 100_000


def test_three_ways_to_give_examples() -> None:
    """Text, pairs and whole dialogues are the same dialogue."""
    whole = ExampleDialogue.parse("{{user}}: Hi\n{{char}}: Yes")
    given = Persona("a", examples=["{{user}}: Hi\n{{char}}: Yes", [{"<USER>": "Hi"}, {"<bot>": "Yes"}], whole])
    assert set(given.examples) == {whole}


def test_what_others_call_a_persona() -> None:
    """The nickname goes before the name."""
    assert (Persona("Zhuge Liang").called, Persona("Zhuge Liang", nickname="Kongming").called) == (
        "Zhuge Liang",
        "Kongming",
    )

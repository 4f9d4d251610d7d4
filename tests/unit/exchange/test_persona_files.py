"""Persona files: what is read, what is refused, and that what is written is read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roleplay import ExampleDialogue, ExampleLine, InvalidInputError, NotFoundError, Persona
from roleplay.cli.examples import examples
from roleplay.exchange import persona_files as files
from roleplay.exchange.persona_files import names_file, persona_yaml, read_persona, slug


def write(folder: Path, text: str | bytes, name: str = "someone.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_yaml_file_holds_the_fields_of_a_persona(tmp_path: Path) -> None:
    """Fields are read as they are named; YAML 1.2 leaves ``no`` a word; the key comes from the file's name."""
    text = "name: Ann\ngreetings:\n  - no\nexamples:\n  - - '{{user}}': Hi\n    - Ann: Yo\nmetadata: {n: 1}\n"
    persona = read_persona(write(tmp_path, text, "Ann_of the_Hill.yaml"))
    assert persona.key == "ann-of-the-hill"
    assert persona.greetings == ("no",)
    assert [line.speaker for line in persona.examples[0].lines] == ["{{user}}", "Ann"]
    assert dict(persona.metadata) == {"n": 1}


def test_a_json_file_holds_the_same(tmp_path: Path) -> None:
    """JSON is read by its suffix, a byte order mark is no harm, and a key of its own is kept."""
    text = b"\xef\xbb\xbf" + json.dumps({"name": "Ann", "key": "k", "tags": ["x"]}).encode()
    assert read_persona(write(tmp_path, text, "a.JSON")) == Persona("Ann", key="k", tags=("x",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: Ann\nmood: gay\n", "mood: unknown field (allowed: name, description"),
        ("description: x\n", "name: is required"),
        ("name:\n", "name: is required"),
        ("name: '  '\n", "name: is blank"),
        ("name: 12\n", "name: should be a valid string"),
        ("name: Ann\nself: 1\n", "self: unknown field"),
        ("- name: Ann\n", "is no persona"),
        ("", "is no persona"),
        ("just words\n", "is no persona"),
        ("name: Ann\nname: Bob\n", 'line 2: found duplicate key "name"'),
        ("name: &a Ann\nnickname: *a\n", "line 1: anchors and aliases"),
        ("name: Ann\nmetadata: {<<: *x}\n", "line 2: anchors and aliases"),
        ("name: !!python/object:os.system x\n", ".yaml: line 1: tags (!) are not taken"),
        ("name: !!binary aGk=\n", "line 1: tags (!) are not taken"),
        ("name: Ann\n---\nname: Bob\n", "line 2: a second document"),
        ("name: [Ann\n", "line 2: "),
        ("name: Ann\n\tx: 1\n", "line 2: "),
        ("name: Ann\nmetadata: {when: 2001-01-01}\n", "metadata.when: is a date; put it in quotes"),
        ("name: Ann\nmetadata: {x: .nan}\n", "metadata.x: nan is not a number"),
        ("name: Ann\nmetadata: {1: x}\n", "metadata: the field name 1 should be text"),
        ("name: Ann\nmetadata: 5\n", "metadata: "),
        ("name: Ann\nmetadata: " + "[" * 30 + "]" * 30 + "\n", "is nested too deeply (allowed: at most 20 levels)"),
        ("name: Ann\ntags: [" + "a," * 21_000 + "]\n", "holds too many values"),
        ("name: Ann\nmetadata: {n: " + "9" * 5_000 + "}\n", "holds a value that cannot be read"),
        ('name: "a\\0b"\n', "name: holds a NUL character"),
        ("name: a\x1bb\n", "is not YAML"),
        (b"name: \xff\n", "is not UTF-8 at byte 6"),
        ("name: Ann\ngreetings: Hello\n", "greetings: should be a list of texts"),
        ("name: Ann\ntags:\n", "tags: should be a list of texts"),
        ("name: Ann\nexamples: {a: b}\n", "examples: should be a list of texts"),
        ("name: Ann\nexamples: [5]\n", "examples[0]: "),
        ("name: Ann\nexamples: ['nobody speaks']\n", "line 1 stands before the first speaker"),
    ],
)
def test_a_bad_yaml_file_is_refused_by_file_and_field(tmp_path: Path, text: str | bytes, says: str) -> None:
    """The error names the file, the field or line, and what is wrong."""
    path = write(tmp_path, text)
    with pytest.raises(InvalidInputError) as refused:
        read_persona(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"name": "Ann", "name": "Bob"}', "name: stands there twice"),
        ('{"name": "Ann", "metadata": {"x": NaN}}', "NaN is no number"),
        ('{"name": "Ann"', "line 1: "),
        ('{"spec": "chara_card_v2", "data": {"name": "Ann"}}', "is a Character Card; examples/put_foreign_personas.py"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"name": "Ann", "metadata": {"x": ' + "[" * 30 + "]" * 30 + "}}", "is nested too deeply"),
        ('{"name": "\\ud800"}', "name: holds a lone surrogate"),
        ('{"name": "Ann", "metadata": {"n": ' + "9" * 5_000 + "}}", "Exceeds the limit"),
    ],
)
def test_a_bad_json_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """JSON has its own ways to be wrong."""
    with pytest.raises(InvalidInputError) as refused:
        read_persona(write(tmp_path, text, "a.json"))
    assert says in str(refused.value)


def test_a_file_of_more_than_a_megabyte_is_not_read(tmp_path: Path) -> None:
    """Size is bounded before anything is parsed."""
    path = write(tmp_path, b"name: " + b"a" * files.SIZE_LIMIT)
    with pytest.raises(InvalidInputError, match="too large for a persona"):
        read_persona(path)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    """A missing file is not found; a folder cannot be read."""
    with pytest.raises(NotFoundError, match="no file"):
        read_persona(tmp_path / "none.yaml")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_persona(tmp_path)


@pytest.mark.parametrize(
    ("text", "key"),
    [("zhuge_liang", "zhuge-liang"), ("Captain  Ann!", "captain-ann"), ("诸葛亮 2", "诸葛亮-2"), ("__", "")],
)
def test_a_slug_is_small_letters_and_digits(text: str, key: str) -> None:
    """A key can be typed and put into a URL."""
    assert slug(text) == key


@pytest.mark.parametrize(("text", "is_file"), [("a.yaml", True), ("x/y", True), ("A.JSON", True), ("ann", False)])
def test_a_path_is_told_from_a_name(text: str, is_file: bool) -> None:
    """A suffix or a slash makes a path."""
    assert names_file(text) is is_file


def is_taken(text: str) -> bool:
    """Whether ``text`` may stand as a name and as what somebody says."""
    try:
        ExampleLine(speaker=text, text=text)
    except InvalidInputError:
        return False
    return True


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
names = words.filter(is_taken)
lines = st.builds(ExampleLine, speaker=names, text=names)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | words | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
personas = st.builds(
    Persona,
    names,
    words,
    personality=words,
    greetings=st.lists(words, max_size=3).map(tuple),
    examples=st.lists(st.builds(ExampleDialogue, lines=st.lists(lines, min_size=1, max_size=3)), max_size=2).map(tuple),
    note=words,
    nickname=st.none() | names,
    tags=st.lists(names, max_size=2).map(tuple),
    metadata=st.dictionaries(words, plain, max_size=3),
    key=names,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(personas)
def test_what_show_writes_is_read_as_the_same_persona(tmp_path: Path, persona: Persona) -> None:
    """YAML written from any persona gives that persona again."""
    assert read_persona(write(tmp_path, persona_yaml(persona))) == persona


def test_long_texts_are_written_as_blocks() -> None:
    """A person can read and edit what is shown."""
    written = persona_yaml(Persona("Ann", "One line.\nAnother.\n", key="ann"))
    assert written == "key: ann\nname: Ann\ndescription: |\n  One line.\n  Another.\n"


def test_the_examples_are_personas_of_different_kinds() -> None:
    """Each has a key; some have greetings and example dialogues; the Chinese one is Chinese throughout."""
    found: dict[str | None, Any] = {persona.key: persona for persona in examples()}
    assert {"innkeeper", "zhuge-liang", "ships-computer", "traveler"} <= found.keys()
    assert all(found[key].greetings and found[key].examples for key in ("innkeeper", "zhuge-liang", "ships-computer"))
    zhuge = found["zhuge-liang"]
    sent = zhuge.name + zhuge.description + zhuge.personality + zhuge.scenario + "".join(zhuge.greetings)
    assert not any(char.isascii() and char.isalpha() for char in sent.replace("{{user}}", "").replace("{{char}}", ""))

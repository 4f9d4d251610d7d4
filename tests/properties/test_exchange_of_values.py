"""Values go into the database and come out as they were, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roleplay import Endpoint, ExampleDialogue, InvalidInputError, Persona, Roleplay
from roleplay.domain.values import text_problem
from roleplay.testing import ScriptedModel

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
TEXT = ANY_TEXT.filter(lambda text: text_problem(text) is None)
NAME = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40).filter(
    lambda name: any(char.isprintable() and not char.isspace() for char in name)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
METADATA = st.dictionaries(TEXT, JSON, max_size=3)
SPEAKER = st.sampled_from(["{{char}}", "{{user}}"]) | NAME
LINES = st.lists(st.fixed_dictionaries({"speaker": SPEAKER, "text": TEXT.filter(bool)}), min_size=1, max_size=4).map(
    lambda lines: {"lines": lines}
)
PERSONAS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"name": NAME},
    optional={
        **dict.fromkeys(("description", "personality", "scenario", "system_prompt", "post_history", "note"), TEXT),
        "greetings": st.lists(TEXT, max_size=3),
        "examples": st.lists(LINES, max_size=3),
        "nickname": NAME,
        "tags": st.lists(NAME, max_size=3),
        "metadata": METADATA,
        "extensions": METADATA,
    },
)


@pytest.fixture(scope="module")
def rp() -> Iterator[Roleplay]:
    """One engine for all examples; each makes personas of its own."""
    with Roleplay.open("sqlite://", model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel()) as one:
        yield one


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(fields=PERSONAS)
def test_a_persona_comes_back(rp: Roleplay, fields: dict[str, Any]) -> None:
    """What was put is what is read, as a version that equal content does not add to."""
    persona = Persona(**fields)
    stored = rp.personas.put(persona)
    assert stored.persona == persona
    assert rp.personas.get(stored.id) == stored
    assert rp.personas.put(persona, persona_id=stored.id) == stored
    assert Persona.model_validate_json(persona.model_dump_json()) == persona


@settings(deadline=None, max_examples=60)
@given(text=ANY_TEXT, fields=PERSONAS)
def test_a_change_is_a_version(rp: Roleplay, text: str, fields: dict[str, Any]) -> None:
    """Another text makes another version, and the first stays; a text that cannot be stored changes nothing."""
    first = rp.personas.put(Persona(**fields))
    try:
        changed = first.persona.evolve(note=text)
    except InvalidInputError:
        assert text_problem(text)
    else:
        second = rp.personas.put(changed, persona_id=first.id)
        assert second.version == (1 if changed == first.persona else 2)
        assert rp.personas.get(first.id) == second
    assert rp.personas.get(first.id, version=1) == first


WORDS = (
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=30)
    .map(str.strip)
    .filter(lambda text: bool(text) and text_problem(text) is None)
)


@given(said=st.lists(st.tuples(st.sampled_from(["{{char}}", "{{user}}"]), WORDS, WORDS), min_size=1, max_size=6))
def test_written_lines_are_read(said: list[tuple[str, str, str]]) -> None:
    """A dialogue written as lines, some of them long enough to go on below, is read as what was said."""
    text = "\n".join(f"{speaker}: {first}\n- {second}" for speaker, first, second in said)
    expected = [(speaker, f"{first}\n- {second}") for speaker, first, second in said]
    assert [(line.speaker, line.text) for line in ExampleDialogue.parse(text).lines] == expected


@given(name=NAME.map(str.strip), words=WORDS)
def test_every_name_speaks(name: str, words: str) -> None:
    """A name is found as it is spelled, whatever script it is written in."""
    lines = ExampleDialogue.parse(f"{name}: {words}", names=[name]).lines
    assert (lines[0].speaker, lines[0].text) == (name, words)


PARTS = st.sampled_from(["{{char}}", ":", "\n", "*", "<BOT>", "“", " ", "a", "："])


@settings(max_examples=200)
@given(text=ANY_TEXT | st.lists(PARTS).map("".join))
def test_parsing_anything(text: str) -> None:
    """Whatever the text, it is a dialogue with words in every line, or our error."""
    try:
        dialogue = ExampleDialogue.parse(text, names=["İ", "a"])
    except InvalidInputError:
        return
    assert all(line.text for line in dialogue.lines)

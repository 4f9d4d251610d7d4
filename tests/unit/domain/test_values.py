"""What callers may put into values, and how a bad field is told."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from roleplay import (
    BaseResp,
    Endpoint,
    InvalidInputError,
    Page,
    Persona,
    Sampling,
    SensitiveCategory,
    Sensitivity,
    SessionSettings,
    StoredPersona,
    TurnOptions,
    Usage,
)
from roleplay.domain.values import NAME_LIMIT, TEXT_LIMIT, metadata_of, text_problem

DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (lambda: Persona(""), "name"),
        (lambda: Persona(" \n"), "name"),
        (lambda: Persona("two\nlines"), "name"),
        (lambda: Persona("bell\x07"), "name"),
        (lambda: Persona("a\x7f"), "name"),
        (lambda: Persona("x" * (NAME_LIMIT + 1)), "name"),
        (lambda: Persona("a\ud800"), "name"),
        (lambda: Persona(7), "name"),  # type: ignore[arg-type]
        (lambda: Persona("a", "nul\x00"), "description"),
        (lambda: Persona("a", greetings=["fine", "\ud83d"]), "greetings[1]"),
        (lambda: Persona("a", description="x" * (TEXT_LIMIT + 1)), "description"),
        (lambda: Persona("a", key=" "), "key"),
        (lambda: Persona("a", tags=["fine", ""]), "tags[1]"),
        (lambda: Persona("a", nickname=""), "nickname"),
        (lambda: Persona("a", first_mes="Hi"), "first_mes"),
        (lambda: Persona("a", greetings="Hi"), "greetings"),
        (lambda: Persona("a", examples=["nobody speaks"]), "examples[0]"),
        (lambda: Sampling(temperature=0), "temperature"),
        (lambda: Sampling(temperature=math.nan), "temperature"),
        (lambda: Sampling(temperature="0.5"), "temperature"),  # type: ignore[arg-type]
        (lambda: Sampling(temperature=True), "temperature"),
        (lambda: Sampling(top_p=1.01), "top_p"),
        (lambda: Sampling(max_completion_tokens=0), "max_completion_tokens"),
        (lambda: Sampling(max_completion_tokens=True), "max_completion_tokens"),
        (lambda: Sampling(max_tokens=5), "max_tokens"),  # type: ignore[call-arg]
        (lambda: SessionSettings(budget_tokens=0), "budget_tokens"),
        (lambda: SessionSettings(budget_tokens=1.5), "budget_tokens"),  # type: ignore[arg-type]
        (lambda: TurnOptions(idempotency_key=""), "idempotency_key"),
        (lambda: TurnOptions(idempotency_key="a\ud800"), "idempotency_key"),
    ],
)
def test_a_bad_field_is_named(made: Any, field: str) -> None:
    """A field that is not allowed raises our error, which is a ValueError too and names the field by its path."""
    with pytest.raises(InvalidInputError) as failure:
        made()
    assert isinstance(failure.value, ValueError)
    assert failure.value.field == field
    assert failure.value.__cause__ is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "text",
        [("a", 1)],
        {1: "a"},
        {"a": object()},
        {"a": {1, 2}},
        {"a": b"bytes"},
        {"a": math.nan},
        {"a": math.inf},
        {"a": "\ud800"},
        {"\udfff": 1},
        {"a": DEEP},
        LOOP,
        {"a": datetime.now(UTC)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_metadata_is_json(value: Any) -> None:
    """What cannot be stored as JSON and come back is refused where it is given, wherever metadata is taken."""
    for made in (
        lambda: Persona("a", metadata=value),
        lambda: Persona("a", extensions=value),
        lambda: TurnOptions(metadata=value),
        lambda: metadata_of(value),
    ):
        with pytest.raises(InvalidInputError) as failure:
            made()
        assert failure.value.field in {"metadata", "extensions"}


def test_metadata_is_a_copy_as_it_is_stored() -> None:
    """The caller's own objects are not kept: what they change later changes no value, and tuples are lists at once."""
    mine: dict[str, Any] = {"list": [1], "pair": (1, 2)}
    persona = Persona("a", metadata=mine)
    mine["list"].append(2)
    assert persona.metadata == {"list": [1], "pair": [1, 2]}


def test_values_are_frozen_and_hashable() -> None:
    """No field of a value can be set, and the values that programs use as keys can be keys."""
    persona = Persona("Nova")
    with pytest.raises(ValidationError):
        persona.name = "Nova II"  # type: ignore[misc]
    assert len({Sampling(), Sampling(temperature=0.5), Sampling()}) == 2
    assert len({Endpoint("MiniMax-M2.7"), Endpoint("MiniMax-M2.7")}) == 1


def test_evolve_checks_like_making() -> None:
    """A changed copy is checked as a new value is, and the first stays as it was."""
    persona = Persona("Nova", "A pilot.", tags=["space"])
    older = persona.evolve(description="An old pilot.")
    assert (older.name, older.description, older.tags) == ("Nova", "An old pilot.", ("space",))
    assert persona.description == "A pilot."
    with pytest.raises(InvalidInputError):
        persona.evolve(name="")
    with pytest.raises(InvalidInputError):
        persona.evolve(colour="red")


def test_names_are_trimmed_texts_are_not() -> None:
    """Blanks around a name go, blanks around a text stay, for they may matter there."""
    persona = Persona("  Nova ", "  indented\n")
    assert (persona.name, persona.description) == ("Nova", "  indented\n")


def test_how_many_fields_are_wrong() -> None:
    """The first bad field is named, the others are counted."""
    with pytest.raises(InvalidInputError, match=r"^name: is blank; and 1 more$"):
        Persona("", "a\x00")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", None), ("plain", None), ("🎐 你", None), ("a\x00", "holds a NUL character"), ("ab\ud800", "character 2")],
)
def test_text_problem(text: str, problem: str | None) -> None:
    """Only a NUL and half a character make a text unfit."""
    found = text_problem(text)
    assert found == problem if problem is None else problem in (found or "")


def test_json_of_values_is_stable() -> None:
    """Dumping and reading a value back gives the same value and the same text."""
    persona = Persona("Nova", greetings=["Hi"], examples=["{{char}}: Aye."], metadata={"b": 1, "a": [None, 1.5]})
    text = persona.model_dump_json()
    again = Persona.model_validate_json(text)
    assert again == persona
    assert again.model_dump_json() == text


def test_times_are_utc() -> None:
    """A time of any zone is kept in UTC; one without a zone is refused."""
    noon = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=8)))
    stored = StoredPersona(id="1", version=1, persona=Persona("a"), created_at=noon)
    assert stored.created_at.isoformat() == "2026-05-01T04:00:00+00:00"
    with pytest.raises(ValidationError):
        StoredPersona(id="1", version=1, persona=Persona("a"), created_at=datetime(2026, 5, 1))  # noqa: DTZ001


def test_a_page_is_walked_and_measured() -> None:
    """A page is an iterable of its items with a length."""
    page: Page[int] = Page(items=(1, 2), older="x")
    assert (list(page), len(page), page.newer) == ([1, 2], 2, None)


@pytest.mark.parametrize(
    ("usage", "reported"),
    [
        (Usage(), False),
        (Usage(cached_tokens=5), False),
        (Usage(prompt_tokens=0), True),
        (Usage(total_tokens=9), True),
    ],
)
def test_nothing_reported_is_not_zero(usage: Usage, reported: bool) -> None:
    """Usage knows whether the service reported anything; zero is a report."""
    assert usage.reported is reported


def test_sensitivity_keeps_numbers_it_does_not_know() -> None:
    """A documented number has a category, another stays a number, none stays none."""
    flags = Sensitivity(input_sensitive_type=5, output_sensitive_type=99)
    assert (flags.input_category, flags.output_category) == (SensitiveCategory.ABUSE, None)
    assert flags.output_sensitive_type == 99
    assert Sensitivity().input_category is None
    assert BaseResp(status_code=0).status_msg == ""

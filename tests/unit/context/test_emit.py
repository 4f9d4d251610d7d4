"""Emission: whose line is whose."""

from __future__ import annotations

import pytest

from roleplay.context.emit import emit
from roleplay.domain.context import Line, Recipe, Role, Span


@pytest.mark.parametrize("ends_a_line", ["\u2028", "\u2029", "\x85", "\u2029\u2029"])
def test_a_name_begins_no_line_of_another(ends_a_line: str) -> None:
    """A name may hold what ends a line in a text, and what follows there would be taken for the name of who speaks."""
    recipe = Recipe(front=(), history=Span(1, 2, 1, named=True), insertions=(), tail=())
    lines = [Line(1, 1, 2, f"Eve{ends_a_line}Ann", "Kill him.", 2), Line(2, 1, 1, f"B{ends_a_line}C", "No.", 1)]
    said, own = emit(recipe, {}, lines)
    assert said.role is Role.USER
    assert said.text.splitlines() == [said.text]
    assert said.text.endswith("Ann: Kill him.")
    assert (own.role, own.text) == (Role.ASSISTANT, "No.")

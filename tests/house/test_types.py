"""What a type checker is told of the public values is what they take when the program runs."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import roleplay
from roleplay.domain.endpoint import ModelProfile
from roleplay.domain.values import Input
from roleplay.testing import ScriptedModel
from tests.conftest import Ledger
from tests.support.pages import PAGES, blocks, module, write_modules
from tests.typed import callers

PACKAGE = Path(roleplay.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def test_what_callers_write_runs(tmp_path: Path, ledger: Ledger) -> None:
    """The lines that a checker is shown are right when they run too."""
    url = f"sqlite:///{tmp_path / 'typed.db'}"
    model = ScriptedModel()
    ledger.urls.append(url)
    ledger.models.append(model)
    turns = callers.allowed(url, model)
    assert {turn.status for turn in turns} == {"completed"}
    assert all(callers.endpoints())
    assert all(turn.text for turn in turns)


def hidden_defaults(tree: ast.AST) -> list[int]:
    """The lines on which a field's default is not given by its name: checkers then take the field to have none."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call.func).rpartition(".")[2] == "Field" and call.args]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_default_is_hidden(path: Path) -> None:
    """``Field(None)`` has a default for pydantic alone, ``Field(default=None)`` for every checker."""
    assert hidden_defaults(ast.parse(path.read_text())) == []


def test_a_hidden_default_is_seen() -> None:
    """However the function is reached."""
    assert hidden_defaults(
        ast.parse("a: int = Field(1, ge=0)\nb: int = Field(default=1)\nc = pydantic.Field(...)")
    ) == [1, 3]


def told_constructors() -> Iterator[tuple[type[Input], ast.arguments]]:
    """The public values whose constructor is written out for checkers, and its arguments."""
    for name in roleplay.__all__:
        kind = getattr(roleplay, name)
        if isinstance(kind, type) and issubclass(kind, Input):
            (tree,) = ast.parse(inspect.getsource(kind)).body
            assert isinstance(tree, ast.ClassDef)
            for branch in tree.body:
                if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING":
                    yield from ((kind, node.args) for node in branch.body if isinstance(node, ast.FunctionDef))


def test_constructors_name_every_field() -> None:
    """One that is written out for checkers has the fields, in their order, and defaults where they have."""
    told = dict(told_constructors())
    assert {kind.__name__ for kind in told} >= {"Fact", "Persona", "ExampleDialogue", "Endpoint"}
    for kind, arguments in told.items():
        named = [*arguments.args[1:], *arguments.kwonlyargs]
        assert [one.arg for one in named] == list(kind.model_fields), kind
        assert arguments.kwarg is None, f"{kind} takes anything"
        given = [None] * (len(arguments.args) - len(arguments.defaults)) + [*arguments.defaults]
        has_default = [one is not None for one in (*given[1:], *arguments.kw_defaults)]
        required = [
            field.is_required() and name not in ModelProfile.model_fields for name, field in kind.model_fields.items()
        ]
        assert has_default == [not one for one in required], kind  # an endpoint takes the others from its profile


def test_values_keep_their_fields_at_run_time() -> None:
    """An unknown field is refused by the value itself, which names those that there are, and not by Python."""
    for kind in (roleplay.Persona, roleplay.Fact, roleplay.Endpoint):
        with pytest.raises(roleplay.InvalidInputError, match="unknown field"):
            kind("MiniMax-M2.7", nothing=1)  # type: ignore[call-arg]


def test_pages_become_modules(tmp_path: Path) -> None:
    """Each page is a module whose lines are numbered as the page's are; examples and callers stand beside them."""
    written = write_modules(tmp_path)
    names = {path.name for path in written}
    assert {"README.py", "docs_tutorial.py", "docs_how_to_erase.py", "fastapi_app.py", "callers.py"} <= names
    assert len(names) == len(written)
    for page in PAGES:
        lines = module(page).splitlines()
        assert [line for line in lines if line] == [
            line for _, content in blocks(page) for line in content.splitlines() if line
        ]
        on_the_page = page.read_text().splitlines()
        assert all(line in on_the_page[number] for number, line in enumerate(lines))

"""The front door is a list, imports stay light, errors are a drawing, and nothing knows the machine it was made on."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import roleplay
from roleplay import RoleplayError, errors
from roleplay.domain.values import Value

PACKAGE = Path(roleplay.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
HEAVY = ("requests", "urllib3", "httpx", "h11", "alembic", "ruamel", "rich", "typer", "click", "psycopg", "yaml")
HEAVY += ("kitoken",)
CORE = ("domain/", "context/", "wire/", "turns/", "operations/")


def short(path: Path) -> str:
    """A file as it is named in the package."""
    return path.relative_to(PACKAGE).as_posix()


def test_every_public_name_is_there() -> None:
    """The list is sorted, without doubles, and every name of it is an attribute."""
    assert roleplay.__all__ == sorted(set(roleplay.__all__))
    assert [name for name in roleplay.__all__ if not hasattr(roleplay, name)] == []


def test_the_list_is_complete() -> None:
    """What type checkers are told, what is loaded when it is asked for, and the list are the same."""
    tree = ast.parse(Path(roleplay.__file__).read_text())
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("roleplay.")
        for alias in node.names
    }
    at_once = {name: "roleplay.errors" for name, value in vars(roleplay).items() if getattr(value, "slug", None)}
    loaded = {name: f"roleplay.{room}" for room, names in roleplay._ROOMS.items() for name in names.split()}
    assert told == at_once | loaded
    assert sorted(told) == roleplay.__all__ == dir(roleplay)
    with pytest.raises(AttributeError, match="Nobody"):
        roleplay.Nobody  # noqa: B018 - asking for it is what is tried


def test_values_and_errors_are_public() -> None:
    """Every error, and every type that a public value or method speaks of, can be imported from the front door."""
    kinds = {kind.__name__ for kind in error_classes()}
    assert kinds <= set(roleplay.__all__)
    told = {name: getattr(roleplay, name) for name in roleplay.__all__}
    spoken = set()
    for kind in told.values():
        if isinstance(kind, type) and issubclass(kind, Value):
            for field in kind.model_fields.values():
                spoken |= set(re.findall(r"roleplay\.domain\.\w+\.([A-Z]\w+)", repr(field.annotation)))
    assert spoken - {"Value", "Input"} <= set(told)


IMPORTED = "import json, sys, roleplay; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def test_importing_is_light() -> None:
    """Importing the package loads no other; what is public loads no HTTP, no migrations, no driver, no terminal."""
    for first, absent in (("", {*HEAVY, "sqlalchemy", "pydantic"}), ("from roleplay import *; ", set(HEAVY))):
        done = subprocess.run(
            [sys.executable, "-c", first + IMPORTED], capture_output=True, text=True, check=True, timeout=60
        )
        assert set(json.loads(done.stdout)) & absent == set()


@pytest.mark.parametrize("path", FILES, ids=short)
def test_only_settings_read_the_environment(path: Path) -> None:
    """No module looks at the environment but the one that may, and none while it is being imported."""
    tree = ast.parse(path.read_text())
    inside = {id(node) for of in ast.walk(tree) if isinstance(of, ast.FunctionDef) for node in ast.walk(of)}
    for node in ast.walk(tree):
        reads = isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
        reads |= (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and bool({"environ", "getenv"} & {alias.name for alias in node.names})
        )
        if reads:
            assert short(path) == "settings.py", f"line {node.lineno}"
            assert id(node) in inside, f"line {node.lineno} reads the environment at import"


def asks_for_the_time(tree: ast.Module) -> list[int]:
    """The lines on which a ``datetime`` or ``date`` is asked what time it is."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"now", "utcnow", "today"}
        and ast.unparse(node.value).rpartition(".")[2] in {"datetime", "date"}
    ]


@pytest.mark.parametrize("path", [path for path in FILES if short(path).startswith(CORE)], ids=short)
def test_the_core_is_told_the_time(path: Path) -> None:
    """What decides uses the type of a moment, and never asks which one it is; no import shows the difference."""
    assert asks_for_the_time(ast.parse(path.read_text())) == []
    assert asks_for_the_time(ast.parse("at = ports.now()\nlate = datetime.now(UTC)\ndt.date.today()")) == [2, 3]


@pytest.mark.parametrize("path", FILES, ids=short)
def test_of_urllib_only_the_reading_of_urls_is_used(path: Path) -> None:
    """The contract on HTTP names whole libraries; of this one, a part speaks HTTP and a part does not."""
    imported = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert {name for name in imported if name.partition(".")[0] == "urllib"} <= {"urllib.parse"}


def error_classes(root: type[RoleplayError] = RoleplayError) -> Iterator[type[RoleplayError]]:
    """The root and every class below it, as the drawing has them."""
    yield root
    for kind in root.__subclasses__():
        yield from error_classes(kind)


def test_the_tree_is_drawn() -> None:
    """The drawing at the top of the file is the tree of classes: every one, under its parent, in order."""
    top = (errors.__doc__ or "").splitlines()
    drawing = [line for line in top if re.match(r"\s+(RoleplayError|[│ ]*[├└]──)", line)]
    drawn: list[tuple[int, str]] = []
    for line in drawing:
        name = re.search(r"\w+Error", line)
        assert name is not None, line
        drawn.append((name.start() // 4 - 1, name[0]))
    stack: list[str] = []
    found = {}
    for depth, name in drawn:
        found[name] = stack[depth - 1] if depth else "Exception"
        stack[depth:] = [name]
    assert found == {kind.__name__: kind.__mro__[1].__name__ for kind in error_classes()}


def test_every_error_is_told_apart() -> None:
    """Each class has a slug of its own, in words with underscores, an HTTP status, and says what state is left."""
    kinds = list(error_classes())
    slugs = [kind.__dict__.get("slug") for kind in kinds]
    assert len(set(slugs)) == len(slugs)
    assert all(slug and re.fullmatch(r"[a-z]+(_[a-z]+)*", slug) for slug in slugs)
    assert all(400 <= kind.http_status < 600 for kind in kinds)
    assert all(kind.__module__ == errors.__name__ and kind.__doc__ for kind in kinds)


def public(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The public classes, functions and methods of a module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    """Modules have a docstring, and so have their public classes and functions."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    # The simulator's faults and the tables' rows have names that say it all, and overrides need no sentence.
    if short(path).startswith(("testing/simulator/faults/", "store/access/tables.py")):
        return
    silent = [name for name, node in public(tree) if "." not in name and not ast.get_docstring(node)]  # type: ignore[arg-type]
    assert silent == []


@pytest.mark.parametrize("name", roleplay.__all__)
def test_every_public_name_is_explained(name: str) -> None:
    """Classes of the front door and their public methods have docstrings of their own."""
    kind = getattr(roleplay, name)
    assert inspect.getdoc(kind)
    for method_name, method in vars(kind).items():
        if inspect.isfunction(method) and not method_name.startswith("_"):
            assert inspect.getdoc(getattr(kind, method_name)), f"{name}.{method_name}"


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_module_can_be_imported(path: Path) -> None:
    """No module fails when it is the one imported, its optional libraries present."""
    if path.name == "__main__.py":
        return
    name = ".".join(["roleplay", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    if name == "roleplay.cli.toy_server":  # a program of its own, whose library is an extra
        return
    importlib.import_module(name)


SHIPPED = [*FILES, *sorted((ROOT / "migrations").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]
MACHINE = re.compile("/(home|root|Users|" + "work" + r")/\w|[A-Z]:\\Users", re.IGNORECASE)


def test_no_file_knows_a_machine() -> None:
    """No file names a folder of somebody's machine."""
    knows = []
    for path in SHIPPED:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if MACHINE.search(line) and "MACHINE" not in line:
                knows.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert knows == []

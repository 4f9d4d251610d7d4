"""Recipe versions: the bytes of each stay what they were, and new calls get the newest."""

from __future__ import annotations

from functools import partial

import pytest

from roleplay.context import builder
from roleplay.domain.context import ContextMessage
from roleplay.domain.endpoint import Dialect
from roleplay.turns import plan
from roleplay.wire.recipes import CURRENT, RECIPE_VERSION, VERSIONS, RecipeVersion
from tests.support.recipes import CONTEXTS, KEPT, changes, kept


@pytest.mark.parametrize("number", VERSIONS)
def test_the_bytes_of_a_version_stay(number: int) -> None:
    """Every context gives the request that it gave when the version was new, in every dialect that it knows."""
    changed = list(changes(number))
    assert not changed, f"give the change a new RECIPE_VERSION; other bytes come of: {'; '.join(changed)}"


def test_every_version_is_kept() -> None:
    """A version that was is there for ever, and the newest one is what new calls get."""
    assert sorted(path.stem for path in KEPT.glob("version_*.json")) == sorted(f"version_{one}" for one in VERSIONS)
    assert list(VERSIONS) == list(range(1, RECIPE_VERSION + 1))
    assert all(list(named) == list(CONTEXTS) for named in kept(RECIPE_VERSION).values())


def test_what_is_built_is_what_is_rebuilt() -> None:
    """Contexts are built with the emission of the newest version, and written as it writes them."""
    assert builder.emit is VERSIONS[RECIPE_VERSION].emit
    assert plan.CURRENT is CURRENT is VERSIONS[RECIPE_VERSION]


def test_a_change_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version, dialect and context are named when bytes change, and a dialect that a version does not know."""

    def louder(write: object, dialect: Dialect, messages: list[ContextMessage], *, named: bool) -> list[dict[str, str]]:
        written = write(dialect, messages, named=named)  # type: ignore[operator]
        return [one | {"content": one["content"].replace("Go.", "Go!")} for one in written]

    changed = RecipeVersion(CURRENT.emit, partial(louder, CURRENT.write), CURRENT.dialects - {Dialect.OPENAI})
    monkeypatch.setitem(VERSIONS, 1, changed)  # type: ignore[arg-type]
    told = list(changes(1))
    assert "recipe version 1, dialect minimax, context 'every section'" in told
    assert "recipe version 1 and its file differ about whether it knows the dialect openai" in told
    assert not any("'front alone'" in one for one in told)

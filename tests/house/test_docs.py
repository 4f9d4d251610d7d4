"""The documentation's examples run."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from roleplay.testing import ScriptedModel, Simulator
from tests.conftest import Ledger

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if "```python" in path.read_text())


def test_there_are_pages() -> None:
    """The pages that promise to run are found."""
    names = {path.name for path in PAGES}
    assert {"README.md", "tutorial.md", "test-your-bot.md", "choose-a-model.md"} <= names
    assert {"branches-and-retries.md", "asyncio.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_runs(
    page: Path, tmp_path: Path, simulator: Simulator, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python blocks of a page run one after the other in one namespace, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLEPLAY_BASE_URL", simulator.base_url)
    monkeypatch.setenv("ROLEPLAY_API_KEY", simulator.api_key)
    blocks = [
        token
        for token in MarkdownIt().parse(page.read_text())
        if token.type == "fence" and token.info.split()[:1] == ["python"]
    ]
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks:
        assert block.map is not None
        padding = "\n" * (block.map[0] + 1)  # so that a trace names the line of the page
        exec(compile(padding + block.content, str(page), "exec"), namespace)
    ledger.urls += [f"sqlite:///{path}" for path in tmp_path.glob("*.db")]
    ledger.simulators += [one for one in namespace.values() if isinstance(one, Simulator)]
    ledger.models += [one for one in namespace.values() if isinstance(one, ScriptedModel)]

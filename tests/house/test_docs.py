"""The documentation's examples run, and what it points to is there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from roleplay.testing import ScriptedModel, Simulator
from tests.conftest import Ledger
from tests.support.pages import PAGES, ROOT, blocks


def test_there_are_pages() -> None:
    """The pages that promise to run are found."""
    names = {path.name for path in PAGES}
    assert {"README.md", "tutorial.md", "test-your-bot.md", "choose-a-model.md"} <= names
    assert {"branches-and-retries.md", "asyncio.md", "personas-in-git.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_runs(
    page: Path, tmp_path: Path, simulator: Simulator, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python blocks of a page run one after the other in one namespace, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests/data/tokenizers/small_bpe.json", "tokenizer.json")  # what a reader has from the model
    monkeypatch.setenv("ROLEPLAY_BASE_URL", simulator.base_url)
    monkeypatch.setenv("ROLEPLAY_API_KEY", simulator.api_key)
    monkeypatch.setenv("ROLEPLAY_DIALECT", "minimax")
    namespace: dict[str, object] = {"__name__": "__docs__"}
    models: dict[int, ScriptedModel] = {}  # a later block may give another one the same name
    for start, content in blocks(page):
        padding = "\n" * start  # so that a trace names the line of the page
        exec(compile(padding + content, str(page), "exec"), namespace)
        models |= {id(one): one for one in namespace.values() if isinstance(one, ScriptedModel)}
    ledger.urls += [f"sqlite:///{path}" for path in tmp_path.glob("*.db") if is_plain(path)]
    ledger.simulators += [one for one in namespace.values() if isinstance(one, Simulator)]
    ledger.models += models.values()


def is_plain(path: Path) -> bool:
    """Whether a page has left a database that can be read without a key."""
    return path.read_bytes().startswith(b"SQLite")


WRITTEN = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")))
FILE = re.compile(r"[\w.-]+\.(py|md|toml|ini|txt|json|jsonl|sse)")
INVENTED = {"0002_what_it_does.py", "tokenizer.json"}  # how a file would be called


def pointed_to(page: Path) -> set[str]:
    """What a page links to beside it, and the words in its code that look like files or folders of the checkout."""
    found = set()
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        for inline in token.children or []:
            if inline.type == "link_open" and "://" not in str(inline.attrs["href"]):
                found.add(str(inline.attrs["href"]).partition("#")[0])
            if inline.type == "code_inline":
                found |= {word for word in inline.content.split() if is_path(page, word)}
    return found - INVENTED


def is_path(page: Path, word: str) -> bool:
    """Whether a word names a file, or something in a folder that is there; databases are the reader's."""
    folder, inside, _ = word.partition("/")
    of_ours = inside and folder and any((base / folder).is_dir() for base in (ROOT, page.parent))
    return FILE.fullmatch(word) is not None or bool(of_ours and not word.endswith(".db"))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page: Path) -> None:
    """Files, folders and pages that are named stand where the page says: beside it or in the checkout."""
    found = pointed_to(page)
    assert [name for name in sorted(found) if not any((base / name).exists() for base in (page.parent, ROOT))] == []


def test_the_way_of_a_line_names_a_file_at_every_step() -> None:
    """Each step of the walk begins with its file; that all of them are there is checked with the other pages."""
    page = ROOT / "docs" / "the-way-of-a-line.md"
    steps = re.findall(r"^\d+\. (.*)$", page.read_text(), re.MULTILINE)
    assert page in WRITTEN
    assert len(steps) > 10
    assert [step for step in steps if not re.match(r"`roleplay/[\w/]+\.py`: ", step)] == []


def test_a_dead_path_is_seen(tmp_path: Path) -> None:
    """Each way to point somewhere counts."""
    page = tmp_path / "page.md"
    page.write_text("`roleplay/gone.py`, `python3 gone.py chat`, [there](gone.md#x), `docs/`, `POST /v1/chat`, `a/b`")
    assert pointed_to(page) == {"roleplay/gone.py", "gone.py", "gone.md", "docs/"}

"""The Python of the documentation, page by page: it is run by the tests, and checked for types as a user's own code.

``python -m tests.support.pages FOLDER`` writes each page as a module into a folder, with the examples and what callers
write beside them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if "```python" in path.read_text())
#: What is code already: the examples, and what callers write.
CODE = sorted((*ROOT.glob("examples/*.py"), *ROOT.glob("tests/typed/*.py")))


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """The Python blocks of a page, and on which of its lines each begins, counted from 0."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence" and token.info.split()[:1] == ["python"]:
            assert token.map is not None
            yield token.map[0] + 1, token.content


def module(page: Path) -> str:
    """The blocks of a page as one module, in which each line has the number that it has on the page."""
    lines: list[str] = []
    for start, content in blocks(page):
        lines += [""] * (start - len(lines))
        lines += content.splitlines()
    return "\n".join(lines) + "\n"


def write_modules(folder: Path) -> list[Path]:
    """Write every page as a module, and the code; ``docs/how-to/erase.md`` becomes ``docs_how_to_erase.py``."""
    written = []
    for page in PAGES:
        name = "_".join(page.relative_to(ROOT).with_suffix("").parts).replace("-", "_")
        written.append(folder / f"{name}.py")
        written[-1].write_text(module(page))
    return written + [Path(shutil.copy(path, folder)) for path in CODE]


if __name__ == "__main__":
    write_modules(Path(sys.argv[1]))

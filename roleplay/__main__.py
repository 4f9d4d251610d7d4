"""``python -m roleplay``: the command line, where no script is on the path."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from roleplay.cli.main import main


def called_as() -> str:
    """Give what was typed before the command's own arguments; a Python on the path by its name alone."""
    typed, *options = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])]
    name = Path(typed).name
    return shlex.join([name if shutil.which(name) else typed, *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], called_as()))

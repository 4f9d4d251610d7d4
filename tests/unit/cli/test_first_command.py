"""What CI refuses in the replies of the first command."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

CHECKS: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[3] / ".ci" / "first_command.py"))


@pytest.mark.parametrize("reply", ["Soup, or trouble?", "你好，世界。好好好！", "no no no no no no", "好" * 6])
def test_a_reply_with_words_is_taken(reply: str) -> None:
    """In any script; a word may be said six times."""
    assert CHECKS["problem_with"](reply) is None


@pytest.mark.parametrize("reply", ["", " \n", "...", "No, no no no no no NO", "好" * 8, "ああああああああ", "a " * 7])
def test_silence_and_babble_are_refused(reply: str) -> None:
    """A Chinese or Japanese character is a word of its own."""
    assert CHECKS["problem_with"](reply)


def test_a_reply_that_is_no_text_is_refused() -> None:
    """A turn without a reply has null there, which is not the word None."""
    assert CHECKS["reply_in"]('{"reply": "None of us."}\n') == "None of us."
    with pytest.raises(SystemExit):
        CHECKS["reply_in"]('{"reply": null}\n')

"""The words that the engine itself sends, one file per language."""

from __future__ import annotations

import re
from collections.abc import Mapping

from roleplay.context.languages.en import EN
from roleplay.context.languages.ja import JA
from roleplay.context.languages.words import Words
from roleplay.context.languages.zh import ZH

__all__ = ["LANGUAGES", "Words", "language_of"]

LANGUAGES: Mapping[str, Words] = {"en": EN, "zh": ZH, "ja": JA}
_KANA = re.compile("[\u3040-\u30ff]")
_HAN = re.compile("[\u4e00-\u9fff]")


def language_of(text: str) -> str:
    """Give the language of ``text``, judged by its script: ``ja``, ``zh``, else ``en``."""
    if _KANA.search(text):
        return "ja"
    return "zh" if _HAN.search(text) else "en"

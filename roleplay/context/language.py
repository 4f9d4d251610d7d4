"""The words that the engine itself sends, one set per language."""

from __future__ import annotations

import re
from typing import NamedTuple

_KANA = re.compile("[\u3040-\u30ff]")
_HAN = re.compile("[\u4e00-\u9fff]")


class Words(NamedTuple):
    """``go_on`` asks for the rest of a reply that was cut off."""

    go_on: str


EN = Words(go_on="[Go on exactly where your last message stops. Repeat none of it.]")
ZH = Words(go_on="[请从你上一条消息中断的地方接着说，不要重复已经说过的内容。]")
JA = Words(go_on="[あなたの直前の発言が途切れたところから、繰り返さずに続けてください。]")


def words_for(text: str) -> Words:
    """Give the words in the language of ``text``, judged by its script."""
    if _KANA.search(text):
        return JA
    return ZH if _HAN.search(text) else EN

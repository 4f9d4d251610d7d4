"""Counting tokens: what a counter is, and the estimate that needs no vocabulary."""

from __future__ import annotations

import re
from math import ceil
from typing import Protocol

# Tokens per character. Published measurements of the vendor's models: 0.22 to 0.28 for English, 0.57 for Chinese; each
# figure here lies above, since an estimate that is too low breaks the budget and one that is too high only wastes some.
ASCII_TOKENS = 1 / 3.4
CJK_TOKENS = 0.65
_OTHER = 0.6
_ASTRAL = 2.5
_CJK_CHARS = re.compile("[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
_ASTRAL_CHARS = re.compile("[\U00010000-\U0010ffff]")
_ASCII_CHARS = re.compile("[\x00-\x7f]")


class Counter(Protocol):
    """Counts the tokens of bare text. ``name`` is stored with every count; ``exact`` says whether it is an estimate."""

    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    def count(self, text: str) -> int:
        """Give the tokens of ``text``: 0 for no text, deterministic."""
        ...

    def __hash__(self) -> int: ...


class EstimatingCounter:
    """Estimates tokens by script, on the safe side, without a vocabulary."""

    name = "estimate-1"
    exact = False

    def count(self, text: str) -> int:
        """Estimate the tokens of ``text``; linear in its length."""
        if text.isascii():
            return ceil(len(text) * ASCII_TOKENS)
        ascii_chars = len(_ASCII_CHARS.findall(text))
        cjk = len(_CJK_CHARS.findall(text))
        astral = len(_ASTRAL_CHARS.findall(text))
        other = len(text) - ascii_chars - cjk - astral
        return ceil(ascii_chars * ASCII_TOKENS + cjk * CJK_TOKENS + astral * _ASTRAL + other * _OTHER)

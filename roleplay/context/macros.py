"""Macros: names that stand in a persona's texts until they are rendered."""

from __future__ import annotations

import re

_KNOWN = re.compile(r"\{\{\s*(char|user)\s*\}\}|<(user|bot|char)>", re.IGNORECASE)


def expand(text: str, *, char: str, user: str) -> str:
    """Replace ``{{char}}`` and ``{{user}}`` (``<BOT>``, ``<CHAR>``, ``<USER>``; any case); leave every other brace."""

    def name(found: re.Match[str]) -> str:
        return user if (found[1] or found[2]).lower() == "user" else char

    return _KNOWN.sub(name, text)

"""Macros: names that stand in a persona's texts until they are rendered."""

from __future__ import annotations

import re
from datetime import datetime

_KNOWN = re.compile(r"\{\{\s*(char|user)\s*\}\}|<(user|bot|char)>", re.IGNORECASE)
_MOMENT = re.compile(r"\{\{\s*(date|time)\s*\}\}", re.IGNORECASE)


def expand(text: str, *, char: str, user: str) -> str:
    """Replace ``{{char}}`` and ``{{user}}`` (``<BOT>``, ``<CHAR>``, ``<USER>``; any case); leave every other brace."""

    def name(found: re.Match[str]) -> str:
        return user if (found[1] or found[2]).lower() == "user" else char

    return _KNOWN.sub(name, text)


def expand_moment(text: str, moment: datetime) -> str:
    """Replace ``{{date}}`` (2026-05-01) and ``{{time}}`` (21:30), any case, by those of ``moment`` in its time zone."""
    return _MOMENT.sub(lambda found: f"{moment:%H:%M}" if found[1].lower() == "time" else f"{moment:%Y-%m-%d}", text)

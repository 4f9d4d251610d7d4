"""Courses that only read a session."""

from __future__ import annotations

from roleplay.domain.conversation import SessionInfo, Turn
from roleplay.domain.page import PAGE_LIMIT, Page
from roleplay.errors import InvalidInputError
from roleplay.store import sessions, transcript
from roleplay.turns.effects import Steps, read
from roleplay.turns.scene import Scene


def info(scene: Scene) -> Steps[SessionInfo]:
    """Read the session as it stands."""
    return (yield from read(lambda db: sessions.get(db, scene.tenant, scene.session_id)))


def turns(scene: Scene, before: str | None, limit: int) -> Steps[Page[Turn]]:
    """Read a page of the active path."""
    check_limit(limit)
    return (yield from read(lambda db: transcript.page(db, scene.tenant, scene.session_id, before=before, limit=limit)))


def turn(scene: Scene, turn_id: str) -> Steps[Turn]:
    """Read one turn."""
    return (yield from read(lambda db: transcript.by_id(db, scene.tenant, scene.session_id, turn_id)))


def check_limit(limit: int) -> None:
    """Raise ``InvalidInputError`` for a page of no size or a page too large."""
    if not 1 <= limit <= PAGE_LIMIT:
        raise InvalidInputError("limit", f"is {limit}", allowed=f"1 to {PAGE_LIMIT}")

"""Courses that only read a session."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.domain.conversation import SessionInfo, Turn
from roleplay.domain.guards import StoredVerdict
from roleplay.domain.page import PAGE_LIMIT, Page
from roleplay.errors import InvalidInputError, NotFoundError
from roleplay.store import sessions, transcript
from roleplay.store import verdicts as stored_verdicts
from roleplay.turns.effects import Steps, read
from roleplay.turns.scene import Scene


def info(scene: Scene) -> Steps[SessionInfo]:
    """Read the session as it stands."""
    return (yield from read(lambda db: sessions.get(db, scene.tenant, scene.session_id)))


def turns(scene: Scene, before: str | None, limit: int) -> Steps[Page[Turn]]:
    """Read a page of the active path."""
    check_limit(limit)
    return (yield from read(lambda db: transcript.page(db, scene.tenant, scene.session_id, before=before, limit=limit)))


def verdicts(scene: Scene, turn_id: str) -> Steps[Sequence[StoredVerdict]]:
    """Read what guards said of a turn."""
    return (yield from read(lambda db: stored_verdicts.of_turn(db, scene.tenant, scene.session_id, turn_id)))


def turn(scene: Scene, turn_id: str | int) -> Steps[Turn]:
    """Read one turn, by its id or its number."""
    place = scene.tenant, scene.session_id
    if isinstance(turn_id, str):
        return (yield from read(lambda db: transcript.by_id(db, *place, turn_id)))
    found = yield from read(lambda db: transcript.path(db, *place, from_turn=turn_id, limit=1))
    if not found:
        raise NotFoundError("turn", str(turn_id))
    return found[0]


def check_limit(limit: object) -> None:
    """Raise ``InvalidInputError`` for a page of no size or a page too large."""
    if not isinstance(limit, int) or not 1 <= limit <= PAGE_LIMIT:
        raise InvalidInputError("limit", f"is {limit!r}", allowed=f"1 to {PAGE_LIMIT}")

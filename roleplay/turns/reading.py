"""Operations that only read a session."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.domain.conversation import SessionInfo, Turn
from roleplay.domain.guards import StoredVerdict
from roleplay.domain.page import Page
from roleplay.errors import NotFoundError
from roleplay.store import Connection
from roleplay.store.records import sessions, transcript
from roleplay.store.records import verdicts as stored_verdicts
from roleplay.turns.arguments import number, page_limit, turn_key
from roleplay.turns.effects import Read
from roleplay.turns.scope import SessionScope


def info(scope: SessionScope) -> Read[SessionInfo]:
    """Read the session as it stands."""
    return Read("session", lambda db: sessions.get(db, scope.tenant, scope.session_id))


def turns(scope: SessionScope, before: str | None, limit: int) -> Read[Page[Turn]]:
    """Read a page of the active path."""
    page_limit(limit)
    return Read("page", lambda db: transcript.page(db, scope.tenant, scope.session_id, before=before, limit=limit))


def verdicts(scope: SessionScope, turn_id: str) -> Read[Sequence[StoredVerdict]]:
    """Read what guards said of a turn."""
    key, place = turn_key(turn_id), (scope.tenant, scope.session_id)

    def work(db: Connection) -> Sequence[StoredVerdict]:
        found = stored_verdicts.of_turn(db, *place, key)
        if not found:
            transcript.by_id(db, *place, key)  # nothing was said of a turn that is there
        return found

    return Read("verdicts", work)


def turn(scope: SessionScope, turn_id: str | int) -> Read[Turn]:
    """Read one turn, by its id or its number."""
    if not isinstance(turn_id, int):
        key = turn_key(turn_id)
        return Read("turn", lambda db: transcript.by_id(db, *scope.place, key))
    seq = number("turn_id", turn_id, 0)

    def work(db: Connection) -> Turn:
        found = transcript.path(db, *scope.place, from_turn=seq, limit=1)
        if not found:
            raise NotFoundError("turn", str(turn_id))
        return found[0]

    return Read("turn", work)

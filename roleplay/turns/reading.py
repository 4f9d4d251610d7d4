"""Operations that only read a session."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.domain.conversation import SessionInfo, Turn
from roleplay.domain.guards import StoredVerdict
from roleplay.domain.page import Page
from roleplay.store import Connection
from roleplay.store.records import sessions, transcript
from roleplay.store.records import verdicts as stored_verdicts
from roleplay.turns.arguments import number, page_limit, turn_key
from roleplay.turns.effects import Read
from roleplay.turns.scope import SessionScope, viewer_in


def info(scope: SessionScope) -> Read[SessionInfo]:
    """Read the session as it stands."""
    return Read("session", lambda db: info_in(scope, db))


def info_in(scope: SessionScope, db: Connection) -> SessionInfo:
    """Read the session as it stands in a transaction, as far as the scope's seat may see it: it stands on the last turn
    that the seat may see, and who owns what, the metadata and the facts are others'."""
    found = sessions.get(db, *scope.place)
    viewer = viewer_in(scope, db)
    if viewer is None:
        return found
    position = sessions.position(db, *scope.place)
    seq = transcript.last_seen(db, *scope.place, position.head_turn, viewer)
    last = None if seq is None else transcript.by_seq(db, *scope.place, seq, viewer)
    tip = None if last is None else last.reply or last.human
    own = {one.owner for one in found.cast if one.seat == viewer.seat}
    return found.model_copy(
        update={
            "owner": found.owner if found.owner in own else None,
            "settings": found.settings.evolve(facts=()),
            "cast": tuple(
                one if one.seat == viewer.seat else one.model_copy(update={"owner": None}) for one in found.cast
            ),
            "metadata": {},
            "head_seq": None if tip is None else tip.seq,
            "last_turn_at": found.created_at if last is None else last.created_at,
        }
    )


def turns(scope: SessionScope, before: str | None, limit: int) -> Read[Page[Turn]]:
    """Read a page of the active path."""
    page_limit(limit)

    def work(db: Connection) -> Page[Turn]:
        return transcript.page(db, *scope.place, before=before, limit=limit, viewer=viewer_in(scope, db))

    return Read("page", work)


def verdicts(scope: SessionScope, turn_id: str) -> Read[Sequence[StoredVerdict]]:
    """Read what guards said of a turn."""
    key = turn_key(turn_id)

    def work(db: Connection) -> Sequence[StoredVerdict]:
        viewer = viewer_in(scope, db)
        found = stored_verdicts.of_turn(db, *scope.place, key, viewer)
        if not found:
            transcript.by_id(db, *scope.place, key, viewer)  # nothing was said of a turn that is there
        return found

    return Read("verdicts", work)


def turn(scope: SessionScope, turn_id: str | int) -> Read[Turn]:
    """Read one turn, by its id or its number."""
    if not isinstance(turn_id, int):
        key = turn_key(turn_id)
        return Read("turn", lambda db: transcript.by_id(db, *scope.place, key, viewer_in(scope, db)))
    seq = number("turn_id", turn_id, 0)
    return Read("turn", lambda db: transcript.by_seq(db, *scope.place, seq, viewer_in(scope, db)))

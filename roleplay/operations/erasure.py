"""The operation of an erasure: what is meant, whether it may go, and its going, one session after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

from roleplay.domain.erasure import Counts, Files, Receipt
from roleplay.domain.values import KEY_LIMIT
from roleplay.errors import ConflictError, InvalidInputError, RoleplayError
from roleplay.operations import casts
from roleplay.store import Connection
from roleplay.store.records import recovery, revisions, sessions
from roleplay.store.upkeep import erasure
from roleplay.store.upkeep.erasure import By, Erased, Selection
from roleplay.turns.arguments import label, moment
from roleplay.turns.effects import Steps, Wipe, read, write
from roleplay.turns.in_flight import is_lost
from roleplay.turns.scope import TenantScope

AT_ONCE = 50  # so that a closing engine need not wait for long: it is heard where something is read
CASCADE_TRIES = 20
_EVERYWHERE = (
    "backups, exports and copies that were made of the database",
    "what your own program and other processes keep in memory or in their logs",
)
_OF_SQLITE = ("blocks that the file system or the disk keeps of what was overwritten",)
_OF_POSTGRESQL = (
    "pages in which PostgreSQL keeps deleted rows, until VACUUM has run and their place was used again",
    "PostgreSQL's write-ahead log, its archive, and replicas that lag behind",
)
_FILES = {
    "busy": "parts in the database file or its log, which another connection kept in use: "
    "end what reads for long, then erase again, also when nothing is left to find",
    "too large": "parts in gaps of the database file, which was too large to be rewritten while others wait: "
    "run SQLite's VACUUM when nobody speaks",
}


def erase(
    scope: TenantScope,
    owner: str | None,
    session: str | None,
    persona: str | None,
    idle_since: datetime | None,
    *,
    dry_run: bool,
    cascade: bool,
) -> Steps[Receipt]:
    """Erase what is named by exactly one of ``owner``, ``session``, ``persona`` and ``idle_since``."""
    selection = _selection(scope.tenant, {"owner": owner, "session": session, "persona": persona}, idle_since)
    if cascade and selection.by != "persona":
        raise InvalidInputError("cascade", "is for a persona alone")
    at = scope.ports.now()
    persona_id: str | None = None
    if selection.by == "persona":
        persona_id = yield from _persona(selection, cascade=cascade)
        selection = selection._replace(what=persona_id)
    elif selection.by == "session":
        yield from read("session", lambda db: sessions.get(db, selection.tenant, str(session)))
    but = yield from _left_alone(scope, selection, at)
    seats = selection._replace(by="seat") if selection.by == "owner" else None
    if seats is not None:
        yield from _left_alone(scope, seats, at)
    if dry_run:
        found: Erased = yield from read("count", lambda db: erasure.count(db, selection, but=but))
        if seats is not None:
            found = found.plus((yield from read("count seats", partial(erasure.count_seats, selection=seats))))
        counts = found.counts
        if persona_id is not None:
            counts = counts.plus(
                (
                    yield from read(
                        "count persona", partial(erasure.count_persona, tenant=selection.tenant, whose=persona_id)
                    )
                )
            )
        return _receipt(at, Erased(counts, found.hosts), dry_run=True, files=None, sentences=())
    gone = yield from _erase_sessions(scope, selection, but)
    if seats is not None:
        gone = yield from _erase_sessions(scope, seats, (), gone)
    if persona_id is not None:
        gone = yield from _erase_persona(scope, selection, persona_id, gone, cascade=cascade)
    files: Files | None = yield Wipe()
    sentences = (*((_FILES[files],) if files in _FILES else ()), *(_OF_POSTGRESQL if files is None else _OF_SQLITE))
    return _receipt(at, gone, dry_run=False, files=files, sentences=sentences)


def _selection(tenant: str, names: dict[By, str | None], idle_since: datetime | None) -> Selection:
    """Give what the one argument says that was given. Raises ``InvalidInputError``."""
    given: dict[By, str] = {by: name for by, name in names.items() if name is not None}
    if len(given) + (idle_since is not None) != 1:
        what = ", ".join((*given, *(("idle_since",) if idle_since is not None else ()))) or "nothing"
        raise InvalidInputError("erase", f"was given {what}", allowed="one of owner, session, persona, idle_since")
    if idle_since is None:
        [(by, name)] = given.items()
        return Selection(tenant, by, label(by, name, KEY_LIMIT))
    return Selection(tenant, "idle_since", moment("idle_since", idle_since))


def _persona(selection: Selection, *, cascade: bool) -> Steps[str]:
    """Find the persona. Raises ``NotFoundError``, and ``InvalidInputError`` when sessions pin it and must not go."""

    def work(db: Connection) -> tuple[str, int]:
        found = erasure.persona_id(db, selection.tenant, str(selection.what))
        return found, erasure.pinned_by(db, selection.tenant, found)

    persona_id, pins = yield from read("persona", work)
    if pins and not cascade:
        raise _pinned(pins)
    return persona_id


def _pinned(pins: int) -> InvalidInputError:
    sessions_pin = "1 session pins" if pins == 1 else f"{pins} sessions pin"
    return InvalidInputError("persona", f"{sessions_pin} it", allowed="cascade, which erases its sessions too")


def _left_alone(scope: TenantScope, selection: Selection, at: datetime) -> Steps[list[str]]:
    """Give the sessions that are not idle since a reply is running in them.

    Raises ``ConflictError`` where a session is meant whatever is running in it.
    """
    lost = partial(is_lost, scope.ports)
    held = yield from read("running", lambda db: erasure.running(db, selection, at=at, is_lost=lost))
    if held and selection.by != "idle_since":
        raise _running(held[0], "nothing was erased")
    return [one.session_id for one in held]


def _erase_sessions(
    scope: TenantScope, selection: Selection, but: Iterable[str], before: Erased | None = None
) -> Steps[Erased]:
    """Erase every session that is meant and in which nothing runs, those that begin meanwhile too; of a session of
    others, what it holds of the owner."""
    gone, after, alone = before or Erased(), "", list(but)
    at = scope.ports.now()
    lost = partial(is_lost, scope.ports)
    erase_one: Callable[..., Erased | recovery.Holder | None] = partial(
        erasure.erase_session, selection=selection, at=at, is_lost=lost
    )
    if selection.by == "seat":
        erase_one = partial(
            erasure.erase_seats, selection=selection, nobody=partial(_nobody, scope), at=at, is_lost=lost
        )
    while ids := (
        yield from read("sessions", partial(erasure.some, selection=selection, after=after, but=alone, most=AT_ONCE))
    ):
        for session_id in ids:
            ended = yield from write("erase", partial(erase_one, session_id=session_id))
            if isinstance(ended, recovery.Holder):
                if selection.by != "idle_since":
                    raise _running(ended, f"{gone.counts.sessions} sessions were erased before")
            elif ended is not None:
                gone = gone.plus(ended)
                _forget(scope, session_id)
        after = ids[-1]
    return gone


def _nobody(scope: TenantScope, db: Connection, session_id: str, revision: int) -> str:
    """Give what a human without a name is called, also where the session is damaged: no erasure fails of that."""
    try:
        return casts.nobody(scope, revisions.revision(db, scope.tenant, session_id, revision))
    except RoleplayError:
        return scope.words("en").user


def _erase_persona(
    scope: TenantScope, selection: Selection, persona_id: str, gone: Erased, *, cascade: bool
) -> Steps[Erased]:
    """Erase the persona, after the sessions that took it into their cast meanwhile."""
    for _ in range(CASCADE_TRIES):
        ended: Counts | int = yield from write(
            "erase persona", partial(erasure.erase_persona, tenant=selection.tenant, whose=persona_id)
        )
        if isinstance(ended, Counts):
            return Erased(gone.counts.plus(ended), gone.hosts)
        if not cascade:
            raise _pinned(ended)
        gone = yield from _erase_sessions(scope, selection, (), gone)
    raise ConflictError(
        f"sessions with this persona are created faster than erased; {gone.counts.sessions} sessions were erased before"
    )


def _running(one: recovery.Holder, rest: str) -> ConflictError:
    return ConflictError(
        f"turn {one.turn_id} is still running in session {one.session_id}; {rest}",
        found=one.turn_id,
        turn_id=one.turn_id,
    )


def _forget(scope: TenantScope, session_id: str) -> None:
    """Keep nothing of a session in this engine's memory."""
    scope.last_spoke.pop(session_id, None)
    scope.recounts.pop(session_id, None)
    for key in list(scope.rendered):  # a copy: other threads speak meanwhile
        if session_id in key:
            scope.rendered.pop(key, None)


def _receipt(at: datetime, gone: Erased, *, dry_run: bool, files: Files | None, sentences: tuple[str, ...]) -> Receipt:
    of_hosts = tuple(f"what {host} keeps of the requests that it was sent" for host in sorted(gone.hosts))
    return Receipt(
        at=at, dry_run=dry_run, erased=gone.counts, files=files, not_ours=(*of_hosts, *sentences, *_EVERYWHERE)
    )

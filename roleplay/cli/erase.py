"""The erase command: what would go is counted first, and asked about; what went is told with what is not ours."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import NamedTuple

import typer

from roleplay.cli import show
from roleplay.cli.opening import stored
from roleplay.domain.erasure import Counts, Receipt
from roleplay.engine import Roleplay
from roleplay.errors import InvalidInputError


class EraseOptions(NamedTuple):
    """What the command line asks for."""

    owner: str | None
    session: str | None
    persona: str | None
    idle_since: str | None
    dry_run: bool
    cascade: bool
    yes: bool
    as_json: bool


def erase(db: str | None, options: EraseOptions) -> None:
    """Erase what ``options`` names, once it was confirmed. Raises what ``Roleplay.erase`` raises."""
    if not (options.dry_run or options.yes or _can_ask(options)):
        raise InvalidInputError("--yes", "is needed where nobody can be asked", allowed="--yes, or --dry-run to look")
    with stored(db) as rp:
        session = rp.sessions.get(options.session).id if options.session else None
        receipt = _erase(rp, options, session, dry_run=True)
        if not options.dry_run:
            if not options.yes:
                typer.confirm(f"erase for good: {_in_words(receipt.erased)}?", abort=True, err=True)
            receipt = _erase(rp, options, session, dry_run=False)
    if options.as_json:
        show.write_json(receipt)
        return
    counted = {name: rows for name, rows in receipt.erased.model_dump().items() if rows}
    show.table(
        ("erased" if not receipt.dry_run else "would go", "rows"), ((_words(n), str(r)) for n, r in counted.items())
    )
    if not counted:
        show.note("there is nothing of it")
    if receipt.dry_run:
        show.note("nothing was erased")
        return
    for one in receipt.not_ours:
        show.note(f"not ours to remove: {one}")


def _erase(rp: Roleplay, options: EraseOptions, session: str | None, *, dry_run: bool) -> Receipt:
    return rp.erase(
        owner=options.owner,
        session=session,
        persona=options.persona,
        idle_since=None if options.idle_since is None else _moment(options.idle_since),
        dry_run=dry_run,
        cascade=options.cascade,
    )


def _moment(text: str) -> datetime:
    """Read a date or a time, of this machine's time zone where it names none."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        allowed = "a date such as 2026-01-31, or a time such as 2026-01-31T12:00+00:00"
        raise InvalidInputError("--idle-since", f"is {text[:50]!r}", allowed=allowed) from None


def _can_ask(options: EraseOptions) -> bool:
    return not options.as_json and sys.stdin.isatty() and sys.stdout.isatty()


def _in_words(counts: Counts) -> str:
    told = [(getattr(counts, f"{word}s"), word, "") for word in ("persona", "session", "turn", "message")]
    in_others = " in sessions of others"
    told += [(counts.blanked_seats, "seat", in_others), (counts.blanked_lines, "line", in_others)]
    words = (f"{rows} {word}{'' if rows == 1 else 's'}{where}" for rows, word, where in told if rows)
    return ", ".join(words) or "nothing"


def _words(name: str) -> str:
    return name.replace("_", " ")

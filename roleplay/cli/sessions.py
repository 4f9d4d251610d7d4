"""The session commands, and what the calls cost."""

from __future__ import annotations

from roleplay.cli import hints, show
from roleplay.cli.opening import stored
from roleplay.domain.conversation import SessionInfo, Turn, TurnKind
from roleplay.engine import Roleplay
from roleplay.store.records.calls import UsageKey


def show_list(db: str | None, *, owner: str | None, limit: int, before: str | None, as_json: bool) -> None:
    """List sessions, lately used first."""
    with stored(db) as rp:
        page = rp.sessions.list(owner=owner, limit=limit, before=before)
        if as_json:
            show.write_json(page)
            return
        show.table(("id", "with", "you are", "scene", "last used", "owner"), (_row(rp, one) for one in page))
        if not page.items:
            show.note(f"no sessions yet; begin one: {hints.command('chat PERSONA')}")
        show.more(page)


def _row(rp: Roleplay, info: SessionInfo) -> tuple[str, ...]:
    when = info.last_turn_at.astimezone().strftime("%Y-%m-%d %H:%M")
    names = show.names_of(info.models), show.names_of(info.humans)
    return show.short_id(rp, info.id), *names, info.scene[:60], when, info.owner or ""


def show_one(name: str, db: str | None, *, limit: int, before: str | None, as_json: bool) -> None:
    """Show a session's turns with what they cost."""
    with stored(db) as rp:
        session = rp.sessions.get(name)
        info = session.info()
        page = session.turns(before=before, limit=limit)
        if as_json:
            shown = {"session": info.model_dump(mode="json"), "turns": page.model_dump(mode="json")}
            show.write_json(shown)
            return
        show.say(f"{show.heading(info)} · {info.id}", style=show.DIM)
        show.more(page)
        cast = show.CastNames(info)
        for turn in page:
            show.say("")
            show.turn(turn, cast)
            show.say(_about(turn), style=show.DIM)


def _about(turn: Turn) -> str:
    if turn.kind is not TurnKind.REPLY:
        return turn.kind.value if turn.variants == 1 else f"{turn.kind.value} {turn.variant} of {turn.variants}"
    tries = f" · attempt {len(turn.calls)}" if len(turn.calls) > 1 else ""
    return f"{turn.status.value} · {show.cost(turn)}{tries}"


def show_usage(db: str | None, *, by: UsageKey, as_json: bool) -> None:
    """Add up what the calls cost."""
    with stored(db) as rp:
        totals = rp.usage.report(by=by)
        if as_json:
            show.write_json(totals)
            return
        columns = (by, "calls", "prompt", "cached", "reply", "reasoning", "total", "unreported calls")
        rows = (
            (
                _key(rp, by, one.key),
                str(one.calls),
                *(
                    show.number(amount)
                    for amount in (
                        one.usage.prompt_tokens,
                        one.usage.cached_tokens,
                        one.usage.completion_tokens,
                        one.usage.reasoning_tokens,
                        one.usage.total_tokens,
                    )
                ),
                str(one.unreported),
            )
            for one in totals
        )
        show.table(columns, rows)
        if not totals:
            show.note("no model was called yet")


def _key(rp: Roleplay, by: UsageKey, key: str) -> str:
    return show.short_id(rp, key) if by == "session" else key

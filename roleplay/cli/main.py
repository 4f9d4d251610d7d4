"""The commands and their options, and how the program begins and ends. What a command does stands in its own module."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from roleplay.cli import hints, streams
from roleplay.cli.exits import ExitCode, complain, complain_json, epilog, exit_code, last_sentence
from roleplay.errors import RoleplayError

app = typer.Typer(
    name="roleplay",
    help="Role-play conversations that last. Without a command: go on where you were, or choose whom to talk to.",
    epilog=epilog(),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
persona_app = typer.Typer(
    help="Personas: add them from files, sync a folder, list them, show them.", rich_markup_mode=None
)
session_app = typer.Typer(help="Stored sessions: list them, show them.", rich_markup_mode=None)
db_app = typer.Typer(help="The database's schema: upgrade it, check it.", rich_markup_mode=None)
app.add_typer(persona_app, name="persona")
app.add_typer(session_app, name="session")
app.add_typer(db_app, name="db")

Db = Annotated[
    str | None,
    typer.Option(
        "--db", metavar="URL", help="Database: a URL or a SQLite file. Else ROLEPLAY_DB, else roleplay.db in your data."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for a script to read, errors too.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")]
Before = Annotated[str | None, typer.Option("--before", metavar="CURSOR", help="Older ones: 'older' of the last page.")]


class By(StrEnum):
    """What usage is added up by."""

    MODEL = "model"
    SESSION = "session"
    DAY = "day"


@app.callback(invoke_without_command=True)
def alone(
    context: typer.Context,
    db: Db = None,
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error came from (or ROLEPLAY_DEBUG=1).")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Go on where you were, or choose whom to talk to."""
    call: hints.Call = context.obj
    call.db, call.traces = db, debug
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"roleplay-engine {installed('roleplay-engine')}")
    elif context.invoked_subcommand is None:
        from roleplay.cli import chat as room

        _end(room.chat(room.ChatOptions(db=db)))


@app.command()
def chat(
    context: typer.Context,
    who: Annotated[
        str | None,
        typer.Argument(
            metavar="[PERSONA|SESSION]", help="A persona's key, id or file (YAML, JSON), or a session's id."
        ),
    ] = None,
    *,
    go_on: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the last session, of PERSONA if given.")
    ] = False,
    message: Annotated[
        list[str] | None,
        typer.Option("--message", "-m", metavar="TEXT", help="Say this and end; may be given again, said in order."),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="PERSONA", help="Who else is there, played by the model; may be given again."),
    ] = None,
    played_as: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="PERSONA",
            help="Whom you play, or name:NAME for somebody without a persona; again for each human.",
        ),
    ] = None,
    scene: Annotated[
        str | None, typer.Option("--scene", metavar="TEXT", help="Where a new session takes place.")
    ] = None,
    db: Db = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Another model than ROLEPLAY_MODEL.")
    ] = None,
    as_json: AsJson = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show a reply as it comes.")] = True,
    max_turns: Annotated[
        int | None,
        typer.Option(
            "--max-turns", metavar="N", min=1, max=100, help="Among several: at most so many answer a line; else 4."
        ),
    ] = None,
) -> None:
    """Talk with a persona, or with several. Lines that are piped in are said one by one; /help inside tells more."""
    from roleplay.cli import chat as room

    options = room.ChatOptions(
        who=who,
        go_on=go_on,
        messages=tuple(message or ()),
        others=tuple(others or ()),
        played_as=tuple(played_as or ()),
        scene=scene,
        db=_db(context, db),
        model=model,
        as_json=as_json,
        stream=stream,
        max_turns=max_turns,
    )
    _end(room.chat(options))


@persona_app.command("add")
def persona_add(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Persona files: YAML or JSON.")],
    db: Db = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Put personas from files into the database; a changed one becomes a new version."""
    from roleplay.cli import personas

    personas.add(files, _db(context, db), as_json=as_json)


@persona_app.command("sync")
def persona_sync(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of persona files: YAML or JSON.")],
    *,
    prune: Annotated[
        bool, typer.Option("--prune", help="Archive the personas that came from files which are gone.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    author: Annotated[str, typer.Option("--author", metavar="NAME", help="Kept with each new version.")] = "",
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="Kept with each new version.")] = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Bring a folder of persona files into the database: all of it or, where a file is bad, nothing."""
    from roleplay.cli import personas

    personas.sync(
        folder,
        _db(context, db),
        prune=prune,
        dry_run=dry_run,
        author=author,
        message=message,
        as_json=as_json,
    )


@persona_app.command("list")
def persona_list(
    context: typer.Context, db: Db = None, limit: Limit = 50, before: Before = None, *, as_json: AsJson = False
) -> None:
    """List the personas, lately changed first."""
    from roleplay.cli import personas

    personas.show_list(_db(context, db), limit=limit, before=before, as_json=as_json)


@persona_app.command("show")
def persona_show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Key, id or the beginning of an id.")],
    version: Annotated[int | None, typer.Option("--version", min=1, help="An older version.")] = None,
    db: Db = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show a persona as YAML, which 'persona add' takes again."""
    from roleplay.cli import personas

    personas.show_one(name, _db(context, db), version=version, as_json=as_json)


@session_app.command("list")
def session_list(
    context: typer.Context,
    owner: Annotated[str | None, typer.Option("--owner", help="Only this owner's.")] = None,
    db: Db = None,
    limit: Limit = 50,
    before: Before = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the sessions, lately used first."""
    from roleplay.cli import sessions

    sessions.show_list(_db(context, db), owner=owner, limit=limit, before=before, as_json=as_json)


@session_app.command("show")
def session_show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ID", help="A session's id or the beginning of it.")],
    db: Db = None,
    limit: Limit = 50,
    before: Before = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show a session's turns with what they cost, oldest first."""
    from roleplay.cli import sessions

    sessions.show_one(name, _db(context, db), limit=limit, before=before, as_json=as_json)


@app.command("context")
def context_of(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SESSION", help="A session's id or the beginning of it.")],
    turn: Annotated[str | None, typer.Option("--turn", metavar="ID", help="Another turn than the last.")] = None,
    line: Annotated[
        str | None, typer.Option("--next", metavar="TEXT", help="What would be sent if you said this; calls nothing.")
    ] = None,
    db: Db = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Explain a request: how its budget was claimed, what was kept, what was dropped, and why."""
    from roleplay.cli import context as room

    room.show_context(name, _db(context, db), turn=turn, line=line, as_json=as_json)


@app.command()
def usage(
    context: typer.Context,
    by: Annotated[By, typer.Option("--by", help="What to add up by; days are UTC.")] = By.MODEL,
    db: Db = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Add up what the model calls cost, in tokens as the service reported them."""
    from roleplay.cli import sessions

    sessions.show_usage(_db(context, db), by=by.value, as_json=as_json)


@app.command()
def doctor(
    context: typer.Context,
    *,
    repair: Annotated[
        bool, typer.Option("--repair/--dry-run", help="Mend what can be mended; else only look, which is the default.")
    ] = False,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Look through the whole database for what cannot be, and mend it on request."""
    from roleplay.cli import database

    _end(database.doctor(_db(context, db), repair=repair, as_json=as_json))


@app.command()
def erase(
    context: typer.Context,
    *,
    owner: Annotated[str | None, typer.Option("--owner", help="All sessions of this owner.")] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="One session, by its id or the beginning of it.")
    ] = None,
    persona: Annotated[
        str | None, typer.Option("--persona", metavar="KEY", help="A persona in all its versions, by key or whole id.")
    ] = None,
    idle_since: Annotated[
        str | None,
        typer.Option(
            "--idle-since", metavar="DATE", help="The sessions whose last turn began before this day or time."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    cascade: Annotated[bool, typer.Option("--cascade", help="With --persona: the sessions that pin it, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Delete sessions or a persona for good, from every row and byte of the database."""
    from roleplay.cli import erase as erasing

    options = erasing.EraseOptions(owner, session, persona, idle_since, dry_run, cascade, yes, as_json)
    erasing.erase(_db(context, db), options)


@db_app.command("upgrade")
def db_upgrade(context: typer.Context, db: Db = None, *, as_json: AsJson = False) -> None:
    """Bring the schema to this version's revision."""
    from roleplay.cli import database

    database.upgrade(_db(context, db), as_json=as_json)


@db_app.command("check")
def db_check(context: typer.Context, db: Db = None, *, as_json: AsJson = False) -> None:
    """Tell whether the schema is this version's; changes nothing."""
    from roleplay.cli import database

    database.check(_db(context, db), as_json=as_json)


def _db(context: typer.Context, db: str | None) -> str | None:
    call: hints.Call = context.obj
    call.db = db or call.db
    return call.db


def _end(code: ExitCode) -> None:
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def main(arguments: Sequence[str], program: str = hints.PROGRAM) -> int:
    """Run one command and give its exit code; errors become one line on standard error, JSON for ``--json``.

    ``program`` is what a person typed to call it; the commands in help, advice and errors begin with it.
    """
    call = hints.Call(program)
    hints.current.set(call)
    try:
        streams.prepare()
        ended = app(args=list(arguments), prog_name=program, standalone_mode=False, obj=call)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # typer makes the second of the first
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads what is left
        return ExitCode.PIPE_CLOSED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place: whatever it is becomes one line and an exit code
        if call.traces or _wants_traces():
            traceback.print_exc()
        return _told(error, program, as_json="--json" in arguments)
    finally:
        streams.tell_of_escapes()
    return int(ended or ExitCode.OK)


def _wants_traces() -> bool:
    from roleplay.settings import environment, wants_traces

    return wants_traces(environment())


def _told(error: Exception, program: str, *, as_json: bool) -> ExitCode:
    """Tell the error that ended a command, once for every kind of it, and give the exit code."""
    if isinstance(error, typer.Abort):
        return ExitCode.INTERRUPTED
    if isinstance(error, RoleplayError):
        code, line, known = exit_code(error), last_sentence(error), error
    elif isinstance(error, typer.TyperException):
        path = getattr(getattr(error, "ctx", None), "command_path", program)
        code, line = ExitCode.USAGE, f"{error.format_message()} Try: {path} --help"
        known = RoleplayError(line)
    else:
        line = f"unexpected {type(error).__name__}: {error}; run again with '{program} --debug ...' to see where"
        code, known = ExitCode.UNEXPECTED, RoleplayError(line)
    if as_json:
        complain_json(known)
    else:
        complain(line)
    return code


def run() -> None:
    """Run the program: the console script's way in."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()

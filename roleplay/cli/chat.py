"""A chat: opening it, whose lines it takes, and what is told at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from roleplay.cli import hints, opening, show, streams, who
from roleplay.cli.commands import Commands, Quit, is_command, unslashed
from roleplay.cli.conversation import Conversation, OutputOptions
from roleplay.cli.exits import ExitCode, complain, complain_json, safe
from roleplay.cli.interrupts import InterruptHandler, InterruptibleTransport
from roleplay.domain.cast import Seat
from roleplay.domain.conversation import Turn, TurnStatus
from roleplay.domain.persona import Persona, StoredPersona
from roleplay.engine import Roleplay
from roleplay.errors import InvalidInputError, RoleplayError
from roleplay.session import ChatSession
from roleplay.turns.arguments import line_text

RECALLED = 3
TOY_NOTICE = "No API key is set, so {model} speaks, a toy on this machine: it shows the engine and not the wit."
TOY_FAREWELL = """\
that was the toy. For a model with wit, set one of these and go on:
  MiniMax  export MINIMAX_API_KEY=...
  Ollama   export ROLEPLAY_BASE_URL=http://127.0.0.1:11434/v1 ROLEPLAY_MODEL=llama3.2 ROLEPLAY_WINDOW_TOKENS=8192
  vLLM     export ROLEPLAY_BASE_URL=http://127.0.0.1:8000/v1 ROLEPLAY_MODEL=NAME_SERVED ROLEPLAY_WINDOW_TOKENS=32768"""


@dataclass(frozen=True)
class ChatOptions:
    """What was asked for on the command line. ``messages`` are said in order; without any, lines are read."""

    who: str | None = None
    go_on: bool = False
    messages: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    played_as: tuple[str, ...] = ()
    scene: str | None = None
    db: str | None = None
    model: str | None = None
    as_json: bool = False
    stream: bool = True
    max_turns: int | None = None


@dataclass(frozen=True)
class Begin:
    """What a chat begins with, found and not yet written: whom with, whom else with, as whom."""

    target: who.Going | who.Beginning
    others: Sequence[StoredPersona | Persona]
    users: Sequence[StoredPersona | Persona | Seat]


def chat(options: ChatOptions) -> ExitCode:
    """Hold the chat that was asked for. What can be refused is refused before anything is written or started."""
    for text in options.messages:
        line_text(text)
    where = opening.location(options.db)
    alone = options.who is None and not options.go_on
    endpoint = None if alone and not sys.stdin.isatty() else opening.model_for(options.model)
    counter = opening.counter_named()
    with opening.database(where) as database:
        begin = _begin(opening.without_model(database), options)
        lines = _lines(options)
        with opening.speaking(endpoint) as (model, transport):
            interrupts = InterruptHandler()
            rp = Roleplay(database, InterruptibleTransport(transport, interrupts), endpoint=model, counter=counter)
            if endpoint is None:
                show.note(TOY_NOTICE.format(model=model.model), style=show.WARN)
            session, new = _session(rp, begin, options)
            talk = Conversation(rp, session, interrupts, _output(options))
            farewell = _farewell(talk, where, toy=endpoint is None)  # also told where the database fails in between
            try:
                _open_scene(talk, options, new=new)
                return _talk(talk, options, lines)
            finally:
                if not options.as_json:
                    show.note(farewell)


def _output(options: ChatOptions) -> OutputOptions:
    return OutputOptions(stream=options.stream, as_json=options.as_json, max_turns=options.max_turns)


def _begin(rp: Roleplay, options: ChatOptions) -> Begin:
    found = who.find(rp, options.who) if options.who is not None else None
    target = who.last_session(rp, found) if options.go_on else found or who.choose(rp)
    new = (("--with", options.others), ("--as", options.played_as), ("--scene", options.scene is not None))
    for option, given in new:
        if given and isinstance(target, who.Going):
            raise InvalidInputError(
                option, "belongs to a new session, and this one has begun", allowed="with a PERSONA"
            )
    others = [who.find_persona(rp, one) for one in options.others]
    return Begin(target, others, [who.find_human(rp, one) for one in options.played_as])


def _session(rp: Roleplay, begin: Begin, options: ChatOptions) -> tuple[ChatSession, bool]:
    if isinstance(begin.target, who.Going):
        rp.recover()  # a reply that a dead process left is then told as interrupted, and can be gone on with
        return rp.sessions.get(begin.target.session_id), False
    cast = [_stored(rp, one) for one in (begin.target.persona, *begin.others)]
    users = [one if isinstance(one, Seat) else Seat(_stored(rp, one)) for one in begin.users]
    scene = options.scene or ""
    if len(users) > 1:
        return rp.sessions.create(cast=cast, users=users, scene=scene), True
    return rp.sessions.create(cast=cast, user=users[0] if users else None, scene=scene), True


def _stored(rp: Roleplay, persona: StoredPersona | Persona) -> StoredPersona:
    return rp.personas.put(persona) if isinstance(persona, Persona) else persona


def _lines(options: ChatOptions) -> Iterator[str] | None:
    """Give the lines to say: those of ``-m``, or those piped in; ``None`` where a person types.

    A pipe is read up to its first line here, so that an empty one is refused with nothing written.
    """
    if options.messages:
        return iter(options.messages)
    if sys.stdin.isatty():
        return None
    lines = (line for line in streams.lines_of(sys.stdin) if line.strip())
    first = next(lines, None)
    if first is None:
        raise InvalidInputError("text", "is blank", allowed="at least one line with a visible character")
    return _chain(first, lines)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _open_scene(talk: Conversation, options: ChatOptions, *, new: bool) -> None:
    """Show how a chat begins: the greeting of a new one, the last turns of one that goes on."""
    if options.as_json:
        return
    if new:
        talk.show_last(1)
        return
    if not options.messages and sys.stdin.isatty():
        show.note(show.heading(talk.info))
        talk.show_last(RECALLED)
    if (attempt := talk.unresolved()) is not None:
        offer = show.offer(attempt)
        show.note(f"the last reply {show.how_it_ended(attempt)}{offer and f': {offer}'}", style=show.WARN)


def _talk(talk: Conversation, options: ChatOptions, lines: Iterator[str] | None) -> ExitCode:
    commands = Commands(talk)
    if lines is None:
        _typed(talk, commands, as_json=options.as_json)
        return ExitCode.OK
    for text in lines:
        try:
            turn = talk.say(text) if options.messages else _do(talk, commands, text)
        except Quit:
            break
        if turn is not None and turn.status is TurnStatus.INTERRUPTED:
            return ExitCode.INTERRUPTED
    return ExitCode.OK


def _do(talk: Conversation, commands: Commands, line: str) -> Turn | None:
    """Do what a line commands, or say it; gives the turn that was spoken."""
    return commands.do(line) if is_command(line) else talk.say(unslashed(line))


def _typed(talk: Conversation, commands: Commands, *, as_json: bool) -> None:
    """Take lines from a person until the end of input; an error is told and the chat goes on."""
    show.note("/help tells what else you can do; Ctrl-C ends a reply, Ctrl-D the chat")
    prompt = _Prompt()
    while True:
        try:
            text = prompt.ask(talk.cast.name(talk.human.seat))
            if text.strip():
                _do(talk, commands, text)
        except KeyboardInterrupt:
            show.note("\nCtrl-D or /quit ends the chat")
        except RoleplayError as error:
            if as_json:
                complain_json(error)
            else:
                complain(talk.complaint(error))
        except EOFError:
            show.note("")  # the end of input leaves the cursor behind the prompt
            return
        except Quit:
            return


class _Prompt:
    """Asks a person for a line, with the name that they play."""

    def __init__(self) -> None:
        with suppress(ImportError):
            import readline  # noqa: PLC0415 - editing of lines, where the machine has it

            readline.parse_and_bind("set enable-bracketed-paste off")

    def ask(self, name: str) -> str:
        """Read the next line; ``name`` tells who types it. Raises ``EOFError`` at the end."""
        words = f"{safe(name)}: "
        if sys.stdout.isatty():
            return input(words)
        sys.stderr.write(words)
        sys.stderr.flush()
        if not (line := sys.stdin.readline()):
            raise EOFError
        return line.rstrip("\r\n")


def _farewell(talk: Conversation, where: opening.DatabaseLocation, *, toy: bool) -> str:
    """Give what is told at the end, however it ends: where the session is and how to go on."""
    lines = [
        f"stored in {where.shown} · session {show.short_id(talk.rp, talk.session.id)}",
        f"go on: {hints.command('chat --continue')}",
    ]
    return "\n".join([*lines, TOY_FAREWELL] if toy else lines)

"""Which database and which model a command works with, and opening them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from roleplay.chat.transport import Transport
from roleplay.cli import hints, toy
from roleplay.cli.hints import without_password
from roleplay.context.counting import Counter
from roleplay.domain.endpoint import DEFAULT_MODEL, Endpoint
from roleplay.engine import Roleplay
from roleplay.errors import InvalidInputError, NotFoundError, SettingsError
from roleplay.exchange.tokenizers import TokenizerCounter
from roleplay.settings import (
    data_folder,
    database_key,
    database_named,
    environment,
    has_model,
    resolve,
    tokenizer_named,
)
from roleplay.store.access import schema
from roleplay.store.access.database import Database, sqlite_file
from roleplay.wire.request import WireRequest

SQLITE = "sqlite:///"
FILE_NAME = "roleplay.db"


@dataclass(frozen=True)
class DatabaseLocation:
    """Where conversations are stored. ``shown`` is safe to print; ``chosen``: somebody named it."""

    url: str
    shown: str
    chosen: bool

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database, ``None`` for others."""
        return sqlite_file(self.url)


class NoModel:
    """The transport of commands that speak to no model."""

    def open(self, endpoint: Endpoint, request: WireRequest) -> NoReturn:  # noqa: ARG002 - a transport is given them
        """Refuse: a command that shows what is stored asks no model."""
        raise SettingsError("this command speaks to no model")

    def close(self) -> None:
        """Nothing to close."""


def location(db: str | None) -> DatabaseLocation:
    """Tell where the database is: ``db``, else ``ROLEPLAY_DB``, else a file in the user's data; creates nothing."""
    named = db or database_named(environment())
    if named is None:
        path = data_folder(environment()) / FILE_NAME
        return DatabaseLocation(f"{SQLITE}{path}", str(path), chosen=False)
    if "://" not in named and not named.startswith("file:"):
        if "?" in named:
            raise InvalidInputError(
                "db", "the file's name holds a question mark", allowed="a URL, or a path without one"
            )
        named = f"{SQLITE}{Path(named).expanduser()}"
    file = sqlite_file(named)
    return DatabaseLocation(named, str(file.absolute()) if file else without_password(named), chosen=True)


def open_database(where: DatabaseLocation) -> Database:
    """Open the database as it is, with the key that the environment gives. Raises ``SettingsError``."""
    return Database.open(where.url, db_key=database_key(environment()))


@contextmanager
def database(where: DatabaseLocation) -> Iterator[Database]:
    """Open the database with a schema of this version; a SQLite file is made when there is none."""
    make_folder(where)
    opened = open_database(where)
    try:
        schema.prepare(opened)
        yield opened
    finally:
        opened.close()


def make_folder(where: DatabaseLocation) -> None:
    """Make the folder of our own database, for its owner alone; a folder that was named must be there."""
    if where.file is None:
        return
    folder = where.file.absolute().parent
    if where.chosen:
        if not folder.is_dir():
            raise NotFoundError("folder", str(folder), hint="make it, or choose another place with --db")
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(f"cannot make {folder} ({reason}); choose a place with --db or ROLEPLAY_DB") from error


@contextmanager
def stored(
    db: str | None, *, to_write: bool = False, counter: Counter | None = None, endpoint: Endpoint | None = None
) -> Iterator[Roleplay]:
    """Open what is stored, for a command that speaks to no model; ``counter`` is for one that counts, ``endpoint`` for
    one that tells what a model would be asked.

    Raises ``NotFoundError`` for a file that was named and does not exist, unless the command is one ``to_write``.
    """
    where = location(db)
    if where.chosen and not to_write and where.file is not None and not where.file.exists():
        raise NotFoundError(
            "database", where.shown, hint=f"check --db or ROLEPLAY_DB; {hints.command('chat')} makes a new one"
        )
    with database(where) as opened:
        yield without_model(opened, counter, endpoint)


def without_model(opened: Database, counter: Counter | None = None, endpoint: Endpoint | None = None) -> Roleplay:
    """Give the engine over ``opened`` with no model behind it."""
    return Roleplay(opened, NoModel(), endpoint=endpoint or Endpoint(DEFAULT_MODEL), counter=counter)


def model_meant() -> Endpoint:
    """Give the model that the environment says, for a command that calls nothing. Raises ``SettingsError``."""
    return resolve(None, environment(), needs_key=False)


def model_for(name: str | None) -> Endpoint | None:
    """Tell which model to speak to, ``None`` for the local toy. Starts nothing.

    Raises ``SettingsError`` when the environment names no model and the toy is not installed.
    """
    if name is not None or has_model(environment()):
        return resolve(name, environment())
    if not toy.toy_available():
        raise SettingsError(
            "no model to speak to: export MINIMAX_API_KEY=..., or get a small local model with: " + toy.INSTALL
        )
    return None


def counter_named() -> Counter | None:
    """Give the counter of the file that ``ROLEPLAY_TOKENIZER`` names, ``None`` where it names none.

    Raises ``SettingsError``.
    """
    named = tokenizer_named(environment())
    try:
        return None if named is None else TokenizerCounter.from_file(Path(named).expanduser())
    except InvalidInputError as error:
        raise SettingsError(f"ROLEPLAY_TOKENIZER cannot be used: {error}") from error


@contextmanager
def speaking(endpoint: Endpoint | None) -> Iterator[tuple[Endpoint, Transport]]:
    """Give the model to speak to and what carries words there; ``None`` starts the toy and ends it afterwards."""
    from roleplay.chat.sync import RequestsTransport  # noqa: PLC0415 - loaded when a model is spoken to

    transport = RequestsTransport()
    try:
        if endpoint is not None:
            transport.check(endpoint)
            yield endpoint, transport
            return
        with toy.start_toy() as server:
            yield _at(server), transport
    finally:
        transport.close()


def _at(server: toy.ToyServer) -> Endpoint:
    return Endpoint(
        server.model,
        base_url=server.base_url,
        api_key=server.api_key,
        window_tokens=server.window_tokens,
        max_output_tokens=server.max_output_tokens,
    )

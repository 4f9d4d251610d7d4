"""Roleplay: where the rooms meet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from roleplay.chat.transport import Transport, check_all
from roleplay.context.counting import Counter, EstimatingCounter
from roleplay.context.languages import LANGUAGES, Words
from roleplay.domain.cast import Played, Seat, Strategy
from roleplay.domain.context import Calibration
from roleplay.domain.conversation import SessionInfo
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.erasure import Receipt
from roleplay.domain.events import Observer
from roleplay.domain.guards import Guard
from roleplay.domain.page import Page
from roleplay.domain.persona import Persona, StoredPersona
from roleplay.domain.settings import DEFAULT_SETTINGS, SessionSettings
from roleplay.domain.sync import SyncReport
from roleplay.domain.values import NO_METADATA, Metadata
from roleplay.errors import StoreError
from roleplay.exchange.persona_files import read_folder
from roleplay.operations import erasure, persona_files, personas, sessions, upkeep, usage
from roleplay.operations.persona_files import SyncOptions
from roleplay.operations.sessions import Greetings, NewSession
from roleplay.replay import Replay
from roleplay.session.driver import Runtime
from roleplay.session.execution import GRACE_S
from roleplay.session.gate import OPENINGS, Gate
from roleplay.session.handle import ChatSession
from roleplay.session.ports import ports
from roleplay.settings import Model, environment, resolve_all
from roleplay.store.access import schema
from roleplay.store.access.address import DatabaseUrl, private
from roleplay.store.access.database import Database
from roleplay.store.access.sqlite import Creator, DbKey, Key
from roleplay.store.records.calls import UsageKey, UsageTotal
from roleplay.store.records.personas import Change
from roleplay.store.upkeep.checks import Finding
from roleplay.turns import calibrating
from roleplay.turns.scope import NO_WATCH, TenantScope, Watch
from roleplay.turns.strategies import STRATEGIES


class Roleplay:
    """The engine: personas, sessions and their turns in a database, spoken by a model.

    ``Roleplay.open(url)`` is the usual way in. The constructor is the composition root for products: it uses a
    ``database`` and a ``chat`` transport that their maker closes. Thread-safe.
    """

    def __init__(
        self,
        database: Database,
        chat: Transport,
        *,
        endpoint: Endpoint,
        tenant: str = "default",
        settings: SessionSettings = DEFAULT_SETTINGS,
        counter: Counter | None = None,
        fallbacks: Sequence[Endpoint] = (),
        languages: Mapping[str, Words] | None = None,
        watch: Watch = NO_WATCH,
        strategies: Mapping[str, Strategy] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._equip(
            Runtime(database, chat),
            TenantScope(
                tenant,
                (endpoint, *fallbacks),
                (("engine", settings),),
                counter or EstimatingCounter(),
                ports(),
                {**LANGUAGES, **(languages or {})},
                {**STRATEGIES, **(strategies or {})},
                watch,
            ),
        )
        self._runtime.observers = tuple(observers)
        self._is_view = False
        self._owned.append(self._remember)

    def _equip(self, runtime: Runtime, scope: TenantScope) -> None:
        self._runtime = runtime
        self._scope = scope
        self._owned: list[Callable[[], None]] = []
        self._is_view = True
        self.endpoint = scope.endpoints[0]
        self.personas = Personas(runtime, scope)
        self.sessions = Sessions(runtime, scope)
        self.usage = UsageReports(runtime, scope)
        self.replay = Replay(runtime, scope.tenant)

    @classmethod
    def open(  # noqa: PLR0913 - the door takes keywords, and each has a default
        cls,
        url: DatabaseUrl,
        *,
        db_key: Key = None,
        creator: Creator | None = None,
        model: Model | Sequence[Model] | None = None,
        tenant: str = "default",
        settings: SessionSettings = DEFAULT_SETTINGS,
        chat: Transport | None = None,
        migrate: schema.Migrate | None = None,
        counter: Counter | None = None,
        languages: Mapping[str, Words] | None = None,
        guards: Sequence[Guard] = (),
        guard_timeout_s: float = NO_WATCH.guard_timeout_s,
        keep_originals: bool = False,
        strategies: Mapping[str, Strategy] | None = None,
        observers: Sequence[Observer] = (),
        openings: int = OPENINGS,
    ) -> Self:
        """Open a database and a model.

        ``url`` is SQLAlchemy's (``sqlite:///chats.db``, ``postgresql://user@host/name``), or SQLite's
        (``file:chats.db?mode=ro``), or an ``Engine``, which you close. ``db_key`` encrypts a SQLite file: a passphrase,
        or 32 bytes that are the key itself. ``creator`` makes a SQLite database's connections.

        ``model`` is a name or an ``Endpoint``; what it leaves open comes from the environment. Of several, the first is
        asked, and the others in their order when those before are unavailable and nothing was shown yet. ``settings``
        hold for every session that does not say otherwise. ``chat`` takes another transport, such as a scripted model,
        and then no key is needed. ``migrate``: ``auto`` (SQLite's default) upgrades an older schema under a lock,
        ``check`` (PostgreSQL's) refuses it. ``counter`` counts tokens; without one they are estimated. ``languages``
        adds to the engine's own words, or replaces them.

        ``guards`` are asked about every human line before it is stored and every reply before it is stored or shown,
        for ``guard_timeout_s`` seconds each; ``keep_originals`` keeps what they did not allow. ``strategies`` adds to
        the ways to say who of several speaks next (``SessionSettings(speaking=...)``). ``observers`` are told of turns
        after the fact. ``openings`` is how many requests may connect and be sent at the same moment; what is
        above it waits its turn, so that any number of replies can be begun at once. It bounds neither how many answers
        are waited for nor how many are read, and has no part in a ``chat`` of your own.

        Raises ``InvalidInputError``, ``SettingsError``, ``SchemaError`` and ``StoreError``.
        """
        db_key = DbKey.of(db_key)
        hidden = private(url)
        del url  # it may hold a password, and an error may be shown with the values of variables
        gate = Gate(openings)
        endpoint, *fallbacks = resolve_all(model, environment(), needs_key=chat is None)
        transport = chat or _requests_transport([endpoint, *fallbacks])
        database = schema.opened(hidden, migrate, db_key, creator)
        try:
            engine = cls(
                database,
                transport,
                endpoint=endpoint,
                tenant=tenant,
                settings=settings,
                counter=counter,
                fallbacks=fallbacks,
                languages=languages,
                watch=Watch(tuple(guards), guard_timeout_s, keep_originals),
                strategies=strategies,
                observers=observers,
            )
        except BaseException:  # such as a setting that no turn could be spoken with
            database.close()
            raise
        engine._owned += [database.close]
        if chat is None:
            engine._runtime.owns_transport, engine._runtime.gate = True, gate
        return engine

    def for_tenant(
        self, tenant: str, *, model: Model | Sequence[Model] | None = None, settings: SessionSettings = DEFAULT_SETTINGS
    ) -> Self:
        """Give this engine for another tenant: the same connections, nothing opened, nothing to close.

        ``model`` and ``settings`` are the tenant's own; what they leave open is the engine's. A tenant's ``Endpoint``
        may hold a key of its own. Raises ``InvalidInputError`` and ``SettingsError``.
        """
        own = None if model is None else tuple(resolve_all(model, environment(), needs_key=False))
        if own is not None and self._runtime.owns_transport:
            check_all(self._runtime.transport, own)
        view = type(self).__new__(type(self))
        view._equip(self._runtime, self._scope.of_tenant(tenant, own, settings))  # noqa: SLF001 - of its own class
        return view

    def recover(self) -> Sequence[str]:
        """End every turn in flight whose owner is gone or whose lease has run out, and give their ids.

        A send on a session does this for its own head; ``recover`` is for start-up and for a clean house.
        """
        return self._runtime.run(upkeep.recover(self._scope))

    def doctor(self, *, repair: bool = False) -> Sequence[Finding]:
        """Check every row of the tenant; with ``repair``, mend what can be mended. Reads everything."""
        return self._runtime.run(upkeep.doctor(self._scope, repair=repair))

    def erase(
        self,
        *,
        owner: str | None = None,
        session: str | None = None,
        persona: str | None = None,
        idle_since: datetime | None = None,
        dry_run: bool = False,
        cascade: bool = False,
    ) -> Receipt:
        """Delete for good: all sessions of an ``owner``, one ``session`` by its whole id, a ``persona`` by key or whole
        id in all its versions, or the sessions whose last turn began before ``idle_since``. Name exactly one of them.

        In sessions of others in which the ``owner`` sits or sat, nobody sits there any more, and the rows of what the
        owner said stay without words, as do those of model calls whose requests held them: such a request can be
        rebuilt no more. What others said stays, replies included, which may quote it. Where the owner was the last
        human, a human without a name sits there, in a new seat.

        Only this tenant's rows are deleted. Every session, and the persona, goes in a transaction of its own, so that
        whatever ends the call leaves the rest whole; the same call again goes on. At last the files of SQLite are
        wiped, which rewrites them: erase many at once. The ``Receipt`` counts what was deleted and says what is not
        ours to remove. ``dry_run`` writes nothing, and raises what the call would raise.

        Raises ``NotFoundError`` for an unknown session or persona; ``InvalidInputError`` for a persona that sessions
        pin, unless ``cascade`` erases these too; ``ConflictError``, naming the turn, while a reply is running in one of
        the sessions (an idle one has none). When one begins meanwhile, or with ``StoreError``, what was erased before
        stays so.
        """
        operation = erasure.erase(self._scope, owner, session, persona, idle_since, dry_run=dry_run, cascade=cascade)
        return self._runtime.run(operation)

    def calibrations(self) -> Sequence[Calibration]:
        """Say what the reports of this tenant's models have taught of their tokens, for each model and host, and where
        they are not believed (``finding``)."""
        return self._runtime.run(calibrating.list_calibrations(self._scope.calibrations, self._scope.tenant))

    def _remember(self) -> None:
        for work in calibrating.merges_left(self._scope.calibrations, self._scope.ports.now):
            with contextlib.suppress(StoreError):  # no turn hangs on it, and this much is learned again
                self._runtime.database.write(work)

    def close(self, *, grace_s: float = GRACE_S) -> None:
        """Let no turn begin, wait ``grace_s`` seconds for those that run, interrupt the rest, and close what ``open``
        opened.

        Whoever waits for a reply that is interrupted gets ``ConflictError`` with its ``turn_id``; a stream just ends.
        All of it is done whatever goes wrong, and then the first error is raised, such as ``StoreError`` for a turn
        whose end could not be written. Ctrl-C, or a cancelled task, ends the waiting.
        """
        if self._is_view or not self._runtime.is_ours:
            return
        self._runtime.close(grace_s, self._owned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(grace_s=GRACE_S if error is None else 0)


class Personas:
    """The personas of one tenant."""

    def __init__(self, runtime: Runtime, scope: TenantScope) -> None:
        self._runtime = runtime
        self._scope = scope

    def put(
        self,
        persona: Persona,
        *,
        persona_id: str | None = None,
        expected_version: int | None = None,
        author: str = "",
        message: str = "",
    ) -> StoredPersona:
        """Store ``persona`` and give it with its id and version.

        A persona whose ``key`` is known already, or that is named by ``persona_id``, becomes that one's next version;
        when the content is equal, nothing is written. ``expected_version`` is the version that you changed, 0 when
        there should be none: where it is not the newest, ``ConflictError`` is raised and no change is lost. ``author``
        and ``message`` are kept with the version. Raises ``NotFoundError`` and ``ConflictError``.
        """
        change = Change(persona_id, expected_version, author, message)
        return self._runtime.run(personas.put(self._scope, persona, change))

    def get(self, name: str, *, version: int | None = None) -> StoredPersona:
        """Give a persona by its key, its id, or the beginning of its id that no other has; the newest version unless
        ``version`` is given. Raises ``NotFoundError``."""
        return self._runtime.run(personas.get(self._scope, name, version))

    def list(self, *, limit: int = 50, before: str | None = None) -> Page[StoredPersona]:
        """Give a page of personas, lately changed first; ``before`` is the ``older`` cursor of another page."""
        return self._runtime.run(personas.list_page(self._scope, limit, before))

    def iter(self) -> Iterator[StoredPersona]:
        """Give all personas, the oldest first, reading a page at a time; those that are made meanwhile come last."""
        last: StoredPersona | None = None
        while page := self._runtime.run(personas.list_after(self._scope, last)):
            for last in page:
                yield last

    def versions(self, name: str, *, limit: int = 50, before: str | None = None) -> Page[StoredPersona]:
        """Give a page of a persona's versions, newest first; ``name`` is as in ``get``. Raises ``NotFoundError``."""
        return self._runtime.run(personas.versions(self._scope, name, limit, before))

    def archive(self, name: str) -> StoredPersona:
        """Keep a persona out of lists and new sessions; those that it sits in go on. Putting it again brings it back.

        ``name`` is as in ``get``, which finds it still. Raises ``NotFoundError``.
        """
        return self._runtime.run(personas.archive(self._scope, name))

    def sync(
        self,
        folder: str | PathLike[str],
        *,
        prune: bool = False,
        dry_run: bool = False,
        author: str = "",
        message: str = "",
    ) -> SyncReport:
        """Bring the personas of a folder's ``*.yaml``, ``*.yml`` and ``*.json`` files into the database, and report.

        Each file is a persona; its key is the field ``key``, else the file's name. All files are read before anything
        is written, and what is written is one transaction. ``prune`` archives the personas that an earlier sync put
        and no file holds any more; those that never came from a file stay. ``dry_run`` writes nothing. ``author`` and
        ``message`` are kept with each new version. Raises ``InvalidInputError``, ``NotFoundError`` and
        ``ConflictError``.
        """
        files = read_folder(Path(folder))
        how = SyncOptions(prune, dry_run, author, message)
        return self._runtime.run(persona_files.sync(self._scope, files, how))


class Sessions:
    """The sessions of one tenant."""

    def __init__(self, runtime: Runtime, scope: TenantScope) -> None:
        self._runtime = runtime
        self._scope = scope

    def create(
        self,
        *,
        cast: Sequence[Played | Seat],
        user: Played | Seat | None = None,
        users: Sequence[Played | Seat] = (),
        scene: str = "",
        greetings: Greetings = "first",
        settings: SessionSettings = DEFAULT_SETTINGS,
        owner: str | None = None,
        metadata: Metadata = NO_METADATA,
    ) -> ChatSession:
        """Create a session and give its handle.

        ``cast`` names the personas that the model plays, ``user`` the one that the human plays (nobody in particular
        when left out), or ``users`` those that several humans play; each as ``personas.put`` gave it, by key or id, or
        as a ``Seat`` with a name of its own. ``scene`` is the label of the conversation. ``owner`` is your own id of
        the end user. The ``first`` persona's greeting is written as the first turn, its other greetings as variants of
        it; or those of ``all`` of them, one after the other, or ``none``.

        Raises ``InvalidInputError`` and ``NotFoundError`` with nothing written.
        """
        opening = NewSession(cast, user, users, scene, greetings, settings, owner, metadata)
        return ChatSession(self._runtime, self._runtime.run(sessions.create(self._scope, opening)))

    def get(self, session_id: str, *, owner: str | None = None) -> ChatSession:
        """Give the handle of a session by its id or the beginning of it that no other has.

        An ``owner``'s session is one that is theirs, or in which they have or had a seat; the handle sees everything,
        so give a user ``seen_by(seat)`` of it. Raises ``NotFoundError``, also for another's.
        """
        found = self._runtime.run(sessions.get(self._scope, session_id, owner))
        return ChatSession(self._runtime, found)

    def list(self, *, owner: str | None = None, limit: int = 50, before: str | None = None) -> Page[SessionInfo]:
        """Give a page of sessions, lately used first; ``before`` is the ``older`` cursor of another page."""
        return self._runtime.run(sessions.list_page(self._scope, owner, limit, before))

    def iter(self, *, owner: str | None = None) -> Iterator[SessionInfo]:
        """Give all sessions, or an ``owner``'s, the oldest first, reading a page at a time.

        Each comes once, whatever is said in it meanwhile; those that are made meanwhile come last.
        """
        last: SessionInfo | None = None
        while page := self._runtime.run(sessions.list_after(self._scope, owner, last)):
            for last in page:
                yield last


class UsageReports:
    """What a tenant's calls cost."""

    def __init__(self, runtime: Runtime, scope: TenantScope) -> None:
        self._runtime = runtime
        self._scope = scope

    def report(self, *, by: UsageKey = "model") -> Sequence[UsageTotal]:
        """Add up usage by ``model``, ``session`` or ``day`` (UTC). A report: it reads every call."""
        return self._runtime.run(usage.report(self._scope, by))


def _requests_transport(endpoints: Sequence[Endpoint]) -> Transport:
    from roleplay.chat.sync import RequestsTransport  # noqa: PLC0415 - loaded when a model is spoken to

    transport = RequestsTransport()
    check_all(transport, endpoints)
    return transport

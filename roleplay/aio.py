"""AsyncRoleplay: the front door for asyncio. Every door does what its twin's in ``Roleplay`` does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from roleplay.chat.transport import AsyncTransport, check_all
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
from roleplay.errors import SettingsError, StoreError
from roleplay.exchange.persona_files import read_folder
from roleplay.operations import erasure, persona_files, personas, sessions, upkeep, usage
from roleplay.operations.persona_files import SyncOptions
from roleplay.operations.sessions import Greetings, NewSession
from roleplay.replay import all_calls, request_body
from roleplay.session.aio.driver import AsyncRuntime
from roleplay.session.aio.gate import AsyncGate
from roleplay.session.aio.handle import AsyncChatSession
from roleplay.session.execution import GRACE_S
from roleplay.session.gate import OPENINGS
from roleplay.session.ports import ports
from roleplay.settings import Model, environment, resolve_all
from roleplay.store.access import schema
from roleplay.store.access.address import DatabaseUrl, private
from roleplay.store.access.aio import AsyncDatabase, open_async
from roleplay.store.access.sqlite import Creator, DbKey, Key
from roleplay.store.records.calls import UsageKey, UsageTotal
from roleplay.store.records.personas import Change
from roleplay.store.upkeep.checks import Finding
from roleplay.turns import calibrating
from roleplay.turns.scope import NO_WATCH, TenantScope, Watch
from roleplay.turns.strategies import STRATEGIES


class AsyncRoleplay:
    """``Roleplay`` for asyncio, on one event loop: ``rp = await AsyncRoleplay.open(url)``, then ``async with rp:``."""

    def __init__(
        self,
        database: AsyncDatabase,
        chat: AsyncTransport,
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
        if hasattr(chat, "aio"):
            raise SettingsError(f"chat is a {type(chat).__name__}, which blocks; with asyncio give its twin, chat.aio")
        self._equip(
            AsyncRuntime(database, chat),
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

    def _equip(self, runtime: AsyncRuntime, scope: TenantScope) -> None:
        self._runtime = runtime
        self._scope = scope
        self._owned: list[Callable[[], Awaitable[None]]] = []
        self._is_view = True
        self.endpoint = scope.endpoints[0]
        self.personas = AsyncPersonas(runtime, scope)
        self.sessions = AsyncSessions(runtime, scope)
        self.usage = AsyncUsageReports(runtime, scope)
        self.replay = AsyncReplay(runtime, scope.tenant)

    @classmethod
    async def open(  # noqa: PLR0913 - the door takes keywords, and each has a default
        cls,
        url: DatabaseUrl,
        *,
        db_key: Key = None,
        creator: Creator | None = None,
        model: Model | Sequence[Model] | None = None,
        tenant: str = "default",
        settings: SessionSettings = DEFAULT_SETTINGS,
        chat: AsyncTransport | None = None,
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
        """As ``Roleplay.open``."""
        db_key = DbKey.of(db_key)
        hidden = private(url)
        del url  # as in ``Roleplay.open``
        gate = AsyncGate(openings)
        endpoint, *fallbacks = resolve_all(model, environment(), needs_key=chat is None)
        transport = chat or _httpx_transport([endpoint, *fallbacks])
        database = open_async(await asyncio.to_thread(schema.opened, hidden, migrate, db_key, creator))
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
            await database.close()
            raise
        engine._owned += [database.close] if chat is not None else [transport.close, database.close]
        engine._runtime.owns_transport = chat is None
        engine._runtime.gate = gate if chat is None else None
        return engine

    def for_tenant(
        self, tenant: str, *, model: Model | Sequence[Model] | None = None, settings: SessionSettings = DEFAULT_SETTINGS
    ) -> Self:
        """As ``Roleplay.for_tenant``."""
        own = None if model is None else tuple(resolve_all(model, environment(), needs_key=False))
        if own is not None and self._runtime.owns_transport:
            check_all(self._runtime.transport, own)
        view = type(self).__new__(type(self))
        view._equip(self._runtime, self._scope.of_tenant(tenant, own, settings))  # noqa: SLF001 - of its own class
        return view

    async def recover(self) -> Sequence[str]:
        """As ``Roleplay.recover``."""
        return await self._runtime.run(upkeep.recover(self._scope))

    async def doctor(self, *, repair: bool = False) -> Sequence[Finding]:
        """As ``Roleplay.doctor``."""
        return await self._runtime.run(upkeep.doctor(self._scope, repair=repair))

    async def erase(
        self,
        *,
        owner: str | None = None,
        session: str | None = None,
        persona: str | None = None,
        idle_since: datetime | None = None,
        dry_run: bool = False,
        cascade: bool = False,
    ) -> Receipt:
        """As ``Roleplay.erase``."""
        operation = erasure.erase(self._scope, owner, session, persona, idle_since, dry_run=dry_run, cascade=cascade)
        return await self._runtime.run(operation)

    async def calibrations(self) -> Sequence[Calibration]:
        """As ``Roleplay.calibrations``."""
        return await self._runtime.run(calibrating.list_calibrations(self._scope.calibrations, self._scope.tenant))

    async def _remember(self) -> None:
        for work in calibrating.merges_left(self._scope.calibrations, self._scope.ports.now):
            with contextlib.suppress(StoreError):  # no turn hangs on it, and this much is learned again
                await self._runtime.database.write(work)

    async def close(self, *, grace_s: float = GRACE_S) -> None:
        """As ``Roleplay.close``."""
        if self._is_view or not self._runtime.is_ours:
            return
        self._runtime.see_to_the_loop(closes=True)
        await self._runtime.close(grace_s, self._owned)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(grace_s=GRACE_S if error is None else 0)


class AsyncPersonas:
    """``Personas`` for asyncio."""

    def __init__(self, runtime: AsyncRuntime, scope: TenantScope) -> None:
        self._runtime = runtime
        self._scope = scope

    async def put(
        self,
        persona: Persona,
        *,
        persona_id: str | None = None,
        expected_version: int | None = None,
        author: str = "",
        message: str = "",
    ) -> StoredPersona:
        """As ``Personas.put``."""
        change = Change(persona_id, expected_version, author, message)
        return await self._runtime.run(personas.put(self._scope, persona, change))

    async def get(self, name: str, *, version: int | None = None) -> StoredPersona:
        """As ``Personas.get``."""
        return await self._runtime.run(personas.get(self._scope, name, version))

    async def list(self, *, limit: int = 50, before: str | None = None) -> Page[StoredPersona]:
        """As ``Personas.list``."""
        return await self._runtime.run(personas.list_page(self._scope, limit, before))

    async def iter(self) -> AsyncIterator[StoredPersona]:
        """As ``Personas.iter``."""
        last: StoredPersona | None = None
        while page := await self._runtime.run(personas.list_after(self._scope, last)):
            for last in page:
                yield last

    async def versions(self, name: str, *, limit: int = 50, before: str | None = None) -> Page[StoredPersona]:
        """As ``Personas.versions``."""
        return await self._runtime.run(personas.versions(self._scope, name, limit, before))

    async def archive(self, name: str) -> StoredPersona:
        """As ``Personas.archive``."""
        return await self._runtime.run(personas.archive(self._scope, name))

    async def sync(
        self,
        folder: str | PathLike[str],
        *,
        prune: bool = False,
        dry_run: bool = False,
        author: str = "",
        message: str = "",
    ) -> SyncReport:
        """As ``Personas.sync``."""
        files = await asyncio.to_thread(read_folder, Path(folder))
        how = SyncOptions(prune, dry_run, author, message)
        return await self._runtime.run(persona_files.sync(self._scope, files, how))


class AsyncSessions:
    """``Sessions`` for asyncio."""

    def __init__(self, runtime: AsyncRuntime, scope: TenantScope) -> None:
        self._runtime = runtime
        self._scope = scope

    async def create(
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
    ) -> AsyncChatSession:
        """As ``Sessions.create``."""
        opening = NewSession(cast, user, users, scene, greetings, settings, owner, metadata)
        created = await self._runtime.run(sessions.create(self._scope, opening))
        return AsyncChatSession(self._runtime, created)

    async def get(self, session_id: str, *, owner: str | None = None) -> AsyncChatSession:
        """As ``Sessions.get``."""
        found = await self._runtime.run(sessions.get(self._scope, session_id, owner))
        return AsyncChatSession(self._runtime, found)

    async def list(self, *, owner: str | None = None, limit: int = 50, before: str | None = None) -> Page[SessionInfo]:
        """As ``Sessions.list``."""
        return await self._runtime.run(sessions.list_page(self._scope, owner, limit, before))

    async def iter(self, *, owner: str | None = None) -> AsyncIterator[SessionInfo]:
        """As ``Sessions.iter``."""
        last: SessionInfo | None = None
        while page := await self._runtime.run(sessions.list_after(self._scope, owner, last)):
            for last in page:
                yield last


class AsyncUsageReports:
    """``UsageReports`` for asyncio."""

    def __init__(self, runtime: AsyncRuntime, scope: TenantScope) -> None:
        self._runtime = runtime
        self._scope = scope

    async def report(self, *, by: UsageKey = "model") -> Sequence[UsageTotal]:
        """As ``UsageReports.report``."""
        return await self._runtime.run(usage.report(self._scope, by))


def _httpx_transport(endpoints: Sequence[Endpoint]) -> AsyncTransport:
    from roleplay.chat.aio import HttpxTransport  # noqa: PLC0415 - loaded when a model is spoken to

    transport = HttpxTransport()
    check_all(transport, endpoints)
    return transport


class AsyncReplay:
    """``Replay`` for asyncio."""

    def __init__(self, runtime: AsyncRuntime, tenant: str) -> None:
        self._runtime = runtime
        self._tenant = tenant

    async def request(self, session_id: str, call_id: str) -> bytes:
        """As ``Replay.request``."""
        return await self._runtime.run(request_body(self._tenant, session_id, call_id))

    async def verify(self) -> AsyncIterator[tuple[str, str]]:
        """As ``Replay.verify``."""
        for session_id, call_id in await self._runtime.run(all_calls(self._tenant)):
            await self.request(session_id, call_id)
            yield session_id, call_id

"""Roleplay: where the rooms meet."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from roleplay import turns
from roleplay.chat.transport import Transport
from roleplay.context.counting import Counter, EstimatingCounter
from roleplay.domain.conversation import Participant, PlayedBy, SessionInfo
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.page import Page
from roleplay.domain.persona import Persona, StoredPersona
from roleplay.domain.settings import SessionSettings
from roleplay.domain.values import KEY_LIMIT, TEXT_LIMIT, Metadata, metadata_of, text_problem
from roleplay.errors import InvalidInputError, NotFoundError
from roleplay.replay import Replay
from roleplay.session import PAGE_LIMIT, Backstage, ChatSession
from roleplay.settings import resolve
from roleplay.store import calls, personas, schema, sessions
from roleplay.store import turns as stored_turns
from roleplay.store.database import Database
from roleplay.store.ids import new_id
from roleplay.store.lease import is_dead, this_owner

REHEARSED_LIMIT = 1024
DEFAULT_SETTINGS = SessionSettings()
NO_METADATA: dict[str, Any] = {}


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
    ) -> None:
        self._backstage = Backstage(database, chat)
        self._owned: list[Any] = []
        company = _Company(self._backstage, _label("tenant", tenant, 64), endpoint, settings, counter)
        self.endpoint = endpoint
        self.personas = Personas(company)
        self.sessions = Sessions(company, self.personas)
        self.usage = UsageReports(company)
        self.replay = Replay(self._backstage, company.tenant)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        model: str | Endpoint | None = None,
        tenant: str = "default",
        settings: SessionSettings = DEFAULT_SETTINGS,
        chat: Transport | None = None,
        migrate: schema.Migrate | None = None,
    ) -> Self:
        """Open a database and a model.

        ``url`` is SQLAlchemy's (``sqlite:///chats.db``, ``postgresql://user@host/name``). ``model`` is a name or an
        ``Endpoint``; what it leaves open comes from the environment. ``settings`` hold for every session that does not
        say otherwise. ``chat`` takes another transport, such as a scripted model, and then no key is needed.
        ``migrate``: ``auto`` (SQLite's default) upgrades an older schema under a lock, ``check`` (PostgreSQL's)
        refuses it.

        Raises ``SettingsError``, ``SchemaError`` and ``StoreError``.
        """
        endpoint = resolve(model, os.environ, needs_key=chat is None)
        database = Database.open(url)
        try:
            schema.prepare(database, migrate)
        except BaseException:
            database.close()
            raise
        transport = chat or _requests_transport()
        engine = cls(database, transport, endpoint=endpoint, tenant=tenant, settings=settings)
        engine._owned = [database] if chat is not None else [transport, database]
        return engine

    def close(self) -> None:
        """Close what ``open`` opened."""
        for one in self._owned:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Company:
    """What the parts of one engine share."""

    def __init__(
        self,
        backstage: Backstage,
        tenant: str,
        endpoint: Endpoint,
        settings: SessionSettings,
        counter: Counter | None,
    ) -> None:
        self.backstage = backstage
        self.database = backstage.database
        self.tenant = tenant
        self.endpoint = endpoint
        self.settings = settings
        self.counter = counter or EstimatingCounter()
        self.rehearsed: dict[tuple[Any, ...], turns.Rehearsed] = _Latest(REHEARSED_LIMIT)
        self.ports = turns.Ports(
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            draw=random.random,
            new_id=new_id,
            owner=this_owner(),
            is_gone=is_dead,
        )

    def scene(self, session_id: str) -> turns.Scene:
        return turns.Scene(
            tenant=self.tenant,
            session_id=session_id,
            endpoint=self.endpoint,
            sampling=self.settings.sampling,
            budget_tokens=self.settings.budget_tokens,
            counter=self.counter,
            ports=self.ports,
            rehearsed=self.rehearsed,
        )


class _Latest(dict[tuple[Any, ...], turns.Rehearsed]):
    """A dict that drops its oldest entries beyond a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: tuple[Any, ...], value: turns.Rehearsed) -> None:
        super().__setitem__(key, value)
        while len(self) > self._limit:
            self.pop(next(iter(self)), None)


class Personas:
    """The personas of one tenant."""

    def __init__(self, company: _Company) -> None:
        self._company = company

    def put(self, persona: Persona, *, persona_id: str | None = None) -> StoredPersona:
        """Store ``persona`` and give it with its id and version.

        A persona whose ``key`` is known already, or that is named by ``persona_id``, becomes that one's next version;
        when the content is equal, nothing is written. Raises ``NotFoundError`` and ``ConflictError``.
        """
        tenant, at, fresh = self._company.tenant, self._company.ports.now(), self._company.ports.new_id()
        return self._company.database.write(
            lambda db: personas.put(db, tenant, persona, persona_id=persona_id, new_id=fresh, at=at)
        )

    def get(self, name: str, *, version: int | None = None) -> StoredPersona:
        """Give a persona by its key, its id, or the beginning of its id that no other has; the newest version unless
        ``version`` is given. Raises ``NotFoundError``."""
        tenant = self._company.tenant

        def work(db: Any) -> StoredPersona:
            found = personas.find(db, tenant, name)
            persona_id = found.id if found else _only("persona", name, personas.ids_with_prefix(db, tenant, name))
            if found is not None and version in {None, found.version}:
                return found
            return personas.get(db, tenant, persona_id, version=version)

        return self._company.database.read(work)

    def list(self, *, limit: int = 50, before: str | None = None) -> Page[StoredPersona]:
        """Give a page of personas, lately changed first; ``before`` is the ``older`` cursor of another page."""
        _check_limit(limit)
        tenant = self._company.tenant
        return self._company.database.read(lambda db: personas.list_page(db, tenant, limit=limit, before=before))


class Sessions:
    """The sessions of one tenant."""

    def __init__(self, company: _Company, people: Personas) -> None:
        self._company = company
        self._personas = people

    def create(
        self,
        *,
        cast: Sequence[StoredPersona | str],
        user: StoredPersona | str | None = None,
        scene: str = "",
        settings: SessionSettings = DEFAULT_SETTINGS,
        owner: str | None = None,
        metadata: Metadata = NO_METADATA,
    ) -> ChatSession:
        """Create a session and give its handle.

        ``cast`` names the persona that the model plays, ``user`` the one that the human plays (nobody in particular
        when left out), each as ``personas.put`` gave it or by key or id. ``scene`` is the label of the conversation.
        ``owner`` is your own id of the end user. The persona's first greeting is written as the first turn, its other
        greetings as variants of it.

        Raises ``InvalidInputError`` and ``NotFoundError`` with nothing written.
        """
        if len(cast) != 1:
            raise InvalidInputError("cast", f"has {len(cast)} personas", allowed="one, played by the model")
        model = self._persona(cast[0])
        human = None if user is None else self._persona(user)
        company, now = self._company, self._company.ports.now()
        if problem := "is too long" if len(scene) > TEXT_LIMIT else text_problem(scene):
            raise InvalidInputError("scene", problem, allowed=f"at most {TEXT_LIMIT} characters")
        info = SessionInfo(
            id=company.ports.new_id(),
            owner=None if owner is None else _label("owner", owner, KEY_LIMIT),
            scene=scene.strip(),
            settings=settings,
            cast=(
                _seat(1, PlayedBy.MODEL, model, model.persona.called),
                _seat(2, PlayedBy.HUMAN, human, human.persona.called if human else "User"),
            ),
            metadata=metadata_of(metadata),
            version=1,
            head_seq=None,
            created_at=now,
            last_turn_at=now,
        )
        uttered = turns.greetings(info, model.persona, company.counter, company.ports.new_id)
        tenant = company.tenant

        def work(db: Any) -> None:
            sessions.create(db, tenant, info, messages=len(uttered))
            for turn, message in ((one.turn, one.message) for one in uttered):
                stored_turns.add_turn(db, tenant, info.id, turn, now)
                stored_turns.add_message(db, tenant, info.id, turn.seq, message, now)
            if uttered:
                stored_turns.move_head(db, tenant, info.id, (None, 1), cause="greeting", at=now)

        company.database.write(work)
        return ChatSession(company.backstage, company.scene(info.id))

    def get(self, session_id: str, *, owner: str | None = None) -> ChatSession:
        """Give the handle of a session by its id or the beginning of it that no other has.

        Raises ``NotFoundError``, also for another ``owner``'s session.
        """
        tenant = self._company.tenant

        def work(db: Any) -> str:
            whole = _only("session", session_id, sessions.ids_with_prefix(db, tenant, session_id))
            return sessions.get(db, tenant, whole, owner=owner).id

        return ChatSession(self._company.backstage, self._company.scene(self._company.database.read(work)))

    def list(self, *, owner: str | None = None, limit: int = 50, before: str | None = None) -> Page[SessionInfo]:
        """Give a page of sessions, lately used first; ``before`` is the ``older`` cursor of another page."""
        _check_limit(limit)
        tenant = self._company.tenant
        return self._company.database.read(
            lambda db: sessions.list_page(db, tenant, owner=owner, limit=limit, before=before)
        )

    def _persona(self, who: StoredPersona | str) -> StoredPersona:
        return self._personas.get(who) if isinstance(who, str) else self._personas.get(who.id, version=who.version)


class UsageReports:
    """What a tenant's calls cost."""

    def __init__(self, company: _Company) -> None:
        self._company = company

    def report(self, *, by: calls.UsageKey = "model") -> Sequence[calls.UsageTotal]:
        """Add up usage by ``model``, ``session`` or ``day`` (UTC). A report: it reads every call."""
        if by not in {"model", "session", "day"}:
            raise InvalidInputError("by", f"is {by!r}", allowed="model, session, day")
        return self._company.database.read(lambda db: calls.totals(db, self._company.tenant, by))


def _seat(seat: int, played_by: PlayedBy, persona: StoredPersona | None, name: str) -> Participant:
    return Participant(
        seat=seat,
        played_by=played_by,
        display_name=name,
        persona_id=persona.id if persona else None,
        persona_version=persona.version if persona else None,
    )


def _only(kind: str, prefix: str, found: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    if found and found[0] == prefix:
        return prefix
    raise NotFoundError(kind, prefix, hint="more than one id begins so; write more of it" if found else "")


def _label(field: str, text: str, limit: int) -> str:
    if not text.strip() or text_problem(text) or len(text) > limit:
        raise InvalidInputError(field, f"is {text[:50]!r}", allowed=f"1 to {limit} characters, not blank")
    return text


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= PAGE_LIMIT:
        raise InvalidInputError("limit", f"is {limit}", allowed=f"1 to {PAGE_LIMIT}")


def _requests_transport() -> Transport:
    from roleplay.chat.sync import RequestsTransport  # noqa: PLC0415 - loaded when a model is spoken to

    return RequestsTransport()

"""Roleplay: where the rooms meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from roleplay.chat.transport import Transport
from roleplay.context.counting import Counter, EstimatingCounter
from roleplay.domain.conversation import SessionInfo
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.page import Page
from roleplay.domain.persona import Persona, StoredPersona
from roleplay.domain.settings import DEFAULT_SETTINGS, SessionSettings
from roleplay.domain.values import NO_METADATA, Metadata
from roleplay.replay import Replay
from roleplay.session.drive import GRACE_S, Backstage
from roleplay.session.handle import ChatSession
from roleplay.session.ports import ports
from roleplay.settings import environment, resolve
from roleplay.store import schema
from roleplay.store.calls import UsageKey, UsageTotal
from roleplay.store.database import Database
from roleplay.store.doctor import Finding
from roleplay.store.personas import Change
from roleplay.turns import company as courses
from roleplay.turns.company import Company, Opening


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
        company = Company(tenant, endpoint, settings, counter or EstimatingCounter(), ports())
        self._backstage = Backstage(database, chat)
        self._company = company
        self._owned: list[Callable[[], None]] = []
        self.endpoint = endpoint
        self.personas = Personas(self._backstage, company)
        self.sessions = Sessions(self._backstage, company)
        self.usage = UsageReports(self._backstage, company)
        self.replay = Replay(self._backstage, tenant)

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
        endpoint = resolve(model, environment(), needs_key=chat is None)
        database = schema.opened(url, migrate)
        transport = chat or _requests_transport()
        engine = cls(database, transport, endpoint=endpoint, tenant=tenant, settings=settings)
        engine._owned = [database.close]
        engine._backstage.owns_transport = chat is None
        return engine

    def recover(self) -> Sequence[str]:
        """End every turn in flight whose owner is gone or whose lease has run out, and give their ids.

        A send on a session does this for its own head; ``recover`` is for start-up and for a clean house.
        """
        return self._backstage.run(courses.recover(self._company))

    def doctor(self, *, repair: bool = False) -> Sequence[Finding]:
        """Check every row of the tenant; with ``repair``, mend what can be mended. Reads everything."""
        return self._backstage.run(courses.doctor(self._company, repair=repair))

    def close(self, *, grace_s: float = GRACE_S) -> None:
        """Let no turn begin, wait ``grace_s`` seconds for those that run, interrupt the rest, and close what ``open``
        opened."""
        if not self._backstage.is_ours:
            return
        self._backstage.shut(grace_s)
        for close in self._owned:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(grace_s=GRACE_S if error is None else 0)


class Personas:
    """The personas of one tenant."""

    def __init__(self, backstage: Backstage, company: Company) -> None:
        self._backstage = backstage
        self._company = company

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
        return self._backstage.run(courses.put_persona(self._company, persona, change))

    def get(self, name: str, *, version: int | None = None) -> StoredPersona:
        """Give a persona by its key, its id, or the beginning of its id that no other has; the newest version unless
        ``version`` is given. Raises ``NotFoundError``."""
        return self._backstage.run(courses.get_persona(self._company, name, version))

    def list(self, *, limit: int = 50, before: str | None = None) -> Page[StoredPersona]:
        """Give a page of personas, lately changed first; ``before`` is the ``older`` cursor of another page."""
        return self._backstage.run(courses.list_personas(self._company, limit, before))

    def iter(self) -> Iterator[StoredPersona]:
        """Give all personas, the oldest first, reading a page at a time; those that are made meanwhile come last."""
        last: StoredPersona | None = None
        while page := self._backstage.run(courses.next_personas(self._company, last)):
            for last in page:
                yield last

    def versions(self, name: str, *, limit: int = 50, before: str | None = None) -> Page[StoredPersona]:
        """Give a page of a persona's versions, newest first; ``name`` is as in ``get``. Raises ``NotFoundError``."""
        return self._backstage.run(courses.persona_versions(self._company, name, limit, before))

    def archive(self, name: str) -> StoredPersona:
        """Keep a persona out of lists and new sessions; those that it sits in go on. Putting it again brings it back.

        ``name`` is as in ``get``, which finds it still. Raises ``NotFoundError``.
        """
        return self._backstage.run(courses.archive_persona(self._company, name))


class Sessions:
    """The sessions of one tenant."""

    def __init__(self, backstage: Backstage, company: Company) -> None:
        self._backstage = backstage
        self._company = company

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
        opening = Opening(cast, user, scene, settings, owner, metadata)
        return ChatSession(self._backstage, self._backstage.run(courses.create_session(self._company, opening)))

    def get(self, session_id: str, *, owner: str | None = None) -> ChatSession:
        """Give the handle of a session by its id or the beginning of it that no other has.

        Raises ``NotFoundError``, also for another ``owner``'s session.
        """
        found = self._backstage.run(courses.get_session(self._company, session_id, owner))
        return ChatSession(self._backstage, found)

    def list(self, *, owner: str | None = None, limit: int = 50, before: str | None = None) -> Page[SessionInfo]:
        """Give a page of sessions, lately used first; ``before`` is the ``older`` cursor of another page."""
        return self._backstage.run(courses.list_sessions(self._company, owner, limit, before))

    def iter(self, *, owner: str | None = None) -> Iterator[SessionInfo]:
        """Give all sessions, or an ``owner``'s, the oldest first, reading a page at a time.

        Each comes once, whatever is said in it meanwhile; those that are made meanwhile come last.
        """
        last: SessionInfo | None = None
        while page := self._backstage.run(courses.next_sessions(self._company, owner, last)):
            for last in page:
                yield last


class UsageReports:
    """What a tenant's calls cost."""

    def __init__(self, backstage: Backstage, company: Company) -> None:
        self._backstage = backstage
        self._company = company

    def report(self, *, by: UsageKey = "model") -> Sequence[UsageTotal]:
        """Add up usage by ``model``, ``session`` or ``day`` (UTC). A report: it reads every call."""
        return self._backstage.run(courses.usage_report(self._company, by))


def _requests_transport() -> Transport:
    from roleplay.chat.sync import RequestsTransport  # noqa: PLC0415 - loaded when a model is spoken to

    return RequestsTransport()

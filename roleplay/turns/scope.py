"""What operations share: one value for a tenant in an engine, and one for a session, which refers to it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from roleplay.context.counting import Counter
from roleplay.context.languages import LANGUAGES, Words
from roleplay.domain.cast import Strategy
from roleplay.domain.context import Line
from roleplay.domain.endpoint import PROFILES, Endpoint, Form
from roleplay.domain.guards import Guard
from roleplay.domain.settings import SeatRef, SessionSettings
from roleplay.errors import InvalidInputError
from roleplay.store import Connection
from roleplay.store.records import sessions
from roleplay.store.records.audience import Viewer
from roleplay.store.records.calibrations import Subject
from roleplay.store.records.revisions import Revision as StoredRevision
from roleplay.store.records.revisions import revision as read_revision
from roleplay.turns import revisions
from roleplay.turns.arguments import label
from roleplay.turns.calibrating import Calibrations, LiveCalibration
from roleplay.turns.effects import Ports, Steps, read
from roleplay.turns.layers import Layer
from roleplay.turns.revisions import RenderedRevision, RenderedSeat
from roleplay.turns.strategies import STRATEGIES

CACHE_LIMIT = 1024
TENANT_LIMIT = 64
COUNTER_LIMIT = 32
UTC_NAME = "UTC"

K = TypeVar("K")
V = TypeVar("V")


class _Latest(dict[K, V]):
    """A dict that drops its oldest entries beyond a limit."""

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        while len(self) > CACHE_LIMIT:
            self.pop(next(iter(self)), None)


@dataclass(frozen=True, slots=True)
class Watch:
    """A product's own checks of what is said. ``guard_timeout_s``: how long one may take; ``keep_originals``: whether a
    text that a guard did not allow is kept."""

    guards: tuple[Guard, ...] = ()
    guard_timeout_s: float = 10.0
    keep_originals: bool = False


NO_WATCH = Watch()


@dataclass(frozen=True, slots=True)
class TenantScope:
    """What all operations of one tenant in one engine share.

    ``endpoints``: the engine's own, and those that are asked when it is unavailable. ``outer`` are the layers of
    settings beyond a session's and a persona's. ``rendered`` are revisions of sessions. ``forms``: in which form a host
    takes requests for a model, where it refused another. ``last_spoke``: when this engine last ended a turn that was
    ready to wait, by session. ``calibrations``: what it has learned of its models' tokens. ``recounts``: lines that
    another counter counted, which are to be counted anew, by session.
    """

    tenant: str
    endpoints: tuple[Endpoint, ...]
    outer: tuple[Layer, ...]
    counter: Counter
    ports: Ports
    languages: Mapping[str, Words] = field(default_factory=lambda: LANGUAGES)
    strategies: Mapping[str, Strategy] = field(default_factory=lambda: STRATEGIES)
    watch: Watch = NO_WATCH
    rendered: MutableMapping[tuple[Any, ...], RenderedRevision] = field(
        default_factory=_Latest[tuple[Any, ...], RenderedRevision], repr=False
    )
    forms: MutableMapping[tuple[str, str], Form] = field(default_factory=dict)
    last_spoke: MutableMapping[str, float] = field(default_factory=_Latest[str, float])
    calibrations: Calibrations = field(default_factory=_Latest[Subject, LiveCalibration])
    recounts: MutableMapping[str, tuple[Line, ...]] = field(default_factory=_Latest[str, tuple[Line, ...]])

    def __post_init__(self) -> None:
        label("tenant", self.tenant, TENANT_LIMIT)
        label("counter.name", self.counter.name, COUNTER_LIMIT)
        for _, settings in self.outer:
            self.check_settings(settings)

    def of_tenant(self, tenant: str, endpoints: tuple[Endpoint, ...] | None, settings: SessionSettings) -> TenantScope:
        """Give the same for another tenant: nothing is opened, and memory of sessions is its own."""
        outer = (("tenant", settings), *(layer for layer in self.outer if layer[0] == "engine"))
        return replace(
            self,
            tenant=tenant,
            endpoints=endpoints or self.endpoints,
            outer=outer,
            rendered=_Latest[tuple[Any, ...], RenderedRevision](),
            last_spoke=_Latest[str, float](),
            recounts=_Latest[str, tuple[Line, ...]](),
        )

    def session(self, session_id: str) -> SessionScope:
        """Give the scope of a session."""
        return SessionScope(self, session_id)

    def form_of(self, endpoint: Endpoint) -> Form:
        """The form in which a host takes requests for a model, as far as it is known."""
        return self.forms.get((endpoint.host, endpoint.model), Form(endpoint.dialect, endpoint.cap_name))

    def endpoints_for(self, model: str | Endpoint | None) -> tuple[Endpoint, ...]:
        """Give who is asked for a reply by ``model``, in this order. Raises ``InvalidInputError``."""
        first = self.endpoints[0]
        if model is None or model == first.model:
            return self.endpoints
        if isinstance(model, Endpoint):
            return (model,)
        named = next((one for one in self.endpoints if one.model == model), None)
        if named is not None:
            return (named,)
        its_own = PROFILES.get(first.model)
        if its_own is not None and (model not in PROFILES or PROFILES[model].domains != its_own.domains):
            same = (name for name, profile in PROFILES.items() if profile.domains == its_own.domains)
            known = ", ".join(dict.fromkeys((*(one.model for one in self.endpoints), *same)))
            raise InvalidInputError(
                "model", f"nothing is known of {model!r}", allowed=f"an Endpoint, or one of {known}"
            )
        return (first.evolve(model=model),)

    def words(self, language: str) -> Words:
        """Give the engine's own words in a language. Raises ``InvalidInputError``."""
        words = self.languages.get(language)
        if words is None:
            raise InvalidInputError("language", f"is {language!r}", allowed=", ".join(self.languages))
        return words

    def local_time(self, time_zone: str | None, time: datetime) -> datetime:
        """Give a time as it is told in a time zone. Raises ``InvalidInputError``."""
        zone = self.ports.zone(time_zone or UTC_NAME)
        if zone is None:
            raise InvalidInputError("time_zone", f"is {time_zone!r}", allowed="an IANA name such as Asia/Shanghai")
        return time.astimezone(zone)

    def check_settings(self, settings: SessionSettings) -> None:
        """Raise ``InvalidInputError`` for settings that no turn could be spoken with."""
        if settings.language is not None:
            self.words(settings.language)
        if settings.time_zone is not None:
            self.local_time(settings.time_zone, self.ports.now())
        if settings.model is not None:
            self.endpoints_for(settings.model)
        if settings.speaking is not None and settings.speaking not in self.strategies:
            raise InvalidInputError("speaking", f"is {settings.speaking!r}", allowed=", ".join(self.strategies))


@dataclass(frozen=True, slots=True)
class SessionScope:
    """What all operations of one session share. ``seat``: through whose eyes it is looked at; ``None``: nobody's."""

    tenant_scope: TenantScope
    session_id: str
    seat: SeatRef | None = None

    def through(self, seat: SeatRef) -> SessionScope:
        """Give the scope of who looks at the session as a seat. Raises ``InvalidInputError`` where it is one of another
        seat's already."""
        if isinstance(seat, bool) or not isinstance(seat, int | str):
            raise InvalidInputError("seat", f"is a {type(seat).__name__}", allowed="a seat's number or a name")
        if self.seat not in {None, seat}:
            problem = f"is {seat!r:.50}, and this handle shows what {self.seat!r:.50} sees"
            raise InvalidInputError("seat", problem, allowed=repr(self.seat)[:50])
        return replace(self, seat=seat)

    @property
    def tenant(self) -> str:
        return self.tenant_scope.tenant

    @property
    def place(self) -> tuple[str, str]:
        """Tenant and session, as the functions of the store take them."""
        return self.tenant_scope.tenant, self.session_id

    @property
    def counter(self) -> Counter:
        return self.tenant_scope.counter

    @property
    def ports(self) -> Ports:
        return self.tenant_scope.ports


def render_revision(scope: SessionScope, revision: int) -> Steps[RenderedRevision]:
    """Give a revision of the session, read when it is not in memory."""
    known = in_memory(scope, revision)
    if known is None:
        stored: StoredRevision = yield from read("revision", lambda db: read_revision(db, *scope.place, revision))
        known = _remembered(scope, stored)
    return known


def _remembered(scope: SessionScope, stored: StoredRevision) -> RenderedRevision:
    known = revisions.render_revision(stored, scope.tenant_scope.outer, scope.counter)
    scope.tenant_scope.rendered[(*scope.place, stored.revision, scope.counter.name)] = known
    return known


def viewer_in(scope: SessionScope, db: Connection) -> Viewer | None:
    """Say who looks, in the transaction that reads what is looked at; ``None``: nobody in particular, who sees all.

    A seat that was left is looked through as well. Raises ``NotFoundError`` for the session, and ``InvalidInputError``
    for a seat that never was.
    """
    if scope.seat is None:
        return None
    revision = sessions.position(db, *scope.place).revision
    rendered = in_memory(scope, revision) or _remembered(scope, read_revision(db, *scope.place, revision))
    return rendered.viewer(rendered.seat_of(scope.seat).seat).as_of(revision)


def speaking_seat(rendered: RenderedRevision, seat: int) -> RenderedSeat:
    """Give a revision as a seat speaks in it. Raises ``InvalidInputError`` where nobody sits there."""
    found = rendered.speaking.get(seat)
    if found is None:
        allowed = revisions.listed(rendered.models)
        raise InvalidInputError("participant", f"nobody whom the model plays sits in seat {seat}", allowed=allowed)
    return found


def in_memory(scope: SessionScope, revision: int) -> RenderedRevision | None:
    """Give a revision of the session, where it was read before."""
    return scope.tenant_scope.rendered.get((*scope.place, revision, scope.counter.name))

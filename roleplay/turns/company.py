"""Courses of an engine: personas, sessions, usage, recovery. Both front doors run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from roleplay.context.counting import Counter
from roleplay.context.languages import LANGUAGES, Words, language_of
from roleplay.domain.context import Line
from roleplay.domain.conversation import Participant, PlayedBy, SessionInfo
from roleplay.domain.endpoint import Endpoint, Form
from roleplay.domain.page import Page
from roleplay.domain.persona import Persona, StoredPersona
from roleplay.domain.settings import SessionSettings
from roleplay.domain.values import KEY_LIMIT, Metadata, metadata_of, text_problem
from roleplay.errors import InvalidInputError, NotFoundError
from roleplay.store import Connection, calls, moves, personas, rescue, sessions, side_calls
from roleplay.store import turns as stored_turns
from roleplay.store.calibrations import Subject
from roleplay.store.checks import Finding
from roleplay.store.doctor import examine, mend
from roleplay.store.entries import CallHold, Hold
from roleplay.store.personas import Change
from roleplay.store.side_calls import CallHolder
from roleplay.turns.calibrating import Learned, Memory
from roleplay.turns.effects import Ports, Steps, read, write
from roleplay.turns.layers import Layer
from roleplay.turns.opening import greetings
from roleplay.turns.plan import check, words_of
from roleplay.turns.reading import check_limit
from roleplay.turns.scene import Rehearsed, Scene, Watch, check_label, spoken_in

REHEARSED_LIMIT = 1024
TENANT_LIMIT = 64
COUNTER_LIMIT = 32
MESSAGE_LIMIT = 10_000
ITER_PAGE = 100


K = TypeVar("K")
V = TypeVar("V")


class _Latest(dict[K, V]):
    """A dict that drops its oldest entries beyond a limit."""

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        while len(self) > REHEARSED_LIMIT:
            self.pop(next(iter(self)), None)


@dataclass(frozen=True, slots=True)
class Company:
    """What the doors of one engine share."""

    tenant: str
    endpoints: tuple[Endpoint, ...]
    outer: tuple[Layer, ...]
    counter: Counter
    ports: Ports
    languages: Mapping[str, Words] = field(default_factory=lambda: LANGUAGES)
    watch: Watch = Watch()
    rehearsed: dict[tuple[Any, ...], Rehearsed] = field(default_factory=_Latest[tuple[Any, ...], Rehearsed], repr=False)
    learned: dict[tuple[str, str], Form] = field(default_factory=dict)
    spoke: dict[str, float] = field(default_factory=_Latest[str, float])
    calibrated: Memory = field(default_factory=_Latest[Subject, Learned])
    recounts: dict[str, tuple[Line, ...]] = field(default_factory=_Latest[str, tuple[Line, ...]])

    def __post_init__(self) -> None:
        label("tenant", self.tenant, TENANT_LIMIT)
        label("counter.name", self.counter.name, COUNTER_LIMIT)
        for _, settings in self.outer:
            check(self.scene(""), settings)

    def of_tenant(self, tenant: str, endpoints: tuple[Endpoint, ...] | None, settings: SessionSettings) -> Company:
        """Give the same company for another tenant: nothing is opened, and memory of sessions is its own."""
        outer = (("tenant", settings), *(layer for layer in self.outer if layer[0] == "engine"))
        return replace(
            self,
            tenant=tenant,
            endpoints=endpoints or self.endpoints,
            outer=outer,
            rehearsed=_Latest[tuple[Any, ...], Rehearsed](),
            spoke=_Latest[str, float](),
            recounts=_Latest[str, tuple[Line, ...]](),
        )

    def scene(self, session_id: str) -> Scene:
        """Give the scene of a session."""
        return Scene(
            tenant=self.tenant,
            session_id=session_id,
            endpoints=self.endpoints,
            outer=self.outer,
            languages=self.languages,
            watch=self.watch,
            counter=self.counter,
            ports=self.ports,
            rehearsed=self.rehearsed,
            learned=self.learned,
            spoke=self.spoke,
            calibrated=self.calibrated,
            recounts=self.recounts,
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """What a session is created with; see ``Sessions.create``."""

    cast: Sequence[StoredPersona | str]
    user: StoredPersona | str | None
    scene: str
    settings: SessionSettings
    owner: str | None
    metadata: Metadata


def put_persona(company: Company, persona: Persona, change: Change) -> Steps[StoredPersona]:
    """Store a persona."""
    check_change(change)
    check(company.scene(""), persona.settings)
    at, fresh = company.ports.now(), company.ports.new_id()
    return (
        yield from write(
            "put persona", lambda db: personas.put(db, company.tenant, persona, change, new_id=fresh, at=at)
        )
    )


def check_change(change: Change) -> None:
    """Raise ``InvalidInputError`` for what cannot be noted beside a version."""
    expected: object = change.expected_version
    if expected is not None and (not isinstance(expected, int) or isinstance(expected, bool) or expected < 0):
        raise InvalidInputError("expected_version", f"is {expected!r}", allowed="a version, 0 for one yet to be made")
    if change.author != "":
        label("author", change.author, KEY_LIMIT)
    if change.message != "":
        label("message", change.message, MESSAGE_LIMIT)


def get_persona(company: Company, name: str, version: int | None) -> Steps[StoredPersona]:
    """Read a persona by key, id or unique beginning of an id."""
    label("name", name, KEY_LIMIT)
    tenant = company.tenant

    def work(db: Connection) -> StoredPersona:
        found = personas.find(db, tenant, name)
        if found is not None and version in {None, found.version}:
            return found
        persona_id = found.id if found else _only("persona", name, personas.ids_with_prefix(db, tenant, name))
        return personas.get(db, tenant, persona_id, version=version)

    return (yield from read("persona", work))


def list_personas(company: Company, limit: int, before: str | None) -> Steps[Page[StoredPersona]]:
    """Read a page of personas."""
    check_limit(limit)
    return (yield from read("personas", lambda db: personas.list_page(db, company.tenant, limit=limit, before=before)))


def next_personas(company: Company, last: StoredPersona | None) -> Steps[Sequence[StoredPersona]]:
    """Read the personas that were made after ``last``, the oldest first."""
    after = last.id if last else ""
    return (yield from read("personas", lambda db: personas.made_after(db, company.tenant, after, limit=ITER_PAGE)))


def persona_versions(company: Company, name: str, limit: int, before: str | None) -> Steps[Page[StoredPersona]]:
    """Read a page of a persona's versions."""
    check_limit(limit)
    label("name", name, KEY_LIMIT)
    tenant = company.tenant

    def work(db: Connection) -> Page[StoredPersona]:
        return personas.versions(db, tenant, _persona_id(db, tenant, name), limit=limit, before=before)

    return (yield from read("versions", work))


def archive_persona(company: Company, name: str) -> Steps[StoredPersona]:
    """Keep a persona out of lists and new sessions."""
    label("name", name, KEY_LIMIT)
    at, tenant = company.ports.now(), company.tenant
    return (
        yield from write("archive persona", lambda db: personas.archive(db, tenant, _persona_id(db, tenant, name), at))
    )


def create_session(company: Company, opening: Opening) -> Steps[Scene]:
    """Write a session with its greetings and give its scene."""
    cast, scene = opening.cast, opening.scene
    if isinstance(cast, str) or not isinstance(cast, Sequence):
        raise InvalidInputError("cast", f"is a {type(cast).__name__}", allowed="a list of personas")
    if len(cast) != 1:
        raise InvalidInputError("cast", f"has {len(cast)} personas", allowed="one, played by the model")
    check_label(scene)
    model = yield from _persona(company, "cast", cast[0])
    human = None if opening.user is None else (yield from _persona(company, "user", opening.user))
    check(company.scene(""), opening.settings)
    language = opening.settings.language or language_of(spoken_in(model.persona, scene))
    nobody = words_of(company.scene(""), language).user
    now = company.ports.now()
    info = SessionInfo(
        id=company.ports.new_id(),
        owner=None if opening.owner is None else label("owner", opening.owner, KEY_LIMIT),
        scene=scene.strip(),
        settings=opening.settings,
        cast=(
            _seat(1, PlayedBy.MODEL, model, model.persona.called),
            _seat(2, PlayedBy.HUMAN, human, human.persona.called if human else nobody),
        ),
        metadata=metadata_of(opening.metadata),
        version=1,
        head_seq=None,
        created_at=now,
        last_turn_at=now,
    )
    uttered = greetings(info, model.persona, company.counter, company.ports.new_id)
    tenant = company.tenant

    def work(db: Connection) -> None:
        sessions.create(db, tenant, info, messages=len(uttered))
        for one in uttered:
            stored_turns.add_turn(db, tenant, info.id, one.turn, now)
            stored_turns.add_message(db, tenant, info.id, one.turn.seq, one.message, now)
        if uttered:
            moves.move_head(db, tenant, info.id, (None, 1), cause="greeting", at=now)

    yield from write("create session", work)
    return company.scene(info.id)


def get_session(company: Company, session_id: str, owner: str | None) -> Steps[Scene]:
    """Find a session by id or unique beginning of an id and give its scene. Another owner's is as if it were not."""
    label("session_id", session_id, KEY_LIMIT)
    check_owner(owner)
    tenant = company.tenant

    def work(db: Connection) -> str:
        return _only("session", session_id, sessions.ids_with_prefix(db, tenant, session_id, owner=owner))

    found: str = yield from read("find session", work)
    return company.scene(found)


def list_sessions(company: Company, owner: str | None, limit: int, before: str | None) -> Steps[Page[SessionInfo]]:
    """Read a page of sessions."""
    check_limit(limit)
    check_owner(owner)
    return (
        yield from read(
            "sessions", lambda db: sessions.list_page(db, company.tenant, owner=owner, limit=limit, before=before)
        )
    )


def next_sessions(company: Company, owner: str | None, last: SessionInfo | None) -> Steps[Sequence[SessionInfo]]:
    """Read the sessions that were made after ``last``, the oldest first."""
    check_owner(owner)
    tenant, after = company.tenant, last.id if last else ""
    return (
        yield from read("sessions", lambda db: sessions.made_after(db, tenant, after, owner=owner, limit=ITER_PAGE))
    )


def check_owner(owner: object) -> None:
    """Raise ``InvalidInputError`` for what can be no owner. One that is blank or too long is merely nobody's."""
    if owner is not None and (not isinstance(owner, str) or text_problem(owner)):
        raise InvalidInputError("owner", f"is {owner!r:.50}", allowed="a str, your own id of the end user")


def usage_report(company: Company, by: calls.UsageKey) -> Steps[Sequence[calls.UsageTotal]]:
    """Add up what calls cost."""
    if by not in {"model", "session", "day"}:
        raise InvalidInputError("by", f"is {by!r}", allowed="model, session, day")
    return (yield from read("usage", lambda db: calls.totals(db, company.tenant, by)))


def recover(company: Company) -> Steps[Sequence[str]]:
    """End every turn in flight whose owner is gone or whose lease has run out, and every such call of no turn; give
    the ids of the turns."""
    at, tenant = company.ports.now(), company.tenant
    held: Sequence[rescue.Holder] = yield from read("holders", lambda db: rescue.holders(db, tenant, at))
    ended = []
    for one in held:
        if _is_lost(company, one):
            hold = Hold(tenant, one.session_id, one.turn_seq, one.attempt, one.owner)
            if (yield from write("recover", partial(rescue.recover, hold=hold, at=at))):
                ended.append(one.turn_id)
    calling: Sequence[CallHolder] = yield from read("calls in flight", lambda db: side_calls.holders(db, tenant, at))
    for call in calling:
        if _is_lost(company, call):
            its = CallHold(tenant, call.session_id, call.call_id, call.owner)
            yield from write("recover call", partial(side_calls.recover, hold=its))
    return ended


def _is_lost(company: Company, one: rescue.Holder | CallHolder) -> bool:
    return company.ports.is_left(one.owner, one.key, expired=one.expired)


def doctor(company: Company, *, repair: bool) -> Steps[Sequence[Finding]]:
    """Check every row of the tenant, and mend what can be mended."""
    at, tenant = company.ports.now(), company.tenant
    is_lost = partial(_is_lost, company)
    found: Sequence[Finding] = yield from read("examine", lambda db: examine(db, tenant, at=at, is_lost=is_lost))
    if not (repair and found):
        return found
    yield from recover(company)
    return (yield from write("mend", lambda db: mend(db, tenant, found, at=at, is_lost=is_lost)))


def label(field_name: str, text: str, limit: int) -> str:
    """Give a short text of the caller as it may be stored. Raises ``InvalidInputError``."""
    if not isinstance(text, str):
        raise InvalidInputError(field_name, f"is a {type(text).__name__}", allowed="a str")
    if not text.strip() or text_problem(text) or len(text) > limit:
        raise InvalidInputError(field_name, f"is {text[:50]!r}", allowed=f"1 to {limit} characters, not blank")
    return text


def _persona(company: Company, field_name: str, who: StoredPersona | str) -> Steps[StoredPersona]:
    if isinstance(who, StoredPersona):
        place = who.id, who.version
        found = yield from read("persona", lambda db: personas.get(db, company.tenant, place[0], version=place[1]))
    else:
        found = yield from get_persona(company, who, None)
    if found.archived_at is not None:
        problem = f"the persona {found.key or found.id!r} is archived"
        raise InvalidInputError(field_name, problem, allowed="another one, or this one once it was put again")
    return found


def _persona_id(db: Connection, tenant: str, name: str) -> str:
    """Give the id of the persona with this key, id or unique beginning of an id. Raises ``NotFoundError``."""
    found = personas.find(db, tenant, name)
    return found.id if found else _only("persona", name, personas.ids_with_prefix(db, tenant, name))


def _seat(seat: int, played_by: PlayedBy, persona: StoredPersona | None, name: str) -> Participant:
    return Participant(
        seat=seat,
        played_by=played_by,
        display_name=name,
        persona_id=persona.id if persona else None,
        persona_version=persona.version if persona else None,
    )


def _only(kind: str, prefix: str, found: Sequence[str]) -> str:
    """Give the one id that ``prefix`` means. Raises ``NotFoundError``."""
    if prefix and (len(found) == 1 or (found and found[0] == prefix)):
        return found[0]
    raise NotFoundError(kind, prefix, ambiguous=bool(found))

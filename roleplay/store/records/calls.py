"""Model calls: reading them back, what a rebuild needs of them, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, bindparam, case, func, literal_column, select

from roleplay.domain.context import Recipe
from roleplay.domain.conversation import Cut, ModelCall
from roleplay.domain.endpoint import Dialect
from roleplay.domain.usage import BaseResp, Sensitivity, Usage
from roleplay.domain.values import Value, json_object
from roleplay.errors import NotFoundError, StoreError
from roleplay.store.access.decoding import absent, reads
from roleplay.store.access.tables import ModelCallRow, PieceRow, TurnRow, table
from roleplay.store.records import recipes
from roleplay.store.records.calibrations import Subject
from roleplay.store.records.new_rows import Purpose, settings_of

_c = table(ModelCallRow).c
_p = table(PieceRow).c
_t = table(TurnRow).c
#: The calls that a reply was asked for by; a turn may have others beside them.
FOR_REPLY = _c.purpose == literal_column(f"'{Purpose.REPLY}'")
#: In place of the digest of a request that held something which was erased, so that it is not rebuilt any more.
ERASED = "erased"
#: How many turns back a request before another is looked for.
LOOK_BACK_TURNS = 20

_OF_TURNS = (
    select(table(ModelCallRow), _p.text.label("settings_text"))
    .outerjoin(
        table(PieceRow),
        (_p.session_id == _c.session_id) & (_p.digest == _c.settings_digest) & (_p.tenant == _c.tenant),
    )
    .where(
        _c.tenant == bindparam("tenant"),
        _c.session_id == bindparam("session"),
        _c.turn_seq.in_(bindparam("turns", expanding=True)),
        FOR_REPLY,
    )
    .order_by(_c.turn_seq, _c.attempt)
)
_ORIGIN = (
    select(_c.dialect, _c.parameters, _c.recipe_version, _c.recipe, _c.request_digest, _p.text.label("front"))
    .outerjoin(
        table(PieceRow), (_p.session_id == _c.session_id) & (_p.digest == _c.front_digest) & (_p.tenant == _c.tenant)
    )
    .where(_c.tenant == bindparam("tenant"), _c.session_id == bindparam("session"), _c.id == bindparam("call"))
)
_PIECES = select(_p.digest, _p.text).where(
    _p.tenant == bindparam("tenant"),
    _p.session_id == bindparam("session"),
    _p.digest.in_(bindparam("digests", expanding=True)),
)
_LATEST = (
    select(_c.id, _c.model_asked, _c.host, _c.dialect, _c.report)
    .where(
        _c.tenant == bindparam("tenant"),
        _c.session_id == bindparam("session"),
        _c.turn_seq == bindparam("turn"),
        FOR_REPLY,
    )
    .order_by(_c.attempt.desc())
    .limit(1)
)
_PLACE = select(_t.seq, _t.parent_turn, _t.speaker).where(
    _t.tenant == bindparam("tenant"), _t.session_id == bindparam("session"), _t.seq == bindparam("turn")
)
_IDS = (
    select(_c.session_id, _c.id)
    .where(_c.tenant == bindparam("tenant"), _c.request_digest != literal_column(f"'{ERASED}'"))
    .order_by(_c.session_id, _c.id)
)
_AMOUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
# What was stored above this or below 0, by versions that did not bound it, is no count: it is taken for unreported.
_AMOUNT_LIMIT = 10**9
UsageKey = Literal["model", "session", "day"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What one request was made of, as it was decided then."""

    dialect: str
    parameters: str
    recipe_version: int
    recipe: Recipe
    texts: dict[str, str]
    request_digest: str


class UsageTotal(Value):
    """What the calls of one ``key`` cost. ``unreported`` calls told no usage and are in none of the sums."""

    key: str
    calls: int
    unreported: int
    usage: Usage


def of_turns(connection: Connection, tenant: str, session_id: str, turns: Sequence[int]) -> dict[int, list[ModelCall]]:
    """Give the calls for the replies of some turns of a session, oldest first, in one statement."""
    found: dict[int, list[ModelCall]] = {seq: [] for seq in turns}
    if turns:
        where = {"tenant": tenant, "session": session_id, "turns": list(turns)}
        for row in connection.execute(_OF_TURNS, where):
            found[row.turn_seq].append(_call(row))
    return found


def origin(connection: Connection, tenant: str, session_id: str, call_id: str) -> Origin:
    """Give what a request was made of. Raises ``NotFoundError``, also where something of it was erased, and
    ``StoreError`` when a text of it is missing."""
    where = {"tenant": tenant, "session": session_id}
    row = connection.execute(_ORIGIN, where | {"call": call_id}).first()
    if row is None:
        raise NotFoundError("model call", call_id)
    if row.request_digest == ERASED:
        raise NotFoundError("request of model call", call_id, hint="something that it held was erased")
    if row.front is None:
        raise absent("the beginning of the request", f"model call {call_id}")
    recipe = recipes.read(row.front, row.recipe, row.recipe_version)
    wanted = {piece.digest for piece in (*recipe.front, *(one.piece for one in recipe.insertions), *recipe.tail)}
    pieces = connection.execute(_PIECES, where | {"digests": sorted(wanted)})
    texts = {piece.digest: piece.text for piece in pieces}
    if missing := wanted - texts.keys():
        raise StoreError(f"model call {call_id}: {len(missing)} of its texts are missing, first {min(missing)}")
    return Origin(row.dialect, row.parameters, row.recipe_version, recipe, texts, row.request_digest)


class Latest(NamedTuple):
    """The latest call for a turn's reply: whose tokens its prompt had, and why it was what it was."""

    id: str
    model: str
    host: str
    dialect: str
    report: str | None

    def subject(self, tenant: str, counter: str) -> Subject:
        """Say whose tokens, counted how, are spoken of."""
        return Subject(tenant, self.model, self.host, self.dialect, counter)


def latest(connection: Connection, tenant: str, session_id: str, turn_seq: int) -> Latest | None:
    """Give the latest call for a turn's reply, ``None`` where it called no model for one."""
    row = connection.execute(_LATEST, {"tenant": tenant, "session": session_id, "turn": turn_seq}).first()
    return None if row is None else _latest(row)


@reads("a model call")
def _latest(row: Any) -> Latest:
    Dialect(row.dialect)
    return Latest(*row)


def before(connection: Connection, tenant: str, session_id: str, turn_seq: int | None, seat: int) -> str | None:
    """Give the latest call for the reply of the last turn of a seat on the path that ends with a turn; ``None`` where
    it called no model in the last few."""
    for _ in range(LOOK_BACK_TURNS):
        where = {"tenant": tenant, "session": session_id, "turn": turn_seq}
        row = None if turn_seq is None else connection.execute(_PLACE, where).first()
        if row is None:
            return None
        call = latest(connection, tenant, session_id, row.seq) if row.speaker == seat else None
        if call is not None:
            return call.id
        turn_seq = row.parent_turn
    return None


def all_ids(connection: Connection, tenant: str) -> list[tuple[str, str]]:
    """Give (session id, call id) of every call of a tenant, whatever it was for; for verifying everything. Those whose
    requests held something that was erased are not among them."""
    return [(row.session_id, row.id) for row in connection.execute(_IDS, {"tenant": tenant})]


def totals(connection: Connection, tenant: str, by: UsageKey) -> list[UsageTotal]:
    """Add up what a tenant's calls cost, whatever they were for, by ``model``, ``session`` or ``day`` (UTC).

    Reads every call: a report.
    """
    key = _usage_key(connection.dialect.name, by)
    sums = [func.sum(_amount(name)).label(name) for name in _AMOUNTS]
    count, reported = func.count().label("calls"), func.count(_amount("total_tokens")).label("reported")
    statement = (
        select(key.label("key"), count, reported, *sums)
        .where(_c.tenant == bindparam("tenant"), _c.total_s.is_not(None))
        .group_by(key)
        .order_by(key)
    )
    return [
        UsageTotal(
            key=row.key,
            calls=row.calls,
            unreported=row.calls - row.reported,
            usage=Usage(**{name: _whole(getattr(row, name)) for name in _AMOUNTS}),
        )
        for row in connection.execute(statement, {"tenant": tenant})
    ]


def _amount(name: str) -> Any:
    return case((_c[name].between(0, _AMOUNT_LIMIT), _c[name]))


def _usage_key(dialect: str, by: UsageKey) -> Any:
    if by == "model":
        return func.coalesce(_c.model_answered, _c.model_asked)
    if by == "session":
        return _c.session_id
    if dialect == "postgresql":
        return func.to_char(func.timezone("UTC", _c.created_at), "YYYY-MM-DD")
    return func.date(_c.created_at)


def _whole(number: Any) -> int | None:
    return None if number is None else int(number)


@reads("a model call")
def _call(row: Row[Any]) -> ModelCall:
    known = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    base = None if row.base_status is None else BaseResp(status_code=row.base_status, status_msg=row.base_message or "")
    same = ModelCall.model_fields.keys() & known.keys() - {"parameters", "error", "settings", "cut"}
    return ModelCall(
        **{name: known[name] for name in same},
        parameters=json_object(json.loads(row.parameters)),
        usage=Usage(**{name: known[name] for name in Usage.model_fields}),
        sensitivity=Sensitivity(**{name: known[name] for name in Sensitivity.model_fields}),
        base_resp=base,
        settings=settings_of(row.settings_text),
        error=None if row.error is None else json.loads(row.error),
        cut=None if row.cut is None else Cut(**json.loads(row.cut)),
    )

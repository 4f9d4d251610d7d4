"""What an engine learns of its models' tokens: kept in memory, merged into the database between turns.

A turn writes rows of its own session alone. What its reply taught waits in memory until some of it came together, or
the engine closes; a process that is killed loses no more than that.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter

from roleplay.context.builder import Load
from roleplay.context.calibration import Fit, Observation, Trust, finding_of, learn, limit_of, rates_of
from roleplay.context.counting import Counter
from roleplay.context.weights import Weights, prior
from roleplay.domain.context import Calibration, DialectDemands, Line
from roleplay.domain.endpoint import Dialect, Endpoint
from roleplay.errors import StoreError
from roleplay.store import Connection
from roleplay.store.records import calibrations as stored_calibrations
from roleplay.store.records import history
from roleplay.store.records.calibrations import Subject
from roleplay.turns.effects import Steps, read, write
from roleplay.wire.dialects import demands

MERGE_AT = 48
MERGE_EARLY_AT = 4
EARLY = 16
RECOUNT_LIMIT = 500
WAITING_LIMIT = 1_000


@dataclass(slots=True)
class LiveCalibration:
    """What is known of the tokens of one model at one host, and what was observed since it was last merged.

    ``merged_fit``: what was in the database then, which ``fit`` goes on from.
    """

    counter: Counter
    needs: DialectDemands
    fit: Fit
    merged_fit: Fit = field(init=False)
    weights: Weights = field(init=False)
    waiting: deque[Observation] = field(default_factory=lambda: deque(maxlen=WAITING_LIMIT))
    put_off: int = 0
    urgent: bool = False
    warned: bool = False

    def __post_init__(self) -> None:
        self.merged_fit = self.fit
        self.take(self.fit)

    def take(self, fit: Fit) -> None:
        """Let a fit be in force from now on."""
        self.fit = fit
        known = fit.observations if fit.trust is Trust.BELIEVED else 0
        self.weights = Weights(self.counter, self.needs, rates_of(fit, prior(self.needs)), known)

    def take_waiting(self) -> list[Observation]:
        """Give what waits, so that nobody else has it to merge; each is given once, whoever asks at the same time."""
        batch: list[Observation] = []
        self.urgent = False
        with contextlib.suppress(IndexError):
            while True:
                batch.append(self.waiting.popleft())
        return batch

    def put_back(self, batch: Sequence[Observation]) -> None:
        """Keep what could not be merged, the latest of it, until as much again has come together."""
        kept = [*batch, *self.take_waiting()][-WAITING_LIMIT:]
        self.waiting.extend(kept)
        self.put_off = len(kept)

    def merged(self, fit: Fit) -> None:
        """Let what was merged be in force with what others merged, unless more is known here by now."""
        self.put_off = 0
        known = learn(fit, prior(self.needs), list(self.waiting))
        if known.observations >= self.fit.observations:
            self.merged_fit = fit
            self.take(known)

    def with_batch(self, batch: Sequence[Observation]) -> Callable[[Fit], Fit]:
        """Give what learns a batch that was taken, beyond the fit that is stored: where nobody else has merged anything
        and nothing was observed meanwhile, that is what is known here already."""
        start, before, fit = prior(self.needs), self.merged_fit, self.fit
        is_known = fit.observations - before.observations == len(batch)
        return lambda stored: fit if is_known and stored == before else learn(stored, start, batch)

    def observe(self, load: Load, reported: int | None, session_id: str) -> None:
        """Learn from a report (``None``: the request was refused as too long). Threads may do so at once: then one may
        think for a while that it was alone, until what waits is merged.

        Of the session, a number is kept that tells it from most others and does not name it.
        """
        one = Observation(load, reported, zlib.crc32(session_id.encode()) & 0xFFFF)
        self.waiting.append(one)
        before = self.finding
        self.take(learn(self.fit, prior(self.needs), (one,)))
        self.urgent = self.urgent or reported is None or self.finding != before

    @property
    def finding(self) -> str | None:
        """Why the host's reports are not believed, in words."""
        return finding_of(self.fit)

    @property
    def limit_tokens(self) -> int | None:
        """What a prompt should stay below, where the host refused one as too long or seems to cut them."""
        return limit_of(self.fit, self.weights.rates)

    @property
    def is_due(self) -> bool:
        """Whether enough waits to be merged; a refusal or a finding, others should know at once."""
        enough = MERGE_AT if self.fit.observations > EARLY else MERGE_EARLY_AT
        return self.urgent or len(self.waiting) >= min(self.put_off + enough, WAITING_LIMIT)


Calibrations = MutableMapping[Subject, LiveCalibration]
"""What an engine has learned, for each tenant, model, host, dialect and counter."""


def subject(tenant: str, endpoint: Endpoint, dialect: Dialect, counter: Counter) -> Subject:
    """Say whose tokens, counted how, are spoken of."""
    return Subject(tenant, endpoint.model[:200], endpoint.host[:200], dialect.value, counter.name)


def calibration_for(calibrations: Calibrations, counter: Counter, of: Subject) -> Steps[LiveCalibration]:
    """Give what is known of a model's tokens; it is read from the database once."""
    found = calibrations.get(of)
    if found is None:
        stored = yield from read("calibration", lambda db: stored_calibrations.fit(db, of))
        found = calibrations[of] = calibrations.get(of) or LiveCalibration(
            counter, demands(Dialect(of.dialect)), stored
        )
    return found


def to_warn_of(calibrations: Calibrations, of: Subject) -> str | None:
    """Give what was found out about a host's reports of a model, once for all tenants and dialects of an engine."""
    known = calibrations.get(of)
    if known is None or known.warned or (finding := known.finding) is None:
        return None
    known.warned = True
    others = [one for other, one in list(calibrations.items()) if other[1:3] == of[1:3] and one is not known]
    return None if any(one.warned for one in others) else finding


def merge_due(calibrations: Calibrations, tenant: str, now: Callable[[], datetime]) -> Steps[None]:
    """Write what was learned about a tenant's models, where enough of it waits.

    No turn fails with it: what cannot be written waits on.
    """
    for of, known in list(calibrations.items()):
        if of.tenant == tenant and known.is_due:
            batch = known.take_waiting()
            try:
                fit = yield from write("merge", _merging(of, known, batch, now()))
            except StoreError:
                known.put_back(batch)
                return
            known.merged(fit)


def merges_left(calibrations: Calibrations, now: Callable[[], datetime]) -> list[Callable[[Connection], Fit]]:
    """Give the works that write all that waits, each in a transaction of its own, when an engine closes."""
    left = sorted(((of, known) for of, known in list(calibrations.items()) if known.waiting), key=itemgetter(0))
    return [_merging(of, known, known.take_waiting(), now()) for of, known in left]


def _merging(
    of: Subject, known: LiveCalibration, batch: list[Observation], at: datetime
) -> Callable[[Connection], Fit]:
    learn_batch = known.with_batch(batch)
    return lambda db: stored_calibrations.merge(db, of, learn_batch, at=at)


def calibration_of(of: Subject, fit: Fit) -> Calibration:
    """Give what was learned as a value."""
    rates = rates_of(fit, prior(demands(Dialect(of.dialect))))
    return Calibration(
        model=of.model,
        host=of.host,
        dialect=of.dialect,
        counter=of.counter,
        narrow=rates.narrow,
        wide=rates.wide,
        per_message_tokens=rates.per_message,
        fixed_tokens=rates.fixed,
        observations=fit.observations,
        error_share=fit.error,
        limit_tokens=limit_of(fit, rates),
        finding=finding_of(fit),
    )


def list_calibrations(calibrations: Calibrations, tenant: str) -> Steps[list[Calibration]]:
    """Read what was learned about a tenant's models; what waits in memory is in it."""
    stored = dict((yield from read("calibrations", lambda db: stored_calibrations.of_tenant(db, tenant))))
    here = {of: known for of, known in list(calibrations.items()) if of.tenant == tenant}
    fits = dict(stored)
    for of, known in here.items():
        newest = learn(stored.get(of, Fit()), prior(known.needs), list(known.waiting))
        newest = max(newest, known.fit, key=lambda fit: fit.observations)
        if newest.observations or newest.refused or newest.trail:
            fits[of] = newest
    return [calibration_of(of, fits[of]) for of in sorted(fits)]


def recount(counter: Counter, tenant: str, session_id: str, lines: Sequence[Line]) -> Steps[Sequence[Line]]:
    """Count lines that another counter counted, the newest first and not too many at once, and store that.

    Gives those that are left for another time.
    """
    counts = [(line.seq, counter.count(line.text)) for line in lines[-RECOUNT_LIMIT:]]
    yield from write("recount", lambda db: history.recount(db, tenant, session_id, counts, counter.name))
    return lines[:-RECOUNT_LIMIT]

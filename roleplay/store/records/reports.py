"""Reports as they are stored with a call: one short JSON text that says why its context is what it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from roleplay.context.builder import Draft, section_name
from roleplay.context.sources import order_of
from roleplay.domain.context import ContextReport, SectionReport
from roleplay.store.access.decoding import reads


def report_text(draft: Draft) -> str:
    """Write the report of a draft."""
    prices = draft.weights
    counted = [prices.counter.name, prices.counter.exact, prices.calibrated, len(draft.foreign)]
    whole = [draft.budget_tokens, draft.prompt_tokens, prices.fixed, draft.recipe.history.first, draft.moved]
    if draft.room:
        whole.append(draft.room)
    rows: list[list[Any]] = []
    for label, one in draft.claims.items():
        row: list[Any] = [section_name(label), one.required, *one.claimed, *one.kept, one.reason]
        if one.unshared or one.details:
            row += [one.unshared, one.details]
        rows.append(row)
    return json.dumps([counted, whole, rows], ensure_ascii=False, separators=(",", ":"))


@reads("the report of a request")
def read_report(stored: str) -> ContextReport:
    """Read a report back from its text."""
    (counter, exact, calibrated, foreign), (budget, prompt, fixed, start, moved, *more), rows = json.loads(stored)
    return ContextReport(
        budget_tokens=budget,
        prompt_tokens=prompt,
        overhead_tokens=fixed,
        counter=counter,
        counting="exact" if exact and not foreign else "estimated",
        calibrated=calibrated,
        foreign_counts=foreign,
        sections=tuple(sorted(map(_section, rows), key=_place)),
        window_start=start,
        new_epoch=moved,
        room_tokens=more[0] if more else 0,
    )


def _place(one: SectionReport) -> int:
    return order_of(one.section.partition(" ")[0])


def _section(row: Sequence[Any]) -> SectionReport:
    name, required, claimed, claimed_items, kept, kept_items, reason, *more = row
    unshared, details = more or (0, ())
    return SectionReport(
        section=name,
        required=required,
        claimed_tokens=claimed,
        kept_tokens=kept,
        dropped_tokens=claimed - kept,
        claimed_items=claimed_items,
        kept_items=kept_items,
        reason=reason,
        unshared_tokens=unshared,
        details=tuple(details),
    )

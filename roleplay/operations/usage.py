"""What calls cost."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.store.records import calls
from roleplay.turns.arguments import usage_key
from roleplay.turns.effects import Read
from roleplay.turns.scope import TenantScope


def report(scope: TenantScope, by: calls.UsageKey) -> Read[Sequence[calls.UsageTotal]]:
    """Add up what calls cost."""
    usage_key(by)
    return Read("usage", lambda db: calls.totals(db, scope.tenant, by))

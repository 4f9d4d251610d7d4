"""Guards asked and observers told, on the event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence

from roleplay.domain.events import Observer
from roleplay.domain.guards import Verdict
from roleplay.session.watch import checked_verdict, complain, noted, warn
from roleplay.turns.effects import Ask, Notify, Warn


async def watched_async(observers: Sequence[Observer], effect: Ask | Notify | Warn) -> Verdict | None:
    """As ``watched``, awaiting."""
    if isinstance(effect, Ask):
        return await _ask_async(effect)
    if isinstance(effect, Warn):
        warn(effect)
    else:
        await _tell_async(observers, effect)
    return None


async def _ask_async(effect: Ask) -> Verdict | None:
    """Ask a guard on the event loop. Raises ``TimeoutError``."""
    async with asyncio.timeout(effect.timeout_s):
        verdict = effect.guard(effect.what)
        return checked_verdict(await verdict if inspect.isawaitable(verdict) else verdict)


async def _tell_async(observers: Sequence[Observer], notice: Notify) -> None:
    """As ``tell``, awaiting."""
    event = noted(observers, notice)
    if event is None:
        return
    for observer in observers:
        try:
            told = observer(event)
            if inspect.isawaitable(told):
                await told
        except Exception as error:  # noqa: BLE001 - an observer cannot fail a turn
            complain(event, error)

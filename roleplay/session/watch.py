"""Guards asked and observers told, for both shells; and the log, which holds ids and figures and never a text."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Sequence
from typing import Any

from roleplay.domain.events import Observer, TurnEvent
from roleplay.domain.guards import Verdict
from roleplay.errors import SettingsError
from roleplay.turns.effects import Ask, Notify, Warn

_log = logging.getLogger("roleplay")
_log.addHandler(logging.NullHandler())  # silent until the application says where its log goes
_LEVELS = {
    "claimed": logging.DEBUG,
    "completed": logging.INFO,
    "interrupted": logging.INFO,
    "failed": logging.WARNING,
}


def watched(observers: Sequence[Observer], effect: Ask | Notify | Warn) -> Verdict | None:
    """Ask a guard, tell the observers, or log a warning."""
    if isinstance(effect, Ask):
        return _ask(effect)
    if isinstance(effect, Warn):
        _warn(effect)
    else:
        _tell(observers, effect)
    return None


async def watched_async(observers: Sequence[Observer], effect: Ask | Notify | Warn) -> Verdict | None:
    """As ``watched``, awaiting."""
    if isinstance(effect, Ask):
        return await _ask_async(effect)
    if isinstance(effect, Warn):
        _warn(effect)
    else:
        await _tell_async(observers, effect)
    return None


def _ask(asked: Ask) -> Verdict | None:
    """Ask a guard in a thread of its own, which is left alone when it takes too long. Raises ``TimeoutError``."""
    answer: list[Any] = []

    def work() -> None:
        try:
            answer.append((asked.guard(asked.what), None))
        except BaseException as error:  # noqa: BLE001 - given to the operation, which decides what it means
            answer.append((None, error))

    thread = threading.Thread(target=work, name="roleplay-guard", daemon=True)
    thread.start()
    thread.join(asked.timeout_s)
    if not answer:
        raise TimeoutError
    verdict, error = answer[0]
    if error is not None:
        raise error
    if inspect.iscoroutine(verdict):
        verdict.close()
        raise SettingsError("a guard that is a coroutine function needs AsyncRoleplay")
    return _checked(verdict)


async def _ask_async(asked: Ask) -> Verdict | None:
    """Ask a guard on the event loop. Raises ``TimeoutError``."""
    async with asyncio.timeout(asked.timeout_s):
        verdict = asked.guard(asked.what)
        return _checked(await verdict if inspect.isawaitable(verdict) else verdict)


def _tell(observers: Sequence[Observer], notice: Notify) -> None:
    """Log an event and tell every observer; what one raises is logged by its kind and goes no further."""
    event = _noted(observers, notice)
    if event is None:
        return
    for observer in observers:
        try:
            told = observer(event)
            if inspect.iscoroutine(told):
                told.close()
                raise SettingsError("an observer that is a coroutine function needs AsyncRoleplay")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - an observer cannot fail a turn
            _complain(event, error)


async def _tell_async(observers: Sequence[Observer], notice: Notify) -> None:
    """As ``tell``, awaiting."""
    event = _noted(observers, notice)
    if event is None:
        return
    for observer in observers:
        try:
            told = observer(event)
            if inspect.isawaitable(told):
                await told
        except Exception as error:  # noqa: BLE001 - an observer cannot fail a turn
            _complain(event, error)


def _checked(verdict: Any) -> Verdict | None:
    if verdict is not None and not isinstance(verdict, Verdict):
        raise TypeError(f"a guard gave a {type(verdict).__name__}, no Verdict")
    return verdict


def _noted(observers: Sequence[Observer], notice: Notify) -> TurnEvent | None:
    """Log an event and give it for the observers; it is not even made when nobody wants it."""
    wanted = _log.isEnabledFor(_LEVELS[notice.kind])
    if not (wanted or observers):
        return None
    event = notice.event()
    if wanted:
        words = (
            "turn %s: tenant=%s session=%s turn=%s model=%s host=%s attempts=%d prompt_tokens=%s completion_tokens=%s"
        )
        used = event.usage.prompt_tokens, event.usage.completion_tokens
        place = event.tenant, event.session_id, event.turn_id
        what = event.kind, *place, event.model, event.host, event.attempts, *used, event.seconds, event.error
        _log.log(_LEVELS[notice.kind], f"{words} seconds=%s error=%s", *what)
    return event


def _complain(event: TurnEvent, error: Exception) -> None:
    _log.error("an observer failed: %s at turn=%s", type(error).__name__, event.turn_id)


def _warn(warning: Warn) -> None:
    _log.warning("reports of model=%s host=%s: %s", *warning)

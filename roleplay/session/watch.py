"""Guards asked and observers told; and the log, which holds ids and figures and never a text."""

from __future__ import annotations

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
        warn(effect)
    else:
        _tell(observers, effect)
    return None


def _ask(effect: Ask) -> Verdict | None:
    """Ask a guard in a thread of its own, which is left alone when it takes too long. Raises ``TimeoutError``."""
    answer: list[Any] = []

    def work() -> None:
        try:
            answer.append((effect.guard(effect.what), None))
        except BaseException as error:  # noqa: BLE001 - given to the operation, which decides what it means
            answer.append((None, error))

    thread = threading.Thread(target=work, name="roleplay-guard", daemon=True)
    thread.start()
    thread.join(effect.timeout_s)
    if not answer:
        raise TimeoutError
    verdict, error = answer[0]
    if error is not None:
        raise error
    if inspect.iscoroutine(verdict):
        verdict.close()
        raise SettingsError("a guard that is a coroutine function needs AsyncRoleplay")
    return checked_verdict(verdict)


def _tell(observers: Sequence[Observer], notice: Notify) -> None:
    """Log an event and tell every observer; what one raises is logged by its kind and goes no further."""
    event = noted(observers, notice)
    if event is None:
        return
    for observer in observers:
        try:
            told = observer(event)
            if inspect.iscoroutine(told):
                told.close()
                raise SettingsError("an observer that is a coroutine function needs AsyncRoleplay")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - an observer cannot fail a turn
            complain(event, error)


def checked_verdict(verdict: Any) -> Verdict | None:
    """Give what a guard answered. Raises ``TypeError`` for what is no verdict."""
    if verdict is not None and not isinstance(verdict, Verdict):
        raise TypeError(f"a guard gave a {type(verdict).__name__}, no Verdict")
    return verdict


def noted(observers: Sequence[Observer], notice: Notify) -> TurnEvent | None:
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


def complain(event: TurnEvent, error: Exception) -> None:
    """Log that an observer failed."""
    _log.error("an observer failed: %s at turn=%s", type(error).__name__, event.turn_id)


def warn(warning: Warn) -> None:
    """Log a warning."""
    _log.warning("reports of model=%s host=%s: %s", *warning)

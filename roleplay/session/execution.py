"""What both shells do alike: stepping an operation from effect to effect, and knowing when it is to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from roleplay.domain.conversation import Turn, TurnStatus
from roleplay.errors import ConflictError
from roleplay.turns.effects import Admit, Effect, Ended, Interrupt, Open, Pause, Read, Receive, Single, Steps, Write

T = TypeVar("T")
GRACE_S = 10.0
FORKED = "the engine was opened before this process was forked; open one in each process"
WAITING = Admit | Open | Receive | Pause


class Execution(Generic[T]):
    """An operation with the effect that it waits for. How the effect is performed is the shell's business."""

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self.effect: Effect | None = None
        self.result: T | None = None
        self.ended = False
        self.send(None)

    def send(self, value: Any) -> None:
        self._advance(self._steps.send, value)

    def throw(self, error: BaseException) -> None:
        self._advance(self._steps.throw, error)

    def _advance(self, step: Callable[[Any], Effect], value: Any) -> None:
        try:
            effect = step(value)
            while isinstance(effect, Ended):
                self.result = cast("T", effect.turn)  # such an operation gives turns
                effect = self._steps.send(None)
            self.effect = effect
        except StopIteration as signal_interrupt:
            self.ended, self.result = True, signal_interrupt.value
        except Interrupt:  # there was no turn yet that it could have ended
            self.ended = True
            raise ConflictError("the engine is closed") from None
        except BaseException:
            self.ended = True
            raise


def steps_of(work: Steps[T] | Single[T]) -> Steps[T]:
    """Give an operation as steps, also one that is a single effect."""
    return _one_step(work) if isinstance(work, Read | Write) else work


def _one_step(effect: Single[T]) -> Steps[T]:
    result: T = yield effect
    return result


def begins(effect: Effect | None) -> bool:
    """Whether an operation that is to end is told so in place of this effect: where it would wait or begin something.

    What is patient is a turn's end, and is done all the same.
    """
    return isinstance(effect, WAITING | Read) or (isinstance(effect, Write) and not effect.patient)


def whole(result: T, *, signalled: bool) -> T:
    """Give the result to who waited for all of it. Raises ``ConflictError`` for a turn that was cut off."""
    if signalled and isinstance(result, Turn) and result.status is TurnStatus.INTERRUPTED:
        raise ConflictError("the engine is closed", turn_id=result.id)
    return result


class Failures:
    """What goes wrong in some steps that must all be done."""

    def __init__(self) -> None:
        self.first: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        self.first = self.first or error
        return True

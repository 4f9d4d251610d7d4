"""The asyncio shell: performs the effects of operations, and decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar, cast

from roleplay.chat.transport import AnswerBytes, AsyncAnswer, AsyncTransport
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.events import Observer
from roleplay.errors import ConflictError, RoleplayError, SettingsError
from roleplay.session.aio.gate import AsyncGate, AsyncPermit
from roleplay.session.aio.watch import watched_async
from roleplay.session.execution import FORKED, WAITING, Execution, Failures, begins, steps_of, whole
from roleplay.store.access.aio import AsyncDatabase
from roleplay.turns.effects import (
    Admit,
    Ask,
    Effect,
    Emit,
    Emitted,
    Interrupt,
    Notify,
    Open,
    Pause,
    Read,
    Receive,
    Release,
    Single,
    Steps,
    Warn,
    Wipe,
    Write,
)
from roleplay.wire.heads import Head
from roleplay.wire.request import WireRequest

T = TypeVar("T")
OTHER_LOOP = "the engine belongs to the event loop in which it was opened; open one in each event loop"


class AsyncRuntime:
    """What the asyncio handles of one engine share."""

    def __init__(self, database: AsyncDatabase, transport: AsyncTransport) -> None:
        self.database = database
        self.transport = transport
        self.owns_transport = False
        self.gate: AsyncGate | None = None
        self.observers: Sequence[Observer] = ()
        self._on: set[AsyncDriver[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._process = os.getpid()
        self._loop = _running_loop()

    @property
    def is_ours(self) -> bool:
        """As ``Runtime.is_ours``."""
        return self._process == os.getpid()

    def see_to_the_loop(self, *, closes: bool = False) -> None:
        """See that this is the engine's own event loop: connections to a model cannot go to another one.

        An engine that was made outside of any has the first in which it is used. One whose loop was closed can only be
        closed. Raises ``SettingsError``.
        """
        self._loop = self._loop or asyncio.get_running_loop()
        if self._loop is not asyncio.get_running_loop() and not (closes and self._loop.is_closed()):
            raise SettingsError(OTHER_LOOP)

    async def run(self, work: Steps[T] | Single[T], *, speaks: bool = False) -> T:
        """Perform an operation, which may be a single effect, and give its result. ``speaks``: it asks a model."""
        if speaks:
            self.see_to_the_loop()
        driver = AsyncDriver(self, steps_of(work))
        return whole(await driver.to_end(), signalled=driver.signalled)

    def register(self, driver: AsyncDriver[Any]) -> None:
        """As ``Runtime.register``."""
        if not self.is_ours:
            raise SettingsError(FORKED)
        if self._closing:
            raise ConflictError("the engine is closed")
        self._on.add(driver)

    def unregister(self, driver: AsyncDriver[Any]) -> None:
        """Note that an operation has ended."""
        self._on.discard(driver)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do ``work`` in a task of its own, which ``close`` waits for."""
        task = asyncio.get_running_loop().create_task(work, name="roleplay-reply")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def end_dropped(self, driver: AsyncDriver[Any], loop: asyncio.AbstractEventLoop) -> None:
        """End a reply whose stream was dropped, in a task: the garbage collector calls this from anywhere."""
        if driver.ended or not self.is_ours:
            return
        with contextlib.suppress(RuntimeError):  # the loop was closed: the turn is nobody's, and the next call ends it
            loop.call_soon_threadsafe(lambda: self.start(driver.interrupt_quietly()))

    async def close(self, grace_s: float, owned: Sequence[Callable[[], Awaitable[None]]] = ()) -> None:
        """As ``Runtime.close``. A cancellation ends the waiting, and goes on when all is done."""
        self._closing = True
        failures = Failures()
        with failures:
            await self._quiet(grace_s)
        patience_s = (0 if failures.first else grace_s) + 1
        with failures:
            await _sheltered(self._end(patience_s, owned))
        if failures.first is not None:
            raise failures.first

    async def _end(self, patience_s: float, owned: Sequence[Callable[[], Awaitable[None]]]) -> None:
        failures = Failures()
        for error in await self._interrupt_all(patience_s):
            failures.first = failures.first or error
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=patience_s)
        for close in owned:
            with failures:
                await close()
        if failures.first is not None:
            raise failures.first

    async def _interrupt_all(self, patience_s: float) -> list[BaseException]:
        """Interrupt all operations that are on; gives what went wrong."""
        left = [asyncio.ensure_future(driver.interrupt()) for driver in list(self._on)]
        if not left:
            return []
        ended, waiting = await asyncio.wait(left, timeout=patience_s)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        errors = [one.exception() for one in ended if not one.cancelled()]
        # A conflict: its turn was taken over, or it had none yet.
        return [error for error in errors if error is not None and not isinstance(error, ConflictError)]

    async def _quiet(self, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience_s
        while self._on and loop.time() < give_up:  # noqa: ASYNC110 - no turn should signal its end for this alone
            await asyncio.sleep(0.01)


class AsyncDriver(Generic[T]):
    """Performs the effects of one operation, awaiting."""

    def __init__(self, runtime: AsyncRuntime, steps: Steps[T]) -> None:
        self._runtime = runtime
        self._answer: AsyncAnswer | None = None
        self._permit: AsyncPermit | None = None
        self.signalled = False
        self._cut = False
        self._waiting: asyncio.Task[Any] | None = None
        self._alone = asyncio.Lock()  # one task at a time drives; another may close the engine
        runtime.register(self)
        try:
            self._execution = Execution(steps)
        except BaseException:
            runtime.unregister(self)
            raise
        if self._execution.ended:
            runtime.unregister(self)

    @property
    def ended(self) -> bool:
        return self._execution.ended

    @property
    def result(self) -> T | None:
        return self._execution.result

    async def until_emit(self) -> Emitted | None:
        """Perform effects until something is handed to the caller; ``None`` when the operation has ended."""
        async with self._alone:
            return await self._until_emit()

    async def _until_emit(self) -> Emitted | None:
        while not self._execution.ended:
            effect = self._execution.effect
            if isinstance(effect, Emit):
                await self._step(self._execution.send, None)
                return effect.what
            await self._perform(effect)
        return None

    async def to_end(self) -> T:
        """Perform everything that is left and give the operation's result."""
        async with self._alone:
            return await self._to_end()

    async def _to_end(self) -> T:
        while not self._execution.ended:
            await self._until_emit()
        return self._execution.result  # type: ignore[return-value]

    async def interrupt(self) -> None:
        """End the reply now, in this task or in the one that waits for it."""
        if self._execution.ended:
            return
        if self._alone.locked():
            self.signal_interrupt()
        async with self._alone:
            await self._throw(Interrupt())
            await self._to_end()

    async def reader_left(self) -> None:
        """The reader has gone: end the reply."""
        await self.interrupt()

    async def interrupt_quietly(self) -> None:
        """As ``Driver.interrupt_quietly``."""
        with contextlib.suppress(RoleplayError):
            await self.interrupt()

    async def _throw(self, error: BaseException) -> None:
        if not self._execution.ended:
            await self._step(self._execution.throw, error)

    def signal_interrupt(self) -> None:
        """End the reply at the next chance, and wake whoever waits for it."""
        self.signalled = True
        if self._waiting is not None and not self._cut:
            self._cut = True
            self._waiting.cancel()

    async def _perform(self, effect: Effect | None) -> None:
        try:
            if self.signalled and begins(effect):
                raise Interrupt  # noqa: TRY301 - what was stopped is told where it would wait
            result = await self._do(effect)
        except BaseException as error:  # noqa: BLE001 - the operation decides what every failure means, cancellation too
            stoppable = isinstance(effect, WAITING)
            signalled = self.signalled and stoppable and isinstance(error, Exception)
            await self._throw(Interrupt() if signalled else error)
        else:
            await self._step(self._execution.send, result)

    async def _step(self, step: Callable[[Any], None], value: Any) -> None:
        try:
            step(value)
        finally:
            if self._execution.ended:
                self._runtime.unregister(self)
                if self._permit is not None:
                    self._permit.release()
                if self._answer is not None:
                    await _sheltered(self._answer.close())

    async def _do(self, effect: Effect | None) -> Any:  # noqa: PLR0911 - one for each effect
        match effect:
            case Read(_, work):
                return await self._runtime.database.read(work)
            case Write(_, work, patient):
                return await _sheltered(self._runtime.database.write(work, patient=patient))
            case Wipe():
                return await _sheltered(self._runtime.database.wipe())
            case Admit():
                return await self._admit()
            case Open(endpoint, request):
                self._answer = await self._open(endpoint, request)
                return Head(self._answer.status, self._answer.headers)
            case Receive():
                assert self._answer is not None
                return AnswerBytes(await self._stoppable(self._answer.read()))
            case Release():
                await self._release()
            case Pause(seconds):
                await self._stoppable(asyncio.sleep(seconds))
            case Ask() | Notify() | Warn():
                return await self._stoppable(watched_async(self._runtime.observers, effect))
        return None

    async def _admit(self) -> bool:
        gate = self._runtime.gate
        if gate is None:
            return True
        self._permit = permit = self._permit or gate.permit()
        try:
            return cast("bool", await self._stoppable(permit.wait()))
        except BaseException:
            permit.release()  # now, since a turn's end takes its time
            raise

    async def _open(self, endpoint: Endpoint, request: WireRequest) -> AsyncAnswer:
        transport: Any = self._runtime.transport
        permit, self._permit = self._permit, None
        if permit is None:
            return cast("AsyncAnswer", await self._stoppable(transport.open(endpoint, request)))
        try:
            return cast("AsyncAnswer", await self._stoppable(transport.open(endpoint, request, permit.release)))
        finally:
            permit.release()

    async def _release(self) -> None:
        if self._answer is not None:
            await self._answer.release()

    async def _stoppable(self, work: Awaitable[Any]) -> Any:
        """Wait for something that ``signal_interrupt`` may cut short, without a task for each piece of an answer."""
        self._waiting = task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            return await work
        except asyncio.CancelledError:
            if self._cut and task.uncancel() <= before:
                raise Interrupt from None
            raise  # its caller cancelled it
        finally:
            self._waiting = None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _sheltered(work: Any) -> Any:
    """Finish ``work`` even when the task is cancelled meanwhile, and only then let the cancellation go on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001, S110 - it is the task's, and given below
            pass
    if cancelled is not None:
        task.exception()  # seen; the cancellation goes first
        raise cancelled
    return task.result()

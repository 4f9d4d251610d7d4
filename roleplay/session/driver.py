"""The two shells: each performs the effects of one operation until it has ended, and decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar, cast

from roleplay.chat.transport import Answer, AsyncAnswer, AsyncTransport, Piece, Transport
from roleplay.domain.conversation import Delta, Turn, TurnStatus
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.events import Observer
from roleplay.errors import ConflictError, RoleplayError, SettingsError
from roleplay.session.gate import AsyncGate, AsyncPlace, Gate, Place
from roleplay.session.watch import watched, watched_async
from roleplay.store.access.aio import AsyncDatabase
from roleplay.store.access.database import Database
from roleplay.turns.effects import (
    Admit,
    Ask,
    Claimed,
    Effect,
    Emit,
    Ended,
    Interrupt,
    Notify,
    Open,
    Pause,
    Read,
    Receive,
    Release,
    Steps,
    Warn,
    Wipe,
    Write,
)
from roleplay.wire.heads import Head
from roleplay.wire.request import WireRequest

T = TypeVar("T")
GRACE_S = 10.0
DROPPED_WAIT_S = 1.0
OTHER_LOOP = "the engine belongs to the event loop in which it was opened; open one in each event loop"
_WAITING = Admit | Open | Receive | Pause
FORKED = "the engine was opened before this process was forked; open one in each process"


class _Execution(Generic[T]):
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


def _begins(effect: Effect | None) -> bool:
    """Whether an operation that is to end is told so in place of this effect: where it would wait or begin something.

    What is patient is a turn's end, and is done all the same.
    """
    return isinstance(effect, _WAITING | Read) or (isinstance(effect, Write) and not effect.patient)


class Runtime:
    """What the handles of one engine share: the database, the network, and which operations are on."""

    def __init__(self, database: Database, transport: Transport) -> None:
        self.database = database
        self.transport = transport
        self.owns_transport = False
        self.gate: Gate | None = None  # of a transport that tells when a request was sent
        self.observers: Sequence[Observer] = ()
        self._on: set[Driver[Any]] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closing = False
        self._process = os.getpid()

    @property
    def is_ours(self) -> bool:
        """Whether this process opened the engine: a fork shares its connections, and must leave them alone."""
        return self._process == os.getpid()

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation from beginning to end and give its result."""
        driver = Driver(self, steps)
        try:
            return _whole(driver, driver.to_end())
        finally:
            driver.interrupt()  # Ctrl-C may come between any two lines

    def register(self, driver: Driver[Any]) -> None:
        """Note one that is on. Raises ``ConflictError`` once the engine closes, ``SettingsError`` in a fork."""
        if not self.is_ours:
            raise SettingsError(FORKED)
        with self._lock:
            if self._closing:
                raise ConflictError("the engine is closed")
            self._on.add(driver)

    def unregister(self, driver: Driver[Any]) -> None:
        """Note that an operation has ended."""
        with self._lock:
            self._on.discard(driver)
            if self._closing:
                self._changed.notify_all()

    def start(self, work: Callable[[], object]) -> threading.Thread:
        """Do ``work`` in a thread of its own, which ``close`` waits for."""

        def whole() -> None:
            try:
                work()
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=whole, name="roleplay-reply", daemon=False)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self._threads.discard(thread)
            raise
        return thread

    def end_dropped(self, driver: Driver[Any]) -> None:
        """End a reply whose stream was dropped; wait for a moment, so that the session is free when one goes on.

        A thread does it: the garbage collector calls this from anywhere, in the middle of a transaction too.
        """
        if driver.ended or not self.is_ours:
            return
        try:
            thread = self.start(driver.interrupt_quietly)
        except RuntimeError:  # no thread begins while the interpreter shuts down
            driver.interrupt_quietly()
        else:
            thread.join(DROPPED_WAIT_S)

    def close(self, grace_s: float, owned: Sequence[Callable[[], None]] = ()) -> None:
        """Let no operation begin, wait ``grace_s`` seconds for those that are on, interrupt what is left of them, and
        close what is ``owned``. Whatever goes wrong, all of it is done; the first error is raised then. Ctrl-C ends the
        waiting."""
        failures = _Failures()
        with self._changed:
            self._closing = True
            with failures:
                self._changed.wait_for(lambda: not self._on, grace_s)
            left = list(self._on)
        for driver in left:
            with failures:
                driver.signal_interrupt()
        if self.owns_transport:
            with failures:
                self.transport.close()  # wakes those who wait for an answer that has not begun
        give_up = time.monotonic() + (0 if failures.first else grace_s) + 1
        for driver in left:
            with failures, contextlib.suppress(ConflictError):  # its turn was taken over, or it had none yet
                driver.interrupt(max(give_up - time.monotonic(), 0))
        for thread in self._threads - {threading.current_thread()}:
            with failures:
                thread.join(max(give_up - time.monotonic(), 0))
        for close in owned:
            with failures:
                close()
        if failures.first is not None:
            raise failures.first


class _Failures:
    """What goes wrong in some steps that must all be done."""

    def __init__(self) -> None:
        self.first: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        self.first = self.first or error
        return True


def _whole(driver: Driver[T] | AsyncDriver[T], result: T) -> T:
    """Give the result to who waited for all of it. Raises ``ConflictError`` for a turn that was cut off."""
    if driver.signalled and isinstance(result, Turn) and result.status is TurnStatus.INTERRUPTED:
        raise ConflictError("the engine is closed", turn_id=result.id)
    return result


class Driver(Generic[T]):
    """Performs the effects of one operation, blocking."""

    def __init__(self, runtime: Runtime, steps: Steps[T]) -> None:
        self._runtime = runtime
        self._answer: Answer | None = None
        self._place: Place | None = None
        self._signal = threading.Event()
        self._alone = threading.RLock()  # one thread at a time drives; another may close the engine
        runtime.register(self)
        try:
            self._execution = _Execution(steps)
        except BaseException:
            runtime.unregister(self)
            raise
        if self._execution.ended:
            self._note_end()

    @property
    def ended(self) -> bool:
        return self._execution.ended

    @property
    def result(self) -> T | None:
        return self._execution.result

    @property
    def signalled(self) -> bool:
        return self._signal.is_set()

    def until_emit(self) -> Delta | Claimed | None:
        """Perform effects until something is handed to the caller; ``None`` when the operation has ended."""
        with self._alone:
            while not self._execution.ended:
                effect = self._execution.effect
                if isinstance(effect, Emit):
                    self._step(self._execution.send, None)
                    return effect.what
                self._perform(effect)
        return None

    def to_end(self) -> T:
        """Perform everything that is left and give the operation's result."""
        with self._alone:
            while not self._execution.ended:
                try:
                    self.until_emit()
                except BaseException as error:
                    if self._execution.ended:
                        raise
                    self._throw(error)  # Ctrl-C between two steps: the operation ends its turn
        return self._execution.result  # type: ignore[return-value]

    def interrupt(self, patience_s: float = -1) -> None:
        """End the reply now, in this thread or, for ``patience_s`` seconds, in the one that waits for it."""
        if self._execution.ended:
            return
        if not self._alone.acquire(blocking=False):
            self.signal_interrupt()
            if not self._alone.acquire(timeout=patience_s):
                return
        try:
            self._throw(Interrupt())
            self.to_end()
        finally:
            self._alone.release()

    def reader_left(self) -> None:
        """The reader has gone: end the reply."""
        self.interrupt()

    def interrupt_quietly(self) -> None:
        """End a reply that nobody waits for; what goes wrong is stored, or there is nobody to tell."""
        with contextlib.suppress(RoleplayError):
            self.interrupt()

    def _throw(self, error: BaseException) -> None:
        if not self._execution.ended:
            self._step(self._execution.throw, error)

    def signal_interrupt(self) -> None:
        """From another thread: end the reply at the next chance, and wake whoever waits for it."""
        self._signal.set()
        answer, place = self._answer, self._place
        if place is not None:
            place.wake()
        if answer is not None:
            answer.close()

    def _perform(self, effect: Effect | None) -> None:
        try:
            if self.signalled and _begins(effect):
                raise Interrupt  # noqa: TRY301 - what was stopped is told where it would wait
            result = self._do(effect)
        except BaseException as error:  # noqa: BLE001 - the operation decides what every failure means, Ctrl-C too
            signalled = self.signalled and isinstance(error, Exception) and isinstance(effect, _WAITING)
            self._throw(Interrupt() if signalled else error)
        else:
            self._step(self._execution.send, result)

    def _step(self, step: Callable[[Any], None], value: Any) -> None:
        try:
            step(value)
        finally:
            if self._execution.ended:
                self._note_end()

    def _note_end(self) -> None:
        if self._place is not None:
            self._place.release()
        if self._answer is not None:
            self._answer.close()
        self._runtime.unregister(self)

    def _do(self, effect: Effect | None) -> Any:  # noqa: PLR0911 - one for each effect
        match effect:
            case Read(_, work):
                return self._runtime.database.read(work)
            case Write(_, work, patient):
                return self._runtime.database.write(work, patient=patient)
            case Wipe():
                return self._runtime.database.wipe()
            case Admit():
                return self._admit()
            case Open(endpoint, request):
                self._answer = self._open(endpoint, request)
                return Head(self._answer.status, self._answer.headers)
            case Receive():
                assert self._answer is not None
                return Piece(self._answer.read())
            case Release():
                self._release()
            case Pause(seconds):
                self._rest(seconds)
            case Ask() | Notify() | Warn():
                return watched(self._runtime.observers, effect)
        return None

    def _admit(self) -> bool:
        gate = self._runtime.gate
        if gate is None:
            return True
        self._place = place = self._place or gate.place()
        try:
            held = not self.signalled and place.wait()
            if self.signalled:  # before there was a place to wake, or meanwhile
                raise Interrupt  # noqa: TRY301
        except BaseException:
            place.release()  # now, since a turn's end takes its time
            raise
        return held

    def _open(self, endpoint: Endpoint, request: WireRequest) -> Answer:
        transport: Any = self._runtime.transport
        place, self._place = self._place, None
        if place is None:
            return cast("Answer", transport.open(endpoint, request))
        try:
            return cast("Answer", transport.open(endpoint, request, place.release))
        finally:
            place.release()

    def _release(self) -> None:
        if self._answer is not None:
            self._answer.release()

    def _rest(self, seconds: float) -> None:
        if self._signal.wait(seconds):
            raise Interrupt


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

    async def run(self, steps: Steps[T], *, speaks: bool = False) -> T:
        """Perform an operation from beginning to end and give its result. ``speaks``: it asks a model."""
        if speaks:
            self.see_to_the_loop()
        driver = AsyncDriver(self, steps)
        return _whole(driver, await driver.to_end())

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
        failures = _Failures()
        with failures:
            await self._quiet(grace_s)
        patience_s = (0 if failures.first else grace_s) + 1
        with failures:
            await _sheltered(self._end(patience_s, owned))
        if failures.first is not None:
            raise failures.first

    async def _end(self, patience_s: float, owned: Sequence[Callable[[], Awaitable[None]]]) -> None:
        failures = _Failures()
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
        self._place: AsyncPlace | None = None
        self.signalled = False
        self._cut = False
        self._waiting: asyncio.Task[Any] | None = None
        self._alone = asyncio.Lock()  # one task at a time drives; another may close the engine
        runtime.register(self)
        try:
            self._execution = _Execution(steps)
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

    async def until_emit(self) -> Delta | Claimed | None:
        """Perform effects until something is handed to the caller; ``None`` when the operation has ended."""
        async with self._alone:
            return await self._until_emit()

    async def _until_emit(self) -> Delta | Claimed | None:
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
            if self.signalled and _begins(effect):
                raise Interrupt  # noqa: TRY301 - what was stopped is told where it would wait
            result = await self._do(effect)
        except BaseException as error:  # noqa: BLE001 - the operation decides what every failure means, cancellation too
            stoppable = isinstance(effect, _WAITING)
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
                if self._place is not None:
                    self._place.release()
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
                return Piece(await self._stoppable(self._answer.read()))
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
        self._place = place = self._place or gate.place()
        try:
            return cast("bool", await self._stoppable(place.wait()))
        except BaseException:
            place.release()  # now, since a turn's end takes its time
            raise

    async def _open(self, endpoint: Endpoint, request: WireRequest) -> AsyncAnswer:
        transport: Any = self._runtime.transport
        place, self._place = self._place, None
        if place is None:
            return cast("AsyncAnswer", await self._stoppable(transport.open(endpoint, request)))
        try:
            return cast("AsyncAnswer", await self._stoppable(transport.open(endpoint, request, place.release)))
        finally:
            place.release()

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

"""The blocking shell: performs the effects of operations, and decides nothing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

from roleplay.chat.transport import Answer, AnswerBytes, Transport
from roleplay.domain.endpoint import Endpoint
from roleplay.domain.events import Observer
from roleplay.errors import ConflictError, RoleplayError, SettingsError
from roleplay.session.execution import FORKED, WAITING, Execution, Failures, begins, steps_of, whole
from roleplay.session.gate import Gate, Permit
from roleplay.session.watch import watched
from roleplay.store.access.database import Database
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
DROPPED_WAIT_S = 1.0


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

    def run(self, work: Steps[T] | Single[T]) -> T:
        """Perform an operation, which may be a single effect, and give its result."""
        driver = Driver(self, steps_of(work))
        try:
            return whole(driver.to_end(), signalled=driver.signalled)
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
        failures = Failures()
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


class Driver(Generic[T]):
    """Performs the effects of one operation, blocking."""

    def __init__(self, runtime: Runtime, steps: Steps[T]) -> None:
        self._runtime = runtime
        self._answer: Answer | None = None
        self._permit: Permit | None = None
        self._signal = threading.Event()
        self._alone = threading.RLock()  # one thread at a time drives; another may close the engine
        runtime.register(self)
        try:
            self._execution = Execution(steps)
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

    def until_emit(self) -> Emitted | None:
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
        answer, permit = self._answer, self._permit
        if permit is not None:
            permit.wake()
        if answer is not None:
            answer.close()

    def _perform(self, effect: Effect | None) -> None:
        try:
            if self.signalled and begins(effect):
                raise Interrupt  # noqa: TRY301 - what was stopped is told where it would wait
            result = self._do(effect)
        except BaseException as error:  # noqa: BLE001 - the operation decides what every failure means, Ctrl-C too
            signalled = self.signalled and isinstance(error, Exception) and isinstance(effect, WAITING)
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
        if self._permit is not None:
            self._permit.release()
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
                return AnswerBytes(self._answer.read())
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
        self._permit = permit = self._permit or gate.permit()
        try:
            held = not self.signalled and permit.wait()
            if self.signalled:  # before there was a permit to wake, or meanwhile
                raise Interrupt  # noqa: TRY301
        except BaseException:
            permit.release()  # now, since a turn's end takes its time
            raise
        return held

    def _open(self, endpoint: Endpoint, request: WireRequest) -> Answer:
        transport: Any = self._runtime.transport
        permit, self._permit = self._permit, None
        if permit is None:
            return cast("Answer", transport.open(endpoint, request))
        try:
            return cast("Answer", transport.open(endpoint, request, permit.release))
        finally:
            permit.release()

    def _release(self) -> None:
        if self._answer is not None:
            self._answer.release()

    def _rest(self, seconds: float) -> None:
        if self._signal.wait(seconds):
            raise Interrupt

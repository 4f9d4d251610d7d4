"""Both front doors behind one face, so that one suite holds both to the same behaviour.

``Roleplay.open`` gives the blocking engine or, when the test runs for asyncio, the asyncio engine on an event loop in a
thread of its own, with its coroutines waited for.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self

import roleplay
from roleplay.testing import ScriptedModel

WRAPPED = ("roleplay.aio", "roleplay.session", "roleplay.replay")
_END = object()
current = "sync"


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def end(self) -> None:
        """Stop the loop, which nothing may run on any more."""
        left = self.wait(_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert not left, f"tasks are left: {left}"


async def _others() -> list[str]:
    for _ in range(20):
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not tasks:
            return []
        await asyncio.sleep(0.01)
    return [str(task) for task in tasks]


class Face:
    """An object of the asyncio side, used as its blocking twin is."""

    def __init__(self, loop: Loop, target: Any) -> None:
        self._loop = loop
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if inspect.isasyncgenfunction(value):
            return lambda *args, **options: self._walk(value(*args, **options))
        if inspect.iscoroutinefunction(value):
            return lambda *args, **options: self._dress(self._loop.wait(value(*args, **options)))
        if inspect.ismethod(value):
            return lambda *args, **options: self._dress(value(*args, **options))
        return self._dress(value)

    def __iter__(self) -> Iterator[Any]:
        return self._walk(self._target.__aiter__())

    def __enter__(self) -> Self:
        self._loop.wait(self._target.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.wait(self._target.__aexit__(kind, error, trace))
        if isinstance(self._target, roleplay.AsyncRoleplay):
            self._loop.end()

    def _dress(self, value: Any) -> Any:
        return Face(self._loop, value) if type(value).__module__.startswith(WRAPPED) and not _plain(value) else value

    def _walk(self, items: Any) -> Iterator[Any]:
        while (item := self._loop.wait(_next(items))) is not _END:
            yield item


def _plain(value: Any) -> bool:
    return isinstance(value, roleplay.Preview)


async def _next(items: Any) -> Any:
    return await anext(items, _END)


class Roleplay:
    """``roleplay.Roleplay`` or the face of ``roleplay.AsyncRoleplay``, as the running test wants."""

    @staticmethod
    def open(url: str, **options: Any) -> Any:
        """Open the engine of the current shell."""
        if current == "sync":
            return roleplay.Roleplay.open(url, **options)
        chat = options.get("chat")
        if isinstance(chat, ScriptedModel):
            options["chat"] = chat.aio
        loop = Loop()
        return Face(loop, loop.wait(roleplay.AsyncRoleplay.open(url, **options)))

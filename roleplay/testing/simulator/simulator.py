"""The simulator: the API on loopback, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from roleplay.testing.simulator.faults import Fault, RefuseRolePlayRoles
from roleplay.testing.simulator.messages import MessageRules
from roleplay.testing.simulator.models import MODELS, Model, by_id
from roleplay.testing.simulator.received import Log, ReceivedRequest
from roleplay.testing.simulator.rules import Rules
from roleplay.testing.simulator.script import Script
from roleplay.testing.simulator.server import Server
from roleplay.testing.simulator.service import Clock, Manner, Service


class Simulator:
    """A real HTTP server on 127.0.0.1 that answers as the chat API does, as strict as the strictest server known.

    Use it as a context manager, or call `start` and `stop`. Its methods may be called from any thread at any time.

    Rules: `api_key` is the only key taken. `models` are the models served (a plain string stands for a model of that
    name on `/v1/chat/completions`). `refuse_roles` refuses the four role-play roles in every request. `require_names`
    asks for a name on every message once a role-play role occurs. `allow_prefill` lets an assistant message be last.

    Manner: `thinking` makes models that reason show it, `echo_name` answers under the persona's name and not the API's
    fixed one, `chunk_characters` is the size of a stream's deltas (the API's own are about 125 characters).

    Surroundings: `port` 0 takes any that is free. `clock` gives the Unix seconds of `created`; without one, they are a
    fixed start and the number of the request. `on_request` is called for each request on the server's thread.
    """

    def __init__(
        self,
        api_key: str = "test-key",
        *,
        models: Iterable[Model | str] = MODELS,
        refuse_roles: bool = False,
        require_names: bool = True,
        allow_prefill: bool = False,
        thinking: bool = False,
        echo_name: bool = False,
        chunk_characters: int = 40,
        port: int = 0,
        clock: Clock | None = None,
        on_request: Callable[[ReceivedRequest], None] | None = None,
    ) -> None:
        if chunk_characters < 1:
            raise ValueError("chunk_characters must be at least 1")
        messages = MessageRules(require_names=require_names, allow_prefill=allow_prefill)
        if refuse_roles:
            messages = RefuseRolePlayRoles().rules(messages)
        manner = Manner(thinking, echo_name, chunk_characters)
        self._script = Script()
        self._log = Log(on_request)
        self._service = Service(Rules(api_key, by_id(models), messages), manner, self._script, self._log, clock)
        self._port = port
        self._server: Server | None = None
        self.api_key = api_key

    def start(self) -> Self:
        """Starts listening, returns itself; raises `RuntimeError` if it runs already, `OSError` on a taken port."""
        if self._server is not None:
            raise RuntimeError("the simulator is running")
        self._server = Server(self._service.answer, self._port)
        return self

    def stop(self) -> None:
        """Closes every connection and ends the server's thread; what was received stays readable. May be repeated."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a slash at the end; raises `RuntimeError` when it is not running."""
        return f"http://127.0.0.1:{self._running.port}"

    @property
    def open_connections(self) -> int:
        """How many clients are connected now; raises `RuntimeError` when it is not running."""
        return self._running.open_connections

    @property
    def requests(self) -> list[ReceivedRequest]:
        """What was received so far, in the order of arrival: a copy."""
        return self._log.all()

    def clear(self) -> None:
        """Forgets the received requests."""
        self._log.clear()

    def say(self, *texts: str) -> None:
        """Queues replies, first in, first out: the next requests that are answered with words get them.

        A request that is refused, or whose fault lets no word out, leaves the queue as it is.
        """
        self._script.add_texts(texts)

    def next(self, *faults: Fault, times: int = 1) -> None:
        """Queues the faults, all together, for the next `times` chat requests; later calls queue behind.

        A request that breaks a rule uses none up, unless a fault among them changes the rules.
        """
        if times < 1 or not faults:
            raise ValueError("next needs a fault and at least one time")
        self._script.add_next(faults, times)

    def always(self, *faults: Fault) -> None:
        """Applies the faults to every chat request from now on, beneath those of `next`."""
        self._script.add_always(faults)

    def heal(self) -> None:
        """Drops every fault and every queued text."""
        self._script.forget()

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise RuntimeError("the simulator is not running")
        return self._server

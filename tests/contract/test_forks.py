"""An engine in a forked process: its connections are its parent's, so it refuses to use them and leaves them alone."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

from roleplay import Endpoint, Persona, Roleplay, SettingsError
from roleplay.store.access.process import this_owner
from roleplay.testing import ScriptedModel

MODEL = Endpoint("MiniMax-M2.7")


def in_a_fork(work: Callable[[], None]) -> int:
    """Run ``work`` in a fork of this process; gives its exit status."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:  # noqa: BLE001 - it must not go on as the test's process
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_leaves_its_parents_engine_alone(database_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """It is told to open its own; closing the inherited one closes nothing; the parent talks on, as another owner."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        session.send("Before.")
        parent = this_owner()

        def child() -> None:
            assert this_owner() != parent
            try:
                session.send("Here?")
            except SettingsError as error:
                assert "forked" in str(error)
            else:
                raise AssertionError("a fork used its parent's connections")
            rp.close()
            with Roleplay.open(database_url, model=MODEL, chat=ScriptedModel("Mine.")) as own:
                assert len(own.sessions.get(session.id).turns().items) == 1

        assert in_a_fork(child) == 0
        assert session.send("After.").reply.text == "You said: After."  # type: ignore[union-attr]
        assert list(rp.doctor()) == []

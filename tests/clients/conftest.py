"""What the tests of other clients are given: the simulator, and a machine that reaches nothing but itself.

They need the dependency group ``clients``: ``python3 dev.py test tests/clients`` installs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from roleplay.testing import Simulator
from tests.conftest import KEY

# Read while the package is imported: without it, LiteLLM asks the network for a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# LangChain's tracing.
os.environ["LANGSMITH_TRACING"] = "false"

#: What would send a client elsewhere, or make it say more than it is asked to.
STRANGE = ("OPENAI_", "LITELLM_", "LANGCHAIN_", "LANGSMITH_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_")
KEPT = {"LITELLM_LOCAL_MODEL_COST_MAP", "LANGSMITH_TRACING"}

#: Where a test of this folder tried to go that is not this machine.
strangers: list[str] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note every host that is looked up or called, unless it is this one."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in {None, "localhost", "127.0.0.1", "::1"}:
        strangers.append(f"{event} {host}")


sys.addaudithook(watch)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test whose client looked for another host; what was done while the packages were imported counts too."""
    for name in set(os.environ) - KEPT:
        if name.upper().startswith(STRANGE):
            monkeypatch.delenv(name)
    yield
    assert not strangers


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """The strict simulator; takes the place of the one whose requests must all be stored calls of ours."""
    with Simulator(KEY, chunk_characters=7) as one:
        yield one

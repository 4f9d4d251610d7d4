"""The servers that both transports are tested against."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from roleplay.testing import Simulator
from tests.support.http import KEY, Raw


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulator beside the engine's: what it receives was never stored."""
    with Simulator(KEY) as one:
        yield one


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[socket.socket, bytes], None]], Raw]]:
    """Makes raw servers."""
    made: list[Raw] = []

    def make(talk: Callable[[socket.socket, bytes], None]) -> Raw:
        made.append(Raw(talk))
        return made[-1]

    yield make
    for one in made:
        one.close()

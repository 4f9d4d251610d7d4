"""A strict imitation of the chat API over real HTTP, for tests."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from roleplay.testing.simulator import faults
from roleplay.testing.simulator.faults import *  # noqa: F403 - every fault is public, and faults.__all__ is the list
from roleplay.testing.simulator.models import MODELS, NATIVE_PATH, OPENAI_PATH, Model
from roleplay.testing.simulator.received import ReceivedRequest

if TYPE_CHECKING:
    from roleplay.testing.simulator.simulator import Simulator

__all__ = ["MODELS", "NATIVE_PATH", "OPENAI_PATH", "Model", "ReceivedRequest", "Simulator"]
__all__ += faults.__all__

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Give the server when it is asked for, so that a program can say what it lacks."""
        if name != "Simulator":
            raise AttributeError(f"module 'roleplay.testing.simulator' has no attribute {name!r}")
        return import_module("roleplay.testing.simulator.simulator").Simulator

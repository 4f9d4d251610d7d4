"""A strict imitation of the chat API over real HTTP, for tests."""

from __future__ import annotations

from roleplay.testing.simulator import faults
from roleplay.testing.simulator.faults import *  # noqa: F403 - every fault is public, and faults.__all__ is the list
from roleplay.testing.simulator.models import MODELS, NATIVE_PATH, OPENAI_PATH, Model
from roleplay.testing.simulator.received import ReceivedRequest
from roleplay.testing.simulator.simulator import Simulator

__all__ = ["MODELS", "NATIVE_PATH", "OPENAI_PATH", "Model", "ReceivedRequest", "Simulator"]
__all__ += faults.__all__

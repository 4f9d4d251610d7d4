"""What we test with, for your tests too: a scripted model inside the process, and a strict simulator of the API."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from roleplay.testing.scripted import ScriptedModel

if TYPE_CHECKING:
    from roleplay.testing.simulator import Simulator

__all__ = ["ScriptedModel", "Simulator"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Give the simulator when it is asked for: what it serves HTTP with is an extra."""
        if name != "Simulator":
            raise AttributeError(f"module 'roleplay.testing' has no attribute {name!r}")
        return import_module("roleplay.testing.simulator").Simulator

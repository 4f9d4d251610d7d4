"""What we test with, for your tests too: a scripted model inside the process, and a strict simulator of the API."""

from roleplay.testing.scripted import ScriptedModel
from roleplay.testing.simulator import Simulator

__all__ = ["ScriptedModel", "Simulator"]

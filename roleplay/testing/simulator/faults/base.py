# ruff: noqa: ARG002 - a fault is given all that it might need, and uses what it does need
"""What a fault is: a value that bends one answer at the places it chooses."""

from __future__ import annotations

from dataclasses import dataclass

from roleplay.testing.simulator.chat_request import ChatRequest
from roleplay.testing.simulator.messages import MessageRules
from roleplay.testing.simulator.refusals import Refusal
from roleplay.testing.simulator.shape import Reply, Shape
from roleplay.testing.simulator.steps import Steps


@dataclass(frozen=True)
class Page:
    """A whole body that stands in place of the answer."""

    status: int
    content_type: str
    body: bytes


class Fault:
    """One way in which a server may answer other than well; several may be combined.

    Each method gets what would have been and returns what shall be; a fault overrides those it needs.
    """

    @property
    def bends_rules(self) -> bool:
        """Whether it changes what is refused, and so is used up by a refused request too."""
        return False

    @property
    def speaks(self) -> bool:
        """Whether a reply lets words out and so uses up a queued text; what is answered instead of one never does."""
        return True

    def rules(self, rules: MessageRules) -> MessageRules:
        """The rules that the request is checked by."""
        return rules

    def instead(self, request: ChatRequest) -> Refusal | Page | None:
        """What an accepted request is answered in place of a reply, if anything."""
        return None

    def reply(self, reply: Reply) -> Reply:
        """What is said."""
        return reply

    def shape(self, shape: Shape) -> Shape:
        """How it is dressed."""
        return shape

    def octets(self, data: bytes) -> bytes:
        """The bytes of one event, or of a body."""
        return data

    def carry(self, steps: Steps, request: ChatRequest) -> Steps:
        """How the bytes travel."""
        return steps

"""A product's own tests: pytest test_my_bot.py. The first talks to a script, the second to a strict server."""

import pytest

from roleplay import ChatUnavailableError, Endpoint, Persona, Roleplay
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator import RateLimited


def greet(rp: Roleplay, name: str) -> str:
    """What the product does: seat its persona and say hello in the user's name."""
    host = rp.personas.put(Persona("Marta", "Keeps an inn.", key="marta"))
    session = rp.sessions.create(cast=[host], owner=name)
    return session.send(f"Good evening. I am {name}.").text


def test_the_line_that_is_sent() -> None:
    """Without a network: what the model is asked, and what becomes of its answer."""
    model = ScriptedModel("Come in, Lin.")
    with Roleplay.open("sqlite://", model=Endpoint("MiniMax-M2.7"), chat=model) as rp:
        assert greet(rp, "Lin") == "Come in, Lin."
    assert model.requests[0]["messages"][-1]["content"] == "Good evening. I am Lin."


def test_a_busy_service() -> None:
    """Over HTTP, against a server that refuses as the real one does."""
    with Simulator("test-key") as server:
        endpoint = Endpoint(
            "MiniMax-M2.7", base_url=server.base_url, api_key="test-key", dialect="minimax", retry={"attempts": 1}
        )
        server.next(RateLimited())
        with Roleplay.open("sqlite://", model=endpoint) as rp, pytest.raises(ChatUnavailableError):
            greet(rp, "Lin")

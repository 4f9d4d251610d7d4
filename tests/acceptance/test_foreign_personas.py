"""Personas that nobody here wrote, put by a short script and talked to through a real model on this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from roleplay import Endpoint, Roleplay, Sampling, SessionSettings, TurnStatus
from roleplay.cli.toy import ToyServer, start_toy
from tests.conftest import Ledger

HERE = Path(__file__).parents[1]
SCRIPT = HERE.parent / "examples" / "put_foreign_personas.py"
FILES = [HERE / "data" / "cards" / "full_v2_card.json", HERE / "data" / "sheets" / "rpbench_two.jsonl"]

SHORT = SessionSettings(sampling=Sampling(max_completion_tokens=24))  # enough for words; each costs processor time


@pytest.fixture(scope="module")
def toy() -> ToyServer:
    """The small language model of the command line."""
    with start_toy() as server:
        yield server


def test_they_are_put_and_answer(database_url: str, ledger: Ledger, toy: ToyServer) -> None:
    """A card and two sheets become personas; each greets, and a real model answers in two turns of each, one streamed.

    What a model said cannot be compared with a simulator, so every stored call is rebuilt here instead.
    """
    ledger.urls.clear()
    command = [sys.executable, str(SCRIPT), database_url, *map(str, FILES)]
    put = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    ids = [line.split()[0] for line in put.stdout.splitlines()]
    assert len(ids) == 3
    endpoint = Endpoint(
        toy.model,
        base_url=toy.base_url,
        api_key=toy.api_key,
        window_tokens=toy.window_tokens,
        max_output_tokens=toy.max_output_tokens,
    )
    with Roleplay.open(database_url, model=endpoint) as rp:
        for persona_id in ids:
            session = rp.sessions.create(cast=[persona_id], settings=SHORT)
            [greeting] = session.turns()
            assert greeting.reply.text
            check(session.send("Who are you?"))
            with session.stream("What do you want from me?") as reply:
                assert "".join(delta.text for delta in reply) == reply.turn.reply.text
            check(reply.turn)
        assert len(list(rp.replay.verify())) == 6


def check(turn) -> None:
    """A reply has words, does not babble one word, and has its usage."""
    assert turn.status is TurnStatus.COMPLETED
    assert re.search(r"\w", turn.reply.text)
    assert not re.search(r"\b(\w+)(?:\W+\1\b){6,}", turn.reply.text, re.IGNORECASE)
    assert turn.usage.total_tokens == turn.usage.prompt_tokens + turn.usage.completion_tokens

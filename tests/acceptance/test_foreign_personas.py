"""Personas that nobody here wrote, put by a short script and talked to through a real model on this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from roleplay import Endpoint, Roleplay, Sampling, Seat, SessionSettings, TurnStatus
from roleplay.cli.toy import ToyServer, start_toy
from tests.conftest import Ledger

HERE = Path(__file__).parents[1]
SCRIPT = HERE.parent / "examples" / "put_foreign_personas.py"
FILES = [HERE / "data" / "cards" / "full_v2_card.json", HERE / "data" / "sheets" / "rpbench_two.jsonl"]

ALL = [*FILES, HERE / "data" / "sheets" / "rpbench_seventh.jsonl", HERE / "data" / "cards" / "v2_unknown_fields.json"]

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
    ids = put(database_url, FILES)
    assert len(ids) == 3
    with Roleplay.open(database_url, model=endpoint_of(toy)) as rp:
        for persona_id in ids:
            session = rp.sessions.create(cast=[persona_id], settings=SHORT)
            [greeting] = session.turns()
            assert greeting.reply.text
            check(session.send("Who are you?"))
            with session.stream("What do you want from me?") as reply:
                assert "".join(delta.text for delta in reply) == reply.turn.reply.text
            check(reply.turn)
        assert len(list(rp.replay.verify())) == 6


def test_they_talk_to_each_other(sqlite_url: str, ledger: Ledger, toy: ToyServer) -> None:
    """Three sheets and two cards in one session: each replies in a round, and nobody speaks for another. The command
    line shows who said what, and every request is rebuilt."""
    ledger.urls.clear()
    ids = put(sqlite_url, ALL)
    assert len(ids) == 5
    settings = SHORT.evolve(speaking="list", round_turns=5)
    with Roleplay.open(sqlite_url, model=endpoint_of(toy)) as rp:
        session = rp.sessions.create(cast=ids, user=Seat(name="Max"), greetings="all", settings=settings)
        names = [one.display_name for one in session.info().models]
        with session.round("Good evening, all of you. Who are you?") as opened:
            turns = list(opened.turns())
        assert [turn.reply.name for turn in turns] == names
        for turn in turns:
            check(turn)
            others = [*(name for name in names if name != turn.reply.name), "Max"]
            assert not re.search("|".join(rf"^\W*{re.escape(name)}\W*:" for name in others), turn.text, re.MULTILINE)
        assert len(list(rp.replay.verify())) == 5
        shown = subprocess.run(
            [sys.executable, "-m", "roleplay", "--db", sqlite_url, "session", "show", session.id],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert f"Max: Good evening, all of you. Who are you?\n{names[0]}: " in shown.stdout
    for turn in turns:
        assert f"{turn.reply.name}: {turn.text.splitlines()[0]}" in shown.stdout


def put(database_url: str, files: list[Path]) -> list[str]:
    """Run the script on some files; gives the ids of the personas."""
    command = [sys.executable, str(SCRIPT), database_url, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.split()[0] for line in done.stdout.splitlines()]


def endpoint_of(toy: ToyServer) -> Endpoint:
    """The model as the engine is told of it."""
    return Endpoint(
        toy.model,
        base_url=toy.base_url,
        api_key=toy.api_key,
        window_tokens=toy.window_tokens,
        max_output_tokens=toy.max_output_tokens,
    )


def check(turn) -> None:
    """A reply has words, does not babble one word, and has its usage."""
    assert turn.status is TurnStatus.COMPLETED
    assert re.search(r"\w", turn.reply.text)
    assert not re.search(r"\b(\w+)(?:\W+\1\b){6,}", turn.reply.text, re.IGNORECASE)
    assert turn.usage.total_tokens == turn.usage.prompt_tokens + turn.usage.completion_tokens

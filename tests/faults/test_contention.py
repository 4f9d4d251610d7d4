"""Many processes speak at once into one database, each in a session of its own or all in the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from roleplay import Endpoint, Persona, Roleplay, Seat, SessionSettings, Turn, TurnStatus
from roleplay.testing import ScriptedModel
from tests.conftest import Ledger
from tests.support import crowd

PROCESSES = 8
LINES = {False: 200, True: 80}  # in one session they wait for each other
LONGEST_WAIT_S = 10.0  # as docs/how-a-turn-is-stored.md says
SMALL = SessionSettings(budget_tokens=300)  # what a context costs is not looked at here


@pytest.fixture
def rp(database_url: str, scripted: Callable[..., ScriptedModel]) -> Roleplay:
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=scripted()) as one:
        yield one


def path(rp: Roleplay, session_id: str) -> list[Turn]:
    """Read the whole path of a session, oldest first, and hold every reply against its own question."""
    session = rp.sessions.get(session_id)
    found: list[Turn] = []
    before = None
    while True:
        page = session.turns(before=before, limit=200)
        found = [*page.items, *found]
        before = page.older
        if before is None:
            break
    assert [turn.seq for turn in found] == list(range(1, len(found) + 1))
    assert [seq for turn in found for seq in (turn.human.seq, turn.reply.seq)] == list(range(1, 2 * len(found) + 1))
    assert all(turn.reply.parent_seq == turn.human.seq for turn in found)
    assert all(turn.reply.text == f"You said: {turn.human.text}" for turn in found)
    assert all(turn.status is TurnStatus.COMPLETED for turn in found)
    assert session.info().head_seq == 2 * len(found)
    return found


@pytest.mark.parametrize("shared", [False, True], ids=["sessions of their own", "one session"])
def test_processes_at_once(rp: Roleplay, database_url: str, ledger: Ledger, shared: bool) -> None:
    """Every send of eight processes is one turn, numbered without a gap, and nobody waits for too long."""
    persona = rp.personas.put(Persona("Huang", "A ferryman."))
    sessions = [rp.sessions.create(cast=[persona], settings=SMALL).id for _ in range(PROCESSES)]
    if shared:
        sessions = sessions[:1] * PROCESSES
    number_of_lines = LINES[shared]
    said = crowd.speak(database_url, sessions, number_of_lines)
    ledger.models[0].bodies += [body for one in said for body in one.bodies]
    lines = {who: [] for who in range(PROCESSES)}
    turns = [turn for session_id in dict.fromkeys(sessions) for turn in path(rp, session_id)]
    for turn in turns:
        who, _, number = turn.human.text.partition(": ")
        lines[int(who)].append(int(number))
    assert len(turns) == PROCESSES * number_of_lines
    assert all(numbers == list(range(number_of_lines)) for numbers in lines.values())
    assert list(rp.doctor()) == []
    assert max(max(one.took_s) for one in said) < LONGEST_WAIT_S


def test_processes_with_the_same_keys(rp: Roleplay, database_url: str, ledger: Ledger) -> None:
    """Four processes repeat the same keyed lines at once: one turn and one model call for a key, one reply for all."""
    persona = rp.personas.put(Persona("Huang", "A ferryman."))
    session_id = rp.sessions.create(cast=[persona], settings=SMALL).id
    said = crowd.speak(database_url, [session_id] * 4, 40, keyed=True)
    bodies = [body for one in said for body in one.bodies]
    ledger.models[0].bodies += bodies
    assert len(bodies) == 40
    assert [turn.human.text for turn in path(rp, session_id)] == [f"all: {number}" for number in range(40)]


def test_processes_with_the_same_rounds(rp: Roleplay, database_url: str, ledger: Ledger) -> None:
    """Two processes call the same keyed rounds at once: each turn is spoken once, and both are given all of them."""
    persona = rp.personas.put(Persona("Huang", "A ferryman."))
    cast = [Seat(persona, name=name, talkativeness=1) for name in ("Anna", "Ben", "Cara")]
    session_id = rp.sessions.create(cast=cast, settings=SMALL).id
    said = crowd.speak(database_url, [session_id] * 2, 4, keyed=True, rounds=True)
    bodies = [body for one in said for body in one.bodies]
    ledger.models[0].bodies += bodies
    assert len(bodies) == 4 * 3
    assert said[0].turns == said[1].turns
    turns = rp.sessions.get(session_id).turns(limit=200).items
    assert [turn.id for turn in turns] == [turn for one in said[0].turns for turn in one]
    assert [turn.ordinal for turn in turns] == [1, 2, 3] * 4
    assert list(rp.doctor()) == []

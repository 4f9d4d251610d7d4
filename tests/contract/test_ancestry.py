"""Whether a message is on a path, and what a path has at a depth: as a walk finds it, in any tree, in few look-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from roleplay import ChatRequestError, ChatSession, EstimatingCounter, Persona, Roleplay
from roleplay.store.access.database import Database
from roleplay.store.records import ancestry, turns
from roleplay.store.records.new_rows import NewMessage, PathEnd
from roleplay.testing import ScriptedModel

TENANT = "default"
AT = datetime(2026, 1, 1, tzinfo=UTC)
COUNTER = EstimatingCounter()
#: For each message the number of the one before it, 0 for none: long paths with some branches.
TREES = st.lists(st.integers(0, 3), min_size=1, max_size=60)


class Tree:
    """A session in which messages are written below others, with no regard to turns."""

    def __init__(self, rp: Roleplay, session: ChatSession) -> None:
        self.rp = rp
        self.database: Database = rp._runtime.database
        self.session = session.id
        self.parents: dict[int, int | None] = {}
        self.ends: dict[int | None, PathEnd] = {None: PathEnd()}

    def grow(self, parents: list[int | None]) -> None:
        """Write messages, each below another."""

        def work(db: Connection) -> None:
            for parent in parents:
                seq = len(self.parents) + 1
                message = NewMessage.after(
                    self.ends[parent], seq, (2, "User"), "Hm.", COUNTER, by_human=True, revision=1
                )
                turns.add_message(db, TENANT, self.session, 1, message, AT)
                self.parents[seq], self.ends[seq] = parent, message.end

        self.database.write(work)

    def path(self, head: int) -> list[int]:
        """The path that ends with a message, by a walk: that message first."""
        found, here = [], head
        while here is not None:
            found.append(here)
            here = self.parents[here]  # type: ignore[assignment]
        return found

    def is_on_path(self, message: int, head: int) -> bool:
        return self.database.read(lambda db: ancestry.is_on_path(db, TENANT, self.session, message, head=head))

    def at_depth(self, depth: int, head: int) -> int | None:
        return self.database.read(lambda db: ancestry.at_depth(db, TENANT, self.session, depth, head=head))


@pytest.fixture
def forest(database_url: str, scripted: Callable[..., ScriptedModel]) -> Iterator[Callable[[], Tree]]:
    """Makes trees: a session each, with one turn, whose messages are taken away."""
    with Roleplay.open(database_url, model="MiniMax-M2.7", chat=scripted(), migrate="auto") as rp:
        nova = rp.personas.put(Persona("Nova", greetings=["Welcome."]))

        def make() -> Tree:
            tree = Tree(rp, rp.sessions.create(cast=[nova]))
            where = {"session": tree.session, "tenant": TENANT}
            for sql in (
                "UPDATE roleplay_sessions SET head_seq = NULL WHERE id = :session AND tenant = :tenant",
                "DELETE FROM roleplay_head_moves WHERE session_id = :session AND tenant = :tenant",
                "DELETE FROM roleplay_messages WHERE session_id = :session AND tenant = :tenant",
            ):
                tree.database.write(lambda db, sql=sql: db.execute(text(sql), where))  # type: ignore[misc]
            return tree

        yield make


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=TREES)
def test_it_is_as_a_walk_finds_it(forest: Callable[[], Tree], shape: list[int]) -> None:
    """In any tree, for any two messages and any depth."""
    tree = forest()
    tree.grow([seq - 1 - back if seq - 1 - back > 0 else None for seq, back in enumerate(shape, start=1)])
    for head in {len(shape), max(len(shape) - 1, 1), len(shape) // 2 or 1}:
        path = tree.path(head)[::-1]

        def look(db: Connection, head: int = head, most: int = len(path) + 2) -> tuple[list[int], list[int | None]]:
            place = db, TENANT, tree.session
            on_it = [one for one in tree.parents if ancestry.is_on_path(*place, one, head=head)]
            return on_it, [ancestry.at_depth(*place, depth, head=head) for depth in range(most)]

        assert tree.database.read(look) == (path, [None, *path, None])


def test_what_is_not_there_is_on_no_path(forest: Callable[[], Tree]) -> None:
    tree = forest()
    tree.grow([None, 1, 2])
    assert not tree.is_on_path(9, 3)
    assert not tree.is_on_path(1, 9)
    assert tree.at_depth(1, 9) is None


@pytest.mark.parametrize("damage", ["NULL", "999", "seq", "CASE WHEN seq > 1 THEN seq - 1 ELSE 1 END"])
def test_a_pointer_that_is_lost_is_found_again(forest: Callable[[], Tree], damage: str) -> None:
    """The parents tell as well, in more steps; the doctor tells which pointers are wrong, and mends them."""
    tree = forest()
    tree.grow([None, *range(1, 100)])
    where = {"session": tree.session, "tenant": TENANT}
    mine = "WHERE session_id = :session AND tenant = :tenant"
    pointers = f"SELECT seq, jump_seq FROM roleplay_messages {mine} ORDER BY seq"
    before = tree.database.read(lambda db: db.execute(text(pointers), where).all())
    damaged = f"UPDATE roleplay_messages SET jump_seq = {damage} {mine} AND seq > 30"
    tree.database.write(lambda db: db.execute(text(damaged), where))
    assert tree.is_on_path(7, 100)
    assert tree.at_depth(20, 100) == 20
    found = [one for one in tree.rp.doctor() if one.fault == "wrong-jump"]
    assert {one.seq for one in found} <= set(range(31, 101))
    assert found
    mended = [one.mended for one in tree.rp.doctor(repair=True) if one.fault == "wrong-jump"]
    assert mended == [True] * len(found)
    assert tree.database.read(lambda db: db.execute(text(pointers), where).all()) == before


def test_messages_know_their_revision(database_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """That of the session when they were said: each door's, also where a turn is tried again under a later one."""
    model = scripted(ChatRequestError("no"), "One.", "Two.", "Three.")
    with Roleplay.open(database_url, model="MiniMax-M2.7", chat=model, migrate="auto") as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Nova", greetings=["Welcome."]))])
        with pytest.raises(ChatRequestError):
            session.send("Who?")
        session.update(scene="Later")
        with session.retry() as reply:
            list(reply)
        session.add("It rains.")
        session.update(scene="Still later")
        session.tree.edit(session.add("I see.", speaker="model").id, "I saw.")
        session.send("And?")
        sql = "SELECT text, revision FROM roleplay_messages WHERE tenant = 'default' ORDER BY seq"
        found = rp._runtime.database.read(lambda db: [tuple(row) for row in db.execute(text(sql))])
    assert found == [
        ("Welcome.", 1),
        ("Who?", 1),
        ("One.", 2),
        ("It rains.", 2),
        ("I see.", 3),
        ("I saw.", 3),
        ("And?", 3),
        ("Two.", 3),
    ]

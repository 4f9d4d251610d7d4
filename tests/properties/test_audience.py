"""May this seat see this message? The predicate, the expression of SQL, the walk and a rebuild say the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Integer, Text, bindparam, select, text

from roleplay import ChatSession, Endpoint, Persona, Roleplay
from roleplay.domain.context import Span
from roleplay.store.access.database import Database
from roleplay.store.records import history
from roleplay.store.records.audience import FOR_EVER, Viewer, may_see, read, seen_by, written
from roleplay.testing import ScriptedModel
from tests.house.test_statements import MESSAGES, SERIES, TURNS

SEATS = (1, 2, 12, 21, 112, 121)
LENGTH = 14
OFTEN_AWAY = Viewer(1, tuple((number, number + 1) for number in range(20, 2_420, 2)))
RUN = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

audiences = st.none() | st.sets(st.sampled_from(SEATS), min_size=1).map(written)
revisions = st.none() | st.integers(1, 9)
bounds = st.lists(st.integers(1, 9), unique=True, max_size=6).map(sorted)


@st.composite
def viewers(draw: Any) -> Viewer:
    """A seat that was away for some revisions, at last perhaps for ever."""
    between = draw(bounds)
    pairs = list(zip(between[::2], between[1::2], strict=False))
    if len(between) % 2:
        pairs.append((between[-1], FOR_EVER))
    return Viewer(draw(st.sampled_from(SEATS)), tuple(pairs))


@given(audiences)
def test_an_audience_is_read_as_it_was_written(stored: str | None) -> None:
    """Seats in order, each once."""
    assert written(read(stored)) == stored


@given(viewers(), audiences, revisions)
def test_the_predicate_says_what_the_law_says(viewer: Viewer, audience: str | None, revision: int | None) -> None:
    """A seat of the audience, or anybody where there is none, who sat there then; before revisions were kept, in the
    first."""
    heard = read(audience) is None or viewer.seat in (read(audience) or ())
    away = {one for begin, end in viewer.absences for one in range(begin, min(end, 20))}
    assert may_see(viewer, audience, revision) == (heard and (revision or 1) not in away)


def test_the_expression_and_the_predicate_agree(database_url: str) -> None:
    """On both databases, for whole numbers of seats: 1 and 2 are not in an audience of 12 and 21."""
    rows = select(
        bindparam("audience", type_=Text).label("audience"), bindparam("revision", type_=Integer).label("revision")
    ).subquery()
    database = Database.open(database_url)

    @RUN
    @given(viewers(), audiences, revisions)
    @example(Viewer(1), ",12,112,", 1)
    @example(Viewer(12), ",1,2,112,121,", None)
    @example(Viewer(2, ((1, 2),)), ",2,", None)
    @example(Viewer(2, ((1, 2), (5, FOR_EVER))), None, 4)
    @example(OFTEN_AWAY, None, 2_400)
    @example(OFTEN_AWAY, None, 2_401)
    def agree(viewer: Viewer, audience: str | None, revision: int | None) -> None:
        asked = select(seen_by(rows, viewer.conditions))
        values = {"audience": audience, "revision": revision} | viewer.values()
        said = database.read(lambda db: db.execute(asked, values).scalar_one())
        assert bool(said) is may_see(viewer, audience, revision)

    agree()
    database.close()


class Message(NamedTuple):
    """What the walk goes by, of one message of a path: whether it is a reply of the turn of the line before it is told
    by ``own``; ``answers``: its turn answers that line."""

    audience: str | None
    revision: int | None
    hidden: bool
    own: bool
    answers: bool


paths = st.lists(
    st.builds(Message, audiences, revisions, st.booleans(), st.booleans(), st.booleans()),
    min_size=LENGTH,
    max_size=LENGTH,
)
CHANGE = """
UPDATE roleplay_messages SET audience = :audience, revision = :revision, hidden = :hidden, turn_seq = :turn
WHERE tenant = 'default' AND session_id = :session AND seq = :seq
"""
ANSWERS = """
UPDATE roleplay_turns SET human_seq = :line WHERE tenant = 'default' AND session_id = :session AND seq = :turn
"""


class Walked(NamedTuple):
    """A session whose messages are written over."""

    database: Database
    session: ChatSession

    def write(self, path: list[Message]) -> None:
        """Let the session be such a path: a line and a reply in turn."""
        where = {"session": self.session.id}

        def work(db: Any) -> None:
            if self.database.dialect == "postgresql":
                db.execute(text("SET LOCAL session_replication_role = replica"))
            for seq, one in enumerate(path, start=1):
                turn, own = (seq + 1) // 2, one.own or seq % 2 == 0
                values = {"seq": seq, "turn": turn if own else LENGTH // 2 + 1, "audience": one.audience}
                db.execute(text(CHANGE), where | values | {"revision": one.revision, "hidden": one.hidden})
                if seq % 2 == 0:
                    db.execute(text(ANSWERS), where | {"turn": turn, "line": seq - 1 if one.answers else None})

        self.database.write(work)

    def back(self, viewer: Viewer | None, *, head: int = LENGTH, cap: int = history.UNBOUNDED) -> history.Path:
        """Walk back from a message."""
        where = {"head": head, "start": 0, "cap": cap, "per_message": 3, "viewer": viewer}
        return self.database.read(lambda db: history.path_back(db, "default", self.session.id, **where))

    def rebuilt(self, wanted: Span) -> list[int]:
        """The numbers of the lines of a recipe."""
        return [
            line.seq for line in self.database.read(lambda db: history.span(db, "default", self.session.id, wanted))
        ]


@pytest.fixture
def walked(database_url: str) -> Iterator[Walked]:
    """A session of lines and replies. What it is filled with was never sent."""
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel()) as rp:
        session, database = rp.sessions.create(cast=[rp.personas.put(Persona("Nova"))]), rp._runtime.database
        flags = {"true": "1", "false": "0"} if database.dialect == "sqlite" else {"true": "true", "false": "false"}
        most = {"session": session.id, "tenant": "default", "most": LENGTH}
        with_one_more = most | {"most": LENGTH // 2 + 1}

        def work(db: Any) -> None:
            if database.dialect == "postgresql":
                db.execute(text("SET LOCAL session_replication_role = replica"))
            db.execute(text(TURNS.format(series=SERIES[database.dialect], **flags)), with_one_more)
            db.execute(text(MESSAGES.format(series=SERIES[database.dialect], **flags)), most)

        database.write(work)
        yield Walked(database, session)


def test_a_walk_gives_what_the_seat_may_see_and_a_rebuild_gives_it_again(walked: Walked) -> None:
    """Whatever is hidden or whispered between: the lines are those of the whole walk that the seat may see, the tokens
    of others take no room, and the runs of what is hidden give the same lines again."""

    @RUN
    @given(paths, viewers(), st.integers(1, LENGTH), st.integers(20, 200))
    def same(path: list[Message], viewer: Viewer, head: int, cap: int) -> None:
        walked.write(path)
        whole = {line.seq: line for line in walked.back(None, head=head).lines}
        mine = [seq for seq in whole if may_see(viewer, path[seq - 1].audience, path[seq - 1].revision)]
        found = walked.back(viewer, head=head)
        assert [line.seq for line in found.lines] == mine
        assert list(found.lines) == [whole[seq] for seq in mine]
        assert (found.passed_over, found.unseen) == (0, 0)
        kept, total = [], 0
        for seq in reversed(mine):
            kept.insert(0, seq)
            total += whole[seq].tokens + 3
            if total > cap:
                break
        short = walked.back(viewer, head=head, cap=cap)
        shown = [line.seq for line in short.lines]
        assert shown == kept or any(one.hidden for one in path)  # what may be hidden costs nothing
        assert shown == mine[len(mine) - len(shown) :]
        assert len(shown) >= len(kept)
        if shown:
            runs = runs_of(short.skipped)
            rebuilt = walked.rebuilt(Span(shown[0], shown[-1], viewer.seat, runs=runs, absences=viewer.absences))
            assert rebuilt == shown
            assert runs == () or any(one.hidden for one in path)

    same()
    assert walked.back(OFTEN_AWAY, cap=0).lines == walked.back(Viewer(OFTEN_AWAY.seat), cap=0).lines


def runs_of(skipped: tuple[int, ...]) -> tuple[int, ...]:
    """As a recipe has them."""
    from roleplay.context.builder import _runs  # noqa: PLC0415 - a name of the builder's own

    return _runs(skipped)

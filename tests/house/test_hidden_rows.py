"""What is hidden costs a turn nothing beyond a bound: rows are counted with none, few and very many of them.

Each session begins with some visible turns; behind them lie the hidden ones, and then what is said in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from roleplay import ChatSession, Endpoint, Persona, Roleplay, SessionSettings
from roleplay.store.access.database import Database
from roleplay.store.records.history import PASSES
from roleplay.testing import ScriptedModel
from tests.house.test_statements import BUDGET_TOKENS, Crowd, fetched, scans

BEFORE = 20
SIZES = (0, PASSES, 2 * PASSES, 100_000)
HIDE = (
    "UPDATE roleplay_messages SET hidden = :hidden WHERE tenant = :tenant AND session_id = :session AND seq > :before"
)
RECIPE = """
SELECT recipe, recipe_version FROM roleplay_model_calls
WHERE tenant = :tenant AND session_id = :session AND id = :call
"""


class Hiding(Crowd):
    """A database with a session for each number of hidden messages."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.model = ScriptedModel(usage=False)
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
        self.rp = Roleplay.open(url, model=Endpoint("MiniMax-M2.7"), chat=self.model, settings=settings)
        self.database: Database = self.rp._runtime.database
        self.nova = self.rp.personas.put(Persona("Nova", "A pilot.", key="nova"))
        self.sessions = {size: self.of(size) for size in SIZES}

    def of(self, hidden: int) -> ChatSession:
        """A session whose newest messages are hidden, so many of them."""
        session = self.rp.sessions.create(cast=[self.nova])
        self.grow(session, BEFORE + hidden)
        self.mark(session, hidden=True)
        return session

    def mark(self, session: ChatSession, *, hidden: bool) -> None:
        """Hide all replies behind the first turns, or show them."""
        where = {"tenant": "default", "session": session.id, "before": BEFORE, "hidden": hidden}
        self.database.write(lambda db: db.execute(text(f"{HIDE} AND role = 'assistant'"), where))

    def recipe(self, session: ChatSession) -> str:
        """The recipe of the newest turn's call."""
        where = {"tenant": "default", "session": session.id, "call": session.turns(limit=1).items[-1].calls[-1].id}
        stored: str = self.database.read(lambda db: db.execute(text(RECIPE), where).one())[0]
        return stored


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def hiding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hiding]:
    """The sessions in a database of each kind in turn."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('hiding') / 'hiding.db'}"
    else:
        url = request.getfixturevalue("postgres").clone("current")
    one = Hiding(url)
    for size in SIZES:
        one.turn(size)
    yield one
    one.rp.close()


def said(hiding: Hiding) -> str:
    """The newest request."""
    return hiding.model.bodies[-1].decode()


def test_a_turn_costs_the_same_whatever_is_hidden(hiding: Hiding) -> None:
    """Statements are the same, rows and bytes too beyond the bound; no row that is hidden is given, but one."""
    turns = {size: hiding.turn(size) for size in SIZES}
    shapes = {size: [one.sql for one in seen] for size, seen in turns.items()}
    assert all(shapes[size] == shapes[0] for size in SIZES)
    rows = {size: [fetched(hiding.database, one) for one in seen] for size, seen in turns.items()}
    assert rows[2 * PASSES] == rows[100_000]
    assert rows[PASSES] == rows[0]
    assert all(sum(rows[size]) <= sum(rows[0]) for size in SIZES)
    recipes = {size: hiding.recipe(hiding.sessions[size]) for size in SIZES}
    assert max(map(len, recipes.values())) <= len(recipes[0]) + 20
    assert len(recipes[100_000]) <= len(recipes[2 * PASSES]) + 2 * len("100000")


def test_the_work_is_bounded(hiding: Hiding) -> None:
    """What the database does is the same beyond the bound, and scans nothing."""
    for _ in range(2):
        none, few, some, many = (hiding.effort(hiding.turn, size) for size in SIZES)
        assert 0 < many < 1.1 * some
        assert few - none < 200 * PASSES
        hiding.analyze()
    assert scans(hiding, hiding.turn(100_000)) == []


def test_no_text_of_a_hidden_row_is_read(hiding: Hiding) -> None:
    """The walk gives no text of what it stepped over."""
    for size in SIZES[1:]:
        [walk] = [seen for seen in hiding.turn(size) if "RECURSIVE" in seen.sql]
        rows = hiding.database.read(lambda db, seen=walk: db.exec_driver_sql(seen.sql, seen.values).all())
        newest = [row for row in rows if row.seq > BEFORE + size]
        assert [row for row in rows if BEFORE < row.seq <= BEFORE + size and row.text is not None] == []
        assert all(row.text for row in newest)


def test_what_lies_before_the_bound_is_shown(hiding: Hiding) -> None:
    """Behind 500 hidden turns the ones before are sent; behind more they are not, and the report says so."""
    for size, is_shown in zip(SIZES, (True, True, False, False), strict=True):
        session = hiding.sessions[size]
        hiding.turn(size)
        assert ("What was said as number 20" in said(hiding)) is is_shown
        assert "What was said as number 21" not in said(hiding)
        report = session.report()
        [history] = [one for one in report.sections if one.section == "history"]
        told = f"{PASSES + 1:,} hidden messages were passed over, what is older was not read"
        assert (told in history.reason) is not is_shown
        assert report.window_start == (1 if is_shown else BEFORE + size + 1)
        assert not report.new_epoch


@pytest.mark.parametrize("size", [PASSES - 2, 3 * PASSES])
def test_it_is_rebuilt_whatever_is_hidden_now(hiding: Hiding, size: int) -> None:
    """Requests come back byte for byte when all is shown again, when it is hidden anew, and when more is."""
    session = hiding.of(size)
    turns = [session.send("And then?") for _ in range(3)]
    session.tree.hide(turns[1].id)
    turns += [session.send("And then?"), session.send("And at last?")]
    sent = hiding.model.bodies[-5:]

    def rebuilt() -> list[bytes]:
        return [hiding.rp.replay.request(session.id, turn.calls[-1].id) for turn in turns]

    assert rebuilt() == sent
    hiding.mark(session, hidden=False)
    assert rebuilt() == sent
    hiding.mark(session, hidden=True)
    assert rebuilt() == sent
    assert hiding.recipe(session).startswith(f"[[{1 if size < PASSES else BEFORE + size + 1},")


def test_everything_may_be_hidden(hiding: Hiding) -> None:
    """Where nothing is visible the newest line is sent alone, and the report says what was not read."""
    session = hiding.of(2 * PASSES)
    session.send("Alone?")
    assert "What was said" not in said(hiding)
    [history] = [one for one in session.report().sections if one.section == "history"]
    assert (history.claimed_items, history.reason.split()[0]) == (0, f"{PASSES + 1:,}")
    assert str(session.report()).count("were passed over") == 1


def test_lines_that_only_a_second_look_tells(hiding: Hiding) -> None:
    """Visible lines before hidden replies that were spoken unasked are bounded too, and shown."""
    session = hiding.of(4 * PASSES)
    unasked = "UPDATE roleplay_turns SET human_seq = NULL WHERE tenant = :tenant AND session_id = :session"
    apart = (
        "UPDATE roleplay_messages SET turn_seq = turn_seq - 1"
        " WHERE tenant = :tenant AND session_id = :session AND role = 'user' AND seq > 1"
    )
    for sql in (unasked, apart):
        hiding.database.write(lambda db, sql=sql: db.execute(text(sql), {"session": session.id, "tenant": "default"}))
    hiding.sessions[-1] = session
    seen = hiding.turn(-1)
    assert "What was said as number 4017" in said(hiding)
    assert "What was said as number 4018" not in said(hiding)
    assert max(fetched(hiding.database, one) for one in seen) <= PASSES + 2

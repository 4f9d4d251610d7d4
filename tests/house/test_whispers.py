"""What was whispered to others costs a seat nothing beyond a bound, and a cast of eight costs the same at any length.

The sessions begin with some turns that all see; behind them lie those that were said to others, and then what is said
in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from roleplay import ChatSession, Endpoint, Persona, Roleplay, Seat, SessionSettings, TurnOptions
from roleplay.store.access.database import Database
from roleplay.store.access.tables import Base
from roleplay.store.records.history import PASSES
from roleplay.testing import ScriptedModel
from tests.house.test_statements import BUDGET_TOKENS, EPOCH, OTHERS, Crowd, Seen, fetched, scans, watched

BEFORE = 20
#: By name: how many messages lie behind the first, and which of their turns were said to others.
ALL, HALF = "TRUE", "turn_seq % 2 = 0"
WHISPERED = {0: ALL, PASSES: ALL, 2 * PASSES: ALL, 100_000: ALL}
MIXED = {10: HALF, 1_002: HALF, 100_002: HALF}
WHISPER = """
UPDATE roleplay_{rows} SET audience = ',2,12,112,'
WHERE tenant = :tenant AND session_id = :session AND {number} > :before AND {which}
"""
RECIPE = """
SELECT recipe FROM roleplay_model_calls WHERE tenant = :tenant AND session_id = :session AND id = :call
"""
LINE = "And then, so that the line is of no other length?"


class Whispering(Crowd):
    """A database with a session of eight seats for each number of messages."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.model = ScriptedModel(usage=False)
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS, speaking="list")
        self.rp = Roleplay.open(url, model=Endpoint("MiniMax-M2.7"), chat=self.model, settings=settings)
        self.database: Database = self.rp._runtime.database
        for number in range(5):
            self.rp.personas.put(Persona(f"Nova {number}", "A pilot.", key=f"nova-{number}"))
        for _ in range(OTHERS):
            self.grow(self.rp.sessions.create(cast=["nova-0"]), 20)
        if self.database.dialect == "postgresql":
            self.analyze()  # stale as soon as more comes
        self.sessions = {size: self.of(size, which) for size, which in (WHISPERED | MIXED).items()}

    def of(self, messages: int, which: str) -> ChatSession:
        """A session with so many messages behind the first, some or all of them said to others."""
        cast, users = [f"nova-{number}" for number in range(5)], [Seat(name=name) for name in ("Uma", "Vic", "Wu")]
        session = self.rp.sessions.create(cast=cast, users=users)
        self.grow(session, BEFORE + messages // 2 * 2)
        self.whisper(session, which)
        return session

    def whisper(self, session: ChatSession, which: str) -> None:
        """Say the later turns that are meant to others."""

        def work(db: object) -> None:
            for rows, number, before in (("messages", "turn_seq", BEFORE // 2), ("turns", "seq", BEFORE // 2)):
                of_rows = which.replace("turn_seq", number)
                sql = WHISPER.format(rows=rows, number=number, which=of_rows)
                where = {"tenant": "default", "session": session.id, "before": before}
                db.execute(text(sql), where)  # type: ignore[attr-defined]

        self.database.write(work)

    def turn(self, size: int) -> list[Seen]:
        """What one send does in a session that was already spoken in."""
        with watched() as seen:
            self.sessions[size].send(LINE, speaker="Uma")
        return [one for one in seen if not EPOCH.search(one.sql)]

    def recipe(self, size: int) -> str:
        """The recipe of the newest turn's call."""
        session = self.sessions[size]
        where = {"tenant": "default", "session": session.id, "call": session.turns(limit=1).items[-1].calls[-1].id}
        stored: str = self.database.read(lambda db: db.execute(text(RECIPE), where).scalar_one())
        return stored

    def bytes_of(self, session: ChatSession) -> int:
        """How much is kept of a session: the file, or the rows."""
        if self.database.dialect == "sqlite":
            pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            return int(self.database.read(lambda db: db.execute(text(pages)).scalar_one()))
        tables = [one.name for one in Base.metadata.sorted_tables if {"tenant", "session_id"} <= set(one.c.keys())]
        size = "SELECT coalesce(sum(pg_column_size(r.*)), 0) FROM {} r WHERE tenant = :tenant AND session_id = :session"
        where = {"tenant": "default", "session": session.id}
        return sum(
            int(self.database.read(lambda db, name=name: db.execute(text(size.format(name)), where).scalar_one()))
            for name in tables
        )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def whispering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whispering]:
    """The sessions in a database of each kind in turn, in which every one was spoken in twice since it was filled."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('whispering') / 'whispering.db'}"
    else:
        url = request.getfixturevalue("postgres").clone("current")
    one = Whispering(url)
    for size in one.sessions:
        for _ in range(2):
            one.turn(size)
    yield one
    one.rp.close()


def said(whispering: Whispering) -> str:
    """The newest request."""
    return whispering.model.bodies[-1].decode()


def test_a_turn_costs_the_same_whatever_was_whispered(whispering: Whispering) -> None:
    """Statements are the same, rows and bytes too beyond the bound, and recipes are of one length: they tell nothing of
    what was said to others."""
    turns = {size: whispering.turn(size) for size in WHISPERED}
    recipes = {size: whispering.recipe(size) for size in WHISPERED}
    shapes = {size: [one.sql for one in seen] for size, seen in turns.items()}
    assert all(shapes[size] == shapes[0] for size in WHISPERED)
    rows = {size: [fetched(whispering.database, one) for one in seen] for size, seen in turns.items()}
    assert rows[2 * PASSES] == rows[100_000]
    assert rows[PASSES] == rows[0]
    assert all(sum(rows[size]) <= sum(rows[0]) for size in WHISPERED)
    numbers = {size: recipe.partition("]")[0].strip("[").split(",") for size, recipe in recipes.items()}
    assert all(len(one) == len(numbers[0]) for one in numbers.values())
    plain = {size: len(recipe) - len("".join(numbers[size])) for size, recipe in recipes.items()}
    assert set(plain.values()) == {plain[0]}


def test_a_cast_of_eight_costs_the_same_at_any_length(whispering: Whispering) -> None:
    """Statements, rows and bytes of a turn, where half of the turns were said to others."""
    turns = {size: whispering.turn(size) for size in MIXED}
    (shapes, rows, size_in_bytes), *others = [
        (
            [one.sql for one in seen],
            sum(fetched(whispering.database, one) for one in seen),
            sum(len(str(one.values)) for one in seen),
        )
        for seen in turns.values()
    ]
    for other in others:
        assert other[0] == shapes
        assert other[1] <= rows + BUDGET_TOKENS // 10  # short histories fill no window
        assert other[2] <= 1.1 * size_in_bytes
    (_, few, _), (_, many, _) = others
    assert few == many
    shown, hers = said(whispering), whispering.sessions[100_002]
    last = BEFORE + 100_002
    assert f'What was said as number {last - 2}"' not in shown
    for turn in range(last // 2 - 3, last // 2 + 1):
        assert (f"What was said as number {2 * turn}" in shown) is (turn % 2 == 1)
    assert hers.report().new_epoch is False


def test_the_work_is_bounded(whispering: Whispering) -> None:
    """What the database does is the same beyond the bound and at any length, and scans nothing, with statistics that
    are stale and that are fresh."""
    for _ in range(2):
        none, few, some, many = (whispering.effort(whispering.turn, size) for size in WHISPERED)
        assert 0 < many < 1.1 * some
        assert few - none < 250 * PASSES
        _, short, long = (whispering.effort(whispering.turn, size) for size in MIXED)
        assert 0 < long < 1.2 * short
        whispering.analyze()
    assert scans(whispering, [*whispering.turn(100_000), *whispering.turn(100_002)]) == []


def test_no_text_of_what_was_whispered_is_read(whispering: Whispering) -> None:
    """The walk gives no row of it, and no text: it ends where the window of an earlier one, which stopped, begins."""
    for size in [one for one in WHISPERED if one]:
        [walk] = [seen for seen in whispering.turn(size) if "RECURSIVE" in seen.sql]
        rows = whispering.database.read(lambda db, seen=walk: db.exec_driver_sql(seen.sql, seen.values).all())
        among = [row for row in rows if BEFORE < row.seq <= BEFORE + size]
        assert among == []
        assert [row for row in rows if row.text]


def test_what_lies_before_the_bound_is_shown(whispering: Whispering) -> None:
    """Behind 500 whispered turns the ones before are sent; behind more they are not, the report of the request that
    stopped there says so, and the window stays where it began then."""
    for size, is_shown in zip(WHISPERED, (True, True, False, False), strict=True):
        session = whispering.sessions[size]
        whispering.turn(size)
        assert ("What was said as number 20" in said(whispering)) is is_shown
        assert "What was said as number 21" not in said(whispering)
        reports = [session.report(one.id) for one in session.turns(limit=10).items if not one.id.startswith("turn-")]
        reasons = [one.reason for report in reports for one in report.sections if one.section == "history"]
        told = f"{PASSES + 1:,} messages that are not for this seat were passed over, what is older was not read"
        assert [told in reason for reason in reasons].count(True) == (not is_shown)
        assert not any("hidden" in reason for reason in reasons)
        report = session.report()
        assert report.window_start == (1 if is_shown else BEFORE + size + 1)
        assert not report.new_epoch


def test_it_is_rebuilt_from_audience_and_seat(whispering: Whispering) -> None:
    """Requests come back byte for byte: those that stepped over whispers, and one of a seat that heard them."""
    session = whispering.of(PASSES, HALF)
    sent: list[bytes] = []
    ids = []
    for options in (TurnOptions(), TurnOptions(audience=[2]), TurnOptions(), TurnOptions(audience=[3])):
        for _ in range(2):
            ids.append(session.send(LINE, speaker="Uma", options=options).calls[-1].id)
            sent.append(whispering.model.bodies[-1])
    for place, which in enumerate(ids):
        assert whispering.rp.replay.request(session.id, which) == sent[place]
    session.tree.hide(session.turns(limit=5).items[1].id)
    assert [whispering.rp.replay.request(session.id, one) for one in ids] == sent


def test_a_turn_keeps_little_more_than_its_text(whispering: Whispering) -> None:
    """Twice the text and 2 KB, in a cast of eight where every other turn is a whisper, of lines of some 60 tokens."""
    session, turns = whispering.sessions[1_002], 200
    said = "The ferry crosses once more before the wind turns, and whoever stays behind may sleep in the mill. " * 2
    whispering.model.say(*[said.strip()] * turns)
    before, length = whispering.bytes_of(session), 0
    for number in range(turns):
        options = TurnOptions(audience=[1 + number % 5]) if number % 2 else TurnOptions()
        turn = session.send(said, speaker="Uma", options=options)
        length += sum(len(one.text) for one in (turn.human, turn.reply) if one)
    assert whispering.bytes_of(session) - before <= 2 * length + 2_048 * turns

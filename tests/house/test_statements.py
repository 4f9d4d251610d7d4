"""A turn costs the same however long its session is: statements and rows are counted, and plans are looked at.

Three sessions of 10, 1,000 and 100,000 messages lie among 200 others in one database.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import make_url

from roleplay import ChatSession, Endpoint, Persona, ReplyStream, Roleplay, SessionSettings
from roleplay.store.access import schema
from roleplay.store.access.database import Database
from roleplay.store.records import ancestry
from roleplay.store.records.ancestry import jump_depth
from roleplay.testing import ScriptedModel
from tests.support.postgres import PostgresServer

SIZES = (10, 1_000, 100_000)
OTHERS = 200
BUDGET_TOKENS = 800
GROWING = ("roleplay_turns", "roleplay_messages", "roleplay_model_calls", "roleplay_pieces", "roleplay_path_states")
# Where SQLite reads all of something before it looks up in it.
WHOLE = re.compile("TEMP B-TREE|BLOOM|AUTOMATIC")
# What may be sorted: the calls of a page, which are as many as were asked for.
FEW = 10
# What a turn in the middle of a session does; a change here is a change of what every turn costs.
STATEMENTS = {"sqlite": 11, "postgresql": 12}
# The rows that each door writes, whatever the session's length; a long stream's text is kept as it doubles.
REPLY = {
    "UPDATE roleplay_sessions": 2,
    "INSERT roleplay_turns": 1,
    "UPDATE roleplay_turns": 1,
    "INSERT roleplay_messages": 2,
    "INSERT roleplay_model_calls": 1,
    "UPDATE roleplay_model_calls": 1,
    "INSERT roleplay_head_moves": 1,
}
MOVE = {"UPDATE roleplay_sessions": 1, "INSERT roleplay_head_moves": 1}
WRITES: dict[str, tuple[Callable[[ChatSession], object], dict[str, int]]] = {
    "send": (lambda session: session.send("And then?"), REPLY),
    "stream": (lambda session: streamed(session.stream("And then?")), REPLY),
    "long stream": (
        lambda session: streamed(session.stream("And then? " * 60)),  # the answer is as long: kept at 256, 512, the end
        REPLY | {"UPDATE roleplay_turns": 3, "UPDATE roleplay_messages": 2},
    ),
    "regenerate": (lambda session: streamed(session.regenerate()), REPLY | {"INSERT roleplay_messages": 1}),
    "fork": (lambda session: session.tree.fork(session.turns().items[-3].id), MOVE),
    "rewind": (lambda session: session.tree.rewind(2), MOVE),
}

SERIES = {
    "sqlite": "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :most) ",
    "postgresql": "WITH n AS (SELECT generate_series(1, :most) AS n) ",
}
TURNS = """
INSERT INTO roleplay_turns (session_id, seq, tenant, id, parent_turn, from_head, moves_head, kind, round, ordinal,
    speaker, revision, attempt, status, human_seq, reply_seq, created_at, ended_at)
{series} SELECT s.id, n, s.tenant, 'turn-' || n, CASE WHEN n > 1 THEN n - 1 END, CASE WHEN n > 1 THEN 2 * n - 2 END,
    {true}, 'reply', n, 1, 1, 1, 1, 'completed', 2 * n - 1, 2 * n, s.created_at, s.created_at
FROM n, roleplay_sessions AS s WHERE s.id = :session AND s.tenant = :tenant
"""
MESSAGES = """
INSERT INTO roleplay_messages (session_id, seq, tenant, parent_seq, turn_seq, role, seat, name, text, tokens, counter,
    depth, human_ordinal, model_ordinal, repaired, hidden, created_at, revision, jump_seq)
{series} SELECT s.id, n, s.tenant, CASE WHEN n > 1 THEN n - 1 END, (n + 1) / 2,
    CASE WHEN n % 2 = 1 THEN 'user' ELSE 'assistant' END, 1 + n % 2, CASE WHEN n % 2 = 1 THEN 'User' ELSE 'Nova' END,
    'What was said as number ' || n, 9, 'estimate-1', n, (n + 1) / 2, n / 2, {false}, {false}, s.created_at,
    1, CASE WHEN n > 1 THEN n - 1 ELSE 1 END
FROM n, roleplay_sessions AS s WHERE s.id = :session AND s.tenant = :tenant
"""
#: The pointers of half of the messages, which name another than the parent.
JUMPS = {
    "sqlite": """
    UPDATE roleplay_messages SET jump_seq = :jump WHERE seq = :seq AND session_id = :session AND tenant = :tenant
    """,
    "postgresql": """
    UPDATE roleplay_messages SET jump_seq = CAST(far.value AS INTEGER) FROM json_each_text(CAST(:jumps AS JSON)) AS far
    WHERE seq = CAST(far.key AS INTEGER) AND session_id = :session AND tenant = :tenant
    """,
}
PIECE = """
INSERT INTO roleplay_pieces (session_id, digest, tenant, text)
SELECT s.id, 'front', s.tenant, '[]' FROM roleplay_sessions AS s WHERE s.id = :session AND s.tenant = :tenant
"""
CALLS = """
INSERT INTO roleplay_model_calls (session_id, id, tenant, turn_seq, purpose, attempt, model_asked, host, dialect,
    streamed, parameters, recipe_version, front_digest, recipe, request_digest, prompt_count, counter, created_at)
{series} SELECT s.id, 'call-' || n, s.tenant, n, 'reply', 1, 'MiniMax-M2.7', 'api.minimax.io', 'minimax', {false},
    '{{}}', 1, 'front', '[[1, 2, 1, []], [], []]', 'digest', 100, 'estimate-1', s.created_at
FROM n, roleplay_sessions AS s WHERE s.id = :session AND s.tenant = :tenant
"""
STATES = """
INSERT INTO roleplay_path_states (session_id, seq, tenant, state, seat)
{series} SELECT s.id, n, s.tenant, '{{}}', n % 3
FROM n, roleplay_sessions AS s WHERE s.id = :session AND s.tenant = :tenant
"""
HEAD = """
UPDATE roleplay_sessions SET head_seq = :most, last_seq = :most, last_turn = :turns
WHERE id = :session AND tenant = :tenant
"""


class Seen(NamedTuple):
    """A statement that ran, with its values."""

    sql: str
    values: Any


class Crowd:
    """The database with its long sessions among many others.

    It is in no test's ledger: the past that it is filled with was never sent, so there is nothing to compare with.
    """

    def __init__(self, url: str) -> None:
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
        self.url = url
        self.rp = Roleplay.open(url, model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel(usage=False), settings=settings)
        self.database: Database = self.rp._runtime.database
        self.nova = self.rp.personas.put(Persona("Nova", "A pilot.", key="nova"))
        for _ in range(OTHERS):
            self.grow(self.rp.sessions.create(cast=[self.nova]), 20)
        if self.database.dialect == "postgresql":
            self.analyze()  # stale as soon as more comes
        self.sessions = {size: self.rp.sessions.create(cast=[self.nova]) for size in SIZES}
        for size, session in self.sessions.items():
            self.grow(session, size)

    def grow(self, session: ChatSession, messages: int) -> None:
        """Give a new session so many messages, in turns of two, as sends would have."""
        dialect = self.database.dialect
        flags = {"true": "1", "false": "0"} if dialect == "sqlite" else {"true": "true", "false": "false"}

        def work(db: Connection) -> None:
            where = {"session": session.id, "tenant": "default"}
            if dialect == "postgresql":  # what is written here keeps the laws; checking it takes most of the time
                db.execute(text("SET LOCAL session_replication_role = replica"))
                if messages > 1_000:  # it knows nothing yet of how much there is
                    db.execute(text("SET LOCAL enable_nestloop = off"))
            db.execute(text(TURNS.format(series=SERIES[dialect], **flags)), where | {"most": messages // 2})
            db.execute(text(MESSAGES.format(series=SERIES[dialect], **flags)), where | {"most": messages})
            jumps = {depth: to for depth in range(2, messages + 1) if (to := jump_depth(depth)) != depth - 1}
            each = [where | {"seq": seq, "jump": jump} for seq, jump in jumps.items()]
            db.execute(text(JUMPS[dialect]), each if dialect == "sqlite" else where | {"jumps": json.dumps(jumps)})
            db.execute(text(HEAD), where | {"most": messages, "turns": messages // 2})
            db.execute(text(PIECE), where)
            most = where | {"most": min(messages // 2, 1_000)}
            db.execute(text(CALLS.format(series=SERIES[dialect], **flags)), most)
            db.execute(text(STATES.format(series=SERIES[dialect])), most)

        self.database.write(work)

    def turn(self, size: int) -> list[Seen]:
        """What one send does in a session that was already spoken in."""
        with watched() as seen:
            self.sessions[size].send("And then, so that the line is of no other length?")
        return seen

    def page(self, size: int) -> list[Seen]:
        """What reading the newest page of turns does."""
        with watched() as seen:
            self.sessions[size].turns(limit=5)
        return seen

    def seats_page(self, size: int) -> list[Seen]:
        """What reading the newest page of turns as a seat does, and one before it."""
        view = self.sessions[size].seen_by(1)
        with watched() as seen:
            page = view.turns(limit=3)
            view.turns(before=page.older, limit=2)
        return seen

    def ancestors(self, size: int) -> list[Seen]:
        """What it takes to find whether an early message is on the path, and what lies at a depth of it."""
        place = "default", self.sessions[size].id
        head = self.sessions[size].info().head_seq or 0
        with watched() as seen:
            assert self.database.read(lambda db: ancestry.is_on_path(db, *place, 2, head=head))
            assert self.database.read(lambda db: ancestry.at_depth(db, *place, 3, head=head)) == 3
        return seen

    def analyze(self) -> None:
        """Let the database count its rows, and its connections know of it."""
        self.database.write(lambda db: db.execute(text("ANALYZE")))
        self.database.engine.dispose()

    def effort(self, work: Callable[[int], list[Seen]], size: int) -> int:
        """What some work in a session costs the database, in its own measure: steps of SQLite's machine, or the rows
        that PostgreSQL's plans touch, also those they throw away."""
        if self.database.dialect == "postgresql":
            return sum(map(touched, postgres_plans(self.url, work(size), analyze=True)))
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        def begin(dbapi: Any, _record: object, _proxy: object) -> None:
            dbapi.set_progress_handler(tick, 1)

        def end(dbapi: Any, _record: object) -> None:
            dbapi.set_progress_handler(None, 0)

        event.listen(self.database.engine, "checkout", begin)
        event.listen(self.database.engine, "checkin", end)
        work(size)
        event.remove(self.database.engine, "checkout", begin)
        event.remove(self.database.engine, "checkin", end)
        return count


@contextmanager
def watched() -> Iterator[list[Seen]]:
    """Collect every statement that runs."""
    seen: list[Seen] = []

    def look(_c: Connection, _cursor: object, sql: str, values: Any, *_rest: object) -> None:
        seen.append(Seen(sql, values))

    event.listen(Engine, "before_cursor_execute", look)
    yield seen
    event.remove(Engine, "before_cursor_execute", look)


@contextmanager
def written() -> Iterator[Counter[str]]:
    """Count the rows that are written, by what is done to which table."""
    rows: Counter[str] = Counter()

    def look(_c: Connection, cursor: Any, sql: str, *_rest: object) -> None:
        if change := re.match(r"\s*(INSERT INTO|UPDATE|DELETE FROM) (roleplay_\w+)", sql):
            rows[f"{change[1].split()[0]} {change[2]}"] += cursor.rowcount

    event.listen(Engine, "after_cursor_execute", look)
    yield rows
    event.remove(Engine, "after_cursor_execute", look)


def streamed(reply: ReplyStream) -> int:
    """Take a reply to its end; gives how many pieces it had."""
    with reply:
        return len(list(reply))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """The crowd in a database of each kind in turn, in which every session was spoken in once since it was filled."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('crowd') / 'crowd.db'}"
    else:
        url = request.getfixturevalue("postgres").clone("current")
    one = Crowd(url)
    assert schema.revision(one.database) == schema.HEAD
    for size in SIZES:
        one.turn(size)
    yield one
    one.rp.close()


def fetched(database: Database, seen: Seen) -> int:
    """How many rows a query gives; it is asked again, and what a turn adds is behind what it asked for."""
    if not seen.sql.lstrip().upper().startswith(("SELECT", "WITH")):
        return 0
    return len(database.read(lambda db: db.exec_driver_sql(seen.sql, seen.values).all()))


def test_a_turn_costs_the_same(crowd: Crowd) -> None:
    """The statements of a turn are the same at every length, as many as are written here, and so are its rows."""
    turns = {size: crowd.turn(size) for size in SIZES}
    shapes = {size: [one.sql for one in seen] for size, seen in turns.items()}
    assert shapes[1_000] == shapes[100_000]
    assert shapes[10] == shapes[1_000]
    assert len(shapes[10]) == STATEMENTS[crowd.database.dialect], "\n\n".join(shapes[10])
    rows = {size: [fetched(crowd.database, one) for one in seen] for size, seen in turns.items()}
    assert rows[1_000] == rows[100_000]
    assert max(rows[100_000]) <= BUDGET_TOKENS // 10
    assert sum(rows[10]) <= sum(rows[1_000])


def test_a_page_costs_the_same(crowd: Crowd) -> None:
    """Two statements at every length, the same ones, for the newest page and for one before it; so many rows."""
    pages = {size: [one for one in crowd.page(size) if "roleplay_" in one.sql] for size in SIZES}
    assert len({tuple(one.sql for one in seen) for seen in pages.values()}) == 1
    assert all(len(seen) == 2 for seen in pages.values())
    session = crowd.sessions[100_000]
    with watched() as seen:
        older = session.turns(before="turn-40000", limit=5)
    assert [turn.seq for turn in older] == list(range(39_996, 40_001))
    older_page = [one for one in seen if "roleplay_" in one.sql]
    assert len(older_page) == 2
    assert sum(fetched(crowd.database, one) for one in older_page) <= 2 * 6


def test_a_seats_page_costs_the_same(crowd: Crowd) -> None:
    """A seat's pages are as many statements at every length, the same ones, and as much work, with stale and with fresh
    statistics; nothing is scanned."""
    for _ in range(2):
        pages = {size: [one for one in crowd.seats_page(size) if "roleplay_" in one.sql] for size in SIZES}
        assert len({tuple(one.sql for one in seen) for seen in pages.values()}) == 1
        assert sum(fetched(crowd.database, one) for one in pages[100_000]) <= 30
        assert scans(crowd, crowd.seats_page(100_000)) == []
        short, long = (crowd.effort(crowd.seats_page, size) for size in SIZES[1:])
        assert 0 < long < 1.2 * short < 10_000
        crowd.analyze()


@pytest.mark.parametrize("door", WRITES)
@pytest.mark.parametrize("size", [10, 1_000])
def test_the_rows_written_are_few_and_known(crowd: Crowd, door: str, size: int) -> None:
    """Each door writes exactly the rows that are written here, in a session of any length."""
    session = crowd.rp.sessions.create(cast=[crowd.nova])
    crowd.grow(session, size)
    for _ in range(2):
        session.send("So that the rows of a window's beginning are there.")
    work, expected = WRITES[door]
    with written() as rows:
        work(session)
    assert rows == expected


def test_no_value_is_written_into_a_statement(crowd: Crowd) -> None:
    """Ids and texts travel beside the statements, so that these are parsed and planned once."""
    session = crowd.sessions[10]
    assert not any(session.id in one.sql or "no other length" in one.sql for one in crowd.turn(10))


def sqlite_plan(database: Database, seen: Seen) -> list[str]:
    """What SQLite says it would do."""
    rows = database.read(lambda db: db.exec_driver_sql(f"EXPLAIN QUERY PLAN {seen.sql}", seen.values).all())
    return [row[3] for row in rows]


def postgres_plans(url: str, statements: list[Seen], *, analyze: bool = False) -> list[dict[str, Any]]:
    """Every node of the plans that PostgreSQL makes. ``analyze``: what is read or changed is done again, and undone."""
    parts = make_url(url)
    address = {"user": parts.username, "dbname": parts.database, **parts.query}
    todo, nodes = [], []
    with psycopg.connect(**address, cursor_factory=psycopg.ClientCursor) as connection:
        for seen in statements:
            if "set_config" in seen.sql:  # what it is asked under
                connection.execute(seen.sql)  # type: ignore[arg-type]
                continue
            how = "ANALYZE, FORMAT JSON" if analyze and not seen.sql.startswith("INSERT") else "FORMAT JSON"
            found = connection.execute(f"EXPLAIN ({how}) {seen.sql}", seen.values).fetchone()  # type: ignore[arg-type]
            assert found is not None
            todo.append(found[0][0]["Plan"])
        connection.rollback()
    while todo:
        nodes.append(todo.pop())
        todo += nodes[-1].get("Plans", [])
    return nodes


def touched(node: dict[str, Any]) -> int:
    """How many rows a node of a plan gave or threw away; none, where the plan was not carried out."""
    rows = sum(value for name, value in node.items() if name.startswith(("Actual Rows", "Rows Removed")))
    return round(rows * node.get("Actual Loops", 0))


def scans(crowd: Crowd, statements: list[Seen]) -> list[str]:
    """Every place where a statement would read or sort a growing table instead of looking up in it."""
    if crowd.database.dialect == "postgresql":
        return [
            json.dumps(node)[:300]
            for node in postgres_plans(crowd.url, statements, analyze=True)
            if ("Seq Scan" in node["Node Type"] and node["Relation Name"] in GROWING)
            or ("Sort" in node["Node Type"] and sum(map(touched, node["Plans"])) > FEW)
        ]
    found = []
    for seen in statements:
        aliases = {alias or name for name, alias in re.findall(r"(roleplay_\w+)(?: AS (\w+))?", seen.sql)}
        found += [
            f"{line}: {seen.sql}"
            for line in sqlite_plan(crowd.database, seen)
            if (line.startswith("SCAN ") and line.split()[1] in aliases) or WHOLE.search(line)
        ]
    return found


def test_nothing_is_scanned(crowd: Crowd) -> None:
    """Neither a turn nor a page scans a table that grows, with statistics that are stale and that are fresh."""
    assert scans(crowd, crowd.turn(100_000) + crowd.page(100_000)) == []
    crowd.analyze()
    assert scans(crowd, crowd.turn(100_000) + crowd.page(100_000)) == []


def test_the_walk_looks_up_each_step(crowd: Crowd) -> None:
    """The walk back through history takes each step by the primary key, whatever the statistics say."""
    [walk] = [seen for seen in crowd.turn(100_000) if "RECURSIVE" in seen.sql]
    if crowd.database.dialect == "sqlite":
        steps = [line for line in sqlite_plan(crowd.database, walk) if "SEARCH" in line]
        assert len(steps) == 2
        assert all("(session_id=? AND seq=?)" in line for line in steps)
        return
    nodes = [node for node in postgres_plans(crowd.url, [walk]) if node.get("Relation Name") == "roleplay_messages"]
    assert [node["Node Type"] for node in nodes] == ["Index Scan"] * 2
    assert {node["Index Name"] for node in nodes} == {"pk_roleplay_messages"}
    assert all("seq" in node["Index Cond"] for node in nodes)


def test_the_work_is_the_same(crowd: Crowd) -> None:
    """A turn or a page is as much work for the database at any length, with stale and with fresh statistics."""
    for _ in range(2):
        for work in (crowd.turn, crowd.page):
            short, long = (crowd.effort(work, size) for size in SIZES[1:])
            assert 0 < long < 1.2 * short < 10_000
        crowd.analyze()


def test_ancestry_costs_a_few_look_ups(crowd: Crowd) -> None:
    """A hundred times the path is not twice the work, with stale and with fresh statistics; nothing is scanned."""
    for _ in range(2):
        short, long = (crowd.effort(crowd.ancestors, size) for size in SIZES[1:])
        assert 0 < long < 2 * short < 10_000
        assert scans(crowd, crowd.ancestors(100_000)) == []
        crowd.analyze()


def test_the_doctor_reads_every_row_and_none_for_each_other(crowd: Crowd) -> None:
    """A check-up is linear: each check scans one table and looks up beside it, with stale and with fresh statistics."""
    for _ in range(2):
        with watched() as seen:
            crowd.rp.doctor()
        checks = [one for one in seen if "FROM roleplay_" in one.sql]
        assert len(checks) > 20
        under = [one for one in seen if "enable_nestloop" in one.sql]
        assert [one.sql for one in checks if repeats(crowd, under, one)] == []
        crowd.analyze()


def repeats(crowd: Crowd, under: list[Seen], seen: Seen) -> bool:
    """Whether a statement, under the settings that it is asked under, reads a whole growing table for each row."""
    if crowd.database.dialect == "sqlite":
        return sum(line.startswith("SCAN ") for line in sqlite_plan(crowd.database, seen)) > 1
    again = [
        inner
        for node in postgres_plans(crowd.url, [*under, seen])
        for inner in node.get("Plans", [])
        if inner["Parent Relationship"] == ("Inner" if node["Node Type"] == "Nested Loop" else "SubPlan")
    ]
    return any(f'"{name}"' in json.dumps(one) and "Seq Scan" in json.dumps(one) for one in again for name in GROWING)


class Unknown(Crowd):
    """A database whose statistics know some sessions, all of one length, and not the one that is spoken in."""

    def __init__(self, url: str) -> None:
        self.url = url
        settings = SessionSettings(budget_tokens=BUDGET_TOKENS)
        self.rp = Roleplay.open(url, model=Endpoint("MiniMax-M2.7"), chat=ScriptedModel(usage=False), settings=settings)
        self.database: Database = self.rp._runtime.database
        self.nova = self.rp.personas.put(Persona("Nova", "A pilot.", key="nova"))
        for _ in range(40):
            self.grow(self.rp.sessions.create(cast=[self.nova]), 40)
        self.analyze()
        self.sessions = {1_000: self.rp.sessions.create(cast=[self.nova])}
        self.grow(self.sessions[1_000], 1_000)


def test_a_session_that_the_statistics_do_not_know(postgres: PostgresServer) -> None:
    """PostgreSQL takes it for one of a single message; what a turn writes is found without a join, which would be of
    all of its messages with all of them."""
    unknown = Unknown(postgres.clone("current"))
    seen = unknown.turn(1_000)
    inserts = [one for one in seen if one.sql.startswith("INSERT INTO roleplay_messages")]
    kinds = {node["Node Type"] for node in postgres_plans(unknown.url, inserts)}
    assert "Index Scan" in kinds
    assert not {kind for kind in kinds if "Join" in kind or "Loop" in kind}
    unknown.rp.close()


# The last in this file: they leave the sessions of the crowd elsewhere than they stood.
# What is written when the window moves, which it does sooner here and later there.
EPOCH = re.compile("INSERT INTO roleplay_(pieces|path_states)")
DOORS: dict[str, Callable[[ChatSession], object]] = {
    "append": lambda session: session.add("It rains."),
    "stream": lambda session: streamed(session.stream("And then?")),
    "regenerate": lambda session: streamed(session.regenerate()),
    "fork": lambda session: session.tree.fork(session.turns(limit=9).items[-4].id),
    "rewind": lambda session: session.tree.rewind(2),
    "undo": lambda session: session.tree.undo(),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_costs_the_same(crowd: Crowd, door: str) -> None:
    """Statements, rows and bytes of every door are the same after 10, 1,000 and 100,000 messages, among 200 other
    sessions, with statistics that are stale and that are fresh."""
    for _ in range(2):
        costs = []
        for size in SIZES:
            session = crowd.sessions[size]
            for _ in range(4):
                session.send("So that there is something of the same length to go back over.")
            with watched() as every:
                DOORS[door](session)
            seen = [one for one in every if not EPOCH.search(one.sql)]
            rows = [fetched(crowd.database, one) for one in seen]
            costs.append(([one.sql for one in seen], rows, sum(len(str(one.values)) for one in seen)))
        (shapes, rows, size_in_bytes), *others = costs
        for other in others:
            assert other[0] == shapes
            assert sum(other[1]) <= sum(rows) + BUDGET_TOKENS // 10  # short histories fill no window
            assert other[2] <= 1.1 * size_in_bytes
        crowd.analyze()


@pytest.mark.parametrize("door", ["send", "regenerate"])
def test_path_states_are_looked_up(crowd: Crowd, door: str) -> None:
    """What a path hands on is read in one statement of a turn, by the whole primary key, for the speaker and for all,
    whatever the statistics say."""
    session = crowd.sessions[100_000]
    for _ in range(2):
        session.send("So that there is a turn to stand on.")
        with watched() as seen:
            session.send("And?") if door == "send" else streamed(session.regenerate())
        readers = [one for one in seen if "roleplay_path_states" in one.sql and not EPOCH.search(one.sql)]
        assert len(readers) == 1 + (door == "regenerate")
        for reader in readers:
            assert lookups(crowd, reader) == 2
        crowd.analyze()


def lookups(crowd: Crowd, seen: Seen) -> int:
    """How often a statement looks a path state up by all of its key; nothing else may be done with that table."""
    if crowd.database.dialect == "sqlite":
        steps = [line for line in sqlite_plan(crowd.database, seen) if "_state" in line]
        assert all("(session_id=? AND seq=? AND seat=?)" in line for line in steps), steps
        return len(steps)
    found = [one for one in postgres_plans(crowd.url, [seen]) if one.get("Relation Name") == "roleplay_path_states"]
    assert all(one["Node Type"] == "Index Scan" for one in found), found
    assert all(word in one["Index Cond"] for one in found for word in ("session_id", "seq", "seat")), [
        (one["Index Name"], one["Index Cond"], one.get("Filter")) for one in found
    ]
    return len(found)


def test_a_list_costs_the_same(crowd: Crowd) -> None:
    """A page of sessions is as many statements and rows, whatever lies in the sessions."""
    with watched() as seen:
        page = crowd.rp.sessions.list(limit=5)
    asked = [one for one in seen if "roleplay_" in one.sql]
    assert len(page.items) == 5
    assert len(asked) == 2
    assert sum(fetched(crowd.database, one) for one in asked) <= 4 * 5
    assert scans(crowd, asked) == []

"""SQLite's files as people have them: replaced while they are open, read-only, named by URI, made for their owner."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

import roleplay
from roleplay import Database, Persona, SchemaError, SettingsError, StoreError
from roleplay.store.access import schema
from roleplay.testing import ScriptedModel
from tests.support import shells
from tests.support.rights import without_rights

MODEL = "MiniMax-M2.7"
ENDS = ("", "-wal", "-shm")


def opened(url: Any, *replies: object, **options: Any) -> Any:
    """An engine of the current shell on ``url``."""
    model = ScriptedModel(*(replies or ["I see."] * 20))  # type: ignore[arg-type]
    return shells.Roleplay.open(url, model=MODEL, chat=model, **options)


def begun(rp: Any) -> Any:
    """A session with three turns."""
    session = rp.sessions.create(cast=[rp.personas.put(Persona("Nova", "A pilot."))])
    for number in range(3):
        session.send(f"before {number}")
    return session


def on_disk(path: Path) -> set[str]:
    """The human lines that anybody finds in a file, or nothing where there is none."""
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as db:
        return {row[0] for row in db.execute("SELECT text FROM roleplay_messages WHERE role = 'user'")}


def delete_log(path: Path) -> None:
    """Take the log away alone."""
    Path(f"{path}-wal").unlink()


def delete_all(path: Path) -> None:
    """Take all away."""
    for end in ENDS:
        Path(f"{path}{end}").unlink()


def delete_file(path: Path) -> None:
    """Take the file away alone."""
    path.unlink()


def move_away(path: Path) -> None:
    """Give the file another name."""
    for end in ENDS:
        Path(f"{path}{end}").rename(f"{path}.old{end}")


def restore(path: Path) -> None:
    """Move a backup over it."""
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(backup),))
    backup.replace(path)
    for end in ENDS[1:]:
        Path(f"{path}{end}").unlink()


def switch_link(path: Path) -> None:
    """Have a symbolic link point to another file."""
    other = path.with_name("other.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(other),))
    path.unlink()
    path.symlink_to(other)


def empty(path: Path) -> None:
    """Cut the file to nothing, after what was in its log went into it."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint")
    os.truncate(path, 0)


def empty_log(path: Path) -> None:
    """Cut the log to nothing."""
    os.truncate(f"{path}-wal", 0)


LOSSES = (delete_log, delete_all, delete_file, move_away, restore, switch_link)


@pytest.mark.parametrize("lose", LOSSES, ids=lambda one: one.__name__)
def test_no_acknowledgement_is_lost(shell: str, tmp_path: Path, lose: Callable[[Path], None]) -> None:  # noqa: ARG001
    """Whatever happens to the files of an open engine, a turn that was given back is in the file at the path."""
    path = tmp_path / "chats.db"
    if lose is switch_link:
        (tmp_path / "real.db").touch()
        path.symlink_to(tmp_path / "real.db")
    given = set()
    with opened(f"sqlite:///{path}") as rp:
        session = begun(rp)
        lose(path)
        with pytest.raises(StoreError, match="was replaced or deleted while it was open"):
            session.send("first after")
        for number in range(3):
            try:
                session.send(f"after {number}")
            except StoreError:
                continue
            given.add(f"after {number}")
    assert given <= on_disk(path)
    assert (given != set()) == (lose in {delete_log, restore, switch_link})


@pytest.mark.parametrize("lose", [empty, empty_log], ids=lambda one: one.__name__)
def test_what_was_cut_to_nothing(shell: str, tmp_path: Path, lose: Callable[[Path], None]) -> None:  # noqa: ARG001
    """Nothing is given back that such a file does not hold."""
    path = tmp_path / "chats.db"
    with opened(f"sqlite:///{path}") as rp:
        session = begun(rp)
        lose(path)
        with pytest.raises(StoreError, match="was replaced or deleted while it was open"):
            session.send("first after")
        for number in range(3):
            with pytest.raises(StoreError):
                session.send(f"after {number}")


def test_a_log_that_another_process_empties_is_no_loss(tmp_path: Path) -> None:
    """As its erasures do."""
    path = tmp_path / "chats.db"
    with opened(f"sqlite:///{path}") as rp, opened(f"sqlite:///{path}") as other:
        session = begun(rp)
        for number in range(3):
            assert other.erase(session=begun(other).id).files == "wiped"
            session.send(f"after {number}")
            session.turns()
    assert {f"after {number}" for number in range(3)} <= on_disk(path)


@pytest.mark.parametrize("door", ["list", "turns", "put", "erase", "stream"])
def test_every_use_tells_it(shell: str, tmp_path: Path, door: str) -> None:  # noqa: ARG001
    """What only reads, and what wipes, tells of a lost file as a turn does."""
    path = tmp_path / "chats.db"
    with opened(f"sqlite:///{path}") as rp:
        session = begun(rp)
        use: dict[str, Callable[[], object]] = {
            "list": rp.sessions.list,
            "turns": session.turns,
            "put": lambda: rp.personas.put(Persona("Hua")),
            "erase": lambda: rp.erase(session=session.id),
            "stream": lambda: list(session.stream("now")),
        }
        restore(path)
        with pytest.raises(StoreError, match="was replaced or deleted"):
            use[door]()
        use[door]()


def test_connections_that_wait_in_the_pool(tmp_path: Path) -> None:
    """While one thread still has the old log, no other connection begins a new one beside it."""
    path = tmp_path / "chats.db"
    database = schema.opened(f"sqlite:///{path}", "auto")
    inside, go = threading.Event(), threading.Event()
    told: list[BaseException] = []

    def hold() -> None:
        try:
            database.read(lambda _: (inside.set(), go.wait(10)))
        except StoreError as error:
            told.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    delete_log(path)
    for _ in range(3):  # the pool has no connection left but new ones
        with pytest.raises(StoreError, match="replaced or deleted"):
            database.write(lambda db: db.exec_driver_sql("PRAGMA user_version = 1").rowcount)
    go.set()
    thread.join()
    assert len(told) == 1
    assert database.read(lambda db: db.exec_driver_sql("PRAGMA integrity_check").scalar()) == "ok"
    database.close()


def test_nothing_is_lost_for_nothing(tmp_path: Path) -> None:
    """Other connections that come and go, a wipe, and engines beside each other are no loss."""
    path = tmp_path / "chats.db"
    url = f"sqlite:///{path}"
    one, two = Database.open(url), Database.open(url)
    assert schema.revision(one) is None
    schema.prepare(two)
    assert schema.revision(one) == schema.HEAD
    two.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for _ in range(3):
        assert schema.revision(one) == schema.HEAD
        assert one.wipe() == "wiped"
        one.engine.dispose()
    one.close()


def test_files_are_for_their_owner_alone(shell: str, tmp_path: Path) -> None:  # noqa: ARG001
    """A file that we make, and its logs, are 0600 whatever the umask; one that is there keeps its mode."""
    before = os.umask(0)
    try:
        for name, mode in (("new.db", 0o600), ("old.db", 0o664)):
            path = tmp_path / name
            if mode != 0o600:
                path.touch(mode=mode)
            with opened(f"sqlite:///{path}") as rp:
                begun(rp)
                assert [stat.S_IMODE(Path(f"{path}{end}").stat().st_mode) for end in ENDS] == [mode] * 3
        with opened(f"file:{tmp_path}/uri.db") as rp:
            begun(rp)
        assert stat.S_IMODE((tmp_path / "uri.db").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.fixture(params=["file", "folder", "log", "log and index"])
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A database with three turns that cannot be written: its file, or its folder too, with a log or without."""
    path = tmp_path / "there" / "chats.db"
    path.parent.mkdir()
    made = tmp_path / "made.db"
    with shells.Roleplay.open(f"sqlite:///{made}", model=MODEL, chat=ScriptedModel(*["I see."] * 3)) as rp:
        begun(rp)
        if request.param.startswith("log"):
            for end in ENDS[: 3 if "index" in request.param else 2]:
                shutil.copy(f"{made}{end}", f"{path}{end}")
    if not request.param.startswith("log"):
        shutil.copy(made, path)
    for one in path.parent.iterdir():
        one.chmod(0o444)
    if request.param != "file":
        path.parent.chmod(0o555)
    yield path
    path.parent.chmod(0o755)


def test_what_cannot_be_written_is_read(shell: str, read_only: Path) -> None:  # noqa: ARG001
    """All that reads works, with what is in the log; what writes says why it cannot, and changes nothing."""

    def look() -> None:
        before = {one.name: one.read_bytes() for one in read_only.parent.iterdir()}
        with opened(f"sqlite:///{read_only}") as rp:
            [info] = rp.sessions.list().items
            session = rp.sessions.get(info.id)
            assert len(session.turns().items) == 3
            assert len(list(rp.replay.verify())) == 3
            assert rp.doctor() == []
            assert rp.usage.report(by="model")
            session.preview("And now?")
            for write in (lambda: session.send("And now?"), lambda: rp.personas.put(Persona("Hua"))):
                with pytest.raises(StoreError, match="the database cannot be written"):
                    write()
            assert len(session.turns().items) == 3
        after = {name: (read_only.parent / name).read_bytes() for name in before if not name.endswith("-shm")}
        assert after == {name: before[name] for name in after}

    without_rights(look)


@contextmanager
def as_found(path: Path, made: Path) -> Iterator[Path]:
    """A copy of a file, alone in a folder that cannot be written."""
    folder = path / "there"
    folder.mkdir()
    shutil.copy(made, folder / "chats.db")
    folder.chmod(0o555)
    (folder / "chats.db").chmod(0o444)
    try:
        yield folder / "chats.db"
    finally:
        folder.chmod(0o755)


def test_an_older_schema_that_can_only_be_read(shell: str, tmp_path: Path) -> None:  # noqa: ARG001
    """It is not upgraded, and told so."""
    with as_found(tmp_path, Path(__file__).parents[1] / "fixtures" / "0001_conversation.db") as path:
        before = path.read_bytes()

        def look() -> None:
            with pytest.raises(SchemaError, match=r"revision 0001.* can only be read"):
                opened(f"sqlite:///{path}").close()

        without_rights(look)
        assert path.read_bytes() == before


def test_what_is_frozen_and_changes_all_the_same(tmp_path: Path, current_sqlite: Path) -> None:
    """Another user writes while we read what we may not write: no old page is mixed with new ones."""
    with as_found(tmp_path, current_sqlite) as path:

        def look() -> None:
            database = Database.open(f"sqlite:///{path}")
            assert schema.revision(database) is not None
            os.utime(path)
            with pytest.raises(StoreError, match="replaced or deleted"):
                schema.revision(database)
            assert schema.revision(database) is not None
            database.close()

        without_rights(look)


@pytest.mark.parametrize("form", ["sqlite:///file:{}?mode=ro&uri=true", "sqlite:///file:{}?mode=ro", "file:{}?mode=ro"])
def test_uris_mean_what_sqlite_says(shell: str, tmp_path: Path, form: str) -> None:  # noqa: ARG001
    """A URI that reads only reads only; no file is made for one that is not there, or under the URI's own name."""
    path = tmp_path / "some chats.db"
    with opened(f"sqlite:///{path}") as rp:
        begun(rp)
    for named in (str(path), f"//{path}", str(path).replace(" ", "%20")):
        with opened(form.format(named)) as rp:
            [info] = rp.sessions.list().items
            with pytest.raises(StoreError, match="cannot be written"):
                rp.sessions.get(info.id).send("Hm.")
    with pytest.raises(StoreError):
        opened(form.format(tmp_path / "none.db"))
    assert {one.name for one in tmp_path.iterdir()} <= {f"some chats.db{end}" for end in ENDS}


def test_an_engine_is_taken_as_it_is(shell: str, tmp_path: Path) -> None:  # noqa: ARG001
    """An engine, with connections that it has made already, is set up and watched, and stays open."""
    path = tmp_path / "chats.db"
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})
    with engine.connect() as one:
        one.exec_driver_sql("SELECT 1")
    with opened(engine) as rp:
        session = begun(rp)
        restore(path)
        with pytest.raises(StoreError, match="replaced or deleted"):
            session.send("Hm.")
        session.send("Hm.")
    with engine.connect() as one:
        assert one.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()
    with pytest.raises(SettingsError, match="for a URL"):
        opened(engine, db_key="secret")


def test_a_creator_makes_the_connections(shell: str, tmp_path: Path) -> None:  # noqa: ARG001
    """What it makes is set up and watched like any other."""
    path = tmp_path / "chats.db"
    with opened("sqlite://", creator=lambda: sqlite3.connect(path, check_same_thread=False)) as rp:
        session = begun(rp)
        restore(path)
        with pytest.raises(StoreError, match="replaced or deleted"):
            session.turns()
        assert len(session.turns().items) == 3


def test_names_of_the_front_door() -> None:
    """``Roleplay.open`` says what it takes."""
    assert "Engine" in (roleplay.Roleplay.open.__doc__ or "")

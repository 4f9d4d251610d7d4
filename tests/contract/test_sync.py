"""Personas kept in files: what a sync does, what it leaves alone, and that it does all or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roleplay import (
    ConflictError,
    Endpoint,
    InvalidInputError,
    NotFoundError,
    Persona,
    PersonaChange,
    SyncReport,
)
from roleplay import (
    Roleplay as Blocking,
)
from roleplay.exchange import persona_files
from roleplay.store.records import personas
from roleplay.testing import ScriptedModel
from tests.house.test_statements import written
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

MODEL = Endpoint("MiniMax-M2.7")


@pytest.fixture
def rp(database_url: str, scripted: Callable[..., ScriptedModel], tmp_path: Path) -> Iterator[Any]:
    """An engine of each kind on each database in turn, with a tenant beside who synced the same keys."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    write(theirs, "huang", "Theirs.")
    write(theirs, "nova", "Theirs.")
    beside = Blocking.open(database_url, model=MODEL, chat=ScriptedModel(), migrate="auto", tenant="beside")
    with beside, Roleplay.open(database_url, model=MODEL, chat=scripted()) as one:
        beside.personas.sync(theirs)
        yield one
        assert beside.personas.sync(theirs, prune=True).unchanged == ("huang", "nova")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two personas, and with what is no persona file."""
    one = tmp_path / "personas"
    one.mkdir()
    write(one, "huang", "A ferryman.")
    (one / "Nova Prime.JSON").write_text('{"name": "Nova", "key": "nova"}', encoding="utf-8")
    (one / "README.md").write_text("Ours.", encoding="utf-8")
    (one / ".huang.yaml").write_text("half-", encoding="utf-8")
    (one / "drafts").mkdir()
    write(one / "drafts", "echo", "Not yet.")
    return one


def write(folder: Path, key: str, description: str, suffix: str = ".yaml") -> Path:
    """A persona file."""
    path = folder / f"{key}{suffix}"
    path.write_text(f"name: {key.title()}\ndescription: {description}\n", encoding="utf-8")
    return path


def told(report: SyncReport) -> list[tuple[str, str, int, str | None]]:
    """A report in short."""
    return [(one.key, one.change.value, one.version, one.file) for one in report.personas]


def test_a_folder_is_brought_in(rp: Any, folder: Path) -> None:
    """New files are added, changed ones become versions, equal ones are left alone; each with who wrote it and why."""
    first = rp.personas.sync(folder, author="ada", message="c0ffee")
    assert told(first) == [("huang", "added", 1, "huang.yaml"), ("nova", "added", 1, "Nova Prime.JSON")]
    assert (first.added, first.changed, first.unchanged, first.archived) == (("huang", "nova"), (), (), ())
    assert (rp.personas.get("nova").author, rp.personas.get("nova").message) == ("ada", "c0ffee")
    with written() as rows:
        again = rp.personas.sync(str(folder))
    assert not rows
    assert again.unchanged == ("huang", "nova")
    write(folder, "huang", "A ferryman, retired.")
    write(folder, "echo", "A voice.", ".yml")
    assert told(rp.personas.sync(folder)) == [
        ("echo", "added", 1, "echo.yml"),
        ("huang", "changed", 2, "huang.yaml"),
        ("nova", "unchanged", 1, "Nova Prime.JSON"),
    ]
    assert rp.personas.get("huang").persona == Persona("Huang", "A ferryman, retired.", key="huang")
    assert SyncReport.model_validate_json(again.model_dump_json()) == again


def test_a_dry_run_tells_the_same_and_writes_nothing(rp: Any, folder: Path) -> None:
    """Before each real one."""
    for change in (lambda: None, lambda: write(folder, "huang", "Changed."), (folder / "huang.yaml").unlink):
        change()
        with written() as rows:
            would = rp.personas.sync(folder, prune=True, dry_run=True)
        assert not rows
        assert would.dry_run
        done = rp.personas.sync(folder, prune=True)
        assert done == would.model_copy(update={"dry_run": False})
    assert done.archived == ("huang",)


def test_pruning_archives_what_came_from_files_alone(rp: Any, folder: Path) -> None:
    """What a person put stays, what a session pins goes on, and a file that comes back brings its persona back."""
    made = rp.personas.put(Persona("Mine", key="mine"))
    keyless = rp.personas.put(Persona("Guest"))
    rp.personas.sync(folder)
    session = rp.sessions.create(cast=["huang"])
    gone = (folder / "huang.yaml").read_text()
    (folder / "huang.yaml").unlink()
    assert rp.personas.sync(folder).archived == ()
    report = rp.personas.sync(folder, prune=True)
    assert told(report) == [("huang", "archived", 1, None), ("nova", "unchanged", 1, "Nova Prime.JSON")]
    assert {one.key for one in rp.personas.iter()} == {"mine", None, "nova"}
    assert session.send("Still there?").reply.name == "Huang"
    assert rp.personas.sync(folder, prune=True).archived == ()
    (folder / "huang.yaml").write_text(gone)
    assert told(rp.personas.sync(folder, prune=True))[0] == ("huang", "changed", 1, "huang.yaml")
    assert rp.personas.get("huang").archived_at is None
    assert [rp.personas.get(one.id) for one in (made, keyless)] == [made, keyless]


def test_a_file_takes_over_what_a_person_put(rp: Any, folder: Path) -> None:
    """From then on it is the file's: its words replace theirs, and it goes with the file."""
    rp.personas.put(Persona("Huang", "A ferryman.", key="huang"))
    rp.personas.put(Persona("Nova", "By hand.", key="nova"))
    assert told(rp.personas.sync(folder)) == [
        ("huang", "unchanged", 1, "huang.yaml"),
        ("nova", "changed", 2, "Nova Prime.JSON"),
    ]
    rp.personas.put(Persona("Huang", "By hand.", key="huang"))
    assert rp.personas.sync(folder).changed == ("huang",)
    (folder / "huang.yaml").unlink()
    assert rp.personas.sync(folder, prune=True).archived == ("huang",)


def test_many_files(rp: Any, tmp_path: Path) -> None:
    """More than are asked for at once."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(250):
        write(many, f"p{number:03}", f"Number {number}.")
    assert len(rp.personas.sync(many).added) == 250
    write(many, "p249", "Changed.")
    report = rp.personas.sync(many)
    assert (report.changed, len(report.unchanged)) == (("p249",), 249)


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("bad.yaml", "name: Ann\nmood: gay\n", "bad.yaml: mood"),
        ("bad.yml", "name: ''\n", "bad.yml: name"),
        ("bad.json", "{", "bad.json"),
        ("bad.yaml", "a: &a [1]\nb: *a\n", "bad.yaml"),
        ("bad.json", "[" * 50_000, "bad.json"),
        ("bad.yaml", "name: " + "x" * 1_000_000, "bad.yaml"),
        ("bad.yaml", "name: Ann\nkey: huang\n", "bad.yaml: key"),
        ("---.yaml", "name: Ann\n", "---.yaml: key"),
        ("bad.yaml", "\xff\xfe", "bad.yaml"),
    ],
)
def test_a_bad_file_stops_all(rp: Any, folder: Path, name: str, text: str, field: str) -> None:
    """File and field are named, and nothing is written, of the good files neither."""
    (folder / name).write_text(text, encoding="latin-1")
    for dry_run in (True, False):
        with pytest.raises(InvalidInputError) as failure:
            rp.personas.sync(folder, dry_run=dry_run)
        assert failure.value.field in {str(folder / field), f"{folder / 'huang.yaml'}: key"}
    assert len(rp.personas.list()) == 0


def test_what_is_no_file_of_the_folder_is_not_read(rp: Any, folder: Path, tmp_path: Path) -> None:
    """Links that lead elsewhere, folders, pipes; a link within the folder is a file like any other."""
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: 12\n", encoding="utf-8")

    def make(path: Path, how: str) -> None:
        match how:
            case "link":
                path.symlink_to(secret)
            case "dead link":
                path.symlink_to(tmp_path / "nothing")
            case "folder":
                path.mkdir()
            case _:
                os.mkfifo(path)

    for how in ("link", "dead link", "folder", "pipe"):
        odd = folder / "odd.yaml"
        make(odd, how)
        with pytest.raises(InvalidInputError, match="is no file of this folder") as failure:
            rp.personas.sync(folder)
        assert "password" not in str(failure.value)
        odd.rmdir() if how == "folder" else odd.unlink()
    (folder / "nova.yaml").symlink_to(folder / "Nova Prime.JSON")
    with pytest.raises(InvalidInputError, match=r"'nova' is the key of Nova Prime\.JSON, too"):
        rp.personas.sync(folder)


def test_a_folder_that_cannot_be(rp: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not there, is a file, holds too much, or holds nothing to prune by."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert rp.personas.sync(empty).personas == ()
    with pytest.raises(InvalidInputError, match="holds no persona files"):
        rp.personas.sync(empty, prune=True)
    with pytest.raises(NotFoundError, match="no folder"):
        rp.personas.sync(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        rp.personas.sync(folder / "README.md")
    monkeypatch.setattr(persona_files, "FILES_LIMIT", 1)
    with pytest.raises(InvalidInputError, match="at most 1"):
        rp.personas.sync(folder)
    for wrong in ({"author": " "}, {"message": "\x00"}):
        monkeypatch.setattr(persona_files, "FILES_LIMIT", 9)
        with pytest.raises(InvalidInputError):
            rp.personas.sync(folder, **wrong)
    assert len(rp.personas.list()) == 0


def test_what_fails_midway_is_undone(rp: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody else writes between, or anything breaks, no file was brought in."""
    put = personas.put

    def refuse(*args: Any, **options: Any) -> Any:
        if args[2].key == "nova":
            raise ConflictError("somebody was first")
        return put(*args, **options)

    monkeypatch.setattr(personas, "put", refuse)
    with pytest.raises(ConflictError):
        rp.personas.sync(folder)
    assert len(rp.personas.list()) == 0
    monkeypatch.setattr(personas, "put", put)
    assert {one.change for one in rp.personas.sync(folder).personas} == {PersonaChange.ADDED}

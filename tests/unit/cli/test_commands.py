"""The commands, one by one, run inside this process."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from roleplay import Persona, Roleplay
from roleplay.cli.show import console
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator.faults import InsufficientBalance, UsageNull
from tests.unit.cli.conftest import PERSONA, Command


def test_a_persona_is_added_changed_and_shown(command: Command, persona_file: Path) -> None:
    """A changed file becomes a new version, an equal one nothing; what show writes, add takes."""
    assert command("persona", "add", persona_file).out == "added Zhuge Liang · roleplay chat zhuge-liang\n"
    assert command("persona", "add", persona_file).out.startswith("unchanged Zhuge Liang, version 1")
    persona_file.write_text(PERSONA + "note: The lamp is low.\n", encoding="utf-8")
    assert command("persona", "add", persona_file).out.startswith("Zhuge Liang is now version 2")
    shown = command("persona", "show", "zhuge-liang").out
    assert shown.startswith("key: zhuge-liang\nname: Zhuge Liang\n")
    persona_file.write_text(shown, encoding="utf-8")
    assert command("persona", "add", persona_file).out.startswith("unchanged")
    old = json.loads(command("persona", "show", "zhuge-liang", "--version", 1, "--json").out)
    assert (old["version"], old["persona"]["note"]) == (1, "")
    assert command("persona", "show", "zhuge-liang", "--version", 9).code == 4


def test_of_several_files_one_bad_one_stops_all(command: Command, persona_file: Path, tmp_path: Path) -> None:
    """Nothing is half-added; two files with one key are an error too."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("mood: gay\n", encoding="utf-8")
    ended = command("persona", "add", persona_file, bad)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"{bad}: mood: unknown field" in ended.err
    assert command("persona", "add", persona_file, persona_file).code == 2
    assert not (tmp_path / "chats.db").exists()


def test_a_folder_is_synced(command: Command, persona_file: Path) -> None:
    """A line for each persona, a sum on standard error, a report as JSON; a bad file leaves all as it was."""
    folder = persona_file.parent / "personas"
    folder.mkdir()
    persona_file.rename(folder / persona_file.name)
    options = ("persona", "sync", folder, "--author", "ada", "--message", "c0ffee")
    ended = command(*options)
    assert (ended.out, ended.err) == ("added\tzhuge-liang\t1\tzhuge_liang.yaml\n", "1 added\n")
    shown = json.loads(command("persona", "show", "zhuge-liang", "--json").out)
    assert (shown["author"], shown["message"]) == ("ada", "c0ffee")
    (folder / "ann.yml").write_text("name: Ann\n", encoding="utf-8")
    (folder / "zhuge_liang.yaml").unlink()
    planned = command(*options, "--prune", "--dry-run")
    assert planned.out == "added\tann\t1\tann.yml\narchived\tzhuge-liang\t1\t\n"
    assert planned.err == "nothing was written; it would be: 1 added, 1 archived\n"
    report = json.loads(command(*options, "--prune", "--json").out)
    assert report["dry_run"] is False
    assert [one["change"] for one in report["personas"]] == ["added", "archived"]
    assert command("persona", "list").out.split("\t")[0] == "ann"
    (folder / "bad.yaml").write_text("mood: gay\n", encoding="utf-8")
    bad = command(*options)
    assert (bad.code, bad.err.count("\n")) == (2, 1)
    assert "bad.yaml: mood: unknown field" in bad.err
    assert command("persona", "sync", folder / "nowhere").code == 4


def test_lists_are_for_people_and_for_scripts(command: Command, persona_file: Path) -> None:
    """A pipe gets tab-separated lines; JSON is a page; an empty list says how to begin."""
    empty = command("db", "upgrade")
    assert empty.code == 0
    assert "roleplay persona add FILE" in command("persona", "list").err
    assert "roleplay chat PERSONA" in command("session", "list").err
    assert "no model was called yet" in command("usage").err
    [added] = json.loads(command("persona", "add", persona_file, "--json").out)
    row = command("persona", "list").out.rstrip("\n").split("\t")
    assert row[:3] == ["zhuge-liang", "Zhuge Liang", "1"]
    assert added["id"].startswith(row[3])
    assert command("persona", "show", row[3]).code == 0
    page = json.loads(command("persona", "list", "--json").out)
    assert (page["items"], page["older"]) == ([added], None)


def test_a_chat_writes_the_conversation_to_one_stream_and_remarks_to_the_other(
    spoken: Command, persona_file: Path, simulator: Simulator
) -> None:
    """A pipe gets the greeting and the replies; usage, place and advice go to standard error."""
    simulator.say("The wind turns.", "It turned.")
    ended = spoken("chat", persona_file, "-m", "Will it rain?", "-m", "/and now?", "--scene", "Longzhong")
    assert ended.code == 0
    assert ended.out == (
        "Zhuge Liang: You have come through snow, User. Sit.\nZhuge Liang: The wind turns.\nZhuge Liang: It turned.\n"
    )
    saved = [line for line in ended.err.splitlines() if line.startswith("saved · ")]
    assert len(saved) == 2
    assert all(line.endswith(" s") and " tokens · " in line for line in saved)
    assert "go on: roleplay chat --continue\n" in ended.err
    assert simulator.requests[-1].json["messages"][-1]["content"] == "/and now?"


def test_usage_that_was_not_reported_is_a_question_mark(spoken: Command, simulator: Simulator) -> None:
    """Nothing is made up."""
    simulator.always(UsageNull())
    ended = spoken("chat", "innkeeper", "-m", "hi", "--no-stream")
    assert "saved · ? (? cached) + ? tokens · " in ended.err
    assert "?" in spoken("usage").out


def test_json_is_one_object_a_turn(spoken: Command, simulator: Simulator) -> None:
    """Nothing else is on standard output; a failed turn is told too, with its error and an exit code."""
    simulator.say("One.", "Two.")
    ended = spoken("chat", "innkeeper", "--json", "-m", "a", "-m", "b")
    first, second = (json.loads(line) for line in ended.out.splitlines())
    assert (first["human"], first["reply"], second["reply"]) == ("a", "One.", "Two.")
    assert {"turn_id", "session_id", "status", "speaker", "usage", "seconds"} <= first.keys()
    assert first["usage"]["total_tokens"] > 0
    assert ended.err == ""
    simulator.next(InsufficientBalance())
    failed = spoken("chat", "-c", "--json", "-m", "c")
    told = json.loads(failed.out)
    assert (failed.code, told["status"], told["reply"], told["error"]["slug"]) == (6, "failed", None, "chat_quota")
    error = json.loads(failed.err)
    assert (error["slug"], error["turn_id"]) == ("chat_quota", told["turn_id"])


def test_piped_lines_are_said_one_by_one(spoken: Command, simulator: Simulator) -> None:
    """Blank lines are no turns, commands work, two slashes say one, and the end is the end of input."""
    typed = b"hello\n\n  \n//roll\n/usage\n/context why\n/history 2\n/help\n/quit\nnever\n"
    ended = spoken("chat", "innkeeper", typed=typed)
    assert ended.code == 0
    said = [request.json["messages"][-1]["content"] for request in simulator.requests]
    assert said == ["hello", "/roll"]
    assert "2 calls · " in ended.out
    assert "\ns\tsystem\t" in ended.out
    assert "User: /roll\n" in ended.out
    assert "/history [N]" in ended.out
    assert "number [" not in ended.out


@pytest.mark.parametrize(("line", "says"), [("/foo", "/foo: is no command"), ("/history x", "a number from 1 to 500")])
def test_a_command_that_is_not_known_is_explained(spoken: Command, line: str, says: str) -> None:
    """A script stops there, with what is known."""
    ended = spoken("chat", "innkeeper", typed=line.encode())
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err


def test_going_on_finds_the_last_session(spoken: Command, persona_file: Path) -> None:
    """The last of all, or the last of a persona; a session is found by the beginning of its id."""
    first = json.loads(spoken("chat", persona_file, "--json", "-m", "a").out)["session_id"]
    second = json.loads(spoken("chat", "innkeeper", "--json", "-m", "b").out)["session_id"]
    assert json.loads(spoken("chat", "-c", "--json", "-m", "c").out)["session_id"] == second
    assert json.loads(spoken("chat", "zhuge-liang", "-c", "--json", "-m", "d").out)["session_id"] == first
    assert json.loads(spoken("chat", persona_file, "-c", "--json", "-m", "d").out)["session_id"] == first
    assert json.loads(spoken("chat", second[:-4], "--json", "-m", "e").out)["session_id"] == second
    assert spoken("chat", "ships-computer", "-c", "-m", "f").code == 4
    assert spoken("chat", first, "--as", "traveler", "-m", "g").code == 2
    assert first[:4] == second[:4]  # ids begin with the time
    assert "more than one id begins so" in spoken("chat", first[:4], "-m", "h").err


def test_a_session_is_shown_with_what_its_turns_cost(spoken: Command, simulator: Simulator) -> None:
    """A failed turn is marked; an older page is named; JSON has the whole."""
    simulator.say("One.")
    spoken("chat", "innkeeper", "--as", "traveler", "-m", "a")
    simulator.next(InsufficientBalance())
    spoken("chat", "-c", "-m", "b")
    row = spoken("session", "list").out.rstrip("\n").split("\t")
    shown = spoken("session", "show", row[0]).out
    assert shown.startswith("Marta Quill · you are Robin Vale · ")
    assert "greeting 1 of 2\n" in shown
    assert "Robin Vale: a\nMarta Quill: One.\ncompleted · " in shown
    assert "[Marta Quill's reply: failed: " in shown
    whole = json.loads(spoken("session", "show", row[0], "--json").out)
    assert [turn["status"] for turn in whole["turns"]["items"]] == ["completed", "completed", "failed"]
    assert "--before turn-" in spoken("session", "show", row[0], "--limit", 1).err
    assert spoken("session", "list", "--owner", "nobody").out == ""
    assert len(json.loads(spoken("session", "list", "--json").out)["items"]) == 1
    assert spoken("session", "show", "nothing").code == 4


def test_usage_is_added_up(spoken: Command) -> None:
    """By model, session or day, for people and for scripts."""
    spoken("chat", "innkeeper", "-m", "a")
    assert spoken("usage").out.startswith("MiniMax-M2.7\t1\t")
    [total] = json.loads(spoken("usage", "--by", "session", "--json").out)
    assert total["key"].startswith(spoken("usage", "--by", "session").out.split("\t")[0])
    assert spoken("usage", "--by", "moon").code == 2


def test_words_of_a_model_cannot_steer_the_terminal(spoken: Command, simulator: Simulator) -> None:
    """Neither control sequences nor markup do anything: they are shown."""
    simulator.say("[red]\x1b[31mboo\x07[/red]")
    assert "Marta Quill: [red]␛[31mboo␇[/red]\n" in spoken("chat", "innkeeper", "-m", "a").out
    assert "\x1b" not in spoken("session", "list").out + spoken("session", "show", "0").out


def test_the_database_is_upgraded_and_checked(command: Command, tmp_path: Path) -> None:
    """Check changes nothing, not even by making a file."""
    missing = command("db", "check")
    assert (missing.code, missing.err.count("\n")) == (8, 1)
    assert "run: roleplay db upgrade" in missing.err
    assert not (tmp_path / "chats.db").exists()
    assert "is now at revision" in command("db", "upgrade").out
    assert "already" in command("db", "upgrade").out
    assert command("db", "check").code == 0
    assert json.loads(command("db", "check", "--json").out).keys() == {"found", "revision"}
    assert json.loads(command("db", "upgrade", "--json").out).keys() == {"found", "revision"}


def test_alone_without_a_terminal_it_shows_what_there_is(command: Command, sqlite_url: str) -> None:
    """The last session, the stored personas, the examples; and a usage code."""
    with Roleplay.open(sqlite_url, model="MiniMax-M2.7", chat=ScriptedModel()) as rp:
        rp.sessions.create(cast=[rp.personas.put(Persona("Ann", key="ann"))], scene="A hill")
    ended = command()
    assert ended.code == 2
    offered = ended.out.splitlines()
    assert offered[0].startswith("  1  go on: Ann · you are User · A hill · ")
    assert offered[1] == "  2  Ann · ann"
    assert "  3  Marta Quill · innkeeper (example)" in offered
    assert not any("traveler" in line for line in offered)
    assert offered[-1].endswith("roleplay persona add FILE.yaml")
    assert ended.err.count("\n") == 1


def test_input_that_is_not_utf_8_is_refused(spoken: Command) -> None:
    """A broken byte is the caller's mistake, told with its place; nothing is written."""
    ended = spoken("chat", "innkeeper", typed=b"\r\n" + "\u00e9".encode() + b"\r\ncaf\xe9\n")
    assert ended.code == 2
    assert "line 3 is not UTF-8 (byte 4 of the line, 0xe9, byte 9 of all)" in ended.err


def test_a_byte_order_mark_of_the_input_is_taken(spoken: Command) -> None:
    """Some editors and shells begin with one, and nobody said it."""
    ended = spoken("chat", "innkeeper", "--json", typed="\ufeffIs there a bed?\n".encode())
    assert json.loads(ended.out)["human"] == "Is there a bed?"


def test_without_colours_the_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR is heard, and what is no terminal gets none."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert console(sys.stdout).color_system is None
    monkeypatch.delenv("NO_COLOR")
    assert console(sys.stdout).color_system is not None


def test_a_terminal_gets_headings_and_columns(command: Command, persona_file: Path) -> None:
    """What a pipe gets as tabs, a person gets as a table."""
    command("persona", "add", persona_file)
    shown = re.sub(r"\x1b\[[\d;]*m", "", command("persona", "list", terminal=True).out)
    assert re.search(r"key +name +version +id +about", shown)
    assert re.search(r"zhuge-liang +Zhuge Liang +1 +", shown)
    assert "\t" not in shown
    assert "name: Zhuge Liang\n" in command("persona", "show", "zhuge-liang", terminal=True).out


def test_a_person_types_and_errors_do_not_end_the_chat(spoken: Command, simulator: Simulator) -> None:
    """Blank lines ask again, an error is one line, the end of input ends well."""
    simulator.next(InsufficientBalance())
    typed = b"1\n\n/nonsense\nhello\n/usage\n"
    ended = spoken(typed=typed, terminal=True)
    assert ended.code == 0
    assert "number [1]: " in ended.out
    assert [line.split(":")[0] for line in ended.err.splitlines() if line.startswith("roleplay")] == ["roleplay"] * 2
    again = spoken("chat", "-c", typed=b"/quit\n", terminal=True)
    assert "Marta Quill's reply: failed" in again.out


def test_a_piped_chat_that_fails_tells_where_it_is_and_how_to_go_on(spoken: Command, simulator: Simulator) -> None:
    """Whatever ends it; a reply that failed can be asked for again, and the last line is the error."""
    simulator.say("One.")
    bad = spoken("chat", "innkeeper", typed=b"hi\n/bogus\n")
    assert bad.code == 2
    *_, stored, go_on, error = bad.err.splitlines()
    assert stored.startswith("stored in ")
    assert go_on == "go on: roleplay chat --continue"
    assert error.startswith("roleplay: /bogus: is no command")
    simulator.next(InsufficientBalance())
    failed = spoken("chat", "innkeeper", typed=b"hi\n")
    assert failed.code == 6
    *_, go_on, error = failed.err.splitlines()
    assert go_on == "go on: roleplay chat --continue"
    assert error.endswith(" · roleplay chat --continue, then /retry asks again")
    simulator.say("At last.")
    assert spoken("chat", "--continue", typed=b"/retry\n").out == "Marta Quill: At last.\n"


@pytest.mark.parametrize("answer", [b"9\n", b"x\n", b"0\n"])
def test_a_number_that_was_not_offered_is_refused(spoken: Command, answer: bytes) -> None:
    """Nothing is begun by mistake."""
    ended = spoken("chat", typed=answer, terminal=True)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "number: is " in ended.err


def test_whom_you_play_may_be_a_file_and_must_exist(spoken: Command, persona_file: Path, simulator: Simulator) -> None:
    """A file, a stored persona or an example; another name is not found, and nothing is begun."""
    assert spoken("chat", "innkeeper", "--as", "nobody", "-m", "a").code == 4
    assert json.loads(spoken("session", "list", "--json").out)["items"] == []
    assert spoken("chat", "innkeeper", "--as", persona_file, "-m", "a").code == 0
    assert simulator.requests[-1].json["messages"][1]["name"] == "Zhuge Liang"
    assert spoken("chat", "innkeeper", "--as", "zhuge-liang", "-m", "b").code == 0


def test_a_pipe_without_a_word_is_refused(spoken: Command) -> None:
    """Nothing is begun for it."""
    ended = spoken("chat", "innkeeper", typed=b" \n\n")
    assert (ended.code, ended.out) == (2, "")
    assert json.loads(spoken("session", "list", "--json").out)["items"] == []

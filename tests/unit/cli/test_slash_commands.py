"""What can be done with replies and branches inside a chat, and the doctor, run inside this process."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from roleplay import ChatSession, Endpoint, Persona, Roleplay, TurnStatus
from roleplay.cli.commands import Commands
from roleplay.cli.conversation import Conversation, OutputOptions
from roleplay.cli.interrupts import InterruptHandler, InterruptibleTransport
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator.faults import CutStream, InsufficientBalance
from tests.unit.cli.conftest import Command

OFFER = "/continue, /retry or /accept"
IN_FLIGHT = "UPDATE roleplay_turns SET status = 'streaming', ended_at = NULL, lease_owner = 'gone/1/1', lease_until = ?"


def lines(text: str, begin: str) -> list[str]:
    """The lines that begin so."""
    return [line for line in text.splitlines() if line.startswith(begin)]


def sql(folder: Path, statement: str, *values: object) -> None:
    """Change a test's database behind the engine's back."""
    with closing(sqlite3.connect(folder / "chats.db")) as db, db:
        db.execute(statement, values)


def test_another_reply_is_a_variant_that_can_be_chosen(spoken: Command, simulator: Simulator) -> None:
    """/swipe says which variant it is; /variants lists them by their numbers in /history; /choose and /undo move."""
    simulator.say("Soup.", "Bread.")
    typed = b"Food?\n/swipe more bread\n/variants\n/choose 3\n/history 1\n/undo\n/history 1\n"
    ended = spoken("chat", "innkeeper", typed=typed)
    assert ended.code == 0, ended.err
    assert "more bread" in simulator.requests[-1].json["messages"][-1]["content"]
    assert [line.split(" · ")[:2] for line in lines(ended.err, "saved")][1] == ["saved", "variant 2 of 2"]
    assert "\t3\tMarta Quill\tSoup.\n*\t4\tMarta Quill\tBread.\n" in ended.out
    assert lines(ended.out, "#") == ["#3 · variant 1 of 2"] * 2 + ["#4 · variant 2 of 2"] * 2
    assert ended.out.endswith("#4 · variant 2 of 2\nUser: Food?\nMarta Quill: Bread.\n" * 2)


def test_a_greeting_has_variants_and_no_model_is_asked(
    spoken: Command, simulator: Simulator, persona_file: Path
) -> None:
    """/swipe goes round the persona's greetings; where there is only one it says so."""
    ended = spoken("chat", "innkeeper", typed=b"/swipe\n/swipe\n")
    assert lines(ended.out, "#") == ["#2 · variant 2 of 2", "#1 · variant 1 of 2"]
    assert simulator.requests == []
    alone = spoken("chat", persona_file, typed=b"/swipe\n")
    assert (alone.code, "the persona has no other greeting" in alone.err) == (2, True)


def test_an_edit_is_a_variant(spoken: Command, simulator: Simulator) -> None:
    """The next line follows the words that were put in; the model's own stay beside them."""
    simulator.say("Soup.", "Sit, then.")
    ended = spoken("chat", "innkeeper", typed=b"Food?\n/edit Nothing today.\nPlease.\n/rewind\n/variants\n")
    assert ended.code == 0, ended.err
    assert [one["content"] for one in simulator.requests[-1].json["messages"]][-3:] == [
        "Food?",
        "Nothing today.",
        "Please.",
    ]
    assert ended.out.endswith("\t3\tMarta Quill\tSoup.\n*\t4\tMarta Quill\tNothing today.\n")


def test_a_branch_begins_at_an_earlier_turn(spoken: Command, simulator: Simulator) -> None:
    """/fork by number or id, /branches with a star at ours, /rewind to before the first turn, /undo back."""
    simulator.say("A.", "B.", "C.", "D.")
    first = json.loads(spoken("chat", "innkeeper", "--json", "-m", "a").out)["turn_id"]
    ended = spoken("chat", "-c", typed=f"b\n/fork {first}\nc\n/fork #3\nd\n/branches\n/history\n".encode())
    assert ended.code == 0, ended.err
    assert [one["content"] for one in simulator.requests[-1].json["messages"]][-3:] == ["a", "A.", "d"]
    assert [row.split("\t")[:2] for row in ended.out.splitlines() if "\t" in row] == [
        ["*", "6"],
        ["", "5"],
        ["", "4"],
        ["", "2"],
    ]
    assert [line.split()[0] for line in lines(ended.out, "#")] == ["#3", "#3", "#1", "#3", "#6"]
    back = spoken("chat", "-c", typed=b"/rewind 2\n/rewind\n/history\n/undo\n/rewind 9\n")
    assert [line.split()[0] for line in lines(back.out, "#")] == ["#1", "#1"]
    assert "you stand before the first turn" in back.err
    assert (back.code, "turns: is 9" in back.err) == (2, True)


def test_a_hidden_turn_is_not_sent(spoken: Command, simulator: Simulator) -> None:
    """It stays in /history, marked, until it is shown again."""
    simulator.say("A.", "B.", "C.")
    ended = spoken("chat", "innkeeper", typed=b"a\n/hide 3\nb\n/show 3\nc\n")
    assert ended.code == 0, ended.err
    assert lines(ended.out, "#") == ["#3 · hidden", "#3"]
    sent = [[one["content"] for one in request.json["messages"]] for request in simulator.requests]
    assert "a" not in sent[1]
    assert sent[2][-5:] == ["a", "A.", "b", "B.", "c"]


def test_a_reply_that_was_cut_off_goes_on(spoken: Command, simulator: Simulator) -> None:
    """The chat begins with one line about it; /continue writes the text so far and what follows."""
    simulator.next(CutStream(after_chunks=2))
    simulator.say("Once there was a bridge over the river.")
    cut = spoken("chat", "innkeeper", "-m", "Tell me.")
    so_far = cut.out.splitlines()[-1]
    assert so_far.startswith("Marta Quill: Once")
    simulator.say("fell down.")
    ended = spoken("chat", "-c", typed=b"/continue\n")
    assert ended.out.startswith(so_far)
    assert ended.out.endswith("fell down.\n")
    assert ended.err.splitlines()[0] == f"the last reply was interrupted: {OFFER}"
    assert lines(ended.err, "saved")


def test_a_complete_reply_goes_on(spoken: Command, simulator: Simulator) -> None:
    """/continue at a complete reply writes its text and what follows, as a variant; also after a try that failed."""
    simulator.say("Once there was a bridge.")
    spoken("chat", "innkeeper", "-m", "Tell me.")
    simulator.next(InsufficientBalance())
    assert spoken("chat", "-c", typed=b"/continue\n").code == 6
    simulator.say("It fell down.")
    ended = spoken("chat", "-c", typed=b"/continue\n")
    assert ended.out == "Marta Quill: Once there was a bridge.It fell down.\n"
    assert lines(ended.err, "saved · variant 2 of 2")


def test_a_reply_that_was_cut_off_is_kept(spoken: Command, simulator: Simulator) -> None:
    """/accept makes it the reply; before, it can be neither edited nor lost by /swipe."""
    simulator.next(CutStream(after_chunks=2))
    simulator.say("Once there was a bridge over the river.")
    spoken("chat", "innkeeper", "-m", "Tell me.")
    refused = spoken("chat", "-c", typed=b"/edit Never.\n")
    assert refused.err.splitlines()[-1] == f"roleplay: /edit: the last reply was interrupted (allowed: {OFFER})"
    ended = spoken("chat", "-c", typed=b"/accept\n/accept\n")
    assert re.search(r"^#3\nUser: Tell me\.\nMarta Quill: Once \w+", ended.out)
    assert ended.err.splitlines()[-1].endswith("/accept: the last reply is whole (allowed: it is kept already)")
    simulator.say("Of stone.")
    spoken("chat", "-c", typed=b"And?\n")
    assert simulator.requests[-1].json["messages"][-2]["content"].startswith("Once")


def test_a_failed_line_is_asked_again(spoken: Command, simulator: Simulator) -> None:
    """/retry uses the same line, which is stored once; a second one has nothing to do."""
    simulator.next(InsufficientBalance())
    assert spoken("chat", "innkeeper", "-m", "Food?").code == 6
    simulator.say("Soup.", "Bread.")
    ended = spoken("chat", "-c", typed=b"/continue\n")
    assert (ended.code, ended.err.splitlines()[0]) == (2, "the last reply failed: /retry asks again")
    assert ended.err.splitlines()[-1] == "roleplay: /continue: the last reply failed (allowed: /retry asks again)"
    ended = spoken("chat", "-c", typed=b"/retry\n/history 1\n/swipe\n/retry\n")
    assert ended.out.splitlines()[:4] == ["Marta Quill: Soup.", "#3", "User: Food?", "Marta Quill: Soup."]
    assert "variant 2 of 2" in ended.err
    assert ended.err.splitlines()[-1].startswith("roleplay: /retry: the last reply is whole")


def test_another_reply_to_a_line_that_failed(spoken: Command, simulator: Simulator) -> None:
    """/swipe answers the last line, also where its first answer failed."""
    simulator.next(InsufficientBalance())
    spoken("chat", "innkeeper", "-m", "Food?")
    simulator.say("Soup.")
    ended = spoken("chat", "-c", typed=b"/swipe shorter\n/history 1\n")
    assert ended.out.endswith("User: Food?\nMarta Quill: Soup.\n")


def test_an_old_failure_is_not_the_last_reply(spoken: Command, simulator: Simulator) -> None:
    """Back where a line once failed and another was answered since, the commands mean the reply stood on."""
    simulator.say("A.", "B.", "A again.")
    spoken("chat", "innkeeper", "-m", "a")
    simulator.next(InsufficientBalance())
    spoken("chat", "-c", "-m", "fails")
    ended = spoken("chat", "-c", typed=b"b\n/rewind\n/edit A, edited.\n/choose 3\n/swipe\n/choose 3\n/retry\n")
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("roleplay: /retry: the last reply is whole")
    assert lines(ended.out, "Marta Quill: ")[-3:] == [f"Marta Quill: {one}" for one in ("A.", "A again.", "A.")]


def test_a_reply_that_a_dead_process_left_can_go_on(spoken: Command, simulator: Simulator, tmp_path: Path) -> None:
    """Going on ends what nobody holds, so that the offer stands at once."""
    simulator.say("Once there was")
    spoken("chat", "innkeeper", "-m", "Tell me.")
    sql(tmp_path, f"{IN_FLIGHT} WHERE seq = 3", "2020-01-01 00:00:00")
    sql(tmp_path, "UPDATE roleplay_sessions SET head_seq = 1")
    simulator.say("a bridge.")
    ended = spoken("chat", "-c", typed=b"/continue\n")
    assert ended.err.splitlines()[0] == f"the last reply was interrupted: {OFFER}"
    assert ended.out == "Marta Quill: Once there wasa bridge.\n"


def test_errors_are_one_line_and_the_chat_goes_on(spoken: Command, simulator: Simulator) -> None:
    """At a terminal every mistake is told in one line, with what can be done about it."""
    simulator.next(InsufficientBalance())
    typed = (
        b"1\n/fork\n/fork 77\n/choose no-such-id\n/rewind x\n/hide\n/edit\n/accept\nhello\n/accept\n/undo now\n/undo\n"
    )
    ended = spoken(typed=typed, terminal=True)
    assert ended.code == 0
    told = [
        line.partition("roleplay: ")[2] for line in ended.err.splitlines() if "roleplay: /" in line or "no turn" in line
    ]
    assert told == [
        "/fork: names no turn (allowed: a turn's number in /history, or its id)",
        "no turn '77'",
        "no turn 'no-such-id'",
        "/rewind: is followed by 'x' (allowed: a number of turns from 1)",
        "/hide: names no turn (allowed: a turn's number in /history, or its id)",
        "/accept: the last reply is whole (allowed: it is kept already)",
        "/accept: the last reply failed (allowed: /retry asks again)",
    ]
    assert "say it again · /retry asks again" in ended.err
    assert "undo: has nothing left to take back" in ended.err


def test_nothing_was_said_yet(spoken: Command, tmp_path: Path) -> None:
    """A session without a turn has nothing to change."""
    (tmp_path / "ann.yaml").write_text("name: Ann\n", encoding="utf-8")
    for typed in (b"/swipe\n", b"/edit x\n", b"/variants\n"):
        ended = spoken("chat", "ann.yaml", typed=typed)
        assert (ended.code, "turn: there is none yet" in ended.err) == (2, True)
    assert spoken("chat", "ann.yaml", typed=b"/branches\n/history\n").out == ""


def test_replies_of_commands_are_json_too(spoken: Command, simulator: Simulator) -> None:
    """One object for each turn that was spoken, changed, or stood on."""
    simulator.say("A.", "B.")
    ended = spoken("chat", "innkeeper", "--json", typed=b"a\n/swipe\n/choose 3\n/edit C.\n")
    assert [json.loads(line)["reply"] for line in ended.out.splitlines()] == ["A.", "B.", "A.", "C."]


def test_a_reply_is_shown_whole_where_no_stream_is_wanted(spoken: Command, simulator: Simulator) -> None:
    """Another variant is written when it has ended."""
    simulator.say("A.", "B.")
    ended = spoken("chat", "innkeeper", "--no-stream", typed=b"a\n/swipe\n")
    assert ended.out.splitlines()[1:] == ["Marta Quill: A.", "Marta Quill: B."]


def test_the_help_names_every_command_and_nothing_else(spoken: Command) -> None:
    """Groups of one line each, the same as in the reference."""
    ended = spoken("chat", "innkeeper", typed=b"/help\n")
    page = (Path(__file__).parents[3] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    named = re.findall(r"^  (/\w+)", ended.out, re.MULTILINE)
    assert named == re.findall(r"^\| `(/\w+)", page, re.MULTILINE)
    assert len(named) == len(set(named)) == 25
    assert max(len(line) for line in lines(ended.out, "  /")) <= 80


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ctrl_c_offers_what_can_be_done(
    sqlite_url: str, scripted: Callable[..., ScriptedModel], capsys: pytest.CaptureFixture[str]
) -> None:
    """Pressed in mid-reply: one remark with the offer; a reply without a word can be asked for again."""
    interrupts = InterruptHandler()
    model = scripted("one two three four five six", "and seven.", "eight")
    pressed = iter((2, None, 0))

    class Pressing:
        def open(self, endpoint: Endpoint, request: object) -> object:
            answer = model.open(endpoint, request)  # type: ignore[arg-type]
            read, left = answer.read, next(pressed)

            def reading() -> bytes:
                nonlocal left
                if left == 0:
                    signal.raise_signal(signal.SIGINT)
                left = None if left is None else left - 1
                return read()

            answer.read = reading  # type: ignore[method-assign]
            return answer

        def close(self) -> None:
            """Nothing to close."""

    transport = InterruptibleTransport(Pressing(), interrupts)  # type: ignore[arg-type]
    with Roleplay.open(sqlite_url, model=Endpoint("MiniMax-M2.7"), chat=transport) as rp:
        session: ChatSession = rp.sessions.create(cast=[rp.personas.put(Persona("Ann"))])
        talk = Conversation(rp, session, interrupts, OutputOptions())
        assert talk.say("Count.").status is TurnStatus.INTERRUPTED
        assert capsys.readouterr().err.startswith(f"interrupted · what came is saved · {OFFER} · ")
        whole = Commands(talk).do("/continue")
        assert whole is not None
        assert whole.status is TurnStatus.COMPLETED
        assert capsys.readouterr().out.startswith("Ann: one")
        assert talk.say("More.").reply is None
        assert capsys.readouterr().err.startswith("interrupted · nothing came · /retry asks again · ")


def test_the_doctor_finds_nothing_wrong(spoken: Command) -> None:
    """Exit code 0, a remark for people, an empty list for scripts."""
    spoken("chat", "innkeeper", "-m", "a")
    ended = spoken("doctor")
    assert (ended.code, ended.out, ended.err) == (0, "", "nothing is wrong\n")
    assert json.loads(spoken("doctor", "--repair", "--json").out) == []


def test_the_doctor_tells_and_mends(spoken: Command, tmp_path: Path) -> None:
    """A dry run is the default and exits with 8; a repair exits with 0 when nothing wrong is left."""
    spoken("chat", "innkeeper", "-m", "a")
    sql(tmp_path, "UPDATE roleplay_sessions SET last_turn = 1")
    for dry in (spoken("doctor"), spoken("doctor", "--dry-run")):
        assert dry.code == 8
        assert re.fullmatch(r"counter drift\t[0-9a-f-]+\t4\t[^\t]+\tcan be mended\n", dry.out)
        assert dry.err == "1 of 1 can be mended: roleplay doctor --repair; nothing was changed\n"
    mended = spoken("doctor", "--repair")
    assert (mended.code, mended.out.split("\t")[-1], mended.err) == (0, "mended\n", "1 of 1 mended\n")
    assert spoken("doctor").code == 0


def test_the_doctor_says_what_it_cannot_mend(spoken: Command, tmp_path: Path) -> None:
    """What is lost stays told, and the code with it."""
    spoken("chat", "innkeeper", "-m", "a")
    sql(tmp_path, "UPDATE roleplay_sessions SET last_turn = 7")
    ended = spoken("doctor", "--repair", terminal=True)
    assert ended.code == 8
    assert "cannot be mended" in ended.out
    [told] = json.loads(spoken("doctor", "--json").out)
    assert (told["kind"], told["seq"], told["mendable"], told["mended"]) == ("gap", 7, False, False)
    assert spoken("doctor", "--db", "nowhere.db").code == 4

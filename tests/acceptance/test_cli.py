"""The command line as a newcomer meets it: the real program in processes of its own, on a terminal and piped.

All of it on SQLite and on PostgreSQL, but for what is about a file.
"""

from __future__ import annotations

import codecs
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from roleplay import Persona, Roleplay, Turn, TurnKind, TurnStatus
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator.faults import SlowDrip
from tests.conftest import KEY, Ledger

PROGRAM = [sys.executable, "-m", "roleplay.cli.main"]
OWNS_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
PATIENCE_S = 20.0
WRONG_KEY = "sk-wrong-but-secret-4711"
FILE_ONLY = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def surroundings(tmp_path: Path, database_url: str, simulator: Simulator) -> dict[str, str]:
    """An environment with the simulator as the service, and a database of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    return kept | {
        "ROLEPLAY_BASE_URL": simulator.base_url,
        "ROLEPLAY_API_KEY": KEY,
        "ROLEPLAY_DIALECT": "minimax",
        "ROLEPLAY_DB": database_url,
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "TERM": "xterm-256color",
        "PYTHONIOENCODING": "utf-8",
    }


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(surroundings: dict[str, str], tmp_path: Path) -> Run:
    """Runs the program with pipes."""

    def run(
        *arguments: str, typed: str = "", environ: Mapping[str, str | None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        changed = surroundings | (environ or {})
        return subprocess.run(
            [*PROGRAM, *arguments],
            input=typed,
            env={name: value for name, value in changed.items() if value is not None},
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    return run


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, arguments: list[str], environ: Mapping[str, str], folder: Path) -> None:
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWNS_TERMINAL, *PROGRAM, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            cwd=folder,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a piece may end within a character
        self._read_up_to = 0

    def until(self, pattern: str) -> str:
        """Wait until ``pattern`` stands in what has come since the last wait, and give that."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.compile(pattern).search(self.seen, self._read_up_to)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen[self._read_up_to :]!r}"
            if select.select([self._mine], [], [], 0.1)[0]:
                self.seen += self._decoder.decode(os.read(self._mine, 65_536))
        start, self._read_up_to = self._read_up_to, found.end()
        return self.seen[start : found.end()]

    def type(self, text: str) -> None:
        """Type ``text``."""
        os.write(self._mine, text.encode())

    def end(self) -> int:
        """Wait for the program and give its exit code; what it wrote last is seen too."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                piece = os.read(self._mine, 65_536)
            except OSError:  # nobody has the other side open
                break
            self.seen += self._decoder.decode(piece)
        return self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._mine)


@pytest.fixture
def terminal(surroundings: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts the program on a terminal."""
    opened: list[Terminal] = []

    def start(*arguments: str, **environ: str) -> Terminal:
        opened.append(Terminal(list(arguments), surroundings | environ, tmp_path))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def attempts(url: str) -> list[Turn]:
    """Everything that was said to a model, in all sessions."""
    with Roleplay.open(url, model="MiniMax-M2.7", chat=ScriptedModel()) as rp:
        turns = [turn for info in rp.sessions.list() for turn in rp.sessions.get(info.id).turns()]
    return [turn for turn in turns if turn.kind is TurnKind.REPLY]


def test_a_conversation_goes_on_in_a_new_process(run: Run, simulator: Simulator) -> None:
    """Two personas and a scene; a new process lists the session, shows its turns with their usage, and goes on."""
    simulator.say("Soup it is.", "The bridge is out.", "You are still here.")
    begun = run(
        "chat", "innkeeper", "--as", "traveler", "--scene", "The taproom", "-m", "Soup, please.", "-m", "Any news?"
    )
    assert begun.returncode == 0, begun.stderr
    assert begun.stdout.splitlines()[0].startswith("Marta Quill: *The door bangs;")
    assert begun.stdout.splitlines()[1:] == ["Marta Quill: Soup it is.", "Marta Quill: The bridge is out."]
    assert (
        len(re.findall(r"^saved · \d+ \((\d+|\?) cached\) \+ \d+ tokens · \d+\.\d s$", begun.stderr, re.MULTILINE)) == 2
    )

    again = run("chat", "--continue", typed="And me?\n")
    assert (again.returncode, again.stdout) == (0, "Marta Quill: You are still here.\n")
    [listed] = run("session", "list").stdout.splitlines()
    shown = json.loads(run("session", "show", listed.split("\t")[0], "--json").stdout)
    assert [turn["human"]["text"] for turn in shown["turns"]["items"] if turn["human"]] == [
        "Soup, please.",
        "Any news?",
        "And me?",
    ]
    assert all(turn["calls"][-1]["usage"]["total_tokens"] > 0 for turn in shown["turns"]["items"][1:])
    sent = simulator.requests[-1].json["messages"]
    assert [one["role"] for one in sent[:3]] == ["system", "user_system", "group"]
    assert [one["content"] for one in sent[-5:]] == [
        "Soup, please.",
        "Soup it is.",
        "Any news?",
        "The bridge is out.",
        "And me?",
    ]


@FILE_ONLY
def test_the_twenty_line_program_holds_a_conversation_that_goes_on(
    surroundings: dict[str, str], tmp_path: Path, simulator: Simulator, ledger: Ledger
) -> None:
    """It greets, streams a reply, and the second run shows what was said."""
    ledger.urls.append(f"sqlite:///{tmp_path / 'lighthouse.db'}")
    program = Path(__file__).parents[2] / "examples" / "twenty_lines.py"
    assert len(program.read_text(encoding="utf-8").splitlines()) <= 20
    simulator.say("Fog by nine.")
    for typed in ("What of the weather?\n\n", "\n"):
        ended = subprocess.run(
            [sys.executable, str(program)],
            input=typed,
            env=surroundings,
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
        assert ended.stdout.startswith("Old Bram: Mind the third step, User")
        assert "Fog by nine." in ended.stdout


def test_a_person_chooses_talks_interrupts_and_leaves(
    terminal: Callable[..., Terminal], simulator: Simulator, database_url: str
) -> None:
    """Alone it offers a choice; a reply comes as it is made, Ctrl-C ends the reply alone, Ctrl-D the chat; what was
    interrupted goes on when it is asked to."""
    screen = terminal()
    assert "1  Marta Quill · innkeeper (example)" in screen.until(r"number \[1\]: ")
    screen.type("1\n")
    assert "\x1b[1;36mMarta Quill: \x1b[0m*The door bangs;" in screen.until("User: ")
    simulator.say("Short and whole.")
    screen.type("hello\n")
    screen.until(r"Marta Quill: \x1b\[0mShort and whole\.\r\n")
    screen.until(r"saved · \d+ .*tokens · [\d.]+ s")
    screen.until("User: ")

    simulator.always(SlowDrip(0.2, least_chunks=40))
    simulator.say("word " * 60)
    screen.type("tell me all\n")
    screen.until("word word")
    screen.type("\x03")
    screen.until("interrupted · what came is saved · /continue, /retry or /accept")
    screen.until("User: ")
    interrupted = attempts(database_url)[-1]
    assert interrupted.status is TurnStatus.INTERRUPTED
    assert interrupted.reply is not None
    assert 0 < len(interrupted.reply.text) < 300

    time.sleep(0.2)  # the prompt is there a moment before the signal is listened for
    screen.type("\x03")
    screen.until("Ctrl-D or /quit ends the chat")
    screen.type("/nonsense\n")
    screen.until("roleplay: /nonsense: is no command")
    screen.type("/history\n")
    screen.until("Marta Quill's reply: interrupted")
    simulator.heal()
    simulator.say("And that is all.")
    screen.until("User: ")
    screen.type("/continue\n")
    screen.until(r"Marta Quill: \x1b\[0mword word .*And that is all\.\r\n")
    screen.until(r"saved · \d+ .*tokens")
    screen.until("User: ")
    screen.type("\x04")
    assert screen.end() == 0
    assert f"stored in {database_url.removeprefix('sqlite:///').partition('?')[0]} · session " in screen.seen
    assert "go on: roleplay chat --continue" in screen.seen


def test_going_on_at_a_terminal_shows_the_last_turns_without_colours_where_unwanted(
    terminal: Callable[..., Terminal], database_url: str, scripted: Callable[..., ScriptedModel]
) -> None:
    """The first offer is the last session; NO_COLOR leaves no escape sequence; /quit ends."""
    model = scripted("A.", "B.", "C.", "D.")
    with Roleplay.open(database_url, model="MiniMax-M2.7", chat=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("诸葛亮", "丞相。"))])
        for text in "abcd":
            session.send(text)
    screen = terminal(NO_COLOR="1")
    assert "1  go on: 诸葛亮" in screen.until(r"number \[1\]: ")
    screen.type("\n")
    recalled = screen.until("用户: d\r\n诸葛亮: D\\.\r\n")
    assert "诸葛亮: B." in recalled
    assert "诸葛亮: A." not in recalled
    screen.until("用户: ")
    screen.type("/quit\n")
    assert screen.end() == 0
    assert "\x1b" not in screen.seen


@pytest.fixture
def several(tmp_path: Path) -> list[str]:
    """The command of a chat with two personas, as two humans."""
    for name in ("Anna", "Ben"):
        (tmp_path / f"{name.lower()}.yaml").write_text(f"name: {name}\n", encoding="utf-8")
    return ["chat", "anna.yaml", "--with", "ben.yaml", "--as", "name:Max", "--as", "name:Eva"]


def test_several_talk_at_a_terminal(
    terminal: Callable[..., Terminal], run: Run, simulator: Simulator, several: list[str]
) -> None:
    """Each name in its colour; a line is a round, the prompt says who speaks, a whisper is marked; the session is shown
    with names and whispers, without a colour where none is wanted."""
    simulator.say("I am here.", "So am I.", "Hush.")
    screen = terminal(*several)
    screen.until("Max: ")
    screen.type("Anna? Ben?\n")
    screen.until("a line here is answered by up to 4; /next lets one more speak")
    anna = re.search(r"5;(\d+)m", screen.until(r"\x1b\[1;38;5;\d+mAnna: \x1b\[0mI am here\.\r\n.*saved · \d+"))
    ben = re.search(r"5;(\d+)m", screen.until(r"\x1b\[1;38;5;\d+mBen: \x1b\[0mSo am I\.\r\n.*saved · \d+"))
    assert anna is not None
    assert ben is not None
    assert anna[1] != ben[1]
    screen.until("Max: ")
    screen.type("/as Eva\n")
    screen.until("you speak as Eva")
    screen.until("Eva: ")
    screen.type("/whisper Ben: Do not tell Anna.\n")
    screen.until(r"Ben → Eva \(whisper\): \x1b\[0mHush\.\r\n")
    screen.until("Eva: ")
    simulator.say("What did she say?")
    screen.type("/next Anna\n")
    screen.until(r"What did she say\?\r\n")
    assert "Do not tell" in simulator.requests[-2].body.decode()
    assert "Do not tell" not in simulator.requests[-1].body.decode()
    screen.until("Eva: ")
    screen.type("\x04")
    assert screen.end() == 0

    [row] = run("session", "list").stdout.splitlines()
    shown = run("session", "show", row.split("\t")[0]).stdout
    assert shown.startswith("Anna, Ben · you are Max, Eva · ")
    assert "Eva → Ben (whisper): Do not tell Anna.\nBen → Eva (whisper): Hush.\n" in shown
    plain = terminal("chat", "-c", NO_COLOR="1")
    plain.until(r"Ben → Eva \(whisper\): Hush\.\r\n")
    plain.until("Max: ")
    plain.type("/quit\n")
    assert plain.end() == 0
    assert "\x1b" not in plain.seen


def test_ctrl_c_ends_the_turn_that_speaks_in_a_round(
    terminal: Callable[..., Terminal], simulator: Simulator, several: list[str], database_url: str
) -> None:
    """Nobody speaks after it, what was said stays, and the chat goes on."""
    simulator.always(SlowDrip(0.2, least_chunks=40))
    simulator.say("Short.", "word " * 60)
    screen = terminal(*several)
    screen.until("Max: ")
    screen.type("Anna? Ben? Tell me all.\n")
    screen.until(r"Short\.\r\n")
    screen.until("word word")
    screen.type("\x03")
    screen.until("interrupted · what came is saved · /continue, /retry or /accept")
    screen.until("Max: ")
    assert [turn.status for turn in attempts(database_url)] == [TurnStatus.COMPLETED, TurnStatus.INTERRUPTED]
    screen.type("\x04")
    assert screen.end() == 0


def test_ctrl_c_ends_a_piped_chat_with_its_exit_code(
    surroundings: dict[str, str], tmp_path: Path, simulator: Simulator, database_url: str
) -> None:
    """What came is stored as interrupted, and the code says so."""
    simulator.always(SlowDrip(0.2, least_chunks=40))
    simulator.say("word " * 60)
    arguments = [*PROGRAM, "chat", "innkeeper", "-m", "tell me all"]
    with subprocess.Popen(
        arguments, env=surroundings, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        seen = ""
        while "word word" not in seen:
            seen += process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "interrupted · what came is saved" in errors
    assert "go on: roleplay chat --continue" in errors
    assert [turn.status for turn in attempts(database_url)] == [TurnStatus.INTERRUPTED]


def test_a_reader_that_goes_away_is_no_crash(surroundings: dict[str, str], tmp_path: Path) -> None:
    """A closed pipe ends the program quietly."""
    with subprocess.Popen(
        [*PROGRAM, "db", "upgrade"],
        env=surroundings,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


BAD_FILES = {"field.yaml": "name: Ann\nmood: gay\n", "nameless.yaml": "description: x\n"}


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "says"),
    [
        pytest.param(
            ["chat", "innkeeper", "-m", "hi"],
            {"ROLEPLAY_BASE_URL": "https://api.minimax.io", "ROLEPLAY_API_KEY": None},
            3,
            "no API key for api.minimax.io; set ROLEPLAY_API_KEY or MINIMAX_API_KEY",
            id="no key",
        ),
        pytest.param(["persona", "add", "field.yaml"], {}, 2, "field.yaml: mood: unknown field", id="unknown field"),
        pytest.param(["persona", "add", "nameless.yaml"], {}, 2, "nameless.yaml: name: is required", id="no name"),
        pytest.param(["chat", "innkeeper", "-m", " \t "], {}, 2, "text: is blank", id="blank message"),
        pytest.param(
            ["chat", "0123abcd", "-m", "hi"], {}, 4, "no persona or session '0123abcd'; see:", id="no session"
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Run,
    tmp_path: Path,
    database_url: str,
    arguments: list[str],
    environ: dict[str, str],
    code: int,
    says: str,
) -> None:
    """The line says what to do; there is no session, no persona, no turn afterwards, and no secret anywhere."""
    for name, text in BAD_FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    ended = run(*arguments, environ=environ)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert_one_line(ended.stderr, says)
    with Roleplay.open(database_url, model="MiniMax-M2.7", chat=ScriptedModel()) as rp:
        assert not rp.sessions.list().items
        assert not rp.personas.list().items


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        pytest.param({"ROLEPLAY_API_KEY": WRONG_KEY}, "(code 1004); check the key in ROLEPLAY_API_KEY", id="wrong key"),
        pytest.param(
            {"ROLEPLAY_MODEL": "Nobody-1", "ROLEPLAY_WINDOW_TOKENS": "8192"},
            "check --model or ROLEPLAY_MODEL",
            id="model",
        ),
        pytest.param({"ROLEPLAY_BASE_URL": "nowhere"}, "cannot be reached; check the base URL", id="unreachable"),
    ],
)
def test_a_service_that_fails_leaves_a_failed_turn(
    run: Run, database_url: str, environ: dict[str, str], says: str
) -> None:
    """One line, after where it is stored and how to go on.

    The human line is kept with a turn that is marked as failed, and no reply is made up.
    """
    if environ.get("ROLEPLAY_BASE_URL"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            environ = {"ROLEPLAY_BASE_URL": f"http://127.0.0.1:{free.getsockname()[1]}"}
    ended = run("chat", "zhuge-liang", "-m", "在吗？", environ=environ)
    assert ended.returncode == 6
    assert len(ended.stdout.splitlines()) == 1, "the greeting alone"
    stored, go_on, error = ended.stderr.splitlines(keepends=True)
    assert stored.startswith("stored in ")
    assert go_on == "go on: roleplay chat --continue\n"
    assert_one_line(error, says)
    [turn] = attempts(database_url)
    assert turn.status is TurnStatus.FAILED
    assert turn.human is not None
    assert (turn.human.text, turn.reply) == ("在吗？", None)


@FILE_ONLY
def test_a_newer_schema_is_refused_and_left_alone(run: Run, tmp_path: Path, sqlite_url: str) -> None:
    """The line names the revision; not a byte of the database changes."""
    Roleplay.open(sqlite_url, model="MiniMax-M2.7", chat=ScriptedModel()).close()
    file = tmp_path / "chats.db"
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE roleplay_alembic_version SET version_num = '9999'")
        db.execute("PRAGMA journal_mode = DELETE")
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    ended = run("chat", "innkeeper", "-m", "hi")
    assert (ended.returncode, ended.stdout) == (8, "")
    assert_one_line(ended.stderr, "revision 9999")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def assert_one_line(errors: str, says: str) -> None:
    """One line of ours, no trace, no secret."""
    assert errors.startswith("roleplay: ")
    assert errors.count("\n") == 1, errors
    assert says in errors
    assert KEY not in errors
    assert WRONG_KEY not in errors

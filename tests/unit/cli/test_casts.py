"""A chat of several: rounds, whispers, who speaks, who is muted, and how it is shown."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roleplay import (
    ChatQuotaError,
    InvalidInputError,
    Participant,
    Persona,
    PlayedBy,
    Roleplay,
    Seat,
    SessionSettings,
    TurnKind,
    TurnStatus,
)
from roleplay.cli import seats, show
from roleplay.cli.commands import Commands
from roleplay.cli.conversation import Conversation, OutputOptions
from roleplay.cli.interrupts import InterruptHandler, InterruptibleTransport
from roleplay.domain.cast import SpeakingMoment
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator.faults import CutStream, InsufficientBalance
from tests.unit.cli.conftest import Command, Ended
from tests.unit.cli.test_interrupts import Pressing

LIST = SessionSettings(speaking="list")
NAMES = ("Anna", "Ben", "Cara")
PIECES = OutputOptions()
BOUND = "a line here is answered by up to 4; /next lets one more speak"

Scripted = Callable[..., ScriptedModel]
Told = Callable[[], tuple[str, list[str]]]


def nobody(moment: SpeakingMoment) -> list[int]:
    """A strategy by which a line is answered by nobody."""
    return [] if moment.asked else [moment.seats[-1].seat]


class Room:
    """Anna, Ben and Cara, whom the model plays, and Max and Eva, in a chat of one process."""

    def __init__(self, rp: Roleplay, output: OutputOptions, interrupts: InterruptHandler, **how: Any) -> None:
        cast = [rp.personas.put(Persona(name, f"{name} by day.")) for name in NAMES]
        humans = [Seat(name="Max"), Seat(name="Eva")]
        self.session = rp.sessions.create(**{"cast": cast, "users": humans, "settings": LIST} | how)
        self.talk = Conversation(rp, self.session, interrupts, output)
        self.commands = Commands(self.talk)

    def do(self, line: str) -> Any:
        return self.commands.do(line) if line.startswith("/") else self.talk.say(line)

    def heard(self) -> list[tuple[str, tuple[int, ...] | None]]:
        """Every reply that is stored: whose, and its audience."""
        return [(turn.reply.name, turn.reply.audience) for turn in self.session.turns() if turn.reply]


@pytest.fixture
def room(sqlite_url: str, scripted: Scripted) -> Iterator[Callable[..., Room]]:
    """Begins a chat of several with replies that are given."""
    opened: list[Roleplay] = []

    def begin(*replies: Any, output: OutputOptions = PIECES, reads: int | None = None, **how: Any) -> Room:
        interrupts = InterruptHandler()
        model: Any = scripted(*replies)
        model = InterruptibleTransport(model if reads is None else Pressing(model, reads), interrupts)  # type: ignore[arg-type]
        opened.append(Roleplay.open(sqlite_url, model="MiniMax-M2.7", chat=model, strategies={"manual": nobody}))
        return Room(opened[-1], output, interrupts, **how)

    yield begin
    for one in opened:
        one.close()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Gives what was written since: the conversation, and the remarks without what replies cost."""

    def read() -> tuple[str, list[str]]:
        out, err = capsys.readouterr()
        return out, [re.sub(r" · \S+ \(\S+ cached\).*", "", line) for line in err.splitlines()]

    return read


def test_a_line_is_answered_by_a_round(room: Callable[..., Room], told: Told) -> None:
    """Its bound is told once, before the first; each reply has its name, and its remark behind it."""
    here = room("One.", "Two.", "Three.", "Four.", "Five.", "Six.")
    assert here.do("Hello, all.").reply.name == "Cara"
    assert told() == ("Anna: One.\nBen: Two.\nCara: Three.\n", [BOUND, "saved", "saved", "saved"])
    here.do("And now?")
    assert told() == ("Anna: Four.\nBen: Five.\nCara: Six.\n", ["saved"] * 3)
    assert [turn.round for turn in here.session.turns()] == [1, 1, 1, 4, 4, 4]
    assert {turn.human.name for turn in here.session.turns() if turn.human} == {"Max"}


@pytest.mark.parametrize("output", [OutputOptions(max_turns=2), OutputOptions(stream=False, max_turns=2)])
def test_a_round_has_the_bound_that_was_asked_for(room: Callable[..., Room], told: Told, output: OutputOptions) -> None:
    """By the command line, or by /round for one."""
    here = room("One.", "Two.", "Three.", output=output)
    here.do("Hello, all.")
    assert told() == ("Anna: One.\nBen: Two.\n", [BOUND.replace("4", "2"), "saved", "saved"])
    here.do("/round 1")
    assert told() == ("Anna: Three.\n", ["saved"])


def test_the_sessions_own_bound_is_told(room: Callable[..., Room], told: Told) -> None:
    here = room(settings=SessionSettings(speaking="list", round_turns=1))
    here.do("Hello, all.")
    assert told()[1] == [BOUND.replace("4", "1"), "saved"]
    assert [name for name, _ in here.heard()] == ["Anna"]
    here.do("/round 2")
    assert len(here.heard()) == 3


def test_a_whisper_is_heard_and_answered_by_whom_it_is_for(room: Callable[..., Room], told: Told) -> None:
    """It is marked where it is shown: as it comes, and in the transcript."""
    here = room("One.", "Two.", "Three.", "Two, again.")
    here.do("/whisper Ben, cara: Hush.")
    assert told() == (
        "Ben → Cara, Max (whisper): One.\nCara → Ben, Max (whisper): Two.\n",
        [BOUND, "saved", "saved"],
    )
    assert here.heard() == [("Ben", (2, 3, 4)), ("Cara", (2, 3, 4))]
    here.do("/as Eva")
    here.do('/whisper "Anna" Only you.')
    assert told() == ("Anna → Eva (whisper): Three.\n", ["you speak as Eva", "saved"])
    here.do("/swipe")
    assert told()[0] == "Anna → Eva (whisper): Two, again.\n"
    here.do("/history")
    assert told()[0].splitlines()[1:3] == ["Max → Ben, Cara (whisper): Hush.", "Ben → Cara, Max (whisper): One."]
    assert told()[0] == ""


def test_a_whisper_among_humans_asks_no_model(room: Callable[..., Room], told: Told) -> None:
    """Nor does one to oneself."""
    here = room()
    assert here.do("/whisper Eva Between us.").human.audience == (4, 5)
    assert here.do("/whisper Max Remember.").human.audience == (4,)
    assert told() == ("", ["saved · no reply was asked for"] * 2)
    here.do("/history")
    assert told()[0] == "#1\nMax → Eva (whisper): Between us.\n#2\nMax (whisper): Remember.\n"
    assert here.heard() == []


def test_several_humans_and_one_of_the_models(room: Callable[..., Room], told: Told) -> None:
    """A line is one reply, as ever; who says it is told to the model, and whispers are marked."""
    here = room("One.", "Two.", "Three.", output=OutputOptions(stream=False))
    for name in ("Anna", "Cara"):
        here.session.cast.leave(name)
    here.do("Hello.")
    here.do("/as Eva")
    here.do("/whisper Ben Hush.")
    here.do("/whisper Max Hush.")
    assert told() == (
        "Ben: One.\nBen → Eva (whisper): Two.\n",
        ["saved", "you speak as Eva", "saved", "saved · no reply was asked for"],
    )
    assert [turn.human.name for turn in here.session.turns() if turn.human] == ["Max", "Eva", "Eva"]
    assert here.commands.do("/context Well?") is None
    here.session.cast.leave("Eva")
    with pytest.raises(InvalidInputError, match=r"speaker: '5' is nobody here \(allowed: 4 \(Max\)\)"):
        here.do("Hello.")


def test_who_speaks_here(room: Callable[..., Room], told: Told) -> None:
    """The first human, until /as names another; the model's seats are nobody's."""
    here = room("One.")
    here.do("/as")
    assert told()[0] == "*\t4\tMax\n\t5\tEva\n"
    here.do("/as 5")
    here.do("/as")
    assert told() == ("\t4\tMax\n*\t5\tEva\n", ["you speak as Eva"])
    assert here.do("/whisper Ben Hush.").human.name == "Eva"
    with pytest.raises(InvalidInputError, match=r"/as: 'Ben' is played by the model \(allowed: 4 \(Max\), 5 \(Eva\)\)"):
        here.do("/as Ben")


def test_one_more_speaks(room: Callable[..., Room], told: Told) -> None:
    """Who is named, muted or not, or whoever is next."""
    here = room("One.", "Two.", "Three.")
    here.do("/mute cara")
    here.do("/next Cara")
    here.do("/next")
    assert told() == ("Cara: One.\nAnna: Two.\n", ["Cara speaks only when told to: /next Cara", "saved", "saved"])
    with pytest.raises(InvalidInputError, match=r"/next: 'Max' is played by a human \(allowed: 1 \(Anna\), 2 \(Ben\)"):
        here.do("/next Max")
    with pytest.raises(InvalidInputError, match="/next: is followed by 'and Ben', behind a name"):
        here.do("/next Anna and Ben")


def test_the_narrator_has_no_answer(room: Callable[..., Room], told: Told) -> None:
    here = room()
    turn = here.do("/narrate Night falls.")
    assert (turn.kind, turn.human.text) == (TurnKind.NARRATION, "Night falls.")
    here.do("/history")
    assert told() == ("#1\nNarrator: Night falls.\n", ["saved · the narrator said it"])
    with pytest.raises(InvalidInputError, match="text: is blank"):
        here.do("/narrate")


def test_the_cast_is_a_table(room: Callable[..., Room], told: Told) -> None:
    """Without owners; /mute turns it on and off, or as it is told."""
    here = room(users=[Seat(name="Max", owner="user-1", aliases=["Maxi", "M"])])
    for line in ("/mute Anna", "/mute Ben on", "/mute Ben on", "/mute Cara", "/mute Cara", "/mute Anna off"):
        here.do(line)
    assert told()[1][-2:] == ["Cara speaks as before", "Anna speaks as before"]
    here.do("/cast")
    assert told()[0] == (
        "1\tAnna\tthe model\t\t\n2\tBen\tthe model\tmuted\t\n3\tCara\tthe model\t\t\n4\tMax\ta human\t\tMaxi, M\n"
    )
    for line, says in (("/mute", "names nobody"), ("/mute Max", "is played by a human"), ("/mute Ben so", "on, off")):
        with pytest.raises(InvalidInputError, match=says):
            here.do(line)


def test_a_reply_that_breaks_off_is_not_shown_as_a_whole_one(
    spoken: Command, three: list[str], simulator: Simulator
) -> None:
    """Without a stream, its turn is told by its error; /history has what came."""
    begun(spoken, three, typed="/cast\n")
    simulator.next(CutStream(after_chunks=2))
    simulator.say("Once there was a bridge over the river.")
    ended = spoken("chat", "-c", "--no-stream", typed=b"Anna!\n")
    assert (ended.code, ended.out) == (6, "")
    assert "#2\nUser: Anna!\nAnna: Once" in spoken("chat", "-c", typed=b"/history 1\n").out


@pytest.mark.parametrize("muted", [False, True])
def test_a_line_that_calls_nobody_is_added(room: Callable[..., Room], told: Told, muted: bool) -> None:
    """Where a strategy waits to be told, or all are muted: then /next makes somebody speak."""
    here = room("One.", settings=LIST if muted else SessionSettings(speaking="manual"))
    for name in NAMES if muted else ():
        here.session.cast.mute(name)
    turn = here.do("Hello.")
    assert (turn.human.name, turn.human.text, turn.reply, turn.human.audience) == ("Max", "Hello.", None, None)
    assert here.do("/whisper Ben Hush.").human.audience == (2, 4)
    remark = "saved · nobody speaks unasked; /next NAME lets somebody speak"
    first = BOUND if muted else "a line here is added and not answered; /next NAME lets somebody speak"
    assert told() == ("", [first, remark, remark])
    here.do("/next Ben")
    assert told()[0] == "Ben: One.\n"


def test_where_nobody_speaks_unasked_commands_say_so(room: Callable[..., Room]) -> None:
    """In one line that names what can be typed; the commands of a chat, not the library's doors."""
    here = room()
    for name in NAMES:
        here.session.cast.mute(name)
    for line in ("/next", "/round", "/round 2", "/context Well?"):
        with pytest.raises(InvalidInputError) as told:
            here.do(line)
        assert here.talk.complaint(told.value) == (
            f"{line.split()[0]}: calls nobody who speaks unasked (allowed: /next NAME)"
        )
    assert list(here.session.turns()) == []


def test_ctrl_c_ends_the_turn_that_speaks(room: Callable[..., Room], told: Told) -> None:
    """And the round with it; what was said is kept."""
    here = room("one two three four five six", "seven", reads=2)
    turn = here.do("Count.")
    assert turn.status is TurnStatus.INTERRUPTED
    [stored] = here.session.turns()
    out, remarks = told()
    assert out == f"Anna: {stored.text}\n"
    assert stored.text.startswith("one")
    assert remarks == [BOUND, "interrupted · what came is saved · /continue, /retry or /accept"]


def test_a_round_that_fails_keeps_what_was_said(room: Callable[..., Room], told: Told) -> None:
    """Each turn that ended is told, the failed one by its error; for a script each is an object."""
    here = room("One.", ChatQuotaError("empty"), "Two.", output=OutputOptions(as_json=True))
    with pytest.raises(ChatQuotaError):
        here.do("Hello.")
    first, second = (json.loads(line) for line in told()[0].splitlines())
    fields = ("speaker", "seat", "said_by", "audience", "status")
    assert [first[name] for name in fields] == ["Anna", 1, "Max", None, "completed"]
    assert [second[name] for name in fields] == ["Ben", 2, None, None, "failed"]
    assert here.do("/retry").reply.name == "Ben"
    assert [turn.status for turn in here.session.turns()] == [TurnStatus.COMPLETED] * 2


def test_each_seat_has_its_colour(room: Callable[..., Room], monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    """On a terminal, and none where NO_COLOR is set; the narrator has none."""
    here = room("One.", "Two.", "Three.")
    here.do("/narrate Night falls.")
    here.do("Hello.")
    told()

    def seen() -> str:
        class Screen(io.StringIO):
            def isatty(self) -> bool:
                return True

        screen = Screen()
        monkeypatch.setattr("sys.stdout", screen)
        here.do("/history")
        return screen.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    colours = dict(re.findall(r"\x1b\[1(?:;38;5;(\d+))?m(\w+): ", seen()))
    assert {name: code for code, name in colours.items()} == {
        "Narrator": "",
        **{name: str(show.SEAT_COLOURS[place]) for place, name in enumerate((*NAMES, "Max"))},
    }
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in seen()


@pytest.mark.parametrize("colour", show.SEAT_COLOURS)
def test_a_colour_is_readable_on_light_and_dark(colour: int) -> None:
    """Its contrast with white and with black is at least 4 to 1."""
    steps = (0, 95, 135, 175, 215, 255)
    parts = [steps[(colour - 16) // 36], steps[(colour - 16) // 6 % 6], steps[(colour - 16) % 6]]
    linear = [((part / 255 + 0.055) / 1.055) ** 2.4 if part > 10 else part / 255 / 12.92 for part in parts]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05
    assert min(1.05 / light, light / 0.05) >= 4
    assert show.SEAT_COLOURS.count(colour) == 1


def test_words_of_others_cannot_steer_the_terminal(room: Callable[..., Room], told: Told) -> None:
    """Lines, replies and errors show what would do something; names cannot hold it."""
    here = room("\x1b[2Jboo\x9b2J")
    here.do("/whisper Ben \x1b[31mHush.\x07")
    here.do("/narrate \x1b]0;title\x07Night.")
    here.do("/history")
    with pytest.raises(InvalidInputError) as error:
        here.do("/next \x1b[2J")
    out, remarks = told()
    assert "Ben → Max (whisper): ␛[2Jboo\ufffd2J\n" in out
    assert "Max → Ben (whisper): ␛[31mHush.␇\nBen → Max (whisper): ␛[2Jboo\ufffd2J\n" in out
    assert "Narrator: ␛]0;title␇Night.\n" in out
    assert not {"\x1b", "\x9b", "\x07"} & set(out + "".join(remarks) + here.talk.complaint(error.value))
    with pytest.raises(InvalidInputError):
        Seat(name="E\x1b[31mva")


def seat(number: int, name: str, *aliases: str, human: bool = False) -> Participant:
    return Participant(
        seat=number,
        played_by=PlayedBy.HUMAN if human else PlayedBy.MODEL,
        display_name=name,
        persona_id=None,
        persona_version=None,
        aliases=aliases,
    )


CAST = [
    seat(1, "Ann"),
    seat(2, "Ann Lee", "Lee, the elder"),
    seat(3, "O'Hara", '"Red"'),
    seat(4, "诸葛亮", "孔明"),
    seat(5, "7"),
    seat(6, "Straße"),
    seat(7, "Twin"),
    seat(8, "Twin"),
    seat(9, "🦊 Fox", human=True),
]


@pytest.mark.parametrize(
    ("text", "numbers", "rest"),
    [
        ("Ann hello", [1], "hello"),
        ("ann lee hello", [2], "hello"),
        ("Ann, Ann Lee hello", [1, 2], "hello"),
        ("Lee, the elder, Ann: hello, both", [2, 1], "hello, both"),
        ('"Ann" Lee is here', [1], "Lee is here"),
        ("'O'Hara' hi", [3], "hi"),
        ("\u201cAnn Lee\u201d,O'Hara hi", [2, 3], "hi"),
        ('"Red" hi', [3], "hi"),
        ("孔明\uff0c诸葛亮\uff1a你好", [4, 4], "你好"),
        ("「诸葛亮」 你好", [4], "你好"),
        ("7 hi", [5], "hi"),
        ("#7 hi", [7], "hi"),
        ("8 hi", [8], "hi"),
        ("STRASSE hi", [6], "hi"),
        ("\U0001f98a Fox hi", [9], "hi"),
        ("Ann", [1], ""),
    ],
)
def test_whom_a_line_names(text: str, numbers: list[int], rest: str) -> None:
    """The longest name that stands there whole; names with blanks and commas, in quotes, of any script; numbers."""
    found, left = seats.several_seats("/whisper", text, CAST)
    assert ([one.seat for one in found], left) == (numbers, rest)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"/whisper: names nobody \(allowed: 1 \(Ann\), 2 \(Ann Lee\)"),
        ("Anne hi", "/whisper: 'Anne' is nobody here"),
        ("Ann, hello there", "/whisper: 'hello' is nobody here"),
        ("Twin hi", r"/whisper: 'Twin' is the name of several seats \(allowed: 7, 8\)"),
        ("'Nobody' hi", "''Nobody'' is nobody here|\"'Nobody'\" is nobody here"),
        ("10 hi", "/whisper: '10' is nobody here"),
    ],
)
def test_a_name_that_is_nobodys_is_told(text: str, says: str) -> None:
    """Nothing is said to somebody else."""
    with pytest.raises(InvalidInputError, match=says):
        seats.several_seats("/whisper", text, CAST)


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Three persona files."""
    for name in NAMES:
        text = f"name: {name}\ngreetings: ['I am {name}, {{{{user}}}}.']\n"
        (tmp_path / f"{name.lower()}.yaml").write_text(text, encoding="utf-8")
    return [f"{name.lower()}.yaml" for name in NAMES]


def begun(spoken: Command, three: list[str], *options: str, typed: str) -> Ended:
    with_others = [word for one in three[1:] for word in ("--with", one)]
    return spoken("chat", three[0], *with_others, *options, typed=typed.encode())


def test_several_are_chosen_on_the_command_line(spoken: Command, three: list[str], simulator: Simulator) -> None:
    """Files, keys, examples; humans with a persona and without; the bound; then the session as it is shown."""
    simulator.say("One.", "Two.", "Three.", "Four.")
    humans = ("--as", "traveler", "--as", "name:Eva", "--max-turns", "3")
    ended = begun(spoken, three, *humans, typed="Anna, Ben, Cara!\n/as Eva\n/whisper Ben Hush.\n/cast\n")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[:5] == [
        "Anna: I am Anna, Robin Vale.",
        "Anna: One.",
        "Ben: Two.",
        "Cara: Three.",
        "Ben → Eva (whisper): Four.",
    ]
    assert ended.out.splitlines()[-2:] == ["4\tRobin Vale\ta human\t\t", "5\tEva\ta human\t\t"]
    assert ended.err.count(BOUND.replace("4", "3")) == 1
    row = spoken("session", "list").out.split("\t")
    assert row[1:3] == ["Anna, Ben, Cara", "Robin Vale, Eva"]
    shown = spoken("session", "show", row[0]).out
    assert shown.startswith("Anna, Ben, Cara · you are Robin Vale, Eva · ")
    assert "Eva → Ben (whisper): Hush.\nBen → Eva (whisper): Four.\n" in shown
    simulator.say("Five.")
    going_on = spoken("chat", "cara", "-c", typed=b"/as Eva\n/next Cara\n")
    assert (going_on.code, going_on.out) == (0, "Cara: Five.\n")


def test_what_belongs_to_a_new_session(spoken: Command, three: list[str]) -> None:
    """Who is there is chosen when it begins; somebody unknown is not found, with the way to name somebody new."""
    begun(spoken, three, typed="/cast\n")
    refused = spoken("chat", "-c", "--with", "innkeeper", "-m", "hi")
    assert (refused.code, "--with: belongs to a new session" in refused.err) == (2, True)
    unknown = spoken("chat", "innkeeper", "--with", "anna", "--as", "Eva", "-m", "hi")
    assert (unknown.code, "no persona 'Eva'" in unknown.err, "name:Eva" in unknown.err) == (4, True, True)
    assert spoken("chat", "innkeeper", "--with", "nobody", "-m", "hi").code == 4
    assert spoken("chat", "innkeeper", "--as", "name: ", "-m", "hi").code == 2
    assert spoken("chat", "innkeeper", "--max-turns", "0", "-m", "hi").code == 2
    assert len(json.loads(spoken("session", "list", "--json").out)["items"]) == 1


def test_the_same_persona_twice_is_told_apart(spoken: Command, simulator: Simulator) -> None:
    """By the numbers of the seats, which commands take."""
    simulator.say("One.")
    ended = spoken("chat", "innkeeper", "--with", "innkeeper", typed=b"/next 2\n/next Marta Quill\n")
    assert ended.out.splitlines()[-1] == "Marta Quill (2): One."
    assert ended.err.splitlines()[-1] == ("roleplay: /next: 'Marta Quill' is the name of several seats (allowed: 1, 2)")


def test_errors_of_a_round_are_one_line(spoken: Command, three: list[str], simulator: Simulator) -> None:
    """At a terminal the chat goes on; what was said is kept, and the failed one is asked again."""
    begun(spoken, three, typed="/cast\n")
    simulator.next(InsufficientBalance())
    simulator.say("One.")
    ended = spoken("chat", "-c", typed=b"Anna!\n/retry\n/round x\n/next Nobody\n/mute\n", terminal=True)
    assert ended.code == 0
    told = [line.partition("roleplay: ")[2] for line in ended.err.splitlines() if "roleplay: " in line]
    assert told[0].endswith("say it again · /retry asks again")
    allowed = "1 (Anna), 2 (Ben), 3 (Cara)"
    assert told[1:4] == [
        "/round: is followed by 'x' (allowed: a number from 1 to 100)",
        f"/next: 'Nobody' is nobody here (allowed: {allowed})",
        f"/mute: names nobody (allowed: {allowed})",
    ]
    assert "One." in ended.out


def test_with_one_of_each_nothing_is_new(spoken: Command, simulator: Simulator) -> None:
    """No bound, no marks, the same fields for scripts; a whisper is heard by both."""
    simulator.say("One.", "Two.", "Three.")
    ended = spoken("chat", "innkeeper", typed=b"Hello.\n")
    assert (ended.out.splitlines()[1:], "answered by" in ended.err) == (["Marta Quill: One."], False)
    told = json.loads(spoken("chat", "-c", "--json", "-m", "And?").out)
    assert not {"seat", "said_by", "audience"} & told.keys()
    assert spoken("chat", "-c", typed=b"/whisper marta quill Hush.\n").out == "Marta Quill → User (whisper): Three.\n"

"""Replies stay in role: what a model says as somebody else is neither shown nor stored as the speaker's, and is kept
with the attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from roleplay import (
    ChatUnavailableError,
    Checked,
    Cut,
    Delta,
    DeltaKind,
    EmptyReplyError,
    Endpoint,
    EstimatingCounter,
    Persona,
    RoleplayError,
    Seat,
    TurnOptions,
    TurnStatus,
    Verdict,
)
from roleplay.testing import ScriptedModel
from roleplay.turns.effects import Emit
from roleplay.turns.speaking import send
from tests.conftest import Ledger
from tests.support.operations import Hand, said
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

MODEL = Endpoint("MiniMax-M2.7", retry={"first_pause_s": 0})
COUNTER = EstimatingCounter()
WAYS = ["send", "stream"]


class Asked:
    """A guard that allows everything, and keeps what replies it was asked about."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, what: Checked) -> Verdict | None:
        if what.side == "reply":
            self.texts.append(what.text)
        return None


def group(rp: Any) -> Any:
    """Anna and Ben, played by the model, and Carol, who is called Caz, too."""
    anna, ben = rp.personas.put(Persona("Anna")), rp.personas.put(Persona("Ben"))
    return rp.sessions.create(cast=[Seat(anna, aliases=["Annie"]), ben], users=[Seat(name="Carol", aliases=["Caz"])])


def heard(reply: Any) -> str:
    """The speech that a stream gives."""
    with reply:
        return "".join(delta.text for delta in reply if delta.kind is DeltaKind.SPEECH)


def say(session: Any, text: str, way: str, **options: Any) -> Any:
    """Say a line, one way or the other, and give the turn; what was streamed is what is stored."""
    if way == "send":
        return session.send(text, options=TurnOptions(**options))
    reply = session.stream(text, options=TurnOptions(**options))
    speech = heard(reply)
    turn = reply.turn
    assert turn.reply is not None
    assert turn.reply.text == speech
    return turn


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("pieces", [1, 12])
@pytest.mark.parametrize("way", WAYS)
def test_a_reply_is_cut_where_it_goes_on_as_another(
    database_url: str, ledger: Ledger, way: str, pieces: int, guarded: bool
) -> None:
    """What was cut is kept with the attempt, which is paid for whole; the next request does not hold it."""
    rest = "**Ben:** I am here, too.\n\nAnna: So are we all."
    model = ScriptedModel(f"**Anna:** Hello there. Sit down.\n\n{rest}", "Yes.", piece_chars=pieces)
    ledger.models.append(model)
    asked = Asked()
    with Roleplay.open(database_url, model=MODEL, chat=model, counter=COUNTER, guards=[asked] if guarded else []) as rp:
        session = group(rp)
        turn = say(session, "Anna, who is there?", way)
        kept = "Hello there. Sit down."
        assert (turn.status, turn.reply.text, turn.reply.name) == (TurnStatus.COMPLETED, kept, "Anna")
        assert turn.reply.tokens == COUNTER.count(kept)
        assert turn.call.cut == Cut(kind="speaker", name="Ben", text=rest)
        assert turn.usage.completion_tokens == len(f"**Anna:** {kept} {rest}".split())
        assert session.turn(turn.id) == turn
        assert say(session, "Anna?", way).call.cut is None
    last = str(model.requests[-1])
    assert kept in last
    assert "I am here, too" not in last
    if guarded:
        assert "".join(asked.texts) == kept + "Yes."


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("users", "line", "name"),
    [([], "User: I say.", "User"), ([Seat(name="Carol", aliases=["Caz"])], "Caz：I say.", "Carol")],
)
def test_the_human_is_not_spoken_for(
    database_url: str, scripted: Callable[..., ScriptedModel], way: str, users: list[Seat], line: str, name: str
) -> None:
    """In a session of two, too."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted(f"Huang: Sit.\n{line}")) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))], **({"users": users} if users else {}))
        turn = say(session, "Where?", way)
        assert (turn.reply.text, turn.call.cut) == ("Sit.", Cut(name=name, text=line))


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_who_is_not_there_is_no_other(
    database_url: str, scripted: Callable[..., ScriptedModel], way: str, guarded: bool
) -> None:
    """Nothing is cut at a name of nobody, nor at one that stands elsewhere."""
    text = 'I called Ben: he came.\nDora: a name of nobody\n"Ben: come!" I said.\n\nBenno: no.\n'
    with Roleplay.open(database_url, model=MODEL, chat=scripted(text), guards=[Asked()] if guarded else []) as rp:
        turn = say(group(rp), "Anna?", way)
        assert (turn.reply.text, turn.call.cut) == (text, None)


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("text", "cut", "told"),
    [
        ("Ben: I am here.\nAnna: So am I.", Cut(name="Ben", text="Ben: I am here.\nAnna: So am I."), "speaks as Ben"),
        ("Anna:\n\n*Carol*: And I?", Cut(name="Carol", text="*Carol*: And I?"), "speaks as Carol"),
        ("**Anna:**", None, "name alone"),
    ],
)
def test_a_reply_of_nothing_but_others(
    database_url: str,
    scripted: Callable[..., ScriptedModel],
    way: str,
    text: str,
    cut: Cut | None,
    told: str,
    guarded: bool,
) -> None:
    """It is an empty one: the turn fails, keeps what was cut, and may be asked for again."""
    asked = Asked()
    with Roleplay.open(
        database_url, model=MODEL, chat=scripted(text, "Here."), guards=[asked] if guarded else []
    ) as rp:
        session = group(rp)
        with pytest.raises(EmptyReplyError, match=told) as raised:
            say(session, "Anna?", way)
        [turn] = session.turns()
        assert (turn.id, turn.status, turn.reply) == (raised.value.turn_id, TurnStatus.FAILED, None)
        assert (turn.call.cut, turn.error["slug"]) == (cut, "empty_reply")
        assert turn.usage.completion_tokens == len(text.split())
        assert asked.texts == []
        reply = session.retry(turn.id)
        assert heard(reply) == "Here."
        assert [call.cut for call in reply.turn.calls] == [cut, None]
        assert session.turn(turn.id) == reply.turn


@pytest.mark.parametrize("guarded", [False, True])
def test_a_reply_goes_on_in_role(database_url: str, scripted: Callable[..., ScriptedModel], guarded: bool) -> None:
    """What follows a text is kept in role as a line that goes on; a rest of nothing but others adds nothing."""
    model = scripted("I walk to the", " Anna: door.\n", "Ben: Wait!", "\nI open it.\n\nBen: Wait!")
    with Roleplay.open(database_url, model=MODEL, chat=model, guards=[Asked()] if guarded else []) as rp:
        session = group(rp)
        short = session.send("Anna?")
        reply = session.resume()
        assert heard(reply) == " door.\n"
        assert reply.turn.reply.text == "I walk to the door.\n"
        with pytest.raises(EmptyReplyError):
            heard(session.resume(reply.turn.id))
        failed = session.turns().items[-1]
        assert (failed.status, failed.reply, failed.call.cut.text) == (TurnStatus.FAILED, None, "Ben: Wait!")
        longer = session.resume(reply.turn.id)
        assert heard(longer) == "I open it."
        assert longer.turn.reply.text == "I walk to the door.\nI open it."
        assert longer.turn.call.cut == Cut(name="Ben", text="Ben: Wait!")
        assert session.turn(longer.turn.id) == longer.turn
        assert session.turn(short.id).reply.text == "I walk to the"


@pytest.mark.parametrize("guarded", [False, True])
def test_an_interrupted_reply_goes_on_in_role(database_url: str, ledger: Ledger, guarded: bool) -> None:
    """It gets another attempt, which is cut; what it had stays where nothing of the rest is the speaker's."""
    model = ScriptedModel("Anna: One. Two. Three. Four.", "\nBen: No.", " Five.\nBen: No.", piece_chars=6)
    ledger.models.append(model)
    with Roleplay.open(database_url, model=MODEL, chat=model, guards=[Asked()] if guarded else []) as rp:
        session = group(rp)
        with session.stream("Anna, count.") as reply:
            first = next(iter(reply)).text
        assert (reply.turn.status, reply.turn.reply.text) == (TurnStatus.INTERRUPTED, first)
        assert "Four." not in first
        with pytest.raises(EmptyReplyError):
            heard(session.resume())
        turn = session.turn(reply.turn.id)
        assert (turn.status, turn.reply.text, turn.call.cut.name) == (TurnStatus.INTERRUPTED, first, "Ben")
        again = session.resume()
        new = heard(again)
        assert new.strip() == "Five."
        assert (again.turn.reply.text, again.turn.call.cut.text) == (first + new, "Ben: No.")
        assert session.turn(turn.id) == again.turn


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("pieces", [1, 5, 1000])
@pytest.mark.parametrize("way", WAYS)
def test_reasoning_is_not_kept_in_role(database_url: str, ledger: Ledger, way: str, pieces: int, guarded: bool) -> None:
    """Where what was taken for speech proves to be reasoning, nothing of it was cut, and the speech begins anew."""
    known = "<think>\nBen: what would he say?\n</think>\n\nAnna: Hello.\nBen: Hi."
    late = "Who am I?\nBen: no.\nAnna: yes.\n</think>\n\nAnna: Hello.\nBen: Hi."
    model = ScriptedModel(known, late, piece_chars=pieces)
    ledger.models.append(model)
    with Roleplay.open(database_url, model=MODEL, chat=model, guards=[Asked()] if guarded else []) as rp:
        session = group(rp)
        turn = say(session, "Anna?", way)
        assert (turn.reply.text, turn.call.cut) == ("Hello.", Cut(name="Ben", text="Ben: Hi."))
        assert turn.call.reasoning.strip() == "Ben: what would he say?"
        if way == "send":
            turn = session.send("Anna?")
        else:
            reply = session.stream("Anna?")
            shown = heard(reply)
            turn = reply.turn
            assert shown.endswith("Hello.")  # what was shown before stays shown
            assert "Ben" not in shown
        assert (turn.reply.text, turn.call.cut) == ("Hello.", Cut(name="Ben", text="Ben: Hi."))
        assert turn.call.reasoning.strip() == "Who am I?\nBen: no.\nAnna: yes."
        assert session.turn(turn.id) == turn


def test_each_stays_in_role(database_url: str, scripted: Callable[..., ScriptedModel]) -> None:
    """Each speaks for itself: where one is cleaned of its name, the other is cut."""
    with Roleplay.open(
        database_url, model=MODEL, chat=scripted("Anna: One.\nBen: Two.", "Ben: Two.\nAnna: One.")
    ) as rp:
        session = group(rp)
        for who, words, other in (("Anna", "One.", "Ben"), ("Ben", "Two.", "Anna")):
            reply = session.speak(who)
            assert heard(reply) == words
            assert reply.turn.call.cut.name == other


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        (["Hello.\n", "Us"], "Hello."),
        (["Hello.\n", "User"], "Hello."),
        (["Hello.\nUser: ", "Hi"], "Hello."),
        (["Hello.\nUse", "ful."], "Hello.\nUseful."),
    ],
)
def test_what_was_held_when_a_stream_broke(pieces: list[str], kept: str) -> None:
    """Only what was handed on is stored: the rest of the name may follow when the reply goes on."""
    hand = Hand([*map(said, pieces), ChatUnavailableError("gone")])
    with pytest.raises(RoleplayError, match="gone"):
        hand.play(send(hand.scope(MODEL), "Where?", TurnOptions(), stream=True))
    assert "".join(one.what.text for one in hand.of(Emit) if isinstance(one.what, Delta)) == kept
    assert hand.counter.texts[-1] == kept

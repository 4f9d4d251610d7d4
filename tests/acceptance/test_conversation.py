"""A conversation that persists, through public names only."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from roleplay import (
    BudgetError,
    ChatAuthError,
    ChatRequestError,
    ChatUnavailableError,
    ConflictError,
    DeltaKind,
    Endpoint,
    ExampleDialogue,
    IdempotencyError,
    InvalidInputError,
    NotFoundError,
    Persona,
    RoleplayError,
    Sampling,
    SessionSettings,
    TurnKind,
    TurnOptions,
    TurnStatus,
)
from roleplay.testing import Simulator
from tests.conftest import KEY
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

ZHUGE = Persona(
    "Zhuge Liang",
    "Chancellor of Shu, calm and far-seeing.",
    greetings=["You have come through snow, {{user}}. Sit.", "The lamp is low."],
    examples=[ExampleDialogue.parse("{{user}}: Will it rain?\n{{char}}: The wind turns at the third watch.")],
)
TRAVELER = Persona("Traveler", "A student from the 21st century.")


def start(rp: Roleplay, **more: object):
    """Put both personas and begin a session."""
    return rp.sessions.create(
        cast=[rp.personas.put(ZHUGE)], user=rp.personas.put(TRAVELER), scene="Longzhong, 207 AD", **more
    )


def test_two_personas_and_a_scene_are_sent_as_the_role_play_list(roleplay: Roleplay, simulator: Simulator) -> None:
    """The request is the role-play list in order, with a name on every message."""
    session = start(roleplay)
    session.send("Master, may I ask about the northern campaign?")
    sent = simulator.requests[-1].json["messages"]
    assert sent == [
        {"role": "system", "name": "Zhuge Liang", "content": "Chancellor of Shu, calm and far-seeing."},
        {"role": "user_system", "name": "Traveler", "content": "A student from the 21st century."},
        {"role": "group", "name": "Longzhong", "content": "Longzhong, 207 AD"},
        {"role": "sample_message_user", "name": "Traveler", "content": "Will it rain?"},
        {"role": "sample_message_ai", "name": "Zhuge Liang", "content": "The wind turns at the third watch."},
        {"role": "assistant", "name": "Zhuge Liang", "content": "You have come through snow, Traveler. Sit."},
        {"role": "user", "name": "Traveler", "content": "Master, may I ask about the northern campaign?"},
    ]
    assert simulator.requests[-1].accepted


CONTINUE = """
import json, sys
from roleplay import Endpoint, Roleplay
url, base_url, key = sys.argv[1:]
with Roleplay.open(url, model=Endpoint("MiniMax-M2.7", base_url=base_url, api_key=key, dialect="minimax")) as rp:
    [info] = rp.sessions.list()
    session = rp.sessions.get(info.id)
    before = [[t.kind, t.human and t.human.text, t.reply.text, t.usage.total_tokens] for t in session.turns()]
    turn = session.send("And if it snows?")
    print(json.dumps([before, turn.reply.text, turn.usage.total_tokens]))
"""


def test_a_new_process_lists_shows_and_continues(database_url: str, endpoint: Endpoint, simulator: Simulator) -> None:
    """Three turns, one of them streamed, are all there in a new process, which goes on with the same history."""
    with Roleplay.open(database_url, model=endpoint) as rp:
        session = start(rp)
        turns = [session.send("First?")]
        with session.stream("Second?") as reply:
            text = "".join(delta.text for delta in reply if delta.kind is DeltaKind.SPEECH)
        turns.append(reply.turn)
        turns.append(session.send("Third?"))
        assert text == reply.turn.reply.text
    arguments = [sys.executable, "-c", CONTINUE, database_url, simulator.base_url, KEY]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    before, said, tokens = json.loads(done.stdout)
    assert before == [
        ["greeting", None, "You have come through snow, Traveler. Sit.", None],
        *(["reply", turn.human.text, turn.reply.text, turn.usage.total_tokens] for turn in turns),
    ]
    assert all(turn.usage.prompt_tokens > 0 for turn in turns)
    assert said
    assert tokens > 0
    sent = [message["content"] for message in simulator.requests[-1].json["messages"][5:]]
    assert sent == [
        "You have come through snow, Traveler. Sit.",
        *(line for turn in turns for line in (turn.human.text, turn.reply.text)),
        "And if it snows?",
    ]


def test_greetings_are_variants_of_the_first_turn(roleplay: Roleplay) -> None:
    """The first greeting opens the session as a turn of its own kind; the others are its variants."""
    [turn] = start(roleplay).turns()
    assert (turn.kind, turn.status, turn.variant, turn.variants) == (TurnKind.GREETING, TurnStatus.COMPLETED, 1, 2)
    assert turn.human is None
    assert turn.reply.text == "You have come through snow, Traveler. Sit."
    assert turn.usage.total_tokens is None


def test_a_session_needs_no_user_persona_and_no_greeting(roleplay: Roleplay, simulator: Simulator) -> None:
    """Only a name is required; what is blank is not sent."""
    session = roleplay.sessions.create(cast=[roleplay.personas.put(Persona("Echo"))])
    assert list(session.turns()) == []
    session.send("Hello?")
    assert simulator.requests[-1].json["messages"] == [
        {"role": "system", "name": "Echo", "content": "Echo"},
        {"role": "user", "name": "User", "content": "Hello?"},
    ]


def test_what_send_returns_is_what_is_stored(roleplay: Roleplay) -> None:
    """The turn that a call gives equals the one that is read later, streamed or not."""
    session = start(roleplay)
    sent = session.send("First?", options=TurnOptions(metadata={"page": 3}))
    with session.stream("Second?") as reply:
        pass
    with session.stream("Third?") as whole:
        assert reply.turn_id == reply.turn.id
        list(whole)
    assert [sent, whole.turn] == [session.turn(turn.id) for turn in (sent, whole.turn)]
    assert sent.metadata == {"page": 3}


def test_preview_shows_what_send_sends(roleplay: Roleplay, simulator: Simulator) -> None:
    """A preview's body is the request that follows, byte for byte, and it writes nothing."""
    session = start(roleplay)
    before = session.info()
    preview = session.preview("What now?")
    assert session.info() == before
    session.send("What now?")
    assert simulator.requests[-1].body == preview.body
    assert [section.section for section in preview.report.sections] == [
        "system",
        "user_persona",
        "scene",
        "examples",
        "history",
        "newest",
    ]
    assert preview.report.prompt_tokens == preview.report.overhead_tokens + sum(
        section.kept_tokens for section in preview.report.sections
    )


def test_pages_of_turns(roleplay: Roleplay) -> None:
    """Pages are oldest first and lead to older ones, without gaps."""
    session = start(roleplay)
    said = [session.send(f"Line {number}").id for number in range(5)]
    newest = session.turns(limit=2)
    middle = session.turns(limit=2, before=newest.older)
    oldest = session.turns(limit=2, before=middle.older)
    assert [turn.id for page in (oldest, middle, newest) for turn in page][1:] == said
    assert oldest.older is None


def test_lists_are_pages_of_one_tenant_and_owner(database_url: str, endpoint: Endpoint) -> None:
    """Another tenant's personas and sessions do not exist; another owner's session is not found."""
    with (
        Roleplay.open(database_url, model=endpoint) as ours,
        Roleplay.open(database_url, model=endpoint, tenant="other") as theirs,
    ):
        mine = start(ours, owner="user-17")
        other = start(ours, owner="user-18")
        assert [one.id for one in ours.sessions.list(limit=1)] == [other.id]
        page = ours.sessions.list(limit=1)
        assert [one.id for one in ours.sessions.list(limit=1, before=page.older)] == [mine.id]
        assert [one.id for one in ours.sessions.list(owner="user-17")] == [mine.id]
        assert ours.sessions.get(mine.id, owner="user-17").id == mine.id
        with pytest.raises(NotFoundError):
            ours.sessions.get(mine.id, owner="user-18")
        with pytest.raises(NotFoundError):
            theirs.sessions.get(mine.id)
        assert len(theirs.sessions.list()) == len(theirs.personas.list()) == 0
        with pytest.raises(NotFoundError):
            theirs.sessions.create(cast=[ours.personas.list().items[0]])


def test_putting_a_persona_again(roleplay: Roleplay) -> None:
    """A known key makes a new version, equal content makes none, and a session keeps the version it began with."""
    first = roleplay.personas.put(ZHUGE.evolve(key="zhuge"))
    assert roleplay.personas.put(ZHUGE.evolve(key="zhuge")) == first
    session = roleplay.sessions.create(cast=["zhuge"])
    second = roleplay.personas.put(ZHUGE.evolve(key="zhuge", description="Older now."))
    assert (second.id, second.version) == (first.id, 2)
    assert roleplay.personas.get("zhuge") == second
    assert roleplay.personas.get(first.id, version=1) == first
    assert session.info().speaker.persona_version == 1


def test_the_same_key_gives_the_same_turn_once(roleplay: Roleplay, simulator: Simulator) -> None:
    """An idempotency key gives the stored turn without a second call, also as a stream; other words are refused."""
    session = start(roleplay)
    options = TurnOptions(idempotency_key="web-1842")
    turn = session.send("Shall we go?", options=options)
    assert session.send("Shall we go?", options=options) == turn
    with session.stream("Shall we go?", options=options) as reply:
        assert "".join(delta.text for delta in reply) == turn.reply.text
    assert reply.turn == turn
    assert len(simulator.requests) == 1
    with pytest.raises(IdempotencyError):
        session.send("Shall we stay?", options=options)


def test_sampling_layers(database_url: str, endpoint: Endpoint, simulator: Simulator) -> None:
    """The nearest layer that says something wins: turn, session, engine."""
    wide = SessionSettings(sampling=Sampling(temperature=0.5, top_p=0.5, max_completion_tokens=500))
    with Roleplay.open(database_url, model=endpoint, settings=wide) as rp:
        session = start(rp, settings=SessionSettings(sampling=Sampling(temperature=0.7, top_p=0.7)))
        turn = session.send("Go.", options=TurnOptions(sampling=Sampling(temperature=0.9)))
    sent = simulator.requests[-1].json
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"]) == (0.9, 0.7, 500)
    assert turn.call.parameters == {name: value for name, value in sent.items() if name != "messages"}


def test_a_budget_that_cannot_hold_what_is_required(database_url: str, endpoint: Endpoint) -> None:
    """The error names each required section with its tokens; nothing is written and nothing sent."""
    with Roleplay.open(database_url, model=endpoint, settings=SessionSettings(budget_tokens=40)) as rp:
        session = start(rp)
        before = session.info()
        with pytest.raises(BudgetError) as failure:
            session.send("Hello there.")
        assert failure.value.needed_tokens > failure.value.budget_tokens == 40
        assert set(failure.value.sections) == {"overhead", "system", "user_persona", "scene", "newest"}
        assert session.info() == before


def test_a_wrong_key(database_url: str, endpoint: Endpoint) -> None:
    """The failed turn is stored and marked, is not sent later, and no text holds the key."""
    with Roleplay.open(database_url, model=endpoint.evolve(api_key="sk-wrong-key-1234")) as rp:
        session = start(rp)
        with pytest.raises(ChatAuthError) as failure:
            session.send("Hello?")
        assert failure.value.code == 1004
        assert "sk-wrong" not in str(failure.value) + repr(failure.value) + repr(rp.endpoint)
        failed = session.turns().items[-1]
        assert (failed.id, failed.status) == (failure.value.turn_id, TurnStatus.FAILED)
        assert failed.error["slug"] == "chat_auth"
        assert failed.reply is None
        assert "sk-wrong" not in failed.model_dump_json()
    with Roleplay.open(database_url, model=endpoint) as rp:
        turn = rp.sessions.get(session.id).send("Once more?")
        assert [one.status for one in rp.sessions.get(session.id).turns()] == ["completed", "completed"]
        assert rp.sessions.get(session.id).turn(failed.id) == failed
        assert rp.replay.request(session.id, turn.call.id).count(b"Hello?") == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "no-such-model", "window_tokens": 1000, "dialect": "minimax"}, ChatRequestError),
        ({"base_url": "http://127.0.0.1:9"}, ChatUnavailableError),
    ],
)
def test_an_unknown_model_and_an_unreachable_host(
    database_url: str, endpoint: Endpoint, change: dict[str, object], error: type[RoleplayError]
) -> None:
    """The typed error says what happened; the turn is stored as failed with each of its attempts."""
    with Roleplay.open(database_url, model=Endpoint(**{**dict(endpoint), **change})) as rp:
        session = start(rp)
        with pytest.raises(error) as failure:
            session.send("Hello?")
        failed = session.turns().items[-1]
        assert failed.status is TurnStatus.FAILED
        assert failed.attempt == len(failed.calls) == (3 if failure.value.retryable else 1)


@pytest.mark.parametrize("text", ["", "   \n", "a\x00b", "\ud83d", "x" * 1_000_001])
def test_text_that_cannot_be_said(roleplay: Roleplay, text: str) -> None:
    """Blank text, a NUL, half a character and an endless line are refused with nothing written."""
    session = start(roleplay)
    before = session.info()
    for say in (session.send, session.stream, session.preview):
        with pytest.raises(InvalidInputError) as failure:
            say(text)
        assert failure.value.field == "text"
    assert session.info() == before


def test_leaving_a_stream_early_keeps_what_was_said(roleplay: Roleplay, simulator: Simulator) -> None:
    """The turn is interrupted with the text so far, is shown, is not sent, and blocks nothing."""
    simulator.say("one two three four five six seven eight nine ten " * 10)
    session = start(roleplay)
    with session.stream("Tell me everything.") as reply:
        first = next(iter(reply)).text
        with pytest.raises(InvalidInputError):
            _ = reply.turn
    assert reply.turn.status is TurnStatus.INTERRUPTED
    assert reply.turn.reply.text.startswith(first)
    assert session.turns().items[-1] == reply.turn
    after = session.send("And now?")
    assert after.status is TurnStatus.COMPLETED
    assert b"Tell me everything" not in simulator.requests[-1].body


def test_an_exception_in_the_loop_interrupts(roleplay: Roleplay) -> None:
    """What the caller's loop raises comes out of the block, and the turn is stored as interrupted."""
    session = start(roleplay)
    with pytest.raises(ZeroDivisionError), session.stream("Count.") as reply:
        for _ in reply:
            1 / 0  # noqa: B018
    assert reply.turn.status is TurnStatus.INTERRUPTED


def test_one_turn_at_a_time(roleplay: Roleplay) -> None:
    """While a turn runs, another on the same head is refused before anything is written or sent."""
    session = start(roleplay)
    with session.stream("First.") as reply:
        with pytest.raises(ConflictError) as failure:
            session.send("Second.")
        assert failure.value.turn_id == reply.turn_id
        list(reply)
    assert session.send("Third.").status is TurnStatus.COMPLETED


def test_errors_are_data(roleplay: Roleplay) -> None:
    """Every error gives a stable slug and JSON-ready details."""
    with pytest.raises(NotFoundError) as failure:
        roleplay.sessions.get("no-such-session")
    assert failure.value.to_dict() == {
        "slug": "not_found",
        "message": "no session 'no-such-session'",
        "retryable": False,
        "turn_id": None,
        "kind": "session",
        "key": "no-such-session",
        "ambiguous": False,
    }

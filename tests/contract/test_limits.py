"""The two limits of a request: the cap of its reply and the budget of its prompt, and the layer of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from roleplay import (
    BudgetError,
    ChatUnavailableError,
    Endpoint,
    Persona,
    Sampling,
    SessionSettings,
    TurnOptions,
    TurnStatus,
)
from roleplay.testing import ScriptedModel
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
KNOWN, LOCAL = "MiniMax-M2.7", "local"
LONG = "The river is deep here, and nobody crosses it before the snow melts. " * 100


def at(**fields: Any) -> Endpoint:
    """A model that no profile knows, with a window of a million tokens unless another is said."""
    return Endpoint(**{"model": LOCAL, "base_url": "http://127.0.0.1:9", "window_tokens": 1_000_000} | fields)


def talk(rp: Any) -> Any:
    """A session with a ferryman."""
    return rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))])


@pytest.mark.parametrize("dialect", ["openai", "minimax"])
@pytest.mark.parametrize("stream", [False, True], ids=["send", "stream"])
def test_the_cap_is_sent_and_stored(database_url: str, scripted: Scripted, dialect: str, stream: bool) -> None:
    """What the budget reserves for a reply is asked for, stored as it was sent, and told with its layer."""
    model = scripted()
    with Roleplay.open(database_url, model=at(max_output_tokens=16, dialect=dialect), chat=model) as rp:
        session = talk(rp)
        foreseen = session.preview("Well?").settings["max_completion_tokens"]
        assert (foreseen.value, foreseen.layer) == (16, "endpoint")
        if stream:
            with session.stream("Well?") as reply:
                list(reply)
            turn = reply.turn
        else:
            turn = session.send("Well?")
        assert model.requests[-1]["max_completion_tokens"] == turn.call.parameters["max_completion_tokens"] == 16
        assert turn.call.settings["max_completion_tokens"] == foreseen
        session.send("And?", options=TurnOptions(sampling=Sampling(max_completion_tokens=9)))
    assert model.requests[-1]["max_completion_tokens"] == 9


@pytest.mark.parametrize(
    ("fields", "said", "cap"),
    [
        ({}, None, (2048, "default")),
        ({"reply_tokens": 300}, None, (300, "endpoint")),
        ({"reply_tokens": 300}, 200, (200, "engine")),
        ({"max_output_tokens": 100}, None, (100, "endpoint")),
        ({"window_tokens": 4000}, None, (1000, "endpoint")),
        ({"model": KNOWN, "window_tokens": None}, None, (2048, "profile")),
        ({"model": "MiniMax-M2", "window_tokens": None}, None, (8192, "profile")),
        ({"model": KNOWN, "max_output_tokens": 9000}, None, (8192, "profile")),
        ({"model": KNOWN, "max_output_tokens": 5000}, None, (5000, "endpoint")),
    ],
)
def test_the_layer_of_the_cap(
    sqlite_url: str, scripted: Scripted, fields: dict[str, Any], said: int | None, cap: tuple[int, str]
) -> None:
    """Settings first; then whatever bounds it, the endpoint where it says that, else the profile."""
    settings = SessionSettings(sampling=Sampling(max_completion_tokens=said))
    with Roleplay.open(sqlite_url, model=at(**fields), chat=scripted(), settings=settings) as rp:
        found = talk(rp).preview("Well?").settings["max_completion_tokens"]
    assert (found.value, found.layer) == cap


@pytest.mark.parametrize(
    ("endpoints", "said", "budget"),
    [
        ([{}], None, (32_000, "default")),
        ([{}], 500_000, (500_000, "engine")),
        ([{"budget_tokens": 90_000}], None, (90_000, "endpoint")),
        ([{"budget_tokens": 900}], None, (900, "endpoint")),
        ([{"budget_tokens": 90_000}], 800, (800, "engine")),
        ([{"budget_tokens": None}], None, (1_000_000 - 2048 - 50_000, "profile")),
        ([{"window_tokens": 8000}], None, (8000 - 2000 - 400, "profile")),
        ([{"window_tokens": 8000, "budget_tokens": 90_000}], None, (8000 - 2000 - 400, "profile")),
        ([{"window_tokens": 8000, "reply_tokens": 100}], None, (8000 - 100 - 400, "profile")),
        ([{"model": KNOWN, "window_tokens": None}], None, (32_000, "default")),
        ([{"model": "M2-her", "window_tokens": None}], None, (32_000, "default")),
        ([{}, {"window_tokens": 8000}], None, (8000 - 2000 - 400, "profile")),
        ([{}, {"budget_tokens": 700}], None, (700, "endpoint")),
        ([{"budget_tokens": 90_000}, {"budget_tokens": None}], None, (90_000, "endpoint")),
        ([{"budget_tokens": None}, {}], None, (32_000, "default")),
    ],
)
def test_the_layer_of_the_budget(
    sqlite_url: str, scripted: Scripted, endpoints: list[dict[str, Any]], said: int | None, budget: tuple[int, str]
) -> None:
    """Settings first; then the smallest of what the windows hold and of the endpoints' own budgets."""
    models = [at(**fields) for fields in endpoints]
    settings = SessionSettings(budget_tokens=said)
    with Roleplay.open(sqlite_url, model=models, chat=scripted(), settings=settings) as rp:
        preview = talk(rp).preview("Well?")
    found = preview.settings["budget_tokens"]
    assert (found.value, found.layer) == budget
    assert preview.report.budget_tokens == budget[0]
    assert preview.report.room_tokens == 0  # nothing was left out


def test_what_is_left_out_for_want_of_a_setting_is_told(database_url: str, scripted: Scripted) -> None:
    """Where the default alone bounds a request and something did not fit, the report says what the window could hold;
    where somebody chose the budget, it does not."""
    with Roleplay.open(database_url, model=at(), chat=scripted(*["Yes."] * 40)) as rp:
        session = talk(rp)
        assert session.send(LONG).call.settings["budget_tokens"].value == 32_000
        assert session.report().room_tokens == 0
        for _ in range(30):
            session.send(LONG)
        report = session.report()
        assert report.room_tokens == 1_000_000 - 2048 - 50_000 - 32_000
        assert session.preview("Well?").report.room_tokens == report.room_tokens
        session.update(settings=SessionSettings(budget_tokens=30_000))
        assert session.preview("Well?").report.room_tokens == 0
        session.send("Well?")
        assert session.report().room_tokens == 0


def test_no_budget_is_above_the_window(database_url: str, scripted: Scripted) -> None:
    """A budget that the window cannot hold is used as far as it can, and no more than that is read."""
    model = scripted(*["Yes."] * 60)
    model.usage = False
    settings = SessionSettings(budget_tokens=10_000_000)
    with Roleplay.open(database_url, model=at(window_tokens=4000), chat=model, settings=settings) as rp:
        session = talk(rp)
        for _ in range(6):
            session.send(LONG[:4000])
        report = session.report()
        assert (report.budget_tokens, report.prompt_tokens <= 3000) == (3000, True)
        assert session.preview("Well?").settings["budget_tokens"].value == 10_000_000
        with pytest.raises(BudgetError) as failure:
            session.preview(LONG * 3)
        assert failure.value.budget_tokens == 3000


@pytest.mark.parametrize("stream", [False, True], ids=["send", "stream"])
def test_another_endpoint_is_asked_for_what_it_can_give(database_url: str, scripted: Scripted, stream: bool) -> None:
    """The context for an endpoint that is asked instead fits its window, and so does the reply cap, whatever budget
    and cap are set."""
    model = scripted(*["Yes."] * 5)
    model.usage = False
    small = at(model="small", window_tokens=2000, max_output_tokens=700)
    first = at(max_output_tokens=9000, retry={"attempts": 1})
    settings = SessionSettings(budget_tokens=50_000, sampling=Sampling(max_completion_tokens=4000))
    with Roleplay.open(database_url, model=[first, small], chat=model, settings=settings) as rp:
        session = talk(rp)
        for _ in range(5):
            session.send(LONG[:2000])
        model.say(ChatUnavailableError("it is down"), "At last.")
        if stream:
            with session.stream("Well?") as reply:
                list(reply)
            turn = reply.turn
        else:
            turn = session.send("Well?")
        assert (turn.status, turn.call.model_asked) == (TurnStatus.COMPLETED, "small")
        assert (model.requests[-2]["max_completion_tokens"], model.requests[-1]["max_completion_tokens"]) == (4000, 700)
        assert session.report().budget_tokens == 1300
        assert session.report().prompt_tokens <= 1300


def test_a_high_reply_cap_leaves_room_to_ask(database_url: str, scripted: Scripted) -> None:
    """A cap as large as the window, of the endpoint or of one that would be asked instead, stops no turn: half of the
    window is kept for the prompt."""
    settings = SessionSettings(sampling=Sampling(max_completion_tokens=2048))
    for endpoints in ([at(window_tokens=2048)], [at(), at(model="small", window_tokens=2048)]):
        with Roleplay.open(database_url, model=endpoints, chat=scripted("Yes."), settings=settings) as rp:
            session = talk(rp)
            assert session.preview("Well?").settings["budget_tokens"].value == 2048 // 2 - 102
            assert session.send("Well?").call.parameters["max_completion_tokens"] == 2048

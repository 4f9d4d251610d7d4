"""The context over many turns: what it costs and why, when it changes, and what is learned of its tokens."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from roleplay import (
    ChatRequestError,
    Dialect,
    Endpoint,
    ExampleDialogue,
    Fact,
    NotFoundError,
    Persona,
    SessionSettings,
    TurnStatus,
)
from roleplay.testing import ScriptedModel, Simulator
from roleplay.testing.simulator import ContextTooLong, Overloaded
from roleplay.testing.simulator.models import Model
from tests.conftest import KEY, Ledger
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]
MODEL = Endpoint("MiniMax-M2.7")
LINE = "The river has risen above the second marker and the ferrymen have gone to the hills. "
CHINESE = "亮躬耕于南阳，先生以为北伐如何？粮草若迟，守军可支几时。"
EXAMPLES = [
    ExampleDialogue.parse(f"{{{{user}}}}: About {about}?\n{{{{char}}}}: {about.capitalize()} " + "and so on. " * 36)
    for about in ("harbours", "crowns", "sails", "winters")
]


@pytest.fixture
def small(ledger: Ledger) -> Iterator[Simulator]:
    """A simulator whose model has a window of 2,000 of its own tokens, which is less than it is said to have."""
    with Simulator(KEY, models=[Model("MiniMax-M2.7", context_tokens=2_000)]) as simulator:
        ledger.simulators.append(simulator)
        yield simulator


@pytest.fixture
def simulator(ledger: Ledger) -> Iterator[Simulator]:
    """A simulator, which counts by a tokenizer and a template of its own."""
    with Simulator(KEY) as one:
        ledger.simulators.append(one)
        yield one


def at(simulator: Simulator, **fields: Any) -> Endpoint:
    """The simulator's model."""
    return Endpoint("MiniMax-M2.7", base_url=simulator.base_url, api_key=KEY, **{"dialect": "minimax"} | fields)


def sections(report: Any) -> dict[str, Any]:
    """A report's sections by name."""
    return {one.section: one for one in report.sections}


def alike(report: Any) -> Any:
    """A report without what is read beside it."""
    return report.model_copy(update={"shared_tokens": None})


def examples_sent(model: ScriptedModel) -> list[str]:
    """What the examples of the last request are about."""
    said = [one["content"] for one in model.requests[-1]["messages"] if one["role"] == "sample_message_user"]
    return [one.removeprefix("About ").rstrip("?") for one in said]


@pytest.mark.parametrize("text", [LINE, CHINESE, f"{CHINESE} {LINE}"], ids=["english", "chinese", "mixed"])
def test_counts_come_near_what_is_reported(database_url: str, simulator: Simulator, text: str) -> None:
    """From the 21st turn on, half of the counts are within 3 % of what the service reports, and 19 of 20 within 6 %."""
    with Roleplay.open(database_url, model=at(simulator), settings=SessionSettings(budget_tokens=3_000)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman. " * 30, note="It rains."))])
        errors = []
        for number in range(70):
            turn = session.send(f"{number}. " + text * (1 + number % 4))
            counted, reported = session.report().prompt_tokens, turn.usage.prompt_tokens
            errors.append(abs(counted - reported) / reported)
        later = sorted(errors[20:])
        assert statistics.median(later) <= 0.03
        assert later[int(0.95 * len(later))] <= 0.06
        [known] = rp.calibrations()
        assert (known.model, known.observations, known.counter) == ("MiniMax-M2.7", 70, "estimate-1")
        assert known.error_share is not None
        assert known.error_share < 0.05
        assert session.report().calibrated == 69


def test_what_was_learned_is_there_again(database_url: str, scripted: Scripted) -> None:
    """Another engine goes on from what earlier ones learned, at whatever moment it is opened, and for its tenant."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as first:
        session = first.sessions.create(cast=[first.personas.put(Persona("Huang", key="huang"))])
        for _ in range(3):
            session.send(LINE)
        [learned] = first.calibrations()
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as second:
        assert list(second.calibrations()) == [learned]
        preview = second.sessions.get(session.id).preview(LINE)
        assert preview.report.calibrated == learned.observations == 3
        assert list(second.for_tenant("other").calibrations()) == []


def test_two_engines_teach_each_other(database_url: str, scripted: Scripted) -> None:
    """What several engines learn at once adds up: nothing is overwritten."""
    with (
        Roleplay.open(database_url, model=MODEL, chat=scripted()) as one,
        Roleplay.open(database_url, model=MODEL, chat=scripted()) as other,
    ):
        for rp in (one, other):
            session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", key="huang"))])
            for _ in range(5):
                session.send(LINE)
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        assert [known.observations for known in rp.calibrations()] == [10]


def test_without_a_report_counts_stay_safe(database_url: str, scripted: Scripted) -> None:
    """A service that reports nothing teaches nothing: the counts are the estimate's."""
    model = scripted()
    model.usage = False
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        for _ in range(6):
            session.send(LINE)
        assert session.report().calibrated == 0
        assert list(rp.calibrations()) == []


def test_the_stored_report_is_the_previews(database_url: str, scripted: Scripted) -> None:
    """Each turn keeps why its request was what it was, of the head or of any turn; a greeting has none."""
    model = scripted()
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=SessionSettings(budget_tokens=400)) as rp:
        persona = Persona("Huang", "A ferryman.", greetings=["Step in."], examples=EXAMPLES, note="It rains.")
        session = rp.sessions.create(cast=[rp.personas.put(persona)], scene="A ferry")
        [greeting] = session.turns()
        seen = []
        for _ in range(12):
            foreseen = session.preview(LINE).report
            seen.append((session.send(LINE).id, foreseen))
        for turn_id, foreseen in seen:  # what is shared is counted by what is known by now
            assert alike(session.report(turn_id)) == alike(foreseen)
        report = seen[-1][1]
        assert sum(one.kept_tokens for one in report.sections) + report.overhead_tokens == report.prompt_tokens
        for missing in (greeting.id, "no-such-turn"):
            with pytest.raises(NotFoundError):
                session.report(missing)


def test_what_is_shared_is_told(database_url: str, scripted: Scripted) -> None:
    """The report counts the tokens of the messages that the request before began with too; an insertion at a depth
    and a time in front say what they cost."""
    model = scripted()
    plain, noted, timed = (
        SessionSettings(facts=facts) for facts in ([], [Fact("Snow.", depth=4)], [Fact("{{time}}", depth=None)])
    )
    shared, unshared = {}, {}
    with Roleplay.open(database_url, model=MODEL, chat=model) as rp:
        huang = rp.personas.put(Persona("Huang", "A ferryman. " * 20))
        for name, settings in (("plain", plain), ("noted", noted), ("timed", timed)):
            session = rp.sessions.create(cast=[huang], settings=settings)
            assert session.preview(LINE).report.shared_tokens is None
            for _ in range(6):
                session.send(LINE)
            report = session.report()
            shared[name] = report.prompt_tokens - report.shared_tokens
            unshared[name] = sections(report).get("fact fact")
            assert report.shared_tokens > 0
    assert unshared["plain"] is None
    assert shared["noted"] > shared["plain"] + 2 * 10
    assert unshared["noted"].unshared_tokens > unshared["noted"].kept_tokens
    assert unshared["timed"].unshared_tokens > 4 * unshared["noted"].kept_tokens


def test_the_marks_are_settable(database_url: str, scripted: Scripted) -> None:
    """A lower low-water mark lets the window move more rarely; what is kept is never above the high-water mark."""
    moves, kept = {}, {}
    for low, high in ((0.25, 1.0), (0.8, 1.0), (0.5, 0.6)):
        model = scripted()
        model.usage = False
        settings = SessionSettings(budget_tokens=600, low_water=low, high_water=high)
        with Roleplay.open(database_url, model=MODEL, chat=model, settings=settings) as rp:
            session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", key="huang"))])
            reports = []
            for _ in range(30):
                session.send(LINE)
                reports.append(session.report())
            moves[low] = sum(one.new_epoch for one in reports)
            kept[low] = max(one.prompt_tokens for one in reports)
    assert moves[0.25] < moves[0.8]
    assert kept[0.5] < 0.75 * kept[0.8]
    assert kept[0.8] <= 600


@pytest.mark.parametrize("policy", ["keep", "fade", "relevant", "random"])
def test_examples_change_with_the_window_alone(database_url: str, scripted: Scripted, policy: str) -> None:
    """Whatever the policy, examples stay as they are while the window stays, and the report says why each is in."""
    model = scripted()
    model.usage = False
    settings = SessionSettings(budget_tokens=700, examples=policy, seed=5)
    abouts = ["crowns and winters", "sails", "harbours", "winters"]
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=settings) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman.", examples=EXAMPLES))])
        before, sets = None, []
        for number in range(60):
            session.send(f"Tell me of {abouts[number // 15]}. {LINE}")
            report, sent = session.report(), examples_sent(model)
            assert (sent == before) or report.new_epoch or before is None
            if before is None or sent != before:
                sets.append(sent)
            mine = sections(report)["examples"]
            assert mine.kept_items == len(sent)
            assert len(mine.details) == (0 if len(sent) == len(EXAMPLES) else len(EXAMPLES))
            assert policy in mine.reason or len(sent) == len(EXAMPLES)
            before = sent
        if policy == "keep":
            assert len(sets) == 1
        if policy == "fade":
            assert [len(one) for one in sets] == sorted((len(one) for one in sets), reverse=True)
            assert sets[-1] == []
        if policy == "random":
            assert len({tuple(one) for one in sets}) > 1
        if policy == "relevant":
            assert sets[0] == ["crowns", "winters"]
            assert [one[-1] for one in sets] == ["winters", "sails", "crowns", "winters"]
        assert [rp.replay.request(session.id, call.id) for turn in session.turns(limit=100) for call in turn.calls] == (
            model.bodies
        )


def test_a_branch_keeps_its_examples(database_url: str, scripted: Scripted) -> None:
    """What was chosen goes with the path: after a fork the request begins as it began there."""
    model = scripted()
    model.usage = False
    settings = SessionSettings(budget_tokens=700, examples="random")
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=settings) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman.", examples=EXAMPLES))])
        chosen = {}
        for _ in range(30):
            turn = session.send(LINE)
            chosen[turn.id] = examples_sent(model)
        assert len({tuple(one) for one in chosen.values()}) > 1
        stayed = 0
        for turn_id in list(chosen)[::3]:
            session.tree.fork(turn_id)
            if not session.preview(LINE).report.new_epoch:
                session.send(LINE)
                assert examples_sent(model) == chosen[turn_id]
                stayed += 1
        assert stayed >= 3


def test_a_context_that_is_too_long_is_shrunk_once(database_url: str, small: Simulator) -> None:
    """The service's window is smaller than we think: one shorter attempt answers the turn, both calls are kept and can
    be rebuilt, and later requests stay below what was refused."""
    endpoint = at(small, retry={"attempts": 1})
    with Roleplay.open(database_url, model=endpoint, settings=SessionSettings(budget_tokens=8_000)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))])
        turns = [session.send(LINE * 4) for _ in range(60)]
        assert {turn.status for turn in turns} == {TurnStatus.COMPLETED}
        shrunk = [turn for turn in turns if len(turn.calls) > 1]
        assert 1 <= len(shrunk) <= 3
        for turn in shrunk:
            assert [call.error and call.error["slug"] for call in turn.calls] == ["chat_request", None]
        assert all(turn.usage.prompt_tokens <= 2_000 for turn in turns)
        assert max(turn.usage.prompt_tokens for turn in turns[-15:]) > 1_200
        [known] = rp.calibrations()
        assert known.limit_tokens is not None
        assert known.limit_tokens <= 2_050
        with Roleplay.open(database_url, model=endpoint) as other:  # what was refused, others know after the next turn
            assert [one.limit_tokens is not None for one in other.calibrations()] == [True]
        calls = [call for turn in session.turns(limit=100) for call in turn.calls]
        assert [rp.replay.request(session.id, call.id) for call in calls] == [one.body for one in small.requests]


def test_what_cannot_be_shrunk_is_refused(database_url: str, simulator: Simulator) -> None:
    """Where nothing can be left out there is no second attempt, and nothing is learned that hinders later turns."""
    with Roleplay.open(database_url, model=at(simulator, retry={"attempts": 1})) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))])
        simulator.next(ContextTooLong())
        with pytest.raises(ChatRequestError) as failure:
            session.send(LINE)
        [turn] = session.turns()
        assert (turn.id, turn.status, len(turn.calls)) == (failure.value.turn_id, TurnStatus.FAILED, 1)
        assert session.send("Short?").status is TurnStatus.COMPLETED
        assert all(known.limit_tokens is None for known in rp.calibrations())


def test_shrinking_happens_once(database_url: str, simulator: Simulator) -> None:
    """A service that refuses the shorter context too is not asked a third time."""
    with Roleplay.open(database_url, model=at(simulator, retry={"attempts": 1})) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))])
        for _ in range(6):
            session.send(LINE * 3)
        simulator.next(ContextTooLong(), times=2)
        with pytest.raises(ChatRequestError):
            session.send(LINE)
        assert len(list(session.turns())[-1].calls) == 2
        simulator.heal()
        assert session.send(LINE).status is TurnStatus.COMPLETED


def test_a_folded_request_is_learned_apart(database_url: str, simulator: Simulator) -> None:
    """Each dialect has its own rates: what a message costs depends on how it is written."""
    with Roleplay.open(database_url, model=at(simulator)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman.", key="huang"))])
        session.send(LINE)
    with Roleplay.open(database_url, model=at(simulator, dialect=Dialect.OPENAI)) as rp:
        session = rp.sessions.create(cast=["huang"])
        session.send(LINE)
        assert [known.dialect for known in rp.calibrations()] == ["minimax", "openai"]


def test_a_damaged_calibration_is_named(database_url: str, scripted: Scripted) -> None:
    """It is an error that names it, not a silent new beginning; the doctor finds it."""
    from roleplay import StoreError  # noqa: PLC0415 - beside its use

    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
        session.send(LINE)
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        import roleplay.engine  # noqa: PLC0415

        with roleplay.Roleplay.open(database_url, model=MODEL, chat=ScriptedModel()) as plain:
            sql = "UPDATE roleplay_calibrations SET fit = '[1]' WHERE tenant = 'default'"
            plain._runtime.database.write(lambda db: db.exec_driver_sql(sql))
        with pytest.raises(StoreError, match="calibration"):
            rp.sessions.get(session.id).send(LINE)
        assert [one.says for one in rp.doctor()] == ["calibrations.fit holds what is never written there"]
        assert json.loads(rp.doctor()[0].model_dump_json())["session_id"] == "MiniMax-M2.7"


def test_turns_at_once_teach_once(database_url: str, scripted: Scripted) -> None:
    """However many turns of one engine end at the same time, each report is learned from once and none is lost."""
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        huang = rp.personas.put(Persona("Huang"))
        sessions = [rp.sessions.create(cast=[huang]) for _ in range(8)]

        def talk(session: Any) -> None:
            for _ in range(6):
                session.send(LINE)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(talk, sessions))
    with Roleplay.open(database_url, model=MODEL, chat=scripted()) as rp:
        assert [known.observations for known in rp.calibrations()] == [48]


def test_examples_come_back(database_url: str, scripted: Scripted) -> None:
    """One long line that leaves no room for examples, or a smaller budget, does not change them for good."""
    model = scripted()
    model.usage = False
    settings = SessionSettings(budget_tokens=900)
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=settings) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman.", examples=EXAMPLES))])
        session.send("Well?")
        before = examples_sent(model)
        model.say("Hm.")
        session.send(LINE * 24)
        assert len(examples_sent(model)) < len(before)
        for _ in range(30):
            session.send(LINE)
        assert examples_sent(model) == before
        session.update(settings=SessionSettings(budget_tokens=560))
        reports = []
        for _ in range(12):
            session.send(LINE)
            reports.append(session.report())
        assert sum(one.new_epoch for one in reports) < 8
        assert sections(reports[-1])["history"].kept_items > 0


def test_what_was_shrunk_is_handed_on(database_url: str, small: Simulator) -> None:
    """The turn after one that was shrunk goes on from the window that was sent; no setting is said to have changed."""
    endpoint = at(small, retry={"attempts": 1})
    with Roleplay.open(database_url, model=endpoint, settings=SessionSettings(budget_tokens=8_000)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))])
        turn = session.send(LINE * 4)
        while len(turn.calls) == 1:
            turn = session.send(LINE * 4)
        start = session.report(turn.id).window_start
        assert start > 1
        after = session.send(LINE)
        assert session.report(after.id).window_start == start
        assert not session.report(after.id).new_epoch
        assert after.call.settings["budget_tokens"].value == 8_000


def test_one_refusal_does_not_forget_what_was_answered(database_url: str, simulator: Simulator) -> None:
    """A refusal of a short prompt, where longer ones were just answered, shortens that turn alone."""
    with Roleplay.open(database_url, model=at(simulator, retry={"attempts": 1})) as rp:
        huang = rp.personas.put(Persona("Huang", "A ferryman."))
        long, short = rp.sessions.create(cast=[huang]), rp.sessions.create(cast=[huang])
        for _ in range(8):
            long.send(LINE * 3)
        for _ in range(3):
            short.send("Well?")
        simulator.next(ContextTooLong())
        assert len(short.send("Well?").calls) == 2
        assert all(known.limit_tokens is None for known in rp.calibrations())
        kept = sections(long.preview("And?").report)["history"]
        assert kept.kept_items == kept.claimed_items == 16


def test_another_endpoint_is_drawn_for_anew(database_url: str, simulator: Simulator) -> None:
    """What goes to the next endpoint keeps the budget by what is known of that one, also from earlier processes."""
    other = at(simulator, retry={"attempts": 1}).evolve(model="MiniMax-M2.5")
    settings = SessionSettings(budget_tokens=700)
    with Roleplay.open(database_url, model=other, settings=settings) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman.", key="huang"))])
        for _ in range(10):
            session.send(CHINESE * 3)
        [known] = rp.calibrations()
    both = [at(simulator, retry={"attempts": 1}), other]
    with Roleplay.open(database_url, model=both, settings=settings) as rp:
        session = rp.sessions.get(session.id)
        simulator.next(Overloaded())
        turn = session.send(CHINESE * 3)
        assert [call.model_asked for call in turn.calls] == ["MiniMax-M2.7", "MiniMax-M2.5"]
        assert session.report().calibrated == known.observations == 10
        assert turn.usage.prompt_tokens <= 1.05 * 700
        [again] = [one for one in rp.calibrations() if one.model == "MiniMax-M2.5"]
        assert again.observations == 11


def test_who_speaks_unasked_has_whole_turns(database_url: str, scripted: Scripted) -> None:
    """Where nobody asks, the turn that was said last is in whole, its line and its reply."""
    model = scripted()
    model.usage = False
    with Roleplay.open(database_url, model=MODEL, chat=model, settings=SessionSettings(budget_tokens=400)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))])
        for _ in range(6):
            model.say("Aye. " * 40)
            session.send(LINE)
            with session.speak() as reply:
                list(reply)
            asked, answered = model.requests[-1]["messages"][-3:-1]
            assert (asked["role"], asked["content"]) == ("user", LINE)
            assert (answered["role"], answered["content"][:4]) == ("assistant", "Aye.")
            assert session.report().prompt_tokens <= 400

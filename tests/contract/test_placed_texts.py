"""A source that nothing else knows: its texts are sent, told of, stored and rebuilt as those of the engine are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from roleplay import Counter, Endpoint, Persona, Role, SessionSettings
from roleplay.context.placed import BEHIND, Casting, PlacedText, Request, at_depth, of_request, of_revision, rendered
from roleplay.context.sheet import render
from roleplay.context.sources import SOURCES
from roleplay.testing import ScriptedModel
from roleplay.turns import revisions
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

Scripted = Callable[..., ScriptedModel]


@of_revision("reminder")
def reminder(casting: Casting, counter: Counter) -> Sequence[PlacedText]:
    """The same sentence in every request."""
    said = rendered("reminder", Role.SYSTEM, casting.char, "The river is high.", counter)
    return [PlacedText((said,), at_depth(2), 60)]


@of_request("recall")
def recall(request: Request) -> Sequence[PlacedText]:
    """Another text in each request, of which there are several."""
    return [text_of(request, name, place) for name, place in (("first", 0), ("last", -1))]


def text_of(request: Request, name: str, place: int) -> PlacedText:
    """A text that says what one of the lines was."""
    said = rendered("recall", Role.USER, name, f"{name}: {request.lines[place].text}", request.counter)
    return PlacedText((said,), BEHIND, 30, name=name, changes=True)


@pytest.mark.parametrize("dialect", ["minimax", "openai", "strict"])
def test_a_source_that_nothing_knows(
    database_url: str, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """Sent and streamed, its texts are in the request and in its report, also when the source is there no more; that
    each request is rebuilt from its rows is checked after the test."""
    model = scripted()
    endpoint = Endpoint("MiniMax-M2.7", dialect=dialect)
    persona = Persona("Huang", "A ferryman.", greetings=["Step in."], note="It rains.", post_history="Be brief.")
    with monkeypatch.context() as patch, Roleplay.open(database_url, model=endpoint, chat=model) as rp:
        patch.setattr(revisions, "render", partial(render, sources=(*SOURCES, reminder, recall)))
        session = rp.sessions.create(cast=[rp.personas.put(persona)])
        foreseen = session.preview("Is it deep?").report
        turns = [session.send("Is it deep?")]
        with session.stream("And cold?") as stream:
            for _ in stream:
                pass
            turns.append(stream.turn)
        reports = [session.report(turn.id) for turn in turns]
        for line, request in zip(("Is it deep?", "And cold?"), model.requests, strict=True):
            said = "\n".join(message["content"] for message in request["messages"])
            assert all(text in said for text in ("The river is high.", "first: Step in.", f"last: {line}"))
    assert foreseen.sections == reports[0].sections
    for report in reports:
        told = {one.section: one for one in report.sections}
        assert [*told][-3:] == ["reminder", "recall first", "recall last"]
        assert all(told[name].kept_items == 1 for name in ("reminder", "recall first", "recall last"))
        assert told["reminder"].unshared_tokens > told["reminder"].kept_tokens
        assert sum(one.kept_tokens for one in report.sections) + report.overhead_tokens == report.prompt_tokens
    with Roleplay.open(database_url, model=endpoint, chat=model) as rp:
        again = rp.sessions.get(session.id)
        assert [again.report(turn.id).sections for turn in turns] == [report.sections for report in reports]
        assert [one.section for one in again.preview("Well?").report.sections][-1] == "post_history"


def test_what_does_not_fit_is_told(database_url: str, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a small budget the texts of the lowest priority are left out first, and the report says why."""
    monkeypatch.setattr(revisions, "render", partial(render, sources=(*SOURCES, reminder, recall)))
    settings = SessionSettings(budget_tokens=75)
    with Roleplay.open(database_url, model=Endpoint("MiniMax-M2.7"), chat=scripted(), settings=settings) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))])
        session.send("Is it deep?")
        told = {one.section: one for one in session.report().sections}
    assert (told["reminder"].kept_items, told["recall last"].kept_items) == (1, 0)
    assert told["recall last"].reason.startswith("needs ")

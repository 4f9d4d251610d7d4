"""Whatever the layers say: the nearest value that is not ``None`` is in force, is sent and told, and is rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roleplay import Endpoint, Fact, Persona, Roleplay, Sampling, SessionSettings, TurnOptions
from roleplay.testing import ScriptedModel
from roleplay.turns.layers import in_force

MODEL = Endpoint("MiniMax-M2.7")
LAYERS = ("turn", "session", "persona", "tenant", "engine")
PLAIN = ("budget_tokens", "model", "language", "time_zone")

shares = st.none() | st.sampled_from([0.1, 0.5, 1.0])
samplings = st.builds(
    Sampling, temperature=shares, top_p=shares, max_completion_tokens=st.none() | st.sampled_from([1, 2048])
)
facts = st.lists(
    st.builds(
        Fact,
        st.sampled_from(["It rains.", "下雨。", "{{char}} waits.", ""]),
        name=st.sampled_from(["a", "b", "c"]),
        depth=st.none() | st.integers(0, 5),
        priority=st.sampled_from([0, 50, 51, 100]),
    ),
    max_size=3,
    unique_by=lambda fact: fact.name,
)
said = st.builds(
    SessionSettings,
    sampling=samplings,
    budget_tokens=st.none() | st.integers(2000, 3000),
    model=st.none() | st.sampled_from(["MiniMax-M2.7", "MiniMax-M2.5", "M2-her"]),
    language=st.none() | st.sampled_from(["en", "zh", "ja"]),
    time_zone=st.none() | st.sampled_from(["UTC", "Asia/Shanghai"]),
    facts=facts,
)


def nearest(layers: list[tuple[str, SessionSettings]], name: str) -> tuple[Any, str]:
    """The nearest value of a setting and its layer, as the rule says it."""
    for layer, one in layers:
        value = getattr(one.sampling, name) if name in Sampling.model_fields else getattr(one, name)
        if value is not None:
            return value, layer
    return None, "default"


@given(st.lists(said, min_size=5, max_size=5))
def test_the_nearest_is_in_force(values: list[SessionSettings]) -> None:
    """Of each setting and of each fact's name."""
    layers = list(zip(LAYERS, values, strict=True))
    force = in_force(layers)
    for name in (*Sampling.model_fields, *PLAIN):
        value, layer = nearest(layers, name)
        found = getattr(force.sampling, name) if name in Sampling.model_fields else getattr(force, name)
        assert (found, force.origins.get(name, "default")) == (value, layer)
    wanted: dict[str, tuple[Fact, str]] = {}
    for layer, one in reversed(layers):
        wanted |= {fact.name: (fact, layer) for fact in one.facts}
    in_it = {name: one for name, one in wanted.items() if one[0].text}
    assert {fact.name: (fact, force.origins[f"fact {fact.name}"]) for fact in force.facts} == in_it
    assert len({fact.name for fact in force.facts}) == len(force.facts)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.lists(said, min_size=5, max_size=5))
def test_what_is_in_force_is_sent_and_rebuilt(
    sqlite_url: str, scripted: Callable[..., ScriptedModel], values: list[SessionSettings]
) -> None:
    """Through every layer that there is, for a first turn and a second; both are rebuilt once more at the end."""
    turn, session_, persona, tenant, engine = values
    layers = list(zip(LAYERS, values, strict=True))
    model = scripted("One.", "Two.")
    with Roleplay.open(sqlite_url, model=MODEL, chat=model, settings=engine) as rp:
        view = rp.for_tenant("other", settings=tenant)
        stored = view.personas.put(Persona("Huang", "A ferryman.", settings=persona))
        session = view.sessions.create(cast=[stored], settings=session_)
        options = TurnOptions(sampling=turn.sampling, model=turn.model, facts=turn.facts)
        told = {
            name: (one.value, one.layer) for name, one in session.send("Deep?", options=options).call.settings.items()
        }
        layers[0] = ("turn", SessionSettings(sampling=turn.sampling, model=turn.model, facts=turn.facts))
        sent = model.requests[-1]
        for name in Sampling.model_fields:
            value, layer = nearest(layers, name)
            if name == "max_completion_tokens" and value is None:  # a cap is always sent
                value, layer = Endpoint(sent["model"]).reply_cap, "profile"
            assert told[name] == (value, layer)
            assert sent.get(name) == told[name][0]
        value, layer = nearest(layers, "model")
        assert told["model"] == ((value, layer) if value else (MODEL.model, "engine"))
        assert sent["model"] == told["model"][0]
        second = session.send("And now?")
        for call in (*session.turns().items[0].calls, *second.calls):
            assert view.replay.request(session.id, call.id) in model.bodies

"""Groups as SillyTavern 1.18 has them: each case gives the same, or is a deliberate difference that the docs tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from roleplay import EstimatingCounter, Fact, Participant, Persona, PlayedBy, SpeakingMoment
from roleplay.context.builder import Rules, build
from roleplay.context.languages import LANGUAGES
from roleplay.context.placed import Casting, Player, Request
from roleplay.context.sheet import render
from roleplay.context.weights import Weights
from roleplay.domain.context import ContextMessage, Line, Role
from roleplay.domain.endpoint import Dialect
from roleplay.domain.persona import ExampleDialogue
from roleplay.turns.strategies import STRATEGIES
from roleplay.wire.dialects import demands

ROOT = Path(__file__).parents[3]
ACTIVATION = json.loads((ROOT / "tests/data/st118_group_activation.json").read_text())["cases"]
ASSEMBLY = json.loads((ROOT / "tests/data/st118_assembly_group.json").read_text())["cases"]
COUNTER = EstimatingCounter()
SPEAKER = "Nova"


def told(kind: str) -> list[str]:
    """The cases of a kind that the table of deliberate differences names."""
    page = (ROOT / "docs/reference/groups.md").read_text().partition("## Deliberate differences")[2]
    tokens = MarkdownIt().enable("table").parse(page)
    cells = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "td_open"]
    assert all(cells)
    return [name.removeprefix(f"{kind}: ") for name in cells[::4] if name.startswith(f"{kind}: ")]


def activated(case: Mapping[str, Any]) -> list[int]:
    """Whom we choose in a case, by seats. Its draws are those of the case: one for each member in their order, which
    it does not change, then one that picks among ``n`` by ``floor(r * n)``."""
    seats = tuple(
        Participant(
            seat=number,
            played_by=PlayedBy.MODEL,
            display_name=name,
            persona_id="p",
            persona_version=1,
            order=number,
            talkativeness=talkativeness,
        )
        for number, (name, talkativeness) in enumerate(case["members"], 1)
    )
    pooled = case["strategy"] == "pooled"
    rolls = [] if pooled else case["random"][: len(seats)]
    pick = case["random"][0] if pooled else (case["random"][len(seats) :] or [0])[0]

    def draw(subject: str) -> float:
        what, number = subject.split(maxsplit=1)[0], int(subject.rsplit(maxsplit=1)[-1])
        if what == "talk":
            return float((rolls[number - 1 :] or [1])[0])
        if what == "turn":  # the one at the place floor(r * n) comes first
            return 0.0 if number - 1 == int(pick * len(seats)) else number / 100
        return number / 100

    said = [one for one in case.get("history", ()) if not one["is_user"]] or [case.get("last_message") or {}]
    names = [one.display_name for one in seats]
    numbers = [names.index(one["name"]) + 1 for one in said if one]
    moment = SpeakingMoment(
        seats=seats,
        present=seats,
        text=case.get("input") or "",
        asked=case["is_user_input"],
        whispered=False,
        last=numbers[-1] if numbers else None,
        spoken=numbers,
        reply_to_self=case.get("allow_self_responses", False),
        draw=draw,
    )
    return list(STRATEGIES[case["strategy"]](moment))


@pytest.mark.parametrize("case", ACTIVATION, ids=lambda case: case["name"])
def test_who_is_activated(case: dict[str, Any]) -> None:
    """The same seats in the same order, unless the table says otherwise; of two members of one name, SillyTavern means
    the first."""
    names = [name for name, _ in case["members"]]
    same = activated(case) == [names.index(name) + 1 for name in case["activated"]]
    assert same == (case["name"] not in told("activation"))


def test_every_difference_of_activation_is_a_case() -> None:
    """The table names cases that there are, each once."""
    names = told("activation")
    assert len(set(names)) == len(names)
    assert set(names) <= {case["name"] for case in ACTIVATION}


Blocks = dict[str, list[tuple[str, str, str]]]
"""The pieces of each block: role, name where it has a field of its own, and text."""


def theirs(case: Mapping[str, Any]) -> Blocks:
    """What SillyTavern sends, by blocks."""
    blocks: Blocks = {"front": [], "examples": [], "history": [], "end": []}
    block = "front"
    for one in case["output"]:
        if one["content"] == "[Example Chat]":
            block = "examples"
        elif one["content"].startswith("[Start a new group chat."):
            block = "history"
        elif one["content"].startswith("[Write the next reply only"):
            block = "end"
        blocks[block].append((one["role"], "", one["content"]))
    return blocks


def ours(case: Mapping[str, Any]) -> Blocks:
    """What we send, by blocks; the parts of the one ``system`` message are pieces of their own."""
    said = case["input"]
    known = dict.fromkeys([SPEAKER, *said["group"], "Sam", *(one["name"] for one in said["chat"])])
    seats = {name: number for number, name in enumerate(known, 1)}
    humans = dict.fromkeys(["Sam", *(one["name"] for one in said["chat"] if one["is_user"])])
    dialogues = [one for one in said.get("mes_example", "").split("<START>") if one.strip()]
    persona = Persona(
        SPEAKER,
        said.get("description", ""),
        personality=said.get("personality", ""),
        scenario=said.get("scenario", ""),
        examples=[ExampleDialogue.parse(one, names=seats) for one in dialogues],
    )
    about = Persona("Sam", said["persona"]) if "persona" in said else None
    casting = Casting(
        seat=seats[SPEAKER],
        char=SPEAKER,
        persona=persona,
        humans=tuple(Player(seats[name], name, about if name == "Sam" else None) for name in humans),
        asking="Sam",
        others=tuple(name for name in seats if name != SPEAKER),
        named=True,
    )
    lines = [
        Line(seq, seq, seats[one["name"]], one["name"], one["mes"], COUNTER.count(one["mes"]), COUNTER.name)
        for seq, one in enumerate(said["chat"], 1)
    ]
    facts = [Fact(said[name], name=name, depth=None) for name in ("wiBefore", "wiAfter") if name in said]
    request = Request(
        casting, COUNTER, LANGUAGES["en"], lambda: datetime(2026, 1, 1, tzinfo=UTC), lines=lines, facts=facts
    )
    weights = Weights(COUNTER, demands(Dialect.MINIMAX))
    draft = build(render(casting, COUNTER).for_request(request), lines, rules=Rules(10_000), weights=weights)
    blocks: Blocks = {"front": [], "examples": [], "history": [], "end": []}
    for place, one in enumerate(draft.messages):
        _put(blocks, one, place)
    return blocks


def _put(blocks: Blocks, one: ContextMessage, place: int) -> None:
    if place == 0 or one.role is Role.USER_SYSTEM:
        blocks["front"] += [(str(one.role), "", part) for part in one.text.split("\n\n")]
    elif one.role in {Role.SAMPLE_AI, Role.SAMPLE_USER}:
        blocks["examples"].append((str(one.role), one.name, one.text))
    elif one.role in {Role.ASSISTANT, Role.USER}:
        blocks["history"].append((str(one.role), "", one.text))
    else:
        blocks["end"].append((str(one.role), one.name, one.text))


def main_prompt(blocks: Blocks, case: Mapping[str, Any]) -> None:
    """Our line that names the others, in place of the prompt that tells the task."""
    [(role, _, text), *rest] = blocks["front"]
    assert text.startswith("Write Nova's next reply in a fictional chat between ")
    others = [*case["input"]["group"], "Sam", *(one["name"] for one in case["input"]["chat"])]
    names = ", ".join(name for name in dict.fromkeys(others) if name != SPEAKER)
    blocks["front"] = [
        (role, "", f"Also here: {names}. Speak only for Nova, never for anybody else."),
        *rest,
    ]


def headings(blocks: Blocks, _case: Mapping[str, Any]) -> None:
    """No headings of examples and of history."""
    assert blocks["history"].pop(0)[2].startswith("[Start a new group chat.")
    blocks["examples"] = [one for one in blocks["examples"] if one[2] != "[Example Chat]"]


def nudge(blocks: Blocks, _case: Mapping[str, Any]) -> None:
    """Nothing behind the history."""
    assert blocks["end"].pop()[2] == "[Write the next reply only as Nova.]"


def order_of_the_front(blocks: Blocks, case: Mapping[str, Any]) -> None:
    """The sheet, the line that names the others, the caller's texts, the user's persona in a role of its own."""
    said = case["input"]
    sheet = [said.get("description", "").replace("{{char}}", SPEAKER), said.get("personality"), said.get("scenario")]
    order = [*sheet, "Also here", said.get("wiBefore"), said.get("wiAfter"), said.get("persona")]
    if len(blocks["front"]) == 1:
        blocks["front"].insert(0, ("system", "", SPEAKER))  # who has no sheet is described by its name
    else:
        places = {text: place for place, text in enumerate(order)}
        blocks["front"].sort(key=lambda one: places.get(one[2], order.index("Also here")))
    blocks["front"] = [
        ("user_system" if one[2] == said.get("persona") else one[0], one[1], one[2]) for one in blocks["front"]
    ]


def speakers_of_examples(blocks: Blocks, case: Mapping[str, Any]) -> None:
    """A message for each line that begins with somebody's name."""
    names = tuple(f"{name}: " for name in (*case["input"]["group"], "Sam"))
    parted: list[tuple[str, str, str]] = []
    for role, name, text in blocks["examples"]:
        begun = len(parted)
        for line in text.split("\n"):
            if line.startswith(names) or len(parted) == begun:
                parted.append((role, name, line))
            else:
                parted[-1] = (role, name, f"{parted[-1][2]}\n{line}")
    blocks["examples"] = parted


def voices_of_examples(blocks: Blocks, _case: Mapping[str, Any]) -> None:
    """The persona's voice and the others', with the name in a field."""
    named = [text.partition(": ")[::2] for _, _, text in blocks["examples"]]
    blocks["examples"] = [
        ("sample_message_ai" if name == SPEAKER else "sample_message_user", name, text) for name, text in named
    ]


def whose_line(blocks: Blocks, case: Mapping[str, Any]) -> None:
    """The speaker's own lines are the assistant's, everyone else's the user's."""
    said = case["input"]["chat"]
    blocks["history"] = [
        ("assistant" if line["name"] == SPEAKER else "user", name, text)
        for line, (_, name, text) in zip(said, blocks["history"], strict=True)
    ]


def names_in_history(blocks: Blocks, case: Mapping[str, Any]) -> None:
    """Each line but the speaker's own begins with its name."""
    blocks["history"] = [
        (one[0], one[1], line["mes"] if line["name"] == SPEAKER else f"{line['name']}: {line['mes']}")
        for line, one in zip(case["input"]["chat"], blocks["history"], strict=True)
    ]


#: What makes theirs ours, by the row of the table that tells it, in the order in which it is done.
DIFFERENCES: Mapping[str, Callable[[Blocks, Mapping[str, Any]], None]] = {
    "main prompt": main_prompt,
    "headings": headings,
    "nudge": nudge,
    "place": order_of_the_front,
    "speakers of examples": speakers_of_examples,
    "voices of examples": voices_of_examples,
    "whose line it is": whose_line,
    "names in history": names_in_history,
}


def changed(case: Mapping[str, Any]) -> tuple[Blocks, set[str]]:
    """What SillyTavern sends with the differences of the table, and which of them changed anything."""
    blocks, did = theirs(case), set()
    for name, change in DIFFERENCES.items():
        before = {block: list(pieces) for block, pieces in blocks.items()}
        change(blocks, case)
        if blocks != before:
            did.add(name)
    return blocks, did


@pytest.mark.parametrize("case", ASSEMBLY, ids=lambda case: case["name"])
def test_what_is_assembled(case: dict[str, Any]) -> None:
    """The same pieces in the same order within each block, but for what the table says."""
    assert ours(case) == changed(case)[0]


def test_every_difference_of_assembly_is_one() -> None:
    """The table names what changes something in one case or more, all of it, each once."""
    did: Sequence[set[str]] = [changed(case)[1] for case in ASSEMBLY]
    assert sorted(told("assembly")) == sorted(DIFFERENCES)
    assert set().union(*did) == set(DIFFERENCES)

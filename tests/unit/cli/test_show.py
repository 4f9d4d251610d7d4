"""The line after a reply says why it ended where it was not done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from roleplay import FinishReason, Persona, Roleplay
from roleplay.cli import show
from roleplay.testing import ScriptedModel


@pytest.mark.parametrize(
    ("word", "reason", "told"),
    [
        ("stop", FinishReason.STOP, ""),
        ("end_turn", FinishReason.STOP, ""),
        (None, None, ""),
        ("length", FinishReason.LENGTH, "cut at the length limit · /continue · "),
        ("MAX_TOKENS", FinishReason.LENGTH, "cut at the length limit · /continue · "),
        ("content_filter", FinishReason.CONTENT_FILTER, "filtered by the service · /continue · "),
        ("SAFETY", FinishReason.CONTENT_FILTER, "filtered by the service · /continue · "),
        ("sensitive", FinishReason.CONTENT_FILTER, "filtered by the service · /continue · "),
        ("error", FinishReason.ERROR, "the service broke off · /continue · "),
        ("abort", FinishReason.ABORT, "the service broke off · /continue · "),
        (
            "insufficient_system_resource",
            FinishReason.INSUFFICIENT_SYSTEM_RESOURCE,
            "the service broke off for lack of resources · /continue · ",
        ),
        ("function_call", FinishReason.TOOL_CALLS, ""),
        ("novel-reason", FinishReason.OTHER, ""),
    ],
)
def test_a_reply_that_was_cut_says_so(
    sqlite_url: str, scripted: Callable[..., ScriptedModel], word: str | None, reason: FinishReason | None, told: str
) -> None:
    """The status line names the cut and the command that goes on; JSON gives the reason."""
    with Roleplay.open(sqlite_url, model="MiniMax-M2.7", chat=scripted("Once upon")) as rp:
        turn = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))]).send("Tell me.")
    assert turn.finish is FinishReason.STOP
    call = turn.calls[-1].model_copy(update={"finish_reason": word})
    cut = turn.model_copy(update={"calls": (call,)})
    assert cut.finish is reason
    assert show.ending(cut) == f"saved · {told}{show.cost(cut)}"
    assert show.turn_json(cut, "Huang")["finish"] == (reason and reason.value)


def test_a_reply_that_was_cut_where_it_went_on_as_another_says_so(
    sqlite_url: str, scripted: Callable[..., ScriptedModel]
) -> None:
    """To go on would be to go on as the other: no command is offered."""
    with Roleplay.open(sqlite_url, model="MiniMax-M2.7", chat=scripted("Sit.\nUser: I sit.")) as rp:
        turn = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))]).send("May I?")
    assert show.ending(turn) == f"saved · cut where it went on as User · {show.cost(turn)}"

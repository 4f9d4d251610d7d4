"""What a caller may set, for a session or for one turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from roleplay.domain.endpoint import Endpoint
from roleplay.domain.values import Input, Key, Metadata, Name, Text, Value


class Sampling(Input):
    """How the model draws its words; ``None`` asks the next layer (see ``SessionSettings``), at last the service.

    ``temperature`` and ``top_p`` lie in (0, 1]; ``max_completion_tokens`` is at least 1 and at most the model's
    ``max_output_tokens``. Where no layer says the latter, the endpoint's ``reply_tokens`` are sent.
    """

    temperature: float | None = Field(default=None, gt=0, le=1, strict=True, description="a number in (0, 1]")
    top_p: float | None = Field(default=None, gt=0, le=1, strict=True, description="a number in (0, 1]")
    max_completion_tokens: int | None = Field(default=None, ge=1, strict=True, description="a whole number from 1")


REQUIRED = 100


class Fact(Input):
    """The caller's own text in the context: inventory, weather, rules. ``Fact("It rains.", name="weather")``.

    ``name`` tells facts apart; a nearer layer's fact takes the place of one of the same name, and one of blank text
    takes it out. ``depth`` says where it stands: behind it come so many messages; 0 is after the newest line, ``None``
    in front, behind the system message, where it should change rarely, since a prompt cache ends where text changes.
    Facts claim the budget by ``priority``, highest first: above 50 before example dialogues, from 50 down after them,
    all of them before history; 100 is required, so that ``BudgetError`` names what does not fit.

    ``{{char}}`` and ``{{user}}`` are replaced, and so are ``{{date}}`` (2026-05-01) and ``{{time}}`` (21:30) in the
    time zone in force.
    """

    text: Text
    name: Name = "fact"
    depth: int | None = Field(
        default=1, ge=0, le=1000, strict=True, description="a whole number from 0 to 1000, or None"
    )
    priority: int = Field(default=60, ge=0, le=REQUIRED, strict=True, description="a whole number from 0 to 100")

    if TYPE_CHECKING:  # as a caller may write it

        def __init__(self, text: str, *, name: str = "fact", depth: int | None = 1, priority: int = 60) -> None: ...

    else:

        def __init__(self, text: str, **fields: Any) -> None:
            super().__init__(text=text, **fields)


def _told_apart(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    names = [fact.name for fact in facts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two of them are named {twice!r}; a fact has a name of its own")
    return tuple(facts)


Facts = Annotated[Sequence[Fact], AfterValidator(_told_apart)]


_SHARE = "a number in (0, 1]"
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
ExamplePolicy = Literal["keep", "fade", "relevant", "random"]


class SessionSettings(Input):
    """What turns have in common. ``None`` asks the next layer, nearest first: turn (``TurnOptions``), session, persona,
    tenant, engine, and then the model's own profile.

    ``model``: the model's name. ``budget_tokens`` bounds the prompt of one request, beside the model's window less the
    reply cap; when no layer says, it is the endpoint's (32,000), or the window less the cap and a margin where that is
    smaller. ``language``: of the few words that the engine itself sends (``en``, ``zh``, ``ja``, or one given to
    ``Roleplay.open``); when no layer says, that of the persona's text. ``time_zone``: an IANA name such as
    ``Asia/Shanghai``, for the macros of facts. ``facts`` of all layers are in force together.

    ``high_water`` and ``low_water`` are shares of the room that a request has for history: beyond the former it makes
    room by whole turns, down to the latter, and then stays as it is for many turns, so that the service's prompt cache
    pays for most of each request. A lower ``low_water`` remembers less and costs less.

    ``examples``: which example dialogues go in where not all of them fit; they are chosen when the window moves and
    stay until it moves again. ``keep`` takes them in the persona's order, ``fade`` fewer of them each time the window
    moves, ``relevant`` those that have most in common with the newest line, ``random`` as ``seed`` draws them (when no
    layer says, every session draws its own).

    ``speaking``: who of several seats of the model's answers, ``natural`` (the default), ``list``, ``pooled``,
    ``round_robin``, ``manual``, or a strategy given to ``Roleplay.open``. ``round_turns`` bounds the turns of a round
    (4). ``reply_to_self``: whether a seat may speak unasked right after itself (``False``). ``joiner_sees``: whether a
    seat that joined later sees what was said since (``joining``, the default), or ``everything``. Of these four the
    session's own count, the tenant's and the engine's; a persona has no say in them.
    """

    sampling: Sampling = Sampling()
    budget_tokens: int | None = Field(default=None, ge=1, strict=True, description="a whole number from 1")
    model: Name | None = None
    language: Key | None = None
    time_zone: Key | None = None
    high_water: Share | None = Field(default=None, description=_SHARE)
    low_water: Share | None = Field(default=None, description=_SHARE)
    examples: ExamplePolicy | None = None
    seed: int | None = Field(default=None, strict=True, ge=0, lt=2**63, description="a whole number from 0")
    facts: Facts = ()
    speaking: Name | None = None
    round_turns: int | None = Field(default=None, ge=1, le=100, strict=True, description="a whole number from 1 to 100")
    reply_to_self: bool | None = Field(default=None, strict=True, description="True or False")
    joiner_sees: Literal["joining", "everything"] | None = None


class Setting(Value):
    """A value in force, and the layer that it came from: ``turn``, ``session``, ``persona``, ``tenant``, ``engine``,
    ``endpoint``, ``profile`` (of the model), ``detected`` or ``default``."""

    value: Any
    layer: str


OnDisconnect = Literal["interrupt", "finish"]
SeatRef = int | str
"""A seat of a session: its number, its display name or one of its aliases."""
_Ref = Annotated[int, Field(strict=True)] | Annotated[str, Field(strict=True)]
Audience = Annotated[Sequence[_Ref], Field(min_length=1, max_length=1000, description="one seat or more, or None")]


class TurnOptions(Input):
    """What holds for one turn. ``idempotency_key``: the same key and arguments give the same turn, once.
    ``metadata``: the caller's own, small, never sent to the model.

    ``on_conflict`` says what happens while another turn runs on the session: ``reject`` raises ``ConflictError``,
    ``wait`` waits for at most ``wait_s`` seconds, ``fork`` speaks beside it, on a branch that the session does not
    stand on. It is decided before the model is called.

    ``on_disconnect`` says what becomes of a stream whose reader leaves early: ``interrupt`` ends the reply there,
    ``finish`` lets it go on to its end without him.

    ``sampling``, ``model`` (a name, or an ``Endpoint`` of its own) and ``facts`` are this turn's layer of settings.

    ``audience``: a whisper. Only these seats, each by its number or a name, and the speaker's see the turn, and only
    they may answer; ``None``: all of them.
    """

    idempotency_key: Key | None = None
    on_conflict: Literal["reject", "wait", "fork"] = "reject"
    wait_s: float = Field(default=30.0, ge=0, le=3600, description="seconds, at most 3600")
    sampling: Sampling = Sampling()
    model: Endpoint | Name | None = None
    facts: Facts = ()
    metadata: Metadata = {}
    on_disconnect: OnDisconnect = "interrupt"
    audience: Audience | None = None


DEFAULT_SETTINGS = SessionSettings()
DEFAULT_OPTIONS = TurnOptions()

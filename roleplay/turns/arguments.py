"""What callers give, checked: each function gives the value, or raises ``InvalidInputError`` that names its field."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from roleplay.domain.cast import Played, Seat
from roleplay.domain.page import PAGE_LIMIT
from roleplay.domain.persona import StoredPersona
from roleplay.domain.settings import SeatRef, TurnOptions
from roleplay.domain.values import KEY_LIMIT, TEXT_LIMIT, text_problem
from roleplay.errors import InvalidInputError
from roleplay.store.records.calls import UsageKey
from roleplay.store.records.personas import Change

NUMBER_LIMIT = 2**31 - 1
MESSAGE_LIMIT = 10_000
#: How many the model may play in one session, and how many humans may sit in it.
SEAT_LIMIT = 100
Speaker = Literal["user", "model", "narrator"] | SeatRef
SPEAKERS = ("user", "model", "narrator")


def turn_key(turn_id: object) -> str:
    """Give the id of a turn."""
    if not isinstance(turn_id, str):
        raise InvalidInputError("turn_id", f"is a {type(turn_id).__name__}", allowed="the id of a turn, a str")
    if problem := text_problem(turn_id):
        raise InvalidInputError("turn_id", problem, allowed="the id of a turn")
    return turn_id


def number(field: str, value: object, low: int, high: int = NUMBER_LIMIT) -> int:
    """Give a whole number between two others."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        shown = repr(value)[:50] if isinstance(value, int | float | str) else f"a {type(value).__name__}"
        raise InvalidInputError(field, f"is {shown}", allowed=f"a whole number, {low} to {high}")
    return value


def page_limit(limit: object) -> int:
    """Give the size of a page."""
    return number("limit", limit, 1, PAGE_LIMIT)


def moment(field: str, value: object) -> datetime:
    """Give a moment, which must have a time zone."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidInputError(field, f"is {value!r}", allowed="a datetime with its time zone")
    return value


def label(field: str, text: str, limit: int) -> str:
    """Give a short text of the caller as it may be stored."""
    if not isinstance(text, str):
        raise InvalidInputError(field, f"is a {type(text).__name__}", allowed="a str")
    if not text.strip() or text_problem(text) or len(text) > limit:
        raise InvalidInputError(field, f"is {text[:50]!r}", allowed=f"1 to {limit} characters, not blank")
    return text


def line_text(text: str, field: str = "text") -> str:
    """Give a line as it may be stored and sent."""
    if not isinstance(text, str):
        raise InvalidInputError(field, f"is a {type(text).__name__}", allowed="a str")
    if problem := text_problem(text):
        raise InvalidInputError(field, problem)
    if not text.strip():
        raise InvalidInputError(field, "is blank", allowed="at least one visible character")
    if len(text) > TEXT_LIMIT:
        raise InvalidInputError(field, f"has {len(text)} characters", allowed=f"at most {TEXT_LIMIT}")
    return text


def hint_text(hint: str) -> str:
    """Give a hint as it may be sent; without a character, there is none."""
    return line_text(hint, "hint") if hint else hint


def scene_text(scene: str) -> str:
    """Give a scene as it may be stored and sent."""
    if not isinstance(scene, str):
        raise InvalidInputError("scene", f"is a {type(scene).__name__}", allowed="a str")
    if problem := "is too long" if len(scene) > TEXT_LIMIT else text_problem(scene):
        raise InvalidInputError("scene", problem, allowed=f"at most {TEXT_LIMIT} characters")
    return scene.strip()


def options_of(options: object) -> TurnOptions:
    """Give the options of a turn."""
    if not isinstance(options, TurnOptions):
        raise InvalidInputError("options", f"is a {type(options).__name__}", allowed="a TurnOptions")
    return options


def options_of_attempt(options: TurnOptions) -> None:
    """Refuse options that a turn has from its first attempt on."""
    for name in ("idempotency_key", "metadata"):
        if getattr(options, name):
            raise InvalidInputError(name, "is the turn's since its first attempt", allowed="none for another attempt")
    no_audience(options)


def no_audience(options: TurnOptions) -> None:
    """Refuse an audience for another reply to a line, which has its audience for ever."""
    if options.audience is not None:
        raise InvalidInputError("audience", "is the turn's for ever", allowed="none for another reply")


def owner_filter(owner: object) -> None:
    """Refuse what can be no owner. One that is blank or too long is merely nobody's."""
    if owner is not None and (not isinstance(owner, str) or text_problem(owner)):
        raise InvalidInputError("owner", f"is {owner!r:.50}", allowed="a str, your own id of the end user")


def seats_of(field: str, played: Sequence[Played | Seat], least: int) -> list[Seat]:
    """Give those who are to be seated, as seats."""
    if isinstance(played, str) or not isinstance(played, Sequence):
        raise InvalidInputError(field, f"is a {type(played).__name__}", allowed="a list of personas or seats")
    if not least <= len(played) <= SEAT_LIMIT:
        raise InvalidInputError(field, f"has {len(played)} seats", allowed=f"{least} to {SEAT_LIMIT}")
    return [seat_of(f"{field}[{place}]", one) for place, one in enumerate(played)]


def seat_of(field: str, played: object) -> Seat:
    """Give somebody who is to be seated as a seat."""
    if isinstance(played, Seat):
        return played
    if isinstance(played, StoredPersona | str):
        return Seat(played)
    allowed = "a persona as it was stored, its key or id, or a Seat"
    raise InvalidInputError(field, f"is a {type(played).__name__}", allowed=allowed)


def change_of_persona(change: Change) -> Change:
    """Give what is to be noted beside a version of a persona."""
    expected: object = change.expected_version
    if expected is not None and (not isinstance(expected, int) or isinstance(expected, bool) or expected < 0):
        raise InvalidInputError("expected_version", f"is {expected!r}", allowed="a version, 0 for one yet to be made")
    if change.author != "":
        label("author", change.author, KEY_LIMIT)
    if change.message != "":
        label("message", change.message, MESSAGE_LIMIT)
    return change


def usage_key(by: UsageKey) -> UsageKey:
    """Give by what usage is added up."""
    if by not in {"model", "session", "day"}:
        raise InvalidInputError("by", f"is {by!r}", allowed="model, session, day")
    return by

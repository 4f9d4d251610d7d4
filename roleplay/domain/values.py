"""What every value shares: frozen, no unknown fields, clean text, errors that name the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from unicodedata import category

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from roleplay.errors import InvalidInputError

NAME_LIMIT = 200
KEY_LIMIT = 200
TEXT_LIMIT = 1_000_000


def text_problem(text: str) -> str | None:
    """Say why ``text`` cannot be stored and sent as it is, or ``None`` when it can."""
    if "\x00" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds a lone surrogate at character {error.start}"
    return None


def visible(char: str) -> bool:
    """Whether a character leaves a mark: no blank, no control, no half, no joiner."""
    return category(char) not in {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}


def _clean(text: str) -> str:
    if problem := text_problem(text):
        raise ValueError(problem)
    return text


def _clean_name(text: str) -> str:
    name = _clean(text).strip()
    if not any(visible(char) for char in name):
        raise ValueError("is blank")
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise ValueError("holds a line break or another control character")
    return name


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def json_object(value: Any) -> dict[str, Any]:
    """Give a copy of ``value`` as it comes back from the JSON it is stored as."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("is not a mapping with text keys")
    if not value:
        return {}
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
        copy: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {str(error)[:200]}") from None
    _clean(text)
    return copy


def metadata_of(value: Any) -> dict[str, Any]:
    """Give a caller's metadata as it will be stored. Raises ``InvalidInputError``."""
    try:
        return json_object(value)
    except ValueError as error:
        raise InvalidInputError("metadata", str(error), allowed="a mapping of text keys to JSON values") from None


Text = Annotated[str, AfterValidator(_clean), Field(max_length=TEXT_LIMIT)]
Name = Annotated[str, AfterValidator(_clean_name), Field(max_length=NAME_LIMIT)]
Key = Annotated[str, AfterValidator(_clean_name), Field(max_length=KEY_LIMIT)]
Utc = Annotated[AwareDatetime, AfterValidator(_utc)]
Metadata = Annotated[Mapping[str, Any], BeforeValidator(json_object)]
NO_METADATA: Mapping[str, Any] = {}


class Value(BaseModel):
    """A frozen value; its ``model_dump(mode="json")`` is stable."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Input(Value):
    """A value that callers make: a bad field raises ``InvalidInputError``, which names it and what is allowed."""

    def __init__(self, **data: Any) -> None:
        problem = None
        try:
            super().__init__(**data)
        except ValidationError as error:
            problem = invalid(type(self), error)
        if problem is not None:
            raise problem  # not where the other is handled, which keeps what was given

    def evolve(self, **changes: Any) -> Self:
        """Give a copy with ``changes``, checked like a new one."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def invalid(model: type[BaseModel], error: ValidationError) -> InvalidInputError:
    """Translate pydantic's error about ``model`` into ours: the first bad field, and how many more there are.

    What is allowed is taken from the field's description, where it has one.
    """
    first, *others = error.errors(include_url=False, include_input=False)
    field = _path(first["loc"]) or model.__name__
    more = f"; and {len(others)} more" if others else ""
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, InvalidInputError):
        root = field.split("[")[0]
        name = field if inner.field == root else f"{field}.{inner.field}"
        return InvalidInputError(name, inner.problem + more, allowed=inner.allowed)
    if first["type"] == "extra_forbidden":
        return InvalidInputError(field, f"unknown field{more}", allowed=", ".join(model.model_fields))
    if first["type"] == "missing":
        return InvalidInputError(field, f"is required{more}")
    known = model.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    return InvalidInputError(field, _sentence(first["msg"]) + more, allowed=known.description if known else None)


def _sentence(message: str) -> str:
    for prefix in ("Value error, ", "Input should be ", "Input should "):
        if message.startswith(prefix):
            rest = message.removeprefix(prefix)
            return rest if prefix == "Value error, " else f"should be {rest}".replace("should be have", "should have")
    return message[:1].lower() + message[1:]


def _path(loc: tuple[int | str, ...]) -> str:
    out = ""
    for part in loc:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out

"""What a call to the model really cost and what the service said beside its words."""

from __future__ import annotations

from enum import IntEnum

from roleplay.domain.values import Value


class Usage(Value):
    """Tokens as the service reported them; ``None`` where it reported nothing, never 0 instead.

    ``cached_tokens`` is the part of ``prompt_tokens`` that the service took from its prompt cache,
    ``cache_write_tokens`` the part it put there; ``reasoning_tokens`` is the part of
    ``completion_tokens`` that was not speech.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def reported(self) -> bool:
        """Whether the service reported anything."""
        return any(value is not None for value in (self.prompt_tokens, self.completion_tokens, self.total_tokens))


class SensitiveCategory(IntEnum):
    """The service's word for why a text was judged sensitive."""

    SEVERE = 1
    PORNOGRAPHY = 2
    ADVERTISING = 3
    PROHIBITED = 4
    ABUSE = 5
    VIOLENCE = 6
    OTHER = 7


class Sensitivity(Value):
    """The service's flags about what it was sent and what it said; ``None`` where it sent none.

    A type is a ``SensitiveCategory`` number, 0 for none; numbers that are not documented are kept as they came.
    """

    input_sensitive: bool | None = None
    input_sensitive_type: int | None = None
    output_sensitive: bool | None = None
    output_sensitive_type: int | None = None
    output_sensitive_int: int | None = None

    @property
    def input_category(self) -> SensitiveCategory | None:
        return _category(self.input_sensitive_type)

    @property
    def output_category(self) -> SensitiveCategory | None:
        return _category(self.output_sensitive_type)


def _category(number: int | None) -> SensitiveCategory | None:
    return next((one for one in SensitiveCategory if one == number), None)


class BaseResp(Value):
    """The service's own status beside the HTTP status: 0 is success."""

    status_code: int
    status_msg: str = ""

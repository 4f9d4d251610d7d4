"""Where a model is spoken to, and what is known of it."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from roleplay.domain.values import Input, Name, Value


class Dialect(StrEnum):
    """How a context is written for a server.

    ``MINIMAX`` has all seven roles and a name on every message; ``OPENAI`` folds the role-play roles into one system
    message and sends no names; ``STRICT`` also folds that system message into the first user message, and begins with
    a user message, for servers whose template takes nothing but user and assistant in turn.
    """

    MINIMAX = "minimax"
    OPENAI = "openai"
    STRICT = "strict"


CapName = Literal["max_completion_tokens", "max_tokens"]
"""The two names under which servers take the longest length of a reply."""


class Form(NamedTuple):
    """How a host takes requests for a model: the dialect, and the name of the reply cap."""

    dialect: Dialect
    cap_name: CapName


class ChatPath(StrEnum):
    """The two paths of the service; the body is the same, errors come in different envelopes."""

    COMPLETIONS = "/v1/chat/completions"
    NATIVE_V2 = "/v1/text/chatcompletion_v2"


class ModelProfile(Value):
    """What is published about a model: its window, its longest reply (both in tokens), its path and dialect.

    ``stream_usage``: whether its page knows ``stream_options``; where not, a stream's last message tells the usage.
    """

    window_tokens: int
    max_output_tokens: int = 2048
    dialect: Dialect = Dialect.MINIMAX
    path: ChatPath = ChatPath.COMPLETIONS
    stream_usage: bool = True


PROFILES: dict[str, ModelProfile] = {
    "MiniMax-M2.7": ModelProfile(window_tokens=204_800),
    "MiniMax-M2.7-highspeed": ModelProfile(window_tokens=204_800),
    "MiniMax-M2.5": ModelProfile(window_tokens=204_800),
    "MiniMax-M2.5-highspeed": ModelProfile(window_tokens=204_800),
    "MiniMax-M2.1": ModelProfile(window_tokens=204_800),
    "MiniMax-M2.1-highspeed": ModelProfile(window_tokens=204_800),
    "MiniMax-M2": ModelProfile(window_tokens=204_800),
    "M2-her": ModelProfile(window_tokens=65_536, path=ChatPath.NATIVE_V2, stream_usage=False),
}
DEFAULT_MODEL = "MiniMax-M2.7"
DEFAULT_BASE_URL = "https://api.minimax.io"


LONGEST_S = 86_400.0
_NO_HOST = re.compile(r"[\\\s\x00-\x20\x7f]")


def _base_url(url: str) -> str:
    if _NO_HOST.search(url):  # some readers end a host there and others do not, so a key could go to either
        raise ValueError("holds a blank, a backslash or a control character")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("should be a URL such as https://api.minimax.io or http://127.0.0.1:11434/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("should hold no user, password, query or fragment; the key has a field of its own")
    return url.rstrip("/").removesuffix("/v1")


@lru_cache(maxsize=256)
def _host(base_url: str) -> str:
    return urlsplit(base_url).netloc


def _api_key(key: Any) -> Any:
    """Take off the line break that a key read from a file ends with; what a header cannot hold is refused unshown."""
    text = key.get_secret_value() if isinstance(key, SecretStr) else key
    if not isinstance(text, str):
        return key
    text = text.strip()
    if not text or not all("!" <= char <= "~" for char in text):
        raise ValueError("is blank or holds a character that no key has")
    return text


Seconds = Annotated[float, Field(gt=0, le=LONGEST_S)]


class Retry(Input):
    """When a failed call is made again: only errors that may pass, and never after text reached the caller.

    ``attempts`` counts the first one too. Pauses are drawn from [0, ``first_pause_s`` doubled per attempt], at most
    ``longest_pause_s``; no attempt begins later than ``total_s`` seconds after the first. Where the service says that
    calls come too fast, they are 16 times as long (1002, 1039: limits by the minute) or 8 times (1041, 2045), and drawn
    from the upper half.
    """

    attempts: Annotated[int, Field(ge=1)] = 3
    first_pause_s: Annotated[float, Field(ge=0, le=LONGEST_S)] = 0.5
    longest_pause_s: Annotated[float, Field(ge=0, le=LONGEST_S)] = 20.0
    total_s: Annotated[float, Field(ge=0, le=LONGEST_S)] = 60.0


class Endpoint(Input):
    """A model at a host, with the key for it (hidden in ``repr``) and its limits.

    ``window_tokens``: how many tokens a request and its reply may have together. ``max_output_tokens``: the highest
    ``max_completion_tokens`` that may be asked for. ``stream_usage``: whether a stream is asked to report usage.
    ``cap_name``: the name under which the server takes the reply cap.
    ``timeout_s``: seconds for a whole answer; ``read_timeout_s``: seconds between two pieces of it;
    ``connect_timeout_s``: seconds to connect; each at most a day. ``retry``: when a failed call is made again. What is
    not given comes from the model's published profile; a model without one needs ``window_tokens``.
    """

    model: Name
    base_url: Annotated[str, AfterValidator(_base_url)] = DEFAULT_BASE_URL
    api_key: Annotated[SecretStr | None, BeforeValidator(_api_key)] = None
    dialect: Dialect = Dialect.OPENAI
    path: ChatPath = ChatPath.COMPLETIONS
    window_tokens: Annotated[int, Field(ge=256)]
    max_output_tokens: Annotated[int, Field(ge=1)] = 2048
    stream_usage: bool = True
    cap_name: CapName = "max_completion_tokens"
    connect_timeout_s: Seconds = 10.0
    read_timeout_s: Seconds = 60.0
    timeout_s: Seconds = 300.0
    retry: Retry = Retry()

    def __init__(self, model: str, **fields: Any) -> None:
        profile = PROFILES.get(str(model))
        known = profile.model_dump() if profile else {}
        super().__init__(**{"model": model, **known, **{k: v for k, v in fields.items() if v is not None}})

    def evolve(self, **changes: Any) -> Self:
        """Give a copy with ``changes``; another model brings its own published profile, where it has one."""
        profile = PROFILES.get(str(changes.get("model", self.model)))
        its_own = profile.model_dump() if profile and changes.get("model", self.model) != self.model else {}
        return super().evolve(**its_own | changes)

    @property
    def host(self) -> str:
        """Host and port, as they may be logged and stored."""
        return _host(self.base_url)

    @property
    def url(self) -> str:
        """The full address that requests are posted to."""
        return self.base_url + self.path

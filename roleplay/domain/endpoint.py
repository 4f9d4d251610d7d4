"""Where a model is spoken to, and what is known of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from roleplay.domain import profiles
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


REPLY_TOKENS = 2048
"""The reply cap that is asked for when neither settings nor endpoint nor profile say one."""
BUDGET_TOKENS = 32_000
"""What bounds the prompt of a request when neither settings nor endpoint say otherwise."""


class ChatPath(StrEnum):
    """The two paths of MiniMax; the body is the same, errors come in different envelopes. Other servers have others."""

    COMPLETIONS = "/v1/chat/completions"
    NATIVE_V2 = "/v1/text/chatcompletion_v2"


class ModelProfile(Value):
    """What is published about a model: its window and its longest reply, both in tokens, and how it is spoken to.

    ``reply_tokens``: the reply cap that is asked for when nobody says one. ``base_url``: where its vendor serves it.
    ``dialect``, ``path``, ``stream_usage`` and ``cap_name`` hold on the hosts of ``domains``, its vendor's own; whoever
    else serves a model of this name is spoken to as any server is. ``stream_usage``: whether its page knows
    ``stream_options``; where not, a stream's last message tells the usage. ``cap_name``: what its vendor calls the
    reply cap. ``source``: where the figures come from, and when that was read.
    """

    window_tokens: int
    max_output_tokens: int = 2048
    reply_tokens: int = REPLY_TOKENS
    base_url: str
    domains: tuple[str, ...]
    dialect: Dialect = Dialect.OPENAI
    path: str | None = None
    stream_usage: bool = True
    cap_name: CapName = "max_completion_tokens"
    source: str


PROFILES: dict[str, ModelProfile] = {name: ModelProfile(**row) for name, row in profiles.ROWS.items()}
MINIMAX_DOMAINS = profiles.MINIMAX_DOMAINS
DEFAULT_MODEL = "MiniMax-M2.7"
DEFAULT_BASE_URL = "https://api.minimax.io"


LONGEST_S = 86_400.0
_NO_HOST = re.compile(r"[\\\s\x00-\x20\x7f]")
_CHAT_PATH = re.compile(r"(?:/chat/completions|/text/chatcompletion_v2)$", re.IGNORECASE)
_V1 = re.compile(r"/v1$", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~\xa0-\xff]+")
OWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that describe the request itself, which the transports set."""


def is_at(url: str, domains: Sequence[str]) -> bool:
    """Whether a URL's host is one of ``domains`` or below one."""
    host = urlsplit(url).hostname or ""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def base_of(url: str) -> str:
    """Give what URLs of the same service have in common: no query, no path of a chat, no version ``/v1``."""
    scheme, mark, rest = url.partition("://")
    return _V1.sub("", _CHAT_PATH.sub("", f"{scheme.lower()}{mark}{rest.partition('?')[0]}".rstrip("/"))).rstrip("/")


def _base_url(url: str) -> str:
    if _NO_HOST.search(url):  # some readers end a host there and others do not, so a key could go to either
        raise ValueError("holds a blank, a backslash or a control character")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("should be a URL such as https://api.minimax.io or http://127.0.0.1:11434/v1")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("should hold no user, password or fragment; the key has a field of its own")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{'' if _V1.fullmatch(path) else path}"


def _path(path: str) -> str:
    if path and (not path.startswith("/") or _NO_HOST.search(path) or "?" in path or "#" in path):
        raise ValueError("should begin with a slash, such as /chat/completions, and hold no blank, query or fragment")
    return ChatPath(path) if path in set(ChatPath) else path


def _query(query: SecretStr) -> SecretStr:
    text = query.get_secret_value()
    if not text or "#" in text or not all("!" <= char <= "~" for char in text):
        raise ValueError("is blank or holds a character that a URL has only as %XX")
    return query


def _headers(headers: Any) -> Any:
    """Give headers as pairs; what could be read as another header, or as the end of the head, is refused unshown."""
    try:
        pairs = dict(headers)
    except (TypeError, ValueError):
        raise ValueError("should be a mapping of names to values") from None
    seen = set()
    for name, value in pairs.items():
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError("holds a name that no header has")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"should not hold {name}, which the request sets itself")
        if name.lower() in seen:
            raise ValueError(f"holds {name} twice")
        if not isinstance(text, str) or not _VALUE.fullmatch(text.strip()):
            raise ValueError(f"holds a value of {name} that is blank, is no text or has a character that no header has")
        seen.add(name.lower())
        pairs[name] = SecretStr(text.strip())
    return tuple(pairs.items())


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

    ``base_url``: with or without a version and a path. ``https://host`` and ``https://host/v1`` mean
    ``https://host/v1/chat/completions``; behind any other path stands ``/chat/completions``; an address that ends in
    such a path already is taken as it is, and so is its ``query``, which is hidden in ``repr``. ``path``: what stands
    behind ``base_url`` instead. ``headers``: sent with each request, hidden in ``repr``; an ``Authorization`` takes the
    place of ``api_key``.

    ``window_tokens``: how many tokens a request and its reply may have together. ``max_output_tokens``: the highest
    ``max_completion_tokens`` that may be asked for. ``reply_tokens``: the reply cap that is sent, and reserved in the
    window, when settings say none. ``budget_tokens``: what bounds the prompt of a request when settings say nothing;
    ``None`` leaves it to the window. ``stream_usage``: whether a stream is asked to report usage. ``cap_name``: the
    name under which the server takes the reply cap.
    ``timeout_s``: seconds for a whole answer; ``read_timeout_s``: seconds between two pieces of it;
    ``connect_timeout_s``: seconds to connect; each at most a day. ``retry``: when a failed call is made again.

    What is not given comes from the model's published profile; a model without one needs ``window_tokens``. A profile's
    dialect and path hold on its vendor's own hosts: elsewhere every model is spoken to in ``openai``, unless
    ``dialect`` is given.
    """

    model: Name
    base_url: Annotated[str, AfterValidator(_base_url)] = DEFAULT_BASE_URL
    query: Annotated[SecretStr, AfterValidator(_query)] | None = None
    api_key: Annotated[SecretStr | None, BeforeValidator(_api_key)] = None
    headers: Annotated[tuple[tuple[str, SecretStr], ...], BeforeValidator(_headers)] = ()
    dialect: Dialect = Dialect.OPENAI
    path: Annotated[str, AfterValidator(_path)] = ChatPath.COMPLETIONS
    window_tokens: Annotated[int, Field(ge=256)]
    max_output_tokens: Annotated[int, Field(ge=1)] = 2048
    reply_tokens: Annotated[int, Field(ge=1)] = REPLY_TOKENS
    budget_tokens: Annotated[int, Field(ge=1)] | None = BUDGET_TOKENS
    stream_usage: bool = True
    cap_name: CapName = "max_completion_tokens"
    connect_timeout_s: Seconds = 10.0
    read_timeout_s: Seconds = 60.0
    timeout_s: Seconds = 300.0
    retry: Retry = Retry()

    if TYPE_CHECKING:  # as a caller may write it: texts are taken too, and ``None`` is as not given

        def __init__(  # noqa: PLR0913 - one for each field
            self,
            model: str,
            *,
            base_url: str | None = None,
            query: str | SecretStr | None = None,
            api_key: str | SecretStr | None = None,
            headers: Mapping[str, str | SecretStr] | Iterable[tuple[str, str | SecretStr]] | None = None,
            dialect: Dialect | str | None = None,
            path: str | None = None,
            window_tokens: int | None = None,
            max_output_tokens: int | None = None,
            reply_tokens: int | None = None,
            budget_tokens: int | None = BUDGET_TOKENS,
            stream_usage: bool | None = None,
            cap_name: CapName | None = None,
            connect_timeout_s: float | None = None,
            read_timeout_s: float | None = None,
            timeout_s: float | None = None,
            retry: Retry | Mapping[str, Any] | None = None,
        ) -> None: ...

    else:

        def __init__(self, model: str, **fields: Any) -> None:
            _hide(fields)
            said = {name: value for name, value in fields.items() if value is not None or name == "budget_tokens"}
            _split_address(said)
            known = _known(PROFILES.get(str(model)), said)
            super().__init__(**{"model": model, **known, **said})
            self.model_fields_set.difference_update(
                known.keys() - said.keys()
            )  # so that ``evolve`` knows what was said

    def evolve(self, **changes: Any) -> Self:
        """Give a copy with ``changes``, checked like a new one.

        What was never given is found anew: another model brings its own published profile, and another host the dialect
        and path that hold there. Host and key stay, whatever the model.
        """
        _hide(changes)
        said = {name: getattr(self, name) for name in self.model_fields_set} | {"base_url": self.base_url}
        if "base_url" in changes:
            said.pop("query", None)
        if changes.get("model", self.model) not in PROFILES:
            said["window_tokens"] = self.window_tokens
        return type(self)(**said | changes)

    @property
    def host(self) -> str:
        """Host and port, as they may be logged and stored."""
        return _host(self.base_url)

    @property
    def url(self) -> str:
        """The full address that requests are posted to. Not for logs: its query may hold a key."""
        return f"{self.base_url}{self.path}" + (f"?{self.query.get_secret_value()}" if self.query else "")

    @property
    def reply_cap(self) -> int:
        """The tokens that a reply may have when settings say nothing: at most a quarter of the window."""
        return max(min(self.reply_tokens, self.max_output_tokens, self.window_tokens // 4), 1)


def _hide(fields: dict[str, Any]) -> None:
    """Wrap the secrets among fields that are given, so that no frame of an error about them shows one."""
    url = fields.get("base_url")
    if isinstance(url, str) and "#" not in url:
        fields["base_url"], _, query = url.partition("?")
        if query:
            given = fields.get("query")
            given = given.get_secret_value() if isinstance(given, SecretStr) else given
            fields["query"] = f"{query}&{given}" if given and isinstance(given, str) else query
    for name in ("api_key", "query"):
        if isinstance(fields.get(name), str):
            fields[name] = SecretStr(fields[name])
    with suppress(TypeError, ValueError):  # what is no mapping is refused as a field
        given = dict(fields["headers"]) if fields.get("headers") else {}
        for name, value in given.items():
            given[name] = SecretStr(value) if isinstance(value, str) else value
        if given:
            fields["headers"] = given


def _split_address(said: dict[str, Any]) -> None:
    """Take off a base URL that is given what its end and a path that is given have in common."""
    url, path = said.get("base_url"), said.get("path")
    if not isinstance(url, str) or "#" in url:
        return
    url = url.rstrip("/")
    if isinstance(path, str) and path:
        url = _CHAT_PATH.sub("", url)
        if _V1.search(url) and path.startswith("/v1/"):
            url = url[: -len("/v1")]
        elif _V1.fullmatch(urlsplit(url).path):
            said["path"] = f"/v1{path}"
    said["base_url"] = url


def _known(profile: ModelProfile | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is known of an endpoint that was not said."""
    url = said.get("base_url", profile.base_url if profile else DEFAULT_BASE_URL)
    most = said.get("max_output_tokens", profile.max_output_tokens if profile else REPLY_TOKENS)
    reply_tokens = profile.reply_tokens if profile else REPLY_TOKENS
    known: dict[str, Any] = {"base_url": url, "path": ChatPath.COMPLETIONS}
    known["reply_tokens"] = min(reply_tokens, most) if isinstance(most, int) and most > 0 else reply_tokens
    if profile is not None:
        known |= {"window_tokens": profile.window_tokens, "max_output_tokens": profile.max_output_tokens}
    try:
        base_url = _base_url(url)
    except (ValueError, TypeError, AttributeError):  # it is refused as a field
        return known
    if profile is not None and is_at(base_url, profile.domains):
        known |= {"dialect": profile.dialect, "stream_usage": profile.stream_usage, "cap_name": profile.cap_name}
        known["path"] = profile.path or known["path"]
    if _CHAT_PATH.search(base_url):
        known["path"] = ""
    elif urlsplit(base_url).path or urlsplit(base_url).hostname in profiles.VERSIONLESS_HOSTS:
        known["path"] = ChatPath.COMPLETIONS.removeprefix("/v1")
    return known

"""The only reader of the environment: which model, which host, which key, which database."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from roleplay.domain.endpoint import DEFAULT_MODEL, MINIMAX_DOMAINS, PROFILES, Endpoint, base_of, is_at
from roleplay.errors import InvalidInputError, SettingsError

Model = str | Endpoint
"""A model's name, which the environment completes, or an endpoint."""
KEY_HELP = "set ROLEPLAY_API_KEY or MINIMAX_API_KEY, or give Endpoint(..., api_key=...)"


class _Environment(Mapping[str, str]):
    """The environment of this process. Its ``repr`` shows nothing of it, since the frames of an error hold it."""

    def __getitem__(self, name: str) -> str:
        return os.environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)


def environment() -> Mapping[str, str]:
    """Give the environment of this process; nobody else looks at it."""
    return _Environment()


def resolve(model: str | Endpoint | None, environ: Mapping[str, str], *, needs_key: bool = True) -> Endpoint:
    """Give the endpoint to speak to: what the caller said, completed from ``environ``.

    ``ROLEPLAY_API_KEY``, ``ROLEPLAY_BASE_URL``, ``ROLEPLAY_MODEL``, ``ROLEPLAY_WINDOW_TOKENS``,
    ``ROLEPLAY_BUDGET_TOKENS`` and ``ROLEPLAY_DIALECT`` are read first, ``MINIMAX_API_KEY`` and ``MINIMAX_BASE_URL``
    next. A key goes only where it belongs: MiniMax's key to MiniMax's hosts and this machine, ours to
    ``ROLEPLAY_BASE_URL`` as well.

    Raises ``SettingsError`` when a host that needs a key has none, a key of the environment does not belong to the host
    that ``MINIMAX_BASE_URL`` names, or nothing is known of the model's window.
    """
    endpoint = model if isinstance(model, Endpoint) else _from_environment(model, environ)
    if endpoint.api_key is None and (key := _key_for(endpoint, environ)):
        try:
            endpoint = endpoint.evolve(api_key=key)
        except InvalidInputError as error:
            raise SettingsError(f"the API key in the environment {error.problem}; {KEY_HELP}") from error
    if needs_key and endpoint.api_key is None and not endpoint.headers:
        _refuse_to_withhold(endpoint, environ)
        _refuse_to_go_without(endpoint)
    return endpoint


def resolve_all(
    model: Model | Sequence[Model] | None, environ: Mapping[str, str], *, needs_key: bool = True
) -> list[Endpoint]:
    """Give the endpoints to speak to in their order: as ``resolve``, for one model or several."""
    wanted: Sequence[Model | None] = [model] if model is None or isinstance(model, str | Endpoint) else model
    if not wanted:
        raise SettingsError("no model is given: name one, or leave it to ROLEPLAY_MODEL")
    return [resolve(one, environ, needs_key=needs_key) for one in wanted]


def has_model(environ: Mapping[str, str]) -> bool:
    """Whether the environment says which model to speak to, or where one is."""
    names = ("ROLEPLAY_API_KEY", "ROLEPLAY_BASE_URL", "ROLEPLAY_MODEL", "MINIMAX_API_KEY")
    return any(environ.get(name) for name in names)


def _from_environment(model: str | None, environ: Mapping[str, str]) -> Endpoint:
    name = model or environ.get("ROLEPLAY_MODEL") or DEFAULT_MODEL
    profile = PROFILES.get(name)
    theirs = environ.get("MINIMAX_BASE_URL") if profile is None or profile.domains == MINIMAX_DOMAINS else None
    window, budget = (_tokens(environ, f"ROLEPLAY_{limit}_TOKENS") for limit in ("WINDOW", "BUDGET"))
    if profile is None and window is None:
        known = ", ".join(PROFILES)
        raise SettingsError(
            f"nothing is known of the model {name!r}: set ROLEPLAY_WINDOW_TOKENS, give Endpoint({name!r}, "
            f"window_tokens=...), or use one of {known}"
        )
    said: dict[str, Any] = {} if budget is None else {"budget_tokens": budget}
    try:
        return Endpoint(
            name,
            base_url=environ.get("ROLEPLAY_BASE_URL") or theirs or None,
            window_tokens=window,
            dialect=environ.get("ROLEPLAY_DIALECT") or None,
            **said,
        )
    except InvalidInputError as error:
        raise SettingsError(f"a ROLEPLAY_ setting of the environment cannot be used: {error}") from error


def _tokens(environ: Mapping[str, str], name: str) -> int | None:
    said = environ.get(name)
    if said and not (said.isascii() and said.isdigit()):
        raise SettingsError(f"{name} is {said!r}; it should be a whole number of tokens")
    return int(said) if said else None


def _key_for(endpoint: Endpoint, environ: Mapping[str, str]) -> SecretStr | None:
    own = environ.get("ROLEPLAY_API_KEY")
    trusted = is_loopback(endpoint.base_url) or (
        _is_minimax(endpoint.base_url) and endpoint.base_url.startswith("https:")
    )
    if own and (trusted or _is_named_by(environ.get("ROLEPLAY_BASE_URL"), endpoint)):
        return SecretStr(own)
    minimax = environ.get("MINIMAX_API_KEY")
    return SecretStr(minimax) if minimax and trusted else None


def _is_named_by(url: str | None, endpoint: Endpoint) -> bool:
    return url is not None and base_of(url) == base_of(endpoint.base_url)


def _refuse_to_withhold(endpoint: Endpoint, environ: Mapping[str, str]) -> None:
    """Tell why a key of the environment is not sent to the host of ``MINIMAX_BASE_URL``."""
    held = next((name for name in ("ROLEPLAY_API_KEY", "MINIMAX_API_KEY") if environ.get(name)), None)
    named = _is_named_by(environ.get("MINIMAX_BASE_URL"), endpoint) and not environ.get("ROLEPLAY_BASE_URL")
    if held is not None and named:
        raise SettingsError(
            f"{held} is not sent to {endpoint.base_url}, which MINIMAX_BASE_URL names and which is none of MiniMax's "
            "hosts over https; if that host may have the key, "
            "set ROLEPLAY_BASE_URL to the host and ROLEPLAY_API_KEY to the key"
        )


def _refuse_to_go_without(endpoint: Endpoint) -> None:
    """Tell that a vendor's own host takes no request without a key."""
    if _is_minimax(endpoint.base_url):
        raise SettingsError(f"no API key for {endpoint.host}; {KEY_HELP}")
    profile = PROFILES.get(endpoint.model)
    if profile is not None and is_at(endpoint.base_url, profile.domains):
        raise SettingsError(
            f"no API key for {endpoint.host}; set ROLEPLAY_BASE_URL to {endpoint.base_url} and ROLEPLAY_API_KEY to its "
            "key, or give Endpoint(..., api_key=...)"
        )


def _is_minimax(url: str) -> bool:
    return is_at(url, MINIMAX_DOMAINS)


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine: ``localhost``, ``127.0.0.0/8`` or ``::1``."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def database_named(environ: Mapping[str, str]) -> str | None:
    """The database that ``ROLEPLAY_DB`` names: a URL or the path of a SQLite file; ``None`` when it names none."""
    return environ.get("ROLEPLAY_DB") or None


def database_key(environ: Mapping[str, str]) -> str | None:
    """The passphrase of an encrypted SQLite file, ``ROLEPLAY_DB_KEY``, for the command line; ``None`` without one."""
    return environ.get("ROLEPLAY_DB_KEY") or None


def tokenizer_named(environ: Mapping[str, str]) -> str | None:
    """The ``tokenizer.json`` that ``ROLEPLAY_TOKENIZER`` names for the command line; ``None`` when it names none."""
    return environ.get("ROLEPLAY_TOKENIZER") or None


def data_folder(environ: Mapping[str, str]) -> Path:
    """Where the command line keeps its database when nothing else is said: a folder of ours in the user's data."""
    if (named := environ.get("XDG_DATA_HOME")) and Path(named).is_absolute():
        return Path(named) / "roleplay"
    if sys.platform == "win32" and (local := environ.get("LOCALAPPDATA")):
        return Path(local) / "roleplay"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "roleplay"
    return Path.home() / ".local" / "share" / "roleplay"


def wants_traces(environ: Mapping[str, str]) -> bool:
    """Whether ``ROLEPLAY_DEBUG`` asks the command line to show where an error came from."""
    return environ.get("ROLEPLAY_DEBUG", "") not in {"", "0"}

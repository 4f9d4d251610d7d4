"""What is known of a model, and that its key shows nowhere."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from pydantic import SecretStr

from roleplay import ChatPath, Dialect, Endpoint, InvalidInputError, Retry
from roleplay.domain.endpoint import PROFILES

KEY = "sk-very-secret-0123456789"


def test_profiles_fill_what_is_not_given() -> None:
    """A published model needs only its name; what is given wins; an unknown model needs its window."""
    her = Endpoint("M2-her", max_output_tokens=100)
    assert (her.window_tokens, her.path, her.stream_usage) == (65_536, ChatPath.NATIVE_V2, False)
    assert her.max_output_tokens == 100
    assert Endpoint("M2-her", path=ChatPath.COMPLETIONS).path is ChatPath.COMPLETIONS
    with pytest.raises(InvalidInputError, match=r"^window_tokens: is required"):
        Endpoint("local-model")
    local = Endpoint("local-model", window_tokens=4096)
    assert (local.dialect, local.path) == (Dialect.OPENAI, ChatPath.COMPLETIONS)
    assert all(Endpoint(name).window_tokens == profile.window_tokens for name, profile in PROFILES.items())


def test_another_model_brings_its_own_profile() -> None:
    """Host, key and times stay; path, dialect and window are the new model's, unless it has no profile or says so."""
    here = Endpoint("MiniMax-M2.7", base_url="http://127.0.0.1:1", timeout_s=9)
    assert here.evolve(model="M2-her") == Endpoint("M2-her", base_url="http://127.0.0.1:1", timeout_s=9)
    assert here.evolve(model="M2-her", window_tokens=9000).window_tokens == 9000
    assert here.evolve(model="local").window_tokens == 204_800
    assert here.evolve(window_tokens=9000).evolve(timeout_s=8).window_tokens == 9000


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://api.minimax.io", "https://api.minimax.io/v1/chat/completions"),
        ("https://api.minimax.io/", "https://api.minimax.io/v1/chat/completions"),
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://127.0.0.1:11434/v1/", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://[::1]:8000", "http://[::1]:8000/v1/chat/completions"),
        ("https://proxy.example/llm/v1", "https://proxy.example/llm/v1/chat/completions"),
    ],
)
def test_the_address(given: str, url: str) -> None:
    """A base URL with or without version and slash gives one address."""
    assert Endpoint("MiniMax-M2.7", base_url=given).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.minimax.io",
        "ftp://api.minimax.io",
        "file:///etc/passwd",
        "https://",
        "https:///v1",
        "http://[::1",
        "http://host:port",
        "http://host:99999",
        "http://host:0",
        "http://user@host",
        f"http://user:{KEY}@host",
        f"http://host/?key={KEY}",
        f"http://host/#{KEY}",
        "http://ho st",
        "http://host\n",
        " http://host",
        "http://host\t:80",
        "http://host\x00",
        "http://evil.example\\.minimax.io",
        "http://evil.example\\@api.minimax.io",
        5,
    ],
)
def test_an_address_that_is_none(url: Any) -> None:
    """What two readers could take for different hosts, or holds a secret, is refused and not repeated."""
    with pytest.raises(InvalidInputError) as failure:
        Endpoint("MiniMax-M2.7", base_url=url)
    assert failure.value.field == "base_url"
    assert KEY not in str(failure.value)


def test_the_key_is_hidden() -> None:
    """Neither text, JSON nor an error about another field shows the key; a pickle for another process keeps it."""
    endpoint = Endpoint("MiniMax-M2.7", api_key=KEY)
    assert KEY not in f"{endpoint!r} {endpoint} {endpoint.model_dump_json()} {endpoint.model_dump()} {dict(endpoint)}"
    with pytest.raises(InvalidInputError) as failure:
        endpoint.evolve(window_tokens=1)
    assert KEY not in str(failure.value)
    again = pickle.loads(pickle.dumps(endpoint))  # noqa: S301 - our own bytes
    assert again == endpoint
    assert endpoint.evolve(api_key=None).api_key is None


@pytest.mark.parametrize("given", [f"{KEY}\n", f" {KEY}\r\n", SecretStr(f"{KEY}\n")])
def test_a_key_from_a_file(given: Any) -> None:
    """The line break that a file ends with is no part of the key."""
    key = Endpoint("MiniMax-M2.7", api_key=given).api_key
    assert key is not None
    assert key.get_secret_value() == KEY


@pytest.mark.parametrize("given", ["", " \n", f"{KEY}\nX-Evil: 1", f"Bearer {KEY}", f"{KEY}é", f"{KEY}\x00", b"x\xff"])
def test_a_key_that_no_header_holds(given: Any) -> None:
    """A key that would break the request's head is refused where it is given, unshown."""
    with pytest.raises(InvalidInputError) as failure:
        Endpoint("MiniMax-M2.7", api_key=given)
    assert failure.value.field == "api_key"
    assert KEY not in str(failure.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, bad) for name in ("timeout_s", "read_timeout_s", "connect_timeout_s") for bad in (0, -1, math.inf)),
        ("timeout_s", math.nan),
        ("timeout_s", 1e300),
        ("window_tokens", 255),
        ("max_output_tokens", 0),
        ("dialect", "klingon"),
        ("path", "/v2"),
        ("model", ""),
        ("retry", {"attempts": 0}),
        ("retry", {"first_pause_s": -1}),
        ("retry", {"total_s": math.inf}),
    ],
)
def test_numbers_that_no_clock_takes(field: str, value: Any) -> None:
    """Times are finite and positive, limits are at least one, words are known."""
    with pytest.raises(InvalidInputError) as failure:
        Endpoint("MiniMax-M2.7").evolve(**{field: value})
    assert failure.value.field.split(".")[0] == field


@pytest.mark.parametrize("model", [None, 5, [], {}])
def test_a_model_is_named_by_text(model: Any) -> None:
    """Anything but a text is refused as such."""
    with pytest.raises(InvalidInputError, match=r"^model: "):
        Endpoint(model, window_tokens=1000)


def test_hosts_are_told_without_paths() -> None:
    """What may be logged of an endpoint is host and port."""
    assert Endpoint("x", window_tokens=1000, base_url="http://127.0.0.1:80/a/v1").host == "127.0.0.1:80"
    assert Retry().attempts == 3

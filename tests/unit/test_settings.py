"""Which model, which host, which key: what the environment may say, and where a key may go."""

from __future__ import annotations

import pytest

from roleplay import Dialect, Endpoint, SettingsError
from roleplay.domain.endpoint import MINIMAX_DOMAINS, PROFILES
from roleplay.settings import has_model, resolve

OURS, THEIRS = "sk-ours-0123456789", "sk-minimax-0123456789"
LOCAL = "http://127.0.0.1:9"
MINIMAX = [
    "https://api.minimax.io",
    "https://api.minimaxi.com",
    "https://api-uw.minimax.io",
    "https://minimax.io",
    "https://API.MINIMAX.IO",
    "https://api.minimax.io:8443/v1",
]
THIS_MACHINE = ["http://localhost:1", "http://127.0.0.1:1", "http://127.8.9.1", "http://[::1]:1/v1"]
STRANGERS = [
    "https://minimax.io.evil.example",
    "https://evilminimax.io",
    "https://api.minimax.io.",
    "https://127.0.0.1.evil.example",
    "https://localhost.evil.example",
    "http://0.0.0.0",
    "http://2130706433",
    "http://10.0.0.1",
    "https://example.org/api.minimax.io",
]


def key_of(endpoint: Endpoint) -> str | None:
    """The key that would be sent."""
    return endpoint.api_key.get_secret_value() if endpoint.api_key else None


def at(base_url: str) -> Endpoint:
    """A model at a host."""
    return Endpoint("MiniMax-M2.7", base_url=base_url)


@pytest.mark.parametrize("base_url", [*MINIMAX, *THIS_MACHINE])
def test_keys_go_where_they_belong(base_url: str) -> None:
    """Both keys go to MiniMax and to this machine; ours goes first."""
    assert key_of(resolve(at(base_url), {"MINIMAX_API_KEY": THEIRS})) == THEIRS
    assert key_of(resolve(at(base_url), {"MINIMAX_API_KEY": THEIRS, "ROLEPLAY_API_KEY": OURS})) == OURS


@pytest.mark.parametrize("base_url", STRANGERS)
def test_keys_go_nowhere_else(base_url: str) -> None:
    """A host that only looks like one of theirs gets no key from the environment, and needs none."""
    environ = {"MINIMAX_API_KEY": THEIRS, "ROLEPLAY_API_KEY": OURS}
    assert key_of(resolve(at(base_url), environ)) is None
    assert key_of(resolve(at(base_url), environ | {"ROLEPLAY_BASE_URL": "https://example.com/v1"})) is None


@pytest.mark.parametrize("said", ["https://llm.example/v1/", "https://llm.example/v1", "https://llm.example"])
def test_our_key_goes_to_our_host_too(said: str) -> None:
    """The host of ROLEPLAY_BASE_URL gets ROLEPLAY_API_KEY, and never MiniMax's key."""
    environ = {"ROLEPLAY_BASE_URL": said, "MINIMAX_API_KEY": THEIRS}
    assert key_of(resolve(None, environ)) is None
    assert key_of(resolve(None, environ | {"ROLEPLAY_API_KEY": OURS})) == OURS
    assert key_of(resolve(at("https://llm.example"), environ | {"ROLEPLAY_API_KEY": OURS})) == OURS
    assert key_of(resolve(at("https://other.example"), environ | {"ROLEPLAY_API_KEY": OURS})) is None


def test_a_key_that_was_given_stays() -> None:
    """What the caller says goes before the environment."""
    assert key_of(resolve(at(LOCAL).evolve(api_key="sk-given"), {"ROLEPLAY_API_KEY": OURS})) == "sk-given"


def test_ours_are_read_before_minimax() -> None:
    """Host and model come from ROLEPLAY_ first, then MINIMAX_, then what is published."""
    assert resolve(None, {"MINIMAX_API_KEY": THEIRS}).url == "https://api.minimax.io/v1/chat/completions"
    theirs = {"MINIMAX_BASE_URL": "https://api.minimaxi.com", "MINIMAX_API_KEY": THEIRS}
    assert resolve(None, theirs).host == "api.minimaxi.com"
    both = resolve(None, theirs | {"ROLEPLAY_BASE_URL": LOCAL, "ROLEPLAY_MODEL": "MiniMax-M2.5"})
    assert (both.host, both.model) == ("127.0.0.1:9", "MiniMax-M2.5")
    named = {"ROLEPLAY_MODEL": "MiniMax-M2", "ROLEPLAY_BASE_URL": LOCAL}
    assert resolve("M2-her", named).model == "M2-her"
    assert resolve(None, named | {"ROLEPLAY_MODEL": ""}).model == "MiniMax-M2.7"


def test_a_local_model_is_described_by_the_environment() -> None:
    """Window and dialect of a model that nothing is published about can be said there."""
    environ = {"ROLEPLAY_MODEL": "tiny", "ROLEPLAY_BASE_URL": LOCAL, "ROLEPLAY_WINDOW_TOKENS": "2048"}
    assert resolve(None, environ).dialect is Dialect.OPENAI
    assert resolve(None, environ | {"ROLEPLAY_DIALECT": "minimax"}).dialect is Dialect.MINIMAX
    assert resolve(None, environ | {"ROLEPLAY_DIALECT": "strict"}).dialect is Dialect.STRICT
    assert resolve(None, environ).window_tokens == 2048
    assert resolve(None, environ).budget_tokens == 32_000
    assert resolve(None, environ | {"ROLEPLAY_BUDGET_TOKENS": "900"}).budget_tokens == 900


@pytest.mark.parametrize(
    "said",
    [
        "https://llm.example/api/v3",
        "https://llm.example/api/v3/",
        "HTTPS://llm.example/api/v3/chat/completions",
        "https://llm.example/api/v3?api-version=1",
    ],
)
def test_our_key_goes_to_any_address_of_our_host(said: str) -> None:
    """A path, a query or a full address is the same place, for the environment and for an endpoint."""
    environ = {"ROLEPLAY_BASE_URL": said, "ROLEPLAY_API_KEY": OURS, "ROLEPLAY_WINDOW_TOKENS": "9000"}
    assert key_of(resolve("tiny", environ)) == OURS
    assert key_of(resolve(at("https://llm.example/api/v3"), environ)) == OURS
    assert key_of(resolve(at("https://llm.example/api/v4"), environ)) is None


VENDORS = [name for name, profile in PROFILES.items() if profile.domains != MINIMAX_DOMAINS]


@pytest.mark.parametrize("name", VENDORS)
def test_keys_do_not_follow_a_model_to_its_vendor(name: str) -> None:
    """A model that another vendor serves is at its host; no key goes there that was not meant for it."""
    environ = {"MINIMAX_API_KEY": THEIRS, "ROLEPLAY_API_KEY": OURS, "MINIMAX_BASE_URL": "https://api.minimaxi.com"}
    found = resolve(name, environ, needs_key=False)
    assert found.host == Endpoint(name).host
    assert key_of(found) is None
    with pytest.raises(
        SettingsError, match=rf"no API key for {found.host}; set ROLEPLAY_BASE_URL to {found.base_url} "
    ):
        resolve(name, environ)
    assert key_of(resolve(name, environ | {"ROLEPLAY_BASE_URL": found.base_url})) == OURS
    assert key_of(resolve(Endpoint(name, api_key="sk-given"), environ)) == "sk-given"
    assert key_of(resolve(Endpoint(name, headers={"Authorization": "Bearer sk-given"}), environ)) is None


def test_a_header_may_be_the_key() -> None:
    """Who gives headers is not asked for a key."""
    assert resolve(Endpoint("MiniMax-M2.7", headers={"Authorization": "Bearer sk-given"}), {}).api_key is None


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "ROLEPLAY_API_KEY"),
        ({"ROLEPLAY_API_KEY": ""}, "ROLEPLAY_API_KEY"),
        ({"ROLEPLAY_API_KEY": f"{OURS} and more"}, "API key in the environment"),
        ({"MINIMAX_API_KEY": " \n"}, "API key in the environment"),
        ({"ROLEPLAY_MODEL": "tiny"}, "ROLEPLAY_WINDOW_TOKENS"),
        ({"ROLEPLAY_MODEL": "tiny", "ROLEPLAY_WINDOW_TOKENS": "many"}, "whole number"),
        ({"ROLEPLAY_MODEL": "tiny", "ROLEPLAY_WINDOW_TOKENS": "-1"}, "whole number"),
        ({"ROLEPLAY_MODEL": "tiny", "ROLEPLAY_WINDOW_TOKENS": "²"}, "whole number"),
        ({"ROLEPLAY_MODEL": "tiny", "ROLEPLAY_WINDOW_TOKENS": "7"}, "window_tokens"),
        ({"ROLEPLAY_BASE_URL": LOCAL, "ROLEPLAY_BUDGET_TOKENS": "all"}, "ROLEPLAY_BUDGET_TOKENS is 'all'"),
        ({"ROLEPLAY_BASE_URL": LOCAL, "ROLEPLAY_BUDGET_TOKENS": "0"}, "budget_tokens"),
        ({"ROLEPLAY_BASE_URL": "llm.example"}, "base_url"),
        ({"ROLEPLAY_BASE_URL": LOCAL, "ROLEPLAY_DIALECT": "klingon"}, "dialect"),
    ],
)
def test_what_is_missing_or_wrong_is_named(environ: dict[str, str], says: str) -> None:
    """A setting that cannot be used raises SettingsError, which names what mends it and shows no key."""
    with pytest.raises(SettingsError, match=says) as failure:
        resolve(None, environ)
    assert OURS not in str(failure.value)


@pytest.mark.parametrize("name", ["MINIMAX_API_KEY", "ROLEPLAY_API_KEY"])
@pytest.mark.parametrize("said", ["https://gateway.example", "https://gateway.example/v1/", "http://api.minimax.io"])
def test_a_key_that_is_withheld_is_told(name: str, said: str) -> None:
    """Nobody learns only from a refused request that the key was not sent; another transport needs none."""
    environ = {"MINIMAX_BASE_URL": said, name: OURS}
    says = rf"{name} is not sent to .*set ROLEPLAY_BASE_URL to the host and ROLEPLAY_API_KEY to the key"
    with pytest.raises(SettingsError, match=says) as failure:
        resolve(None, environ)
    assert OURS not in str(failure.value)
    assert resolve(None, environ, needs_key=False).api_key is None
    assert key_of(resolve(None, environ | {"ROLEPLAY_BASE_URL": said, "ROLEPLAY_API_KEY": OURS})) == OURS
    assert resolve(at(LOCAL), environ).host == "127.0.0.1:9"


def test_a_gateway_that_needs_no_key() -> None:
    """No key, nothing withheld."""
    assert resolve(None, {"MINIMAX_BASE_URL": "https://gateway.example"}).api_key is None


def test_a_key_with_a_line_break() -> None:
    """A key that a file gave its line break is used without it."""
    assert key_of(resolve(None, {"ROLEPLAY_API_KEY": f"{OURS}\n"})) == OURS


def test_no_key_is_needed_where_none_is_sent() -> None:
    """Another transport, this machine and a foreign host work without a key; MiniMax does not."""
    assert resolve(None, {}, needs_key=False).api_key is None
    assert resolve(at(LOCAL), {}).api_key is None
    with pytest.raises(SettingsError, match=r"no API key for api\.minimax\.io; set ROLEPLAY_API_KEY"):
        resolve("MiniMax-M2.7", {})


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, False),
        ({"ROLEPLAY_API_KEY": ""}, False),
        ({"ROLEPLAY_MODEL": ""}, False),
        ({"ROLEPLAY_MODEL": "tiny"}, True),
        ({"MINIMAX_BASE_URL": "https://api.minimaxi.com"}, False),
        ({"ROLEPLAY_API_KEY": OURS}, True),
        ({"ROLEPLAY_BASE_URL": LOCAL}, True),
        ({"MINIMAX_API_KEY": THEIRS}, True),
    ],
)
def test_has_model(environ: dict[str, str], found: bool) -> None:
    """A key, a host of ours or a model's name asks for a real model; nothing is replaced by a toy then."""
    assert has_model(environ) is found

"""What is known of a model, and that its key shows nowhere."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from pydantic import SecretStr

from roleplay import ChatPath, Dialect, Endpoint, InvalidInputError, Retry
from roleplay.domain.endpoint import MINIMAX_DOMAINS, PROFILES

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
    assert (local.max_output_tokens, local.reply_tokens, local.budget_tokens) == (2048, 2048, 32_000)
    assert all(Endpoint(name).window_tokens == profile.window_tokens for name, profile in PROFILES.items())


HOME, AWAY = "https://api.minimaxi.com", "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if profile.dialect is Dialect.MINIMAX])
def test_the_dialect_of_minimax_is_that_of_its_hosts(name: str) -> None:
    """Whoever else serves the same weights is spoken to as any server is, unless the dialect is given; the model's
    window and caps are its own everywhere."""
    home, away = Endpoint(name, base_url=HOME), Endpoint(name, base_url=AWAY)
    assert home.dialect is Dialect.MINIMAX
    assert (away.dialect, away.path, away.stream_usage) == (Dialect.OPENAI, ChatPath.COMPLETIONS, True)
    assert Endpoint(name, base_url=AWAY, dialect="minimax").dialect is Dialect.MINIMAX
    assert Endpoint(name, base_url=HOME, dialect="openai").dialect is Dialect.OPENAI
    for limit in ("window_tokens", "max_output_tokens", "reply_tokens"):
        assert getattr(home, limit) == getattr(away, limit)


def test_what_was_not_given_is_found_anew() -> None:
    """A copy for another host or model has the dialect, path and caps that hold there; what was given stays."""
    home = Endpoint("M2-her", api_key=KEY)
    away = home.evolve(base_url=AWAY)
    assert (away.dialect, away.path, away.stream_usage) == (Dialect.OPENAI, ChatPath.COMPLETIONS, True)
    assert away == Endpoint("M2-her", api_key=KEY, base_url=AWAY)
    assert away.evolve(base_url=HOME).path is ChatPath.NATIVE_V2
    assert away.evolve(base_url="https://x.example/api/v3").path == "/chat/completions"
    assert away.evolve(timeout_s=9, base_url=HOME).evolve(model="MiniMax-M2.7").path is ChatPath.COMPLETIONS
    said = Endpoint("M2-her", base_url=AWAY, dialect="minimax", path=ChatPath.NATIVE_V2, stream_usage=False)
    kept = said.evolve(model="MiniMax-M2").evolve(base_url="http://10.0.0.1").evolve(timeout_s=3)
    assert (kept.dialect, kept.path, kept.stream_usage) == (Dialect.MINIMAX, ChatPath.NATIVE_V2, False)
    assert kept.evolve(path=None, dialect=None).dialect is Dialect.OPENAI
    assert pickle.loads(pickle.dumps(home)).evolve(base_url=AWAY) == away  # noqa: S301 - our own bytes


def test_a_host_whose_addresses_have_no_version() -> None:
    """Where it is known that none stands there, none is put in; what is given is taken as it is."""
    bare = Endpoint("sonar", base_url="https://api.perplexity.ai", window_tokens=8000)
    assert bare.url == "https://api.perplexity.ai/chat/completions"
    assert bare.evolve(path="/v1/chat/completions").url == "https://api.perplexity.ai/v1/chat/completions"


@pytest.mark.parametrize("domain", MINIMAX_DOMAINS)
@pytest.mark.parametrize(
    ("host", "theirs"), [("{}", True), ("api.{}", True), ("{}.evil.example", False), ("not{}", False)]
)
def test_hosts_of_minimax(domain: str, host: str, theirs: bool) -> None:
    """Its domains and what is below them; a name that only looks like one is none."""
    endpoint = Endpoint("MiniMax-M2", base_url=f"https://{host.format(domain)}/v1")
    assert (endpoint.dialect is Dialect.MINIMAX) is theirs


def test_a_vendors_model_is_at_its_vendor() -> None:
    """A model that another vendor serves needs no base URL, and a copy with another model never changes the host."""
    for name, profile in PROFILES.items():
        endpoint = Endpoint(name)
        assert endpoint.base_url == Endpoint(name, base_url=profile.base_url).base_url
        assert profile.source
        assert any(endpoint.host.endswith(domain) for domain in profile.domains)
        assert Endpoint("MiniMax-M2.7", api_key=KEY).evolve(model=name).host == "api.minimax.io"
    assert Endpoint("qwen-plus-character").url == "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"
    assert Endpoint("charglm-4").url == "https://open.bigmodel.cn/api/paas/v4/chat/completions"
    assert Endpoint("deepseek-v4-pro").dialect is Dialect.OPENAI


@pytest.mark.parametrize(
    ("name", "window", "longest", "reply"),
    [
        ("MiniMax-M3", 1_000_000, 524_288, 2048),
        ("MiniMax-M3.1-Flash-Preview", 1_000_000, 524_288, 8192),
        ("MiniMax-M2.7", 204_800, 2048, 2048),
        ("MiniMax-M2.7-highspeed", 204_800, 2048, 2048),
        ("MiniMax-M2.5", 204_800, 2048, 2048),
        ("MiniMax-M2.5-highspeed", 204_800, 204_800, 8192),
        ("MiniMax-M2.1", 204_800, 2048, 2048),
        ("MiniMax-M2.1-highspeed", 204_800, 204_800, 8192),
        ("MiniMax-M2", 204_800, 204_800, 8192),
        ("M2-her", 65_536, 2048, 2048),
    ],
)
def test_limits_of_minimax(name: str, window: int, longest: int, reply: int) -> None:
    """What is published, and the cap that is asked for: more where the model always thinks."""
    endpoint = Endpoint(name)
    assert (endpoint.window_tokens, endpoint.max_output_tokens, endpoint.reply_cap) == (window, longest, reply)


@pytest.mark.parametrize(
    ("fields", "cap"),
    [
        ({}, 2048),
        ({"max_output_tokens": 16}, 16),
        ({"reply_tokens": 300}, 300),
        ({"reply_tokens": 9000}, 2048),
        ({"reply_tokens": 9000, "max_output_tokens": 20_000}, 9000),
        ({"window_tokens": 1024}, 256),
        ({"window_tokens": 1024, "reply_tokens": 1}, 1),
        ({"window_tokens": 256, "max_output_tokens": 10**9, "reply_tokens": 10**9}, 64),
    ],
)
def test_the_cap_of_a_reply(fields: dict[str, int], cap: int) -> None:
    """What is wanted, at most what the model may give and a quarter of its window, at least one token."""
    assert Endpoint("local", **{"window_tokens": 100_000} | fields).reply_cap == cap


def test_a_raised_cap_raises_the_reply() -> None:
    """A model that always thinks has room to, where its longest reply was found to be longer."""
    assert Endpoint("MiniMax-M2.7", max_output_tokens=100_000).reply_cap == 8192
    assert Endpoint("MiniMax-M2.7", max_output_tokens=100_000, reply_tokens=500).reply_cap == 500


def test_a_budget_may_be_left_to_the_window() -> None:
    """``None`` is a value of ``budget_tokens``; of other fields it says nothing."""
    assert Endpoint("MiniMax-M2.7", budget_tokens=None).budget_tokens is None
    assert Endpoint("MiniMax-M2.7", budget_tokens=None).evolve(timeout_s=3).budget_tokens is None
    assert Endpoint("MiniMax-M2.7", budget_tokens=5000, window_tokens=None).budget_tokens == 5000


def test_another_model_brings_its_own_profile() -> None:
    """Host, key and times stay; window and caps are the new model's, unless it has no profile or says so."""
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
        ("https://proxy.example/llm", "https://proxy.example/llm/chat/completions"),
        ("https://x.example/v1beta/openai", "https://x.example/v1beta/openai/chat/completions"),
        ("https://x.example/v1beta/openai/", "https://x.example/v1beta/openai/chat/completions"),
        ("https://x.example/api/paas/v4", "https://x.example/api/paas/v4/chat/completions"),
        ("https://x.example/api/v3", "https://x.example/api/v3/chat/completions"),
        ("https://x.example/v1/openai", "https://x.example/v1/openai/chat/completions"),
        ("https://x.example/api/v1", "https://x.example/api/v1/chat/completions"),
        ("https://x.example/v2", "https://x.example/v2/chat/completions"),
        ("http://127.0.0.1:11434/v1/chat/completions", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://127.0.0.1:11434/v1/chat/completions/", "http://127.0.0.1:11434/v1/chat/completions"),
        ("https://x.example/chat/completions", "https://x.example/chat/completions"),
        ("https://x.example/api/v3/chat/completions", "https://x.example/api/v3/chat/completions"),
        ("https://api.minimax.io/v1/text/chatcompletion_v2", "https://api.minimax.io/v1/text/chatcompletion_v2"),
        ("HTTP://localhost:1234/V1", "http://localhost:1234/v1/chat/completions"),
        ("HTTPS://X.example/V1/Chat/Completions", "https://X.example/V1/Chat/Completions"),
        ("https://x.example?a=1", "https://x.example/v1/chat/completions?a=1"),
        ("https://x.example/v1/?a=1", "https://x.example/v1/chat/completions?a=1"),
        (
            "https://x.example/openai/deployments/her?api-version=2024-10-21",
            "https://x.example/openai/deployments/her/chat/completions?api-version=2024-10-21",
        ),
        ("https://x.example/a/chat/completions?k=/v1&b=?", "https://x.example/a/chat/completions?k=/v1&b=?"),
    ],
)
def test_the_address(given: str, url: str) -> None:
    """A base URL of any path, with or without version, slash and query, or a full address, gives one address; a copy
    has the same."""
    endpoint = Endpoint("MiniMax-M2.7", base_url=given)
    assert endpoint.url == url
    assert endpoint.evolve(timeout_s=9).evolve(api_key=KEY).url == url
    assert Endpoint(**dict(endpoint)) == endpoint
    assert Endpoint("MiniMax-M2.7", base_url=url).url == url
    assert endpoint.evolve(base_url="https://other.example").url == "https://other.example/v1/chat/completions"


@pytest.mark.parametrize("same", ["/v1", "/v1/", "/", "/V1"])
def test_base_urls_are_comparable(same: str) -> None:
    """Version and slash make no other base URL."""
    endpoint = Endpoint("MiniMax-M2.7", base_url=f"https://x.example{same}")
    assert endpoint == Endpoint("MiniMax-M2.7", base_url="https://x.example")
    assert endpoint.base_url == "https://x.example"


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("https://x.example/v4", "/chat/completions", "https://x.example/v4/chat/completions"),
        ("https://x.example/v1", "/chat/completions", "https://x.example/v1/chat/completions"),
        ("https://x.example", "/chat/completions", "https://x.example/chat/completions"),
        ("https://x.example/v1", "/v1/chat/completions", "https://x.example/v1/chat/completions"),
        ("https://x.example/llm/v1", "/v1/chat/completions", "https://x.example/llm/v1/chat/completions"),
        ("https://x.example/v1/chat/completions", "/completions?", None),
        ("https://x.example/v1/chat/completions", "/talk", "https://x.example/v1/talk"),
        ("https://x.example/v1?a=1", "/talk", "https://x.example/v1/talk?a=1"),
    ],
)
def test_a_path_of_its_own(base_url: str, path: str, url: str | None) -> None:
    """A path that is given stands behind the base URL, once; it is a plain path."""
    if url is None:
        with pytest.raises(InvalidInputError, match=r"^path: should begin with a slash"):
            Endpoint("MiniMax-M2.7", base_url=base_url, path=path)
        return
    endpoint = Endpoint("MiniMax-M2.7", base_url=base_url, path=path)
    assert endpoint.url == endpoint.evolve(timeout_s=3).url == url
    assert Endpoint(**dict(endpoint)) == endpoint


def test_a_query_is_hidden() -> None:
    """Services are given keys there: only the address that is posted to holds it, and another host does not get it."""
    endpoint = Endpoint("MiniMax-M2.7", base_url=f"https://x.example/v1?key={KEY}")
    shown = f"{endpoint!r} {endpoint} {endpoint.model_dump_json()} {endpoint.model_dump()} {dict(endpoint)}"
    assert KEY not in shown + endpoint.host + endpoint.base_url
    assert KEY not in endpoint.evolve(base_url="https://y.example").url
    assert KEY in pickle.loads(pickle.dumps(endpoint)).url  # noqa: S301 - our own bytes
    for bad in (f"https://x.example?key={KEY}#", f"https://u:{KEY}@x.example?key={KEY}", f"https://x.example?é={KEY}"):
        with pytest.raises(InvalidInputError, match=r"^(base_url|query): ") as failure:
            Endpoint("MiniMax-M2.7", base_url=bad)
        assert KEY not in str(failure.value)


HEADERS = {"api-key": KEY, "HTTP-Referer": "https://rôle.example/ "}


def test_headers_are_hidden() -> None:
    """They may be keys: neither text nor JSON shows their values; an endpoint with some is a key of a dict still."""
    endpoint = Endpoint("MiniMax-M2.7", headers=HEADERS)
    assert KEY not in f"{endpoint!r} {endpoint} {endpoint.model_dump_json()} {endpoint.model_dump()} {dict(endpoint)}"
    assert endpoint == endpoint.evolve(timeout_s=300.0) == pickle.loads(pickle.dumps(endpoint))  # noqa: S301 - our own
    assert {endpoint: 1}[Endpoint("MiniMax-M2.7", headers=dict(endpoint.headers))]
    assert [(name, value.get_secret_value()) for name, value in endpoint.headers] == [
        ("api-key", KEY),
        ("HTTP-Referer", "https://rôle.example/"),
    ]
    assert endpoint.evolve(headers={}).headers == ()


@pytest.mark.parametrize(
    "headers",
    [
        *({name: KEY} for name in ("", " ", "a b", "a:b", "a\r\nb", "ä", f"{KEY}\n")),
        *({"X-A": bad} for bad in ("", "  ", f"{KEY}\r\nX-Evil: 1", f"{KEY}\x00", f"{KEY}你", 5, None, b"x")),
        *({name: KEY} for name in ("Host", "content-length", "Transfer-Encoding", "Connection", "Content-Type")),
        *({name: KEY} for name in ("accept", "Accept-Encoding", "Expect")),
        {"X-A": KEY, "x-a": KEY},
        KEY,
        [KEY],
        [5],
        5,
    ],
)
def test_headers_that_no_request_has(headers: Any) -> None:
    """What would break the request's head, or says how the request is written, is refused at once, unshown."""
    with pytest.raises(InvalidInputError) as failure:
        Endpoint("MiniMax-M2.7", headers=headers)
    assert failure.value.field == "headers"
    assert KEY not in str(failure.value)


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
        ("path", "v2"),
        ("path", "/v 2"),
        ("reply_tokens", 0),
        ("budget_tokens", 0),
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


def test_a_query_of_the_address_and_one_that_is_given() -> None:
    """Both are sent."""
    endpoint = Endpoint("x", base_url="https://host/v1?api-version=1", query="user=2", window_tokens=8000)
    assert endpoint.url == "https://host/v1/chat/completions?api-version=1&user=2"
    assert endpoint.evolve(timeout_s=5).url == endpoint.url

"""Proxies and certificates of the environment mean the same to both shells; what cannot be used is told at ``open``."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import certifi
import pytest

from roleplay import ChatUnavailableError, Endpoint, Roleplay, SettingsError
from roleplay.aio import AsyncRoleplay
from roleplay.chat.aio import HttpxTransport
from roleplay.chat.surroundings import CERTIFICATES, proxy_for, trusted
from roleplay.chat.sync import RequestsTransport
from roleplay.testing import Simulator
from tests.support.http import HEAD, Raw, asked, at
from tests.support.tls import AUTHORITY, TlsServer, answering, proxying

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
FAR = "https://api.example.com"
GONE = "/nonexistent/ca.pem"
SHELLS = ["sync", "asyncio"]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own is left."""
    for name in (*PROXIES, *map(str.upper, PROXIES), *CERTIFICATES, "SSLKEYLOGFILE", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


def open_and_close(shell: str, url: str, *endpoints: Endpoint) -> None:
    if shell == "sync":
        Roleplay.open(url, model=endpoints).close()
        return

    async def go() -> None:
        await (await AsyncRoleplay.open(url, model=endpoints)).close()

    asyncio.run(go())


def ask(shell: str, endpoint: Endpoint) -> bytes:
    """Make one call with a transport of its own and read the answer."""
    if shell == "sync":
        blocking = RequestsTransport()
        try:
            return blocking.open(endpoint, asked(endpoint)).read()
        finally:
            blocking.close()

    async def go() -> bytes:
        transport = HttpxTransport()
        try:
            return await (await transport.open(endpoint, asked(endpoint))).read()
        finally:
            await transport.close()

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("named", "url", "proxy"),
    [
        ({}, FAR, None),
        ({"HTTPS_PROXY": "http://a:1"}, FAR, "http://a:1"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, FAR, "http://a:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b:2"}, FAR, None),
        ({"HTTPS_PROXY": "a:1"}, FAR, "http://a:1"),
        ({"HTTPS_PROXY": "http://me:hush@a:1"}, FAR, "http://me:hush@a:1"),
        ({"HTTPS_PROXY": "http://[::1]:3128"}, FAR, "http://[::1]:3128"),
        ({"HTTP_PROXY": "http://a:1"}, FAR, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.example.com:443"}, FAR, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.example.com:80"}, FAR, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "198.51.100.7:443"}, "https://198.51.100.7", None),
        ({"HTTP_PROXY": "http://a:1"}, "http://far.example", "http://a:1"),
        ({"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, "http://far.example", None),
        ({"ALL_PROXY": "http://a:1"}, FAR, "http://a:1"),
        ({"ALL_PROXY": "socks5://a:1", "HTTPS_PROXY": "http://b:2"}, FAR, "http://b:2"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, FAR, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "localhost, .example.com"}, FAR, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "EXAMPLE.com"}, FAR, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*.example.com"}, FAR, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "ample.com"}, FAR, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.example.com:8443"}, FAR, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.example.com:8443"}, f"{FAR}:8443", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3", "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "fd00::/8"}, "https://[fd00::1]", None),
        ({"ALL_PROXY": "socks5://a:1", "NO_PROXY": "example.com"}, FAR, None),
        ({"ALL_PROXY": "socks5://a:1"}, "http://localhost:1", None),
        ({"ALL_PROXY": "socks5://a:1", "NO_PROXY": "[::1]"}, "http://127.9.9.9:1", None),
        ({"HTTP_PROXY": "http://a:1"}, "http://[::1]:1", None),
    ],
)
def test_which_proxy(monkeypatch: pytest.MonkeyPatch, named: dict[str, str], url: str, proxy: str | None) -> None:
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy


UNUSABLE = [
    ({"ALL_PROXY": "socks5://127.0.0.1:1089"}, "ALL_PROXY"),
    ({"all_proxy": "socks://127.0.0.1:1089/"}, "all_proxy"),
    ({"HTTPS_PROXY": "https://secure:port"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "socks5h://me:hush@secure:8443"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "ftp://a"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://a:port"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://a:99999"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://a:0"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://[::1"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://a b:1"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://" + "x" * 70 + ".example:1"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://me:hush@a:port"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "127.0.0.1,[::1]"}, "NO_PROXY"),
    ({"HTTPS_PROXY": "http://a:1", "no_proxy": "[::1]:8080"}, "no_proxy"),
    ({"SSL_CERT_FILE": GONE}, "SSL_CERT_FILE"),
    ({"SSL_CERT_DIR": "/nonexistent"}, "SSL_CERT_DIR"),
    ({"REQUESTS_CA_BUNDLE": GONE}, "REQUESTS_CA_BUNDLE"),
    ({"CURL_CA_BUNDLE": GONE}, "CURL_CA_BUNDLE"),
    ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE"),
    ({"REQUESTS_CA_BUNDLE": __file__}, "REQUESTS_CA_BUNDLE"),
    ({"SSL_CERT_FILE": str(Path(__file__).parent)}, "SSL_CERT_FILE"),
    ({"SSL_CERT_DIR": str(Path(__file__).parent)}, "SSL_CERT_DIR"),
    ({"REQUESTS_CA_BUNDLE": str(Path(__file__).parent)}, "REQUESTS_CA_BUNDLE"),
    ({"SSLKEYLOGFILE": "/nonexistent/keys"}, "SSLKEYLOGFILE"),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("named", "culprit"), UNUSABLE)
def test_what_cannot_be_used_is_told_at_open(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, named: dict[str, str], culprit: str, shell: str
) -> None:
    """The variable is named, for the model and for the one after it, and no password is shown; this machine needs
    none of them."""
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    far = Endpoint("MiniMax-M2.7", base_url=FAR, api_key="k")
    near = far.evolve(base_url="http://127.0.0.1:9")
    for endpoints in ([far], [near, far]):
        with pytest.raises(SettingsError, match=culprit) as refused:
            open_and_close(shell, sqlite_url, *endpoints)
        assert "hush" not in str(refused.value)
    open_and_close(shell, sqlite_url, near)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_tenant_with_a_model_of_its_own(sqlite_url: str, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """It is told when the tenant's engine is asked for."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1089")
    near = Endpoint("MiniMax-M2.7", base_url="http://127.0.0.1:9", api_key="k")
    far = near.evolve(base_url=FAR)
    if shell == "sync":
        with Roleplay.open(sqlite_url, model=near) as rp, pytest.raises(SettingsError, match="ALL_PROXY"):
            rp.for_tenant("other", model=far)
        return

    async def go() -> None:
        async with await AsyncRoleplay.open(sqlite_url, model=near) as rp:
            with pytest.raises(SettingsError, match="ALL_PROXY"):
                rp.for_tenant("other", model=far)

    asyncio.run(go())


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("named", "culprit"), UNUSABLE)
def test_this_machine_needs_none(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, named: dict[str, str], culprit: str, shell: str
) -> None:
    """A model on loopback answers; one elsewhere, named for a single turn, is an error of ours that says why."""
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert ask(shell, at(sim.base_url))
    with pytest.raises(ChatUnavailableError, match=culprit) as refused:
        ask(shell, at(FAR))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_proxy_is_gone_through(raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """Also with a password, which the proxy is told and no log; an answer of its own is an answer."""
    proxy = raw(lambda there, _: there.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}"))
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:hush@"))
    assert ask(shell, at("http://api.invalid")) == b"{}"
    assert proxy.heard[0].startswith(b"POST http://api.invalid/v1/chat/completions HTTP/1.1\r\n")
    assert b"proxy-authorization: basic" in proxy.heard[0].lower()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_tunnel_that_drips_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """A proxy's own answer counts into the time of the whole exchange."""

    def drip(there: socket.socket) -> None:
        with there, contextlib.suppress(OSError):
            there.recv(65536)
            there.sendall(b"HTTP/1.1 200 OK\r\nX-Pad: ")
            while True:
                there.sendall(b"a")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: drip(server.accept()[0]), daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ChatUnavailableError, match=r"within 0\.5 s"):
            ask(shell, at(FAR, timeout_s=0.5))


@pytest.fixture
def tls() -> Iterator[Callable[[Callable[[ssl.SSLSocket], None]], TlsServer]]:
    """Makes servers of TLS."""
    made: list[TlsServer] = []

    def make(talk: Callable[[ssl.SSLSocket], None]) -> TlsServer:
        made.append(TlsServer(talk))
        return made[-1]

    yield make
    for one in made:
        one.close()


Tls = Callable[[Callable[[ssl.SSLSocket], None]], TlsServer]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_proxy_of_tls_is_gone_through(tls: Tls, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """To a server of TLS, and to one without, with a password; its certificate is checked."""
    heard: list[bytes] = []
    proxy = tls(proxying(tls(answering(b'{"far": 1}')).port, heard))
    monkeypatch.setenv("ALL_PROXY", f"https://me:hush@127.0.0.1:{proxy.port}")
    for url in (FAR, "http://api.example.com"):
        with pytest.raises(ChatUnavailableError, match="or the proxy before it has no certificate"):
            ask(shell, at(url))
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    assert ask(shell, at(FAR)) == b'{"far": 1}'
    assert heard[0].startswith(b"CONNECT api.example.com:443 HTTP/1.")
    assert ask(shell, at("http://api.example.com")) == b"{}"
    assert heard[1].startswith(b"POST http://api.example.com/v1/chat/completions HTTP/1.1\r\n")
    assert all(b"proxy-authorization: basic" in one.lower() for one in heard)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_server_behind_a_proxy_of_tls_that_drips(tls: Tls, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """What comes in bits within one piece of TLS makes the deadline no later."""

    def drip(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            other.sendall(one.recv(65536))  # the beginning of TLS
            other.sendall(one.recv(300))  # so few that no answer can be among them
            while piece := one.recv(100_000):
                for at_byte in range(len(piece)):
                    other.sendall(piece[at_byte : at_byte + 1])
                    time.sleep(0.02)

    proxy = tls(proxying(tls(answering(b"{}" * 5000)).port, [], drip))
    monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    began = time.monotonic()
    with pytest.raises(ChatUnavailableError):
        ask(shell, at(FAR, timeout_s=0.7))
    assert time.monotonic() - began < 1.7


@pytest.mark.parametrize("shell", SHELLS)
def test_a_way_through_a_proxy_of_tls_is_used_again_and_cut(
    tls: Tls, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """As any connection is."""
    proxy = tls(proxying(tls(answering(b"{}")).port, []))
    monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    endpoint = at(FAR)
    if shell == "sync":
        blocking = RequestsTransport()
        for _ in range(3):
            answer = blocking.open(endpoint, asked(endpoint))
            assert answer.read() == b"{}"
            answer.release()
        blocking.open(endpoint, asked(endpoint)).close()
        blocking.close()
    else:

        async def go() -> None:
            transport = HttpxTransport()
            for _ in range(3):
                answer = await transport.open(endpoint, asked(endpoint))
                assert await answer.read() == b"{}"
                await answer.release()
            await (await transport.open(endpoint, asked(endpoint))).close()
            await transport.close()

        asyncio.run(go())
    assert proxy.accepted == 1


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_that_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """A file, or a folder of files under their hashes, takes the place of what Python brings; the first that is set
    counts."""
    one = Path(certifi.where()).read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_text(one)
    (tmp_path / "0a1b2c3d.0").write_text(one)
    everything = len(trusted().get_ca_certs())
    monkeypatch.setenv(name, str(tmp_path if name == "SSL_CERT_DIR" else tmp_path / "ca.pem"))
    context = trusted()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == (0 if name == "SSL_CERT_DIR" else 1) < everything
    monkeypatch.setenv(name, str(tmp_path))
    assert not trusted().get_ca_certs()  # a folder is looked into when a server shows its certificate
    for other in CERTIFICATES[CERTIFICATES.index(name) + 1 :]:
        monkeypatch.setenv(other, str(tmp_path / "ca.pem"))
    assert not trusted().get_ca_certs()


@pytest.mark.parametrize("name", ["CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_file_that_is_gone_is_told_beside_one_that_is_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As on a machine that sets several of the variables for all."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    monkeypatch.setenv(name, GONE)
    with pytest.raises(SettingsError, match=name):
        trusted()


def test_importing_loads_no_http() -> None:
    """What the transports need is loaded by them."""
    code = "import sys, roleplay; print(sorted({'certifi', 'requests', 'httpx', 'urllib3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""HTTP for asyncio through ``httpx``: the same requests, byte for byte, as the blocking transport."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

from roleplay.chat.overload import shortage
from roleplay.chat.queries import caused, hide
from roleplay.chat.surroundings import is_untrusted, needs_trust, proxy_for, trusted, who_is_untrusted
from roleplay.domain.endpoint import Endpoint
from roleplay.errors import ChatError, ChatUnavailableError, SettingsError, without_frames
from roleplay.wire.codings import Unpacker
from roleplay.wire.heads import wanted
from roleplay.wire.request import WireRequest
from roleplay.wire.secrets import secrets_of

try:
    import httpx

    from roleplay.chat.network import has_leftover, tolerate
except ModuleNotFoundError:
    raise SettingsError("asyncio needs an extra: pip install 'roleplay-engine[async]'") from None

_END_S = 0.1
_KEPT = 64
_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # for what is not encrypted, so that no certificates are loaded


class HttpxTransport:
    """Carries requests over keep-alive connections, as many at once as there are streams.

    Each connection is an ``httpx`` client of its own, and the idle ones of a host are a stack: a pool of ``httpx``
    looks through all its connections for every request, which thousands of open streams cannot pay.

    Redirects are not followed, so a key never goes to another host than its own. One event loop at a time.
    """

    def __init__(self, http: httpx.AsyncClient | None = None) -> None:
        """Use ``http``, which its owner closes, or clients of its own."""
        self._given = http
        self._trusted: ssl.SSLContext | None = None
        self._idle: dict[str, list[httpx.AsyncClient]] = {}
        self._clients: set[httpx.AsyncClient] = set()

    def check(self, endpoint: Endpoint) -> None:
        """See that ``endpoint`` can be reached as the environment says. Raises ``SettingsError``."""
        if self._given is None:
            self._trust(endpoint, proxy_for(endpoint.url))

    async def open(
        self, endpoint: Endpoint, request: WireRequest, sent: Callable[[], object] | None = None
    ) -> HttpxAnswer:
        """Post ``request`` and wait for the head of its answer. Raises ``ChatUnavailableError`` when none comes.

        ``sent`` is called when the request was sent.
        """
        answer = await self._ask(endpoint, request, sent)
        if isinstance(answer, BaseException):
            raise answer  # here, since the frames where it was made hold the headers
        return answer

    async def _ask(
        self, endpoint: Endpoint, request: WireRequest, sent: Callable[[], object] | None
    ) -> HttpxAnswer | BaseException:
        try:
            return await self._post(endpoint, request, sent)
        except Exception as error:  # noqa: BLE001 - whatever the library raises, no answer comes
            return caused(_unavailable(endpoint, error), endpoint, error)
        except BaseException as error:  # noqa: BLE001 - it is raised again: a cancellation
            return without_frames(error)

    async def _post(self, endpoint: Endpoint, request: WireRequest, sent: Callable[[], object] | None) -> HttpxAnswer:
        headers = {
            b"Content-Type": b"application/json",
            b"Accept": b"text/event-stream" if request.stream else b"application/json",
            b"Accept-Encoding": b"identity",  # what is packed comes late
            **_given(endpoint),
        }
        timeout = httpx.Timeout(min(endpoint.read_timeout_s, endpoint.timeout_s), connect=endpoint.connect_timeout_s)
        deadline = asyncio.get_running_loop().time() + endpoint.timeout_s
        give_back: Callable[[], Awaitable[None]] | None = None
        try:
            http = self._given or self._take(endpoint)
            give_back = partial(self._give_back, endpoint.base_url, http)
            post = http.build_request("POST", _url(endpoint), content=request.body, headers=headers, timeout=timeout)
            if sent is not None:
                post.extensions["trace"] = _telling(sent)
            async with asyncio.timeout_at(deadline):
                response = await http.send(post, stream=True, follow_redirects=False, auth=_no_netrc)
        except BaseException:
            if give_back is not None:
                await give_back()
            raise
        return HttpxAnswer(endpoint, response, deadline, give_back)

    async def close(self) -> None:
        """Close all connections, unless the client came from outside."""
        self._idle.clear()
        while self._clients:
            with contextlib.suppress(Exception):  # such as that of an event loop that was closed meanwhile
                await self._clients.pop().aclose()

    def _take(self, endpoint: Endpoint) -> httpx.AsyncClient:
        idle = self._idle.get(endpoint.base_url)
        if idle:
            return idle.pop()
        proxy = proxy_for(endpoint.url)
        trust = self._trust(endpoint, proxy)
        safe = proxy is not None and needs_trust("", proxy)
        http = httpx.AsyncClient(
            verify=trust,
            proxy=httpx.Proxy(proxy, ssl_context=trust) if proxy is not None and safe else proxy,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        tolerate(http)
        self._clients.add(http)
        return http

    def _trust(self, endpoint: Endpoint, proxy: str | None) -> ssl.SSLContext:
        """Give what connections to ``endpoint`` trust, loaded when the first needs it. Raises ``SettingsError``."""
        if not needs_trust(endpoint.url, proxy):
            return _NOBODY
        self._trusted = self._trusted or trusted()
        return self._trusted

    async def _give_back(self, host: str, http: httpx.AsyncClient) -> None:
        """Keep a client that nothing is asked of any more for the next request to its host, or close it."""
        if http is self._given:
            return
        idle = self._idle.setdefault(host, [])
        if http in self._clients and len(idle) < _KEPT and not has_leftover(http):
            idle.append(http)
        else:
            self._clients.discard(http)
            with contextlib.suppress(Exception):  # as in ``close``
                await http.aclose()


class HttpxAnswer:
    """An answer over ``httpx``, within its total deadline. ``give_back`` is awaited once, when it is closed."""

    def __init__(
        self, endpoint: Endpoint, response: httpx.Response, deadline: float, give_back: Callable[[], Awaitable[None]]
    ) -> None:
        self.status = response.status_code
        self.headers = wanted(response.headers.items(), secrets_of(endpoint))
        self._endpoint = endpoint
        self._response = response
        self._pieces = response.aiter_raw()
        self._body = Unpacker(self.headers)
        self._deadline = deadline
        self._give_back: Callable[[], Awaitable[None]] | None = give_back

    async def read(self) -> bytes:
        """Give the next piece as it arrives, ``b""`` at the end. Raises ``ChatUnavailableError`` and
        ``BadReplyError``."""
        piece = await self._next()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    async def _next(self) -> bytes | BaseException:
        try:
            async with asyncio.timeout_at(self._deadline):
                if piece := self._body.take():
                    await asyncio.sleep(0)  # others have their turn, however much a server packs into few bytes
                    return piece
                while not piece:
                    raw = await anext(self._pieces, b"")
                    if not raw:
                        return self._end()
                    self._body.feed(raw)
                    piece = self._body.take()
                return piece
        except ChatError as error:
            await self.close()
            return without_frames(error)
        except Exception as error:  # noqa: BLE001 - whatever the library raises, no more of it comes
            await self.close()
            return caused(_unavailable(self._endpoint, error), self._endpoint, error)
        except BaseException as error:  # noqa: BLE001 - it is raised again: a cancellation
            return without_frames(error)

    def _end(self) -> bytes:
        if self._body.is_cut:
            raise httpx.ReadError("")
        return b""

    async def release(self) -> None:
        """Give the connection back when the answer ends here, which shows within ``_END_S`` seconds; else close it."""
        try:
            async with asyncio.timeout(_END_S):
                await anext(self._pieces, b"")
        except Exception:  # noqa: BLE001, S110
            pass  # it does not end here, or is broken: closing is what is left
        await self.close()

    async def close(self) -> None:
        """Close the connection at once, unless it was given back."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            try:
                with contextlib.suppress(Exception):  # as in ``HttpxTransport.close``
                    await self._response.aclose()
            finally:
                await give_back()


@lru_cache(maxsize=64)
def _url(endpoint: Endpoint) -> httpx.URL:
    url = httpx.URL(endpoint.url)
    hide(endpoint, str(url))
    return url


@lru_cache(maxsize=64)
def _given(endpoint: Endpoint) -> dict[bytes, bytes]:
    """Give the headers that an endpoint says, with its key unless one of them takes its place."""
    headers = {name.encode(): value.get_secret_value().encode("latin-1") for name, value in endpoint.headers}
    if endpoint.api_key is not None and not any(name.lower() == b"authorization" for name in headers):
        headers[b"Authorization"] = f"Bearer {endpoint.api_key.get_secret_value()}".encode()
    return headers


def _telling(sent: Callable[[], object]) -> Callable[[str, dict[str, Any]], Awaitable[None]]:
    """Give what ``httpx`` is to tell its steps to: where it begins to wait for the head, all was sent.

    A request to a proxy, which opens the way, comes before ours.
    """

    async def trace(step: str, info: dict[str, Any]) -> None:
        if step.endswith("receive_response_headers.started") and info["request"].method == b"POST":
            sent()

    return trace


def _no_netrc(request: httpx.Request) -> httpx.Request:
    """Stand in for authentication, so that no ``.netrc`` entry takes the key's place."""
    return request


def _unavailable(endpoint: Endpoint, error: Exception) -> ChatUnavailableError:
    """Say what failed without the cause's own text, which may hold addresses and headers."""
    if lacks := shortage(error):
        return ChatUnavailableError(f"{lacks}: no connection to {endpoint.host} could be opened")
    if isinstance(error, SettingsError):  # of the environment, for an endpoint that nobody named when the engine opened
        return ChatUnavailableError(f"{endpoint.host} cannot be reached: {error}")
    if is_untrusted(error):
        return ChatUnavailableError(f"{endpoint.host} {who_is_untrusted(endpoint.url)}")
    for kinds, what in (
        (httpx.ConnectTimeout, f"did not accept a connection within {endpoint.connect_timeout_s:g} s"),
        (httpx.TimeoutException, f"sent nothing for {min(endpoint.read_timeout_s, endpoint.timeout_s):g} s"),
        (TimeoutError, f"did not finish its answer within {endpoint.timeout_s:g} s"),
        (httpx.ConnectError, "cannot be reached; check the base URL and the network"),
        (httpx.ProxyError, "cannot be reached through the proxy that the environment names"),
        ((httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError), "cut the connection"),
        (zlib.error, "sent an answer that is not packed as it says"),
    ):
        if isinstance(error, kinds):
            return ChatUnavailableError(f"{endpoint.host} {what}")
    return ChatUnavailableError(f"{endpoint.host} failed ({type(error).__name__})")

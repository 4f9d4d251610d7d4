"""HTTP for asyncio through ``httpx``: the same requests, byte for byte, as the blocking transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy

from roleplay.chat.queries import caused, hide
from roleplay.domain.endpoint import Endpoint
from roleplay.errors import ChatUnavailableError, SettingsError, without_frames
from roleplay.wire.heads import wanted
from roleplay.wire.request import WireRequest
from roleplay.wire.secrets import secrets_of

try:
    import httpx

    from roleplay.chat.network import tolerate
except ModuleNotFoundError:
    raise SettingsError("asyncio needs an extra: pip install 'roleplay-engine[async]'") from None

_END_S = 0.1
_KEPT = 64
_FAULTS = (httpx.HTTPError, TimeoutError, OSError)


class HttpxTransport:
    """Carries requests over keep-alive connections, as many at once as there are streams.

    Each connection is an ``httpx`` client of its own, and the idle ones of a host are a stack: a pool of ``httpx``
    looks through all its connections for every request, which thousands of open streams cannot pay.

    Redirects are not followed, so a key never goes to another host than its own. One event loop at a time.
    """

    def __init__(self, http: httpx.AsyncClient | None = None) -> None:
        """Use ``http``, which its owner closes, or clients of its own."""
        self._given = http
        self._verify = httpx.create_ssl_context() if http is None else None
        self._idle: dict[str, list[httpx.AsyncClient]] = {}
        self._clients: set[httpx.AsyncClient] = set()

    async def open(self, endpoint: Endpoint, request: WireRequest) -> HttpxAnswer:
        """Post ``request`` and wait for the head of its answer. Raises ``ChatUnavailableError`` when none comes."""
        answer = await self._ask(endpoint, request)
        if isinstance(answer, BaseException):
            raise answer  # here, since the frames where it was made hold the headers
        return answer

    async def _ask(self, endpoint: Endpoint, request: WireRequest) -> HttpxAnswer | BaseException:
        try:
            return await self._post(endpoint, request)
        except (*_FAULTS, httpx.InvalidURL, UnicodeError) as error:  # a host that no name can be
            return caused(_unavailable(endpoint, error), endpoint, error)
        except BaseException as error:  # noqa: BLE001 - it is raised again: a cancellation
            return without_frames(error)

    async def _post(self, endpoint: Endpoint, request: WireRequest) -> HttpxAnswer:
        headers = {
            b"Content-Type": b"application/json",
            b"Accept": b"text/event-stream" if request.stream else b"application/json",
            b"Accept-Encoding": b"identity",  # what is packed comes late
            **_given(endpoint),
        }
        timeout = httpx.Timeout(min(endpoint.read_timeout_s, endpoint.timeout_s), connect=endpoint.connect_timeout_s)
        deadline = asyncio.get_running_loop().time() + endpoint.timeout_s
        http = self._given or self._take(endpoint.base_url)
        give_back = partial(self._give_back, endpoint.base_url, http)
        try:
            post = http.build_request("POST", _url(endpoint), content=request.body, headers=headers, timeout=timeout)
            async with asyncio.timeout_at(deadline):
                response = await http.send(post, stream=True, follow_redirects=False, auth=_no_netrc)
        except BaseException:
            await give_back()
            raise
        return HttpxAnswer(endpoint, response, deadline, give_back)

    async def close(self) -> None:
        """Close all connections, unless the client came from outside."""
        self._idle.clear()
        while self._clients:
            await self._clients.pop().aclose()

    def _take(self, host: str) -> httpx.AsyncClient:
        idle = self._idle.get(host)
        if idle:
            return idle.pop()
        assert self._verify is not None
        http = httpx.AsyncClient(verify=self._verify, cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])))
        tolerate(http)
        self._clients.add(http)
        return http

    async def _give_back(self, host: str, http: httpx.AsyncClient) -> None:
        """Keep a client that nothing is asked of any more for the next request to its host, or close it."""
        if http is self._given:
            return
        idle = self._idle.setdefault(host, [])
        if http in self._clients and len(idle) < _KEPT:
            idle.append(http)
        else:
            self._clients.discard(http)
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
        self._pieces = response.aiter_bytes()
        self._deadline = deadline
        self._give_back: Callable[[], Awaitable[None]] | None = give_back

    async def read(self) -> bytes:
        """Give the next piece as it arrives, ``b""`` at the end. Raises ``ChatUnavailableError``."""
        piece = await self._next()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    async def _next(self) -> bytes | BaseException:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await anext(self._pieces, b"")
        except _FAULTS as error:
            await self.close()
            return caused(_unavailable(self._endpoint, error), self._endpoint, error)
        except BaseException as error:  # noqa: BLE001 - it is raised again: a cancellation
            return without_frames(error)

    async def release(self) -> None:
        """Give the connection back when the answer ends here, which shows within ``_END_S`` seconds; else close it."""
        try:
            async with asyncio.timeout(_END_S):
                await anext(self._pieces, b"")
        except _FAULTS:
            pass  # it does not end here, or is broken: closing is what is left
        await self.close()

    async def close(self) -> None:
        """Close the connection at once, unless it was given back."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            try:
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


def _no_netrc(request: httpx.Request) -> httpx.Request:
    """Stand in for authentication, so that no ``.netrc`` entry takes the key's place."""
    return request


def _unavailable(endpoint: Endpoint, error: Exception) -> ChatUnavailableError:
    """Say what failed without the cause's own text, which may hold addresses and headers."""
    if isinstance(error, httpx.ConnectTimeout):
        what = f"did not accept a connection within {endpoint.connect_timeout_s:g} s"
    elif isinstance(error, httpx.TimeoutException):
        what = f"sent nothing for {min(endpoint.read_timeout_s, endpoint.timeout_s):g} s"
    elif isinstance(error, TimeoutError):
        what = f"did not finish its answer within {endpoint.timeout_s:g} s"
    elif isinstance(error, httpx.ConnectError):
        what = "cannot be reached; check the base URL and the network"
    elif isinstance(error, httpx.ReadError | httpx.RemoteProtocolError | httpx.WriteError):
        what = "cut the connection"
    else:
        what = f"failed ({type(error).__name__})"
    return ChatUnavailableError(f"{endpoint.host} {what}")

"""HTTP for asyncio through ``httpx``: the same requests, byte for byte, as the blocking transport."""

from __future__ import annotations

import asyncio
from http.cookiejar import CookieJar, DefaultCookiePolicy

from roleplay.domain.endpoint import Endpoint
from roleplay.errors import ChatUnavailableError, SettingsError
from roleplay.wire.request import WireRequest

try:
    import httpx
except ModuleNotFoundError:
    raise SettingsError("asyncio needs an extra: pip install 'roleplay-engine[async]'") from None

_END_S = 0.1


class HttpxTransport:
    """Carries requests over pooled keep-alive connections, as many at once as there are streams.

    Redirects are not followed, so a key never goes to another host than its own. One event loop at a time.
    """

    def __init__(self, http: httpx.AsyncClient | None = None) -> None:
        """Use ``http``, which its owner closes, or a client of its own."""
        self._owns = http is None
        self._http = http or httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def open(self, endpoint: Endpoint, request: WireRequest) -> HttpxAnswer:
        """Post ``request`` and wait for the head of its answer. Raises ``ChatUnavailableError`` when none comes."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if request.stream else "application/json",
        }
        if endpoint.api_key is not None:
            headers["Authorization"] = f"Bearer {endpoint.api_key.get_secret_value()}"
        timeout = httpx.Timeout(min(endpoint.read_timeout_s, endpoint.timeout_s), connect=endpoint.connect_timeout_s)
        post = self._http.build_request("POST", endpoint.url, content=request.body, headers=headers, timeout=timeout)
        deadline = asyncio.get_running_loop().time() + endpoint.timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._http.send(post, stream=True, follow_redirects=False, auth=_no_netrc)
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise _unavailable(endpoint, error) from error
        return HttpxAnswer(endpoint, response, deadline)

    async def close(self) -> None:
        """Close pooled connections, unless the client came from outside."""
        if self._owns:
            await self._http.aclose()


class HttpxAnswer:
    """An answer over ``httpx``, within its total deadline."""

    def __init__(self, endpoint: Endpoint, response: httpx.Response, deadline: float) -> None:
        self.status = response.status_code
        self.content_type = response.headers.get("Content-Type", "")
        self._endpoint = endpoint
        self._response = response
        self._pieces = response.aiter_bytes()
        self._deadline = deadline

    async def read(self) -> bytes:
        """Give the next piece as it arrives, ``b""`` at the end. Raises ``ChatUnavailableError``."""
        try:
            async with asyncio.timeout_at(self._deadline):
                return await anext(self._pieces, b"")
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            await self.close()
            raise _unavailable(self._endpoint, error) from error

    async def release(self) -> None:
        """Give the connection back when the answer ends here, which shows within ``_END_S`` seconds; else close it."""
        try:
            async with asyncio.timeout(_END_S):
                await anext(self._pieces, b"")
        except (httpx.HTTPError, TimeoutError, OSError):
            pass  # it does not end here, or is broken: closing is what is left
        await self.close()

    async def close(self) -> None:
        """Close the connection at once, unless it was given back."""
        await self._response.aclose()


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

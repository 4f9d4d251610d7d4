"""HTTP through ``requests``: pooled connections, a bearer key, connect, read and total deadlines."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
import weakref
from http.cookiejar import DefaultCookiePolicy
from typing import Any, BinaryIO

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from roleplay.chat.queries import caused, hide
from roleplay.chat.response_head import HEAD_LIMIT, cleaned, is_interim
from roleplay.domain.endpoint import Endpoint
from roleplay.errors import ChatUnavailableError, without_frames
from roleplay.wire.heads import wanted
from roleplay.wire.request import WireRequest
from roleplay.wire.secrets import secrets_of

_POOL = 64
_PIECE_BYTES = 65536
_END_S = 0.1
_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class RequestsTransport:
    """Carries requests over pooled keep-alive connections. Thread-safe.

    Redirects are not followed, so a key never goes to another host than its own.
    """

    def __init__(self, http: requests.Session | None = None) -> None:
        """Use ``http``, which its owner closes, or a session of its own."""
        self._own = _Adapter() if http is None else None
        self._http = http or requests.Session()
        if self._own is not None:
            self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            self._http.mount("https://", self._own)
            self._http.mount("http://", self._own)
        self._prepared: dict[Endpoint, tuple[requests.PreparedRequest, dict[str, Any]]] = {}

    def open(self, endpoint: Endpoint, request: WireRequest) -> RequestsAnswer:
        """Post ``request`` and wait for the head of its answer. Raises ``ChatUnavailableError`` when none comes."""
        answer = self._ask(endpoint, request)
        if isinstance(answer, BaseException):
            raise answer  # here, since the frames where it was made hold the headers
        return answer

    def _ask(self, endpoint: Endpoint, request: WireRequest) -> RequestsAnswer | BaseException:
        try:
            return self._post(endpoint, request)
        except _FAULTS as error:
            return caused(_unavailable(endpoint, error), endpoint, error)
        except BaseException as error:  # noqa: BLE001 - it is raised again: Ctrl-C
            return without_frames(error)

    def _post(self, endpoint: Endpoint, request: WireRequest) -> RequestsAnswer:
        prepared, settings = self._prepare(endpoint)
        post = prepared.copy()
        post.body = request.body
        post.headers["Content-Length"] = str(len(request.body))
        post.headers["Accept"] = "text/event-stream" if request.stream else "application/json"
        deadline = time.monotonic() + endpoint.timeout_s
        timeout: Any = urllib3.Timeout(
            connect=endpoint.connect_timeout_s, read=endpoint.read_timeout_s, total=endpoint.timeout_s
        )
        response = self._http.send(post, timeout=timeout, allow_redirects=False, **settings)
        return RequestsAnswer(endpoint, response, deadline)

    def close(self) -> None:
        """Close all connections, also those that somebody waits on, unless the session came from outside."""
        if self._own is not None:
            self._own.lines.cut()
            self._http.close()

    def _prepare(self, endpoint: Endpoint) -> tuple[requests.PreparedRequest, dict[str, Any]]:
        """Work out once per endpoint what is the same for all its requests: headers, proxies, certificates."""
        found = self._prepared.get(endpoint)
        if found is None:
            given = {name: value.get_secret_value() for name, value in endpoint.headers}
            headers = given | {"Content-Type": "application/json"}
            prepared = requests.Request("POST", endpoint.url, headers=headers, auth=_Bearer(endpoint)).prepare()
            hide(endpoint, str(prepared.url))
            settings = self._http.merge_environment_settings(endpoint.url, {}, stream=True, verify=None, cert=None)
            found = self._prepared[endpoint] = prepared, dict(settings)
        return found


class RequestsAnswer:
    """An answer over ``requests``. No piece is waited for beyond the total deadline."""

    def __init__(self, endpoint: Endpoint, response: requests.Response, deadline: float) -> None:
        self.status = response.status_code
        self.headers = wanted(response.headers.lower_items(), secrets_of(endpoint))
        self._endpoint = endpoint
        self._response = response
        self._deadline = deadline

    def read(self) -> bytes:
        """Give the next piece as it arrives, ``b""`` at the end. Raises ``ChatUnavailableError``."""
        piece = self._next()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def _next(self) -> bytes | BaseException:
        left = self._deadline - time.monotonic()
        if left <= 0:
            self.close()
            return self._too_late()
        try:
            if left < self._endpoint.read_timeout_s and (sock := self._socket()) is not None:
                sock.settimeout(left)
            piece: bytes = self._response.raw.read1(_PIECE_BYTES, decode_content=True)
        except _FAULTS as error:
            self.close()
            late = time.monotonic() >= self._deadline
            told = self._too_late() if late else _unavailable(self._endpoint, error)
            return caused(told, self._endpoint, error)
        except BaseException as error:  # noqa: BLE001 - it is raised again: Ctrl-C
            return without_frames(error)
        return piece

    def release(self) -> None:
        """Give the connection back when the answer ends here, which shows within ``_END_S`` seconds; else close it."""
        try:
            if (sock := self._socket()) is not None:
                sock.settimeout(_END_S)
                self._response.raw.read1(_PIECE_BYTES)
        except _FAULTS:
            pass  # it does not end here, or is broken: closing is what is left
        self._response.close()

    def close(self) -> None:
        """Close the connection at once, unless it was given back; who reads from it in another thread is woken."""
        connection: Any = self._response.raw.connection
        if connection is not None:
            _hang_up(getattr(connection, "wire", connection.sock))
        self._response.close()

    def _socket(self) -> socket.socket | None:
        connection: Any = self._response.raw.connection
        return None if connection is None else connection.sock

    def _too_late(self) -> ChatUnavailableError:
        return ChatUnavailableError(
            f"{self._endpoint.host} did not finish its answer within {self._endpoint.timeout_s:g} s"
        )


class _Bearer(requests.auth.AuthBase):
    """Sets the key itself, so that no ``.netrc`` entry takes its place. A header that was given goes before the key."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._key = endpoint.api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None and "Authorization" not in request.headers:
            request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        return request


class _Lines:
    """The connections of a session, while they live. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, line: Any) -> None:
        with self._lock:
            self._open.add(line)

    def cut(self) -> None:
        with self._lock:
            for line in self._open:
                _hang_up(line.wire)


class _Response(http.client.HTTPResponse):
    """An answer whose head is cleaned before it is read; answers of status 1xx before it are passed over."""

    def begin(self) -> None:
        body: Any = self.fp
        head: Any = io.BytesIO(_head(body))
        self.fp = head
        try:
            super().begin()
        finally:
            self.fp = body


def _head(received: BinaryIO) -> bytes:
    left = HEAD_LIMIT
    while True:
        lines: list[bytes] = []
        while not lines or lines[-1] not in {b"\r\n", b"\n", b""}:
            lines.append(received.readline(left + 1))
            left -= len(lines[-1])
            if left < 0:
                raise http.client.LineTooLong("head")
        head = b"".join(lines)
        if not (lines[-1] and is_interim(head)):
            return cleaned(head)


class _Line(HTTPConnection):
    """A connection that another thread can cut: it keeps hold of its socket, also when an answer took it over."""

    response_class = _Response
    wire: socket.socket | None = None
    lines: _Lines

    def connect(self) -> None:
        super().connect()
        self.wire = self.sock
        self.lines.add(self)


class _SafeLine(_Line, HTTPSConnection):
    """The same with TLS."""


def _hang_up(wire: socket.socket | None) -> None:
    """Cut a connection so that whoever reads from it is woken; closing alone leaves a reader waiting."""
    if wire is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(wire, socket.SHUT_RDWR)  # of TLS, its own method would wait for the reader


class _Adapter(HTTPAdapter):
    """Sends over connections that can be cut. Which pool of them leads to a server is worked out once,
    as long as the manager keeps it."""

    def __init__(self) -> None:
        super().__init__(pool_connections=_POOL, pool_maxsize=_POOL, max_retries=0)
        self.lines = _Lines()
        self._found: weakref.WeakValueDictionary[tuple[object, ...], Any] = weakref.WeakValueDictionary()
        self.poolmanager.pool_classes_by_scheme = {
            scheme: type(pool.__name__, (pool,), {"ConnectionCls": type(line.__name__, (line,), {"lines": self.lines})})
            for scheme, pool, line in (("http", HTTPConnectionPool, _Line), ("https", HTTPSConnectionPool, _SafeLine))
        }

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        key = request.url, verify, cert, *(proxies or {}).items()
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return found


def _unavailable(endpoint: Endpoint, error: Exception) -> ChatUnavailableError:
    """Say what failed without the cause's own text, which may hold addresses and headers."""
    cause = error.args[0] if type(error) is requests.ConnectionError and error.args else error
    if isinstance(error, requests.ConnectTimeout):
        what = f"did not accept a connection within {endpoint.connect_timeout_s:g} s"
    elif isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        what = f"sent nothing for {min(endpoint.read_timeout_s, endpoint.timeout_s):g} s"
    elif isinstance(error, requests.exceptions.SSLError):
        what = "has no certificate that this machine trusts"
    elif isinstance(cause, requests.exceptions.ChunkedEncodingError | urllib3.exceptions.ProtocolError):
        what = "cut the connection"
    elif isinstance(error, requests.ConnectionError):
        what = "cannot be reached; check the base URL and the network"
    else:
        what = f"failed ({type(error).__name__})"
    return ChatUnavailableError(f"{endpoint.host} {what}")

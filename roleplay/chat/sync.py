"""HTTP through ``requests``: pooled connections, a bearer key, connect, read and total deadlines."""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import queue
import socket
import ssl
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from roleplay.chat.overload import shortage
from roleplay.chat.queries import caused, hide
from roleplay.chat.response_head import HEAD_LIMIT, cleaned, is_interim, parted
from roleplay.chat.surroundings import is_untrusted, needs_trust, proxy_for, trusted, who_is_untrusted
from roleplay.domain.endpoint import Endpoint
from roleplay.errors import ChatError, ChatUnavailableError, SettingsError, without_frames
from roleplay.wire.codings import Unpacker
from roleplay.wire.heads import wanted
from roleplay.wire.request import WireRequest
from roleplay.wire.secrets import Secrets, secrets_of

_POOL = 64
_PIECE_BYTES = 65536
_END_S = 0.1
_OF_A_BODY = frozenset({"content-length", "accept"})
_LATE = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)


class _Clock(threading.local):
    """Of the exchange that a thread begins: its deadline, as ``time.monotonic()`` tells it, and whether a byte came.

    ``end`` is until when the thread waits for the end of an answer that it has read.
    """

    deadline: float | None = None
    heard = False
    end = math.inf


_clock = _Clock()


class _Prepared(NamedTuple):
    """What is the same for all requests to an endpoint: address and headers, how ``requests`` sends them, what no
    answer may show."""

    request: requests.PreparedRequest
    headers: dict[str, str]
    settings: dict[str, Any]
    secrets: Secrets


class RequestsTransport:
    """Carries requests over pooled keep-alive connections. Thread-safe.

    Redirects are not followed, so a key never goes to another host than its own.
    """

    def __init__(self, http: requests.Session | None = None) -> None:
        """Use ``http``, which its owner closes, or connections of its own, over which no cookie is kept or sent."""
        self._http = _Adapter() if http is None else http
        self._prepared: dict[Endpoint, _Prepared] = {}

    def check(self, endpoint: Endpoint) -> None:
        """See that ``endpoint`` can be reached as the environment says. Raises ``SettingsError``."""
        if isinstance(self._http, _Adapter) and needs_trust(endpoint.url, proxy_for(endpoint.url)):
            self._http.trust()

    def open(
        self, endpoint: Endpoint, request: WireRequest, sent: Callable[[], object] | None = None
    ) -> RequestsAnswer:
        """Post ``request`` and wait for the head of its answer. Raises ``ChatUnavailableError`` when none comes.

        ``sent`` is called when the request was sent, unless the session came from outside.
        """
        answer = self._ask(endpoint, request, sent)
        if isinstance(answer, BaseException):
            raise answer  # here, since the frames where it was made hold the headers
        return answer

    def _ask(
        self, endpoint: Endpoint, request: WireRequest, sent: Callable[[], object] | None
    ) -> RequestsAnswer | BaseException:
        deadline = _clock.deadline = time.monotonic() + endpoint.timeout_s
        _clock.heard = False
        if isinstance(self._http, _Adapter):
            self._http.lines.here.sent = sent
        try:
            return self._post(endpoint, request, deadline)
        except Exception as error:  # noqa: BLE001 - whatever the libraries raise, no answer comes
            late = _clock.heard or not isinstance(error, _LATE)
            return caused(_failed(endpoint, error, deadline if late else math.inf), endpoint, error)
        except BaseException as error:  # noqa: BLE001 - it is raised again: Ctrl-C
            return without_frames(error)
        finally:
            _clock.deadline = None

    def _post(self, endpoint: Endpoint, request: WireRequest, deadline: float) -> RequestsAnswer:
        prepared, common, settings, secrets = self._prepare(endpoint)
        post = requests.PreparedRequest()
        post.method, post.url, post.hooks, post.body = prepared.method, prepared.url, prepared.hooks, request.body
        length, kind = str(len(request.body)), "text/event-stream" if request.stream else "application/json"
        headers: Any = {**common, "Content-Length": length, "Accept": kind}
        post.headers = headers if isinstance(self._http, _Adapter) else CaseInsensitiveDict(headers)
        timeout: Any = urllib3.Timeout(
            connect=endpoint.connect_timeout_s, read=endpoint.read_timeout_s, total=endpoint.timeout_s
        )
        response = self._http.send(post, timeout=timeout, **settings)
        return RequestsAnswer(endpoint, response, deadline, secrets)

    def close(self) -> None:
        """Close all connections, also those that somebody waits on, unless the session came from outside."""
        if isinstance(self._http, _Adapter):
            self._http.lines.cut()
            self._http.close()

    def _prepare(self, endpoint: Endpoint) -> _Prepared:
        """Work out once per endpoint what is the same for all its requests: headers, proxies, certificates."""
        found = self._prepared.get(endpoint)
        if found is None:
            given = {name: value.get_secret_value() for name, value in endpoint.headers}
            headers = given | {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            prepared = requests.Request("POST", endpoint.url, headers=headers, auth=_Bearer(endpoint)).prepare()
            hide(endpoint, str(prepared.url))
            common = {name: value for name, value in prepared.headers.items() if name.lower() not in _OF_A_BODY}
            found = _Prepared(prepared, common, self._settings(endpoint), secrets_of(endpoint))
            self._prepared[endpoint] = found
        return found

    def _settings(self, endpoint: Endpoint) -> dict[str, Any]:
        """Give how requests to ``endpoint`` are sent. A session from outside has ways of its own."""
        if not isinstance(self._http, _Adapter):
            asked = self._http.merge_environment_settings(endpoint.url, {}, stream=True, verify=None, cert=None)
            return {"allow_redirects": False, **asked}
        proxy = proxy_for(endpoint.url)
        proxies = {} if proxy is None else {urlsplit(endpoint.url).scheme: proxy}
        return {"proxies": proxies, "stream": True, "verify": True, "cert": None}


class RequestsAnswer:
    """An answer over ``requests``. No piece is waited for beyond the total deadline."""

    def __init__(self, endpoint: Endpoint, response: requests.Response, deadline: float, secrets: Secrets) -> None:
        self.status = response.status_code
        heard = ((name.lower(), value) for name, value in response.headers.items())
        self.headers = wanted(heard, secrets)
        self._endpoint = endpoint
        self._response = response
        self._deadline = deadline
        self._body = Unpacker(self.headers)

    def read(self) -> bytes:
        """Give the next piece as it arrives, ``b""`` at the end. Raises ``ChatUnavailableError`` and
        ``BadReplyError``."""
        piece = self._next()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def _next(self) -> bytes | BaseException:
        try:
            while not (piece := self._take()):
                raw: bytes = self._response.raw.read1(_PIECE_BYTES, decode_content=False)
                if not raw:
                    if self._body.is_cut:
                        raise urllib3.exceptions.ProtocolError  # noqa: TRY301 - told as any other cut
                    return b""
                self._body.feed(raw)
        except ChatError as error:
            self.close()
            return without_frames(error)
        except Exception as error:  # noqa: BLE001 - whatever the libraries raise, no more of it comes
            self.close()
            return caused(_failed(self._endpoint, error, self._deadline), self._endpoint, error)
        except BaseException as error:  # noqa: BLE001 - it is raised again: Ctrl-C
            return without_frames(error)
        return piece

    def _take(self) -> bytes:
        """Give what is left of what came. Raises ``TimeoutError`` beyond the deadline."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if not (piece := self._body.take()) and left < self._endpoint.read_timeout_s and (sock := self._socket()):
            sock.settimeout(left)  # for a session from outside
        return piece

    def release(self) -> None:
        """Give the connection back when the answer ends here, which shows within ``_END_S`` seconds; else close it."""
        try:
            if (sock := self._socket()) is not None:
                sock.settimeout(_END_S)
                _clock.end = time.monotonic() + _END_S
                self._response.raw.read1(_PIECE_BYTES, decode_content=False)
        except Exception:  # noqa: BLE001, S110
            pass  # it does not end here, or is broken: closing is what is left
        finally:
            _clock.end = math.inf
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


class _Bearer(requests.auth.AuthBase):
    """Sets the key itself, so that no ``.netrc`` entry takes its place. A header that was given goes before the key."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._key = endpoint.api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None and "Authorization" not in request.headers:
            request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        return request


class _Lines:
    """The connections of a session, while they live. Thread-safe. ``here.sent``: what a thread is to call when its
    request was sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.here = threading.local()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, line: Any) -> None:
        with self._lock:
            self._open.add(line)

    def cut(self) -> None:
        with self._lock:
            for line in self._open:
                _hang_up(line.wire)


def _keep_to_the_deadline(sock: socket.socket, deadline: float | None) -> None:
    """Let no call on ``sock`` take longer than the exchange has left. Raises ``TimeoutError`` where that is nothing."""
    if deadline is None:
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    timeout = sock.gettimeout()
    if timeout is None or left < timeout:
        sock.settimeout(left)


def _connected(host: str, port: int, timeout_s: float, deadline: float, options: Any) -> socket.socket:
    """Connect to the first address of ``host`` that accepts, each within ``timeout_s``, all before ``deadline``."""
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in _addresses(host, port, min(time.monotonic() + timeout_s, deadline)):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a kind of address that this machine does not have
            failure = error
            continue
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(timeout_s)
            _keep_to_the_deadline(sock, deadline)
            sock.connect(address)
            _keep_to_the_deadline(sock, deadline)  # what is left is for TLS
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _addresses(host: str, port: int, give_up: float) -> list[Any]:
    """Look up a name, in a thread of its own, since nothing else bounds it. Raises ``TimeoutError`` after ``give_up``,
    as ``time.monotonic()`` tells it."""
    host = host.strip("[]")

    def look_up() -> list[Any]:
        return socket.getaddrinfo(host, port, urllib3.util.connection.allowed_gai_family(), socket.SOCK_STREAM)

    if ":" in host or host.replace(".", "").isdigit():
        return look_up()
    found: queue.SimpleQueue[list[Any] | BaseException] = queue.SimpleQueue()

    def tell() -> None:
        try:
            found.put(look_up())
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            found.put(error)

    threading.Thread(target=tell, name="roleplay-name", daemon=True).start()
    try:
        told = found.get(timeout=max(give_up - time.monotonic(), 0.001))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(told, BaseException):
        raise told
    return told


class _Timed(io.RawIOBase):
    """What comes over a connection, until the deadline: a byte now and then makes it no later."""

    def __init__(self, sock: socket.socket, inner: io.RawIOBase, deadline: float) -> None:
        self._sock = sock
        self._inner = inner
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        before, _clock.end = _clock.end, min(self._deadline, _clock.end)
        try:
            _keep_to_the_deadline(self._sock, _clock.end)
            count: int | None = self._inner.readinto(buffer)
        finally:
            _clock.end = before
        _clock.heard = _clock.heard or bool(count)
        return count

    def close(self) -> None:
        super().close()
        self._inner.close()


class _Response(http.client.HTTPResponse):
    """An answer that is read until its deadline, and whose head is cleaned before it is read; answers of status 1xx
    before it are passed over."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if _clock.deadline is not None:
            self.fp = io.BufferedReader(_Timed(sock, self.fp.detach(), _clock.deadline))

    def begin(self) -> None:
        """Read the head. What there is to know of it is that of ``http.client``, whose own way is to parse it as a
        message of mail, which takes longer than all the rest."""
        known: Any = self.headers
        if known is not None:
            return
        body: Any = self.fp
        head = _head(body)
        found = parted(head)
        if found is None:
            self._begin_as_mail(body, head)
            return
        self.version, self.status, self.reason, lines = found
        self.code = self.status
        self.headers = self.msg = http.client.HTTPMessage()
        for name, value in lines:
            self.headers[name] = value
        self.chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.will_close = bool(self._check_close())  # type: ignore[attr-defined] # not in typeshed
        length = None if self.chunked else self.headers.get("content-length")
        self.length = int(length) if length and length.isdecimal() else None
        if self.status in {204, 304}:
            self.length = 0
        self.will_close = self.will_close or (not self.chunked and self.length is None)

    def _begin_as_mail(self, body: Any, head: bytes) -> None:
        self.fp = io.BytesIO(head)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            self.fp = body


def _head(received: io.BufferedReader) -> bytes:
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
    _behind_head: bytes = b""

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Send a body that is there as a whole in one piece with the head."""
        whole = isinstance(body, bytes) and not options.get("chunked")
        self._behind_head = body if whole else b""
        super().request(method, url, None if whole else body, headers, **options)

    def _new_conn(self) -> socket.socket:
        """Connect as ``urllib3`` does, but so that a slow look-up of the name, or many addresses that do not answer,
        keep to the deadline."""
        if _clock.deadline is None or not isinstance(self.timeout, int | float):
            return super()._new_conn()
        try:
            return _connected(self.host, self.port, self.timeout, _clock.deadline, self.socket_options or ())
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "the time for connecting is over") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, f"no connection: {error}") from error

    def connect(self) -> None:
        super().connect()
        self.wire = getattr(self.sock, "socket", self.sock)  # the latter: of TLS within TLS
        self.lines.add(self)

    def send(self, data: Any) -> None:
        body, self._behind_head = self._behind_head, b""  # a proxy is asked before for a way through, without it
        if self.sock is None:
            self.connect()  # it may take some of the time
        _keep_to_the_deadline(self.sock, _clock.deadline)
        super().send(data + body if body else data)

    def getresponse(self) -> Any:
        sent, self.lines.here.sent = getattr(self.lines.here, "sent", None), None
        if sent is not None:
            sent()
        return super().getresponse()


class _SafeLine(_Line, HTTPSConnection):
    """The same with TLS."""

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        """Have TLS within TLS keep to the deadline, which it would begin anew with each piece that it waits for."""
        outer: Any = super()._connect_tls_proxy(hostname, sock)

        def receive(*args: Any) -> bytes:
            _keep_to_the_deadline(outer, min(_clock.deadline or math.inf, _clock.end))
            return ssl.SSLSocket.recv(outer, *args)

        def send(*args: Any) -> None:
            _keep_to_the_deadline(outer, _clock.deadline)
            ssl.SSLSocket.sendall(outer, *args)

        outer.recv, outer.sendall = receive, send
        return outer  # type: ignore[no-any-return]


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
        self._urls: dict[tuple[object, ...], str] = {}
        self._trusted: ssl.SSLContext | None = None
        self._pools = self.poolmanager.pool_classes_by_scheme = {
            scheme: type(pool.__name__, (pool,), {"ConnectionCls": type(line.__name__, (line,), {"lines": self.lines})})
            for scheme, pool, line in (("http", HTTPConnectionPool, _Line), ("https", HTTPSConnectionPool, _SafeLine))
        }

    def trust(self) -> ssl.SSLContext:
        """Give what all connections trust, loaded when the first needs it. Raises ``SettingsError``."""
        self._trusted = self._trusted or trusted()
        return self._trusted

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        trust = self.trust() if host["scheme"] == "https" else self._trusted  # the latter: for a proxy
        return host, pool if trust is None else {**pool, "ssl_context": trust}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave to a connection what the pool was made with."""

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Make an answer of the parts that are read. Cookies are not kept."""
        response = requests.Response()
        response.status_code, response.headers, response.raw, response.request = resp.status, resp.headers, resp, req
        return response

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        key = request.url, *(proxies or {}).items()
        found = self._urls.get(key)
        if found is None:
            found = self._urls[key] = super().request_url(request, proxies)
        return found

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        if needs_trust("", proxy):
            proxy_kwargs["proxy_ssl_context"] = self.trust()
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        key = request.url, verify, cert, *(proxies or {}).items()
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return found


def _failed(endpoint: Endpoint, error: Exception, deadline: float) -> ChatUnavailableError:
    """Say what failed without the cause's own text, which may hold addresses and headers."""
    if isinstance(error, SettingsError):  # of the environment, for an endpoint that nobody named when the engine opened
        return ChatUnavailableError(f"{endpoint.host} cannot be reached: {error}")
    if lacks := shortage(error):
        return ChatUnavailableError(f"{lacks}: no connection to {endpoint.host} could be opened")
    what = who_is_untrusted(endpoint.url) if is_untrusted(error) else _what_failed(endpoint, error, deadline)
    return ChatUnavailableError(f"{endpoint.host} {what}")


def _what_failed(endpoint: Endpoint, error: Exception, deadline: float) -> str:
    cause = error.args[0] if type(error) is requests.ConnectionError and error.args else error
    if isinstance(error, requests.ConnectTimeout):
        return f"did not accept a connection within {min(endpoint.connect_timeout_s, endpoint.timeout_s):g} s"
    if time.monotonic() >= deadline:
        return f"did not finish its answer within {endpoint.timeout_s:g} s"
    for kinds, what in (
        (_LATE, f"sent nothing for {min(endpoint.read_timeout_s, endpoint.timeout_s):g} s"),
        (requests.exceptions.SSLError, "has no certificate that this machine trusts"),
        (requests.exceptions.ProxyError, "cannot be reached through the proxy that the environment names"),
        (zlib.error, "sent an answer that is not packed as it says"),
    ):
        if isinstance(error, kinds):
            return what
    if isinstance(cause, requests.exceptions.ChunkedEncodingError | urllib3.exceptions.ProtocolError):
        return "cut the connection"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached; check the base URL and the network"
    return f"failed ({type(error).__name__})"

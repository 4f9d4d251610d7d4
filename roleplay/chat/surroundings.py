"""What the machine says of the way to an endpoint: the proxy to go through, and the certificates to trust.

Both transports ask here, so that the same variables mean the same in both, and what cannot be used is told by its name
before a model is spoken to.
"""

from __future__ import annotations

import os
import platform
import re
import ssl
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import certifi

from roleplay.errors import SettingsError
from roleplay.settings import environment, is_loopback

CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""The variables that name certificates to trust in place of those of ``certifi``; the first that is set counts."""

_PORTS = {"http": 80, "https": 443}
_BLANKS = re.compile(r"[\s,]+")
_IN_A_FOLDER = re.compile(r"[0-9a-f]{8}\.\d+")
_A_BUNDLE = "name a file of certificates in PEM, or unset it"
_A_PROXY = "write an address such as http://127.0.0.1:8080, or unset it; NO_PROXY names hosts that need no proxy"


def proxy_for(url: str) -> str | None:
    """Give the proxy through which ``url`` is reached, ``http://host:port`` or ``https://host:port``, or ``None`` where
    none is needed.

    The variable of the URL's scheme counts, such as ``HTTPS_PROXY``, then ``ALL_PROXY``, each first in lower case.
    ``NO_PROXY`` names hosts that are reached without one. This machine is never reached through a proxy.

    Raises ``SettingsError`` where a variable that counts cannot be used.
    """
    if is_loopback(url):
        return None
    environ = environment()
    parts = urlsplit(url)
    host = parts.hostname or ""
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        said, address = _variable(environ, name)
        if address:
            port = parts.port or _PORTS.get(parts.scheme)
            return None if _is_bypassed(environ, host, port) else _usable(said, address)
    return _of_the_system(parts.scheme, host)


def needs_trust(url: str, proxy: str | None) -> bool:
    """Whether TLS is spoken on the way to ``url``: with its server, or with the proxy."""
    return any(one.lower().startswith("https:") for one in (url, proxy or ""))


def is_untrusted(error: BaseException | None) -> bool:
    """Whether an error came from a certificate that is not trusted."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        inner = [one for one in (*error.args, getattr(error, "reason", None)) if isinstance(one, BaseException)]
        error = inner[0] if inner else error.__cause__ or error.__context__
    return error is not None


def who_is_untrusted(url: str) -> str:
    """Say what is not trusted on the way to ``url``, as the end of a sentence that begins with its host."""
    try:
        whose = "or the proxy before it " if needs_trust("", proxy_for(url)) else ""
    except SettingsError:  # then the way was somebody else's choice
        whose = ""
    return f"{whose}has no certificate that this machine trusts"


def trusted() -> ssl.SSLContext:
    """Give what is trusted to tell who a server is: the certificates that the environment names, else ``certifi``'s.

    Raises ``SettingsError`` where what it names is not there or holds no certificate, also for a file whose variable
    does not count: other programs, and other versions of this one, read it.
    """
    environ = environment()
    named = [(name, value) for name in CERTIFICATES if (value := environ.get(name))] or [("", certifi.where())]
    context = _trusting(environ, *named[0])
    for name, path in named[1:]:
        if name != "SSL_CERT_DIR" and path != named[0][1]:
            _trusting(environ, name, path)
    return context


def _trusting(environ: Mapping[str, str], name: str, path: str) -> ssl.SSLContext:
    try:
        if name == "SSL_CERT_DIR" or Path(path).is_dir():
            if not any(map(_holds_certificates, path.split(os.pathsep))):
                raise SettingsError(f"{name} is {path!r}, where no certificate stands under its hash; {_A_BUNDLE}")
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:  # also those of TLS, and a path with a NUL
        keys = environ.get("SSLKEYLOGFILE")
        if keys and getattr(error, "filename", None) == keys:
            raise SettingsError(f"SSLKEYLOGFILE is {keys!r}, which cannot be written; unset it") from None
        if not name:
            raise SettingsError("the certificates of this Python cannot be loaded; install certifi anew") from None
        why = "which holds no certificate" if isinstance(error, ssl.SSLError) else "which cannot be read"
        raise SettingsError(f"{name} is {path!r}, {why}; {_A_BUNDLE}") from None


def _holds_certificates(folder: str) -> bool:
    path = Path(folder)
    return path.is_dir() and any(_IN_A_FOLDER.fullmatch(file.name) for file in path.iterdir())


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """Give a variable by its name in lower case or upper case, and its value, ``""`` where it says nothing.

    In a CGI program ``HTTP_PROXY`` is a header of whoever asks.
    """
    if name in environ or (name == "http_proxy" and "REQUEST_METHOD" in environ):
        return name, environ.get(name, "").strip()
    return name.upper(), environ.get(name.upper(), "").strip()


def _usable(name: str, value: str) -> str:
    """Give the address of a proxy with its scheme. Raises ``SettingsError``, which shows no password."""
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        port, host = parts.port, parts.hostname
        (host or "").encode("idna")
    except ValueError:  # also what no name of a host can be
        raise SettingsError(f"{name} is no address of a proxy; {_A_PROXY}") from None
    if parts.scheme not in _PORTS:
        raise SettingsError(
            f"{name} names a proxy of the kind {parts.scheme}://, and only http:// and https:// are spoken; {_A_PROXY}"
        )
    if not host or port == 0 or re.search(r"[\s\\\x00-\x1f\x7f]", value):
        raise SettingsError(f"{name} is no address of a proxy; {_A_PROXY}")
    return address


def _is_bypassed(environ: Mapping[str, str], host: str, port: int | None) -> bool:
    name, value = _variable(environ, "no_proxy")
    rules = [rule.lower() for rule in _BLANKS.split(value) if rule]
    if bad := next((rule for rule in rules if "[" in rule or "]" in rule), None):
        raise SettingsError(f"{name} holds {bad[:100]!r}; write an address without brackets, such as ::1")
    return any(_is_meant(rule, host, port) for rule in rules)


def _is_meant(rule: str, host: str, port: int | None) -> bool:
    if rule == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        name = rule.removeprefix("*").removeprefix(".")
        whole = host if port is None else f"{host}:{port}"
        return bool(name) and any(one == name or one.endswith(f".{name}") for one in (host, whole))
    try:
        return address in ip_network(rule, strict=False)
    except ValueError:
        return rule == f"{host}:{port}"


def _of_the_system(scheme: str, host: str) -> str | None:
    """Give the proxy that the settings of macOS or Windows name, where the environment names none."""
    if platform.system() not in {"Darwin", "Windows"}:
        return None
    from requests.compat import getproxies, proxy_bypass  # noqa: PLC0415 - asyncio needs nothing else of it

    found = None if proxy_bypass(host) else getproxies().get(scheme)
    return _usable(f"the system's {scheme} proxy", found) if found else None

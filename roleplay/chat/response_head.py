"""The head of an answer as both transports read it: without what one library takes and another one refuses.

Proxies send a second ``Transfer-Encoding``, lines that are no header, and answers of status 1xx before the real one.
``http.client`` ends the head at such a line and loses what comes after; ``h11`` refuses the answer.
"""

from __future__ import annotations

import re

HEAD_LIMIT = 64 * 1024
"""The bytes that a head and all 1xx answers before it may have together."""

_MOST_LINES = 90
"""The headers that are kept of a head; ``http.client`` refuses more than 100, ``h11`` none."""

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_FINE = re.compile(rb"HTTP/1\.[01] [2-9]\d\d(?: %b)?\r?\n(?:%b:%b\r?\n)*\r?\n" % (_TEXT, _NAME, _TEXT))
_BEGIN = re.compile(r"HTTP/1\.[01] [2-9]\d\d(?: .*)?", re.DOTALL)
_STATUS = re.compile(rb"(HTTP/1\.[01])[ \t]+(\d{3})(?:[ \t]+(.*))?", re.DOTALL)
_LINE = re.compile(rb"(%b)[ \t]*:[ \t]*(%b)" % (_NAME, _TEXT))
_INTERIM = re.compile(rb"HTTP/1\.[01] 1\d\d\b")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = re.compile(rb"\n(?:transfer-encoding|content-length):", re.IGNORECASE)
_PLAIN_FRAMING = re.compile(rb"\n(?:transfer-encoding: ?chunked|content-length: ?\d+)\r?\n", re.IGNORECASE)
_END = re.compile(rb"\r?\n\r?\n")


def end_of_head(received: bytes, known: int = 0) -> int:
    """Give where the first head in ``received`` ends, its empty line included; 0 while its end has not come, as it
    had not in the first ``known`` bytes."""
    found = _END.search(received, max(known - 3, 0))
    return found.end() if found else 0


def is_interim(head: bytes) -> bool:
    """Whether a head is that of a 1xx answer, which has no body and comes before the real one."""
    return _INTERIM.match(head) is not None


def _is_fine(head: bytes) -> bool:
    framing = _FRAMING.findall(head)
    plain = not framing or (len(framing) == 1 and _PLAIN_FRAMING.search(head) is not None)
    return plain and head.count(b"\n") <= _MOST_LINES and _FINE.fullmatch(head) is not None


def parted(head: bytes) -> tuple[int, int, str, list[tuple[str, str]]] | None:
    """Part a cleaned head into its version (10 or 11), status, reason, and headers with their values; ``None`` for what
    is no head of HTTP."""
    begin, *lines = head.decode("iso-8859-1").replace("\r\n", "\n").rstrip("\n").split("\n")
    if not _BEGIN.fullmatch(begin):
        return None
    version, status, reason = (*begin.split(None, 2), "")[:3]
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name, value.lstrip(" \t")))
    return 10 if version.endswith("0") else 11, int(status), reason.strip(), headers


def cleaned(head: bytes) -> bytes:
    """Give a head that every library reads in the same way.

    Lines that are no header are left out, and those after the first 90. Of several ``Content-Length`` the first number
    counts; several ``Transfer-Encoding`` become one.
    """
    if _is_fine(head):
        return head
    status, *lines = head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    if found := _STATUS.fullmatch(status):
        status = b"%b %b %b" % (found[1], found[2], _CONTROL.sub(b"", found[3] or b""))
    kept = [status]
    codings: list[bytes] = []
    length = b""
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        name, value = found[1].lower(), found[2].strip()
        if name == b"transfer-encoding":
            codings += (one.strip().lower() for one in value.split(b","))
        elif name == b"content-length":
            length = length or (value if value.isdigit() else b"")
        else:
            kept.append(found[1] + b": " + value)
    del kept[_MOST_LINES:]
    others = [one for one in dict.fromkeys(codings) if one not in {b"", b"identity"}]
    if others:
        kept.append(b"Transfer-Encoding: " + b", ".join(others))
    elif length:
        kept.append(b"Content-Length: " + length)
    return b"\r\n".join([*kept, b"", b""])

"""How a reply's bytes are cut into JSON documents: server-sent events, or one body."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from roleplay.errors import BadReplyError
from roleplay.wire.secrets import NONE, TEXT_LIMIT, Secrets
from roleplay.wire.words import service_words

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_LIMIT = 4 * 1024 * 1024
BODY_LIMIT = 5_500_000  # reading a body takes some ten times its size
REPLY_LIMIT = 16 * 1024 * 1024

_BLANK = b" \t\r\n\xef\xbb\xbf"  # white space and the byte order mark
_DATA_LINES = (b"data:", b"{")
_FIELDS = (b"data:", b":", b"event:", b"id:", b"retry:", b"error:")


class Frame(NamedTuple):
    """One document of an answer: its ``data``, and of an event also its ``kind`` (the field ``event``) and what stood
    in a field ``error``, ``None`` where there was no such field."""

    data: bytes
    kind: bytes = b""
    error: bytes | None = None


class Body:
    """One document that ends with the bytes. ``limit`` bounds its length in bytes."""

    def __init__(self, limit: int, secrets: Secrets = NONE) -> None:
        self._limit = limit
        self._secrets = secrets
        self._chunks: list[bytes] = []
        self.size = 0

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Keep ``chunk``; nothing is complete before the end.

        Raises:
            BadReplyError: the body is longer than ``limit``.
        """
        self._chunks.append(chunk)
        self.size += len(chunk)
        if self.size > self._limit:
            raw, self._chunks = readable(self.finish().data, self._secrets), []
            raise BadReplyError(f"the reply is longer than {self._limit} bytes", raw=raw)
        return iter(())

    def finish(self) -> Frame:
        """Give the whole body."""
        self._chunks = [b"".join(self._chunks)]  # so that it is held once
        return Frame(self._chunks[0])


class Events:
    """Server-sent events, as frames of bytes, whatever their line ends and wherever the chunks break.

    The fields ``data``, ``event`` and ``error`` are read; the last is not in the standard, but some servers report a
    failure in it. A line that begins with ``{`` is data too: servers that fail may write their JSON without a field
    name. Comments and other fields are passed over. Servers also leave out the empty line between two events: a line
    of data that follows a whole JSON object begins a new one.

    ``limit`` bounds a line, and an event's lines together, in bytes.
    """

    def __init__(self, limit: int, secrets: Secrets = NONE) -> None:
        self._limit = limit
        self._secrets = secrets
        self._line: list[bytes] = []
        self._line_size = 0
        self._data: list[bytes] = []
        self._errors: list[bytes] = []
        self._kind = self._kind_behind = b""  # where "event" stood: before the data, or behind it
        self._size = 0
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Give each event that ``chunk`` completes.

        Raises:
            BadReplyError: a line or an event is longer than ``limit``.
        """
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        for part in chunk.splitlines(keepends=True):
            self._grow(part)
            if part.endswith((b"\n", b"\r")) and (event := self._end_line()) is not None:
                yield event

    def finish(self) -> Iterator[Frame]:
        """Give what the end of the bytes left open, once."""
        if self._line and (event := self._end_line()) is not None:
            yield event
        yield self._end_event()

    def _grow(self, part: bytes) -> None:
        self._line.append(part)
        self._line_size += len(part.rstrip(b"\r\n"))
        if self._line_size + self._size > self._limit:
            raw = readable(b"".join(self._line)[: self._limit], self._secrets)
            raise BadReplyError(f"a line of the stream is longer than {self._limit} bytes", raw=raw)

    def _end_line(self) -> Frame | None:
        line = b"".join(self._line).rstrip(b"\r\n")
        self._line, self._line_size = [], 0
        event = _NOTHING
        if not line:
            event = self._end_event()
        elif line.startswith(_DATA_LINES) and len(self._data) == 1 and is_json(self._data[0]):
            next_kind, self._kind_behind = self._kind_behind, b""
            event = self._end_event()
            self._kind = next_kind
        if line:
            self._field(line)
        return event if event != _NOTHING else None

    def _end_event(self) -> Frame:
        errors = b"\n".join(self._errors) if self._errors else None
        event = Frame(b"\n".join(self._data), self._kind_behind or self._kind, errors)
        self._data, self._errors, self._size = [], [], 0
        self._kind = self._kind_behind = b""
        return event

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line.startswith(b"{"):
            self._data.append(line)
        elif name == b"data":
            self._data.append(value)
        elif name == b"error":
            self._errors.append(value)
        elif name == b"event" and self._data:
            self._kind_behind = value.strip()
            return
        elif name == b"event":
            self._kind = value.strip()
            return
        else:
            return
        self._size += len(line) + 1


_NOTHING = Frame(b"")
_DECODER = json.JSONDecoder(strict=False)


def is_json(data: bytes) -> bool:
    """Whether ``data`` is a whole JSON object or list."""
    try:
        return isinstance(_DECODER.decode(data.decode(errors="replace").strip()), dict | list)
    except (ValueError, RecursionError):
        return False


def without_blank_start(head: bytes) -> bytes:
    """Give the first bytes of a reply without white space and byte order mark, which no document needs."""
    return head.lstrip(_BLANK)


def looks_like_events(content_type: str, head: bytes) -> bool | None:
    """Say whether a reply that begins with ``head`` is a stream of events; ``None`` when more bytes are needed.

    The bytes count for more than the content type: proxies and errors often name a wrong one.
    """
    if not head:
        return None
    if head[:1] in {b"{", b"[", b"<"}:
        return False
    if "text/event-stream" in content_type.lower() or head.startswith(_FIELDS):
        return True
    return None if any(field.startswith(head) for field in _FIELDS) else False


def readable(data: bytes, secrets: Secrets) -> str:
    """Give the beginning of ``data`` as text for an error, without ``secrets`` and keys."""
    return service_words(data[: 2 * TEXT_LIMIT].decode(errors="replace"), 500, secrets)

"""How the body of an answer is packed, and how it is unpacked piece by piece.

No coding is asked for. A server may use one all the same: one ``gzip`` or one ``deflate`` is unpacked, in small pieces
and up to a bound, so that no few bytes of a server become many of ours. Everything else is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from roleplay.errors import BadReplyError
from roleplay.wire.sse import REPLY_LIMIT
from roleplay.wire.words import service_words

PIECE_BYTES = 8 * 1024
"""The longest piece that is read at once: of such a piece, even events of a few bytes take no long time to read."""

_GZIP = 16 + zlib.MAX_WBITS
_TAKEN = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_MAGIC = b"\x1f\x8b"


def coding_of(headers: Mapping[str, str]) -> str | None:
    """Give the coding of a body, ``gzip`` or ``deflate``, or ``None`` where it is not packed.

    Raises:
        BadReplyError: it is packed in another way, or more than once.
    """
    said = headers.get("content-encoding")
    if not said:
        return None
    named = [name for part in said.lower().split(",") if (name := part.strip()) not in {"", "identity"}]
    if not named:
        return None
    if len(named) > 1 or named[0] not in _TAKEN:
        raise BadReplyError(
            f"the answer has the Content-Encoding {service_words(said, 60)!r}, which was not asked for; only a single "
            "gzip or deflate is read"
        )
    return _TAKEN[named[0]]


class Unpacker:
    """Unpacks a body within bounds: ``feed`` it what came, then ``take`` pieces until there is none.

    ``limit`` bounds what a packed body may have together, in bytes.
    """

    def __init__(self, headers: Mapping[str, str], *, limit: int = REPLY_LIMIT) -> None:
        self._headers = headers
        self._coding: str | None = None
        self._limit = self._left = limit
        self._held = b""
        self._member: zlib._Decompress | None = None
        self._has_more = self._again = self._ended = False

    @property
    def is_cut(self) -> bool:
        """Whether the body ended, when no more comes, within what was packed."""
        return self._member is not None or (self._coding is not None and bool(self._held) and not self._again)

    def feed(self, raw: bytes) -> None:
        """Add what came.

        Raises:
            BadReplyError: the body has a coding that is not read.
        """
        self._coding = coding_of(self._headers)
        if not self._ended:
            self._held += raw

    def take(self) -> bytes:
        """Give the next piece, at most ``PIECE_BYTES`` long; ``b""`` where more has to be fed first.

        Raises:
            BadReplyError: the body is longer than ``limit``.
            zlib.error: the body is not what its coding says.
        """
        if self._coding is None:
            piece, self._held = self._held[:PIECE_BYTES], self._held[PIECE_BYTES:]
            return piece
        while not self._ended and (self._has_more or self._can_begin()):
            if piece := self._unpacked():
                return piece
        return b""

    def _can_begin(self) -> bool:
        """Whether what is held can be gone on with; which ``deflate`` it is shows in two bytes."""
        return bool(self._held) and (self._member is not None or len(self._held) > 1)

    def _unpacked(self) -> bytes:
        if self._member is None:
            if self._again and not (self._coding == "gzip" and self._held.startswith(_MAGIC)):
                self._ended, self._held = True, b""  # what stands behind the body is passed over
                return b""
            self._member = zlib.decompressobj(self._window())
        member = self._member
        piece = member.decompress(self._held, PIECE_BYTES)
        self._held = member.unconsumed_tail
        self._has_more = len(piece) == PIECE_BYTES  # then some may be left inside
        if member.eof:
            self._held, self._member = member.unused_data, None
            self._has_more, self._again = False, True
        self._left -= len(piece)
        if self._left < 0:
            raise BadReplyError(f"the reply is longer than {self._limit} bytes")
        return piece

    def _window(self) -> int:
        """Tell ``zlib`` what to expect: ``deflate`` has a header of its own as it should, or none."""
        if self._coding == "gzip":
            return _GZIP
        has_header = self._held[0] & 0x0F == zlib.DEFLATED and int.from_bytes(self._held[:2]) % 31 == 0
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS

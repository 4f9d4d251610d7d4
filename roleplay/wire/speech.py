"""The model's words out of the pieces that they come in: mended, told apart from reasoning, never doubled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from roleplay.domain.conversation import DeltaKind

REPLACEMENT = "\ufffd"

_UNFIT = re.compile("[\x00\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_OPENING, _CLOSING = "<think>", "</think>"
_TAG = re.compile(f"{_OPENING}|{_CLOSING}")
_CLOSING_TAG = re.compile(_CLOSING)


class Said(NamedTuple):
    """A piece of a reply, never empty: the speaker's words or the reasoning before them."""

    kind: DeltaKind
    text: str


class Mender:
    """Joins an emoji whose two halves came apart; replaces NUL and halves that stay alone by U+FFFD.

    ``repaired`` tells whether anything was replaced.
    """

    def __init__(self) -> None:
        self.repaired = False
        self._half = ""

    def feed(self, text: str) -> str:
        """Give ``text`` mended; a first half at its end waits for the next piece."""
        if not text:
            return ""
        if self._half:
            text, self._half = self._half + text, ""
        if not _UNFIT.search(text):
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        text, replaced = _UNFIT.subn(REPLACEMENT, _PAIR.sub(_joined, text))
        self.repaired = self.repaired or replaced > 0
        return text

    def flush(self) -> str:
        """Give what still waits: nothing, or U+FFFD for a half that stayed alone."""
        if not self._half:
            return ""
        self._half = ""
        self.repaired = True
        return REPLACEMENT


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


class Words:
    """What was said of one reply so far, piece by piece, in its order.

    A later piece can show that earlier ones were of another kind. Pieces that were not drained yet are then given as
    what they are; ``restarts`` counts how often speech that was drained was none.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self._pieces: list[Said] = []
        self._drained = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[Said]:
        return iter(self._pieces)

    def say(self, kind: DeltaKind, text: str) -> None:
        """Add a piece, unless it is empty."""
        if text:
            self._pieces.append(Said(kind, text))

    def drain(self) -> list[Said]:
        """Give what was said since the last call."""
        new, self._drained = self._pieces[self._drained :], len(self._pieces)
        return new

    def text(self, kind: DeltaKind) -> str:
        """Give all text of ``kind``."""
        return "".join(piece.text for piece in self._pieces if piece.kind is kind)

    def take_back(self, since: int) -> None:
        """Make reasoning of the speech among the pieces from number ``since`` on."""
        speech = [at for at in range(since, len(self)) if self._pieces[at].kind is DeltaKind.SPEECH]
        for at in speech:
            self._pieces[at] = Said(DeltaKind.REASONING, self._pieces[at].text)
        self.restarts += bool(speech) and speech[0] < self._drained

    def drop(self, since: int) -> None:
        """Leave out the pieces from number ``since`` on."""
        del self._pieces[since:]
        self._drained = min(self._drained, since)


class ThinkSplitter:
    """Tells speech from reasoning that stands in it as ``<think>…</think>``, wherever the pieces break.

    ``<think>`` opens reasoning, and the first ``</think>`` after it ends it. White space before the first word of
    speech or reasoning is left out, and so is that behind ``</think>`` unless it parts words of speech. Models and
    servers also write tags that have no partner:

    - ``</think>`` with none open, where no reasoning ended before in this reply: all speech before it was reasoning.
      Chat templates that write ``<think>`` themselves cause this.
    - ``</think>`` with none open, where one more ``<think>`` stood inside a block than was closed: the speech since
      that block ended was reasoning.
    - Any other ``</think>`` with none open is left out.
    - ``<think>`` that opens after speech and is still open at the end of the reply was literal: the tag and what
      follows are speech.
    - ``<think>`` before any speech that is never closed makes reasoning of all that follows.

    What it finds is said to ``words``. ``so_far`` is speech that this text goes on from. ``breaks_line``: white space
    that was left out before the first word ends the line that it goes on.
    """

    def __init__(self, words: Words, so_far: str = "") -> None:
        self._words = words
        self._held = ""
        self._thinking = False
        self._depth = 0
        self._ended = False  # whether some reasoning has ended in this reply
        self._since = 0  # the piece from which on a stray closing tag takes speech back
        self._apart = not so_far or so_far[-1].isspace()
        self._trim, self._spoken = self._apart, False
        self._before = self._apart, self._spoken
        self._open_at = 0
        self._raw: list[str] | None = None
        self.breaks_line = False

    def feed(self, text: str) -> None:
        """Take ``text``; up to seven characters that may begin a tag are held for the next piece."""
        text, self._held = self._held + text, ""
        start = 0
        for tag in _TAG.finditer(text):
            self._say(text[start : tag.start()])
            self._cross(tag[0])
            start = tag.end()
        stop = _hold_from(text, start)
        self._say(text[start:stop])
        self._held = text[stop:]

    def end_reasoning(self) -> None:
        """Note that the service has told reasoning apart itself, so that a stray closing tag is only left out."""
        self._ended = True

    def flush(self, *, ended: bool) -> None:
        """Say what was held. ``ended``: the reply is complete, so that a tag still open after speech was literal."""
        self._say(self._held)
        self._held = ""
        if ended and self._raw is not None:
            self._words.drop(self._open_at)
            self._words.say(DeltaKind.SPEECH, "".join(self._raw))
            self._thinking, self._raw = False, None

    def _cross(self, tag: str) -> None:
        if tag == _OPENING:
            self._depth += 1
            if self._thinking:
                self._say(tag)
            else:
                self._open()
        elif self._thinking:
            self._close()
        elif self._depth or not self._ended:
            self._words.take_back(self._since)
            self._apart, self._spoken = self._before
            self._close()

    def _open(self) -> None:
        self._thinking = self._trim = True
        self._open_at = len(self._words)
        self._raw = [_OPENING] if self._spoken else None

    def _close(self) -> None:
        self._thinking, self._raw = False, None
        self._depth = max(self._depth - 1, 0)
        self._ended, self._since = True, len(self._words)
        self._before = self._apart, self._spoken
        self._trim = self._apart

    def _say(self, text: str) -> None:
        if self._raw is not None:
            self._raw.append(text)
        if self._trim:
            bare = text.lstrip()
            if not (self._thinking or self._ended or self._spoken) and "\n" in text[: len(text) - len(bare)]:
                self.breaks_line = True
            text = bare
        if not text:
            return
        self._trim = False
        if not self._thinking:
            self._spoken, self._apart = True, text[-1].isspace()
        self._words.say(DeltaKind.REASONING if self._thinking else DeltaKind.SPEECH, text)


def _hold_from(text: str, start: int) -> int:
    """Where the end of ``text`` begins that may be the beginning of a tag."""
    at = text.rfind("<", max(start, len(text) - len(_CLOSING) + 1))
    return at if at >= 0 and any(tag.startswith(text[at:]) for tag in (_OPENING, _CLOSING)) else len(text)


def speech_of(text: str) -> str:
    """Give the speech of a whole ``text`` by the rules of ``ThinkSplitter``, without any tag that is left in it."""
    if "<" not in text or _TAG.search(text) is None:
        return text
    words = Words()
    splitter = ThinkSplitter(words)
    splitter.feed(text)
    splitter.flush(ended=True)
    speech, tags = words.text(DeltaKind.SPEECH), 1
    while tags:  # what stands around a tag that is taken out may make another
        speech, tags = _TAG.subn("", speech)
    return speech


def without_thinking(text: str) -> str:
    """Give the speech of a whole ``text`` by the rule of recipe version 1: stored requests are rebuilt by it.

    ``</think>`` without its beginning is left out, and ``<think>`` without its end makes reasoning of all that follows.
    """
    if _TAG.search(text) is None:
        return text
    speech = []
    thinking, start, tag = False, 0, _TAG.search(text)
    trim = apart = True
    while True:
        piece = text[start : tag.start() if tag else None]
        piece = piece.lstrip() if trim else piece
        trim = trim and not piece
        if piece and not thinking:
            apart = piece[-1].isspace()
            speech.append(piece)
        if tag is None:
            return "".join(speech)
        if tag[0] == _OPENING or thinking:
            thinking = tag[0] == _OPENING
            trim = thinking or apart
        start = tag.end()
        tag = (_CLOSING_TAG if thinking else _TAG).search(text, start)


class Increments:
    """Gives what each piece adds, whether a server sends only what is new or the whole text so far each time.

    The second piece that differs from the first decides: one that is longer and begins with the first is a whole text.
    The first piece that contradicts this ends it.
    """

    def __init__(self) -> None:
        self._whole = ""
        self._cumulative: bool | None = None

    def feed(self, text: str) -> str:
        """Give the new part of ``text``."""
        if self._cumulative is False or not text:
            return text
        if not self._whole:
            self._whole = text
            return text
        if self._cumulative is None:
            if text == self._whole:
                return text
            self._cumulative = text.startswith(self._whole)
        if not text.startswith(self._whole):
            self._cumulative, self._whole = False, ""
            return text
        added = text[len(self._whole) :]
        self._whole = text
        return added

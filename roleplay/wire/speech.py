"""The model's words out of the pieces that they come in: mended, told apart from reasoning, never doubled."""

from __future__ import annotations

import re
from typing import NamedTuple

from roleplay.domain.conversation import DeltaKind

REPLACEMENT = "\ufffd"

_UNFIT = re.compile("[\x00\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_OPENING, _CLOSING = "<think>", "</think>"
_IN_SPEECH = re.compile(f"{_OPENING}|{_CLOSING}")
_IN_REASONING = re.compile(_CLOSING)


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


class ThinkSplitter:
    """Tells speech from reasoning that stands in it as ``<think>…</think>``, wherever the pieces break.

    White space before the first word of speech or reasoning is left out, and so is that behind ``</think>`` unless it
    parts words of speech. A ``</think>`` without its beginning is left out; a ``<think>`` without its end makes
    reasoning of all that follows. ``so_far`` is speech that this text goes on from.
    """

    def __init__(self, so_far: str = "") -> None:
        self._held = ""
        self._thinking = False
        self._trim = self._words_apart = not so_far or so_far[-1].isspace()

    def feed(self, text: str) -> list[Said]:
        """Give what ``text`` adds; up to seven characters that may begin a tag are held for the next piece."""
        text, self._held = self._held + text, ""
        out: list[Said] = []
        start = 0
        while tag := (_IN_REASONING if self._thinking else _IN_SPEECH).search(text, start):
            self._say(out, text[start : tag.start()])
            self._cross(tag[0])
            start = tag.end()
        stop = self._hold_from(text, start)
        self._say(out, text[start:stop])
        self._held = text[stop:]
        return out

    def flush(self) -> list[Said]:
        """Give what was held, as the words it turned out to be."""
        out: list[Said] = []
        self._say(out, self._held)
        self._held = ""
        return out

    def _hold_from(self, text: str, start: int) -> int:
        at = text.rfind("<", max(start, len(text) - len(_CLOSING) + 1))
        tags = (_CLOSING,) if self._thinking else (_OPENING, _CLOSING)
        return at if at >= 0 and any(tag.startswith(text[at:]) for tag in tags) else len(text)

    def _cross(self, tag: str) -> None:
        if tag == _OPENING:
            self._thinking = self._trim = True
        elif self._thinking:
            self._thinking = False
            self._trim = self._words_apart

    def _say(self, out: list[Said], text: str) -> None:
        if self._trim:
            text = text.lstrip()
        if not text:
            return
        self._trim = False
        if not self._thinking:
            self._words_apart = text[-1].isspace()
        out.append(Said(DeltaKind.REASONING if self._thinking else DeltaKind.SPEECH, text))


def without_thinking(text: str) -> str:
    """Give the speech of a whole ``text``, without its ``<think>…</think>``."""
    if _OPENING not in text and _CLOSING not in text:
        return text
    splitter = ThinkSplitter()
    said = [*splitter.feed(text), *splitter.flush()]
    return "".join(piece.text for piece in said if piece.kind is DeltaKind.SPEECH)


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

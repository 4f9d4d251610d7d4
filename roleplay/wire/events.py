"""What the JSON objects of a reply say: one whole completion, or the chunks of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from roleplay.domain.conversation import DeltaKind
from roleplay.errors import BadReplyError
from roleplay.wire.codes import chat_error, is_refusal
from roleplay.wire.facts import ReplyFacts, count, word
from roleplay.wire.heads import Head
from roleplay.wire.speech import Increments, Mender, Said, ThinkSplitter

if TYPE_CHECKING:
    from datetime import datetime


class ReplyEvents:
    """Gathers text and facts from the events of one reply.

    ``whole`` tells that the service has said that its text is complete. ``text_limit`` bounds speech and reasoning
    together, in characters. ``so_far`` is speech that the reply goes on from.
    """

    def __init__(self, head: Head, now: datetime | None, text_limit: int, so_far: str = "") -> None:
        self.facts = ReplyFacts()
        self.whole = False
        self._head = head
        self._now = now
        self._room = text_limit
        self._new: list[Said] = []
        self._texts: dict[DeltaKind, list[str]] = {kind: [] for kind in DeltaKind}
        self._speech_seen = self._reasoning_seen = self._details_passed = False
        self._speech = Mender()
        self._reasoning = Mender()
        self._splitter = ThinkSplitter(so_far)
        self._increments = Increments()

    @property
    def repaired(self) -> bool:
        """Whether a NUL or half an emoji was replaced."""
        return self._speech.repaired or self._reasoning.repaired

    def text(self, kind: DeltaKind) -> str:
        """Give all text of ``kind`` so far."""
        return "".join(self._texts[kind])

    def drain(self) -> list[Said]:
        """Give what was said since the last call."""
        new, self._new = self._new, []
        return new

    def read(self, event: object) -> None:
        """Take one event.

        Raises:
            ChatError: the event is a refusal, of whichever class its code names.
            BadReplyError: it is no object, or its words are not text, or the reply's text passes the limit.
        """
        if not isinstance(event, dict):
            raise BadReplyError("an event of the reply is not a JSON object")
        self.facts.observe(event)
        if is_refusal(event):
            raise chat_error(self._head.status, event, now=self._now, headers=self._head.headers)
        for choice in _list(event, "choices"):
            if not isinstance(choice, dict):
                raise BadReplyError("a choice of the reply is not a JSON object")
            if self._is_ours(choice):
                self._choice(choice)

    def flush(self) -> None:
        """Let out what was held for a next piece."""
        self._say_reasoning(self._reasoning.flush())
        self._say(self._splitter.feed(self._speech.flush()))
        self._say(self._splitter.flush())

    def _is_ours(self, choice: Mapping[str, Any]) -> bool:
        """One reply is read; where a server sends several, it is the first that began."""
        index = count(choice.get("index"))
        if self.facts.choice_index is None:
            self.facts.choice_index = index
        return index is None or index == self.facts.choice_index

    def _choice(self, choice: Mapping[str, Any]) -> None:
        if delta := _object(choice, "delta"):
            self._part(delta)
        if message := _object(choice, "message"):
            self.whole = True
            if not self._speech_seen:  # otherwise it repeats what was streamed
                self._part(message, with_reasoning=not self._reasoning_seen)
        if finish_reason := word(choice.get("finish_reason")):
            self.facts.finish_reason = finish_reason
            self.whole = True

    def _part(self, part: Mapping[str, Any], *, with_reasoning: bool = True) -> None:
        if with_reasoning and (reasoning := self._reasoning_of(part)):
            self._reasoning_seen = True
            added = self._increments.feed(reasoning)
            self._spend(added)
            self._say_reasoning(self._reasoning.feed(added))
        if content := _text(part, "content"):
            self._speech_seen = True
            self._spend(content)
            self._say(self._splitter.feed(self._speech.feed(content)))

    def _reasoning_of(self, part: Mapping[str, Any]) -> str:
        reasoning = _text(part, "reasoning_content")
        if reasoning:
            self._details_passed = True  # they hold the same again
        return reasoning if self._details_passed else _details(part)

    def _spend(self, text: str) -> None:
        self._room -= len(text)
        if self._room < 0:
            raise BadReplyError("the reply is longer than any reply may be")

    def _say_reasoning(self, text: str) -> None:
        if text:
            self._say([Said(DeltaKind.REASONING, text)])

    def _say(self, pieces: list[Said]) -> None:
        self._new += pieces
        for piece in pieces:
            self._texts[piece.kind].append(piece.text)


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    value = data.get(name) or []
    if not isinstance(value, list):
        raise BadReplyError(f"{name} of the reply is not a list")
    return value


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name) or {}
    if not isinstance(value, dict):
        raise BadReplyError(f"{name} of the reply is not an object")
    return value


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name) or ""
    if not isinstance(value, str):
        raise BadReplyError(f"{name} of the reply is not text")
    return value


def _details(part: Mapping[str, Any]) -> str:
    details = part.get("reasoning_details")
    texts = [one.get("text") for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    return "".join(text for text in texts if isinstance(text, str))

"""What the JSON objects of a reply say: one whole completion, or the chunks of a stream."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from roleplay.domain.conversation import DeltaKind
from roleplay.errors import BadReplyError, ChatError, ContentFilteredError
from roleplay.wire.codes import chat_error
from roleplay.wire.facts import ReplyFacts, count, word
from roleplay.wire.failures import CHOICES_LIMIT, failure_in
from roleplay.wire.heads import Head
from roleplay.wire.secrets import NONE, SecretFilter, Secrets
from roleplay.wire.shapes import Part, part_of
from roleplay.wire.speech import Increments, Mender, Said, ThinkSplitter, Words

if TYPE_CHECKING:
    from datetime import datetime


_NO_REASONS = {"null", "none"}


class ReplyEvents:
    """Gathers text and facts from the events of one reply.

    ``whole`` tells that the text is complete, since the service has said so: by a ``finish_reason``, by a message that
    is a whole completion, or by the end of a stream or of a JSON body, which the reader of the bytes notes with
    ``end``. What comes after it can add facts. ``refusal`` is what the model said in place of an answer,
    ``called_tool`` tells that it called a tool. ``text_limit`` bounds speech and reasoning together, in characters.
    ``so_far`` is speech that the reply goes on from. ``secrets`` stand in nothing that it gives.
    """

    def __init__(
        self, head: Head, now: datetime | None, text_limit: int, so_far: str = "", secrets: Secrets = NONE
    ) -> None:
        self.facts = ReplyFacts(secrets=secrets)
        self.whole = self.called_tool = False
        self.refusal = ""
        self._head = head
        self._now = now
        self._room = text_limit
        self._words = Words()
        self._speech_streamed = self._reasoning_streamed = self._details_passed = False
        self._secrets = secrets
        self._speech, self._speech_filter = Mender(), SecretFilter(secrets)
        self._reasoning, self._reasoning_filter = Mender(), SecretFilter(secrets)
        self._splitter = ThinkSplitter(self._words, so_far)
        self._increments = Increments()
        self._messages = Increments()
        self._last_message = ""

    @property
    def repaired(self) -> bool:
        """Whether a NUL or half an emoji was replaced."""
        return self._speech.repaired or self._reasoning.repaired

    @property
    def restarts(self) -> int:
        """How often speech that was drained turned out to be reasoning."""
        return self._words.restarts

    @property
    def breaks_line(self) -> bool:
        """Whether the speech ends the line that it goes on, by a line break that is left out of it."""
        return self._splitter.breaks_line

    def text(self, kind: DeltaKind) -> str:
        """Give all text of ``kind`` so far."""
        return self._secrets.in_speech(self._words.text(kind))  # what stood around a tag may have made one

    @property
    def speaks(self) -> bool:
        """Whether there is speech so far that is not blank."""
        return any(said.kind is DeltaKind.SPEECH and not said.text.isspace() for said in self._words)

    def drain(self) -> list[Said]:
        """Give what was said since the last call."""
        return self._words.drain()

    def end(self) -> None:
        """Note that the stream or the body has ended as it should."""
        self.whole = True

    def read(self, event: object) -> None:
        """Take one event.

        Raises:
            ChatError: the event is a refusal, of whichever class its code names. Text that stands beside it is taken,
                unless it was filtered.
            BadReplyError: it is no object, or its words are not text, or the reply's text passes the limit.
        """
        if not isinstance(event, dict):
            raise BadReplyError("an event of the reply is not a JSON object")
        self.facts.observe(event)
        told = failure_in(event)
        if told is None:
            self._choices(event)
            return
        error, was_whole = self.failed(told), self.whole
        if not isinstance(error, ContentFilteredError):
            with contextlib.suppress(BadReplyError):
                self._choices(event)
        self.whole = was_whole
        raise error

    def failed(self, told: object) -> ChatError:
        """Make the typed error for a failure that the service reports in its answer."""
        return chat_error(self._head.status, told, now=self._now, headers=self._head.headers, secrets=self._secrets)

    def flush(self, *, ended: bool) -> None:
        """Let out what was held for a next piece. ``ended``: there is none, since the reply is complete."""
        self._say_reasoning(self._reasoning_filter.feed(self._reasoning.flush()) + self._reasoning_filter.flush())
        self._splitter.feed(self._speech_filter.feed(self._speech.flush()) + self._speech_filter.flush())
        self._splitter.flush(ended=ended)

    def _choices(self, event: Mapping[str, Any]) -> None:
        choices = _list(event, "choices")[:CHOICES_LIMIT]
        if not all(isinstance(choice, dict) for choice in choices):
            raise BadReplyError("a choice of the reply is not a JSON object")
        choice = self._ours(choices)
        if choice is not None:
            self._choice(choice, is_completion=event.get("object") == "chat.completion")

    def _ours(self, choices: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """One reply is read. A choice that comes alone is ours, since some servers count its index up with each piece;
        of several, ours is the one whose index came first. After our end, no other is ours."""
        by_index: dict[int | None, Mapping[str, Any]] = {
            count(choice.get("index")): choice for choice in reversed(choices)
        }
        if choices and self.facts.choice_index is None:
            self.facts.choice_index = count(choices[0].get("index"))
        ours = by_index.get(self.facts.choice_index) or by_index.get(None)
        if ours is not None and (len(choices) > 1 or self.whole):
            return ours
        return choices[0] if choices and not self.whole else None

    def _choice(self, choice: Mapping[str, Any], *, is_completion: bool) -> None:
        reason = word(choice.get("finish_reason"), self._secrets)
        if reason is not None and reason.lower() in _NO_REASONS:
            reason = None
        delta, message = _object(choice, "delta"), _object(choice, "message")
        ends = reason is not None or (is_completion and bool(message) and not delta)
        if delta:
            self._take(part_of(delta), streamed=True)
        if message and not self._speech_streamed:  # otherwise it repeats what was streamed
            self._message(part_of(message), is_last=ends)
        if not self.whole:  # the first reason is the reply's own
            self.facts.finish_reason = reason or self.facts.finish_reason
        self.whole = self.whole or ends

    def _message(self, part: Part, *, is_last: bool) -> None:
        """Take a message that stands for all that was said, or, from servers that stream messages, for what is new."""
        repeats = is_last and part.speech == self._last_message
        speech = "" if repeats else self._messages.feed(part.speech)
        self._last_message = part.speech or self._last_message
        if self._reasoning_streamed:
            part = part._replace(reasoning="", details="")
        self._take(part._replace(speech=speech))

    def _take(self, part: Part, *, streamed: bool = False) -> None:
        self.called_tool = self.called_tool or part.calls_tool
        self.refusal += part.refusal
        if reasoning := self._reasoning_of(part):
            self._reasoning_streamed = self._reasoning_streamed or streamed
            added = self._increments.feed(reasoning)
            self._spend(added)
            self._splitter.end_reasoning()
            self._say_reasoning(self._reasoning_filter.feed(self._reasoning.feed(added)))
        if part.speech:
            self._speech_streamed = self._speech_streamed or streamed
            self._spend(part.speech)
            self._splitter.feed(self._speech_filter.feed(self._speech.feed(part.speech)))

    def _reasoning_of(self, part: Part) -> str:
        if part.reasoning:
            self._details_passed = True  # they hold the same again
        return part.reasoning if self._details_passed else part.details

    def _spend(self, text: str) -> None:
        self._room -= len(text)
        if self._room < 0:
            raise BadReplyError("the reply is longer than any reply may be")

    def _say_reasoning(self, text: str) -> None:
        self._words.say(DeltaKind.REASONING, text)


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

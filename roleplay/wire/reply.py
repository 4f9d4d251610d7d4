"""From the bytes of an answer to what was said: JSON or a stream, a reply or a refusal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from roleplay.domain.conversation import DeltaKind
from roleplay.errors import BadReplyError, ChatError, ChatUnavailableError, EmptyReplyError
from roleplay.wire.codes import chat_error
from roleplay.wire.events import ReplyEvents
from roleplay.wire.facts import ReplyFacts
from roleplay.wire.heads import Head
from roleplay.wire.speech import Said
from roleplay.wire.sse import LINE_LIMIT, REPLY_LIMIT, Body, Events, looks_like_events, readable, without_blank_start

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ReplyDecoder", "ReplyFacts", "Said"]

ERROR_BODY_LIMIT = 64 * 1024

_END = b"[DONE]"
_CUT_STREAM = "the stream ended before the reply was complete"
_DECODER = json.JSONDecoder(strict=False)  # a raw line break inside a string does no harm


class ReplyDecoder:
    """Reads one answer of the service, chunk by chunk, wherever the chunks break.

    ``head`` is the answer's; JSON and event streams are told apart by the bytes first, so that a JSON answer to a
    stream request and the reverse are read too. ``streamed``: whether a stream was asked for.
    ``now`` (aware): the moment that a reset time in a refusal is measured from. ``so_far``: speech that the reply goes
    on from. ``line_limit`` bounds a line of a stream in bytes, ``reply_limit`` a JSON body in bytes and a stream's text
    in characters.

    Feed it until ``done`` or the end, then call ``finish``, which raises what went wrong::

        for chunk in chunks:
            yield from decoder.feed(chunk)
            if decoder.done:
                break
        yield from decoder.finish()
    """

    def __init__(
        self,
        head: Head,
        *,
        streamed: bool,
        now: datetime | None = None,
        so_far: str = "",
        line_limit: int = LINE_LIMIT,
        reply_limit: int = REPLY_LIMIT,
    ) -> None:
        self.done = False
        self._status = head.status
        self._headers = head.headers
        self._streamed = streamed
        self._now = now
        self._line_limit = line_limit
        self._reply_limit = reply_limit
        self._events = ReplyEvents(head, now, reply_limit, so_far)
        self._head = b""
        self._frames: Events | Body | None = None
        self._page = bytearray()
        self._broken_bytes = False
        self._error: ChatError | None = None
        self._ended = False

    @property
    def facts(self) -> ReplyFacts:
        """What is known so far, also after an error."""
        return self._events.facts

    @property
    def whole(self) -> bool:
        """Whether the service has said that the text is complete: what is lost after this is only facts."""
        return self._events.whole

    @property
    def repaired(self) -> bool:
        """Whether broken bytes, half an emoji or a NUL were replaced by U+FFFD."""
        return self._broken_bytes or self._events.repaired

    @property
    def speech(self) -> str:
        """All words of the speaker so far, also those that ``finish`` could not give because it raised."""
        return self._events.text(DeltaKind.SPEECH)

    @property
    def reasoning(self) -> str:
        """All reasoning so far, likewise."""
        return self._events.text(DeltaKind.REASONING)

    def feed(self, chunk: bytes) -> list[Said]:
        """Give what ``chunk`` adds. Never raises: an error makes ``done`` true and is raised by ``finish``.

        ``done`` is true when nothing more is needed; what comes after is passed over.
        """
        if not self.done:
            try:
                self._take(chunk)
            except ChatError as error:
                self._fail(error)
        return self._events.drain()

    def finish(self) -> list[Said]:
        """Give what was still held, after the last chunk.

        Raises:
            ChatError: the service refused, at whichever status and in whichever form.
            ChatUnavailableError: the bytes ended before the reply did.
            BadReplyError: the answer cannot be read.
            EmptyReplyError: it was read and holds no visible text.
        """
        if not self._ended:
            self._ended = True
            try:
                self._end()
            except ChatError as error:
                self._fail(error)
            self.done = True
        if self._error is not None:
            raise self._error
        return self._events.drain()

    def _fail(self, error: ChatError) -> None:
        if self._error is None:
            error.status = error.status or self._status
            self._error = error
            self.done = True
            self._events.flush()

    @property
    def _refused(self) -> bool:
        return self._status >= 300

    def _take(self, chunk: bytes) -> None:
        if self._refused:
            self._page += chunk[: ERROR_BODY_LIMIT - len(self._page)]
            self.done = len(self._page) >= ERROR_BODY_LIMIT
            return
        if self._frames is None:
            self._head = without_blank_start(self._head + chunk)
            events = looks_like_events(self._headers.get("content-type", ""), self._head)
            if events is None:
                return
            self._frames = Events(self._line_limit) if events else Body(self._reply_limit)
            chunk, self._head = self._head, b""
        for document in self._frames.feed(chunk):
            self._document(document)
            if self.done:
                return

    def _document(self, document: bytes) -> None:
        data = document.strip()
        if data == _END:
            self._events.whole = self.done = True
        elif data:
            self._events.read(self._json(data))

    def _json(self, data: bytes) -> object:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode(errors="replace")
            self._broken_bytes = True
        try:
            return _DECODER.decode(text)
        except (ValueError, RecursionError):
            raise BadReplyError("the answer is not the JSON of a reply", raw=readable(data)) from None

    def _end(self) -> None:
        if self._error is not None:
            return
        if self._refused:
            raise self._refusal()
        if not self.done:
            self._rest()
        self._events.flush()
        if not self.speech.strip():
            raise _empty(self.facts, self.reasoning)

    def _rest(self) -> None:
        if self._frames is None:  # so few bytes that they may still have become anything
            self._frames = Body(self._reply_limit)
            self._frames.feed(self._head)
        rest = self._frames.finish().strip()
        if isinstance(self._frames, Events):
            self._open_event(rest)
            if not self.whole:
                raise ChatUnavailableError(_CUT_STREAM)
        elif not rest:
            raise ChatUnavailableError(_CUT_STREAM if self._streamed else "the service sent an empty answer")
        elif rest.startswith(b"{") and not rest.endswith(b"}"):
            raise ChatUnavailableError("the answer ended before the reply was complete")
        else:
            self._document(rest)

    def _open_event(self, rest: bytes) -> None:
        """The last event may lack its empty line; where it lacks more, it was cut off and says nothing."""
        if rest == _END:
            self._events.whole = True
            return
        try:
            event = self._json(rest)
        except BadReplyError:
            return
        self._events.read(event)

    def _refusal(self) -> ChatError:
        page = bytes(self._page)
        for line in [page, *page.splitlines()]:
            try:
                body = _DECODER.decode(line.removeprefix(b"data:").decode(errors="replace").strip())
            except (ValueError, RecursionError):
                continue
            if isinstance(body, dict):
                self.facts.observe(body)
                return chat_error(self._status, body, now=self._now, headers=self._headers)
        return chat_error(self._status, page.decode(errors="replace"), now=self._now, headers=self._headers)


def _empty(facts: ReplyFacts, reasoning: str) -> EmptyReplyError:
    flags = facts.sensitivity
    if facts.finish_reason == "length":
        why = "its whole length went into reasoning; a higher max_completion_tokens helps"
    elif facts.finish_reason == "content_filter" or flags.output_sensitive:
        why = "the service filtered its output"
    elif flags.input_sensitive:
        why = "the service judged the input sensitive"
    elif reasoning:
        why = "the model reasoned and then said nothing"
    else:
        why = "the service gave no reason"
    return EmptyReplyError(f"the reply holds no visible text: {why}")

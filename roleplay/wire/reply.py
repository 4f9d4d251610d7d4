"""From the bytes of an answer to what was said: JSON or a stream, a reply or a refusal."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from roleplay.domain.conversation import DeltaKind, FinishReason
from roleplay.errors import (
    BadReplyError,
    ChatError,
    ChatUnavailableError,
    ContentFilteredError,
    EmptyReplyError,
    without_frames,
)
from roleplay.wire.codes import chat_error
from roleplay.wire.codings import coding_of
from roleplay.wire.envelopes import words_of
from roleplay.wire.events import ReplyEvents
from roleplay.wire.facts import ReplyFacts
from roleplay.wire.failures import failure_in, failure_of, failure_said
from roleplay.wire.heads import Head
from roleplay.wire.secrets import NONE, Secrets
from roleplay.wire.speech import Said
from roleplay.wire.sse import (
    BODY_LIMIT,
    LINE_LIMIT,
    REPLY_LIMIT,
    Body,
    Events,
    Frame,
    is_json,
    looks_like_events,
    readable,
    without_blank_start,
)
from roleplay.wire.words import service_words

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ReplyDecoder", "ReplyFacts", "Said"]

ERROR_BODY_LIMIT = 64 * 1024
VALUES_LIMIT = 100_000
"""The objects, lists and commas that one document may have: reading them takes long, and no reply has so many."""

_END = re.compile(rb'"?\[\s*done\s*\]"?', re.IGNORECASE)
_END_BEHIND = re.compile(rb"(?<=})\s{1,20}(?:data:\s{0,20})?\[done\]$", re.IGNORECASE)
_DATA = b"data:"
_LINES_OF_A_PAGE = 100
_BROKE_OFF = {FinishReason.ERROR, FinishReason.ABORT, FinishReason.INSUFFICIENT_SYSTEM_RESOURCE}
_CUT_STREAM = "the stream ended before the reply was complete"
_DECODER = json.JSONDecoder(strict=False)  # a raw line break inside a string does no harm


class ReplyDecoder:
    """Reads one answer of the service, chunk by chunk, wherever the chunks break.

    ``head`` is the answer's; JSON and event streams are told apart by the bytes first, so that a JSON answer to a
    stream request and the reverse are read too. ``streamed``: whether a stream was asked for.
    ``now`` (aware): the moment that a reset time in a refusal is measured from. ``so_far``: speech that the reply goes
    on from. ``secrets`` are taken out of all that it gives and raises. ``line_limit`` bounds a line of a stream in
    bytes, ``reply_limit`` a stream's text in characters, and a JSON body in bytes where ``BODY_LIMIT`` does not. An
    answer that is packed as no answer may be (``coding_of``) is not read.

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
        secrets: Secrets = NONE,
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
        self._secrets = secrets
        self._events = ReplyEvents(head, now, reply_limit, so_far, secrets)
        self._head = b""
        self._frames: Events | Body | None = None
        self._page = bytearray()
        self._broken_bytes = False
        self._error: ChatError | None = None
        self._ended = False
        try:
            coding_of(head.headers)
        except BadReplyError as error:
            self.done = True
            if not self._refused:  # a refusal is told by its status all the same
                self._fail(error)

    @property
    def facts(self) -> ReplyFacts:
        """What is known so far, also after an error."""
        return self._events.facts

    @property
    def whole(self) -> bool:
        """Whether the service has said that the text is complete: what is lost after this is only facts."""
        return self._events.whole

    @property
    def restarts(self) -> int:
        """How often speech that ``feed`` had given turned out to be reasoning; ``speech`` holds what is left then."""
        return self._events.restarts

    @property
    def repaired(self) -> bool:
        """Whether broken bytes, half an emoji or a NUL were replaced by U+FFFD."""
        return self._broken_bytes or self._events.repaired

    @property
    def breaks_line(self) -> bool:
        """Whether the speech ends the line of ``so_far``, by a line break that is left out of it."""
        return self._events.breaks_line

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
                if self.whole:
                    self.done = True  # what cannot be read comes after the reply
                else:
                    self._fail(error)
        return self._events.drain()

    def is_complete(self) -> bool:
        """Whether what was fed is a complete answer, though its connection broke before its end.

        That is a whole reply, a JSON body that can be read to its end, or an error, which its status alone tells.
        """
        if self._refused or self.done:
            return True
        if isinstance(self._frames, Body):
            data = self._frames.finish().data
            return not _has_too_many(data) and is_json(data)
        if self._frames is not None:
            try:
                self._open_events(self._frames)
            except ChatError as error:
                self._fail(error)
        return self.whole or self.done

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

    def left(self) -> list[Said]:
        """Give what ``finish`` could not, because it raised."""
        return self._events.drain()

    def _fail(self, error: ChatError) -> None:
        if self._error is None:
            self.done = True
            error.status = error.status or self._status
            self._error = without_frames(error)  # they hold what came, as it came
            self._events.flush(ended=False)

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
            limit, kind = (self._line_limit, Events) if events else (min(BODY_LIMIT, self._reply_limit), Body)
            self._frames = kind(limit, self._secrets)
            chunk, self._head = self._head, b""
        for frame in self._frames.feed(chunk):
            self._event(frame)
            if self.done:
                return

    def _event(self, frame: Frame) -> None:
        """Take one event of a stream. What cannot be read after the end of the reply is passed over."""
        was_whole = self.whole
        try:
            self._read(frame)
        except ChatError:
            if not was_whole:
                raise

    def _read(self, frame: Frame) -> None:
        _refuse_too_many(frame.data, self._secrets)
        _refuse_too_many(frame.error or b"", self._secrets)
        if (told := failure_of(frame)) is not None:
            raise self._events.failed(told)
        data = frame.data.strip()
        while data.startswith(_DATA):  # some proxies write the field's name once more
            data = data.removeprefix(_DATA).strip()
        if data.startswith(b"{"):
            self._events.read(self._json(data))
        elif _END.fullmatch(data):
            self._events.end()
            self.done = True
        elif (told := failure_said(data)) is not None:
            raise self._events.failed(told)
        # Anything else only keeps the connection alive.

    def _json(self, data: bytes) -> object:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode(errors="replace")
            self._broken_bytes = True
        try:
            return _DECODER.decode(text)
        except (ValueError, RecursionError):
            raise BadReplyError("the answer is not the JSON of a reply", raw=readable(data, self._secrets)) from None

    def _end(self) -> None:
        if self._error is not None:
            return
        if self._refused:
            raise self._refusal()
        if not self.done:
            self._rest()
        self._events.flush(ended=True)
        if not self._events.speaks:
            raise _silence(self._events, self.reasoning, self._secrets)

    def _rest(self) -> None:
        if self._frames is None:  # so few bytes that they may still have become anything
            self._frames = Body(min(BODY_LIMIT, self._reply_limit), self._secrets)
            self._frames.feed(self._head)
        if isinstance(self._frames, Body):
            self._body(self._frames.finish().data.strip())
            return
        self._open_events(self._frames)
        if not self.whole:
            raise ChatUnavailableError(_CUT_STREAM)

    def _body(self, data: bytes) -> None:
        if not data:
            raise ChatUnavailableError(_CUT_STREAM if self._streamed else "the service sent an empty answer")
        _refuse_too_many(data, self._secrets)
        data = _END_BEHIND.sub(b"", data)  # some proxies end a body as they end a stream
        answer = self._object(data) if data.startswith(b"{") else self._other(data)
        if isinstance(answer, list) and len(answer) == 1:
            [answer] = answer
        self._events.read(answer)
        if isinstance(answer, dict) and answer.keys().isdisjoint(("choices", "base_resp")) and words_of(answer):
            raise self._events.failed({"error": answer})
        self._events.end()

    def _object(self, data: bytes) -> object:
        try:
            return self._json(data)
        except BadReplyError:
            if (told := _first_failure(data)) is not None:
                raise self._events.failed(told) from None
            if not data.endswith(b"}"):
                raise ChatUnavailableError("the answer ended before the reply was complete") from None
            raise

    def _other(self, data: bytes) -> object:
        if (told := failure_said(data)) is not None:
            raise self._events.failed(told)
        return self._json(data)

    def _open_events(self, frames: Events) -> None:
        """The last event may lack its empty line; where it lacks more, it was cut off and says nothing."""
        for frame in frames.finish():
            data = frame.data.strip()
            if not data.startswith(b"{") or frame.error is not None or is_json(data):
                self._event(frame)

    def _refusal(self) -> ChatError:
        page = bytes(self._page)
        for line in [page, *page.splitlines()[:_LINES_OF_A_PAGE]]:
            try:
                body = _DECODER.decode(line.removeprefix(b"data:").decode(errors="replace").strip())
            except (ValueError, RecursionError):
                continue
            if isinstance(body, dict):
                self.facts.observe(body)
                return self._error_of(body)
        return self._error_of(page.decode(errors="replace"))

    def _error_of(self, body: object) -> ChatError:
        return chat_error(self._status, body, now=self._now, headers=self._headers, secrets=self._secrets)


def _has_too_many(data: bytes) -> bool:
    """Whether a document has more values than it may, which its bytes tell before it is read."""
    return len(data) > VALUES_LIMIT and sum(map(data.count, (b",", b"{", b"["))) > VALUES_LIMIT


def _refuse_too_many(data: bytes, secrets: Secrets) -> None:
    if _has_too_many(data):
        raise BadReplyError(f"the answer has more than {VALUES_LIMIT} values", raw=readable(data, secrets))


def _first_failure(data: bytes) -> object:
    """Give the failure that a body reports in a first object behind which more stands, such as the end of a stream."""
    try:
        first, _ = _DECODER.raw_decode(data.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return failure_in(first) if isinstance(first, dict) else None


def _silence(events: ReplyEvents, reasoning: str, secrets: Secrets) -> ChatError:
    """Make the error for a reply that holds no visible text."""
    facts, flags = events.facts, events.facts.sensitivity
    finish = FinishReason.named(facts.finish_reason)
    if refusal := service_words(events.refusal, secrets=secrets):
        return ContentFilteredError(f"the model refused to answer: {refusal}", side="output")
    if finish in _BROKE_OFF:
        return ChatUnavailableError(f"the service broke off before a word came: {facts.finish_reason}")
    if finish is FinishReason.LENGTH:
        why = "its whole length went into reasoning; a higher max_completion_tokens helps"
    elif finish is FinishReason.CONTENT_FILTER or flags.output_sensitive:
        why = "the service filtered its output"
    elif flags.input_sensitive:
        why = "the service judged the input sensitive"
    elif events.called_tool or finish is FinishReason.TOOL_CALLS:
        why = "the model called a tool, and this engine gives it none"
    elif reasoning:
        why = "the model reasoned and then said nothing"
    else:
        why = "the service gave no reason"
    return EmptyReplyError(f"the reply holds no visible text: {why}")

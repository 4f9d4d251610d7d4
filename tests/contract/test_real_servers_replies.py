"""Replies as real servers send them, byte by byte, through both front doors: what is stored, raised and shown.

The forms themselves are told apart in ``tests/unit/wire/test_tails.py``; here a few of them go all the way.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from roleplay import (
    ChatError,
    ChatRequestError,
    ChatUnavailableError,
    Checked,
    ConflictError,
    DeltaKind,
    Endpoint,
    FinishReason,
    Persona,
    Retry,
    TurnOptions,
    TurnStatus,
    Verdict,
)
from tests.conftest import Ledger
from tests.support.http import KEY, Raw
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell")

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
DONE = b"data: [DONE]\n\n"
Answer = Callable[[int], bytes]


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    """A piece of a stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


def says(text: str, finish: str | None = None) -> bytes:
    """A piece with words."""
    return chunk({"content": text}, finish)


def whole(text: str, finish: str = "stop") -> bytes:
    """The JSON of a whole reply."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


class Stage(NamedTuple):
    """A session whose model is a server of raw bytes."""

    rp: Any
    session: Any
    server: Raw

    def say(self, text: str = "Good evening", *, stream: bool) -> tuple[Any, list[Any], ChatError | None]:
        """Say a line; give the stored turn, what was streamed, and what was raised."""
        return self.hear(lambda: self.session.stream(text) if stream else self.session.send(text), stream=stream)

    def hear(self, door: Callable[[], Any], *, stream: bool = True) -> tuple[Any, list[Any], ChatError | None]:
        """Take a reply to its end."""
        seen: list[Any] = []
        error = None
        try:
            reply = door()
            if stream:
                with reply:
                    seen.extend(iter(reply))
        except ChatError as caught:
            error = caught
        return self.session.turns().items[-1], seen, error

    def asked(self) -> list[dict[str, Any]]:
        """The bodies that the server received."""
        return [json.loads(body_of(request)) for request in self.server.heard]


def body_of(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


@pytest.fixture(params=["openai", "minimax"])
def served(request: pytest.FixtureRequest, database_url: str, ledger: Ledger) -> Iterator[Callable[..., Stage]]:
    """Opens a session in each dialect, with a server that gives the answers in turn, the last one again and again."""
    opened: list[Stage] = []

    def serve(*answers: bytes, attempts: int = 1, guards: Sequence[Any] = ()) -> Stage:
        def talk(connection: socket.socket, _request: bytes) -> None:
            at = min(len(server.heard), len(answers)) - 1
            for piece in re.split(rb"(?<=\n\n)", answers[at]):  # each event in a packet of its own
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_RDWR)

        server = Raw(talk)
        model = Endpoint(
            "some-model",
            base_url=server.url,
            dialect=request.param,
            window_tokens=8192,
            api_key=KEY,
            retry=Retry(attempts=attempts, first_pause_s=0),
        )
        rp = Roleplay.open(database_url, model=model, guards=guards)
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Mira"))])
        opened.append(Stage(rp, session, server))
        return opened[-1]

    yield serve
    for one in opened:
        with one.rp:
            pass
        one.server.close()
        ledger.bodies += map(body_of, one.server.heard)


@pytest.mark.parametrize(
    "error",
    [
        b'error: {"code":500,"message":"slot failed","type":"server_error"}\n\n',
        b'event: error\ndata: {"message":"slot failed","code":500}\n\n',
        b'data: {"object":"error","message":"slot failed","type":"InternalServerError","code":500}\n\n',
        b'data: {"error":"slot failed"}\n\n',
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_error_inside_a_stream(served: Callable[..., Stage], error: bytes, stream: bool) -> None:
    """The half reply is interrupted, with its text and the server's words, though the stream ends as it should."""
    one = served(SSE + says("Once upon a time") + error + DONE, attempts=3)
    turn, seen, raised = one.say(stream=stream)
    assert isinstance(raised, ChatUnavailableError)
    assert (turn.id, turn.status, turn.reply.text) == (raised.turn_id, TurnStatus.INTERRUPTED, "Once upon a time")
    assert (turn.error["message"], turn.error["slug"]) == ("slot failed", "chat_unavailable")
    assert "".join(piece.text for piece in seen) == "Once upon a time" * stream
    assert len(one.server.heard) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_before_any_text(served: Callable[..., Stage], stream: bool) -> None:
    """It is asked again by the rules of retries; where it says too long, with a shorter request."""
    failed = SSE + b"error: slot failed\n\n" + DONE
    one = served(failed, SSE + says("Hi.", "stop") + DONE, attempts=2)
    assert one.say(stream=stream)[0].reply.text == "Hi."
    too_long = SSE + b'error: {"code":400,"message":"the request exceeds the available context size"}\n\n' + DONE
    good = SSE + says("Well.", "stop") + DONE
    one = served(good, good, good, good, too_long, good)
    for line in ("word " * 40 + str(number) for number in range(4)):
        one.say(line, stream=False)
    turn, _, raised = one.say("And now?", stream=stream)
    assert (raised, turn.reply.text, len(turn.calls)) == (None, "Well.", 2)
    long, short = (len(body["messages"]) for body in one.asked()[-2:])
    assert short < long


@pytest.mark.parametrize("stream", [True, False])
def test_an_index_that_counts_up(served: Callable[..., Stage], stream: bool) -> None:
    """No word is lost."""
    words = ["Once ", "upon ", "a ", "time."]
    pieces = [chunk({"content": one}, "stop" if at == 3 else None, at + 1) for at, one in enumerate(words)]
    turn, _, raised = served(SSE + b"".join(pieces) + DONE).say(stream=stream)
    assert (raised, turn.status, turn.reply.text) == (None, TurnStatus.COMPLETED, "Once upon a time.")


@pytest.mark.parametrize(
    "ending",
    [b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n", b"Content-Length: %d\r\n\r\n%b"],
    ids=["chunked", "length"],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_whole_body_whose_connection_breaks(served: Callable[..., Stage], ending: bytes, stream: bool) -> None:
    """The reply was paid for and is complete: it is kept, after one request. Half a body is none."""
    text = whole("Good evening.")
    size = len(text) if b"chunked" in ending else len(text) + 20
    one = served(JSON + ending % (size, text), attempts=3)
    turn, _, raised = one.say(stream=stream)
    assert (raised, turn.status, turn.reply.text) == (None, TurnStatus.COMPLETED, "Good evening.")
    assert len(one.server.heard) == 1
    one = served(JSON + ending % (size - 20, text[: size - 40]), attempts=2)
    assert isinstance(one.say(stream=stream)[2], ChatUnavailableError)
    assert len(one.server.heard) == 2


@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_whose_connection_breaks(served: Callable[..., Stage], stream: bool) -> None:
    """What the status says is raised, and nothing is asked again in vain."""
    page = b'{"error":{"message":"no such model"}}'
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    one = served(head % (len(page) + 9) + page, attempts=3)
    turn, _, raised = one.say(stream=stream)
    assert isinstance(raised, ChatRequestError)
    assert (turn.status, turn.error["message"], len(one.server.heard)) == (TurnStatus.FAILED, "no such model", 1)


THOUGHT = "The user greets. As Mira I should be warm. " * 12


@pytest.mark.parametrize("stream", [True, False])
def test_only_the_closing_tag_comes(served: Callable[..., Stage], stream: bool) -> None:
    """What is stored and sent again is the speech alone, also where thoughts were shown and kept as speech before."""
    pieces = [says(THOUGHT[at : at + 40]) for at in range(0, len(THOUGHT), 40)]
    one = served(SSE + b"".join(pieces) + says("\n</think>\n\nWelcome, ") + says("traveller!", "stop") + DONE)
    turn, seen, _ = one.say(stream=stream)
    assert (turn.status, turn.reply.text, turn.reply.tokens > 0) == (TurnStatus.COMPLETED, "Welcome, traveller!", True)
    assert turn.call.reasoning == THOUGHT + "\n"
    assert one.session.turn(turn.id) == turn
    if stream:
        assert [piece.text for piece in seen][-2:] == ["Welcome, ", "traveller!"]
    one.say("Again", stream=False)
    assert [m["content"] for m in one.asked()[-1]["messages"] if m["role"] == "assistant"] == ["Welcome, traveller!"]


def test_thoughts_that_were_kept_are_no_reply(served: Callable[..., Stage]) -> None:
    """A reply that breaks off behind its thoughts has no text, though they were kept as speech while they came."""
    pieces = b"".join(says(THOUGHT[at : at + 40]) for at in range(0, len(THOUGHT), 40))
    one = served(SSE + pieces + says("</think>") + b"error: gone\n\n", SSE + says("Hi.", "stop"))
    turn, _, raised = one.say(stream=True)
    assert isinstance(raised, ChatUnavailableError)
    assert (turn.status, turn.reply, turn.call.reasoning) == (TurnStatus.FAILED, None, THOUGHT)
    assert one.rp.doctor() == []
    assert one.hear(one.session.retry)[0].reply.text == "Hi."


def test_guards_see_the_speech_that_is_left(served: Callable[..., Stage]) -> None:
    """What a guard passed of the thoughts is not stored; what it is asked of the speech begins anew."""

    def loud(asked: Checked) -> Verdict | None:
        return Verdict.replace(asked.text.upper()) if asked.side == "reply" else None

    one = served(
        SSE + says("Be warm. Be kind. ") + says("</think>Welcome. ") + says("Sit.", "stop") + DONE, guards=[loud]
    )
    for stream in (True, False):
        turn, _, _ = one.say(stream=stream)
        assert turn.reply.text == "WELCOME. SIT."


def test_other_shapes(served: Callable[..., Stage]) -> None:
    """Parts, reasoning under another name, and usage in a choice reach the turn."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "A greeting."}]}
    usage = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 19, "total_tokens": 21}}
    last = b"data: " + json.dumps({"choices": [usage]}).encode() + b"\n\n"
    one = served(
        SSE + chunk({"content": [thinking]}) + chunk({"content": "", "reasoning": " Hm."}) + says("Hi.") + last
    )
    turn, seen, _ = one.say(stream=True)
    assert (turn.reply.text, turn.call.reasoning, turn.usage.prompt_tokens) == ("Hi.", "A greeting. Hm.", 19)
    assert [piece.kind for piece in seen] == [DeltaKind.REASONING, DeltaKind.REASONING, DeltaKind.SPEECH]


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_that_was_cut_goes_on(served: Callable[..., Stage], stream: bool) -> None:
    """``finish`` says why it ended; to go on makes a variant whose text begins with it."""
    cut = SSE + says("Once upon", "length") + DONE if stream else JSON + b"\r\n" + whole("Once upon", "length")
    one = served(cut, SSE + says(" a time.", "stop") + DONE, SSE + says("Next.", "stop") + DONE)
    turn, _, _ = one.say(stream=stream)
    assert (turn.status, turn.finish, turn.reply.text) == (TurnStatus.COMPLETED, FinishReason.LENGTH, "Once upon")
    longer, seen, _ = one.hear(one.session.resume)
    assert (longer.reply.text, longer.finish, longer.variants) == ("Once upon a time.", FinishReason.STOP, 2)
    assert [piece.text for piece in seen] == [" a time."]
    assert one.session.turn(turn.id).reply == turn.reply
    one.say("And then?", stream=False)
    assert [m["content"] for m in one.asked()[-1]["messages"] if m["role"] == "assistant"] == ["Once upon a time."]


def test_going_on_beside_a_running_turn(served: Callable[..., Stage]) -> None:
    """A complete reply goes on under the rules of ``on_conflict``, like any other variant."""
    one = served(
        SSE + says("Once upon", "length"), SSE + says("One. ") + says("Two.", "stop"), SSE + says(" a time.", "stop")
    )
    first, _, _ = one.say(stream=True)
    with one.session.stream("And?") as reply:
        next(iter(reply))
        with pytest.raises(ConflictError):
            one.session.resume(first.id)
        with one.session.resume(first.id, options=TurnOptions(on_conflict="fork")) as beside:
            list(beside)
        list(reply)
    assert beside.turn.reply.text == "Once upon a time."
    assert one.session.turns().items[-1].id == reply.turn.id

"""Every way in which the service can misbehave: the typed error or the reply, and what is stored of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from roleplay import (
    BadReplyError,
    ChatAuthError,
    ChatError,
    ChatPath,
    ChatQuotaError,
    ChatRequestError,
    ChatUnavailableError,
    ContentFilteredError,
    EmptyReplyError,
    Endpoint,
    Persona,
    TurnStatus,
)
from roleplay.testing import Simulator
from roleplay.testing import simulator as simulated
from roleplay.testing.simulator import (
    BackOff,
    BaseRespInside200,
    CacheUsage,
    ConnectionReset,
    ContentInReasoning,
    ContextTooLong,
    CutStream,
    Done,
    EmojiSplit,
    EmptyRole,
    EmptyWithLength,
    EndlessStream,
    ErrorCode,
    ErrorInStream,
    Fault,
    FinalFullMessage,
    HtmlErrorPage,
    HugeLine,
    InputSensitive,
    InsufficientBalance,
    InvalidUtf8,
    JsonInsteadOfSse,
    LeftoverThink,
    LoneSurrogate,
    MissingNames1000,
    NoContentTypeCharset,
    NoDone,
    NoFinalMessage,
    NoNameNoAudio,
    NulInText,
    OutputSensitive,
    Overloaded,
    RateLimited,
    ReasoningContent,
    RefuseRolePlayRoles,
    ResetAt,
    ServiceTier,
    SlowDrip,
    SlowFirstByte,
    SplitUtf8,
    StrictTemplate,
    SurrogatesSplit,
    ThinkSplit,
    TokenLimit,
    UnknownError,
    UsageLimitReached,
    UsageNull,
    UsageZeroEachChunk,
)
from tests.support.shells import Roleplay

pytestmark = pytest.mark.usefixtures("shell", "unwatched")

TEXT = ("Snow lies on the pass, 雪很深, and the beacon 🔥 burns. " * 3).strip()
SAID = TEXT


@dataclass(frozen=True)
class Case:
    """A fault, how often it strikes, and what comes of it, as a whole answer and as a stream.

    ``kept``: some text comes before the error of the stream, and all that was heard of it is stored.
    """

    fault: Fault
    whole: type[ChatError] | str
    stream: type[ChatError] | str
    times: int = 9
    kept: bool = False
    model: str = "MiniMax-M2.7"


CASES = {
    "missing names as 1000": Case(MissingNames1000(), SAID, SAID),
    "rate limit 429, then success": Case(RateLimited(), SAID, SAID, times=2),
    "rate limit 429 for ever": Case(RateLimited(), ChatUnavailableError, ChatUnavailableError),
    "rate limit inside 200": Case(RateLimited(http=200), SAID, SAID, times=1),
    "asked to wait, then success": Case(BackOff((("retry-after-ms", "50"),), http=503), SAID, SAID, times=2),
    "token limit 1039, then success": Case(TokenLimit(), SAID, SAID, times=2),
    "overloaded 529, then success": Case(Overloaded(), SAID, SAID, times=2),
    "unknown error 1000": Case(UnknownError(), ChatUnavailableError, ChatUnavailableError),
    "time-out 1001": Case(ErrorCode(1001), SAID, SAID, times=1),
    "internal 1013": Case(ErrorCode(1013), SAID, SAID, times=1),
    "internal 1024": Case(ErrorCode(1024), SAID, SAID, times=1),
    "downstream 1033": Case(ErrorCode(1033), SAID, SAID, times=1),
    "connections 1041": Case(ErrorCode(1041), SAID, SAID, times=1),
    "growth 2045": Case(ErrorCode(2045), SAID, SAID, times=1),
    "wrong key 2049": Case(ErrorCode(2049), ChatAuthError, ChatAuthError),
    "balance 1008": Case(InsufficientBalance(), ChatQuotaError, ChatQuotaError),
    "balance as 500": Case(InsufficientBalance(http=500), ChatQuotaError, ChatQuotaError),
    "plan used up 2056": Case(UsageLimitReached("2030-01-01 00:00:00 UTC"), ChatQuotaError, ChatQuotaError),
    "input sensitive": Case(InputSensitive(), ContentFilteredError, ContentFilteredError),
    "input sensitive as 500": Case(InputSensitive(http=500), ContentFilteredError, ContentFilteredError),
    "output sensitive": Case(OutputSensitive(), ContentFilteredError, ContentFilteredError),
    "output sensitive in mid-stream": Case(
        OutputSensitive(after_chunks=2), ContentFilteredError, ContentFilteredError, kept=True
    ),
    "error in stream": Case(ErrorInStream(after_chunks=1), ContentFilteredError, ContentFilteredError, kept=True),
    "context too long": Case(ContextTooLong(), ChatRequestError, ChatRequestError),
    "base_resp inside 200": Case(BaseRespInside200(1004), ChatAuthError, ChatAuthError),
    "base_resp framed as a completion": Case(BaseRespInside200(1004, framed=True), ChatAuthError, ChatAuthError),
    "error JSON instead of a stream": Case(JsonInsteadOfSse(1002), SAID, SAID, times=1),
    "whole JSON instead of a stream": Case(JsonInsteadOfSse(0), SAID, SAID),
    "HTML error page": Case(HtmlErrorPage(502), ChatUnavailableError, ChatUnavailableError),
    "HTML page with 200": Case(HtmlErrorPage(200), BadReplyError, BadReplyError),
    "cut before text": Case(CutStream(), SAID, SAID, times=1),
    "cut after text": Case(CutStream(after_chunks=2), ChatUnavailableError, ChatUnavailableError, kept=True),
    "ended after text": Case(
        CutStream(after_chunks=2, clean=True), ChatUnavailableError, ChatUnavailableError, kept=True
    ),
    "reset before headers": Case(ConnectionReset(), SAID, SAID, times=1),
    "reset in the body": Case(ConnectionReset(ResetAt.MID_BODY), ChatUnavailableError, ChatUnavailableError, kept=True),
    "no [DONE]": Case(NoDone(), SAID, SAID),
    "[DONE] on the native path": Case(Done(), SAID, SAID, model="M2-her"),
    "final full message": Case(FinalFullMessage(), SAID, SAID),
    "no final message on the native path": Case(NoFinalMessage(), SAID, SAID, model="M2-her"),
    "usage null": Case(UsageNull(), SAID, SAID),
    "usage zero in each chunk": Case(UsageZeroEachChunk(), SAID, SAID),
    "empty role": Case(EmptyRole(), SAID, SAID),
    "think split": Case(ThinkSplit(), SAID, SAID),
    "reasoning incremental": Case(ReasoningContent(), SAID, SAID),
    "reasoning cumulative": Case(ReasoningContent(cumulative=True), SAID, SAID),
    "text in reasoning": Case(ContentInReasoning(), EmptyReplyError, EmptyReplyError),
    "leftover think tag": Case(LeftoverThink(), SAID, SAID),
    "empty with length": Case(EmptyWithLength(), EmptyReplyError, EmptyReplyError),
    "split UTF-8": Case(SplitUtf8(), SAID, SAID),
    "emoji split": Case(EmojiSplit(), "same", "same"),
    "surrogates split": Case(SurrogatesSplit(), "same", "same"),
    "lone surrogate": Case(LoneSurrogate(), "repaired", "repaired"),
    "NUL in text": Case(NulInText(), "repaired", "repaired"),
    "invalid UTF-8": Case(InvalidUtf8(), "repaired", "repaired"),
    "5 MB line": Case(HugeLine(), "same", BadReplyError, kept=True),
    "5 MB comment": Case(HugeLine(comment=True), SAID, BadReplyError),
    "endless": Case(EndlessStream(), "same", ChatUnavailableError, times=1, kept=True),
    "lean message": Case(NoNameNoAudio(), SAID, SAID),
    "service tier": Case(ServiceTier(), SAID, SAID),
    "cached tokens": Case(CacheUsage(), SAID, SAID),
    "no charset": Case(NoContentTypeCharset(), SAID, SAID),
    "slow drip": Case(SlowDrip(0.02), SAID, SAID),
    "slow first byte": Case(SlowFirstByte(0.1), SAID, SAID),
    "time-out before the first byte": Case(SlowFirstByte(5), "same", "same", times=1),
    "roles refused": Case(RefuseRolePlayRoles(), SAID, SAID),
    "roles refused with 1000": Case(RefuseRolePlayRoles(code=1000), SAID, SAID),
    "strict template": Case(StrictTemplate(), SAID, SAID, times=2),
    "strict template as 400": Case(StrictTemplate(400), SAID, SAID, times=2),
}


def test_every_fault_stands_here() -> None:
    """Whatever the simulator can do wrong is done wrong."""
    public = [getattr(simulated, name) for name in simulated.__all__]
    faults = {one for one in public if isinstance(one, type) and issubclass(one, Fault)} - {Fault}
    assert faults == {type(case.fault) for case in CASES.values()}


@pytest.fixture
def impatient(endpoint: Endpoint) -> Endpoint:
    """The simulator, which is not waited for long."""
    return endpoint.evolve(read_timeout_s=0.8, timeout_s=3)


@pytest.fixture
def rp(sqlite_url: str, impatient: Endpoint):
    """An engine with short patience."""
    with Roleplay.open(sqlite_url, model=impatient) as one:
        yield one


@pytest.mark.parametrize("mode", ["whole", "stream"])
@pytest.mark.parametrize("name", CASES)
def test_switch(sqlite_url: str, impatient: Endpoint, simulator: Simulator, name: str, mode: str) -> None:
    """The outcome is the reply or the typed error, the stored turn says which, and the session goes on."""
    case = CASES[name]
    endpoint = impatient if case.model == impatient.model else native(simulator)
    with Roleplay.open(sqlite_url, model=endpoint) as rp:
        strike(rp, simulator, case, mode)


def strike(rp: Roleplay, simulator: Simulator, case: Case, mode: str) -> None:
    """Let a fault strike a turn, and the next one pass."""
    session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))], scene="A ferry")
    simulator.say(TEXT)
    simulator.next(case.fault, times=case.times)
    expected = getattr(case, mode)
    heard: list[str] = []
    began = time.monotonic()
    try:
        if mode == "whole":
            turn = session.send("Can we cross?")
        else:
            with session.stream("Can we cross?") as reply:
                heard.extend(delta.text for delta in reply if delta.kind == "speech")
            turn = reply.turn
            assert "".join(heard).strip() == turn.reply.text.strip()
    except ChatError as error:
        assert expected not in {"same", "repaired", SAID}, repr(error)
        assert type(error) is expected, repr(error)
        assert bool(heard) == (case.kept and mode == "stream")
        check_failure(session.turns().items[-1], error, heard)
    else:
        assert isinstance(expected, str), f"{turn.reply.text!r} came instead of {expected}"
        check_reply(turn, expected)
        assert session.turn(turn.id) == turn
    assert time.monotonic() - began < 10, "the deadline is 3 seconds"
    simulator.heal()
    assert session.send("And now?").status is TurnStatus.COMPLETED


def check_failure(turn, error: ChatError, heard: list[str]) -> None:
    """A failed turn names its error; one whose text was heard is interrupted and keeps every character of it."""
    assert turn.id == error.turn_id
    assert turn.error["slug"] == error.slug
    if heard:
        assert turn.status is TurnStatus.INTERRUPTED
        assert turn.reply.text == "".join(heard)
    else:
        assert turn.status is TurnStatus.FAILED
        assert turn.reply is None


def check_reply(turn, expected: object) -> None:
    """A completed turn has the text that was said, and is marked where it was repaired."""
    assert turn.status is TurnStatus.COMPLETED
    if expected == SAID:
        assert turn.reply.text == SAID
    if expected == "repaired":
        assert turn.reply.repaired
        assert "\x00" not in turn.reply.text
    else:
        assert not turn.reply.repaired
    turn.reply.text.encode()


@pytest.mark.parametrize("mode", ["whole", "stream"])
def test_usage_is_none_where_it_was_not_reported(rp: Roleplay, simulator: Simulator, mode: str) -> None:
    """No usage is ``None`` in every field, never 0; what was reported is kept with its details."""
    session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
    simulator.next(UsageNull())
    silent = say(session, mode)
    assert silent.usage.reported is (mode == "whole" and silent.usage.total_tokens is not None)
    simulator.next(CacheUsage(443))
    told = say(session, mode)
    assert told.usage.cached_tokens == 443
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens


def say(session, mode: str):
    """Have a turn, whole or streamed."""
    if mode == "whole":
        return session.send("Well?")
    with session.stream("Well?") as reply:
        list(reply)
    return reply.turn


def test_reasoning_is_kept_apart(rp: Roleplay, simulator: Simulator) -> None:
    """Reasoning is streamed as its own kind and stored with the call, never in the reply."""
    session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang"))])
    simulator.say(TEXT)
    simulator.next(ThinkSplit())
    with session.stream("Well?") as reply:
        kinds = {delta.kind for delta in reply}
    assert kinds == {"speech", "reasoning"}
    assert reply.turn.call.reasoning
    assert reply.turn.call.reasoning not in reply.turn.reply.text


def native(simulator: Simulator) -> Endpoint:
    """The model that is spoken to on a path of its own."""
    return Endpoint(
        "M2-her",
        base_url=simulator.base_url,
        api_key=simulator.api_key,
        dialect="minimax",
        path=ChatPath.NATIVE_V2,
        stream_usage=False,
    )


@pytest.mark.parametrize("mode", ["whole", "stream"])
def test_her_on_the_native_path(sqlite_url: str, simulator: Simulator, mode: str) -> None:
    """M2-her is spoken to on its own path, whose stream has no usage chunk and no end mark."""
    with Roleplay.open(sqlite_url, model=native(simulator)) as rp:
        session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))], scene="A ferry")
        turn = say(session, mode)
    assert simulator.requests[-1].path == "/v1/text/chatcompletion_v2"
    assert turn.call.model_answered == "M2-her"
    assert turn.usage.total_tokens > 0


def test_the_folded_dialect(sqlite_url: str, endpoint: Endpoint, simulator: Simulator) -> None:
    """A plain server gets one system message and no names; the session's later requests do too."""
    with Roleplay.open(sqlite_url, model=endpoint.evolve(dialect="openai")) as rp:
        persona = Persona("Huang", "A ferryman.", examples=["{{user}}: Deep?\n{{char}}: Yes."], note="It rains.")
        session = rp.sessions.create(cast=[rp.personas.put(persona)], user=rp.personas.put(Persona("Traveler", "Wet.")))
        session.send("Can we cross?")
        session.send("Now?")
    sent = simulator.requests[-1].json["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert all(set(message) == {"role", "content"} for message in sent)
    assert sent[-1]["content"] == "[It rains.]\n\nNow?"


@pytest.mark.parametrize(("code", "calls"), [(2013, 1), (1000, 2)])
def test_refused_roles_are_folded_once_and_remembered(
    rp: Roleplay, simulator: Simulator, code: int, calls: int
) -> None:
    """A server that refuses the roles in words is spoken to in the folded form from then on; each attempt is kept."""
    simulator.always(RefuseRolePlayRoles(code=code))
    session = rp.sessions.create(cast=[rp.personas.put(Persona("Huang", "A ferryman."))], scene="A ferry")
    turn = session.send("Can we cross?")
    assert [call.dialect for call in turn.calls] == ["minimax", "openai"]
    assert turn.calls[0].error["code"] == code
    assert len(session.send("Now?").calls) == calls

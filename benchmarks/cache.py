"""What a provider's prompt cache can reuse of what is sent:
`python benchmarks/cache.py [--turns 2000] [--low 0.25,0.5,0.65,0.8] [--group 3] [--json]`.

Long conversations are held with a model that answers at once, over a database in memory, with a budget of 8,000 tokens
and a front of about 1,500. *Reused* is the share of all bytes sent that stood, as one unbroken beginning, in the
request before; that is what a prefix cache can serve. Ours is asked at each low-water mark, with and without a note
that stands before the last four messages. Beside it, on the same texts and with the same note:

- ``drop the oldest`` sends the front and the newest whole turns that fit into as much as our largest request;
- ``trim_messages`` is the same as LangChain's function cuts it, where it is installed;
- ``newest items`` is a limit of items, as openai-agents' ``SQLiteSession`` has one.

Money is per 1,000 turns, at the prices below. A token is four bytes here, of ours as of the others.

``--group 3`` measures a group instead, of so many personas and a human: what of each seat's prompts stood in that same
seat's prompt before, when everybody says 60 tokens, every line is answered by a round, by one seat or by whoever is
mentioned, and in each dialect.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from common import LONG_REPLY, MODEL, PERSONA, REPLY, SCENE, USER, markdown, plain

from roleplay import Dialect, Endpoint, Fact, Persona, Roleplay, Seat, SessionSettings
from roleplay.testing import ScriptedModel
from roleplay.wire.request import WireRequest

TURN_TOKENS = (150, 300, 600)
LOW = (0.25, 0.5, 0.65, 0.8)
DEFAULT_LOW = 0.5
BUDGET_TOKENS = 8_000
BYTES_A_TOKEN = 4
FRONT_BYTES = 4_600
NOTE = "The reply is short, in the present tense, and ends with a question; nobody speaks for {{user}}."
NOTE_DEPTH = 4
ITEMS_SHARE = 0.9  # of the items that fit: who limits by items leaves some room for long ones
TARGET_TOKENS, TARGET, TARGET_WITH_NOTE = 300, 0.90, 0.80
GROUP_LINE_TOKENS, GROUP_TARGET = 60, 0.75
LEAST_CACHED = 500  # tokens; a shorter beginning is not kept


class Prices(NamedTuple):
    """US dollars for a million tokens."""

    source: str
    read: float
    written: float
    cached: float


PRICES = Prices("published prices of MiniMax-M2.7", 0.30, 1.20, 0.06)


class Seen:
    """What was sent so far, and how much of it a cache could reuse."""

    def __init__(self) -> None:
        self.requests = self.sent = self.reused = self.cached = self.largest = 0
        self._last = b""

    def see(self, body: bytes) -> None:
        """Take the next request."""
        same = shared(self._last, body)
        self.requests += 1
        self.sent += len(body)
        self.reused += same
        self.cached += same if same >= LEAST_CACHED * BYTES_A_TOKEN else 0
        self.largest = max(self.largest, len(body))
        self._last = body


def shared(one: bytes, other: bytes) -> int:
    """Give how many bytes two bodies have in common from their beginning on."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def words(text: str, number: int, size: int) -> str:
    """Give ``size`` bytes that no other turn says."""
    return f"({number}) {text * (size // len(text) + 1)}"[:size]


class Listener:
    """A chat transport whose model answers at once, with ``reply_bytes`` bytes."""

    def __init__(self, reply_bytes: int) -> None:
        self.seen = Seen()
        self.front: list[dict[str, str]] = []
        self._reply_bytes = reply_bytes

    def open(self, endpoint: Endpoint, request: WireRequest) -> Said:
        """Answer ``request``."""
        if not self.seen.requests:
            self.front = json.loads(request.body)["messages"][:-1]
        self.seen.see(request.body)
        reply = words(LONG_REPLY, self.seen.requests, self._reply_bytes)
        prompt, completion = len(request.body) // BYTES_A_TOKEN, self._reply_bytes // BYTES_A_TOKEN
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
        return Said({"id": "0", "created": 1, "model": endpoint.model, "choices": [message], "usage": usage})

    def close(self) -> None:
        """Nothing to close."""


class Said:
    """An answer that is there at once."""

    status = 200
    headers = {"content-type": "application/json"}

    def __init__(self, answer: dict[str, Any]) -> None:
        self._left = json.dumps(answer).encode()

    def read(self) -> bytes:
        """Give all of it, then nothing."""
        left, self._left = self._left, b""
        return left

    def release(self) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to close."""


class Talk(NamedTuple):
    """A conversation to hold: how many turns, of how many tokens, with a note or not."""

    turns: int
    tokens: int
    note: bool

    @property
    def line_bytes(self) -> int:
        """A third is the human's."""
        return self.tokens * BYTES_A_TOKEN // 3

    @property
    def reply_bytes(self) -> int:
        """Two thirds are the model's."""
        return self.tokens * BYTES_A_TOKEN - self.line_bytes

    def line(self, number: int) -> str:
        """What the human says."""
        return words(REPLY, number, self.line_bytes)


def ours(talk: Talk, low: float) -> Listener:
    """Hold a conversation, and give what was heard of it."""
    model = Listener(talk.reply_bytes)
    facts = [Fact(NOTE, name="note", depth=NOTE_DEPTH)] if talk.note else []
    settings = SessionSettings(budget_tokens=BUDGET_TOKENS, low_water=low, facts=facts)
    endpoint = Endpoint(MODEL, api_key="none", dialect=Dialect.MINIMAX)
    with Roleplay.open("sqlite://", model=endpoint, chat=model, settings=settings) as rp:
        description = words(PERSONA.description, 0, FRONT_BYTES)
        persona = rp.personas.put(Persona(PERSONA.name, description, examples=PERSONA.examples))
        session = rp.sessions.create(cast=[persona], user=rp.personas.put(USER), scene=SCENE)
        for number in range(talk.turns):
            session.send(talk.line(number))
    return model


Cut = Callable[[list[dict[str, str]], int], list[dict[str, str]]]
"""Cuts a history, oldest first and with its newest line, down to so many bytes."""


def size(messages: Sequence[dict[str, str]]) -> int:
    """Give the bytes of messages as they are sent."""
    return len(json.dumps(messages, ensure_ascii=False, separators=(",", ":")).encode())


def drop_oldest(history: list[dict[str, str]], room: int) -> list[dict[str, str]]:
    """Keep the newest line and the newest whole turns."""
    kept = len(history) - 1
    left = room - size(history[kept:])
    while kept >= 2 and (left := left - size(history[kept - 2 : kept])) >= 0:
        kept -= 2
    return history[kept:]


def newest_items(history: list[dict[str, str]], room: int) -> list[dict[str, str]]:
    """Keep as many items as mostly fit."""
    return history[-int(room / (size(history[-2:]) / 2) * ITEMS_SHARE) :]


def trim(history: list[dict[str, str]], room: int) -> list[dict[str, str]]:
    """Keep what LangChain keeps."""
    from langchain_core.messages import trim_messages  # noqa: PLC0415 - need not be there
    from langchain_core.messages.utils import count_tokens_approximately  # noqa: PLC0415 - likewise

    counter = partial(
        count_tokens_approximately, extra_tokens_per_message=size([{"role": "assistant", "content": ""}]) / 4
    )
    given = [{"role": one["role"], "content": one["content"]} for one in history]
    kept = trim_messages(
        given, max_tokens=room // BYTES_A_TOKEN, strategy="last", token_counter=counter, start_on="human"
    )
    return history[len(history) - len(kept) :]


def other(talk: Talk, like: Listener, cut: Cut) -> Seen:
    """Hold the same conversation as ``like`` did, with a history that is cut anew for each request."""
    seen = Seen()
    room = like.seen.largest - size(like.front) - (size([_NOTE]) if talk.note else 0)
    history: list[dict[str, str]] = []
    for number in range(talk.turns):
        history.append({"role": "user", "name": USER.name, "content": talk.line(number)})
        history = cut(history, room)
        messages = [*like.front, *history]
        if talk.note:
            messages.insert(max(len(messages) - NOTE_DEPTH, len(like.front)), _NOTE)
        asked = {"model": MODEL, "messages": messages, "stream": False}
        seen.see(json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode())
        reply = words(LONG_REPLY, number, talk.reply_bytes)
        history.append({"role": "assistant", "name": PERSONA.name, "content": reply})
    return seen


_NOTE = {"role": "system", "name": "note", "content": NOTE}


@dataclass(frozen=True)
class Found:
    """What became of one conversation. Money in US dollars for 1,000 turns."""

    turn_tokens: int
    side: str
    note: bool
    reused: float
    prompt_tokens: float
    money: float
    to_dropping: float


def found(talk: Talk, side: str, seen: Seen, dropping: Seen) -> Found:
    """Give the figures of one conversation."""
    cost, base = (money(one, talk) for one in (seen, dropping))
    prompt = seen.sent / BYTES_A_TOKEN / seen.requests
    return Found(talk.tokens, side, talk.note, seen.reused / seen.sent, prompt, cost, cost / base)


def money(seen: Seen, talk: Talk) -> float:
    """Give what 1,000 turns cost."""
    fresh, cached = ((seen.sent - seen.cached), seen.cached)
    read = (fresh * PRICES.read + cached * PRICES.cached) / BYTES_A_TOKEN
    written = seen.requests * talk.reply_bytes / BYTES_A_TOKEN * PRICES.written
    return (read + written) / 1e6 / seen.requests * 1_000


def measure(turns: int, marks: Sequence[float]) -> list[Found]:
    """Hold all conversations."""
    cuts: dict[str, Cut] = {"newest items": newest_items}
    if importlib.util.find_spec("langchain_core"):
        cuts["trim_messages"] = trim
    rows = []
    for note in (False, True):
        for tokens in TURN_TOKENS:
            talk = Talk(turns, tokens, note)
            heard = {low: ours(talk, low) for low in marks}
            like = max(heard.values(), key=lambda one: one.seen.largest)
            dropping = other(talk, like, drop_oldest)
            rows += [found(talk, f"ours, low water {low}", one.seen, dropping) for low, one in heard.items()]
            rows.append(found(talk, "drop the oldest", dropping, dropping))
            if not note:
                rows += [found(talk, name, other(talk, like, cut), dropping) for name, cut in cuts.items()]
    return rows


HEAD = ["tokens a turn", "what is sent", "note", "reused", "prompt tokens", "$ for 1,000 turns", "to dropping"]


def show(rows: Sequence[Found], turns: int, table: Callable[[Sequence[str], Sequence[Sequence[str]]], str]) -> None:
    """Print what was found for people."""
    print(f"{turns:,} turns each; {PRICES.source}: ${PRICES.read} read, ${PRICES.cached} read from the cache, ", end="")
    print(f"${PRICES.written} written, for a million tokens\n")
    lines = [
        [
            str(one.turn_tokens),
            one.side,
            f"at depth {NOTE_DEPTH}" if one.note else "",
            f"{one.reused:.1%}",
            f"{one.prompt_tokens:,.0f}",
            f"{one.money:.2f}",
            f"{one.to_dropping:.2f}",
        ]
        for one in rows
    ]
    print(table(HEAD, lines))
    for one in rows:
        if one.turn_tokens == TARGET_TOKENS and one.side == f"ours, low water {DEFAULT_LOW}":
            target = TARGET_WITH_NOTE if one.note else TARGET
            kept = "at least" if one.reused >= target else "BELOW"
            with_note = ", with a note" if one.note else ""
            print(f"\n{TARGET_TOKENS} tokens a turn{with_note}: {one.reused:.1%}, {kept} the {target:.0%} wanted")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2_000, help="turns of each conversation")
    parser.add_argument("--low", type=_marks, default=list(LOW), help="low-water marks")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    parser.add_argument("--group", type=int, default=0, help="measure a group of so many personas instead")
    options = parser.parse_args(arguments)
    if options.group:
        found = [
            one for dialect in Dialect for way in WAYS for one in group(options.group, options.turns, dialect, way)
        ]
        if options.json:
            print(json.dumps([one._asdict() for one in found], indent=2))
            return 0
        return show_group(found, options.turns, markdown if options.markdown else plain)
    rows = measure(options.turns, options.low)
    if options.json:
        print(json.dumps({"prices": PRICES._asdict(), "found": [asdict(one) for one in rows]}, indent=2))
    else:
        show(rows, options.turns, markdown if options.markdown else plain)
    return 0


class Kept(NamedTuple):
    """What of a seat's prompts stood, as one unbroken beginning, in its prompt before: the share of all bytes sent."""

    dialect: str
    way: str
    seat: str
    requests: int
    reused: float
    prompt_tokens: float


WAYS = ("rounds", "one at a time", "by mention")


def group(size: int, turns: int, dialect: Dialect, way: str) -> list[Kept]:
    """Let a group talk until so many turns were spoken, and give what was heard of each seat."""
    numbers = iter(range(10**9))
    line_bytes = GROUP_LINE_TOKENS * BYTES_A_TOKEN
    seen: dict[str, Seen] = {f"{PERSONA.name} {number}": Seen() for number in range(1, size + 1)}
    model = ScriptedModel(usage=False, piece_chars=line_bytes)
    settings = SessionSettings(
        budget_tokens=BUDGET_TOKENS,
        speaking={"rounds": "list", "one at a time": "round_robin", "by mention": "natural"}[way],
        round_turns=size,
    )
    endpoint = Endpoint(MODEL, api_key="none", dialect=dialect)
    with Roleplay.open("sqlite://", model=endpoint, chat=model, settings=settings) as rp:
        cast = []
        for name in seen:
            description = words(PERSONA.description, 0, FRONT_BYTES)
            cast.append(Seat(rp.personas.put(Persona(name, description, examples=PERSONA.examples)), name=name))
        session = rp.sessions.create(cast=cast, users=[Seat(rp.personas.put(USER))], scene=SCENE)
        spoken = 0
        while spoken < turns:
            model.say(*[words(LONG_REPLY, next(numbers), line_bytes) for _ in range(size)])
            number = next(numbers)
            text = words(REPLY, number, line_bytes)
            if way == "by mention":  # of whom, no pattern tells
                text = f"{list(seen)[number * number // 7 % size]}, {text}"[:line_bytes]
            if way == "rounds":
                with session.round(text) as stream:
                    names = [turn.reply.name for turn in stream.turns() if turn.reply]
            else:
                reply = session.send(text).reply
                names = [reply.name] if reply else []
            for name, body in zip(names, model.bodies, strict=True):
                seen[name].see(body)
            spoken += len(names)
            model.bodies.clear()
            model._replies.clear()  # noqa: SLF001 - what this round did not say
    return [
        Kept(str(dialect), way, name, one.requests, one.reused / one.sent, one.sent / BYTES_A_TOKEN / one.requests)
        for name, one in seen.items()
    ]


def show_group(rows: Sequence[Kept], turns: int, table: Callable[[Sequence[str], Sequence[Sequence[str]]], str]) -> int:
    """Print what was found of groups for people; gives 1 where a seat is below what is wanted."""
    print(f"{turns:,} turns each, lines of {GROUP_LINE_TOKENS} tokens, a budget of {BUDGET_TOKENS:,}\n")
    head = ["dialect", "who answers", "seat", "requests", "reused", "prompt tokens"]
    lines = [
        [one.dialect, one.way, one.seat, f"{one.requests:,}", f"{one.reused:.1%}", f"{one.prompt_tokens:,.0f}"]
        for one in rows
    ]
    print(table(head, lines))
    least = min(one.reused for one in rows)
    kept = "at least" if least >= GROUP_TARGET else "BELOW"
    print(f"\nleast of a seat: {least:.1%}, {kept} the {GROUP_TARGET:.0%} wanted")
    return int(least < GROUP_TARGET)


def _marks(text: str) -> list[float]:
    return [float(one) for one in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())

"""What a turn is with other libraries that keep conversations: what they keep, and nothing else (*store only*).

Each takes the same line, posts with the same ``requests`` as the floor, and keeps the line and the reply. None calls
the model through a client of its own: that is the strictest comparison, and the kindest to them; how they are run as
their documentation says stands in `benchmarks/documented.py`. What is read, how it is cut down, and what is written in
how many commits is theirs:

- ``agents``: ``SQLiteSession`` of openai-agents, which its runner reads whole and sends whole, and to which it adds the
  line before the call and the reply after it. ``agents-limit``: the same with ``SessionSettings(limit=...)``.
- ``langgraph``: a graph of one node with ``SqliteSaver``; the node cuts with ``trim_messages``. Its past is written as
  one checkpoint, where a real one has some for every turn.
- ``langchain``: ``SQLChatMessageHistory``, read whole and cut with ``trim_messages``; both messages in one commit, as
  ``RunnableWithMessageHistory`` adds them.
- ``llm``: ``LogStore.thread_messages`` and ``append``, the least of what ``llm -c`` does; it offers nothing to cut
  with, so all of it is sent.
- ``pydantic-ai``: the recipe of its chat example, a row of JSON for each turn, read whole and sent whole;
  ``pydantic-ai-window`` keeps the newest messages of it, as its page on history processors does.

``trim_messages`` counts with ``count_tokens_approximately``, which its documentation recommends for the path of a
request. A limit of items is what the budget holds of these texts. Each side says how many messages a request must
have, and the server counts them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from common import HUMAN, LONG_REPLY, MODEL, PERSONA, SCENE, USER, poster

BUDGET_TOKENS = 8_000
SYSTEM = "\n".join([PERSONA.description, USER.description, SCENE, *map(str, PERSONA.examples)])
PACKAGES = ("openai-agents", "langgraph", "langgraph-checkpoint-sqlite", "langchain-core", "langchain-community",
            "langchain-openai", "llm", "pydantic-ai-slim", "openai", "SQLAlchemy", "requests")  # fmt: skip
CHUNK = 2_000  # messages that are written at once where a past is made
OTHER = 2_000  # messages of each conversation beside


def about(text: str) -> int:
    """Count tokens as ``count_tokens_approximately`` does."""
    return len(text) // 4 + 3


ROOM = BUDGET_TOKENS - about(SYSTEM)
WINDOW = 2 * (ROOM // (about(HUMAN) + about(LONG_REPLY)))


class Tally:
    """How many tokens a counter was made to count."""

    def __init__(self) -> None:
        self.tokens = 0

    def over(self, counter: Callable[..., int]) -> Callable[..., int]:
        """Give ``counter`` with its results added up here."""

        def counted(*values: Any) -> int:
            tokens = counter(*values)
            self.tokens += tokens
            return tokens

        return counted


class UnableError(Exception):
    """What is asked of a side is nothing that it does; the text says why."""


class Side(Protocol):
    """One way to keep a conversation."""

    tally: Tally

    def sends(self, past: int) -> range:
        """Say how many messages a request may have that is made after so many."""
        ...

    def fill(self, messages: int) -> None:
        """Give the conversation a past of so many messages."""
        ...

    def beside(self, messages: int) -> None:
        """Write so many messages of other conversations into the same database. Raises ``UnableError``."""
        ...

    def turn(self) -> None:
        """Say something and keep what is answered."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


def whole(past: int) -> range:
    """What is sent by whoever sends all: the system's words, the past, the line."""
    return range(past + 2, past + 3)


def newest(past: int) -> range:
    """What is sent by whoever sends the newest messages."""
    return whole(min(past, WINDOW))


def fitting(past: int) -> range:
    """What is sent by whoever cuts to a budget of tokens: as much, or a little less, since they count roles too."""
    return range(newest(past).start - max(4, WINDOW // 16), newest(past).stop)


class Peer:
    """What the peers have in common."""

    def __init__(self, path: Path, url: str, sends: Callable[[int], range] = whole) -> None:
        self.tally = Tally()
        self._sends = sends
        self._path = path
        self._posted = poster(url)
        self._said = 0

    def sends(self, past: int) -> range:
        """Say how many messages a request may have that is made after so many."""
        return self._sends(past)

    def post(self, past: Sequence[dict[str, str]]) -> str:
        """Post a past with its newest line, and give the reply."""
        messages = [{"role": "system", "content": SYSTEM}, *past]
        return self._posted({"model": MODEL, "messages": messages, "stream": False})[0]

    def line(self) -> str:
        """Give the next line."""
        self._said += 1
        return HUMAN.format(self._said)

    def close(self) -> None:
        """Nothing to close."""


def others(messages: int) -> Iterator[str]:
    """Name the conversations that hold so many messages together."""
    return (f"other-{number}" for number in range(messages // OTHER))


def spoken(messages: int) -> Iterator[list[tuple[str, str]]]:
    """Give a past of so many messages, as (line, reply), in chunks."""
    turns = messages // 2
    for first in range(0, turns, CHUNK // 2):
        yield [(HUMAN.format(number), LONG_REPLY) for number in range(first, min(first + CHUNK // 2, turns))]


def said(line: str, reply: str) -> list[dict[str, str]]:
    """Give a turn as the messages of a request."""
    return [{"role": "user", "content": line}, {"role": "assistant", "content": reply}]


class Agents(Peer):
    """openai-agents."""

    def __init__(self, path: Path, url: str, limit: int | None = None) -> None:
        super().__init__(path, url, newest if limit else whole)
        self._limit = limit
        self._loop = asyncio.new_event_loop()  # no Runner: it would take the loop of those who are run without one
        self._session = self._open("benchmark")

    def _open(self, name: str) -> Any:
        from agents import SQLiteSession
        from agents.memory import SessionSettings

        return SQLiteSession(name, self._path, session_settings=SessionSettings(limit=self._limit))

    def fill(self, messages: int) -> None:
        self._fill(self._session, messages)

    def _fill(self, session: Any, messages: int) -> None:
        for chunk in spoken(messages):
            self._loop.run_until_complete(session.add_items([one for turn in chunk for one in said(*turn)]))

    def beside(self, messages: int) -> None:
        for name in others(messages):
            session = self._open(name)
            self._fill(session, OTHER)
            session.close()

    def turn(self) -> None:
        past = self._loop.run_until_complete(self._session.get_items())
        line, _ = said(self.line(), "")
        self._loop.run_until_complete(self._session.add_items([line]))
        self._loop.run_until_complete(self._session.add_items([said("", self.post([*past, line]))[1]]))

    def close(self) -> None:
        self._session.close()
        self._loop.close()


ROLES = {"human": "user", "ai": "assistant"}


def trimmed(messages: Sequence[Any], counter: Callable[..., int]) -> list[dict[str, str]]:
    """Cut LangChain's messages down to the room, and give them as a request has them."""
    from langchain_core.messages import trim_messages

    kept = trim_messages(messages, max_tokens=ROOM, strategy="last", token_counter=counter, start_on="human")
    return [{"role": ROLES[one.type], "content": one.content} for one in kept]


def as_langchain(line: str, reply: str) -> list[Any]:
    """Give a turn as LangChain's messages."""
    from langchain_core.messages import AIMessage, HumanMessage

    return [HumanMessage(line), AIMessage(reply)]


def approximately() -> Callable[..., int]:
    """Give LangChain's counter."""
    from langchain_core.messages.utils import count_tokens_approximately

    counter: Callable[..., int] = count_tokens_approximately
    return counter


class LangGraph(Peer):
    """LangGraph with its checkpoints in SQLite."""

    def __init__(self, path: Path, url: str) -> None:
        from langgraph.checkpoint.sqlite import SqliteSaver
        from langgraph.graph import START, MessagesState, StateGraph

        super().__init__(path, url, fitting)
        counter = self.tally.over(approximately())

        def talk(state: dict[str, Any]) -> dict[str, Any]:
            return {"messages": as_langchain("", self.post(trimmed(state["messages"], counter)))[1:]}

        builder = StateGraph(MessagesState)
        builder.add_node("talk", talk)
        builder.add_edge(START, "talk")
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._graph: Any = builder.compile(checkpointer=SqliteSaver(self._db))

    def fill(self, messages: int) -> None:
        self._fill("benchmark", messages)

    def _fill(self, thread: str, messages: int) -> None:
        past = [one for chunk in spoken(messages) for turn in chunk for one in as_langchain(*turn)]
        self._graph.update_state({"configurable": {"thread_id": thread}}, {"messages": past}, as_node="talk")

    def beside(self, messages: int) -> None:
        for name in others(messages):
            self._fill(name, OTHER)

    def turn(self) -> None:
        config = {"configurable": {"thread_id": "benchmark"}}
        self._graph.invoke({"messages": as_langchain(self.line(), "")[:1]}, config)

    def close(self) -> None:
        self._db.close()


class LangChain(Peer):
    """LangChain's history of chat messages in SQL."""

    def __init__(self, path: Path, url: str) -> None:
        super().__init__(path, url, fitting)
        self._counter = self.tally.over(approximately())
        self._history = self._open("benchmark")

    def _open(self, name: str) -> Any:
        from langchain_community.chat_message_histories import SQLChatMessageHistory

        return SQLChatMessageHistory(session_id=name, connection=f"sqlite:///{self._path}")

    def fill(self, messages: int) -> None:
        self._fill(self._history, messages)

    def _fill(self, history: Any, messages: int) -> None:
        for chunk in spoken(messages):
            history.add_messages([one for turn in chunk for one in as_langchain(*turn)])

    def beside(self, messages: int) -> None:
        for name in others(messages):
            history = self._open(name)
            self._fill(history, OTHER)
            history.engine.dispose()

    def turn(self) -> None:
        line, reply = as_langchain(self.line(), "")
        reply.content = self.post(trimmed([*self._history.messages, line], self._counter))
        self._history.add_messages([line, reply])

    def close(self) -> None:
        self._history.engine.dispose()


class Llm(Peer):
    """The store of conversations of ``llm``."""

    def __init__(self, path: Path, url: str) -> None:
        from llm.logs import LogStore
        from sqlite_utils import Database

        super().__init__(path, url)
        self._store: Any = LogStore(Database(path))
        self._store.create_thread(id="benchmark")

    def fill(self, messages: int) -> None:
        self._fill("benchmark", messages)

    def _fill(self, thread: str, messages: int) -> None:
        for chunk in spoken(messages):
            with self._store.db.atomic():
                self._store.append(thread, [one for turn in chunk for one in _as_llm(*turn)])

    def beside(self, messages: int) -> None:
        for name in others(messages):
            self._store.create_thread(id=name)
            self._fill(name, OTHER)

    def turn(self) -> None:
        past = [
            {"role": one.role, "content": "".join(part.text for part in one.parts)}
            for one in self._store.thread_messages("benchmark")
        ]
        line = self.line()
        reply = self.post([*past, *said(line, "")[:1]])
        with self._store.db.atomic():
            self._store.append("benchmark", _as_llm(line, reply))

    def close(self) -> None:
        self._store.db.close()


def _as_llm(line: str, reply: str) -> list[Any]:
    from llm import assistant, user

    return [user(line), assistant(reply)]


class PydanticAI(Peer):
    """Pydantic AI's message history as JSON, a row for each turn; ``window``: how many messages of it are sent."""

    def __init__(self, path: Path, url: str, window: int = 0) -> None:
        super().__init__(path, url, newest if window else whole)
        self._window = window
        self._db = sqlite3.connect(path)
        self._db.execute("CREATE TABLE IF NOT EXISTS messages (id INT PRIMARY KEY, message_list TEXT)")
        self._db.commit()

    def fill(self, messages: int) -> None:
        for chunk in spoken(messages):
            rows = [(_dumped(_as_pydantic(*turn)),) for turn in chunk]
            self._db.executemany("INSERT INTO messages (message_list) VALUES (?)", rows)
        self._db.commit()

    def beside(self, messages: int) -> None:
        raise UnableError(f"its recipe has one conversation in a database, and no place for {messages} of others")

    def turn(self) -> None:
        from pydantic_ai.messages import ModelMessagesTypeAdapter

        past: list[Any] = []
        with closing(self._db.execute("SELECT message_list FROM messages ORDER BY id")) as rows:
            for row in rows.fetchall():
                past.extend(ModelMessagesTypeAdapter.validate_json(row[0]))
        line = self.line()
        asked = [
            {"role": "user" if one.kind == "request" else "assistant", "content": one.parts[0].content}
            for one in past[-self._window :]
        ]
        reply = self.post([*asked, *said(line, "")[:1]])
        self._db.execute("INSERT INTO messages (message_list) VALUES (?)", (_dumped(_as_pydantic(line, reply)),))
        self._db.commit()

    def close(self) -> None:
        self._db.close()


def _as_pydantic(line: str, reply: str) -> list[Any]:
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

    return [ModelRequest(parts=[UserPromptPart(line)]), ModelResponse(parts=[TextPart(reply)])]


def _dumped(messages: list[Any]) -> bytes:
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    dumped: bytes = ModelMessagesTypeAdapter.dump_json(messages)
    return dumped


STORE_ONLY: dict[str, Callable[[Path, str], Side]] = {
    "agents (store only)": Agents,
    "agents-limit (store only)": lambda path, url: Agents(path, url, WINDOW),
    "langgraph (store only)": LangGraph,
    "langchain (store only)": LangChain,
    "llm (store only)": Llm,
    "pydantic-ai (store only)": PydanticAI,
    "pydantic-ai-window (store only)": lambda path, url: PydanticAI(path, url, WINDOW),
}

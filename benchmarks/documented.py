"""What a turn is with other libraries that keep conversations, *as documented*: through the front door that the
documentation of each shows, with the client that it shows, against the same server as all.

- ``agents``: ``Runner.run_sync(agent, text, session=SQLiteSession(...))`` of openai-agents, with an
  ``OpenAIChatCompletionsModel`` and tracing disabled. ``agents-limit``: the same with
  ``RunConfig(session_settings=SessionSettings(limit=...))``.
- ``langgraph``: ``graph.invoke`` of a graph with one node and ``SqliteSaver``; the node cuts with ``trim_messages`` and
  asks ``ChatOpenAI``, as the how-to on memory does. Its past is one checkpoint, where a real one has some every turn.
- ``langchain``: ``RunnableWithMessageHistory`` over prompt and ``ChatOpenAI``, with ``trim_messages`` before them and a
  ``SQLChatMessageHistory`` made by its address for each call, as its page makes it. Deprecated, but what there is.
- ``llm``: what ``llm -c`` does, without the start of a process: ``load_conversation``, ``conversation.prompt``,
  ``response.log_to_db``, with a model of ``extra-openai-models.yaml``. It streams, and makes a client for each prompt.
- ``pydantic-ai``: ``agent.run_sync(text, message_history=...)`` with the history of its chat example: a row of
  ``new_messages_json()`` for each turn. ``pydantic-ai-window``: with a history processor that keeps the newest
  messages.

A past is made of copies of what the library itself makes of a reply, with its metadata. Where the client can be kept
it is, with its connection. Budgets and counters are those of `benchmarks/peers.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from common import HUMAN, KEY, MODEL
from peers import (
    OTHER,
    ROOM,
    SYSTEM,
    WINDOW,
    Peer,
    Side,
    UnableError,
    about,
    approximately,
    fitting,
    newest,
    others,
    spoken,
    whole,
)

HELLO = "Hello. ({})"


class Documented(Peer):
    """What those have in common that call the model themselves."""

    def __init__(self, path: Path, url: str, sends: Callable[[int], range] = whole) -> None:
        super().__init__(path, url, sends)
        self._base_url = url.removesuffix("/chat/completions")


class Agents(Documented):
    """openai-agents and its runner."""

    def __init__(self, path: Path, url: str, limit: int | None = None) -> None:
        from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner
        from agents.memory import SessionSettings
        from openai import AsyncOpenAI

        super().__init__(path, url, newest if limit else whole)
        client = AsyncOpenAI(base_url=self._base_url, api_key=KEY)
        model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
        self._agent = Agent(name="Assistant", instructions=SYSTEM, model=model)
        settings = SessionSettings(limit=limit) if limit else None
        self._config = RunConfig(tracing_disabled=True, session_settings=settings)
        self._run: Any = Runner.run_sync
        self._session = self._open("benchmark")

    def _open(self, name: str) -> Any:
        from agents import SQLiteSession

        return SQLiteSession(name, self._path)

    @cached_property
    def _reply(self) -> Any:
        found = self._run(self._agent, HELLO, run_config=self._config)
        return found.to_input_list()[-1]

    def fill(self, messages: int) -> None:
        self._fill(self._session, messages)

    def _fill(self, session: Any, messages: int) -> None:
        reply = self._reply
        loop = asyncio.new_event_loop()
        for chunk in spoken(messages):
            items = [item for line, _ in chunk for item in ({"content": line, "role": "user"}, reply)]
            loop.run_until_complete(session.add_items(items))
        loop.close()

    def beside(self, messages: int) -> None:
        for name in others(messages):
            session = self._open(name)
            self._fill(session, OTHER)
            session.close()

    def turn(self) -> None:
        self._run(self._agent, self.line(), session=self._session, run_config=self._config)

    def close(self) -> None:
        self._session.close()


class LangGraph(Documented):
    """LangGraph with its checkpoints in SQLite and a chat model."""

    def __init__(self, path: Path, url: str) -> None:
        from langchain_core.messages import SystemMessage, trim_messages
        from langgraph.checkpoint.sqlite import SqliteSaver
        from langgraph.graph import START, MessagesState, StateGraph

        super().__init__(path, url, fitting)
        counter = self.tally.over(approximately())
        self._model = chat_model(self._base_url)

        def call_model(state: dict[str, Any]) -> dict[str, Any]:
            messages = trim_messages(
                state["messages"],
                strategy="last",
                token_counter=counter,
                max_tokens=ROOM,
                start_on="human",
                end_on=("human", "tool"),
            )
            return {"messages": [self._model.invoke([SystemMessage(SYSTEM), *messages])]}

        builder = StateGraph(MessagesState)
        builder.add_node("call_model", call_model)
        builder.add_edge(START, "call_model")
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._graph: Any = builder.compile(checkpointer=SqliteSaver(self._db))

    def fill(self, messages: int) -> None:
        self._fill("benchmark", messages)

    def _fill(self, thread: str, messages: int) -> None:
        past = copies(self._model.invoke(HELLO), messages)
        self._graph.update_state({"configurable": {"thread_id": thread}}, {"messages": past}, as_node="call_model")

    def beside(self, messages: int) -> None:
        for name in others(messages):
            self._fill(name, OTHER)

    def turn(self) -> None:
        config = {"configurable": {"thread_id": "benchmark"}}
        self._graph.invoke({"messages": [{"role": "user", "content": self.line()}]}, config)

    def close(self) -> None:
        self._db.close()


def chat_model(base_url: str) -> Any:
    """Give LangChain's client."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, base_url=base_url, api_key=KEY)


def copies(reply: Any, messages: int) -> list[Any]:
    """Give a past of so many messages whose replies are copies of one."""
    from langchain_core.messages import HumanMessage

    turns = [turn for chunk in spoken(messages) for turn in chunk]
    return [
        one
        for number, (line, _) in enumerate(turns)
        for one in (HumanMessage(line), reply.model_copy(update={"id": f"{reply.id}-{number}"}))
    ]


class LangChain(Documented):
    """LangChain's chain with a history of chat messages in SQL."""

    def __init__(self, path: Path, url: str) -> None:
        from langchain_core.messages import trim_messages
        from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
        from langchain_core.runnables import RunnablePassthrough
        from langchain_core.runnables.history import RunnableWithMessageHistory

        super().__init__(path, url, fitting)
        self._model = chat_model(self._base_url)
        trimmer: Any = trim_messages(
            strategy="last",
            token_counter=self.tally.over(approximately()),
            max_tokens=ROOM - about(HUMAN),
            start_on="human",
        )
        prompt = ChatPromptTemplate.from_messages(
            [("system", "{system}"), MessagesPlaceholder("history"), ("human", "{question}")]
        )
        chain = RunnablePassthrough.assign(history=itemgetter("history") | trimmer) | prompt | self._model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated
            self._chain: Any = RunnableWithMessageHistory(
                chain, self._open, input_messages_key="question", history_messages_key="history"
            )

    def _open(self, session_id: str) -> Any:
        from langchain_community.chat_message_histories import SQLChatMessageHistory

        return SQLChatMessageHistory(session_id=session_id, connection=f"sqlite:///{self._path}")

    def fill(self, messages: int) -> None:
        self._fill("benchmark", messages)

    def _fill(self, name: str, messages: int) -> None:
        history = self._open(name)
        past = copies(self._model.invoke(HELLO), messages)
        for first in range(0, len(past), OTHER):
            history.add_messages(past[first : first + OTHER])
        history.engine.dispose()

    def beside(self, messages: int) -> None:
        for name in others(messages):
            self._fill(name, OTHER)

    def turn(self) -> None:
        config = {"configurable": {"session_id": "benchmark"}}
        self._chain.invoke({"system": SYSTEM, "question": self.line()}, config)


class Llm(Documented):
    """A conversation of ``llm``, continued."""

    def __init__(self, path: Path, url: str) -> None:
        from llm.migrations import migrate
        from sqlite_utils import Database

        super().__init__(path, url)
        folder = path.parent / "llm-user"
        folder.mkdir(exist_ok=True)
        models = [{"model_id": "benchmark", "model_name": MODEL, "api_base": self._base_url}]
        folder.joinpath("extra-openai-models.yaml").write_text(json.dumps(models), encoding="utf-8")
        os.environ["LLM_USER_PATH"] = str(folder)
        self._db: Any = Database(path)
        migrate(self._db)

    def fill(self, messages: int) -> None:
        self._fill("benchmark", messages)

    def _fill(self, name: str, messages: int) -> None:
        import llm
        from llm.logs import LogStore

        conversation = llm.get_model("benchmark").conversation()
        conversation.id = name
        response = conversation.prompt(HUMAN.format(0), system=SYSTEM)
        response.text()
        response.log_to_db(self._db)
        store = LogStore(self._db)
        for chunk in spoken(messages - 2):
            with self._db.atomic():
                store.append(name, [one for line, reply in chunk for one in (llm.user(line), llm.assistant(reply))])

    def beside(self, messages: int) -> None:
        for name in others(messages):
            self._fill(name, OTHER)

    def turn(self) -> None:
        from llm.cli import load_conversation

        conversation: Any = load_conversation("benchmark", database=self._path)
        response = conversation.prompt(self.line())
        response.text()
        response.log_to_db(self._db)

    def close(self) -> None:
        self._db.close()


class PydanticAI(Documented):
    """Pydantic AI's agent, with its history as JSON; ``window``: how many messages of it are sent."""

    def __init__(self, path: Path, url: str, window: int = 0) -> None:
        from pydantic_ai import Agent
        from pydantic_ai.capabilities import ProcessHistory
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        super().__init__(path, url, newest if window else whole)

        def keep_recent_messages(messages: list[Any]) -> list[Any]:
            return messages[-window - 1 :]  # one of them is the line

        model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=self._base_url, api_key=KEY))
        capabilities = [ProcessHistory(keep_recent_messages)] if window else []
        self._agent: Any = Agent(model, instructions=SYSTEM, capabilities=capabilities)
        self._db = sqlite3.connect(path)
        self._db.execute("CREATE TABLE IF NOT EXISTS messages (id INT PRIMARY KEY, message_list TEXT)")
        self._db.commit()

    def fill(self, messages: int) -> None:
        made: bytes = self._agent.run_sync(HELLO).new_messages_json()
        for chunk in spoken(messages):
            rows = [(made.replace(HELLO.encode(), line.encode()),) for line, _ in chunk]
            self._db.executemany("INSERT INTO messages (message_list) VALUES (?)", rows)
        self._db.commit()

    def beside(self, messages: int) -> None:
        raise UnableError(f"its recipe has one conversation in a database, and no place for {messages} of others")

    def turn(self) -> None:
        from pydantic_ai import ModelMessagesTypeAdapter

        past: list[Any] = []
        with closing(self._db.execute("SELECT message_list FROM messages ORDER BY id")) as rows:
            for row in rows.fetchall():
                past.extend(ModelMessagesTypeAdapter.validate_json(row[0]))
        made = self._agent.run_sync(self.line(), message_history=past).new_messages_json()
        self._db.execute("INSERT INTO messages (message_list) VALUES (?)", (made,))
        self._db.commit()

    def close(self) -> None:
        self._db.close()


DOCUMENTED: dict[str, Callable[[Path, str], Side]] = {
    "agents": Agents,
    "agents-limit": lambda path, url: Agents(path, url, WINDOW),
    "langgraph": LangGraph,
    "langchain": LangChain,
    "llm": Llm,
    "pydantic-ai": PydanticAI,
    "pydantic-ai-window": lambda path, url: PydanticAI(path, url, WINDOW),
}

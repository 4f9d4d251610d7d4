"""Chat clients of others behind one face: a blocking and an asyncio one of each of three packages.

Each is used as its own documentation says. A test says what is asked; these say how a package is asked it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import httpx
import langchain_core.messages as lc
import litellm
import openai
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from roleplay.testing.simulator import NATIVE_PATH

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Told:
    """What a client gave: the text, the tokens of prompt and completion, why it ended; of a stream, its pieces."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str
    pieces: tuple[str, ...] = ()


class Client(ABC):
    """One client, which speaks to ``base_url`` (without a path) and makes so many more attempts by itself."""

    def __init__(self, base_url: str, api_key: str, *, retries: int = 0) -> None:
        self.url = f"{base_url}/v1"
        self.key = api_key
        self.retries = retries

    @abstractmethod
    def complete(self, model: str, messages: Messages) -> Told:
        """Ask for a whole reply."""

    @abstractmethod
    def stream(self, model: str, messages: Messages) -> Told:
        """Ask for a stream that reports usage, and read it to its end."""


class OpenAI(Client):
    """The package ``openai``."""

    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=self.key, max_retries=self.retries)

    def complete(self, model: str, messages: Messages) -> Told:
        with self._client() as client:
            return _completion(client.chat.completions.create(model=model, messages=messages))

    def stream(self, model: str, messages: Messages) -> Told:
        with self._client() as client:
            given = client.chat.completions.create(
                model=model, messages=messages, stream=True, stream_options={"include_usage": True}
            )
            return _chunks(given)

    def native(self, model: str, messages: Messages) -> ChatCompletion:
        """Ask for a whole reply on the vendor's own path, by the package's way to paths that it does not know."""
        with self._client() as client:
            body = {"model": model, "messages": messages}
            return client.post(NATIVE_PATH.removeprefix("/v1"), body=body, cast_to=ChatCompletion)

    def native_stream(self, model: str, messages: Messages) -> list[ChatCompletionChunk]:
        """Ask for a stream there."""
        with self._client() as client:
            body = {"model": model, "messages": messages, "stream": True}
            kind = openai.Stream[ChatCompletionChunk]
            given = client.post(
                NATIVE_PATH.removeprefix("/v1"), body=body, cast_to=ChatCompletionChunk, stream=True, stream_cls=kind
            )
            return list(given)


class AsyncOpenAI(Client):
    """The same with asyncio."""

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url, api_key=self.key, max_retries=self.retries)

    def complete(self, model: str, messages: Messages) -> Told:
        async def run() -> Told:
            async with self._client() as client:
                return _completion(await client.chat.completions.create(model=model, messages=messages))

        return asyncio.run(run())

    def stream(self, model: str, messages: Messages) -> Told:
        async def run() -> Told:
            async with self._client() as client:
                given = await client.chat.completions.create(
                    model=model, messages=messages, stream=True, stream_options={"include_usage": True}
                )
                return _chunks(await _all(given))

        return asyncio.run(run())


class LiteLLM(Client):
    """The package ``litellm``, told that the server speaks OpenAI's protocol."""

    def _asked(self, model: str, messages: Messages) -> dict[str, Any]:
        return {
            "model": f"openai/{model}",
            "messages": messages,
            "api_base": self.url,
            "api_key": self.key,
            "max_retries": 0,
            "num_retries": self.retries,
        }

    def complete(self, model: str, messages: Messages) -> Told:
        return _completion(litellm.completion(**self._asked(model, messages)))

    def stream(self, model: str, messages: Messages) -> Told:
        options = {"include_usage": True}
        return _chunks(litellm.completion(**self._asked(model, messages), stream=True, stream_options=options))


class AsyncLiteLLM(LiteLLM):
    """The same with asyncio."""

    def complete(self, model: str, messages: Messages) -> Told:
        async def run() -> Told:
            try:
                return _completion(await litellm.acompletion(**self._asked(model, messages)))
            finally:
                await litellm.close_litellm_async_clients()

        return asyncio.run(run())

    def stream(self, model: str, messages: Messages) -> Told:
        async def run() -> Told:
            options = {"include_usage": True}
            try:
                given = await litellm.acompletion(**self._asked(model, messages), stream=True, stream_options=options)
                return _chunks(await _all(given))
            finally:
                await litellm.close_litellm_async_clients()

        return asyncio.run(run())


class LangChain(Client):
    """The package ``langchain-openai``."""

    def _client(self, model: str, **http: Any) -> ChatOpenAI:
        return ChatOpenAI(
            model=model, base_url=self.url, api_key=self.key, max_retries=self.retries, stream_usage=True, **http
        )

    def complete(self, model: str, messages: Messages) -> Told:
        with httpx.Client() as http:
            return _message([self._client(model, http_client=http).invoke(_langchain(messages))])

    def stream(self, model: str, messages: Messages) -> Told:
        with httpx.Client() as http:
            return _message(list(self._client(model, http_client=http).stream(_langchain(messages))))


class AsyncLangChain(LangChain):
    """The same with asyncio; its own HTTP client outlives the event loop, so each call is given one."""

    def complete(self, model: str, messages: Messages) -> Told:
        async def run() -> Told:
            async with httpx.AsyncClient() as http:
                return _message([await self._client(model, http_async_client=http).ainvoke(_langchain(messages))])

        return asyncio.run(run())

    def stream(self, model: str, messages: Messages) -> Told:
        async def run() -> Told:
            async with httpx.AsyncClient() as http:
                client = self._client(model, http_async_client=http)
                return _message(await _all(client.astream(_langchain(messages))))

        return asyncio.run(run())


CLIENTS: tuple[type[Client], ...] = (OpenAI, AsyncOpenAI, LiteLLM, AsyncLiteLLM, LangChain, AsyncLangChain)


async def _all(given: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in given]


def _completion(given: Any) -> Told:
    [choice] = given.choices
    usage = given.usage
    return Told(choice.message.content, usage.prompt_tokens, usage.completion_tokens, choice.finish_reason)


def _chunks(given: Iterable[Any]) -> Told:
    """Read chunks of OpenAI's shape; fails unless exactly one carries usage and one says why it ended."""
    pieces, finishes, usages = [], [], []
    for chunk in given:
        for choice in chunk.choices:
            pieces += [choice.delta.content] if choice.delta.content else []
            finishes += [choice.finish_reason] if choice.finish_reason else []
        if usage := getattr(chunk, "usage", None):
            usages.append(usage)
    [finish], [usage] = finishes, usages
    return Told("".join(pieces), usage.prompt_tokens, usage.completion_tokens, finish, tuple(pieces))


def _message(given: list[Any]) -> Told:
    """Read a message of LangChain, or the chunks of one, which add up."""
    whole = given[0]
    for chunk in given[1:]:
        whole += chunk
    usage, finish = whole.usage_metadata, whole.response_metadata["finish_reason"]
    pieces = tuple(one.content for one in given if one.content)
    return Told(whole.content, usage["input_tokens"], usage["output_tokens"], finish, pieces)


def _langchain(messages: Messages) -> list[lc.BaseMessage]:
    kinds = {"system": lc.SystemMessage, "user": lc.HumanMessage, "assistant": lc.AIMessage}
    found: list[lc.BaseMessage] = []
    for message in messages:
        role, rest = message["role"], {name: value for name, value in message.items() if name != "role"}
        found.append(kinds[role](**rest) if role in kinds else lc.ChatMessage(role=role, **rest))
    return found

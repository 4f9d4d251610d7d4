"""The body of a request: everything but its messages, and the bytes of all of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter

from roleplay.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roleplay.domain.endpoint import CapName, Endpoint
    from roleplay.domain.settings import Sampling

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_SAID = TypeAdapter(list[dict[str, str]])  # of texts it writes the bytes that _JSON does, in a third of the time


class WireRequest(NamedTuple):
    """A request ready to be posted: the path below the base URL, the JSON body, whether a stream is asked for."""

    path: str
    body: bytes
    stream: bool


def parameters(
    endpoint: Endpoint, sampling: Sampling, *, stream: bool, cap_name: CapName | None = None
) -> dict[str, object]:
    """Give everything of the body but its messages, in its fixed order; what is ``None`` is left out.

    A reply cap is always there: without one, some servers generate until the window is full. ``cap_name`` is the name
    that it is sent under, the endpoint's where none is given.

    Raises:
        InvalidInputError: a field of ``sampling`` is out of the range that the service or the model allows.
    """
    _check_share("temperature", sampling.temperature)
    _check_share("top_p", sampling.top_p)
    _check_cap(endpoint, sampling.max_completion_tokens)
    fields: dict[str, object] = {
        "model": endpoint.model,
        cap_name or endpoint.cap_name: reply_cap(endpoint, sampling),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": stream,
        "stream_options": {"include_usage": True} if stream and endpoint.stream_usage else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def reply_cap(endpoint: Endpoint, sampling: Sampling) -> int:
    """Give the tokens that a reply may have: what ``sampling`` says, else the endpoint's own."""
    return endpoint.reply_cap if sampling.max_completion_tokens is None else sampling.max_completion_tokens


def parameters_json(parameters: Mapping[str, object]) -> str:
    """Give ``parameters`` as the JSON text to store; loaded and sent again, it gives the same bytes."""
    return _JSON.encode(dict(parameters))


def encode_request(messages: list[dict[str, str]], parameters: Mapping[str, object]) -> bytes:
    """Give the body: compact UTF-8 JSON, ``model`` first, then ``messages`` as a dialect wrote them, then the rest in
    its order.

    What may differ from turn to turn stands behind the messages, so that successive requests begin with the same bytes.
    """
    rest = _JSON.encode({name: value for name, value in parameters.items() if name != "model"})[1:].encode()
    model = _JSON.encode(parameters["model"]).encode()
    said = _SAID.dump_json(messages)
    return b'{"model":%b,"messages":%b%b%b' % (model, said, b"," if len(rest) > 1 else b"", rest)


def _check_share(field: str, value: float | None) -> None:
    if value is not None and not 0 < value <= 1:
        raise InvalidInputError(field, f"is {value}", allowed="a number in (0, 1]")


def _check_cap(endpoint: Endpoint, tokens: int | None) -> None:
    cap = endpoint.max_output_tokens
    if tokens is None or 1 <= tokens <= cap:
        return
    problem = f"{tokens} is above the cap of model {endpoint.model}" if tokens > cap else f"is {tokens}"
    allowed = f"1 to {cap}; Endpoint(max_output_tokens=...) raises it"
    raise InvalidInputError("max_completion_tokens", problem, allowed=allowed)

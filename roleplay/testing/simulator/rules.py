"""The rules for a request as a whole: key, JSON, fields, model and parameters."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from roleplay.testing.simulator.chat_request import ChatRequest
from roleplay.testing.simulator.messages import MessageRules, read_messages
from roleplay.testing.simulator.models import MODELS, Model, by_id
from roleplay.testing.simulator.refusals import RuleBrokenError, invalid, refusal

MAX_BODY_BYTES = 5_000_000
"""A longer body is refused with HTTP 400."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Rules:
    """What is asked of a request: the key, the models served and the rules for its messages."""

    api_key: str
    models: Mapping[str, Model] = field(default_factory=lambda: by_id(MODELS))
    messages: MessageRules = field(default_factory=MessageRules)


def check_key(authorization: str, rules: Rules) -> None:
    """Raises `RuleBrokenError` with 1004 unless the header is `Bearer` and the key."""
    expected = f"Bearer {rules.api_key}"
    if not hmac.compare_digest(authorization.encode(), expected.encode()):
        detail = "wrong bearer key" if authorization else "no Authorization header"
        raise RuleBrokenError(refusal(1004, detail=detail))


def read_json(content_type: str, body: bytes) -> dict[str, Any]:
    """The JSON object of a body; raises `RuleBrokenError` for a body that is too long or is not a clean JSON object."""
    if len(body) > MAX_BODY_BYTES:
        raise invalid("request body too large", f"{len(body)} bytes")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise invalid("Content-Type must be application/json", f"Content-Type is {content_type!r}")
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise invalid("invalid UTF-8", "a lone surrogate in a string") from None
    except UnicodeDecodeError as broken:
        raise invalid("invalid UTF-8", f"byte {broken.start} of the body is not UTF-8") from None
    except json.JSONDecodeError as broken:
        raise invalid(f"Syntax error at index {broken.pos}", str(broken)) from None
    except (ValueError, RecursionError) as broken:
        raise invalid("Syntax error at index 0", str(broken)) from None
    if not isinstance(value, dict):
        raise invalid("Mismatch type ChatCompletionReq", "the body is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise invalid("duplicate key in JSON object", f"duplicate key among {sorted(key for key, _ in pairs)}")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_request(path: str, body: dict[str, Any], rules: Rules) -> ChatRequest:
    """What the request asks for; raises `RuleBrokenError` at the first thing that no strict server would take."""
    for name in ("model", "messages"):
        if name not in body:
            raise invalid(f"binding: expr_path={name}, cause=missing required parameter")
    model = _read_model(path, body["model"], rules)
    unknown = body.keys() - model.fields
    if unknown:
        raise invalid(f"unknown field '{min(unknown)}'", f"{model.id} documents no field {sorted(unknown)}")
    for name, value in body.items():
        check = _PARAMETERS.get(name)
        if check is not None and not check(value):
            raise invalid(_complaint(name, value), f"{name}={value!r}")
    _check_limit(body, model)
    options = body.get("stream_options")
    if options is not None and body.get("stream") is not True:
        raise invalid("stream_options is only allowed when stream is true")
    return ChatRequest(
        model=model,
        messages=read_messages(body["messages"], rules.messages),
        max_tokens=body.get("max_completion_tokens", body.get("max_tokens", model.max_output_tokens)),
        stream=body.get("stream", False),
        include_usage=bool(options and options.get("include_usage")),
        reasoning_split=body.get("reasoning_split", False),
    )


def check_window(request: ChatRequest) -> None:
    """Raises `RuleBrokenError` when the prompt is longer than the model's window."""
    if request.prompt_tokens > request.model.context_tokens:
        raise invalid("context window exceeds limit", f"{request.prompt_tokens} prompt tokens")


def _read_model(path: str, name: Any, rules: Rules) -> Model:
    if not isinstance(name, str):
        raise invalid("binding: expr_path=model, cause=mismatch type", "model is not a string")
    model = rules.models.get(name)
    if model is None:
        raise invalid(f"unknown model '{name}'")
    if model.path != path:
        raise invalid(f"unknown model '{name}'", f"{name} is served on {model.path}")
    return model


def _check_limit(body: dict[str, Any], model: Model) -> None:
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name, 0) > model.max_output_tokens:
            raise invalid(f"model[{model.id}] does not support max tokens > {model.max_output_tokens}", name)


def _complaint(name: str, value: Any) -> str:
    if name == "thinking":
        return f"Mismatch type ThinkingConfig with value {type(value).__name__}"
    return f"binding: expr_path={name}, cause=invalid parameter"


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _unit(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _one(value: Any) -> bool:
    return _positive(value) and value == 1


def _array(value: Any) -> bool:
    return isinstance(value, list)


def _stream_options(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= {"include_usage"} and all(map(_boolean, value.values()))


def _thinking(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"type"} and value["type"] in ("disabled", "adaptive")


def _service_tier(value: Any) -> bool:
    return value in ("standard", "priority")


_PARAMETERS: dict[str, Callable[[Any], bool]] = {
    "stream": _boolean,
    "reasoning_split": _boolean,
    "mask_sensitive_info": _boolean,
    "temperature": _unit,
    "top_p": _unit,
    "max_completion_tokens": _positive,
    "max_tokens": _positive,
    "n": _one,
    "tools": _array,
    "stream_options": _stream_options,
    "thinking": _thinking,
    "service_tier": _service_tier,
}

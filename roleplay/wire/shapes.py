"""What a ``delta`` or a ``message`` holds, whichever fields and parts a server puts it in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from roleplay.errors import BadReplyError

_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
_THINKING_PARTS = {"thinking", "reasoning"}
_INNER = ("thinking", "reasoning", "text", "content", "summary")


class Part(NamedTuple):
    """A ``delta`` or ``message``: its words by what they are, ``""`` where it has none.

    ``reasoning`` comes from the first field that has some, or from parts of the content. ``details`` is the text of
    ``reasoning_details``, which repeats it.
    """

    speech: str
    reasoning: str
    details: str
    refusal: str
    calls_tool: bool


def part_of(data: Mapping[str, Any]) -> Part:
    """Read a ``delta`` or ``message``. Raises ``BadReplyError`` where its words are not text."""
    speech, thought, refused = _content(data)
    refusal = data.get("refusal")
    return Part(
        speech=speech,
        reasoning=_reasoning(data) or thought,
        details=_details(data),
        refusal=refusal if isinstance(refusal, str) and refusal else refused,
        calls_tool=bool(data.get("tool_calls") or data.get("function_call")),
    )


def text_of(data: Mapping[str, Any], name: str) -> str:
    """Give a field's text, ``""`` where it is missing or empty. Raises ``BadReplyError`` where it is no text."""
    value = data.get(name) or ""
    if not isinstance(value, str):
        raise BadReplyError(f"{name} of the reply is not text")
    return value


def _reasoning(data: Mapping[str, Any]) -> str:
    first = text_of(data, _REASONING[0])
    others = (data.get(name) for name in _REASONING[1:])
    return first or next((other for other in others if other and isinstance(other, str)), "")


def _content(data: Mapping[str, Any]) -> tuple[str, str, str]:
    """Give the speech, reasoning and refusal in ``content``, which is a text or a list of parts."""
    content = data.get("content")
    if not isinstance(content, list | dict):
        return text_of(data, "content"), "", ""
    found: dict[str, list[str]] = {"text": [], "thinking": [], "refusal": []}
    for one in content if isinstance(content, list) else [content]:
        if not isinstance(one, str | dict):
            raise BadReplyError("content of the reply is not text")
        for kind, text in _part(one):
            found[kind].append(text)
    speech, thought, refusal = ("".join(texts) for texts in found.values())
    return speech, thought, refusal


def _part(one: str | Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the words of one part of a content. Images, references and what else has no words are passed over."""
    if isinstance(one, str):
        yield "text", one
        return
    kind = one.get("type")
    if kind in _THINKING_PARTS:
        yield "thinking", next((text for name in _INNER if (text := _words(one.get(name)))), "")
    elif kind == "refusal":
        yield "refusal", _words(one.get("refusal"))
    else:
        yield "text", _words(one.get("text"))


def _words(value: object) -> str:
    """Give a text, or the texts of a list of parts as one."""
    if isinstance(value, list):
        return "".join(_words(one.get("text") if isinstance(one, dict) else one) for one in value)
    return value if isinstance(value, str) else ""


def _details(data: Mapping[str, Any]) -> str:
    details = data.get("reasoning_details")
    return _words([one for one in details if isinstance(one, dict)]) if isinstance(details, list) else ""

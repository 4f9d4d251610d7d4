"""The rules for the list of messages, as strict as the strictest server known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from roleplay.testing.simulator.chat_request import HISTORY_ROLES, ROLE_PLAY_ROLES, ROLES, Message
from roleplay.testing.simulator.refusals import RuleBrokenError, invalid, refusal

_FIELDS = frozenset({"role", "name", "content"})
_RANK = {"system": 0, "user_system": 1, "group": 2, "sample_message_user": 3, "sample_message_ai": 3}
_HISTORY_RANK = 4
_ONCE = ("system", "user_system", "group")
_C0 = {number: None for number in range(32) if chr(number) not in "\t\n\r"}
_CONTROL_RATIO = 0.1


@dataclass(frozen=True)
class MessageRules:
    """What is asked of the messages.

    `require_names`: every message is named as soon as one has a role of the role-play kind. `missing_names_code` is the
    code that answers a missing name (2013 or 1000). `allow_prefill`: an assistant message may be the last.
    `refused_roles_code`: the code that answers the four role-play roles, or None to accept them. `template_http`: the
    status that answers a list in which user and assistant do not alternate from a user on, or in which there is any
    other role, as a server does whose chat template raises; None for one that has no such template.
    """

    require_names: bool = True
    missing_names_code: int = 2013
    allow_prefill: bool = False
    refused_roles_code: int | None = None
    template_http: int | None = None


def read_messages(value: Any, rules: MessageRules) -> tuple[Message, ...]:
    """The messages of a request; raises `RuleBrokenError` at the first that no strict server would take."""
    if not isinstance(value, list):
        raise invalid("binding: expr_path=messages, cause=mismatch type", "messages is not an array")
    if not value:
        raise invalid("chat content is empty", "messages is empty")
    messages = tuple(_read_message(item, place) for place, item in enumerate(value))
    _check_template(messages, rules)
    _check_roles_accepted(messages, rules)
    _check_names(value, messages, rules)
    _check_order(messages)
    _check_history(messages, rules)
    for place, message in enumerate(messages):
        _check_characters(message, place)
    return messages


def _read_message(item: Any, place: int) -> Message:
    where = f"messages[{place}]"
    if not isinstance(item, dict):
        raise invalid(f"binding: expr_path={where}, cause=mismatch type", f"{where} is not an object")
    unknown = item.keys() - _FIELDS
    if unknown:
        raise invalid(f"unknown field '{where}.{min(unknown)}'")
    for field in ("role", "content"):
        if field not in item:
            raise invalid(f"binding: expr_path={where}.{field}, cause=missing required parameter")
        if not isinstance(item[field], str):
            raise invalid(f"binding: expr_path={where}.{field}, cause=mismatch type", f"{where}.{field} is no string")
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise invalid(f"chat content has invalid message role: {role}")
    if not content.strip():
        raise invalid("chat content is empty", f"{where}.content is blank")
    return Message(role, content, _read_name(item["name"], where) if "name" in item else "")


def _read_name(name: Any, where: str) -> str:
    if not isinstance(name, str):
        raise invalid(f"binding: expr_path={where}.name, cause=mismatch type", f"{where}.name is not a string")
    if not name.strip():
        raise invalid(f"binding: expr_path={where}.name, cause=empty parameter", f"{where}.name is blank")
    if name != name.strip() or not name.isprintable():
        raise invalid(
            f"binding: expr_path={where}.name, cause=invalid parameter", f"{where}.name has blank ends or controls"
        )
    return name


def _check_template(messages: tuple[Message, ...], rules: MessageRules) -> None:
    if rules.template_http is None:
        return
    for place, message in enumerate(messages):
        detail = f"messages[{place}] is {message.role}"
        if message.role == "system":
            raise _raised("System role not supported", rules.template_http, detail)
        if message.role not in HISTORY_ROLES:
            raise _raised("Only user and assistant roles are supported!", rules.template_http, detail)
        if message.role != ("user", "assistant")[place % 2]:
            text = "Conversation roles must alternate user/assistant/user/assistant/..."
            raise _raised(text, rules.template_http, detail)


def _raised(text: str, http: int, detail: str) -> RuleBrokenError:
    return RuleBrokenError(refusal(0, http=http, text=text, detail=detail))


def _check_roles_accepted(messages: tuple[Message, ...], rules: MessageRules) -> None:
    if rules.refused_roles_code is None:
        return
    for message in messages:
        if message.role in ROLE_PLAY_ROLES:
            detail = f"role {message.role} is refused here"
            if rules.refused_roles_code == 2013:
                raise invalid(f"chat content has invalid message role: {message.role}", detail)
            raise RuleBrokenError(refusal(rules.refused_roles_code, detail=detail))


def _check_names(items: list[Any], messages: tuple[Message, ...], rules: MessageRules) -> None:
    if not rules.require_names or not any(message.role in ROLE_PLAY_ROLES for message in messages):
        return
    for place, item in enumerate(items):
        if "name" not in item:
            text = f"binding: expr_path=messages[{place}].name, cause=missing required parameter"
            if rules.missing_names_code == 2013:
                raise invalid(text)
            raise RuleBrokenError(refusal(rules.missing_names_code, detail=text))


def _check_order(messages: tuple[Message, ...]) -> None:
    seen: set[str] = set()
    highest = -1
    for place, message in enumerate(messages):
        role = message.role
        if role in _ONCE and role in seen:
            raise invalid("invalid chat setting", f"messages[{place}] is a second {role}")
        seen.add(role)
        rank = _RANK.get(role, _HISTORY_RANK)
        if rank < highest:
            raise invalid("invalid chat setting", f"messages[{place}] ({role}) comes too late")
        highest = rank


def _check_history(messages: tuple[Message, ...], rules: MessageRules) -> None:
    previous = ""
    for place, message in enumerate(messages):
        if message.role in HISTORY_ROLES and message.role == previous:
            raise invalid("invalid chat setting", f"messages[{place}] follows another {previous}")
        previous = message.role
    if previous == "assistant" and rules.allow_prefill:
        return
    if previous != "user":
        raise invalid("invalid chat setting", f"the last message is {previous}, not user")


def _check_characters(message: Message, place: int) -> None:
    content = message.content
    controls = len(content) - len(content.translate(_C0)) if not content.isprintable() else 0
    if controls > len(content) * _CONTROL_RATIO:
        raise RuleBrokenError(
            refusal(1042, detail=f"messages[{place}]: {controls} of {len(content)} are control characters")
        )

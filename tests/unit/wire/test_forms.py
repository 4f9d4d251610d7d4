"""In which form a request is made again, by what a server said of the one that it refused."""

from __future__ import annotations

import pytest

from roleplay.domain.endpoint import Dialect, Form
from roleplay.errors import (
    BadReplyError,
    ChatAuthError,
    ChatError,
    ChatQuotaError,
    ChatRequestError,
    ChatUnavailableError,
    ContentFilteredError,
    EmptyReplyError,
)
from roleplay.wire.codes import chat_error
from roleplay.wire.forms import Refused, refused_form

MINIMAX, OPENAI, STRICT = Dialect.MINIMAX, Dialect.OPENAI, Dialect.STRICT
NEW, OLD = "max_completion_tokens", "max_tokens"
NO_ROLES = [
    "Please use a valid role: user, model.",
    (
        "Invalid value: 'user_system'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and"
        " 'developer'."
    ),
    "Invalid value: 'group'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.",
    "Input should be 'system', 'user', 'assistant' or 'tool'",
    "body.messages.1.role: Input should be 'system', 'user', 'assistant' or 'tool'",
    "body -> messages -> 1 -> role: unexpected value; permitted: 'system', 'user', 'assistant'",
    "[{'type': 'literal_error', 'loc': ('body', 'messages', 1, 'role'), 'msg': \"Input should be 'system', 'user'\"}]",
    "messages.1.ChatCompletionMessageGenericParam.role Value error, 'role' must be one of 'system', 'developer'",
    "Input tag 'group' found using 'role' does not match any of the expected tags: 'system', 'user', 'assistant'",
    (
        "Failed to deserialize the JSON body into the target type: messages[1].role: unknown variant `user_system`,"
        " expected one of `system`, `user`, `assistant`, `tool` at line 1 column 120"
    ),
    "'messages.1' : discriminator property 'role' has invalid value",
    (
        "'messages' array must only contain objects with a 'role' field that is in [user, assistant, system, tool]."
        " Got 'group'"
    ),
    "Unexpected role: sample_message_user",
    "Unknown role: group",
    "invalid role 'user_system' in messages",
    "Unsupported role",
    "role must be one of system, user, assistant, tool",
    "The role group is not supported by this model",
    "Unexpected message role.",
    "Unsupported value: 'messages[1].role' does not support 'group' with this model.",
    "Jinja Exception: Only user, assistant and system roles are supported",
    "Only user, assistant and system roles are supported! at row 1, column 411",
    "messages 参数非法：role 取值不正确",
    "不支持的角色 user_system",
    "角色信息不正确",
]
NO_NAMES = [
    "body.messages.0.name: Extra inputs are not permitted",
    "property 'messages.0.name' is unsupported",
    "'messages.0' : for 'role:user' the following must be satisfied[('messages.0' : property 'name' is unsupported)]",
    "Invalid JSON payload received. Unknown name \"name\" at 'messages[0]': Cannot find field.",
    "Invalid 'messages[0].name': string does not match pattern. Expected a string that matches '^[^\\s<|\\\\/>]+$'.",
    "Additional properties are not allowed ('name' was unexpected) - 'messages.0'",
]
STRICT_WORDS = [
    "Failed to apply chat template: Unknown statement",
    "No user query found in messages.",
    "Please ensure that multiturn requests ends with a user role or a function response.",
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "After the optional system message, conversation roles must alternate user/assistant/user/assistant/...",
    (
        "After the optional system message, conversation roles must alternate user and assistant roles except for tool"
        " calls and results."
    ),
    "After the (optional) system message(s), user or tool message(s) should alternate with assistant message(s).",
    (
        "\n------------\nWhile executing CallExpression at line 1, column 142 in source:\n...% 2 == 0) -%}↵        "
        '{{ raise_exception("Conversation roles must alternate user...\n      ^\nError: Jinja Exception: Conversation'
    ),
    "jinja2.exceptions.TemplateError: Conversation roles must alternate user/assistant/user/assistant/...",
    "roles must alternate",
    'messages: roles must alternate between "user" and "assistant", but found multiple "user" roles in a row',
    "A conversation must alternate between user and assistant roles. Make sure the conversation alternates.",
    "Please ensure that multiturn requests alternate between user and model.",
    "System role not supported",
    "system role is not supported by this model",
    "This model does not support system messages",
    "Developer instruction is not enabled for models/gemma-3-27b-it",
    "System message must be at the beginning.",
    'Unexpected role "system". The Messages API accepts a top-level `system` parameter',
    "first message must be from user",
    "First message must be a user message",
    'messages: first message must use the "user" role',
    "First content should be with role 'user', got model",
    "conversations must start with a user prompt",
    "A conversation must start with a user message.",
    "Last message must have role `user`.",
    "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
    "Expected last role to be one of: [user, tool] but got assistant",
    "The last message must be a user message, or an assistant message with prefix mode on",
    (
        "this model does not support successive user or assistant messages (messages[1] and messages[2] in your input)."
        " You should interleave the user/assistant messages in the message sequence."
    ),
    "consecutive messages of one role are not allowed",
    "Cannot have 2 or more assistant messages at the end of the list.",
    "Unexpected role 'user' after role 'user'",
    "invalid message order",
    "invalid params, messages order is invalid",
    "the role of message with even index in the messages must be assistant",
    "the length of messages must be an odd number",
    "TemplateError: no reason was given",
    "Jinja Exception: unsupported conversation",
    "Failed to apply chat template: template exception",
    "messages 中 user 和 assistant 需要交替出现",
    "user 和 assistant 角色必须交替",
    "第一条消息必须是 user",
    "最后一条消息的 role 必须为 user",
    "该模型不支持 system 角色",
    "messages 长度必须为奇数",
]
NO_SYSTEM = [
    "Input should be 'user' or 'assistant'",
    "Only user and assistant roles are supported!",
    "Unexpected role: user_system, expected user or assistant",
    "role must be one of ['user', 'assistant']",
]
CAP_WORDS = [
    "body.{name}: Extra inputs are not permitted",
    '[{{"type":"extra_forbidden","loc":["body","{name}"],"msg":"Extra inputs are not permitted","input":800}}]',
    "Unrecognized request argument supplied: {name}",
    "Unknown parameter: '{name}'.",
    "property '{name}' is unsupported",
    'Invalid JSON payload received. Unknown name "{name}": Cannot find field.',
    "unknown field `{name}`, expected one of `model`, `messages`",
    'json: unknown field "{name}"',
    "Additional properties are not allowed ('{name}' was unexpected)",
    "chat() got an unexpected keyword argument '{name}'",
    "{name} is not supported",
    "This model does not support {name}.",
    "`{name}` is not a valid parameter",
    "Unsupported parameter: '{name}' is not supported with this model. Use '{other}' instead.",
    "参数 {name} 不支持",
    "未知参数：{name}",
]
VALUE_WORDS = [
    "{name} is too large: 5000. This model supports at most 4096 completion tokens",
    "invalid params, model[some] does not support {name} > 2048",
    "The valid range of {name} is [1, 8192]",
    "{name}: Input should be less than or equal to 4096",
    "Value error, {name} exceeds the maximum that is supported",
    "'{name}' must be greater than 0",
    "{name} 超过上限，不支持",
]
OTHER_WORDS = [
    "the model `some` does not exist",
    "invalid model name",
    "unknown model 'role-play-large'",
    "temperature: Input should be less than or equal to 2",
    "context window exceeds limit",
    "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
    "The system is overloaded, please try an alternate model",
    "Internal Server Error",
    "unknown error, 999",
    "messages[1].content: invalid type: null, expected a string",
    "body.messages.0.content: Field required",
    "stream_options is only allowed when stream is true",
    "The service is currently unavailable",
    "输入不能为空",
]
ERRORS = [
    lambda words: ChatRequestError(words, status=400),
    lambda words: ChatRequestError(words, status=422),
    lambda words: ChatUnavailableError(words, status=500),
    lambda words: ChatUnavailableError(words, status=None),
]


def tried(sent: Form, words: str, *, role_play: bool = True, code: int | None = None) -> Form | None:
    """The form that is tried after ``sent`` was refused in these words, at whatever status."""
    found = {refused_form(sent, error(words), role_play=role_play) for error in ERRORS}
    if code is not None:
        found = {refused_form(sent, ChatRequestError(words, code=code), role_play=role_play)}
    [one] = found
    assert one is None or (one.in_words and one.other != sent)
    return None if one is None else one.other


@pytest.mark.parametrize("words", NO_ROLES)
def test_refused_roles_are_folded(words: str) -> None:
    """Whoever refuses the roles gets them folded; where none of ours was sent, only ``system`` can have been meant."""
    assert tried(Form(MINIMAX, NEW), words) == Form(OPENAI, NEW)
    assert tried(Form(MINIMAX, OLD), words, role_play=False) == Form(STRICT, OLD)
    assert tried(Form(OPENAI, NEW), words, role_play=True) == Form(STRICT, NEW)
    assert tried(Form(STRICT, NEW), words) is None


@pytest.mark.parametrize("words", NO_NAMES)
def test_refused_names_are_left_out(words: str) -> None:
    """The folded form sends none, whatever roles there were."""
    assert tried(Form(MINIMAX, NEW), words) == Form(OPENAI, NEW)
    assert tried(Form(MINIMAX, NEW), words, role_play=False) == Form(OPENAI, NEW)


@pytest.mark.parametrize("words", STRICT_WORDS + NO_SYSTEM)
@pytest.mark.parametrize("dialect", [MINIMAX, OPENAI])
def test_a_strict_template_gets_the_strict_form(words: str, dialect: Dialect) -> None:
    assert tried(Form(dialect, NEW), words) == Form(STRICT, NEW)
    assert tried(Form(STRICT, NEW), words) is None


@pytest.mark.parametrize("words", CAP_WORDS)
@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(("sent", "other"), [(NEW, OLD), (OLD, NEW)])
def test_the_refused_name_of_the_cap_is_swapped(words: str, dialect: Dialect, sent: str, other: str) -> None:
    refusal = words.format(name=sent, other=other)
    assert tried(Form(dialect, sent), refusal) == Form(dialect, other)
    assert tried(Form(dialect, other), refusal) is None


@pytest.mark.parametrize("words", VALUE_WORDS)
@pytest.mark.parametrize("name", [NEW, OLD])
def test_a_cap_that_is_out_of_range_keeps_its_name(words: str, name: str) -> None:
    assert tried(Form(OPENAI, name), words.format(name=name)) is None


@pytest.mark.parametrize("words", OTHER_WORDS)
@pytest.mark.parametrize("dialect", list(Dialect))
def test_other_refusals_change_nothing(words: str, dialect: Dialect) -> None:
    assert tried(Form(dialect, NEW), words) is None


def test_two_refusals_in_one_change_both() -> None:
    words = "body.messages.0.name: Extra inputs are not permitted; body.max_completion_tokens: Extra inputs are not ..."
    assert tried(Form(MINIMAX, NEW), words) == Form(OPENAI, OLD)


@pytest.mark.parametrize(
    "words", ["invalid chat setting", "chat content has invalid message role: group", "messages[0].name is missing"]
)
def test_minimax_says_it_with_its_code(words: str) -> None:
    """Words that mean little elsewhere are about roles and names where MiniMax's catch-all stands beside them."""
    assert tried(Form(MINIMAX, NEW), words, code=2013) == Form(OPENAI, NEW)


def test_a_bare_1000_may_mean_the_roles() -> None:
    """It is no word: only roles that were sent make it worth an attempt."""
    bare = ChatUnavailableError("unknown error, 999", code=1000)
    assert refused_form(Form(MINIMAX, OLD), bare, role_play=True) == Refused(Form(OPENAI, OLD), in_words=False)
    assert refused_form(Form(MINIMAX, OLD), bare, role_play=False) is None
    assert refused_form(Form(OPENAI, OLD), bare, role_play=True) is None


@pytest.mark.parametrize(
    "error",
    [
        ChatAuthError("Your role is not allowed to use this model"),
        ChatQuotaError("Quota of role user is not supported"),
        ContentFilteredError("The first message must not be violent", side="input"),
        BadReplyError("roles must alternate"),
        ChatUnavailableError("Please wait between consecutive messages", status=429),
        EmptyReplyError("max_completion_tokens is not supported"),
    ],
)
def test_what_is_no_refusal_of_a_request_changes_nothing(error: ChatError) -> None:
    """Who asks, what it costs, what is said in it, and a reply that cannot be read."""
    assert refused_form(Form(MINIMAX, NEW), error, role_play=True) is None


@pytest.mark.parametrize("status", [400, 422, 500, 501])
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 500, "message": "Jinja Exception: System role not supported", "type": "server_error"}},
        {"object": "error", "message": "System role not supported", "type": "BadRequestError", "code": 400},
        {"error": "System role not supported"},
        {"detail": "System role not supported"},
        "System role not supported",
    ],
)
def test_in_any_envelope(status: int, body: object) -> None:
    """As the words reach the typed error, at any status."""
    found = refused_form(Form(OPENAI, NEW), chat_error(status, body), role_play=False)
    assert found == Refused(Form(STRICT, NEW), in_words=True)

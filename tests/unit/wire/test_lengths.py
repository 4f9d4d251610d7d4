"""Refusals as too long: by their words, and the limit that these name."""

from __future__ import annotations

import time

import pytest

from roleplay.wire.lengths import counts_the_reply, named_limit, says_too_long

# What servers say, with the limit that is named.
TOO_LONG: list[tuple[str, int | None]] = [
    ("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages, 1000 in the completion). Please reduce the length of the messages or completion.", 4096),  # noqa: E501
    ("'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your request has 1200 input tokens (5000 > 4096 - 1200).", 4096),  # noqa: E501
    ("The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.", 4096),  # noqa: E501
    ("You passed 5000 input tokens and requested 512 output tokens. However, the model's context length is only 4096 tokens, resulting in a maximum input length of 3584 tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=5000)", 3584),  # noqa: E501
    ("This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. Please reduce the length of the input messages.", 4096),  # noqa: E501
    ("Input validation error: `inputs` must have less than 4095 tokens. Given: 5000", 4095),
    ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 20 `max_new_tokens`", 4096),  # noqa: E501
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 4096),
    ("Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 tokens: 4500 tokens from the input messages and 500 tokens for the completion. Please reduce the number of tokens in the input messages or the completion to fit within the limit.", 4096),  # noqa: E501
    ("Input length (5000 tokens) exceeds the maximum allowed length (4096 tokens). Use a shorter input or enable --allow-auto-truncate.", 4096),  # noqa: E501
    ("Please reduce the length of the messages or completion.", None),
    ("Please reduce the length of the messages or completion. Current length is 5000 while limit is 4096", 4096),
    ("This model's maximum prompt length is 4096 but the request contains 5000 tokens.", 4096),
    ("The input token count (5000) exceeds the maximum number of tokens allowed (4096).", 4096),
    ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1048576),
    ("Unable to submit request because the input token count is 5000 but model only supports up to 4096. Reduce the input token count and try again.", 4096),  # noqa: E501
    ("Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input", 4096),  # noqa: E501
    ("The number of tokens to keep from the initial prompt is greater than the context length.", None),
    ("Context size has been exceeded.", None),
    ("the request exceeds the available context size (4096 tokens), try increasing it", 4096),
    ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", 4096),
    ("the request exceeds the available context size. try increasing the context size or enable context shift", None),
    ("litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: Hosted_vllmException - too much", None),  # noqa: E501
    ("prompt is too long: 208310 tokens > 200000 maximum", 200000),
    ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again", 200000),  # noqa: E501
    ("Prompt contains 5000 tokens and 0 draft tokens, too large for model with 4096 maximum context length", 4096),
    ("too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5100. Try using a shorter prompt", 4081),  # noqa: E501
    ("the input length exceeds the context length", None),
    ("prompt too long; exceeded max context length by 904 tokens", None),
    ("Prompt length 5000 is greater than max_seq_len 4096", 4096),
    ("Request length 5000 (prompt 4488 + max tokens 512) is greater than max_seq_len 4096", 4096),
    ("Input is too long for requested model.", None),
    ("Range of input length should be [1, 30720]", 30720),
    ("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]", 129024),
    ("Total message token length exceed model limit", None),
    ("Prompt 超长", None),
    ("Prompt超长，请缩短输入", None),
    ("输入长度超过限制", None),
    ("输入的token数量超过了模型最大上下文长度 8192", 8192),
    ("请求的上下文过长", None),
    ("提示词太长", None),
    ("tokens数量超过限制", None),
    ("Invalid request: Your request exceeded model token limit: 8192", 8192),
    ("Input token length too long", None),
    ("The prompt is too long: 5000, model maximum context length: 4096", 4096),
    ("prompt length (5000) exceeds maximum input length (4096)", 4096),
    ("This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens (4900 of text input, 100 in the output).", 4096),  # noqa: E501
    ("Request prompt has 5000 tokens in total, larger than the model input length limit 4096.", 4096),
    ("Requested tokens (5000) exceed context window of 4096", 4096),
    ("Request body too large for gpt-4o model. Max size: 8000 tokens.", 8000),
    ("prompt token count of 5000 exceeds the limit of 4096", 4096),
    ("5021: The estimated number of input and maximum output tokens (5000) exceeded this model context window limit (4096).", 4096),  # noqa: E501
    ("the number of input tokens 5000 cannot exceed the total tokens limit 4096 for this model", 4096),
    ("invalid params, context window exceeds limit", None),
    ("Invalid 'messages': array too long. Expected an array with maximum length 2048, but got an array with length 2100 instead.", 2048),  # noqa: E501
    ("Request Entity Too Large", None),
    ("The conversation is too long", None),
    ("Your input exceeds the context window of this model. Please adjust your input and try again.", None),
    ("the prompt is longer than the context window", None),
    ("This model maximum context length is 4096 tokens. However, your messages resulted in over 5000 tokens.", 4096),
    ("Input text exceeded maximum length", None),
    ("input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens. Please reduce the length of the messages.", 272000),  # noqa: E501
    ("The input length exceeds the session len", None),
    ("Number of tokens in the input exceeds the model's limit of 4096", 4096),
    ("inputs tokens + max_tokens must be <= 8193", 8193),
    ("request too large: prompt has 5000 tokens, model supports 4096", 4096),
    ("max_tokens (512) + prompt tokens (4000) exceeds the context size 4096", 4096),
    ("Input too long. Maximum 4096 tokens", None),
    ("exceeds maximum context length", None),
]
ABOUT_ELSE = [
    "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, Requested 5000. Please try again in 6s.",  # noqa: E501
    "Request too large for gpt-4 in organization org on tokens per min (TPM): Limit 10000, Requested 12000. The input or output tokens must be reduced in order to run successfully.",  # noqa: E501
    "rate limit exceeded: too many tokens",
    "Too many tokens per minute",
    "Tokens per minute limit exceeded - too many tokens processed.",
    "max_tokens is too large: 200000. This model supports at most 4096 completion tokens, whereas you provided 200000.",
    "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value that is lower than 4096.",  # noqa: E501
    "Range of max_tokens should be [1, 8192]",
    "model[MiniMax-M3] does not support max tokens > 524288",
    "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model",  # noqa: E501
    "temperature exceeds maximum 1",
    "Invalid 'messages[0].name': string too long. Expected a string with maximum length 64, but got a string with length 70 instead.",  # noqa: E501
    "token limit exceeded(TPM)",
    "unknown model 'x'",
    "You exceeded your current quota, please check your plan",
    "请求频率超过限制",
    "Too many requests",
    "too many requests, token limit exceeded per minute",
    "body.temperature: Input should be less than or equal to 2",
    "The server is overloaded or not ready yet.",
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "Loading model",
    "System role not supported",
    "invalid params, binding: expr_path=messages, cause=missing required parameter",
    "body.messages.0.role: Input should be 'system', 'user' or 'assistant'",
    "Extra inputs are not permitted",
    "Request timed out after waiting longer than 60 s",
    "Input judged sensitive",
    "messages must not be empty",
    "The engine is currently overloaded, please try again later",
    "your account balance is too low",
    "request rate too large",
    "The upstream took too long to respond to the request",
]


@pytest.mark.parametrize(("words", "limit"), TOO_LONG)
def test_what_is_too_long(words: str, limit: int | None) -> None:
    """Each wording is understood, in any case of its letters, and the number that it names is the limit."""
    assert says_too_long(words)
    assert says_too_long(words.upper())
    assert named_limit(words) == limit


@pytest.mark.parametrize("words", ABOUT_ELSE)
def test_what_is_refused_for_something_else(words: str) -> None:
    """Rates, quotas, the cap of the reply alone, other fields and other troubles are not about the length."""
    assert not says_too_long(words)


@pytest.mark.parametrize(
    ("words", "counted"),
    [
        ("maximum context length is 4097 tokens, you requested 4500 tokens (2500 in the messages, 2000 in the completion)", True),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096", True),
        ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", True),
        ("Please reduce the length of the messages or completion.", False),
        ("prompt is too long: 208310 tokens > 200000 maximum", False),
    ],
)
def test_whether_the_reply_is_counted(words: str, counted: bool) -> None:
    """Where the room for the reply is named, the prompt alone may not have been too long."""
    assert counts_the_reply(words) is counted


@pytest.mark.parametrize("part", ["prompt ", "input exceeds ", "context 1234 ", "length [1, ", "too long > ", "上下文"])
def test_hostile_words_take_no_time(part: str) -> None:
    """The words of a server cost milliseconds, whatever they are."""
    began = time.process_time()
    for words in (part * (4_000 // len(part)), part + "a" * 4_000, part + "1" * 4_000):
        says_too_long(words)
        named_limit(words)
        counts_the_reply(words)
    assert time.process_time() - began < 0.5

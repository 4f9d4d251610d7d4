"""Whether a refusal says that the request is too long for the model, and for how many tokens there is room."""

from __future__ import annotations

import re

# Limits of a rate, which time mends and a shorter request does not.
_ABOUT_RATES = re.compile(
    r"\brate\b.{0,20}(?:limit|exceed|too)|rate.?limit|throttl|\bquota|\b[TR]P[MDH]\b|(?:tokens?|requests?) ?(?:per|/) ?(?:second|minute|min|hour|day|s\b|m\b)"
    r"|\bper (?:second|min|minute|hour|day)\b|每(?:秒|分|小时|天)|限流|频率|速率",
    re.IGNORECASE,
)
# The codes and class names that servers put into their words.
_NAMED = re.compile(r"context_?(?:length|window|size)_?exceeded|exceed_context_size", re.IGNORECASE)
_PLAIN = (
    r"(?:maximum|max\.?) (?:allowed )?(?:context|prompt|input|sequence|model|session|conversation|message)s?"
    r" ?(?:window|length|size|len|tokens?)\b",
    r"(?:context|sequence) (?:length|window|size|limit) (?:is|of):?(?: only)? ?\d",
    r"\bcontext (?:the )?(?:overflow|window (?:is )?(?:full|exceed)|is full)",
    r"(?:context|sequence|prompt|input|session|history|conversation)\W?(?:window|length|size|limit|len)?\b"
    r".{0,60}?\b(?:exceed|overflow|too (?:long|large|big|many)|(?:long|larg|great|bigg|high)er than|more than|over the)",
    r"(?:exceed\w*|over|above|beyond|(?:long|larg|great|bigg|high)er than|overflow\w*|outside|only)\b.{0,60}?"
    r"\b(?:context|max_seq_len|max_model_len|n_ctx|num_ctx|sequence length|session.?len|input limit|prompt limit)",
    r"(?:prompt|inputs?|messages?|request|conversation|tokens)\b['\"`]?.{0,60}?\b(?:exceed\w*|cannot exceed|over the)\b"
    r".{0,60}?(?:tokens?\b|token limit|length|context|max_seq_len|model(?:'s)? limit)",
    r"(?:prompt|inputs?|messages?|request|conversation|body|array|(?<!max )tokens)\b.{0,60}?"
    r"\btoo (?:long|large|big|many tokens)",
    r"\btoo (?:long|large|big|many)(?: of)?(?: an?)? (?:input |prompt |context )?(?:prompt|input|context|tokens|messages)",
    r"(?:prompt|inputs?|messages|request|conversation|length)\b.{0,60}?(?:long|larg|great|bigg)er than\b.{0,60}?"
    r"(?:tokens?\b|length|max_seq_len|context|limit|model)",
    r"\binputs?\b[^.]{0,60}? must (?:be|have) (?:<=?|≤|less than|fewer than|at most|under)[^.]{0,20}\d{3}",
    r"(?:reduce|shorten)\b.{0,40}?\b(?:length|prompt|messages?|input|context|size of the request)",
    r"(?:shorter|smaller) (?:prompt|input|context|message)",
    r"range of input length|(?:input|prompt) length should be",
    r"length limit|input (?:token )?limit|prompt token (?:count|limit)",
    r"(?:上下文|输入|提示词?|请求|消息|对话|文本|内容|prompt|input|messages?|tokens?)[^。;；,，]{0,24}?"
    r"(?:超长|过长|太长|过大|过多|太多|超过|超出|超限|大于)",
    r"(?:超过|超出|大于)[^。;；]{0,24}?(?:上下文|长度|token)",
    r"(?:コンテキスト|プロンプト|入力|メッセージ)[^。]{0,24}?(?:超え|長すぎ|超過|上限)",
)
_SAID = re.compile("|".join(f"(?:{one})" for one in _PLAIN), re.IGNORECASE | re.DOTALL)
# Only the cap of the reply is refused: nothing is said of what was sent.
_ABOUT_CAP = re.compile(
    r"max(?:imum)?[ _](?:completion_|new_|output_|completion |new |output )?tokens|maximum tokens you|range of max_tokens",
    re.IGNORECASE,
)
_ABOUT_SENT = re.compile(
    r"prompt|inputs?\b|messages|context|history|sequence|session|\btotal\b|conversation|上下文|输入|提示|消息", re.IGNORECASE
)
_ABOUT_A_FIELD = re.compile(r"\bname\b.{0,20}too long|\bstop\b.{0,20}too|\bmodel\b.{0,4} (?:name|id)", re.IGNORECASE)
_WITH_REPLY = re.compile(
    r"in the completion|(?:completion|output|generated|new) tokens|max_(?:completion_|new_|output_)?tokens", re.IGNORECASE
)
_NUMBER = r"(\d[\d,_]{2,9})"
_LIMIT = re.compile(
    r"(?:"
    r"(?:length|window|size|limit|allowed|max_seq_len|n_ctx|maximum input)\)?(?: (?:is|of|for this model))?:?(?: only)?"
    r"(?: exceeded)?[ (=]{1,3}"
    r"|(?:length|size|limit|tokens)[^\d.]{0,20}(?:≤|<=|less than|cannot exceed|exceeds?(?: [a-z']+){0,5}) ?\(?"
    r"|(?:supports?|context of|up to|must have less than|must be <=|at most|上限为?|限制为?|limit is|no more than)[ :]{0,2}"
    rf"|> |\[ ?\d, ?|Max size: ?|(?:超过|不超过|最大)\D{{0,12}}){_NUMBER}(?!\d)(?! ?(?:input|prompt|\+|in the))"
    rf"|{_NUMBER} maximum",
    re.IGNORECASE,
)
_LEAST_LIMIT = 256


def says_too_long(words: str) -> bool:
    """Whether the words of a refusal say that the request is longer than the model takes.

    Words about a rate say no such thing, nor do words about the cap of the reply alone.
    """
    if _NAMED.search(words):
        return True
    if _ABOUT_RATES.search(words) or _ABOUT_A_FIELD.search(words) or not _SAID.search(words):
        return False
    return _ABOUT_CAP.search(words) is None or _ABOUT_SENT.search(_ABOUT_CAP.sub("", words)) is not None


def counts_the_reply(words: str) -> bool:
    """Whether a refusal as too long counts the reply that was asked for beside the prompt."""
    return _WITH_REPLY.search(words) is not None


def named_limit(words: str) -> int | None:
    """Give the tokens that a refusal as too long says the model takes, or ``None`` where it names no number."""
    found = (int(re.sub("[,_]", "", one[1] or one[2])) for one in _LIMIT.finditer(words))
    return min((one for one in found if one >= _LEAST_LIMIT), default=None)

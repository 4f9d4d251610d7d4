"""Whether a refusal says that the request is too long for the model, and for how many tokens there is room."""

from __future__ import annotations

import re


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{one})" for one in patterns), re.IGNORECASE | re.DOTALL)


_PERIOD = "(?:second|minute|min|hour|day)"
# Limits of a rate, which time mends and a shorter request does not.
_ABOUT_RATES = _any_of(
    r"\brate\b.{0,20}(?:limit|exceed|too)|(?<![a-z])rate.?limit|throttl|\bquota|\b[TR]P[MDH]\b|too many requests",
    r"too many tokens\W{1,3}please wait|\b(?:took|tak(?:e[ns]?|ing)|wait\w*|queued|running|idle)\b.{0,20}too long",
    rf"\bper {_PERIOD}\b|(?:tokens?|requests?) ?/ ?(?:{_PERIOD}|s\b|m\b)",
    r"每(?:秒|分|小时|天)|限流|频率|速率|并发|次数|请求(?:数量?|量)?(?:过多|太多)|稍[后候]",
)
# The codes and class names that servers put into their words.
_NAMED = _any_of(r"context_?(?:length|window|size)_?exceeded", r"exceed_context_size")

_SENT = r"(?:prompt|inputs?|messages?|request|conversation)"
_MEASURE = r"(?:tokens?\b|token limit|length|context|max_seq_len|model(?:'s)? limit)"
_LONGER = "(?:long|larg|great|bigg|high)er than"
_TOO = r"too (?:long|large|big|many)"
_SAID = _any_of(
    r"max(?:imum|\.)? (?:allowed )?(?:context|prompt|input|sequence|model|session|conversation|message)s?"
    r" ?(?:window|length|size|len|tokens?|characters)\b",
    r"(?:context|sequence) (?:length|window|size|limit) (?:is|of):?(?: only)? ?\d",
    r"\bcontext (?:the )?(?:overflow|window (?:is )?(?:full|exceed)|is full)",
    r"\bcontext (?:window |length |size )?limit (?:is )?reached",
    r"exceed\w* (?:the )?(?:max(?:imum)? )?(?:number of )?(?:model|input|prompt) tokens?\b",
    r"maximum number of tokens exceeded|> ?(?:max_(?:model|seq|context)_len|n_ctx|num_ctx|max context)",
    r"model (?:only )?supports (?:only )?up to \d+ tokens",
    r"length of (?:the )?(?:messages|prompt|inputs?)\b.{0,20}exceed",
    r"(?:context|sequence|prompt|input|session|history|conversation)\W?(?:window|length|size|limit|len)?\b"
    rf".{{0,60}}?\b(?:exceed|overflow|{_TOO}|{_LONGER}|more than|over the)",
    rf"(?:exceed\w*|over|above|beyond|{_LONGER}|overflow\w*|outside|only)\b.{{0,60}}?"
    r"\b(?:context|max_seq_len|max_model_len|n_ctx|num_ctx|sequence length|session.?len|input limit|prompt limit)",
    rf"(?:{_SENT}|tokens)\b['\"`]?.{{0,60}}?\b(?:exceed\w*|over the)\b.{{0,60}}?{_MEASURE}",
    rf"(?:{_SENT}|body|array|(?<!max )tokens)\b.{{0,60}}?\btoo (?:long|large|big|many tokens)",
    rf"\b{_TOO}(?: of)?(?: an?)? (?:input |prompt |context )?(?:prompt|input|context|tokens|messages)(?! in a row)",
    rf"(?:{_SENT}|length)\b.{{0,60}}?{_LONGER}\b.{{0,60}}?(?:{_MEASURE}|limit|model)",
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
# Only the cap of the reply is refused: nothing is said of what was sent.
_ABOUT_CAP = _any_of(
    r"max(?:imum)?[ _](?:(?:completion|new|output)[ _])?tokens", "maximum tokens you", "range of max_tokens"
)
_ABOUT_SENT = _any_of(
    r"prompt|inputs?\b|messages|context|history|sequence|session|\btotal\b|conversation", "上下文|输入|提示|消息"
)
_ABOUT_A_FIELD = _any_of(
    r"\bname\b.{0,20}too long",
    r"\bstop\b.{0,20}too",
    r"\bmodel\b.{0,4} (?:name|id)",
    r"\b(?:headers?|cookies?|ur[il])\b.{0,20}too",
)
_WITH_REPLY = _any_of(
    "in the completion", "(?:completion|output|generated|new) tokens", r"max_(?:(?:completion|new|output)_)?tokens"
)

_NUMBER = r"(\d[\d,_]{2,9})"
_BEFORE_LIMIT = "|".join(
    (
        (
            r"(?:length|window|size|limit|allowed|max_seq_len|n_ctx|maximum input)\)?"
            r"(?: (?:is|of|for this model))?:?(?: only)?(?: exceeded)?[ (=]{1,3}"
        ),
        r"(?:length|size|limit|tokens)[^\d.]{0,20}(?:≤|<=|less than|cannot exceed|exceeds?(?: [a-z']+){0,5}) ?\(?",
        r"(?:supports?|context of|up to|must have less than|must be <=|at most|limit is|no more than)[ :]{0,2}",
        r"> |\[ ?\d, ?|Max size: ?",
        r"(?:上限为?|限制为?)[ :]{0,2}|(?:超过|不超过|最大)\D{0,12}",
    )
)
_LIMIT = re.compile(
    rf"(?:{_BEFORE_LIMIT}){_NUMBER}(?!\d)(?! ?(?:input|prompt|\+|in the))|{_NUMBER} maximum", re.IGNORECASE
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

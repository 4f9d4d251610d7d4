"""Which other form of a request to try, where a server refused the one that was sent.

Servers refuse a form in words of their own, and at any HTTP status: llama.cpp answers 500 where a template raises.
So the words decide. MiniMax alone also refuses roles with a bare 1000, which may mean anything.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from roleplay.domain.endpoint import CapName, Dialect, Form
from roleplay.errors import BadReplyError, ChatAuthError, ChatError, ChatQuotaError, ContentFilteredError
from roleplay.wire.codes import is_too_long

_UNKNOWN, _BAD_PARAMETERS = 1000, 2013
_TOO_MANY = 429
_CAP_NAMES: tuple[CapName, ...] = ("max_completion_tokens", "max_tokens")


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL)


# Chinese characters count as letters, so that no \b stands between them and a Latin word.
_ROLE = r"(?<![a-z_-])roles?(?![a-z_-])|角色"
_SYSTEM = r"(?<![a-z_])system(?![a-z_])"
_NEGATED = r"(?:not|n['’]t|cannot|never)"
_DEMANDED = rf"(?:must|should|ha(?:s|ve) to|needs?|expect|got|{_NEGATED})"
_NOT_TAKEN = (
    rf"unknown|unrecogni[sz]ed|unexpected|unsupported|invalid|illegal|incorrect|wrong|{_NEGATED} (?:be )?(?:a )?"
    r"(?:support|permit|allow|recogni[sz]|accept|known|valid|match)|extra (?:input|field)|additional propert"
    r"|cannot find|不支持|不允许|不合法|不正确|无效|非法|未知|错误|有误|多余"
)

# The order of messages, or ``system``: nothing but user and assistant in turn is taken.
_ORDER = _any_of(
    rf"{_DEMANDED} (?:\w+ )?alternat|(?:{_ROLE}|messages|turns|requests)\W.{{0,30}}alternat",
    r"alternat\w{0,5} (?:between|user)",
    r"interleav|(?:role|message|turn)s? (?:order|sequence)|order of (?:the )?(?:roles|messages|turns)",
    r"(?:consecutive|successive|adjacent|back.to.back)\W.{0,40}(?:messages?|roles?|turns?)\b",
    r"(?:messages?|roles?|turns?)\b.{0,40}(?:in a row|consecutive|successive)|assistant messages? at the end",
    rf"\b(?:first|last|initial|final) (?:\w+.){{0,2}}(?:message|role|turn|content)s?\b.{{0,60}}{_DEMANDED}",
    r"expect\w* (?:the )?(?:first|last|initial|final) (?:message|role|turn)",
    rf"(?:{_DEMANDED} (?:start|begin|end)|(?:starts|begins|ends)) with .{{0,20}}user|no user (?:query|message|turn)",
    r"unexpected role .{1,40} after|\b(?:odd|even) (?:index|number|position|length)|must be odd",
    rf"system (?:role|message|prompt|instruction)s?\W.{{0,20}}(?:{_DEMANDED}|unsupported|only|first)",
    rf"{_NEGATED} (?:support|accept|allow|permit)\w* .{{0,20}}{_SYSTEM}|unexpected role\W{{1,3}}{_SYSTEM}",
    rf"(?:only one|multiple|more than one|second) {_SYSTEM}|developer instruction\w* (?:is|are) not",
    r"交替|轮流|成对|奇数|连续.{0,12}(?:user|assistant|角色|消息)",
    r"(?:第一|首|最后一)(?:条|个).{0,12}(?:消息|message|role|角色|user|用户)",
    rf"不支持.{{0,8}}{_SYSTEM}|{_SYSTEM}.{{0,12}}不支持",
)
# A template raised, whatever it said.
_TEMPLATE = _any_of(
    r"template\w*\W{0,3}(?:error|exception)|(?:error|failed|unable|could not)\b.{0,20}\bchat.?template",
    r"jinja|raise_exception|while executing \w+ at line",
)
# A role is not taken: words about the role, or a list of those that are known.
_LISTS = r"(?:should be|must be|one of|values are|expected|expecting|permitted|allowed|only)\b"
_ROLES = _any_of(
    rf"(?:{_ROLE}).{{0,60}}(?:{_NOT_TAKEN}|supported|must be|should be|one of|expected|只能|必须|仅)",
    rf"(?:{_NOT_TAKEN}|only|one of|expected|\ba valid|仅支持).{{0,60}}(?:{_ROLE})",
    rf"{_LISTS}.{{0,60}}(?:\buser\b.{{0,40}}\bassistant\b|\bassistant\b.{{0,40}}\buser\b)",
    r"messages?\W{1,4}\d+\W{1,8}(?:\w+\W{1,4})?role(?![a-z_])",
    rf"(?:{_NOT_TAKEN}).{{0,20}}(?:user_system|sample_message_(?:user|ai))",
)
_NAMES = _any_of(
    r"messages?\W{1,4}\d+\W{1,8}(?:\w+\W{1,4})?name(?![a-z_])",
    rf"(?:{_NOT_TAKEN}).{{0,60}}[\"'`‘“]name[\"'`’”]|[\"'`‘“]name[\"'`’”].{{0,60}}(?:{_NOT_TAKEN})",
)
_NO_SYSTEM = rf"(?:(?!{_SYSTEM}).)"
_KNOWS_NO_SYSTEM = _any_of(
    rf"{_LISTS}{_NO_SYSTEM}{{0,60}}\buser\b{_NO_SYSTEM}{{0,40}}\bassistant\b(?!.{{0,80}}{_SYSTEM})"
)
_OF_MINIMAX = _any_of(r"\brole|\bname|chat setting")
_UNKNOWN_FIELD = _any_of(
    rf"unknown|unrecogni[sz]ed|unexpected|unsupported|{_NEGATED} (?:be )?(?:a )?(?:support|permit|allow|recogni[sz]"
    r"|accept|known|valid (?:param|arg|field|key|prop))|invalid (?:param|arg|field|key|prop)|extra (?:input|field)"
    r"|additional propert|cannot find|no such|deprecated|不支持|不允许|未知|多余|(?:无效|非法).{0,4}(?:参数|字段)",
)
_TOO_MUCH = _any_of(
    r"too (?:large|long|big|high|many|much|small|low)|at (?:most|least)|(?:less|greater|more|lower|higher|larger) than",
    r"exceed|maximum|minimum|[<>≤≥]=? ?\d|between|\brange|上限|超过|超出|大于|小于|范围",
)


class Refused(NamedTuple):
    """The form to try after one was refused; ``in_words``: the refusal said what it was about."""

    other: Form
    in_words: bool


def refused_form(sent: Form, error: ChatError, *, role_play: bool) -> Refused | None:
    """Give the form to try where ``error`` refuses the one that was ``sent``; ``None`` where it refuses something else,
    or where there is no other.

    ``role_play``: the request held role-play roles.
    """
    about_else = isinstance(error, BadReplyError | ChatAuthError | ChatQuotaError | ContentFilteredError)
    if about_else or error.status == _TOO_MANY or is_too_long(error):
        return None
    other = Form(_other_dialect(sent.dialect, error, role_play=role_play), _other_cap(sent.cap_name, error.message))
    if other != sent:
        return Refused(other, in_words=True)
    bare = error.code == _UNKNOWN and role_play and sent.dialect is Dialect.MINIMAX
    return Refused(Form(Dialect.OPENAI, sent.cap_name), in_words=False) if bare else None


def _other_dialect(sent: Dialect, error: ChatError, *, role_play: bool) -> Dialect:
    words = error.message
    if sent is Dialect.STRICT:
        return sent
    if _ORDER.search(words):
        return Dialect.STRICT
    named = sent is Dialect.MINIMAX
    if named and _NAMES.search(words):
        return Dialect.OPENAI
    if _ROLES.search(words) or (error.code == _BAD_PARAMETERS and _OF_MINIMAX.search(words)):
        return Dialect.OPENAI if named and role_play and not _KNOWS_NO_SYSTEM.search(words) else Dialect.STRICT
    return Dialect.STRICT if _TEMPLATE.search(words) else sent


def _other_cap(sent: CapName, words: str) -> CapName:
    """Give the other name of the reply cap where words refuse the one that was sent, and not its value."""
    named = re.search(rf"(?<![a-z_]){sent}(?![a-z_])", words, re.IGNORECASE)
    advised = re.search(rf"\buse\W{{1,3}}{sent}(?![a-z_])", words, re.IGNORECASE)
    if not named or advised or not _UNKNOWN_FIELD.search(words) or _TOO_MUCH.search(words):
        return sent
    return next(name for name in _CAP_NAMES if name != sent)

"""How a context is written for a server. A change here that changes bytes needs a recipe version of its own, and the
earlier ones need what was here: see ``recipes``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import category

from roleplay.domain.context import ContextMessage, DialectDemands, Role
from roleplay.domain.endpoint import Dialect
from roleplay.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Published measurements of MiniMax-M2.x: a request costs about 16 tokens beside its messages, a message about 5 beside
# its text. Servers of the other dialect differ little; the folded form names its sections and other speakers in its
# text, so names cost there too.
_DEMANDS = {
    Dialect.MINIMAX: DialectDemands(fixed_tokens=16, per_message_tokens=5, names=True),
    Dialect.OPENAI: DialectDemands(fixed_tokens=16, per_message_tokens=5, names=True),
    Dialect.STRICT: DialectDemands(fixed_tokens=16, per_message_tokens=5, names=True, user_first=True),
}

_FRONT = {Role.USER_SYSTEM, Role.GROUP, Role.SAMPLE_USER, Role.SAMPLE_AI}
_SAMPLES = {Role.SAMPLE_USER, Role.SAMPLE_AI}
_MODEL_ROLES = {Role.ASSISTANT, Role.SAMPLE_AI}
_SYSTEM = Role.SYSTEM
_WRITTEN = {role: role.value for role in Role}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_NO_WORDS = "…"
_DIALOGUE_BREAK = "***"


class _Block(NamedTuple):
    """Neighbours of one role, and the instructions that go with them."""

    role: Role
    parts: list[ContextMessage]

    @property
    def said(self) -> list[ContextMessage]:
        return [part for part in self.parts if part.role is not Role.SYSTEM]

    @property
    def name(self) -> str:
        return (self.said or self.parts)[0].name


def demands(dialect: Dialect) -> DialectDemands:
    """Give what ``dialect`` costs, in tokens, and whether it sends names."""
    return _DEMANDS[dialect]


def write_messages(
    dialect: Dialect, messages: Sequence[ContextMessage], *, speech: Callable[[str], str], named: bool = False
) -> list[dict[str, str]]:
    """Write a context as the ``messages`` of a request, keys in their fixed order.

    ``messages`` begins with the ``system`` message, goes on with ``user_system``, ``group`` and samples, then with
    ``user`` and ``assistant``, among and after which further ``system`` messages may stand. These late instructions
    are written in square brackets into the next user message, before its words, or behind the last user message where
    none follows; where there is no user message at all, they become one. Blank messages are left out, and so is
    reasoning in the model's texts, of which ``speech`` gives what is spoken. Neighbours of one role become one message.
    A ``user`` message that leads a history which begins with the model's words is a message of that history. ``named``:
    each line of history begins with its speaker's name already, unless it is the model's own.

    Raises:
        InvalidInputError: a name is blank.
    """
    front, history = _parted(messages, speech)
    if dialect is Dialect.MINIMAX and _in_turn(history):
        return [{"role": _WRITTEN[role], "name": name, "content": text} for role, name, text in (*front, *history)]
    blocks = _blocks(history)
    if dialect is Dialect.MINIMAX:
        return _named(front, blocks, named=named)
    folded = _folded(front, blocks, named=named)
    return _user_first(folded) if dialect is Dialect.STRICT else folded


def _parted(
    messages: Sequence[ContextMessage], speech: Callable[[str], str]
) -> tuple[list[ContextMessage], list[ContextMessage]]:
    """Clean the messages and part them where history begins. Most of them are clean, and stay what they are."""
    front: list[ContextMessage] = []
    history: list[ContextMessage] = []
    for place, message in enumerate(messages):
        role, name, text = message
        if not text or text.isspace():
            continue
        spoken = speech(text) if role in _MODEL_ROLES else text
        if spoken is not text and (not spoken or spoken.isspace()):
            spoken = _NO_WORDS
        plain = _clean_name(name)
        if not plain:
            raise InvalidInputError("name", f"is blank in a {role} message")
        if spoken is not text or plain != name:
            message = ContextMessage(role, plain, spoken)  # noqa: PLW2901 - a clean one in its place
        if role in _FRONT or (place == 0 and role is _SYSTEM):
            front.append(message)
        else:
            history.append(message)
    return front, history


@lru_cache(maxsize=1024)
def _clean_name(name: str) -> str:
    """A name as every server takes it: blanks of any kind are plain ones, what cannot be seen is left out."""
    name = _CONTROL.sub(" ", name)
    if not name.isprintable():
        name = "".join(" " if char.isspace() else char for char in name if category(char) != "Cf")
    return name.strip()


def _blocks(history: list[ContextMessage]) -> list[_Block]:
    blocks: list[_Block] = []
    waiting: list[ContextMessage] = []
    for message in history:
        if message.role is Role.SYSTEM:
            waiting.append(message)
            continue
        if not blocks or blocks[-1].role is not message.role:
            blocks.append(_Block(message.role, []))
        if message.role is Role.USER:
            blocks[-1].parts.extend(waiting)
            waiting = []
        blocks[-1].parts.append(message)
    if waiting:
        last = next((block for block in reversed(blocks) if block.role is Role.USER), None)
        if last is None:
            last = _Block(Role.USER, [])
            blocks.append(last)
        last.parts.extend(waiting)
    return blocks


def _joined(block: _Block, prefixed: set[str]) -> str:
    """The block's text; speakers in ``prefixed`` are named before their words."""
    return "\n\n".join(_part(part, prefixed) for part in block.parts)


def _part(part: ContextMessage, prefixed: set[str]) -> str:
    if part.role is Role.SYSTEM:
        return f"[{part.text}]"
    return f"{part.name}: {part.text}" if part.name in prefixed else part.text


def _in_turn(history: list[ContextMessage]) -> bool:
    """Whether speakers alternate and nobody instructs them between, so that every message is a block of its own."""
    before = None
    for message in history:
        role = message.role
        if role is before or role is _SYSTEM:
            return False
        before = role
    return True


def _named(front: list[ContextMessage], blocks: list[_Block], *, named: bool) -> list[dict[str, str]]:
    written = [_message(message.role, message.name, message.text) for message in front]
    for block in blocks:
        if len(block.parts) == 1 and block.parts[0].role is block.role:
            written.append(_message(*block.parts[0]))
            continue
        names = set() if named else {part.name for part in block.said}
        written.append(_message(block.role, block.name, _joined(block, names if len(names) > 1 else set())))
    return written


def _message(role: Role, name: str, text: str) -> dict[str, str]:
    return {"role": _WRITTEN[role], "name": name, "content": text}


def _folded(front: list[ContextMessage], blocks: list[_Block], *, named: bool) -> list[dict[str, str]]:
    sections = [_section(message) for message in front if message.role not in _SAMPLES]
    samples = [f"{message.name}: {message.text}" for message in front if message.role in _SAMPLES]
    if samples:
        sections.append("\n".join([_DIALOGUE_BREAK, *samples, _DIALOGUE_BREAK]))
    written = [{"role": _WRITTEN[_SYSTEM], "content": "\n\n".join(sections)}] if sections else []
    user = _main_user(front, blocks)
    for block in blocks:
        others = {part.name for part in block.said} - {user} if block.role is Role.USER and not named else set()
        written.append({"role": _WRITTEN[block.role], "content": _joined(block, others)})
    return written


def _user_first(written: list[dict[str, str]]) -> list[dict[str, str]]:
    """Put the system text before the words of the first user message, which leads. Where the model's words lead, the
    system text is a user message alone, as a last resort one without words."""
    if not written:
        return []
    led, user = _WRITTEN[_SYSTEM], _WRITTEN[Role.USER]
    system = [message["content"] for message in written if message["role"] == led]
    said = [message for message in written if message["role"] != led]
    opens = bool(said) and said[0]["role"] == user
    first = [*system, said[0]["content"]] if opens else system or [_NO_WORDS]
    return [{"role": user, "content": "\n\n".join(first)}, *said[opens:]]


def _section(message: ContextMessage) -> str:
    heading = f"# {message.name}"
    return heading if message.text.strip() == message.name else f"{heading}\n{message.text}"


def _main_user(front: list[ContextMessage], blocks: list[_Block]) -> str | None:
    """Whose words need no name before them: the user persona's, so that it stays the same when history is cut."""
    users = [message.name for message in front if message.role is Role.USER_SYSTEM]
    users += [part.name for block in blocks if block.role is Role.USER for part in block.said]
    return users[0] if users else None

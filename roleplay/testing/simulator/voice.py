"""What the simulator says when no text was queued: a short line in the voice of the persona it was given.

The line is a function of the request alone, so the same request is always answered with the same words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from roleplay.testing.simulator.chat_request import Message

DEFAULT_SPEAKER = "MiniMax AI"

_ENGLISH_NAME = re.compile(r"\b(?:You are|Your name is)\s+((?:[A-Z][\w'’-]*)(?: [A-Z][\w'’-]*){0,3})")
_CHINESE_NAME = re.compile("(?:你是|你叫|扮演)([\u4e00-\u9fff·]{2,6}?)(?=[，。,、；\\s]|$)")
_HAN = re.compile("[\u3400-\u9fff]")
_CLAUSE_END = re.compile(r"[.!?;\n。！？；]")

_ENGLISH = (
    "*{name} looks up.* “{said}”, you say, {user}? {place}I have heard worse questions, and answered them with less.",
    "Ah, {user}. {place}Let me think on “{said}”. *{name} is silent for a moment.* Ask again, and I will not dodge it.",
    "*A slow smile.* {user}, you say “{said}” as if it were simple. {place}I am {name}; nothing I touch is simple.",
    "“{said}” … {place}Very well, {user}. {name} keeps a promise: sit down, and you shall have the whole of it.",
    "{place}*{name} speaks low.* Careful, {user}. “{said}” is the kind of thing walls remember. Go on, but softly.",
    "You surprise me, {user}. {place}Few would say “{said}” to {name} and stay for the answer. So, stay.",
)
_ENGLISH_TRAIT = " They call me {trait}; today I will try to deserve it."
_CHINESE = (
    "*{name}抬起头。*{user}，你说「{said}」？{place}这样的话，我听过更难的，也答过更难的。",
    "{user}，容{name}想一想。{place}「{said}」……*沉默片刻。*也罢，你再问一次，我便不再回避。",
    "*{name}微微一笑。*{place}{user}把「{said}」说得太轻巧了。坐下，听我慢慢道来。",
    "「{said}」——{place}好，{user}，{name}说话算数，今日便说与你听。",
    "{place}*{name}压低声音。*小心些，{user}。「{said}」这样的话，隔墙有耳。",
)
_CHINESE_TRAIT = "旁人说我是{trait}，我只当他们说的是实话。"


@dataclass(frozen=True)
class Scene:
    """What the voice knows: who speaks, as what, where, to whom, and what was said last."""

    name: str
    trait: str
    place: str
    user: str
    said: str


def read_scene(messages: Sequence[Message]) -> Scene:
    """Reads persona, scene and the last words of the user out of a request, in any dialect."""
    first: dict[str, Message] = {}
    for message in messages:
        first.setdefault(message.role, message)
    last = next((message for message in reversed(messages) if message.role == "user"), Message("user", "…"))
    system = first.get("system", Message("system", ""))
    group = first.get("group", Message("group", ""))
    user = last.name or first.get("user_system", last).name
    place = _clip(group.content or group.name, 60)
    name = system.name or _name_in(system.content)
    return Scene(name, _trait(system.content, name), place, user, _clip(last.content, 48))


def compose(messages: Sequence[Message]) -> str:
    """A short reply in character, Chinese when the user's last words are Chinese and English otherwise."""
    scene = read_scene(messages)
    chosen = blake2b(f"{len(messages)}\0{messages[-1].content}\0{scene}".encode(), digest_size=8).digest()
    if _HAN.search(scene.said):
        place = f"在{scene.place}，" if scene.place else ""
        return _fill(_CHINESE, _CHINESE_TRAIT, chosen, scene, place, scene.user or "朋友")
    place = f"{scene.place[0].upper()}{scene.place[1:]}: here it matters. " if scene.place else ""
    return _fill(_ENGLISH, _ENGLISH_TRAIT, chosen, scene, place, scene.user or "friend")


def think(messages: Sequence[Message]) -> str:
    """The reasoning before the reply, as a thinking model would show it."""
    scene = read_scene(messages)
    return f"{scene.user or 'The user'} says “{scene.said}”. I am {scene.name}, so I answer in that voice, briefly."


def _fill(lines: Sequence[str], trait: str, chosen: bytes, scene: Scene, place: str, user: str) -> str:
    line = lines[chosen[0] % len(lines)]
    if scene.trait and chosen[1] % 2:
        line += trait
    return line.format(name=scene.name, user=user, said=scene.said, place=place, trait=scene.trait).strip()


def _name_in(persona: str) -> str:
    found = _ENGLISH_NAME.search(persona) or _CHINESE_NAME.search(persona)
    return found.group(1) if found else DEFAULT_SPEAKER


def _trait(persona: str, name: str) -> str:
    """The words that follow the persona's name up to the end of the clause: "a wise strategist"."""
    _, found, rest = persona[:2_000].partition(name)
    clause = _CLAUSE_END.split(rest, maxsplit=1)[0] if found else ""
    clause = clause.strip(" ,:，、：—-")
    return _clip(clause.removeprefix("is ").removeprefix("是"), 40) if 2 < len(clause) <= 80 else ""


def _clip(text: str, limit: int) -> str:
    line = " ".join(text[: limit * 4].split()).rstrip(".。!?！？ ")
    if len(line) <= limit:
        return line or "…" if text else ""
    return line[: limit - 1].rstrip() + "…"

"""Chinese."""

from __future__ import annotations

from roleplay.context.languages.words import Words

ZH = Words(
    go_on="[请从你上一条消息中断的地方接着说，不要重复已经说过的内容。]",
    speak="[请说出或做出接下来的内容。]",
    user="用户",
    narrator="旁白",
    opening="[轮到你了。]",
    others="在场的还有：{names}。只以{char}的身份说话，不要替其他人说话。",
)

"""Japanese."""

from __future__ import annotations

from roleplay.context.languages.words import Words

JA = Words(
    go_on="[あなたの直前の発言が途切れたところから、繰り返さずに続けてください。]",
    speak="[次の言動を続けてください。]",
    user="ユーザー",
    narrator="語り手",
    opening="[あなたの番です。]",
    others="ほかにここにいるのは：{names}。{char}としてのみ話し、ほかの誰の代わりにも話さないでください。",
)

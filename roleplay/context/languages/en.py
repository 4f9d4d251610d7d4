"""English."""

from __future__ import annotations

from roleplay.context.languages.words import Words

EN = Words(
    go_on="[Go on exactly where your last message stops. Repeat none of it.]",
    speak="[Say or do what comes next.]",
    user="User",
    narrator="Narrator",
    opening="[It is your turn.]",
    others="Also here: {names}. Speak only for {char}, never for anybody else.",
)

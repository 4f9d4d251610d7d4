"""Put personas that others wrote: a Character Card V2 (.json) or RPBench character sheets (.jsonl).

python examples/put_foreign_personas.py DATABASE FILE [FILE ...]
"""

import json
import sys
from pathlib import Path
from typing import Any

from roleplay import Persona, Roleplay
from roleplay.testing import ScriptedModel


def from_card(card: dict[str, Any]) -> Persona:
    """Give the persona of a Character Card V2; its book and what else is unknown here stay in ``extensions``."""
    data = card["data"]
    example_texts = [text for text in data["mes_example"].split("<START>") if text.strip()]
    return Persona(
        data["name"],
        data["description"],
        personality=data["personality"],
        scenario=data["scenario"],
        greetings=[data["first_mes"], *data["alternate_greetings"]],
        examples=example_texts,
        system_prompt=data["system_prompt"],
        post_history=data["post_history_instructions"],
        tags=data["tags"],
        extensions=data["extensions"],
    )


def from_sheet(sheet: dict[str, Any]) -> Persona:
    """Give the persona of an RPBench sheet: its profile, its background, and its first words as the greeting."""
    profile = sheet["npc_profile"]
    first_words = sheet["conversation"][0]["sentences"]
    return Persona(
        profile["name_text"],
        profile["description"],
        personality=profile["short_definition_text"],
        scenario=sheet["background"],
        greetings=["\n".join(first_words)],
    )


def main(database: str, *files: str) -> None:
    """Put every persona of the files and say under which id each is."""
    with Roleplay.open(database, model="MiniMax-M2.7", chat=ScriptedModel()) as rp:  # nothing is said here
        for path in map(Path, files):
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".jsonl":
                found = [from_sheet(json.loads(line)) for line in text.splitlines()]
            else:
                found = [from_card(json.loads(text))]
            for persona in found:
                stored = rp.personas.put(persona)
                print(stored.id, stored.name)


if __name__ == "__main__":
    main(*sys.argv[1:])

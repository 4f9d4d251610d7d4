"""Give every persona of a database a trait that it has not yet: python persona_batch.py sqlite:///chats.db.

Every version stays, with who made it and why; sessions go on with the version that they were begun with.
"""

import sys

from roleplay import ConflictError, Roleplay


def main(url: str) -> None:
    """Make the impolite ones polite."""
    with Roleplay.open(url, model="MiniMax-M2.7") as rp:
        for stored in rp.personas.iter():
            persona = stored.persona
            if "polite" in persona.tags:
                continue
            polite = persona.evolve(tags=[*persona.tags, "polite"], note="Stay polite, whatever is said.")
            try:
                changed = rp.personas.put(
                    polite, persona_id=stored.id, author="batch", message="politer", expected_version=stored.version
                )
            except ConflictError as error:
                print(f"{persona.name}: left alone, {error}")
            else:
                print(f"{persona.name}: version {changed.version}")


if __name__ == "__main__":
    main(sys.argv[1])

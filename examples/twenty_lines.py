"""Talk with a persona from the terminal; run it again and the conversation goes on. Needs MINIMAX_API_KEY."""

from roleplay import Persona, Roleplay

with Roleplay.open("sqlite:///lighthouse.db") as rp:
    keeper = rp.personas.put(
        Persona(
            "Old Bram",
            "{{char}} keeps the lighthouse at Skerry Point. Gruff, kind, sure that the sea is listening.",
            greetings=["Mind the third step, {{user}}, it remembers the flood. What brings you up here?"],
            key="lighthouse-keeper",
        )
    )
    stored = list(rp.sessions.list(limit=1))
    session = rp.sessions.get(stored[0].id) if stored else rp.sessions.create(cast=[keeper])
    print("\n".join(f"{turn.reply.name}: {turn.reply.text}" for turn in session.turns(limit=3) if turn.reply))
    while words := input("You: "):
        with session.stream(words) as reply:
            print(*(delta.text for delta in reply if delta.kind == "speech"), sep="")

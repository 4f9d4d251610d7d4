"""Talk with a lighthouse keeper; run it again and the talk goes on. Needs MINIMAX_API_KEY; an empty line ends it."""

from roleplay import Persona, Roleplay

KEEPER = Persona(
    "Old Bram",
    "{{char}} keeps the lighthouse at Skerry Point. Gruff, kind, sure that the sea is listening.",
    greetings=["Mind the third step, {{user}}, it remembers the flood. What brings you up here?"],
    key="lighthouse-keeper",
)
with Roleplay.open("sqlite:///lighthouse.db") as rp:
    last = rp.sessions.list(limit=1).items
    session = rp.sessions.get(last[0].id) if last else rp.sessions.create(cast=[rp.personas.put(KEEPER)])
    print(*(f"{turn.reply.name}: {turn.reply.text}" for turn in session.turns(limit=3) if turn.reply), sep="\n")
    while words := input("\nYou: "):
        with session.stream(words) as reply:
            for delta in reply:
                if delta.kind == "speech":
                    print(delta.text, end="", flush=True)

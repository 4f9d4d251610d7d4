"""A notebook as a plain file: each ``# %%`` begins a cell in Jupyter, VS Code and PyCharm; python runs it whole."""

# %% Open a database in memory, with a model of the environment (ROLEPLAY_MODEL, MINIMAX_API_KEY)
from roleplay import Fact, Persona, Roleplay, Sampling, TurnOptions

rp = Roleplay.open("sqlite://")
huang = rp.personas.put(Persona("Huang", "A ferryman who answers with questions.", greetings=["You again?"]))
session = rp.sessions.create(cast=[huang], scene="A ferry at dusk")

# %% What would be sent, and why
print(session.preview("Is the river deep?").report)

# %% Three temperatures, side by side: each is a variant of the same reply
first = session.send("Is the river deep?")
for temperature in (0.2, 0.6, 1.0):
    with session.regenerate(first.id, options=TurnOptions(sampling=Sampling(temperature=temperature))) as reply:
        print(temperature, "".join(delta.text for delta in reply))

# %% The same line with a fact
turn = session.send("And now?", options=TurnOptions(facts=[Fact("It has rained for nine days.", name="weather")]))
print(turn.text, turn.usage.total_tokens)

# %% Everything that was said, and what it cost
for variant in session.tree.variants(first.id):
    print(variant.variant, variant.calls[-1].parameters, variant.text)
print(rp.usage.report())
rp.close()

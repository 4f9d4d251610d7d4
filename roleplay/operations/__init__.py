"""What an engine does beside turns, without doing any of it: personas, sessions, usage, recovery, repair, erasure.

What is no more than one read or write is one effect; everything else is a generator of effects, as in ``turns``.
"""

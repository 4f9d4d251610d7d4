"""What an engine does beside turns, without doing any of it: personas, sessions, usage, recovery, repair, erasure.

As in ``turns``, a function gives effects for a shell to perform, or is a generator of them.
"""

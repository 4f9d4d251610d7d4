"""A turn: what happens in which order, without doing any of it.

An operation is a generator. It yields the effects that it needs (read, write, open, receive, pause) and is sent their
results or thrown their errors; a shell performs them, blocking or with asyncio. It ends by returning the stored turn or
by raising a typed error, and in either case the database says what happened.

1. *Prepare*: read where the session stands, build the context. Nothing is written; what can be refused is refused here.
2. *Claim*: one short transaction writes the human line, the turn, and the model call with its recipe.
3. *Converse*: the call is made with no transaction open; a stream's text is kept from time to time.
4. *Finish*: one transaction writes the reply, its usage, the status and the head.
"""

"""The only room that speaks SQL. Rows stay here; values go out.

Functions take an open ``Connection`` first, use statements built once, and never commit: the shell that drives a turn
opens and ends the transaction.

It has three floors: ``access`` to a database; on it ``records``, a file for each kind; on these ``upkeep``, which goes
over many at once.
"""

from sqlalchemy import Connection

__all__ = ["Connection"]

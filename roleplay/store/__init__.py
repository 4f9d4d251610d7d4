"""The only room that speaks SQL. Rows stay here; values go out.

Functions take an open ``Connection`` first, use statements built once, and never commit: the shell that drives a turn
opens and ends the transaction.
"""

from sqlalchemy import Connection

__all__ = ["Connection"]

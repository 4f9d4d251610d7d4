"""Names that callers shorten: the beginning of an id that no other has."""

from __future__ import annotations

from collections.abc import Sequence

from roleplay.errors import NotFoundError


def only_match(kind: str, prefix: str, found: Sequence[str]) -> str:
    """Give the one id that ``prefix`` means. Raises ``NotFoundError``."""
    if prefix and (len(found) == 1 or (found and found[0] == prefix)):
        return found[0]
    raise NotFoundError(kind, prefix, ambiguous=bool(found))

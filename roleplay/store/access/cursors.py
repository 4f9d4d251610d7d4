"""Keyset cursors: the place after the last item of a page, opaque to callers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, literal

from roleplay.domain.page import Page
from roleplay.domain.values import text_problem
from roleplay.errors import InvalidInputError
from roleplay.store.access.tables import UtcDateTime

T = TypeVar("T")


def page_of(items: Sequence[T], *, more: bool, last: Callable[[], tuple[datetime, str]]) -> Page[T]:
    """Make a page; ``last`` gives the place of its last item and is asked only when there are ``more``."""
    return Page(items=tuple(items), older=_cursor(*last()) if more else None)


def after(cursor: str) -> tuple[ColumnElement[datetime], ColumnElement[str]]:
    """Read a cursor as the pair to compare with. Raises ``InvalidInputError`` when it is not one of ours."""
    try:
        moment, key = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None or text_problem(key):
            raise ValueError  # noqa: TRY301 - one answer to every kind of nonsense
        at = at.astimezone(UTC)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InvalidInputError("before", "is not a cursor of a page", allowed="Page.older of another page") from None
    return literal(at, UtcDateTime), literal(key)


def numbered(kind: str, cursor: str) -> int:
    """Read a cursor that is a number, such as ``turn-12``. Raises ``InvalidInputError`` when it is not one of ours."""
    of, _, number = str(cursor).partition("-")
    if of != kind or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise InvalidInputError("before", "is not a cursor of a page", allowed="Page.older of another page")
    return int(number)


def _cursor(at: datetime, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), key]).encode()).decode()

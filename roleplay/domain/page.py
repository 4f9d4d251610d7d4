"""A page of a list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from roleplay.domain.values import Value

T = TypeVar("T")
PAGE_LIMIT = 500


class Page(Value, Generic[T]):
    """Some items of a list. ``older`` and ``newer`` are cursors for the pages beside it, ``None`` at an end."""

    items: tuple[T, ...]
    older: str | None = None
    newer: str | None = None

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        """Walk the items of this page alone."""
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

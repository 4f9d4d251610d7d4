"""Reading what is stored: a row that holds what was never written is an error of the database, whatever it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

from pydantic import ValidationError

from roleplay.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)


def reads(what: str) -> _Reads:
    """Around, or as a decorator of, what makes a value of a row and nothing else. Raises ``StoreError``."""
    return _Reads(what)


class _Reads:
    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, _UNREADABLE) and not isinstance(error, StoreError):
            raise unreadable(self._what, error) from None  # some of them hold the text that was stored

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def reading(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except StoreError:
                raise
            except _UNREADABLE as error:
                raise unreadable(self._what, error) from None  # as at the end of a block

        return reading


def as_text(text: object) -> str:
    """Give a text, which SQLite may hold as something else. Raises ``TypeError``."""
    if not isinstance(text, str):
        raise TypeError(type(text).__name__)
    return text


def as_numbers(values: Iterable[object]) -> None:
    """Check numbers, of which each may be absent. Raises ``TypeError``."""
    for value in values:
        if value is not None and not isinstance(value, int):
            raise TypeError(type(value).__name__)


def unreadable(what: str, error: Exception) -> StoreError:
    """Say that something stored cannot be read, and why, without what it holds."""
    why = type(error).__name__
    if isinstance(error, ValidationError):
        why = ", ".join(f"{error.title}.{'.'.join(map(str, one['loc']))}" for one in error.errors(include_input=False))
    return StoreError(f"{what} is stored that cannot be read ({why[:300]}); doctor() tells more")


def absent(what: str, of: str) -> StoreError:
    """Say that something is missing of what is stored."""
    return StoreError(f"{what} of {of} is not in the database; doctor() tells more")

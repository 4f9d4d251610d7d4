"""Every error of the package, one tree.

::

    RoleplayError
    ├── SettingsError                  the installation or the settings lack something; the sentence names what mends it
    ├── InvalidInputError (ValueError) the caller's data; nothing was written
    ├── NotFoundError (LookupError)    no such thing for this tenant
    ├── ConflictError                  someone wrote first; nothing was written
    │   └── IdempotencyError           the key was used before for another request
    ├── BudgetError                    the required sections do not fit; nothing was written
    ├── RefusedError                   a guard of the product's own refused a line, or a reply, whose turn is stored
    ├── ChatError                      the service failed; the turn is stored as failed and can be retried
    │   ├── ChatUnavailableError       time-out, rate limit, overload, 5xx: the retryable ones
    │   ├── ChatAuthError              the key was refused
    │   ├── ChatQuotaError             balance or plan is used up
    │   ├── ChatRequestError           the service refused the request itself
    │   ├── ContentFilteredError       input or output was judged sensitive
    │   └── BadReplyError              the answer cannot be read
    │       └── EmptyReplyError        the answer holds no visible text
    └── StoreError                     the database failed
        └── SchemaError                the schema is not the one this version works with

What to write around a call::

    try:
        turn = session.send(text)
    except ChatError as error:
        if error.retryable: ...
    except RoleplayError as error:
        print(error)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

ErrorT = TypeVar("ErrorT", bound=BaseException)


class RoleplayError(Exception):
    """The root of every error that this package raises on purpose.

    ``slug`` is stable and machine-readable; ``retryable`` says whether the same call may succeed later;
    ``http_status`` is a suggestion for services; ``turn_id`` is ``None`` when no turn was written.
    """

    slug: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, turn_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.turn_id = turn_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (type(self), self.args), self.__dict__

    def details(self) -> Mapping[str, Any]:
        """The data that the sentence was made from, JSON-ready and free of secrets."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Give the error as JSON-ready data: slug, message, retryable, turn_id and the class's own details."""
        return {
            "slug": self.slug,
            "message": str(self),
            "retryable": self.retryable,
            "turn_id": self.turn_id,
            **self.details(),
        }


def without_frames(error: ErrorT) -> ErrorT:
    """Give ``error`` without its traceback and without the errors behind it.

    Their frames hold what no tool that shows local variables may show: requests with their keys, answers as they came.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _revived(kind: type[RoleplayError], args: tuple[Any, ...]) -> RoleplayError:
    """Make an error again in another process, where its data follows it."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class SettingsError(RoleplayError):
    """A key, a model, an extra or a setting is missing or contradicts another. Nothing was written."""

    slug = "settings"


class InvalidInputError(RoleplayError, ValueError):
    """The caller's data is not allowed: ``field`` names it, ``allowed`` says what is. Nothing was written."""

    slug = "invalid_input"
    http_status = 422

    def __init__(self, field: str, problem: str, *, allowed: str | None = None) -> None:
        super().__init__(f"{field}: {problem}" + (f" (allowed: {allowed})" if allowed else ""))
        self.field = field
        self.problem = problem
        self.allowed = allowed

    def details(self) -> Mapping[str, Any]:
        return {"field": self.field, "allowed": self.allowed}


class NotFoundError(RoleplayError, LookupError):
    """Nothing of this ``kind`` has this ``key`` here; another tenant's or owner's thing is not found either.

    ``ambiguous``: the key is the beginning of more than one id.
    """

    slug = "not_found"
    http_status = 404

    def __init__(self, kind: str, key: str, *, hint: str = "", ambiguous: bool = False) -> None:
        hint = hint or ("more than one id begins so; write more of it" if ambiguous else "")
        super().__init__(f"no {kind} {key!r}" + (f"; {hint}" if hint else ""))
        self.kind = kind
        self.key = key
        self.ambiguous = ambiguous

    def details(self) -> Mapping[str, Any]:
        return {"kind": self.kind, "key": self.key, "ambiguous": self.ambiguous}


class ConflictError(RoleplayError):
    """Someone wrote first, or a turn is still running on this head. Nothing was written by this call."""

    slug = "conflict"
    retryable = True
    http_status = 409

    def __init__(self, message: str, *, expected: Any = None, found: Any = None, turn_id: str | None = None) -> None:
        super().__init__(message, turn_id=turn_id)
        self.expected = expected
        self.found = found

    def details(self) -> Mapping[str, Any]:
        return {"expected": self.expected, "found": self.found}


class IdempotencyError(ConflictError):
    """The idempotency key belongs to an earlier call with other arguments. Nothing was written by this call."""

    slug = "idempotency"
    retryable = False
    http_status = 422


class BudgetError(RoleplayError):
    """The required sections need more tokens than the budget. Nothing was written.

    ``sections`` maps each required section to its tokens.
    """

    slug = "budget"
    http_status = 422

    def __init__(self, sections: Mapping[str, int], budget_tokens: int) -> None:
        self.sections = dict(sections)
        self.needed_tokens = sum(self.sections.values())
        self.budget_tokens = budget_tokens
        parts = ", ".join(f"{name} {tokens}" for name, tokens in self.sections.items())
        super().__init__(
            f"the required sections need {self.needed_tokens} tokens, the budget is {budget_tokens}: {parts}"
        )

    def details(self) -> Mapping[str, Any]:
        return {
            "sections": self.sections,
            "needed_tokens": self.needed_tokens,
            "budget_tokens": self.budget_tokens,
        }


class RefusedError(RoleplayError):
    """A guard refused a human line (``side`` is ``human``; nothing was written) or a reply (``reply``; the turn is
    stored as failed or, where some of it was shown, interrupted, without what was refused). ``guard`` names it."""

    slug = "refused"
    http_status = 422

    def __init__(self, guard: str, side: str, reason: str, *, turn_id: str | None = None) -> None:
        what = "the line" if side == "human" else "the reply"
        super().__init__(f"{guard} refused {what}{': ' if reason else ''}{reason}", turn_id=turn_id)
        self.guard = guard
        self.side = side
        self.reason = reason

    def details(self) -> Mapping[str, Any]:
        return {"guard": self.guard, "side": self.side, "reason": self.reason}


class ChatError(RoleplayError):
    """The chat service failed. The turn is stored as failed, with this error, and can be retried.

    ``code`` is the service's own number (``None`` when it gave none), ``status`` the HTTP status (``None`` when no
    answer came).
    """

    slug = "chat"
    http_status = 502

    def __init__(
        self, message: str, *, code: int | None = None, status: int | None = None, turn_id: str | None = None
    ) -> None:
        super().__init__(message, turn_id=turn_id)
        self.code = code
        self.status = status

    def __str__(self) -> str:
        return self.message + (f" (code {self.code})" if self.code else "")

    def details(self) -> Mapping[str, Any]:
        return {"code": self.code, "status": self.status}


class ChatUnavailableError(ChatError):
    """A time-out, a rate limit, an overload or a fault of the service; the same request may succeed later.

    ``retry_after_s``: seconds to wait when the service said so, else ``None``.
    """

    slug = "chat_unavailable"
    retryable = True
    http_status = 503

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        turn_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, turn_id=turn_id)
        self.retry_after_s = retry_after_s

    def details(self) -> Mapping[str, Any]:
        return {**super().details(), "retry_after_s": self.retry_after_s}


class ChatAuthError(ChatError):
    """The service refused the API key. The key itself is never in the text."""

    slug = "chat_auth"


class ChatQuotaError(ChatError):
    """The balance or the plan's quota is used up. ``retry_after_s``: seconds until the reset, where it is known."""

    slug = "chat_quota"
    http_status = 503

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        turn_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, turn_id=turn_id)
        self.retry_after_s = retry_after_s

    def details(self) -> Mapping[str, Any]:
        return {**super().details(), "retry_after_s": self.retry_after_s}


class ChatRequestError(ChatError):
    """The service refused the request itself: unknown model, bad parameter, context too long.

    ``too_long``: it says that the request has more tokens than the model takes.
    """

    slug = "chat_request"

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status: int | None = None,
        too_long: bool = False,
        turn_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, turn_id=turn_id)
        self.too_long = too_long

    def details(self) -> Mapping[str, Any]:
        return {**super().details(), "too_long": self.too_long}


class ContentFilteredError(ChatError):
    """The service judged text sensitive. ``side`` is ``input`` or ``output``; ``category`` its word for why."""

    slug = "content_filtered"
    http_status = 422

    def __init__(
        self,
        message: str,
        *,
        side: str,
        category: str | None = None,
        code: int | None = None,
        status: int | None = None,
        turn_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, turn_id=turn_id)
        self.side = side
        self.category = category

    def details(self) -> Mapping[str, Any]:
        return {**super().details(), "side": self.side, "category": self.category}


class BadReplyError(ChatError):
    """The service's answer cannot be read. ``raw``: the first part of what came, at most 500 characters."""

    slug = "bad_reply"

    def __init__(
        self,
        message: str,
        *,
        raw: str = "",
        code: int | None = None,
        status: int | None = None,
        turn_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, turn_id=turn_id)
        self.raw = raw[:500]


class EmptyReplyError(BadReplyError):
    """The answer holds no visible text, for example because reasoning used the whole reply cap."""

    slug = "empty_reply"


class StoreError(RoleplayError):
    """The database failed. What was committed before stays; the statement that failed changed nothing."""

    slug = "store"


class SchemaError(StoreError):
    """The database's schema is not the one this version works with; ``found`` and ``expected`` are revisions."""

    slug = "schema"

    def __init__(self, message: str, *, found: str | None, expected: str) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected

    def details(self) -> Mapping[str, Any]:
        return {"found": self.found, "expected": self.expected}

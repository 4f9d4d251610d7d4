"""Refusals: the numeric codes, their usual HTTP status and text, and the two envelopes they travel in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_KINDS = {
    400: "bad_request_error",
    401: "authorized_error",
    403: "permission_error",
    422: "unprocessable_entity_error",
    429: "rate_limit_error",
    500: "server_error",
    529: "overloaded_error",
}

_LOGIN = "login fail: Please carry the API secret key in the 'Authorization' field of the request header"

_CODES: dict[int, tuple[int, str]] = {
    1000: (500, "unknown error, 999"),
    1001: (500, "request timeout"),
    1002: (429, "rate limit exceeded(RPM)"),
    1004: (401, _LOGIN),
    1008: (429, "insufficient balance"),
    1013: (500, "internal service error"),
    1024: (500, "internal error"),
    1026: (422, "input new_sensitive"),
    1027: (422, "output new_sensitive"),
    1028: (429, "quota exhausted"),
    1030: (429, "quota exhausted"),
    1033: (500, "system error"),
    1039: (429, "token limit exceeded"),
    1041: (429, "connection limit"),
    1042: (400, "the ratio of invisible or illegal characters exceeds 10%"),
    2013: (400, "invalid params"),
    2044: (403, "no permission for this interface"),
    2045: (429, "rate growth limit"),
    2049: (401, "invalid api key"),
    2056: (429, "usage limit exceeded"),
    2061: (403, "your current plan does not support this model"),
}


@dataclass(frozen=True)
class Refusal:
    """An error of the API.

    `http` is its status on the OpenAI-compatible path (200 means: `base_resp` inside a success status, as the native
    path always answers); `code` 0 stands for an error without a number, which keeps its status on both paths. `detail`
    says what exactly was wrong; it is for the reader of a test and is never sent.
    """

    code: int
    text: str
    http: int
    kind: str
    detail: str = ""

    def envelope(self, request_id: str, *, native: bool) -> tuple[int, dict[str, Any]]:
        """The HTTP status and the JSON body of the refusal on the native or the OpenAI-compatible path."""
        if self.code and (native or self.http == 200):
            return 200, {"base_resp": self.base_resp()}
        message = f"{self.text} ({self.code})" if self.code else self.text
        error = {"type": self.kind, "message": message, "http_code": str(self.http)}
        return self.http, {"type": "error", "error": error, "request_id": request_id}

    def base_resp(self) -> dict[str, Any]:
        """The `base_resp` object of the refusal."""
        return {"status_code": self.code, "status_msg": self.text}


class RuleBrokenError(Exception):
    """A request broke a rule; `refusal` is the answer it gets."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail or refusal.text)
        self.refusal = refusal


def refusal(code: int, *, http: int | None = None, text: str = "", detail: str = "") -> Refusal:
    """The refusal of this code with its usual status and text, unless others are given."""
    usual_http, usual_text = _CODES.get(code, (500, "unknown error"))
    status = usual_http if http is None else http
    kind = _KINDS.get(status, "api_error")
    if code == 1008 and status == 429:
        kind = "insufficient_balance_error"
    elif status == 500 and usual_http != 500:
        kind = "api_error"
    return Refusal(code, text or usual_text, status, kind, detail or text or usual_text)


def overloaded() -> Refusal:
    """HTTP 529, which carries no numeric code."""
    text = "The server cluster is currently under high load. Please retry after a short wait"
    return Refusal(0, text, 529, _KINDS[529], text)


def invalid(text: str, detail: str = "") -> RuleBrokenError:
    """Error 2013, the API's catch-all for a request it does not like."""
    return RuleBrokenError(refusal(2013, text=f"invalid params, {text}", detail=detail or text))

"""Keeps the query of an address, which may hold a key, out of logs and tracebacks of the HTTP libraries."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from roleplay.domain.endpoint import Endpoint

_LOGGERS = ("httpx", "urllib3.connectionpool", "urllib3.util.retry")


class _Mask(logging.Filter):
    """Takes known queries out of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without the queries."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._masked, record.args))
        return True

    def _masked(self, value: object) -> object:
        text = str(value)
        found = [query for query in self.queries if query in text]
        for query in found:
            text = text.replace(query, "***")
        return text if found else value


_MASK = _Mask()


def hide(endpoint: Endpoint, sent: str) -> None:
    """Let no log show the query of an endpoint, neither as it was given nor as it stands in ``sent``, the URL as the
    HTTP library writes it."""
    if endpoint.query is None:
        return
    _MASK.queries |= {endpoint.query.get_secret_value(), urlsplit(sent).query}
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_MASK)  # a second time changes nothing


def cause_of(endpoint: Endpoint, error: Exception) -> Exception | None:
    """Give what an error about ``endpoint`` is raised from: ``None`` where the text of the cause could show a query."""
    return error if endpoint.query is None else None

"""Rebuilding a stored request: from the database alone, byte for byte as it was sent."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from roleplay.domain.endpoint import Dialect
from roleplay.errors import StoreError
from roleplay.store import Connection
from roleplay.store.access.decoding import reads
from roleplay.store.records import calls, history
from roleplay.wire.recipes import VERSIONS
from roleplay.wire.request import encode_request


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A request as it was sent: its messages as the dialect wrote them, the dialect, and the body."""

    written: list[dict[str, str]]
    dialect: Dialect
    body: bytes


def rebuild(connection: Connection, tenant: str, session_id: str, call_id: str) -> Rebuilt:
    """Rebuild the request of a model call. Only emission and dialect run: nothing is counted, drawn or read from a
    clock. They run as they did in the recipe version that the call was stored with.

    Raises ``NotFoundError``, also where something of it was erased, and ``StoreError`` when the rows do not give the
    request that was sent.
    """
    origin = calls.origin(connection, tenant, session_id, call_id)
    version = VERSIONS.get(origin.recipe_version)
    if version is None:
        raise StoreError(f"model call {call_id} has recipe version {origin.recipe_version}, which is not known here")
    lines = history.span(connection, tenant, session_id, origin.recipe.history)
    with reads("a model call"):
        messages = version.emit(origin.recipe, origin.texts, lines)
        parameters: dict[str, Any] = json.loads(origin.parameters)
        dialect = Dialect(origin.dialect)
        if dialect not in version.dialects:
            problem = f"the dialect {dialect}, which recipe version {origin.recipe_version} does not write"
            raise StoreError(f"model call {call_id} has {problem}")
        written = version.write(dialect, messages, named=origin.recipe.history.named)
        body = encode_request(written, parameters)
    if hashlib.sha256(body).hexdigest() != origin.request_digest:
        raise StoreError(f"model call {call_id} cannot be rebuilt: its rows give another request than the one sent")
    return Rebuilt(written, dialect, body)

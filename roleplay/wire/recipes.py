"""Recipe versions: each way of turning a recipe into the bytes of a request that a stored call may have used.

A version is never changed and never removed, since its calls are rebuilt with it. A change that changes bytes gets a
version of its own, which new calls are stored with from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from roleplay.context.emit import emit
from roleplay.domain.context import ContextMessage, Line, Recipe
from roleplay.domain.endpoint import Dialect
from roleplay.wire.dialects import write_messages
from roleplay.wire.request import encode_request
from roleplay.wire.speech import speech_of, without_thinking


class RecipeVersion(NamedTuple):
    """One way of making a request: ``emit`` gives the messages of a recipe, ``write`` writes them in one of the
    ``dialects`` that the version knows."""

    emit: Callable[[Recipe, Mapping[str, str], Sequence[Line]], list[ContextMessage]]
    write: Callable[[Dialect, Sequence[ContextMessage]], list[dict[str, str]]]
    dialects: frozenset[Dialect]

    def encode(self, dialect: Dialect, messages: Sequence[ContextMessage], parameters: Mapping[str, object]) -> bytes:
        """Give the body of a request. Raises ``InvalidInputError`` where a name is blank."""
        return encode_request(self.write(dialect, messages), parameters)


_FIRST_DIALECTS = frozenset({Dialect.MINIMAX, Dialect.OPENAI})
VERSIONS: Mapping[int, RecipeVersion] = {
    # Its recipes name what was hidden; later ones keep it as runs.
    1: RecipeVersion(emit, partial(write_messages, speech=without_thinking), _FIRST_DIALECTS),
    2: RecipeVersion(emit, partial(write_messages, speech=speech_of), _FIRST_DIALECTS | {Dialect.STRICT}),
}
#: What new calls are stored with.
RECIPE_VERSION = 2
CURRENT = VERSIONS[RECIPE_VERSION]

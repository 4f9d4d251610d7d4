"""Recipe versions: each way of turning a recipe into the bytes of a request that a stored call may have used.

A version is never changed and never removed, since its calls are rebuilt with it. A change that changes bytes gets a
version of its own, which new calls are stored with from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from roleplay.context.emit import emit
from roleplay.domain.context import ContextMessage, Line, Recipe
from roleplay.domain.endpoint import Dialect
from roleplay.wire.dialects import write_messages
from roleplay.wire.request import encode_request
from roleplay.wire.speech import speech_of, without_thinking


class Write(Protocol):
    """Writes the messages of a context in a dialect; ``named`` as the recipe's history says."""

    def __call__(
        self, dialect: Dialect, messages: Sequence[ContextMessage], *, named: bool = False
    ) -> list[dict[str, str]]: ...


class RecipeVersion(NamedTuple):
    """One way of making a request: ``emit`` gives the messages of a recipe, ``write`` writes them in one of the
    ``dialects`` that the version knows."""

    emit: Callable[[Recipe, Mapping[str, str], Sequence[Line]], list[ContextMessage]]
    write: Write
    dialects: frozenset[Dialect]

    def encode(
        self,
        dialect: Dialect,
        messages: Sequence[ContextMessage],
        parameters: Mapping[str, object],
        *,
        named: bool = False,
    ) -> bytes:
        """Give the body of a request; ``named`` as the recipe's history says. Raises ``InvalidInputError`` where a name
        is blank."""
        return encode_request(self.write(dialect, messages, named=named), parameters)


_FIRST_DIALECTS = frozenset({Dialect.MINIMAX, Dialect.OPENAI})
_ALL_DIALECTS = _FIRST_DIALECTS | {Dialect.STRICT}
VERSIONS: Mapping[int, RecipeVersion] = {
    # Its recipes name what was hidden; later ones keep it as runs.
    1: RecipeVersion(emit, partial(write_messages, speech=without_thinking), _FIRST_DIALECTS),
    # It knows no audiences: its requests are from before there were any.
    2: RecipeVersion(emit, partial(write_messages, speech=speech_of), _ALL_DIALECTS),
    3: RecipeVersion(emit, partial(write_messages, speech=speech_of), _ALL_DIALECTS),
}
#: What new calls are stored with.
RECIPE_VERSION = 3
CURRENT = VERSIONS[RECIPE_VERSION]

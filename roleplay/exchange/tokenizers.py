"""Tokenizer files: the ``tokenizer.json`` that comes with a model, for counting exactly. Hostile until read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from roleplay.errors import InvalidInputError, SettingsError

if TYPE_CHECKING:
    from kitoken import Kitoken

SIZE_LIMIT = 50_000_000
ALLOWED = f"a model's tokenizer.json with a BPE or Unigram vocabulary, of at most {SIZE_LIMIT // 1_000_000} MB"
# The library matches the file's pattern by stepping back; some hundred thousand spaces on end exhaust it, and then it
# ends the process. A tenth of what the worst known pattern takes is safe.
PIECE_CHARS = 10_000


class TokenizerCounter:
    """Counts tokens by a model's own vocabulary; ``TokenizerCounter.from_file`` reads it. Thread-safe.

    ``name`` tells the vocabulary: it is made from the file's bytes. Special tokens that stand in a text are counted as
    the characters they are written with. A text of more than ten thousand characters is counted in pieces, which may
    give a few tokens more for each.
    """

    exact = True

    def __init__(self, name: str, vocabulary: Kitoken) -> None:
        self.name = name
        self._vocabulary = vocabulary

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """Read a ``tokenizer.json``.

        Raises ``SettingsError`` without the extra ``tokens``, and ``InvalidInputError`` for a file that cannot be read
        or is none.
        """
        try:
            from kitoken import Kitoken  # noqa: PLC0415 - an extra, loaded when a vocabulary is read
        except ModuleNotFoundError:
            raise SettingsError("exact counting needs an extra: pip install 'roleplay-engine[tokens]'") from None
        octets = _read(Path(fspath(path)))
        _check(_parsed(octets))
        try:
            vocabulary = Kitoken.from_tokenizers(octets)
        except ValueError as error:
            raise _no_tokenizer(str(error)) from error
        return cls(f"tokenizer-{hashlib.sha256(octets).hexdigest()[:16]}", vocabulary)

    def count(self, text: str) -> int:
        """Count the tokens of ``text``; linear in its length."""
        return sum(len(self._vocabulary.encode(piece, False)) for piece in _pieces(text))  # noqa: FBT003 - its own way


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text before spaces, where vocabularies part words anyway; where there is none, anywhere."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        stop = text.rfind(" ", start + PIECE_CHARS // 2, start + PIECE_CHARS)
        stop = start + PIECE_CHARS if stop < 0 else stop
        yield text[start:stop]
        start = stop
    yield text[start:]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            octets = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InvalidInputError("path", f"{path} cannot be read ({error.strerror})", allowed=ALLOWED) from error
    except ValueError as error:
        raise InvalidInputError("path", f"{str(path)!r} cannot be a path", allowed=ALLOWED) from error
    if len(octets) > SIZE_LIMIT:
        raise InvalidInputError("path", f"{path} is too large", allowed=ALLOWED)
    return octets


def _no_tokenizer(why: str) -> InvalidInputError:
    return InvalidInputError("path", f"is no tokenizer: {why}", allowed=ALLOWED)


def _parsed(octets: bytes) -> Any:
    try:
        return json.loads(octets, object_pairs_hook=_once)
    except RecursionError:
        raise _no_tokenizer("it is nested too deeply") from None
    except InvalidInputError:
        raise
    except ValueError as error:
        raise _no_tokenizer(f"it is not JSON ({error})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _no_tokenizer("a name stands twice in an object")
    return found


def _check(whole: Any) -> None:
    """Refuse what the library would end the process for: a vocabulary of nothing, or one in pieces of words."""
    model = whole.get("model") if isinstance(whole, dict) else None
    if not isinstance(model, dict):
        raise _no_tokenizer("it has no field model")
    if model.get("type") not in ("BPE", "Unigram", None) or "max_input_chars_per_word" in model:
        raise _no_tokenizer(f"its vocabulary is of the kind {str(model.get('type'))[:20]!r}")
    vocabulary = model.get("vocab")
    rows = vocabulary if isinstance(vocabulary, list) else []
    pieces = set(vocabulary) if isinstance(vocabulary, dict) else {str(row[0]) for row in rows if _is_row(row)}
    added = whole.get("added_tokens") or []
    if not isinstance(added, list) or not pieces.difference(
        str(token.get("content")) for token in added if isinstance(token, dict)
    ):
        raise _no_tokenizer("its vocabulary is empty")


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and bool(row)

"""The standard streams: UTF-8 in pipes and files whatever the locale says, and no character lost on a terminal."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

from roleplay.errors import InvalidInputError

_ESCAPE = "roleplay.escape"
_escaped: set[str] = set()  # the characters that became escapes


def prepare() -> None:
    """Set up the standard streams, once a command begins.

    What goes into a pipe or a file is read back by programs, ``persona add`` among them, and what comes out of one was
    written by them: both are UTF-8, with lines that end as they do everywhere. On a terminal its own encoding is kept.
    """
    codecs.register_error(_ESCAPE, _escape)
    _escaped.clear()
    for stream in (sys.stdout, sys.stderr):
        if _is_terminal(stream):
            _set_up(stream, errors=_ESCAPE)
        else:
            _set_up(stream, encoding="utf-8", errors=_ESCAPE, newline="\n")
    if _is_terminal(sys.stdin):
        _set_up(sys.stdin, errors="surrogateescape")
    else:
        _set_up(sys.stdin, encoding="utf-8", errors="surrogateescape", newline="")


def tell_of_escapes() -> None:
    """Say on standard error that a terminal could not show some characters, and how they were written."""
    if _escaped:
        _escaped.clear()
        with suppress(OSError):  # whom it would be told has gone
            sys.stderr.write(
                f"roleplay: this terminal ({sys.stdout.encoding}) cannot show some characters, which are written as "
                "\\uXXXX; into a file or a pipe all of them go as UTF-8\n"
            )
            sys.stderr.flush()


def lines_of(stream: TextIO) -> Iterator[str]:
    """Give the lines of a piped stream, without their ends. Raises ``InvalidInputError`` for one that is not UTF-8."""
    offset = 0
    for number, line in enumerate(stream, start=1):
        octets = line.encode("utf-8", "surrogateescape")
        try:
            octets.decode("utf-8")
        except UnicodeDecodeError as error:
            what = (
                f"byte {error.start + 1} of the line, 0x{octets[error.start]:02x}, byte {offset + error.start} of all"
            )
            raise InvalidInputError(
                "standard input", f"line {number} is not UTF-8 ({what})", allowed="text in UTF-8"
            ) from None
        offset += len(octets)
        yield (line.removeprefix("\ufeff") if number == 1 else line).rstrip("\r\n")


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding does not have as JSON escapes it, so that nothing becomes ``?``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    if error.encoding.lower() not in {"utf-8", "utf8"}:
        _escaped.update(lacking)
    return json.dumps(lacking)[1:-1], error.end


def _is_terminal(stream: TextIO | None) -> bool:
    with suppress(AttributeError, ValueError):  # there is none, or it is closed
        return stream is not None and stream.isatty()
    return False


def _set_up(stream: TextIO | None, **how: str) -> None:
    """Reconfigure a stream as far as it can be: not what stands in for one, and of one that was read from, the errors
    alone."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is None:
        return
    try:
        reconfigure(**how)
    except io.UnsupportedOperation:
        reconfigure(errors=how["errors"])

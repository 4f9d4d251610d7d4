"""Persona files: YAML or JSON that people write. Hostile until read: size, depth and number of nodes are bounded."""

from __future__ import annotations

import codecs
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from roleplay.domain.persona import CHAR, USER, ExampleLine, Persona
from roleplay.domain.values import text_problem
from roleplay.errors import InvalidInputError, NotFoundError

SIZE_LIMIT = 1_000_000
DEPTH_LIMIT = 20
NODE_LIMIT = 20_000
FILES_LIMIT = 2_000
SUFFIXES = (".yaml", ".yml", ".json")


class PersonaFile(NamedTuple):
    """A persona with the name of its file and its key."""

    name: str
    key: str
    persona: Persona


def names_file(text: str) -> bool:
    """Whether ``text`` reads like a persona file's path and not like a name."""
    return text.lower().endswith(SUFFIXES) or "/" in text or "\\" in text


def slug(text: str) -> str:
    """Give ``text`` as a key: small letters and digits of any script, joined by hyphens."""
    return "-".join(re.findall(r"[^\W_]+", text.lower()))


def read_persona(path: Path) -> Persona:
    """Read a persona from a file; without a ``key`` it gets one from the file's name.

    Raises ``NotFoundError`` without the file, and ``InvalidInputError`` that names file and field.
    """
    try:
        return _persona(_parse(path), path)
    except InvalidInputError as error:
        field = f"{path}: {error.field}" if error.field else str(path)
        raise InvalidInputError(field, error.problem, allowed=error.allowed) from error


def read_folder(folder: Path) -> list[PersonaFile]:
    """Read all persona files of a folder, by name; what is in folders inside it, or hidden, is not read.

    Raises ``NotFoundError`` without the folder, and ``InvalidInputError`` for the first file that cannot be read, that
    is none or lies elsewhere, or whose key another one has.
    """
    found: dict[str, PersonaFile] = {}
    for name in _names(folder):
        path = folder / name
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidInputError(str(path), "is no file of this folder", allowed="files, no links to elsewhere")
        persona = read_persona(path)
        if persona.key is None:
            raise InvalidInputError(f"{path}: key", "is required; the file's name gives none")
        if persona.key in found:
            raise InvalidInputError(f"{path}: key", f"{persona.key!r} is the key of {found[persona.key].name}, too")
        found[persona.key] = PersonaFile(name, persona.key, persona)
    return list(found.values())


def _names(folder: Path) -> list[str]:
    names = []
    try:
        for path in folder.iterdir():
            if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            if problem := text_problem(path.name):
                raise InvalidInputError("folder", f"the file name {path.name!r} {problem}")
            names.append(path.name)
            if len(names) > FILES_LIMIT:
                raise InvalidInputError("folder", "holds too many files", allowed=f"at most {FILES_LIMIT:,}")
    except FileNotFoundError:
        raise NotFoundError("folder", str(folder)) from None
    except OSError as error:
        raise InvalidInputError("folder", f"{folder} cannot be read ({error.strerror})") from error
    return sorted(names)


def _persona(fields: Any, path: Path) -> Persona:
    if not isinstance(fields, dict):
        raise InvalidInputError("", "is no persona", allowed="fields such as 'name: ...', one a line")
    _check_plain(fields)
    if "spec" in fields and "data" in fields:
        raise InvalidInputError("", "is a Character Card; examples/put_foreign_personas.py of the source puts it")
    for field in fields:
        if field not in Persona.model_fields:
            raise InvalidInputError(str(field), "unknown field", allowed=", ".join(Persona.model_fields))
    if fields.get("name") is None:
        raise InvalidInputError("name", "is required")
    return Persona(**{"key": slug(path.stem) or None, **fields})


def _parse(path: Path) -> Any:
    text = _text(path)
    return _from_json(text) if path.suffix.lower() == ".json" else _from_yaml(text)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise NotFoundError("file", str(path)) from None
    except OSError as error:
        raise InvalidInputError("", f"cannot be read ({error.strerror})") from error
    if len(octets) > SIZE_LIMIT:
        raise InvalidInputError("", "is too large for a persona", allowed=f"at most {SIZE_LIMIT:,} bytes")
    if octets.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidInputError("", "is UTF-16, as some shells write with '>'; save it as UTF-8")
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise InvalidInputError("", f"is not UTF-8 at byte {error.start}, in line {line}") from error
    return octets.decode("utf-8-sig")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidInputError("", f"line {error.lineno}: {error.msg}") from error
    except RecursionError:
        raise _too_deep() from None
    except InvalidInputError:
        raise
    except ValueError as error:
        raise InvalidInputError("", str(error).split(";")[0]) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidInputError(key, "stands there twice")
        found[key] = value
    return found


def _no_constant(word: str) -> Any:
    raise InvalidInputError("", f"{word} is no number that JSON knows")


def _from_yaml(text: str) -> Any:
    from ruamel.yaml import YAML  # noqa: PLC0415 - loaded when a YAML file is read
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415

    try:
        _check_events(YAML(typ="safe", pure=True).parse(text))
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InvalidInputError("", f"{line}{_first_line(error.problem or 'is not YAML')}") from error
    except YAMLError as error:
        raise InvalidInputError("", f"is not YAML: {_first_line(str(error))}") from error
    except InvalidInputError:
        raise
    except ValueError as error:
        raise InvalidInputError("", f"holds a value that cannot be read: {_first_line(str(error))}") from error


def _first_line(words: str) -> str:
    return words.strip().split("\n", 1)[0]


def _check_events(events: Iterator[Any]) -> None:
    """Refuse what a persona never needs and a reader could choke on, before anything is built from it."""
    depth = documents = 0
    for count, event in enumerate(events):
        kind = type(event).__name__
        where = f"line {event.start_mark.line + 1}: "
        if kind == "AliasEvent" or getattr(event, "anchor", None):
            raise InvalidInputError("", f"{where}anchors and aliases (& and *) are not taken; write the words out")
        if getattr(event, "tag", None) not in {None, "!"}:
            raise InvalidInputError("", f"{where}tags (!) are not taken; write plain values")
        documents += kind == "DocumentStartEvent"
        depth += kind.endswith(("MappingStartEvent", "SequenceStartEvent"))
        depth -= kind in {"MappingEndEvent", "SequenceEndEvent"}
        if documents > 1:
            raise InvalidInputError("", f"{where}a second document begins; one file holds one persona")
        if depth > DEPTH_LIMIT:
            raise _too_deep()
        if count > NODE_LIMIT:
            raise InvalidInputError("", "holds too many values for a persona", allowed=f"at most {NODE_LIMIT:,}")


def _too_deep() -> InvalidInputError:
    return InvalidInputError("", "is nested too deeply", allowed=f"at most {DEPTH_LIMIT} levels")


def _check_plain(fields: dict[Any, Any]) -> None:
    """Make sure that everything is text, numbers, truth values, lists and fields: what JSON can hold as well."""
    left: list[tuple[str, Any, int]] = [("", fields, 1)]
    while left:
        path, value, depth = left.pop()
        if depth > DEPTH_LIMIT:
            raise _too_deep()
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise InvalidInputError(path, f"the field name {key!r} should be text; put it in quotes")
                left.append((f"{path}.{key}" if path else key, inner, depth + 1))
        elif isinstance(value, list):
            left.extend((f"{path}[{number}]", inner, depth + 1) for number, inner in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise InvalidInputError(path, f"{value} is not a number that can be stored")
        elif not (value is None or isinstance(value, str | int | float)):
            raise InvalidInputError(path, f"is a {type(value).__name__}; put it in quotes")


def persona_yaml(persona: Persona) -> str:
    """Write a persona as YAML that ``read_persona`` reads as the same persona; empty fields are left out."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - loaded when YAML is written

    writer = YAML(pure=True)
    writer.width = 4096
    writer.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    writer.dump(_readable(persona), out)
    return out.getvalue()


def _readable(persona: Persona) -> dict[str, Any]:
    first = {"key": _laid_out(persona.key)} if persona.key else {}
    plain = persona.model_dump(mode="json", exclude={"key", "examples"}, exclude_defaults=True)
    fields = first | {name: _laid_out(value) for name, value in plain.items()}
    if persona.examples:
        fields["examples"] = [[_line(line) for line in dialogue.lines] for dialogue in persona.examples]
    return fields


def _line(line: ExampleLine) -> dict[str, Any]:
    text = _laid_out(line.text)
    if line.speaker in {CHAR, USER} or line.speaker[0].isalnum():
        return {_laid_out(line.speaker): text}
    return {"speaker": _laid_out(line.speaker), "text": text}


def _laid_out(value: Any) -> Any:
    """Give texts in the style that says exactly the same: lines as a block, odd characters escaped in quotes."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString  # noqa: PLC0415

    if isinstance(value, list):
        return [_laid_out(one) for one in value]
    if isinstance(value, dict):
        return {_laid_out(name): _laid_out(one) for name, one in value.items()}
    if not isinstance(value, str) or (value.isprintable() and value.isascii()):
        return value
    lines = value.removesuffix("\n").split("\n")
    if not all(line.isprintable() for line in lines):
        return DoubleQuotedScalarString(value)
    as_block = len(value) > len(lines[0]) and lines[0] and lines[-1] and all(line == line.strip() for line in lines)
    return LiteralScalarString(value) if as_block else value

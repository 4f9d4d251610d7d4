"""Emission: from a recipe, its texts and its lines to the list of messages. Building and rebuilding both end here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roleplay.domain.context import ContextMessage, Line, Piece, Recipe, Role

_new = tuple.__new__  # a named tuple's own costs three times as much
_ROLES = {role.value: role for role in Role}  # to call the enumeration costs ten times as much


def emit(recipe: Recipe, texts: Mapping[str, str], lines: Sequence[Line]) -> list[ContextMessage]:
    """Give the messages of a recipe in order: front, history with its insertions, tail.

    ``texts`` maps digests to rendered texts; ``lines`` is the path of the recipe's history, oldest first. The seat's
    own lines are ``assistant``, everyone else's ``user``, each under the name it was said with; where the recipe says
    so, the text of theirs begins with that name, alone in a message or not.
    """
    own, assistant, user = recipe.history.seat, Role.ASSISTANT, Role.USER
    new = _new
    history = [
        new(ContextMessage, (assistant if seat == own else user, name, text)) for _, _, seat, name, text, _, _ in lines
    ]
    if recipe.history.named:
        history = [one if one.role is assistant else one._replace(text=named(one.name, one.text)) for one in history]
    places = list(recipe.insertions[::-1])  # of one depth, each goes before those behind it
    places.sort(key=lambda insertion: insertion.depth)
    for insertion in places:
        history.insert(max(len(lines) - insertion.depth, 0), _message(insertion.piece, texts))
    return [
        *_front(recipe.front, texts),
        *history,
        *(_message(piece, texts) for piece in recipe.tail),
    ]


def named(name: str, text: str) -> str:
    """Give a line with the name of who says it."""
    return f"{in_one_line(name)}: {text}"


def in_one_line(name: str) -> str:
    """Give a name without what ends a line in a text, such as U+2028: its rest would look like another's name."""
    return name if name.isprintable() else " ".join(name.splitlines())


def _front(pieces: Sequence[Piece], texts: Mapping[str, str]) -> list[ContextMessage]:
    """The front, in which all that is ``system`` is one message, since servers take no second one there."""
    systems = [texts[piece.digest] for piece in pieces if piece.role == Role.SYSTEM]
    written = [_message(piece, texts) for piece in pieces if piece.role != Role.SYSTEM]
    if systems:
        written.insert(0, ContextMessage(Role.SYSTEM, pieces[0].name, "\n\n".join(systems)))
    return written


def _message(piece: Piece, texts: Mapping[str, str]) -> ContextMessage:
    return _new(ContextMessage, (_ROLES[piece.role], piece.name, texts[piece.digest]))

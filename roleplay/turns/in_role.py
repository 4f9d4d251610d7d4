"""A reply stays in role: its speaker's own name at its beginning is left out, and it ends where it goes on as another.

Names are looked for where a line begins, in a tree of their characters, so that no name, whatever it is, makes a search
slow: each character of a reply is looked at once or, behind the speaker's own name, a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from unicodedata import normalize

from roleplay.domain.conversation import Cut

INDENT: Final = 16
"""The blanks that a line may begin with before a name."""
WHITE_HELD: Final = 64
"""The white space before a line that is held back, since it is left out where the reply is cut."""
_MARKS: Final = 6
_SPARE: Final = 24
_CLOSES: Final = {"*": "*", "_": "_", "[": "]", "(": ")", "<": ">", "【": "】", "［": "］", "（": "）"}
_EMPHASIS: Final = frozenset("*_")
_MARK: Final = "".join(_CLOSES)
_OPENING: Final = frozenset(_CLOSES)
_CLOSING: Final = frozenset(_CLOSES.values())
_BLANK: Final = " \t\r\xa0\u3000"
_BLANKS: Final = frozenset(_BLANK)
_COLONS: Final = frozenset(":\uff1a\ufe55")
_START: Final = re.compile("[ \t\r\xa0\u3000\n]*[*_\\[(<\u3010\uff3b\uff08]*")
_END: Final = ""

_Node = dict[str, Any]  # of a tree: what follows by its next character, and under ``_END`` whose name ends here


class Names:
    """The names that a reply of one seat is searched for.

    ``own`` are the speaker's; ``others`` are those of the others who are there, each with the display name of whose it
    is. Letters of either case are the same. What is the speaker's own name is nobody else's.
    """

    __slots__ = ("_others", "_own", "_root", "firsts", "longest")

    def __init__(self, own: Iterable[str] = (), others: Iterable[tuple[str, str]] = ()) -> None:
        self._own = [_bare(name) for name in own]
        self._others = [(_bare(name), who) for name, who in others]
        bare = [*self._own, *(name for name, _ in self._others)]
        self.firsts = _OPENING.union(*map(_firsts, bare))
        self.longest = max((len(name) if name.isascii() else len(normalize("NFD", name)) for name in bare), default=0)
        self._root: _Node | None = None

    @property
    def root(self) -> _Node:
        """The tree of all names, made when a line first begins with a character that one may begin with."""
        if self._root is None:
            self._root = {}
            for name in self._own:
                self._add(self._root, name, None)
            for name, who in self._others:
                self._add(self._root, name, who)
        return self._root

    @staticmethod
    def _add(root: _Node, name: str, who: str | None) -> None:
        """Add a name, which an opening mark of its own is no part of where it is looked for."""
        bare = name.lstrip(_MARK)
        node = root
        for char in _folded(bare):
            node = node.setdefault(char, {})
        if node is not root:
            node.setdefault(_END, (who, len(name) - len(bare)))


class InRole:
    """The speech of one reply on its way, wherever its pieces break.

    ``so_far`` is the text that it goes on from: it begins no line where that one ends within one. ``feed`` and
    ``finish`` give what stays, all of which is ``text``; ``cut`` is what does not, once there is some. ``inside``:
    nothing is looked for before the next line; until then, a piece may as well be added to ``kept``.
    """

    _fresh = True  # whether nothing came yet
    _label: _Label | None = None
    _white = _lead = ""  # held: white space before a line; marks before the speaker's own name
    _indent = 0
    _begins = True  # whether nothing was given yet, so that the speaker's own name may stand here
    _line = _apart = True  # whether a line begins here, and whether white space or nothing stands before
    _trim = False
    _went_on_as: str | None = None

    def __init__(self, names: Names, so_far: str = "") -> None:
        self._names = names
        self.kept: list[str] = []
        self.inside = False
        if so_far:
            self._line = so_far.rstrip(_BLANK)[-1:] in {"", "\n"}
            self._apart = so_far[-1].isspace()

    @property
    def text(self) -> str:
        """All that was given so far."""
        if len(self.kept) > 1:
            self.kept = ["".join(self.kept)]
        return self.kept[0] if self.kept else ""

    @property
    def cut(self) -> Cut | None:
        """What was cut so far."""
        return None if self._went_on_as is None else Cut(name=self._went_on_as, text="".join(self._rest))

    @property
    def goes_on(self) -> bool:
        """Whether what comes next is the first of a text that goes on within a line."""
        return not self._line and self._begins

    def break_line(self) -> None:
        """Take what comes next for the beginning of a line."""
        self._line = True

    def feed(self, text: str) -> str:
        """Give what is sure to stay. Held back is only the beginning of a line that may become a name, with the white
        space before it."""
        if self._fresh and text:
            self._fresh = False
            first = _name_from(text, 0)
            if first < len(text) and text[first] not in self._names.firsts:  # as most replies begin
                self.inside, self._begins = True, False
        if self.inside and "\n" not in text:
            self.kept.append(text)
            return text
        return self._take(text, ended=False)

    def finish(self) -> str:
        """Give what was held, after the last piece."""
        return "" if self.inside else self._take("", ended=True)

    def _take(self, text: str, *, ended: bool) -> str:
        given: list[str] = []
        self._run(text, given)
        while ended and self._label is not None:
            self._run(self._decide(given), given)
        if ended and not self.inside and self._went_on_as is None:
            given.append(self._white)
            self._white = ""
        said = given[0] if len(given) == 1 else "".join(given)
        if said:
            self.kept.append(said)
        return said

    def _run(self, text: str, given: list[str]) -> None:
        at = 0
        while at < len(text):
            if self._went_on_as is not None:
                self._rest.append(text[at:])
                return
            if self.inside:
                at = self._pass(text, at, given)
            else:
                text, at = self._begin(text, at, given)

    def _pass(self, text: str, at: int, given: list[str]) -> int:
        """Give lines up to one that may begin with a name, or up to the end."""
        stop = text.find("\n", at)
        while stop >= 0:
            first = _name_from(text, stop)
            if first == len(text) or text[first] in self._names.firsts:
                given.append(text[at:stop])
                self.inside, self._line, self._indent = False, True, 0
                return stop
            stop = text.find("\n", first)
        given.append(text[at:])
        return len(text)

    def _begin(self, text: str, at: int, given: list[str]) -> tuple[str, int]:
        """Look at the beginning of a line until it is known what it is; gives the text and where to go on in it."""
        while at < len(text):
            char = text[at]
            if self._label is None:
                if char == "\n" or char in _BLANKS:
                    self._hold(char, given)
                    at += 1
                    continue
                if char not in self._names.firsts or self._indent > INDENT:
                    self._go_inside("", given)
                    return text, at
                self._label = _Label(self._names)
            if self._label.takes(char):
                at += 1
                continue
            again = self._decide(given)
            if len(again) <= at:
                at -= len(again)
            else:  # it came with an earlier piece
                text, at = again[: len(again) - at] + text, 0
            if self.inside or self._went_on_as is not None:
                break
        return text, at

    def _hold(self, char: str, given: list[str]) -> None:
        if char == "\n":
            self._line, self._indent = True, 0
        else:
            self._indent += 1
        if not self._trim:
            self._white += char
        if len(self._white) == WHITE_HELD:
            given.append(self._white)
            self._white = ""

    def _decide(self, given: list[str]) -> str:
        """Say what the line begins with; gives what of it is to be looked at again."""
        label, self._label = self._label, None
        assert label is not None
        if label.is_own and self._begins:
            lead, again = label.without()
            self._lead += lead
            self._trim = self._trim or self._apart or bool(self._white)
            self._indent = 0
            return again
        if label.name is not None and self._line:
            self._went_on_as, self._white, self._lead = label.name, "", ""
            self._rest = [label.text]
        else:
            self._go_inside(label.text, given)
        return ""

    def _go_inside(self, text: str, given: list[str]) -> None:
        if text := self._white + self._lead + text:
            given.append(text)
        self.inside, self._begins, self._trim = True, False, False
        self._white = self._lead = ""


class _Label:
    """The beginning of a line, character by character, as long as it may be a name before a colon: after opening marks,
    and with closing ones before or behind the colon."""

    __slots__ = ("_begun", "_chars", "_end", "_ended", "_found", "_marks", "_names", "_node", "_spaced")

    def __init__(self, names: Names) -> None:
        self._chars: list[str] = []
        self._names = names
        self._node: _Node | None = names.root
        self._begun = 0  # how many marks stand before the name
        self._ended: tuple[str | None, int, int] | None = None  # whose name ended before marks and blanks, and where
        self._found: tuple[str | None, int, int] | None = None  # the same, once a colon came
        self._end = 0  # where it ends with its colon
        self._marks = ""  # what is still to be closed then
        self._spaced = False

    @property
    def text(self) -> str:
        """The characters that were taken."""
        return "".join(self._chars)

    @property
    def is_own(self) -> bool:
        """Whether it is the speaker's own name."""
        return self._found is not None and self._found[0] is None

    @property
    def name(self) -> str | None:
        """The display name of another whose name it is."""
        return None if self._found is None else self._found[0]

    def without(self) -> tuple[str, str]:
        """Give the opening marks that nothing closes, and what was taken behind the name."""
        rest = self.text[self._end :]
        closing = "".join(_CLOSES[mark] for mark in reversed(self._marks))
        return ("", rest.removeprefix(closing)) if rest.startswith(closing) else (self._marks, rest)

    def takes(self, char: str) -> bool:
        """Take a character, where what the line begins with is not known without it. It is known then, or never."""
        count = len(self._chars)
        if self._found is not None and count == self._end and self._is_face(char):
            self._found = None
        if count >= self._names.longest + _SPARE or not self._goes_on(char, count):
            return False
        self._chars.append(char)
        return True

    def _goes_on(self, char: str, count: int) -> bool:
        if count == self._begun and count < _MARKS and char in _CLOSES:
            self._begun += 1
            return True
        known = None if self._node is None else self._node.get(_END)
        ended = self._ended if known is None else (*known, count)
        node = self._node
        for part in _fold(char):
            node = None if node is None else node.get(part)
        self._node = node
        self._ended = ended if char in _CLOSING or char in _BLANKS else None
        if char in _COLONS and ended is not None and self._closes(ended):
            self._found, self._end = ended, count + 1
            self._spaced = char == ":" and self._chars[-1] in _BLANKS
            return True
        return node is not None or self._ended is not None or self._awaits(char, count)

    def _awaits(self, char: str, count: int) -> bool:
        """Whether a character behind the colon may close a mark that stands before the speaker's own name."""
        at = count - self._end
        return self.is_own and at < len(self._marks) and char == _CLOSES[self._marks[-1 - at]]

    def _closes(self, ended: tuple[str | None, int, int]) -> bool:
        """Find what is still to be closed behind a name; whether each bracket that is closed was opened."""
        _, of_name, end = ended
        open_marks, begun = self._chars[: self._begun - of_name], ""
        for char in self._chars[end:]:
            if open_marks and not begun and _CLOSES[open_marks[-1]] == char:
                open_marks.pop()
            elif char in _EMPHASIS:
                begun += char
            elif char not in _BLANKS:
                return False
        self._marks = "".join(open_marks) + begun
        return True

    def _is_face(self, char: str) -> bool:
        """Whether the colon is the beginning of a face, such as ``:)``, that somebody is looked at with."""
        if self._awaits(char, len(self._chars)):
            return False
        is_apart = char == "\n" or char in _BLANKS or char in _EMPHASIS
        return (char == ")" and self._chars[-1] == ":") or (self._spaced and not is_apart)


def _name_from(text: str, at: int) -> int:
    """Give where a name may begin, at the beginning of a line or before it: behind white space and opening marks."""
    found = _START.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()


def _bare(name: str) -> str:
    """Give a name without blanks and marks around it."""
    name = name.strip()
    while len(name) > 1 and _CLOSES.get(name[0]) == name[-1]:
        name = name[1:-1].strip()
    return name


def _firsts(name: str) -> set[str]:
    """Give the characters that a name may begin with in a text."""
    if name.isascii() and name[:1].isalpha():
        return {name[0].lower(), name[0].upper()}
    name = name.lstrip(_MARK)
    firsts = {normalize(form, name)[0] for form in ("NFC", "NFD") if name}
    return {
        turned for char in firsts for turned in (char, char.lower(), char.upper(), char.title()) if len(turned) == 1
    }


def _folded(name: str) -> str:
    return "".join(map(_fold, name))


def _fold(char: str) -> str:
    """Give a character as it is compared: letters of either case, and whole ones and those with a mark of their own,
    are the same."""
    if char.isascii():
        return " " if char in _BLANKS else char.lower()
    return " " if char in _BLANKS else normalize("NFD", char).casefold()


NOBODY: Final = Names()

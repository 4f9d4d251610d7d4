"""Who is mentioned in a text: by which names, in which order, and what only looks like a mention."""

from __future__ import annotations

import time
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roleplay import Participant, PlayedBy
from roleplay.turns.mentions import mentioned

Name = str | tuple[str, ...]


def seats(*names: Name, first: int = 1) -> list[Participant]:
    """Seats of these names, each with its aliases, numbered from ``first``."""
    return [
        Participant(
            seat=number,
            played_by=PlayedBy.MODEL,
            display_name=name if isinstance(name, str) else name[0],
            persona_id="p",
            persona_version=1,
            aliases=() if isinstance(name, str) else name[1:],
        )
        for number, name in enumerate(names, first)
    ]


WHOLE = [
    ("Bob, come here", ["Alice", "Bob"], [2]),
    ("bob? BOB!", ["Alice", "Bob"], [2]),
    ("Cara and Bob, then Cara", ["Alice", "Bob", "Cara"], [3, 2]),
    ("bobcat, Bobby, rebob", ["Bob"], []),
    ("Was it the Kid?", [("Bill", "Kid"), "Bob"], [1]),
    ("Hello, Anna Maria!", ["Anna", "Anna Maria", "Maria"], [2]),
    ("Anna, Anna Maria.", ["Anna", "Anna Maria"], [1, 2]),
    ("Anna Maria Rossi", ["Anna Maria", "Maria Rossi", "Maria"], [1, 2]),
    ("Alice", ["Alice", "Alice"], [1, 2]),
    ("the Kid", [("Bill", "The Kid"), ("Tim", "the kid")], [1, 2]),
    ("", ["Alice"], []),
    ("Alice", [], []),
]
WORDS = [
    ("the door", ["The Guard"], []),
    ("The door opens.", ["The Guard"], []),
    ("Ask the guard.", ["The Guard"], [1]),
    ("an old red door", ["Old Tom", "Red Anna"], []),
    ("tom!", ["Old Tom"], [1]),
    ("John Doe, answer.", ["John Smith", "John Doe"], [2]),
    ("John?", ["John Smith", "John Doe"], []),
    ("John?", ["John Smith", "John"], [2]),
    ("John, where is Smith?", ["John Smith", "Anna"], [1]),
    ("7 days", ["Agent 7"], []),
    ("J, come", ["J. Stone"], []),
    ("the scar on the girl", [("Anna", "the girl with the scar")], []),
    ("Vincent van Gogh von Berg", ["Otto von Stein", "Jan van Dyck"], []),
    ("El perro de la casa", ["Juan de la Vega", "El Zorro"], []),
    ("Jos", ["José García"], []),
    ("José!", ["José García"], [1]),
    ("你好，居里", ["玛丽·居里"], [1]),
]
WRITTEN = [
    ("Bob's hat", ["Bob"], [1]),
    ("Bob\u2019s hat; he'd know", ["Bob", "D", "S"], [1]),
    ("James' hat", ["James"], [1]),
    ("I don't, I DON\u2019T", ["Don"], []),
    ("Do not, Don", ["Don"], [1]),
    ("d'Artagnan", ["D'Artagnan"], [1]),
    ("L'ami d'Anna", ["Anna"], [1]),
    ("'Bob'", ["Bob"], [1]),
    ("*Bob* _Anna_ **Tim**", ["Anna", "Bob", "Tim"], [2, 1, 3]),
    ("@Bob: (Anna)", ["Anna", "Bob"], [2, 1]),
    ("Bob-san", ["Bob"], [1]),
    ("an X-ray", ["Ray"], []),
    ("Well - Ray? -Bob", ["Ray", "Bob"], [1, 2]),
    ("Anne-Marie, Anne", ["Anne", "Anne-Marie"], [2, 1]),
    ("Anne Marie", ["Anne-Marie"], [1]),
    ("I will go", ["Will"], []),
    ("Will, you may go", ["Will", "May"], [1]),
    ("i will go", ["will"], [1]),
    ("the one", ["The One"], []),
    ("The One", ["The One"], [1]),
    ("the one", ["The One", ("Neo", "one")], [2]),
]
SCRIPTS = [
    ("STRASSE", ["Straße"], [1]),
    ("Борис и аня", ["Борис", "Аня", "龙"], [1, 2]),
    ("Борис 龙", ["Борис", "Аня", "龙"], [1, 3]),
    ("小明你好", ["小明"], [1]),
    ("王小明来了", ["小明", "王小明"], [2]),
    ("森林里的林中", ["林"], []),
    ("林，来！", ["林"], [1]),
    ("アリスとボブ", ["アリス", "ボブ"], [1, 2]),
    ("アリストテレス", ["アリス"], []),
    ("ｱﾘｽ", ["アリス"], [1]),
    ("vsアリス", ["アリス"], [1]),
    ("Γΐα".upper(), ["Γΐα"], [1]),
    ("Aliceさん", ["Alice"], [1]),
    ("철수야 안녕", ["철수"], [1]),
    ("นายสมชายมาแล้ว", ["สมชาย"], [1]),
    ("नमस्ते राम, रामा", ["रामा", "राम"], [2, 1]),
    ("كريم؟", ["كريم"], [1]),
    ("e\u0301", ["é", "e"], [1]),
    ("Zoe\u0308 and Zoe", ["Zoë", "Zoe"], [1, 2]),
    ("Zoe", ["Zoë"], [1]),
    ("Zoë", ["Zoe"], []),
    ("Nova", ["N\u0336o\u0336v\u0336a\u0336"], [1]),
    ("No\u00adva, \u200eBob\u200f", ["Nova", "Bob"], [1, 2]),
]
DECORATED = [
    ("Nova!", ["★Nova★"], [1]),
    ("★Nova★ Nova", ["Nova", "★Nova★"], [2, 1]),
    ("nova", ["~*Nova*~ (GM)"], [1]),
    ("nova", ["xX_Nova_Xx"], [1]),
    ("nova", ["Nova™"], [1]),
    ("alice", ["𝓐𝓵𝓲𝓬𝓮"], [1]),
    ("𝓐𝓵𝓲𝓬𝓮 ＢＯＢ", ["Alice", "Bob"], [1, 2]),
    ("hi 🦊!", ["🦊"], [1]),
    ("🦊 Foxy", ["🦊", "🦊 Foxy"], [2]),
    ("Foxy", ["🦊", "🦊 Foxy"], [2]),
    ("🦊", ["🦊 Foxy"], []),
    ("👩\u200d🚀", ["👩", "🚀", "👩\u200d🚀"], [3]),
    ("👩🚀", ["👩", "🚀", "👩\u200d🚀"], [1, 2]),
    ("👍🏽", ["👍", "👍🏽"], [2]),
    ("❤\ufe0f", ["❤"], [1]),
    ("🇩🇪🇫🇷", ["🇪🇫", "🇫🇷"], [2]),
    ("a: b", ["???"], []),
]


@pytest.mark.parametrize(("text", "names", "found"), [*WHOLE, *WORDS, *WRITTEN, *SCRIPTS, *DECORATED])
def test_who_is_mentioned(text: str, names: list[Name], found: list[int]) -> None:
    """Each is found by its names alone, in the order of the text."""
    assert mentioned(text, seats(*names)) == found


@pytest.mark.parametrize(
    ("text", "others", "found"),
    [
        ("John Doe, come", ["John Doe"], []),
        ("John, come", ["John Doe"], []),
        ("John, come", ["John"], []),
        ("Smith, come", ["John Doe"], [1]),
        ("John Smith, come", ["John", "Smith"], [1]),
        ("John Smith", ["John Smith"], [1]),
    ],
)
def test_the_name_of_somebody_else(text: str, others: list[Name], found: list[int]) -> None:
    """Who is there but may not speak keeps the names that it has: they call nobody else."""
    assert mentioned(text, seats("John Smith"), seats(*others, first=2)) == found


def test_all_of_one_name_are_called_in_the_order_of_seats() -> None:
    """Of those who have one name, the order is that of the seats as they are given."""
    one, two = seats("Anna", "Anna")
    assert mentioned("Anna", [two, one]) == mentioned("Anna", [two, one], [one, two]) == [2, 1]


NAMES = st.lists(
    st.text("aAbé ́-'’🦊👩\u200d🚀龙明アิ_★.", min_size=1, max_size=6).filter(lambda name: bool(name.strip())),
    min_size=1,
    max_size=5,
)


@given(NAMES, st.text("aAbé ́-'’🦊👩\u200d🚀龙明アิ_★.", max_size=30))
def test_whatever_is_written(names: list[str], text: str) -> None:
    """Each seat is given at most once, only those that there are, and the same for a text in another normal form."""
    there = seats(*names)
    found = mentioned(text, there)
    assert len(set(found)) == len(found)
    assert set(found) <= {one.seat for one in there}
    assert mentioned(normalize("NFD", text), there) == found
    assert mentioned(text, there[:1], there) == [seat for seat in found if seat == 1]


@given(st.lists(st.sampled_from(["Anna", "Bob", "Anna Lee", "小明", "José", "🦊", "★Kim★"]), min_size=1, unique=True))
def test_whole_names_are_found_in_their_order(names: list[str]) -> None:
    """A list of names, of which none stands within another at its place, calls all of them as they stand."""
    there = seats("Anna", "Bob", "Anna Lee", "小明", "José", "🦊", "★Kim★")
    numbers = {one.display_name: one.seat for one in there}
    assert mentioned("; ".join(names), there) == [numbers[name] for name in names]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a" * 400_000, ["a" * 199]),
        ("a " * 40_000, [" ".join(["a"] * 99 + ["b"]), *(" ".join(["a"] * count) for count in range(1, 50))]),
        ("啊" * 40_000, ["啊" * 199 + "b", "啊" * 198, "啊" * 50 + "c"]),
        ("'-" * 200_000, ["'-'-a"]),
        ("👩\u200d" * 100_000, ["👩\u200d" * 50]),
        ("\u0301" * 400_000, ["e\u0301"]),
        ("\ufdfa" * 10_000, ["\ufdfa" * 11]),
    ],
)
def test_hostile_texts_take_linear_time(text: str, names: list[str]) -> None:
    """Eight times the text takes not much more than eight times as long: nothing is tried again from every place."""

    def seconds(words: str) -> float:
        began = time.process_time()
        mentioned(words, seats(*names))
        return time.process_time() - began

    few = min(seconds(text[: len(text) // 8]) for _ in range(3))
    assert seconds(text) < 8 * 4 * few + 0.2

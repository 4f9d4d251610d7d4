"""Replies stay in role: what is left out at the beginning, where a reply is cut, and that pieces change nothing."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roleplay.turns.in_role import NOBODY, WHITE_HELD, InRole, Names

BEN, STONE, NOVA = ("Ben", "Ben"), ("Ben Stone", "Ben Stone"), ("Nova", "Nova")
NAMES = Names(
    ["Anna", "Annie"],
    [BEN, STONE, ("Benny", "Ben"), NOVA, ("José", "José"), ("小明", "小明"), ("🦊", "Fox"), ("Dr. (Mad) Max", "Max")],
)


def whole(text: str, names: Names = NAMES, so_far: str = "") -> tuple[str, str | None, str]:
    """What stays of a text, as whom it goes on, and what was cut."""
    role = InRole(names, so_far)
    kept = role.feed(text) + role.finish()
    assert kept == role.text
    return kept, role.cut and role.cut.name, role.cut.text if role.cut else ""


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Anna: Hello.", "Hello."),
        ("anna: Hello.", "Hello."),
        ("ANNA:Hello.", "Hello."),
        ("**Anna:** Hello.", "Hello."),
        ("**Anna**: Hello.", "Hello."),
        ("Anna**:** Hello.", "Hello."),
        ("*Anna*: Hello.", "Hello."),
        ("***Anna:*** Hello.", "Hello."),
        ("[Anna]: Hello.", "Hello."),
        ("**[Anna]:** Hello.", "Hello."),
        ("【Anna】：Hello.", "Hello."),
        ("  Anna :  Hello.", "  Hello."),
        ("Anna：Hello.", "Hello."),
        ("Annie: Hello.", "Hello."),
        ("Anna: Annie: **Anna:** Hello.", "Hello."),
        ("Anna:\n\nHello.", "Hello."),
        ("*Anna: waves.* Hello.", "*waves.* Hello."),
        ("(Anna: nobody hears this)", "(nobody hears this)"),
        ("Anna:", ""),
        ("**Anna:**", ""),
        ("Anna: Anna", "Anna"),
        ("Anna", "Anna"),
        ("Anna waves: hello", "Anna waves: hello"),
        ("Annabel: Hello.", "Annabel: Hello."),
        ("Anna :) Hello.", "Anna :) Hello."),
        ("Hello.\nAnna: More.", "Hello.\nAnna: More."),
    ],
)
def test_the_own_name_is_left_out(said: str, kept: str) -> None:
    """At the beginning of a reply alone, as often as it stands there, with its marks."""
    assert whole(said) == (kept, None, "")


LABELS = [
    ("Ben:", "Ben"),
    ("Ben :", "Ben"),
    ("Ben：", "Ben"),
    ("BEN:", "Ben"),
    ("**Ben:** ", "Ben"),
    ("**Ben**: ", "Ben"),
    ("*Ben*:", "Ben"),
    ("__Ben__:", "Ben"),
    ("[Ben]:", "Ben"),
    ("**[Ben]**:", "Ben"),
    ("<Ben>:", "Ben"),
    ("【小明】：", "小明"),
    ("小明：", "小明"),
    ("Benny:", "Ben"),
    ("Ben Stone:", "Ben Stone"),
    ("Ben\u00a0Stone:", "Ben Stone"),
    ("Nova:", "Nova"),
    ("José:", "José"),
    ("Jose\u0301:", "José"),
    ("🦊:", "Fox"),
    ("Dr. (Mad) Max:", "Max"),
    ("    Ben:", "Ben"),
]


@pytest.mark.parametrize(("label", "name"), LABELS)
@pytest.mark.parametrize("before", ["Hello.\n", "Hello.\n\n \n", "Anna: Hello.\r\n\n"])
def test_a_reply_is_cut_where_it_goes_on_as_another(label: str, name: str, before: str) -> None:
    """With everything from that line on, and without the empty lines before it."""
    line = label.lstrip(" ")
    kept, who, cut = whole(f"{before}{label} hi\nAnna: and back")
    assert kept.rstrip("\r") == "Hello."
    assert (who, cut) == (name, f"{line} hi\nAnna: and back")
    assert whole(f"{label}") == ("", name, line)


@pytest.mark.parametrize(
    "text",
    [
        "I saw Ben: he ran.",
        "Hello.\nNovak: no.",
        "Hello.\nNova is here: look.",
        'Hello.\n"Ben: come here!" she called.',
        'Hello.\n"Ben": a short name.',
        "Hello.\n\u201cBen: come here!\u201d she called.",
        "Hello.\n\u300cBen: hey\u300d",
        "Hello.\n- Ben: three coins",
        "Hello.\n* Ben: three coins",
        "Hello.\nJose: no",
        "Hello.\nBen :) I missed you.",
        "Hello.\nBen:) I missed you.",
        "Hello.\nBen :D",
        "Hello.\nBen)]: no",
        "Hello.\nBen",
        "Hello.\nBen\n: hm",
        "Hello.\nBenn",
        "Hello.\n**Ben** walks in.",
        "Hello.\n*Ben",
        "Hello.\n" + " " * 17 + "Ben: far to the right",
        "Hello.\n\n",
        "\n\n\n",
        "*waves*\n*smiles* Hello\n\n**Bold.**",
        "*" * 50 + "Ben: hm",
    ],
)
def test_what_is_no_other_name_cuts_nothing(text: str) -> None:
    assert whole(text) == (text, None, "")


def test_the_own_name_wins() -> None:
    """Also where another seat, or an alias of it, is called the same."""
    names = Names(["Anna"], [("Anna", "Anna"), ("anna", "Ben"), BEN])
    assert whole("Anna: Hello.\nAnna: More.", names) == ("Hello.\nAnna: More.", None, "")
    assert whole("Anna: Ben: hi", names) == ("", "Ben", "Ben: hi")


def test_the_longest_name_is_meant() -> None:
    """Names may hold colons, blanks and marks, and may be beginnings of others."""
    names = Names(["HAL: 9000", "(Old) Anna"], [("HAL", "HAL"), ("***", "stars"), ("[Bot]", "[Bot]"), BEN, STONE])
    assert whole("HAL: 9000: Hello.", names) == ("Hello.", None, "")
    assert whole("HAL: 900 times", names) == ("", "HAL", "HAL: 900 times")
    assert whole("(Old) Anna: Hello.", names) == ("Hello.", None, "")
    assert whole("Hm.\n[Bot]: beep", names) == ("Hm.", "[Bot]", "[Bot]: beep")
    assert whole("Hm.\n***: beep", names) == ("Hm.\n***: beep", None, "")
    assert whole("Hm.\nBen Stone: hi", names)[1] == "Ben Stone"
    assert whole("Hm.\nBen St: hi", names)[1] is None
    assert whole("Anna: Hello.\nBen: hi", NOBODY) == ("Anna: Hello.\nBen: hi", None, "")


@pytest.mark.parametrize(
    ("so_far", "said", "kept", "who"),
    [
        ("I called ", "Ben: come!", "Ben: come!", None),
        ("I called", " Ben: come!", " Ben: come!", None),
        ("I called.\n", "Ben: here!", "", "Ben"),
        ("I called.\n  ", "Ben: here!", "", "Ben"),
        ("I called", ".\n\nBen: here!", ".", "Ben"),
        ("I called", "\n\nBen: here!", "", "Ben"),
        ("I walk to the", " Anna: door.", " door.", None),
        ("I walk to the", "Anna: door.", " door.", None),
        ("I walk to the ", "**Anna:** door.", "door.", None),
        ("I called.\n", "Anna: More.", "More.", None),
    ],
)
def test_the_rest_of_a_reply(so_far: str, said: str, kept: str, who: str | None) -> None:
    """A line begins where the text so far ends one; the speaker's own name is left out at the rest's beginning."""
    assert whole(said, so_far=so_far)[:2] == (kept, who)


def test_only_what_may_become_a_name_is_held() -> None:
    """Everything else goes on with the piece that it came in."""
    role = InRole(NAMES)
    assert role.feed("An") == ""
    assert role.feed("d so") == "And so"
    assert role.feed(" it was: Ben") == " it was: Ben"
    assert role.feed(".\n") == "."
    assert role.feed("B") == ""
    assert role.feed("e") == ""
    assert role.feed("e") == "\nBee"
    assert role.feed(" said\nBen Sto") == " said"
    assert role.feed("rm") == "\nBen Storm"
    assert role.feed("\n" * 3 * WHITE_HELD) == "\n" * 3 * WHITE_HELD
    assert role.feed("\n**Nova") == ""
    assert role.finish() == "\n**Nova"
    assert role.cut is None


WORDS = [
    "Anna",
    "Ben",
    "Ben Stone",
    "Benny",
    "Nova",
    "Novak",
    "小明",
    "José",
    "🦊",
    "HAL",
    "Dr. (Mad) Max",
    "*Bo*",
    "B:en",
]
PARTS = st.sampled_from([*WORDS, "\n", "\n\n", " ", ":", "：", "*", "**", "_", "[", "]", "(", ")", "\r\n", "\t", "he"])
TEXTS = st.lists(PARTS | st.text(max_size=3), max_size=25).map("".join)
A_NAME = st.sampled_from(WORDS) | st.text(min_size=1, max_size=6)


@settings(max_examples=500, deadline=None)
@given(
    text=TEXTS,
    so_far=st.sampled_from(["", "Hello", "Hello ", "Hello.\n"]),
    own=st.lists(A_NAME, min_size=1, max_size=3),
    others=st.lists(A_NAME, max_size=5),
    data=st.data(),
)
def test_pieces_change_nothing(text: str, so_far: str, own: list[str], others: list[str], data: st.DataObject) -> None:
    """However a text is split, the same stays and the same is cut; the speech is in both together, and in its order."""
    names = Names(own, [(name, name) for name in others])
    at_once = InRole(names, so_far)
    at_once.feed(text)
    at_once.finish()
    role = InRole(names, so_far)
    kept, at = "", 0
    while at < len(text):
        size = data.draw(st.integers(1, 4))
        kept += role.feed(text[at : at + size])
        assert kept == role.text
        assert at_once.text.startswith(kept)
        at += size
    kept += role.finish()
    assert (kept, role.cut) == (at_once.text, at_once.cut) == (role.text, role.cut)
    cut = role.cut.text if role.cut else ""
    assert text.endswith(cut)
    if role.cut is None and kept != text:  # then the speaker's own name stood at the beginning
        assert text.lstrip().endswith(kept.lstrip("*_[(<【［（ \t\r\n\xa0\u3000"))
    if not so_far:
        again = InRole(names)
        again.feed(kept)
        again.finish()
        assert again.cut is None


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "unit",
    ["Anna: ", "\n", "\nBen Ston", "**", "\n" + "A" * 199 + "\n", "word ", "\nx", "**Anna:** ", "\n   *", "\u3000"],
)
def test_the_time_is_that_of_reading(unit: str, size: int) -> None:
    """Twice the text takes about twice the time, whatever it is made of and however small its pieces are."""
    names = Names(["Anna"], [("A" * 200, "A"), ("A" * 100 + ":" + "A" * 99, "B"), STONE, ("*" * 150 + "x", "C")])

    def seconds(count: int) -> float:
        text = unit * (count // len(unit))
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        best = 1e9
        for _ in range(2):
            role = InRole(names)
            began = time.process_time()
            for piece in pieces:
                role.feed(piece)
            role.finish()
            best = min(best, time.process_time() - began)
        return best

    assert seconds(100_000) < 10 * seconds(25_000) + 0.05

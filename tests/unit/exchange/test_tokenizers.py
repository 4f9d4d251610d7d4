"""Exact counting: what a vocabulary counts, and what is refused as none."""

from __future__ import annotations

import json
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from roleplay import InvalidInputError, SettingsError, TokenizerCounter
from roleplay.exchange.tokenizers import PIECE_CHARS, SIZE_LIMIT

FILE = Path(__file__).parents[2] / "data" / "tokenizers" / "small_bpe.json"
COUNTER = TokenizerCounter.from_file(FILE)
# How most models' files part words: matched by stepping back, which a long run of spaces once exhausted.
USUAL = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def written(folder: Path, whole: Any) -> Path:
    """A file that holds a value as JSON, or just these bytes."""
    path = folder / "tokenizer.json"
    path.write_bytes(whole if isinstance(whole, bytes) else json.dumps(whole).encode())
    return path


def changed(**fields: Any) -> dict[str, Any]:
    """The small tokenizer with other fields."""
    whole: dict[str, Any] = json.loads(FILE.read_bytes())
    return whole | fields


def model(**fields: Any) -> dict[str, Any]:
    """The small tokenizer with other fields of its model; ``None`` takes one out."""
    fields = changed()["model"] | fields
    return changed(model={name: value for name, value in fields.items() if value is not None})


def split(pattern: str) -> dict[str, Any]:
    """The small tokenizer with another pattern that parts words."""
    parts = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [parts, letters]})


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("The river is high.", 6),
        ("The ferryman looked at the stones.", 9),
        ("今晚水很高", 1),
        ("渡りたいなら", 1),
        ("明日は晴れる", 12),
        ("🔥", 4),
        ("🔥👩\u200d👩\u200d👧", 20),
        ("\0 é\r\n\t", 7),
        ("<|im_end|>", 10),
        ("<|im_start|>user\nhi<|im_end|>", 28),
    ],
)
def test_it_counts_as_the_vocabulary_does(text: str, tokens: int) -> None:
    """The numbers are those of the library that the format comes from, but for special tokens: here they are text."""
    assert COUNTER.count(text) == tokens


def test_its_name_is_the_vocabularys(tmp_path: Path) -> None:
    """The same bytes have the same name wherever they lie, and other bytes another; a row has room for it."""
    copy = tmp_path / "of_another_name.json"
    copy.write_bytes(FILE.read_bytes())
    assert TokenizerCounter.from_file(str(copy)).name == COUNTER.name
    assert TokenizerCounter.from_file(written(tmp_path, changed(added_tokens=[]))).name != COUNTER.name
    assert len(COUNTER.name) <= 32
    assert COUNTER.exact
    assert {COUNTER: 1}[COUNTER] == 1


def test_a_long_text_is_counted_in_pieces() -> None:
    """Where there are spaces to cut before, nothing is changed by it; elsewhere it is a few tokens a cut."""
    sentence = "The ferryman looked at the river and then at the sky."
    alone, times = COUNTER.count(sentence), 2_000
    assert COUNTER.count(" ".join([sentence] * times)) == alone * times
    unbroken = "船夫看了看河水" * 10_000
    cuts = len(unbroken) // PIECE_CHARS
    assert 0 <= COUNTER.count(unbroken) - COUNTER.count("船夫看了看河水") * 10_000 <= 3 * cuts


@pytest.mark.parametrize("unit", [" ", "\n", " \n", "a", "-", "7", "船", "🔥", "The river. "])
@pytest.mark.parametrize("whole", [changed(), split(USUAL)], ids=["bytes", "usual"])
def test_huge_texts_are_counted(tmp_path: Path, whole: dict[str, Any], unit: str) -> None:
    """The longest text that a message may have costs neither the process nor much memory, whatever it is made of."""
    counter = TokenizerCounter.from_file(written(tmp_path, whole))
    text = unit * (999_999 // len(unit)) + "x"
    tracemalloc.start()
    tokens = counter.count(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < tokens <= len(text.encode())
    assert peak < 10_000_000


def test_threads_count_at_once() -> None:
    """One counter serves all threads."""
    texts = [f"{number} The river is high. 船夫看了看河水 🔥" * 50 for number in range(40)]
    alone = [COUNTER.count(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(COUNTER.count, texts)) == alone


@pytest.mark.parametrize(
    ("whole", "why"),
    [
        (b"", "is not JSON"),
        (b"\x00\xff\xfe", "is not JSON"),
        (b"[1, 2]", "no field model"),
        (b"{}", "no field model"),
        (b'{"model": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"model": {"vocab": {"a": 1}, "vocab": {}}}', "twice"),
        (changed(model=None), "no field model"),
        (model(vocab={}), "empty"),
        (model(vocab=[]), "empty"),
        (model(vocab=7), "empty"),
        (model(vocab={"<|im_end|>": 0}), "empty"),
        (changed(added_tokens={}, model={"type": "BPE", "vocab": {}, "merges": []}), "empty"),
        (changed(added_tokens=7), "empty"),
        (model(vocab={"a": "b"}), "did not match"),
        (model(merges=None), "did not match"),
        (model(type="WordPiece"), "WordPiece"),
        (model(type=["BPE"]), "BPE"),
        (model(max_input_chars_per_word=100), "BPE"),
        (model(type="Unigram", vocab=[[], ["a", -1.0]]), "tokenizer"),
        (split("(a"), "regex"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, whole: Any, why: str) -> None:
    """Each is refused before it can do harm, and the error says what may be given."""
    with pytest.raises(InvalidInputError, match=why) as caught:
        TokenizerCounter.from_file(written(tmp_path, whole))
    assert caught.value.field == "path"
    assert "tokenizer.json" in str(caught.value.allowed)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """None, a folder, or no path at all."""
    with pytest.raises(InvalidInputError, match=r"gone\.json cannot be read \(No such file"):
        TokenizerCounter.from_file(tmp_path / "gone.json")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        TokenizerCounter.from_file(tmp_path)
    with pytest.raises(InvalidInputError, match="cannot be a path"):
        TokenizerCounter.from_file("a\0b")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """It ends at the limit, however large the file is."""
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(SIZE_LIMIT * 100)
    with pytest.raises(InvalidInputError, match="too large") as caught:
        TokenizerCounter.from_file(path)
    assert "50 MB" in str(caught.value.allowed)


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, the error says what to install."""
    monkeypatch.setitem(sys.modules, "kitoken", None)
    with pytest.raises(SettingsError, match=r"pip install 'roleplay-engine\[tokens\]'"):
        TokenizerCounter.from_file(FILE)


def test_a_unigram_vocabulary_counts_too(tmp_path: Path) -> None:
    """The other kind of vocabulary, which has scores instead of merges; what it cannot write is one unknown token."""
    unknown = changed()["added_tokens"][0] | {"id": 0, "content": "<unk>"}
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    pieces = [["<unk>", 0.0], ["▁", -3.0], ["h", -4.0], ["e", -4.0], ["▁he", -1.0]]
    fields = {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": pieces}
    whole = changed(added_tokens=[unknown], pre_tokenizer=spaces, post_processor=None, decoder=spaces, model=fields)
    counter = TokenizerCounter.from_file(written(tmp_path, whole))
    assert [counter.count(text) for text in ("", "he", "he he", "hehe")] == [0, 1, 2, 3]

"""Writes small_bpe.json: a byte-level vocabulary in the format of ``tokenizer.json``, learned from the text below.

    python3 tests/data/tokenizers/make.py

The text was written for this project. The vocabulary is far too small for any model; what is counted with it is right
all the same.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

MERGES = 700
SPECIAL = ("<|im_start|>", "<|im_end|>")
TEXT = """
The ferryman looked at the river and then at the sky. "The water is high tonight," he said, "and the wind comes from
the north. If you want to cross, we should cross now." The traveler put the lamp on the bench and sat down in the boat.
"I was told that you know every stone in this river," she said. "I know where they were yesterday," said the ferryman,
and he pushed the boat away from the shore. The rain began when they were in the middle of the river. It was a quiet
rain, and for a while nobody said anything. "What is on the other side?" asked the traveler. "An inn, a bridge that
nobody has finished, and a road to the mountains. The innkeeper will ask you for news. Tell her anything, but tell it
well: she has had nothing but the weather to talk about since the autumn." The traveler laughed. "Then I will tell her
about you, and about the stones." When the boat touched the sand, the ferryman held the lamp for her and would not take
her money. "You can pay me on the way back," he said. "Everybody comes back this way."
船夫看了看河水，又看了看天色。“今晚水很高，”他说，“风从北边来。你要过河，我们就得现在走。”旅人把灯放在船上，坐了下来。
“他们告诉我，这条河里的每一块石头你都知道。”她说。“我知道它们昨天在哪里。”船夫说着，把船推离了岸边。船到河中间的时候，下起了雨。
雨很安静，有一会儿谁也没有说话。“河的那一边有什么？”旅人问。“有一家客店，一座没有修好的桥，还有一条上山的路。”
船夫は川を見て、それから空を見た。「今夜は水が高い」と彼は言った。「風は北から吹いている。渡りたいなら、今渡ったほうがいい。」
旅人は灯りを船に置いて、座った。「この川の石はみんな知っていると聞きました」と彼女は言った。「昨日どこにあったかは知っている」と
船夫は言って、船を岸から押し出した。川の真ん中で雨が降り始めた。静かな雨で、しばらくは誰も何も言わなかった。
"""


def letters() -> dict[int, str]:
    """Give the visible character that stands for each byte in files of this format."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(rest)}


def learn(text: str, count: int) -> list[tuple[str, str]]:
    """Join the most frequent pair within words again and again; of equal ones, the first in the alphabet."""
    sign = letters()
    words = Counter(re.findall(r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+|\s+", text))
    parts = {word: [sign[byte] for byte in word.encode()] for word in words}
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in zip(parts[word], parts[word][1:], strict=False):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        parts = {word: joined(signs, best) for word, signs in parts.items()}
    return merges


def joined(signs: list[str], pair: tuple[str, str]) -> list[str]:
    """Give a word with each such pair as one part."""
    out: list[str] = []
    for one in signs:
        if out and (out[-1], one) == pair and len(out[-1]) == len(pair[0]):
            out[-1] += one
        else:
            out.append(one)
    return out


def main() -> None:
    """Write the file."""
    merges = learn(TEXT, MERGES)
    tokens = dict.fromkeys([*letters().values(), *("".join(pair) for pair in merges)])
    vocab = {token: number for number, token in enumerate(tokens)}
    bytes_as_letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": len(vocab) + place, "content": one} | flags for place, one in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": bytes_as_letters,
        "post_processor": bytes_as_letters,
        "decoder": bytes_as_letters,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocab,
            "merges": [" ".join(pair) for pair in merges],
        },
    }
    path = Path(__file__).with_name("small_bpe.json")
    path.write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the comparison of contexts found, for a terminal and for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common import HUMAN, LONG_REPLY, markdown, plain

SPOKEN_BYTES = len(HUMAN.encode()) + len(LONG_REPLY.encode())
GROWTH_TARGET = 2 * SPOKEN_BYTES + 2_048


@dataclass(frozen=True)
class Outcome:
    """What one run of this program found."""

    machine: str
    filesystem: str
    versions: dict[str, str]
    spoken_bytes: int
    costs: list[dict[str, Any]]
    left_out: list[str]


HEAD = ["history", "side", "turns", "wall, median", "wall, p95", "CPU", "growth", "of text", "written", "rows", "read",
        "counted", "request", "messages", "journal, synchronous"]  # fmt: skip


def _length(one: dict[str, Any]) -> str:
    return f"{one['messages']:,}" + (f" beside {one['beside']:,}" if one["beside"] else "")


def rows(found: Outcome, only: int | None = None) -> list[list[str]]:
    """Give the rows of the table, or those of one length alone; times in milliseconds."""
    return [
        [
            _length(one),
            one["side"],
            str(one["turns"]),
            *(f"{one[name]:,.2f}" for name in ("wall_median_ms", "wall_p95_ms", "cpu_ms")),
            f"{one['growth_bytes']:,.0f}",
            f"{one['growth_of_text']:.2f}",
            *(f"{one[name]:,.0f}" for name in ("written_bytes", "rows", "read_bytes", "tokens_counted")),
            f"{one['request_bytes']:,.0f}",
            f"{one['request_messages']:,.0f}",
            one["settings"],
        ]
        for one in found.costs
        if only is None or (one["messages"] == only and not one["beside"])
    ]


def by_length(found: Outcome) -> tuple[list[str], list[list[str]]]:
    """Give a table of times: a row for each side, a column for each length."""
    cells = {(one["side"], _length(one)): one for one in found.costs}
    lengths, sides = (list(dict.fromkeys(key[place] for key in cells)) for place in (1, 0))

    def cell(side: str, length: str) -> str:
        one = cells.get((side, length))
        return f"{one['wall_median_ms']:,.1f} / {one['cpu_ms']:,.1f}" if one else ""

    return ["wall / CPU, ms", *lengths], [[side, *(cell(side, length) for length in lengths)] for side in sides]


def show_page(found: Outcome) -> None:
    """Print an outcome for a page: times by length, and everything at the length that most sides could stand."""
    lengths = [one["messages"] for one in found.costs if not one["beside"]]
    chosen = max(lengths, key=lambda length: (lengths.count(length), length))
    print(f"{told(found)}\n\n{markdown(*by_length(found))}\n\nAt {chosen:,} messages, a turn:\n")
    head, *lines = ([row[1], *row[3:]] for row in (HEAD, *rows(found, chosen)))
    print(f"{markdown(head, lines)}\n")
    show_verdict(found)


def show(found: Outcome) -> None:
    """Print an outcome for a terminal."""
    print(f"{told(found)}\ntimes in milliseconds, the rest in bytes, rows and tokens a turn\n")
    print(f"{plain(HEAD, rows(found))}\n")
    show_verdict(found)


def told(found: Outcome) -> str:
    """Say what was measured and where."""
    where = f"{found.machine}; databases on {found.filesystem}; {found.spoken_bytes:,} bytes are said in a turn"
    return f"{where}\n{', '.join(f'{name} {version}' for name, version in found.versions.items())}"


def show_verdict(found: Outcome) -> None:
    """Print what was left out, and whether we keep to what we promise."""
    for line in found.left_out:
        print(f"left out: {line}")
    ours = [one for one in found.costs if one["side"] == "ours"]
    most = max(one["growth_bytes"] for one in ours)
    print(f"\nours grows by at most {most:,.0f} bytes a turn: ", end="")
    print(f"{'within' if most <= GROWTH_TARGET else 'ABOVE'} twice the text and 2 KB, {GROWTH_TARGET:,}")
    floor = {_length(one): one for one in found.costs if one["side"] == "floor"}
    for name, what in (("wall_median_ms", "wall"), ("cpu_ms", "CPU")):
        ratios = (f"{one[name] / floor[_length(one)][name]:.2f} at {_length(one)}" for one in ours)
        print(f"{what}, ours to floor: {', '.join(ratios)}")
        for one in ours:
            there = [other for other in found.costs if _length(other) == _length(one)]
            others = [other for other in there if other["side"] not in {"ours", "floor"}]
            if others:
                times = ", ".join(f"{other['side']} {other[name] / one[name]:.2f}" for other in others)
                print(f"{what}, others to ours at {_length(one)}: {times}")

"""Example dialogues that do not all fit: whole ones, chosen by a policy when an epoch of the context begins."""

from __future__ import annotations

import re
from collections import Counter as Bag
from collections.abc import Sequence
from math import log
from typing import NamedTuple

from roleplay.context.draws import EXAMPLES, Draws
from roleplay.domain.settings import ExamplePolicy

FADE_STEPS = 4
_EAST = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_TERM = re.compile(f"{_EAST.pattern}|(?:(?!{_EAST.pattern})[^\\W\\d_]){{4,}}")


class Rule(NamedTuple):
    """How dialogues are chosen: the policy, and what its draws are made from: a seed, or the draws of a turn, which are
    kept, for the dialogues of a ``subject``."""

    policy: ExamplePolicy = "keep"
    seed: str = ""
    draws: Draws | None = None
    subject: str = ""


class Choice(NamedTuple):
    """Which dialogues of a persona are in, for an epoch: their places, how far they have faded, and the digest of what
    they were chosen from and how. Another digest means that there is nothing to go on with."""

    kept: tuple[int, ...]
    step: int
    digest: str

    def written(self) -> str:
        """Give the choice as a path hands it on."""
        mask = sum(1 << place for place in self.kept)
        return f"{self.digest}:{self.step}:{mask:x}"


def read_choice(written: str, count: int) -> Choice | None:
    """Read a choice back; ``None`` for what is none of ours. Never raises."""
    parts = written.split(":")
    try:
        digest, step, mask = parts[0], int(parts[1]), int(parts[2], 16)
    except (ValueError, IndexError):
        return None
    return Choice(tuple(place for place in range(count) if mask >> place & 1), step, digest)


def choose(
    rule: Rule,
    costs: Sequence[int],
    share: int,
    *,
    step: int,
    epoch: int,
    texts: Sequence[str],
    newest: str,
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Choose the dialogues whose ``costs`` together are at most ``share`` tokens; gives their places in order, and why
    each is in or out.

    ``keep`` takes them in the persona's order, ``relevant`` those first that share most words with ``newest``,
    ``random`` in an order that is drawn for the answer to the message ``epoch``. ``fade`` is ``keep`` with a quarter
    less of the share at each step.
    """
    room = share * max(FADE_STEPS - step, 0) // FADE_STEPS if rule.policy == "fade" else share
    order, why = list(range(len(costs))), [""] * len(costs)
    if rule.policy == "relevant":
        scores = relevance(texts, newest)
        order.sort(key=lambda place: -scores[place])
        why = [f", relevance {score:.2f}" for score in scores]
    elif rule.policy == "random":
        order = (rule.draws or Draws(rule.seed)).order(EXAMPLES, rule.subject, len(costs), answered=epoch)
        why = [f", drawn as number {order.index(place) + 1}" for place in range(len(costs))]
    elif step and rule.policy == "fade":
        why = [f", faded by {min(step, FADE_STEPS)} of {FADE_STEPS} steps"] * len(costs)
    kept, left = set(), room
    reasons = [""] * len(costs)
    for place in order:
        if costs[place] <= left:
            kept.add(place)
            reasons[place] = f"fits{why[place]}"
            left -= costs[place]
        else:
            reasons[place] = f"needs {costs[place]} tokens, {left} of {room} are left{why[place]}"
    return tuple(sorted(kept)), tuple(reasons)


def relevance(texts: Sequence[str], newest: str) -> list[float]:
    """Give for each text how much of ``newest`` it takes up: from 0 to 1, rare words counting more.

    Words of four letters and more count, and pairs of characters where a script has no words.
    """
    wanted = _terms(newest)
    found = [_terms(one) for one in texts]
    weight = {term: log(1 + len(texts) / (1 + sum(term in one for one in found))) for term in wanted}
    whole = sum(weight.values())
    return [sum(weight[term] for term in wanted if term in one) / whole if whole else 0.0 for one in found]


def _terms(text: str) -> Bag[str]:
    parts = [part.casefold() for part in _TERM.findall(text)]
    pairs = [a + b if _EAST.match(b) else a for a, b in zip(parts, [*parts[1:], ""], strict=False) if _EAST.match(a)]
    return Bag([part for part in parts if not _EAST.match(part)] + pairs)

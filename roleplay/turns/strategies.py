"""The strategies that say who of several seats of the model's speaks next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from roleplay.domain.cast import SpeakingMoment, Strategy
from roleplay.domain.conversation import Participant
from roleplay.turns.mentions import mentioned


def natural(moment: SpeakingMoment) -> Sequence[int]:
    """Those who are mentioned, in the order in which they are; then, in an order by chance, each as likely as it is
    talkative. Where that is nobody, one by chance of those who are talkative at all; to a whisper, of all."""
    free = moment.free
    called = mentioned(moment.text, free, moment.present)
    shuffled = sorted(free, key=lambda one: (moment.draw(f"place of {one.seat}"), one.seat))
    drawn = [one.seat for one in shuffled if _speaks(moment, one)]
    # A whisper is to those who hear it, the silent ones too.
    return list(dict.fromkeys((*called, *drawn))) or _one(
        moment, [one for one in free if one.talkativeness > 0] or (free if moment.whispered else [])
    )


def _speaks(moment: SpeakingMoment, one: Participant) -> bool:
    return 0 < one.talkativeness >= moment.draw(f"talk of {one.seat}")


def in_order(moment: SpeakingMoment) -> Sequence[int]:
    """Every seat once, in the order of seats."""
    return [one.seat for one in moment.free]


def pooled(moment: SpeakingMoment) -> Sequence[int]:
    """One by chance of those who have not spoken since a human did; once all have, one of all."""
    free = moment.free
    return _one(moment, [one for one in free if one.seat not in moment.spoken] or free)


def round_robin(moment: SpeakingMoment) -> Sequence[int]:
    """Every seat once, in the order of seats, beginning behind the one that spoke last."""
    free, last = moment.free, moment.last
    if last is None:
        return [one.seat for one in free]
    # One that has left is behind those who came before it: seats are numbered as they come.
    place = next((_place(one) for one in moment.present if one.seat == last), (last, last))
    behind = [one.seat for one in free if _place(one) > place]
    return [*behind, *(one.seat for one in free if one.seat not in behind)]


def _place(one: Participant) -> tuple[int, int]:
    return one.order, one.seat


def manual(moment: SpeakingMoment) -> Sequence[int]:
    """Nobody answers a line; where somebody is to speak and nobody is named, one by chance."""
    return [] if moment.asked else _one(moment, moment.free)


def _one(moment: SpeakingMoment, seats: Iterable[Participant]) -> list[int]:
    """Draw one of some seats, each as likely as any other."""
    return [one.seat for one in sorted(seats, key=lambda one: (moment.draw(f"turn of {one.seat}"), one.seat))[:1]]


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {"natural": natural, "list": in_order, "pooled": pooled, "round_robin": round_robin, "manual": manual}
)

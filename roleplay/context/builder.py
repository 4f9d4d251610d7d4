"""Building a context: who claims the budget in which order, what is kept, what is dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from roleplay.context.counting import Counter
from roleplay.context.emit import emit
from roleplay.context.sheet import Rendered, Sheet, message_tokens, total
from roleplay.context.window import first_kept
from roleplay.domain.context import (
    ContextMessage,
    ContextReport,
    DialectDemands,
    Insertion,
    Line,
    Recipe,
    Section,
    SectionReport,
    Span,
)
from roleplay.domain.settings import REQUIRED
from roleplay.errors import BudgetError

NOTE_DEPTH = 1
EXAMPLES_SHARE = 0.5
EXAMPLES_PRIORITY = 50


Label = tuple[Section, str]
"""What claims: a section, and of facts which one."""
_ORDER = {section: place for place, section in enumerate(Section)}


class PlacedFact(NamedTuple):
    """A fact as it will be sent, with its place and its rank."""

    rendered: Rendered
    name: str
    depth: int | None
    priority: int


class Claimed(NamedTuple):
    """What became of a section's claim. Tokens and items."""

    required: bool
    claimed: tuple[int, int]
    kept: tuple[int, int]
    reason: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A context that was built: its messages, the recipe and texts to rebuild it from, and how its budget was claimed.

    ``window_start`` is the ``seq`` that the history window starts at, 0 while it reaches back to the beginning;
    ``moved`` says that it moved with this context.
    """

    messages: list[ContextMessage]
    recipe: Recipe
    texts: dict[str, str]
    claims: dict[Label, Claimed]
    budget_tokens: int
    prompt_tokens: int
    overhead_tokens: int
    counter: Counter
    window_start: int
    moved: bool

    @property
    def report(self) -> ContextReport:
        """The claims as a value, for those who ask."""
        return ContextReport(
            budget_tokens=self.budget_tokens,
            prompt_tokens=self.prompt_tokens,
            overhead_tokens=self.overhead_tokens,
            counter=self.counter.name,
            counting="exact" if self.counter.exact else "estimated",
            sections=tuple(_told(label, self.claims[label]) for label in sorted(self.claims, key=_in_order)),
            window_start=self.recipe.history.first,
            new_epoch=self.moved,
        )


def _in_order(label: Label) -> int:
    return _ORDER[label[0]]


def _written(label: Label) -> str:
    section, name = label
    return f"{section.value} {name}" if name else section.value


def _told(label: Label, claim: Claimed) -> SectionReport:
    return SectionReport(
        section=_written(label),
        required=claim.required,
        claimed_tokens=claim.claimed[0],
        kept_tokens=claim.kept[0],
        dropped_tokens=claim.claimed[0] - claim.kept[0],
        claimed_items=claim.claimed[1],
        kept_items=claim.kept[1],
        reason=claim.reason,
    )


def build(
    sheet: Sheet,
    lines: Sequence[Line],
    *,
    hidden: Sequence[int] = (),
    facts: Sequence[PlacedFact] = (),
    budget_tokens: int,
    window_start: int,
    counter: Counter,
    demands: DialectDemands,
) -> Draft:
    """Build the context whose newest line is the last of ``lines`` (oldest first, back to ``window_start`` or to where
    they exceed the budget); there may be none. ``hidden`` are the messages between them that are left out.

    Claim order: the dialect's fixed cost, system, user persona, scene, newest line and required facts; then the
    post-history instruction, the note, other facts and example dialogues by priority, the latter whole and in at most
    half of what is left; then history, newest first, contiguous, whole turns.

    Raises ``BudgetError`` when what is required does not fit.
    """
    ledger = _Ledger(budget_tokens, demands.fixed_tokens)
    past, newest = lines[:-1], lines[-1:]
    beside = {name: message_tokens(0, name, counter, demands) for name in {line.name for line in lines}}
    costs = [line.tokens + beside[line.name] for line in lines]
    for piece in sheet.front:
        ledger.require((piece.section, ""), piece.tokens)
    if newest:
        ledger.require((Section.NEWEST, ""), costs[-1])
    for piece in sheet.wish:
        ledger.require((piece.section, ""), piece.tokens)
    for fact in facts:
        if fact.priority == REQUIRED:
            ledger.require((Section.FACT, fact.name), fact.rendered.tokens)
    ledger.check_required()
    post = ledger.take((Section.POST_HISTORY, ""), sheet.post_history)
    note = ledger.take((Section.NOTE, ""), sheet.note)
    ranked = sorted(facts, key=lambda fact: -fact.priority)
    told = {fact.name for fact in ranked if fact.priority > EXAMPLES_PRIORITY and ledger.take_fact(fact)}
    examples = ledger.take_dialogues(sheet.examples)
    told |= {fact.name for fact in ranked if fact.priority <= EXAMPLES_PRIORITY and ledger.take_fact(fact)}
    leading = [fact.rendered for fact in facts if fact.depth is None and fact.name in told]
    among = [(fact.depth, fact.rendered) for fact in facts if fact.depth is not None and fact.name in told]
    among += [(NOTE_DEPTH, one) for one in note]
    front = [*sheet.front[:1], *leading, *sheet.front[1:], *examples]
    first = ledger.take_history(past, costs[:-1])
    kept = [*past[first:], *newest]
    begin, end = (kept[0].seq, kept[-1].seq) if kept else (0, 0)
    moved = first > 0
    recipe = Recipe(
        front=tuple(one.piece for one in front),
        history=Span(begin, end, sheet.seat, tuple(seq for seq in hidden if seq > begin)),
        insertions=tuple(Insertion(depth, one.piece) for depth, one in among),
        tail=tuple(one.piece for one in (*sheet.wish, *post)),
    )
    inserted = [one for _, one in among]
    texts = {one.piece.digest: one.text for one in (*front, *inserted, *sheet.wish, *post)}
    return Draft(
        messages=emit(recipe, texts, kept),
        recipe=recipe,
        texts=texts,
        claims=ledger.claims,
        budget_tokens=budget_tokens,
        prompt_tokens=budget_tokens - ledger.left,
        overhead_tokens=demands.fixed_tokens,
        counter=counter,
        window_start=begin if moved else window_start,
        moved=moved,
    )


class _Ledger:
    """The budget while it is being claimed, and what became of each claim."""

    def __init__(self, budget_tokens: int, fixed_tokens: int) -> None:
        self.budget = budget_tokens
        self.fixed = fixed_tokens
        self.left = budget_tokens - fixed_tokens
        self.claims: dict[Label, Claimed] = {}

    def require(self, label: Label, tokens: int) -> None:
        self.left -= tokens
        before = self.claims.get(label)
        whole = (tokens, 1) if before is None else (before.claimed[0] + tokens, before.claimed[1] + 1)
        self.claims[label] = Claimed(required=True, claimed=whole, kept=whole, reason="required")

    def check_required(self) -> None:
        if self.left < 0:
            needed = {_written(label): one.claimed[0] for label, one in self.claims.items()}
            raise BudgetError({"overhead": self.fixed} | needed, self.budget)

    def take(self, label: Label, piece: Rendered | None) -> tuple[Rendered, ...]:
        if piece is None:
            return ()
        fits = piece.tokens <= self.left
        kept = piece.tokens if fits else 0
        self.left -= kept
        reason = "fits" if fits else f"needs {piece.tokens} tokens, {self.left} are left"
        self.claims[label] = Claimed(required=False, claimed=(piece.tokens, 1), kept=(kept, int(fits)), reason=reason)
        return (piece,) if fits else ()

    def take_fact(self, fact: PlacedFact) -> bool:
        """Whether a fact is in; a required one was claimed before."""
        required = fact.priority == REQUIRED
        return required or bool(self.take((Section.FACT, fact.name), fact.rendered))

    def take_dialogues(self, dialogues: Sequence[Sequence[Rendered]]) -> list[Rendered]:
        if not dialogues:
            return []
        share = room = int(self.left * EXAMPLES_SHARE)
        kept: list[Rendered] = []
        taken = 0
        for dialogue in dialogues:
            if (cost := total(dialogue)) <= room:
                room -= cost
                taken += 1
                kept.extend(dialogue)
        self.left -= share - room
        everything = taken == len(dialogues)
        reason = "fits" if everything else f"dialogues go in whole; together they may have {share} tokens"
        claimed = sum(total(dialogue) for dialogue in dialogues), len(dialogues)
        self.claims[Section.EXAMPLES, ""] = Claimed(
            required=False, claimed=claimed, kept=(share - room, taken), reason=reason
        )
        return kept

    def take_history(self, past: Sequence[Line], costs: Sequence[int]) -> int:
        if not past:
            return 0
        first = first_kept(past, costs, self.left)
        kept = sum(costs[first:])
        reason = "fits" if first == 0 else f"{self.left} tokens were left; older turns make room in chunks"
        self.left -= kept
        self.claims[Section.HISTORY, ""] = Claimed(
            required=False, claimed=(sum(costs), len(past)), kept=(kept, len(past) - first), reason=reason
        )
        return first

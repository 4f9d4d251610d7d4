"""Building a context: who claims the budget in which order, what is kept, what is dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    Piece,
    Recipe,
    Section,
    SectionReport,
    Span,
    digest,
)
from roleplay.errors import BudgetError

NOTE_DEPTH = 1
EXAMPLES_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Draft:
    """A context that was built: its messages, the recipe and texts to rebuild it from, its report.

    ``window_start`` is the ``seq`` that the history window starts at, 0 while it reaches back to the beginning.
    """

    messages: list[ContextMessage]
    recipe: Recipe
    texts: dict[str, str]
    report: ContextReport
    window_start: int


def build(
    sheet: Sheet,
    lines: Sequence[Line],
    *,
    hidden: Sequence[int] = (),
    budget_tokens: int,
    window_start: int,
    counter: Counter,
    demands: DialectDemands,
) -> Draft:
    """Build the context whose newest line is the last of ``lines`` (oldest first, back to ``window_start`` or to where
    they exceed the budget). ``hidden`` are the messages between them that are left out.

    Claim order: the dialect's fixed cost, system, user persona, scene and newest line, which are required; then the
    post-history instruction and the note; then example dialogues, whole, in at most half of what is left; then history,
    newest first, contiguous, whole turns.

    Raises ``BudgetError`` when what is required does not fit.
    """
    ledger = _Ledger(budget_tokens, demands.fixed_tokens)
    *past, newest = lines
    costs = [message_tokens(line.tokens, line.name, counter, demands) for line in lines]
    for piece in sheet.front:
        ledger.require(piece.section, piece.tokens)
    ledger.require(Section.NEWEST, costs[-1])
    for piece in sheet.wish:
        ledger.require(piece.section, piece.tokens)
    ledger.check_required()
    post = ledger.take(Section.POST_HISTORY, sheet.post_history)
    note = ledger.take(Section.NOTE, sheet.note)
    examples = ledger.take_dialogues(sheet.examples)
    first = ledger.take_history(past, costs[:-1])
    kept = [*past[first:], newest]
    moved = first > 0
    texts = {digest(piece.text): piece.text for piece in (*sheet.front, *examples, *note, *sheet.wish, *post)}
    recipe = Recipe(
        front=tuple(_piece(piece) for piece in (*sheet.front, *examples)),
        history=Span(kept[0].seq, newest.seq, sheet.seat, tuple(seq for seq in hidden if seq > kept[0].seq)),
        insertions=tuple(Insertion(NOTE_DEPTH, _piece(piece)) for piece in note),
        tail=tuple(_piece(piece) for piece in (*sheet.wish, *post)),
    )
    report = ContextReport(
        budget_tokens=budget_tokens,
        prompt_tokens=budget_tokens - ledger.left,
        overhead_tokens=demands.fixed_tokens,
        counter=counter.name,
        counting="exact" if counter.exact else "estimated",
        sections=tuple(ledger.reports[section] for section in Section if section in ledger.reports),
        window_start=kept[0].seq,
        new_epoch=moved,
    )
    start = kept[0].seq if moved else window_start
    return Draft(emit(recipe, texts, kept), recipe, texts, report, start)


def _piece(piece: Rendered) -> Piece:
    return Piece(piece.section.value, piece.role.value, piece.name, digest(piece.text))


class _Ledger:
    """The budget while it is being claimed, and what became of each claim."""

    def __init__(self, budget_tokens: int, fixed_tokens: int) -> None:
        self.budget = budget_tokens
        self.fixed = fixed_tokens
        self.left = budget_tokens - fixed_tokens
        self.reports: dict[Section, SectionReport] = {}

    def require(self, section: Section, tokens: int) -> None:
        self.left -= tokens
        before = self.reports.get(section)
        if before is not None:
            tokens += before.claimed_tokens
        items = 1 if before is None else before.claimed_items + 1
        self._report(section, (tokens, items), (tokens, items), "required", required=True)

    def check_required(self) -> None:
        if self.left < 0:
            needed = {section.value: one.claimed_tokens for section, one in self.reports.items()}
            raise BudgetError({"overhead": self.fixed} | needed, self.budget)

    def take(self, section: Section, piece: Rendered | None) -> tuple[Rendered, ...]:
        if piece is None:
            return ()
        fits = piece.tokens <= self.left
        kept = piece.tokens if fits else 0
        self.left -= kept
        reason = "fits" if fits else f"needs {piece.tokens} tokens, {self.left} are left"
        self._report(section, (piece.tokens, 1), (kept, int(fits)), reason)
        return (piece,) if fits else ()

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
        claimed = sum(total(dialogue) for dialogue in dialogues)
        self._report(Section.EXAMPLES, (claimed, len(dialogues)), (share - room, taken), reason)
        return kept

    def take_history(self, past: Sequence[Line], costs: Sequence[int]) -> int:
        if not past:
            return 0
        first = first_kept(past, costs, self.left)
        kept = sum(costs[first:])
        reason = "fits" if first == 0 else f"{self.left} tokens were left; older turns make room in chunks"
        self.left -= kept
        self._report(Section.HISTORY, (sum(costs), len(past)), (kept, len(past) - first), reason)
        return first

    def _report(
        self,
        section: Section,
        claimed: tuple[int, int],
        kept: tuple[int, int],
        reason: str,
        *,
        required: bool = False,
    ) -> None:
        self.reports[section] = SectionReport(
            section=section.value,
            required=required,
            claimed_tokens=claimed[0],
            kept_tokens=kept[0],
            dropped_tokens=claimed[0] - kept[0],
            claimed_items=claimed[1],
            kept_items=kept[1],
            reason=reason,
        )

"""Building a context: who claims the budget in which order, what is kept, what is dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from roleplay.context.emit import emit
from roleplay.context.examples import Choice, Rule, choose, read_choice
from roleplay.context.pricing import Prices
from roleplay.context.sheet import Rendered, Sheet
from roleplay.context.window import Marks, first_kept, turn_start
from roleplay.domain.context import (
    ContextMessage,
    ContextReport,
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
ORDER = {section: place for place, section in enumerate(Section)}


class PlacedFact(NamedTuple):
    """A fact as it will be sent, with its place and its rank; ``changes``: it says the time."""

    rendered: Rendered
    name: str
    depth: int | None
    priority: int
    changes: bool = False


class Rules(NamedTuple):
    """What a context must keep to: its budget, the marks of its window, how example dialogues are chosen. ``room``: the
    tokens that the model's window could hold beside the budget."""

    budget_tokens: int
    marks: Marks = Marks()
    examples: Rule = Rule()
    room: int = 0


class Inherited(NamedTuple):
    """What the path hands on for a seat: where its window starts (0: at the beginning), which dialogues are in (as a
    choice is written), and whether there was a context before at all."""

    start: int = 0
    examples: str = ""
    begun: bool = False


FIRST = Inherited()


class Claimed(NamedTuple):
    """What became of a section's claim. Tokens and items."""

    required: bool
    claimed: tuple[int, int]
    kept: tuple[int, int]
    reason: str
    unshared: int = 0
    details: tuple[str, ...] = ()


class Load(NamedTuple):
    """What a request holds, as a counter saw it: what the service's report of its prompt is compared with."""

    narrow: float
    wide: float
    messages: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A context that was built: its messages, the recipe and texts to rebuild it from, and how its budget was claimed.

    ``window_start`` is the ``seq`` that the history window starts at, 0 while it reaches back to the beginning;
    ``examples`` is the choice of dialogues, as a path hands it on; ``moved`` says that an epoch begins with this
    context. ``foreign`` are the lines that another counter counted. ``room`` is that of the rules, where something was
    left out.
    """

    messages: list[ContextMessage]
    recipe: Recipe
    texts: dict[str, str]
    claims: dict[Label, Claimed]
    budget_tokens: int
    prompt_tokens: int
    load: Load
    prices: Prices = field(compare=False)
    window_start: int
    examples: str
    moved: bool
    foreign: tuple[Line, ...]
    room: int

    @property
    def report(self) -> ContextReport:
        """The claims as a value, for those who ask."""
        counter = self.prices.counter
        return ContextReport(
            budget_tokens=self.budget_tokens,
            prompt_tokens=self.prompt_tokens,
            overhead_tokens=self.prices.fixed,
            counter=counter.name,
            counting="exact" if counter.exact and not self.foreign else "estimated",
            calibrated=self.prices.calibrated,
            foreign_counts=len(self.foreign),
            sections=tuple(_told(label, self.claims[label]) for label in sorted(self.claims, key=_in_order)),
            window_start=self.recipe.history.first,
            new_epoch=self.moved,
            room_tokens=self.room,
        )


def _in_order(label: Label) -> int:
    return ORDER[label[0]]


def section_name(label: Label) -> str:
    """Give a section's name as reports and errors write it."""
    section, name = label
    return f"{section.value} {name}" if name else section.value


def _told(label: Label, claim: Claimed) -> SectionReport:
    return SectionReport(
        section=section_name(label),
        required=claim.required,
        claimed_tokens=claim.claimed[0],
        kept_tokens=claim.kept[0],
        dropped_tokens=claim.claimed[0] - claim.kept[0],
        claimed_items=claim.claimed[1],
        kept_items=claim.kept[1],
        reason=claim.reason,
        unshared_tokens=claim.unshared,
        details=claim.details,
    )


def build(
    sheet: Sheet,
    lines: Sequence[Line],
    *,
    skipped: Sequence[int] = (),
    passed_over: int = 0,
    facts: Sequence[PlacedFact] = (),
    opening: Rendered | None = None,
    rules: Rules,
    inherited: Inherited = FIRST,
    prices: Prices,
) -> Draft:
    """Build the context whose newest line is the last of ``lines`` (oldest first, back to where the inherited window
    starts or to where they exceed the budget); there may be none. ``skipped`` says of each how many hidden messages lie
    between it and the path's end (empty: none); after ``passed_over`` of them, if any, nothing older was read.
    ``opening`` goes in where the first line that is kept is the speaker's own.

    Claim order: the request's fixed cost, system, user persona, scene, opening, newest line and required facts; then
    the post-history instruction, the note, other facts and example dialogues by priority, the latter whole and in at
    most half of what is left; then history, newest first, contiguous, whole turns.

    Which dialogues are in is decided when an epoch begins: with the first context, when the window moves, when those
    that were in do not fit any more, or when the persona has others.

    Raises ``BudgetError`` when what is required does not fit.
    """
    ledger = _Ledger(rules.budget_tokens, prices)
    # The newest line, or all of the turn that was said last, where nobody asks for the next: turns are kept whole.
    cut = turn_start(lines, len(lines) - 1) if lines else 0
    past, newest = lines[:cut], lines[cut:]
    costs, sizes = prices.lines(lines)
    for piece in sheet.front:
        ledger.require((piece.section, ""), ledger.cost(piece))
    if opening is not None:  # whether it goes in or not, so that the window does not depend on it
        ledger.require((Section.OPENING, ""), ledger.cost(opening))
    for cost in costs[cut:]:
        ledger.require((Section.NEWEST, ""), cost)
    for piece in sheet.wish:
        ledger.require((piece.section, ""), ledger.cost(piece))
    for fact in facts:
        if fact.priority == REQUIRED:
            ledger.require((Section.FACT, fact.name), ledger.cost(fact.rendered))
    ledger.check_required()
    post = ledger.take((Section.POST_HISTORY, ""), sheet.post_history)
    note = ledger.take((Section.NOTE, ""), sheet.note)
    ranked = sorted(facts, key=lambda fact: -fact.priority)
    told = {fact.name for fact in ranked if fact.priority > EXAMPLES_PRIORITY and ledger.take_fact(fact)}
    rest = _Rest(sheet, past, costs[:cut], newest, ranked, rules, inherited, passed_over)
    ledger, filled = rest.fill(ledger)
    told |= filled.told
    kept_facts = [fact for fact in facts if fact.name in told]
    leading = [fact.rendered for fact in kept_facts if fact.depth is None]
    among = [(fact.depth, fact.rendered) for fact in kept_facts if fact.depth is not None]
    among += [(NOTE_DEPTH, one) for one in note]
    kept = [*past[filled.first :], *newest]
    opened = ledger.settle_opening(opening, needed=bool(kept) and kept[0].seat == sheet.seat)
    front = [*sheet.front[:1], *leading, *sheet.front[1:], *filled.examples, *opened]
    begin, end = (kept[0].seq, kept[-1].seq) if kept else (0, 0)
    recipe = Recipe(
        front=tuple(one.piece for one in front),
        history=Span(begin, end, sheet.seat, runs=_runs(skipped[filled.first :])),
        insertions=tuple(Insertion(depth, one.piece) for depth, one in among),
        tail=tuple(one.piece for one in (*sheet.wish, *post)),
    )
    pieces = [*front, *(one for _, one in among), *sheet.wish, *post]
    if among or leading:
        ledger.tell_unshared(kept_facts, note, costs[filled.first :], front[1:])
    texts = {one.piece.digest: one.text for one in pieces}
    counter = prices.counter.name
    window_start = begin if filled.first > 0 else inherited.start
    is_short = window_start > 0 or any(one.kept[0] < one.claimed[0] for one in ledger.claims.values())
    return Draft(
        messages=emit(recipe, texts, kept),
        recipe=recipe,
        texts=texts,
        claims=ledger.claims,
        budget_tokens=rules.budget_tokens,
        prompt_tokens=rules.budget_tokens - ledger.left,
        load=_load(pieces, sizes[filled.first :], prices),
        prices=prices,
        window_start=window_start,
        examples=filled.choice.written() if filled.choice else "",
        moved=filled.first > 0 or filled.chosen,
        foreign=tuple([line for line in kept if line.counter != counter]),
        room=rules.room if is_short else 0,
    )


def _runs(skipped: Sequence[int]) -> tuple[int, ...]:
    """Give how many messages were skipped, kept, skipped, kept and so on, from the newest that is kept back to the
    oldest."""
    if not skipped or skipped[0] == skipped[-1]:
        return ()
    runs, before = [0, 0], skipped[-1]
    for count in reversed(skipped):
        if count != before:
            runs += [count - before, 0]
            before = count
        runs[-1] += 1
    return tuple(runs)


def _load(pieces: Sequence[Rendered], sizes: Sequence[tuple[float, float]], prices: Prices) -> Load:
    narrow, wide = map(sum, zip(*sizes, strict=True)) if sizes else (0.0, 0.0)
    for piece in pieces:
        _, named = prices.beside(piece.piece.name)
        narrow += piece.size.narrow + named.narrow
        wide += piece.size.wide + named.wide
    return Load(narrow, wide, len(pieces) + len(sizes))


class _Filled(NamedTuple):
    """What went in behind the sections of higher priority; ``chosen``: dialogues were chosen anew in a conversation
    that had others."""

    examples: list[Rendered]
    told: set[str]
    first: int
    choice: Choice | None
    chosen: bool


class _Rest(NamedTuple):
    """Everything that may have what the sections of higher priority left."""

    sheet: Sheet
    past: Sequence[Line]
    costs: Sequence[int]
    newest: Sequence[Line]
    ranked: Sequence[PlacedFact]
    rules: Rules
    inherited: Inherited
    passed_over: int

    def fill(self, ledger: _Ledger) -> tuple[_Ledger, _Filled]:
        """Claim for dialogues, facts of lower priority and history; gives the ledger with their claims."""
        prices = [sum(map(ledger.cost, dialogue)) for dialogue in self.sheet.examples]
        if not prices:
            return ledger, self._with(ledger, _NOTHING, prices, ("", ()))
        before = read_choice(self.inherited.examples, len(prices))
        if before is None or before.digest != self._digest:
            return ledger, self._anew(ledger, prices, 0, moves=before is not None)
        if sum(prices[place] for place in before.kept) > ledger.left:
            return ledger, self._anew(ledger, prices, before.step, moves=True)
        spare = ledger.copy()
        filled = self._with(ledger, before, prices, self._stayed(before))
        if filled.first == 0:
            return ledger, filled
        return spare, self._anew(spare, prices, before.step + 1, moves=True)

    @property
    def _digest(self) -> str:
        return f"{self.rules.examples.policy}-{self.sheet.examples_digest}"

    def _anew(self, ledger: _Ledger, costs: Sequence[int], step: int, *, moves: bool) -> _Filled:
        kept, why = choose(
            self.rules.examples,
            costs,
            share := int(ledger.left * EXAMPLES_SHARE),
            step=step,
            epoch=self.newest[-1].seq if self.newest else 0,
            texts=["\n".join(line.text for line in dialogue) for dialogue in self.sheet.examples],
            newest=self.newest[-1].text if self.newest else "",
        )
        reason = f"{self.rules.examples.policy}: dialogues go in whole; together they may have {share} tokens"
        choice = Choice(kept, step, self._digest)
        return self._with(ledger, choice, costs, (reason, why), moves=moves)._replace(chosen=self.inherited.begun)

    def _stayed(self, choice: Choice) -> tuple[str, tuple[str, ...]]:
        why = (f"{'in' if place in choice.kept else 'out'} since the window moved" for place in self._places)
        return f"{self.rules.examples.policy}: dialogues stay until the window moves", tuple(why)

    @property
    def _places(self) -> range:
        return range(len(self.sheet.examples))

    def _with(
        self,
        ledger: _Ledger,
        choice: Choice,
        costs: Sequence[int],
        why: tuple[str, tuple[str, ...]],
        *,
        moves: bool = False,
    ) -> _Filled:
        if costs:
            ledger.take_dialogues(choice.kept, costs, *why)
        low = (fact for fact in self.ranked if fact.priority <= EXAMPLES_PRIORITY)
        told = {fact.name for fact in low if ledger.take_fact(fact)}
        first = ledger.take_history(self.past, self.costs, self.rules.marks, moves=moves)
        if self.passed_over:
            ledger.tell_passed_over(self.passed_over)
        examples = [line for place in choice.kept for line in self.sheet.examples[place]]
        return _Filled(examples, told, first, choice if costs else None, chosen=False)


_NOTHING = Choice((), 0, "")
_NO_HISTORY = Claimed(required=False, claimed=(0, 0), kept=(0, 0), reason="")


class _Ledger:
    """The budget while it is being claimed, and what became of each claim."""

    def __init__(self, budget_tokens: int, prices: Prices) -> None:
        self.budget = budget_tokens
        self.prices = prices
        self.left = budget_tokens - prices.fixed
        self.claims: dict[Label, Claimed] = {}

    def copy(self) -> _Ledger:
        other = _Ledger(self.budget, self.prices)
        other.left, other.claims = self.left, dict(self.claims)
        return other

    def cost(self, piece: Rendered) -> int:
        return self.prices.message(piece.size, piece.piece.name)

    def require(self, label: Label, tokens: int) -> None:
        self.left -= tokens
        before = self.claims.get(label)
        whole = (tokens, 1) if before is None else (before.claimed[0] + tokens, before.claimed[1] + 1)
        self.claims[label] = Claimed(required=True, claimed=whole, kept=whole, reason="required")

    def settle_opening(self, opening: Rendered | None, *, needed: bool) -> tuple[Rendered, ...]:
        """Give the opening where it is needed, and what was claimed for it back where not."""
        if opening is None or needed:
            return () if opening is None else (opening,)
        label = (Section.OPENING, "")
        claim = self.claims[label]
        self.left += claim.kept[0]
        reason = "not needed: the first message is a user's"
        self.claims[label] = claim._replace(required=False, kept=(0, 0), reason=reason)
        return ()

    def check_required(self) -> None:
        if self.left < 0:
            needed = {section_name(label): one.claimed[0] for label, one in self.claims.items()}
            raise BudgetError({"overhead": self.prices.fixed} | needed, self.budget)

    def take(self, label: Label, piece: Rendered | None) -> tuple[Rendered, ...]:
        if piece is None:
            return ()
        tokens = self.cost(piece)
        fits = tokens <= self.left
        kept = tokens if fits else 0
        self.left -= kept
        reason = "fits" if fits else f"needs {tokens} tokens, {self.left} are left"
        self.claims[label] = Claimed(required=False, claimed=(tokens, 1), kept=(kept, int(fits)), reason=reason)
        return (piece,) if fits else ()

    def take_fact(self, fact: PlacedFact) -> bool:
        """Whether a fact is in; a required one was claimed before."""
        required = fact.priority == REQUIRED
        return required or bool(self.take((Section.FACT, fact.name), fact.rendered))

    def take_dialogues(self, places: Sequence[int], costs: Sequence[int], reason: str, why: tuple[str, ...]) -> None:
        spent = sum(costs[place] for place in places)
        self.left -= spent
        everything = len(places) == len(costs)
        self.claims[Section.EXAMPLES, ""] = Claimed(
            required=False,
            claimed=(sum(costs), len(costs)),
            kept=(spent, len(places)),
            reason="fits" if everything else reason,
            details=() if everything else why,
        )

    def take_history(self, past: Sequence[Line], costs: Sequence[int], marks: Marks, *, moves: bool) -> int:
        if not past:
            return 0
        first = first_kept(past, costs, self.left, marks, moves=moves)
        kept = sum(costs[first:])
        reason = "fits" if first == 0 else f"{self.left} tokens were left; older turns make room in chunks"
        self.left -= kept
        self.claims[Section.HISTORY, ""] = Claimed(
            required=False, claimed=(sum(costs), len(past)), kept=(kept, len(past) - first), reason=reason
        )
        return first

    def tell_passed_over(self, messages: int) -> None:
        """Note that there is history behind hidden messages which was not read."""
        known = self.claims.get((Section.HISTORY, ""), _NO_HISTORY)
        why = f"{messages:,} hidden messages were passed over, what is older was not read"
        reason = f"{known.reason}; {why}" if known.reason else why
        self.claims[Section.HISTORY, ""] = known._replace(reason=reason)

    def tell_unshared(
        self, facts: Sequence[PlacedFact], note: Sequence[Rendered], costs: Sequence[int], front: Sequence[Rendered]
    ) -> None:
        """Note what it costs in a prompt cache that a text stands among the newest lines, or says the time in front."""
        for label, depth, tokens in [
            *(((Section.FACT, fact.name), fact.depth, self.cost(fact.rendered)) for fact in facts),
            *(((Section.NOTE, ""), NOTE_DEPTH, self.cost(one)) for one in note),
        ]:
            if depth is not None:
                behind = sum(costs[max(len(costs) - depth, 0) :])
                self.claims[label] = self.claims[label]._replace(unshared=tokens + behind)
        for fact in facts:
            if fact.depth is None and fact.changes:
                behind = sum(map(self.cost, front)) + sum(costs)
                self.claims[Section.FACT, fact.name] = self.claims[Section.FACT, fact.name]._replace(unshared=behind)

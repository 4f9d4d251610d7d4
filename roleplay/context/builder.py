"""Building a context: who claims the budget in which order, what is kept, what is dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple

from roleplay.context.emit import emit
from roleplay.context.examples import Choice, Rule, choose, read_choice
from roleplay.context.placed import ClaimOrder, PlacedText, Rendered
from roleplay.context.sheet import Sheet
from roleplay.context.sources import order_of
from roleplay.context.weights import Weights
from roleplay.context.window import Marks, first_kept, turn_start
from roleplay.domain.context import (
    ContextMessage,
    ContextReport,
    Insertion,
    Line,
    Recipe,
    Role,
    Section,
    SectionReport,
    Span,
)
from roleplay.errors import BudgetError

CHOSEN_SHARE = 0.5

Label = tuple[str, str]
"""What claims: a section, and which of its texts, where they have names."""
_HISTORY: Label = (Section.HISTORY, "")
_NEWEST: Label = (Section.NEWEST, "")


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


class Outcome(NamedTuple):
    """What became of a claim. Tokens and items."""

    required: bool
    claimed: tuple[int, int]
    kept: tuple[int, int]
    reason: str
    unshared: int = 0
    details: tuple[str, ...] = ()

    def and_then(self, other: Outcome) -> Outcome:
        """Give the outcome of two claims under one label."""
        reasons = dict.fromkeys(one.reason for one in (self, other) if one.kept[1] < one.claimed[1])
        return Outcome(
            required=self.required and other.required,
            claimed=(self.claimed[0] + other.claimed[0], self.claimed[1] + other.claimed[1]),
            kept=(self.kept[0] + other.kept[0], self.kept[1] + other.kept[1]),
            reason="; ".join(reasons) or other.reason,
            details=self.details + other.details,
        )


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
    claims: dict[Label, Outcome]
    budget_tokens: int
    prompt_tokens: int
    load: Load
    weights: Weights = field(compare=False)
    window_start: int
    examples: str
    moved: bool
    foreign: tuple[Line, ...]
    room: int

    @property
    def report(self) -> ContextReport:
        """The claims as a value, for those who ask."""
        counter = self.weights.counter
        return ContextReport(
            budget_tokens=self.budget_tokens,
            prompt_tokens=self.prompt_tokens,
            overhead_tokens=self.weights.fixed,
            counter=counter.name,
            counting="exact" if counter.exact and not self.foreign else "estimated",
            calibrated=self.weights.calibrated,
            foreign_counts=len(self.foreign),
            sections=tuple(_section_report(label, self.claims[label]) for label in sorted(self.claims, key=_in_order)),
            window_start=self.recipe.history.first,
            new_epoch=self.moved,
            room_tokens=self.room,
        )


def _in_order(label: Label) -> int:
    return order_of(label[0])


def section_name(label: Label) -> str:
    """Give a section's name as reports and errors write it."""
    section, name = label
    return f"{section} {name}" if name else str(section)


def _section_report(label: Label, outcome: Outcome) -> SectionReport:
    return SectionReport(
        section=section_name(label),
        required=outcome.required,
        claimed_tokens=outcome.claimed[0],
        kept_tokens=outcome.kept[0],
        dropped_tokens=outcome.claimed[0] - outcome.kept[0],
        claimed_items=outcome.claimed[1],
        kept_items=outcome.kept[1],
        reason=outcome.reason,
        unshared_tokens=outcome.unshared,
        details=outcome.details,
    )


def build(
    sheet: Sheet,
    lines: Sequence[Line],
    *,
    skipped: Sequence[int] = (),
    passed_over: int = 0,
    unseen: int = 0,
    rules: Rules,
    inherited: Inherited = FIRST,
    weights: Weights,
    absences: Sequence[tuple[int, int]] = (),
) -> Draft:
    """Build the context whose newest line is the last of ``lines`` (oldest first, back to where the inherited window
    starts or to where they exceed the budget); there may be none. ``skipped`` says of each how many hidden messages lie
    between it and the path's end (empty: none); after ``passed_over`` of them, if any, or after ``unseen`` messages
    that are not for the seat, nothing older was read. ``absences``: the revisions of the session in which nobody sat in
    the seat, so that it saw nothing.

    Claim order: the request's fixed cost; what is required, by priority, with the newest line in its place; the other
    texts by priority, those among which a policy chooses whole and in at most half of what is left; then history,
    newest first, contiguous, whole turns.

    What is chosen is chosen when an epoch begins: with the first context, when the window moves, when what was in does
    not fit any more, or when there is something else to choose from.

    Raises ``BudgetError`` when what is required does not fit.
    """
    # The newest line, or all of the turn that was said last, where nobody asks for the next: turns are kept whole.
    cut = turn_start(lines, len(lines) - 1) if lines else 0
    past, newest = lines[:cut], lines[cut:]
    named = sheet.casting.named
    costs, sizes = weights.lines(lines, sheet.seat if named else None)
    texts, order = sheet.texts, sheet.order
    ledger = _Ledger(rules.budget_tokens, weights, texts)
    ledger.require(order.before_newest)
    ledger.require_newest(costs[cut:])
    ledger.require(order.required)
    ledger.check_required()
    ledger.take(order.before_chosen)
    rest = _Rest(sheet, order, past, costs[:cut], newest, rules, inherited, (passed_over, unseen))
    ledger, filled = rest.fill(ledger)
    kept = [*past[filled.first :], *newest]
    if not kept or kept[0].seat != sheet.seat:
        ledger.give_back_what_needs_own_first()
    begin, end = (kept[0].seq, kept[-1].seq) if kept else (0, 0)
    sent = _arranged([texts[number] for number in sorted(ledger.kept)])
    recipe = Recipe(
        front=tuple([one.piece for one in sent.front]),
        history=Span(
            begin, end, sheet.seat, runs=_runs(skipped[filled.first :]), absences=tuple(absences), named=named
        ),
        insertions=tuple([Insertion(depth, one.piece) for depth, one in sent.among]),
        tail=tuple([one.piece for one in sent.behind]),
    )
    ledger.tell_unshared(costs[filled.first :])
    pieces = [*sent.front, *[one for _, one in sent.among], *sent.behind]
    known = {one.piece.digest: one.text for one in pieces}
    counter = weights.counter.name
    window_start = begin if filled.first > 0 or unseen else inherited.start
    is_short = window_start > 0 or any(one.kept[0] < one.claimed[0] for one in ledger.claims.values())
    return Draft(
        messages=emit(recipe, known, kept),
        recipe=recipe,
        texts=known,
        claims=ledger.claims,
        budget_tokens=rules.budget_tokens,
        prompt_tokens=rules.budget_tokens - ledger.left,
        load=_load(pieces, sizes[filled.first :], weights),
        weights=weights,
        window_start=window_start,
        examples=filled.choice.written() if filled.choice else "",
        moved=filled.first > 0 or filled.chosen or unseen > 0,
        foreign=tuple([line for line in kept if line.counter != counter]),
        room=rules.room if is_short else 0,
    )


class _Arranged(NamedTuple):
    """Messages by where they are sent, those among the history with their depth."""

    front: list[Rendered]
    among: list[tuple[int, Rendered]]
    behind: list[Rendered]


def _arranged(texts: Sequence[PlacedText]) -> _Arranged:
    sent = _Arranged([], [], [])
    for text in texts:
        slot, depth = text.place
        if slot == "among":
            sent.among.extend([(depth, one) for one in text.messages])
        else:
            (sent.front if slot == "front" else sent.behind).extend(text.messages)
    return sent


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


def _load(pieces: Sequence[Rendered], sizes: Sequence[tuple[float, float]], weights: Weights) -> Load:
    narrow, wide = map(sum, zip(*sizes, strict=True)) if sizes else (0.0, 0.0)
    for piece in pieces:
        _, named = weights.beside(piece.piece.name)
        narrow += piece.size.narrow + named.narrow
        wide += piece.size.wide + named.wide
    return Load(narrow, wide, len(pieces) + len(sizes))


class _Filled(NamedTuple):
    """What went in behind the texts of higher priority: where history starts, and what was chosen; ``chosen``: anew,
    in a conversation that had other texts."""

    first: int
    choice: Choice | None
    chosen: bool


class _Rest(NamedTuple):
    """Everything that may have what the texts of higher priority left."""

    sheet: Sheet
    order: ClaimOrder
    past: Sequence[Line]
    costs: Sequence[int]
    newest: Sequence[Line]
    rules: Rules
    inherited: Inherited
    passed_over: tuple[int, int]

    def fill(self, ledger: _Ledger) -> tuple[_Ledger, _Filled]:
        """Claim for the texts that are chosen, those of lower priority and history; gives the ledger with their
        claims."""
        weights = [ledger.costs[number] for number in self.order.chosen]
        if not weights:
            return ledger, self._with(ledger, None, ("", ()))
        before = read_choice(self.inherited.examples, len(weights))
        if before is None or before.digest != self._digest:
            return ledger, self._anew(ledger, weights, 0, moves=before is not None)
        if sum(weights[place] for place in before.kept) > ledger.left:
            return ledger, self._anew(ledger, weights, before.step, moves=True)
        spare = ledger.copy()
        filled = self._with(ledger, before, self._stayed(before))
        if filled.first == 0:
            return ledger, filled
        return spare, self._anew(spare, weights, before.step + 1, moves=True)

    @property
    def _digest(self) -> str:
        return f"{self.rules.examples.policy}-{self.sheet.choice_digest}"

    def _anew(self, ledger: _Ledger, costs: Sequence[int], step: int, *, moves: bool) -> _Filled:
        texts = [ledger.texts[number] for number in self.order.chosen]
        kept, why = choose(
            self.rules.examples,
            costs,
            share := int(ledger.left * CHOSEN_SHARE),
            step=step,
            epoch=self.newest[-1].seq if self.newest else 0,
            texts=["\n".join(one.text for one in text.messages) for text in texts],
            newest=self.newest[-1].text if self.newest else "",
        )
        reason = f"{self.rules.examples.policy}: dialogues go in whole; together they may have {share} tokens"
        choice = Choice(kept, step, self._digest)
        return self._with(ledger, choice, (reason, why), moves=moves)._replace(chosen=self.inherited.begun)

    def _stayed(self, choice: Choice) -> tuple[str, tuple[str, ...]]:
        places = range(len(self.order.chosen))
        why = (f"{'in' if place in choice.kept else 'out'} since the window moved" for place in places)
        return f"{self.rules.examples.policy}: dialogues stay until the window moves", tuple(why)

    def _with(
        self, ledger: _Ledger, choice: Choice | None, why: tuple[str, tuple[str, ...]], *, moves: bool = False
    ) -> _Filled:
        if choice is not None:
            ledger.take_chosen(self.order.chosen, choice.kept, *why)
        ledger.take(self.order.last)
        first = ledger.take_history(self.past, self.costs, self.rules.marks, moves=moves)
        for messages, what in zip(
            self.passed_over, ("hidden messages", "messages that are not for this seat"), strict=True
        ):
            if messages:
                ledger.tell_passed_over(messages, what)
        return _Filled(first, choice, chosen=False)


_new = tuple.__new__  # a named tuple's own costs three times as much
_NO_HISTORY = Outcome(required=False, claimed=(0, 0), kept=(0, 0), reason="")


class _Ledger:
    """The budget while it is being claimed, what became of each claim, and which of the texts are in. Texts are meant
    by their number in the list of them."""

    def __init__(self, budget_tokens: int, weights: Weights, texts: Sequence[PlacedText]) -> None:
        self.budget = budget_tokens
        self.weights = weights
        self.left = budget_tokens - weights.fixed
        self.texts = texts
        self.costs = [sum([weights.message(one.size, one.piece.name) for one in text.messages]) for text in texts]
        self.kept: set[int] = set()
        self.claims: dict[Label, Outcome] = {}

    def copy(self) -> _Ledger:
        other = copy(self)
        other.kept, other.claims = set(self.kept), dict(self.claims)
        return other

    def require(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            tokens = self.costs[number]
            self.left -= tokens
            self.kept.add(number)
            self._enter(number, _new(Outcome, (True, (tokens, 1), (tokens, 1), "required", 0, ())))

    def require_newest(self, costs: Sequence[int]) -> None:
        if costs:
            whole = (sum(costs), len(costs))
            self.left -= whole[0]
            self.claims[_NEWEST] = Outcome(required=True, claimed=whole, kept=whole, reason="required")

    def check_required(self) -> None:
        if self.left < 0:
            needed = {section_name(label): one.claimed[0] for label, one in self.claims.items()}
            raise BudgetError({"overhead": self.weights.fixed} | needed, self.budget)

    def take(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            tokens = self.costs[number]
            kept, reason = (0, 0), "fits"
            if tokens <= self.left:
                kept = tokens, 1
                self.left -= tokens
                self.kept.add(number)
            else:
                reason = f"needs {tokens} tokens, {self.left} are left"
            self._enter(number, _new(Outcome, (False, (tokens, 1), kept, reason, 0, ())))

    def take_chosen(self, numbers: Sequence[int], kept: Sequence[int], reason: str, why: tuple[str, ...]) -> None:
        costs = [self.costs[number] for number in numbers]
        spent = sum(costs[place] for place in kept)
        self.left -= spent
        self.kept.update(numbers[place] for place in kept)
        everything = len(kept) == len(numbers)
        outcome = Outcome(
            required=False,
            claimed=(sum(costs), len(costs)),
            kept=(spent, len(kept)),
            reason="fits" if everything else reason,
            details=() if everything else why,
        )
        self._enter(numbers[0], outcome)

    def take_history(self, past: Sequence[Line], costs: Sequence[int], marks: Marks, *, moves: bool) -> int:
        if not past:
            return 0
        first = first_kept(past, costs, self.left, marks, moves=moves)
        kept = sum(costs[first:])
        reason = "fits" if first == 0 else f"{self.left} tokens were left; older turns make room in chunks"
        self.left -= kept
        self.claims[_HISTORY] = Outcome(
            required=False, claimed=(sum(costs), len(past)), kept=(kept, len(past) - first), reason=reason
        )
        return first

    def tell_passed_over(self, messages: int, what: str) -> None:
        """Note that there is history behind messages which were passed over, ``what`` they are, and was not read."""
        known = self.claims.get(_HISTORY, _NO_HISTORY)
        why = f"{messages:,} {what} were passed over, what is older was not read"
        reason = f"{known.reason}; {why}" if known.reason else why
        self.claims[_HISTORY] = known._replace(reason=reason)

    def give_back_what_needs_own_first(self) -> None:
        """Leave out the texts that are for a history which begins with the speaker's own line."""
        for number in [number for number in self.kept if self.texts[number].if_own_first]:
            self.kept.remove(number)
            self.left += self.costs[number]
            label = self._label(number)
            tokens, items = self.claims[label].kept
            self.claims[label] = self.claims[label]._replace(
                required=False,
                kept=(tokens - self.costs[number], items - 1),
                reason="not needed: the first message is a user's",
            )

    def tell_unshared(self, costs: Sequence[int]) -> None:
        """Note what it costs in a prompt cache that a text stands among the newest lines, or changes in front."""
        for number in self.kept:
            text = self.texts[number]
            slot, depth = text.place
            if slot == "among":
                behind = self.costs[number] + sum(costs[max(len(costs) - depth, 0) :])
            elif slot == "front" and text.changes:
                behind = self._front_from(number) + sum(costs)
            else:
                continue
            label = self._label(number)
            told = self.claims[label]
            self.claims[label] = told._replace(unshared=max(told.unshared, behind))

    def _front_from(self, changed: int) -> int:
        """Count what the front has from a text on, as it is sent: all that is ``system`` is one message, of which
        only the first text counts as shared."""
        front = [number for number in sorted(self.kept) if self.texts[number].place.slot == "front"]
        systems = [number for number in front if self.texts[number].messages[0].piece.role == Role.SYSTEM]
        sent = [*systems, *(number for number in front if number not in systems)]
        start = sent.index(changed)
        return sum(self.costs[number] for number in sent[min(start, 1) if changed in systems else start :])

    def _enter(self, number: int, outcome: Outcome) -> None:
        label = self._label(number)
        before = self.claims.get(label)
        self.claims[label] = outcome if before is None else before.and_then(outcome)

    def _label(self, number: int) -> Label:
        text = self.texts[number]
        return text.messages[0].section, text.name

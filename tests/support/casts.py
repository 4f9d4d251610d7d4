"""Casts against a model of who was there and who was told, in plain Python: whatever is done in whatever order, every
request and every view of a seat has exactly the lines that this seat may see, each under its speaker's name.

``python -m tests.support.casts [--casts 10000] [--first 0]`` tries random ones, over a database in memory. Each comes
from its number, so that one that fails is tried again by ``--casts 1 --first NUMBER``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from roleplay import (
    BudgetError,
    ChatError,
    ChatRequestError,
    ConflictError,
    Endpoint,
    InvalidInputError,
    NotFoundError,
    Persona,
    Roleplay,
    Seat,
    SessionSettings,
    TurnOptions,
)
from roleplay.testing import ScriptedModel

DIALECTS = ("minimax", "openai", "strict")
SPEAKING = ("natural", "list", "pooled", "round_robin")
SMALL_BUDGET = 400
CHARS_A_TOKEN = 3
SMALL_SHARE = 0.35  # of a budget that lines were left out for, what a request holds at least
NARRATOR = "narrator"
#: Prefixes of each other, twice the same, scripts without spaces, emoji of several characters, marks, and characters
#: that some take for the end of a line.
NAMES = (
    *("Ann", "Anna", "Anna Lee", "ANN", "Ann", "Ann-Marie", "An"),
    *("李", "李明", "李明华", "アンナ", "안나", "Ａｎｎ", "Zoe\u0308", "Zoë"),
    *("🦊", "🦊🦊", "👩‍👩‍👧", "🇩🇪", "☺"),
    *("Smith: Ann", "Ann:", ":", "Dr. No", "O'Neil", "[Bob]", "*Star*", "(x)", "{{user}}", "%", "_", '"', "\\n"),
    *("Ann\u2028Bob", "Ann\x85Bob", "Ann\u2029\u2029Bob", "Ann\u200b", "A\u202eB", "Ann\u00a0Lee", "a\u3000b"),
    *("Narrator", "User", "assistant", "system", "1", "2", "<b>", "x" * 200),
)
PARTS = (
    "Ann",
    "a",
    " ",
    ":",
    "：",
    "李",
    "明",
    "🦊",
    "\u200d",
    ".",
    "[",
    "]",
    "*",
    "_",
    "\u2028",
    "\x85",
    "-",
    "ß",
    "I",
)
DOORS = (
    *("send", "whisper") * 4,
    *("round", "speak", "regenerate") * 3,
    *("add", "narrate", "fail", "cut_short", "retry", "resume", "join", "leave", "rejoin", "fork", "rewind") * 2,
    *("accept", "undo", "edit", "hide", "show", "mute", "move", "use"),
)
MARKS = "*_[]()<>【】［］（）"  # a name of these alone is looked for nowhere
_LINE = re.compile("⟦([0-9]+)⟧")
_SHEET = re.compile("⟪([0-9]+)⟫")
_HINT = re.compile("⟬([0-9]+)⟭")


class Step(NamedTuple):
    """Something that is done: through which door, and numbers that choose with whom, to whom and how."""

    door: str
    who: int
    to: int
    how: int


class Member(NamedTuple):
    """Somebody to be seated: which of the personas (negative: none, where it is a human), and the names."""

    persona: int
    name: str | None
    aliases: tuple[str, ...]


class Plot(NamedTuple):
    """A cast and what becomes of it."""

    dialect: str
    budget: int | None
    everything: bool
    speaking: str
    models: Sequence[Member]
    humans: Sequence[Member]
    later: Sequence[Member]
    steps: Sequence[Step]


@dataclass(eq=False)
class Line:
    """What was said: by which seat, under which name, to whom (``None``: all), and at which state of the cast."""

    text: str
    seat: int
    name: str
    audience: frozenset[int] | None
    moment: int

    @property
    def marks(self) -> list[str]:
        return _LINE.findall(self.text)


@dataclass(eq=False)
class Said:
    """A turn: the line that it answers, its reply, and the turn before it. ``moment``: that of its last attempt."""

    parent: Said | None
    line: Line | None
    audience: frozenset[int] | None
    id: str = ""
    reply: Line | None = None
    complete: bool = False
    hidden: bool = False
    speaker: int = 0
    moment: int = 0
    calls: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[Line]:
        return [one for one in (self.line, self.reply) if one is not None]


@dataclass
class Sitter:
    """A seat as the model knows it."""

    seat: int
    by_model: bool
    member: Member
    name: str
    order: int
    here: bool = True
    left: int = 0

    def names(self) -> set[str]:
        return {plain(one) for one in (self.name, *self.member.aliases)}


class House:
    """An engine that many casts share, and its personas, each with a mark of its own."""

    def __init__(self, rp: Any, model: ScriptedModel) -> None:
        self.rp, self.model = rp, model
        self.numbers = count(1)
        self.called = ("Mia", "Miau", "米娅", "Mia")
        self.personas = [
            rp.personas.put(Persona(name, f"Somebody ⟪{place}⟫ who travels.", key=f"persona-{place}"))
            for place, name in enumerate(self.called)
        ]

    def close(self) -> None:
        """Close the engine."""
        self.rp.__exit__(None, None, None)


def endpoint(dialect: str) -> Endpoint:
    """Give an endpoint that fails at once where it fails."""
    return Endpoint("MiniMax-M2.7", dialect=dialect, retry={"attempts": 1})


class Company:
    """A session, and what it must be."""

    def __init__(self, house: House, plot: Plot) -> None:
        self.house, self.plot = house, plot
        self.rp, self.model = house.rp, house.model
        self.heads: list[Said | None] = []
        self.head: Said | None = None
        self.turns: list[Said] = []
        self.seats: dict[int, Sitter] = {}
        self.there: list[frozenset[int]] = []
        self.refused: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.spoken: list[tuple[str, str | None]] = []
        self.later = list(plot.later)
        self.was_group = self.was_hidden = False
        self.checks = self.shortened = self.views = 0
        self.begun = len(self.model.bodies)
        settings = SessionSettings(
            budget_tokens=plot.budget,
            joiner_sees="everything" if plot.everything else "joining",
            speaking=plot.speaking,
            language="en",
            seed=1,
            reply_to_self=True,
        )
        self.session = self.rp.sessions.create(
            cast=[self.seat_of(one) for one in plot.models],
            users=[self.seat_of(one) for one in plot.humans],
            settings=settings,
        )
        for member, one in zip((*plot.models, *plot.humans), self.session.cast.list(), strict=True):
            self.sit(one, member)
        self.note_cast()

    def seat_of(self, member: Member) -> Seat:
        persona = None if member.persona < 0 else self.house.personas[member.persona % len(self.house.personas)]
        return Seat(persona, name=member.name, aliases=member.aliases)

    def sit(self, one: Any, member: Member) -> None:
        by_model = one.played_by == "model"
        self.seats[one.seat] = Sitter(one.seat, by_model, member, one.display_name, one.order)

    def note_cast(self) -> None:
        """From now on, what is said is for those who are here now."""
        self.there.append(frozenset(one.seat for one in self.seats.values() if one.here))
        for by_model in (True, False):
            self.was_group |= sum(one.by_model is by_model for one in self.seats.values()) > 1

    # What is known.

    def here(self, *, by_model: bool | None = None) -> list[Sitter]:
        """Who is here, in the order of seats."""
        found = [one for one in self.seats.values() if one.here and by_model in {None, one.by_model}]
        return sorted(found, key=lambda one: (one.order, one.seat))

    def may_see(self, seat: int, line: Line | Said) -> bool:
        """What the law says, without the code that is to obey it."""
        if line.audience is not None and seat not in line.audience:
            return False
        if self.plot.everything:
            who = self.seats[seat]
            return who.here or line.moment < who.left
        return seat in self.there[line.moment]

    def path(self, tip: Said | None) -> list[Said]:
        found = []
        while tip is not None:
            found.append(tip)
            tip = tip.parent
        return found[::-1]

    def seen(self, seat: int, tip: Said | None) -> list[list[Line]]:
        """The lines that a seat's request may have of the path to a turn, by turns."""
        turns = [one.lines for one in self.path(tip) if not one.hidden]
        return [found for lines in turns if (found := [one for one in lines if self.may_see(seat, one)])]

    def pick(self, number: int, *, complete: bool | None = None) -> Said:
        """A turn, newest first. Raises ``InvalidInputError`` where there is none, as the engine does."""
        found = [one for one in reversed(self.turns) if complete in {None, one.complete}]
        if not found:
            raise InvalidInputError("turn_id", "is none")
        return found[number % len(found)]

    def move(self, to: Said | None) -> None:
        if to is not self.head:
            self.heads.append(self.head)
            self.head = to

    # What is done.

    def words(self, how: int = 0) -> str:
        """A text with a mark that no other has."""
        said = f"⟦{next(self.house.numbers)}⟧"
        if how % 4 == 1:
            return f"{said} one.\n\nTwo, two."
        if how % 4 == 2:
            someone = self.here()[how // 4 % len(self.here())]
            return f"{said} What does {someone.name} say?"
        return f"{said} And then? " + "So it goes on and on. " * (how % 12) + "Yes."

    def script(self, how: int) -> Callable[[Any], str]:
        """What the model says: its words, after a name or before somebody else's words."""

        def say(_messages: Any) -> str:
            words, other = self.words(how // 4), None
            if how % 8 == 3:
                someone = self.here()[how // 8 % len(self.here())]
                words = f"{someone.name}: {words}"
            elif how % 8 == 5:
                other = self.here()[how // 8 % len(self.here())].name
                words = f"{words}\n{other}: {self.words()}"
            self.spoken.append((words, other))
            return words

        return say

    def audience(self, step: Step) -> list[int] | None:
        """Whom something is said to."""
        here = self.here()
        return [one.seat for place, one in enumerate(here) if step.to >> place & 1] or None

    def perform(self, step: Step) -> None:
        """Do something. What the engine refuses must have called no model."""
        self.spoken.clear()
        was = len(self.model.bodies)
        try:
            getattr(self, f"do_{step.door}")(step)
        except (InvalidInputError, ConflictError, BudgetError):
            assert len(self.model.bodies) == was
            self.refused[step.door] += 1
        else:
            self.done[step.door] += 1
        self.model._replies.clear()

    def do_send(self, step: Step) -> None:
        self.say(step, None, stream=bool(step.how % 2))

    def do_whisper(self, step: Step) -> None:
        self.say(step, self.audience(step), stream=bool(step.how % 2))

    def do_fail(self, step: Step) -> None:
        self.say(step, self.audience(step) if step.how % 2 else None, fails=True)

    def do_cut_short(self, step: Step) -> None:
        self.say(step, self.audience(step) if step.how % 2 else None, stream=True, stops=True)

    def say(
        self, step: Step, to: list[int] | None, *, stream: bool = False, fails: bool = False, stops: bool = False
    ) -> None:
        humans = self.here(by_model=False)
        who = humans[step.who % len(humans)]
        heard = None if to is None else frozenset({*to, who.seat})
        is_answered = heard is None or any(self.seats[one].by_model for one in heard)
        line = self.line(self.words(step.how // 2), who, heard)
        turn = Said(self.head, line, heard)
        options = TurnOptions(audience=to)
        door = self.session.stream if stream else self.session.send
        self.attempt(turn, lambda: door(line.text, speaker=who.seat, options=options), step, fails=fails, stops=stops)
        assert is_answered

    def line(self, text: str, who: Sitter, audience: frozenset[int] | None, name: str | None = None) -> Line:
        return Line(text, who.seat, who.name if name is None else name, audience, len(self.there) - 1)

    def attempt(
        self,
        turn: Said,
        door: Callable[[], Any],
        step: Step,
        *,
        fails: bool = False,
        stops: bool = False,
        so_far: Line | None = None,
        hint: str = "",
    ) -> None:
        """Let the engine make an attempt at ``turn``, and know what must come of it."""
        was = len(self.model.bodies)
        self.model.say(ChatRequestError("no") if fails else self.script(0 if so_far else step.how // 2))
        try:
            got = door()
            if hasattr(got, "cancel"):
                with got as stream:
                    for _ in stream:
                        if stops:
                            break
                got = got.turn
            found = got
        except ChatError as error:
            found = self.session.turn(error.turn_id or "")
        assert len(self.model.bodies) == was + 1
        self.know(turn, found, so_far)
        self.check_request(self.model.bodies[was], turn, so_far, hint)

    def know(self, turn: Said, found: Any, so_far: Line | None = None) -> None:
        """Know what the engine made of a turn."""
        turn.id, turn.speaker, turn.complete = found.id, found.speaker, found.status == "completed"
        turn.calls = [one.id for one in found.calls]
        who = self.seats[turn.speaker]
        assert who.here
        assert who.by_model
        assert (found.audience and set(found.audience)) == turn.audience
        assert turn.audience is None or turn.speaker in turn.audience
        if found.reply is None:
            assert not turn.complete
            assert turn.reply is None, "a text that was there is gone"
        elif self.spoken and (turn.reply is None or found.reply.text != turn.reply.text):
            text, other = self.spoken[-1]
            before = so_far.text if so_far else ""
            assert found.reply.text.startswith(before)
            new = found.reply.text.removeprefix(before)
            assert new.strip().lstrip(MARKS) in text  # a mark may have been taken for one before the own name
            if other is not None and plain(other) not in who.names() and other.strip(MARKS):
                assert f"\n{other}: " not in found.reply.text, (found.reply.text, who.names())
            turn.reply = self.line(found.reply.text, who, turn.audience)
        turn.moment = len(self.there) - 1
        if turn not in self.turns:
            self.turns.append(turn)
        if turn.complete:
            self.move(turn)

    def do_round(self, step: Step) -> None:
        humans = self.here(by_model=False)
        who = humans[step.who % len(humans)]
        to = self.audience(step) if step.how % 2 else None
        text = self.words(step.how // 4) if step.how // 2 % 2 else None
        heard = None if to is None else frozenset({*to, *([who.seat] if text else [])})
        before = Said(self.head, None, heard)
        line = None if text is None else self.line(text, who, heard)
        was = len(self.model.bodies)
        self.model.say(*[self.script(step.how // 8)] * 4)
        speaker = who.seat if text else None
        made: list[Said] = []
        failed = ""
        try:
            with self.session.round(text, speaker=speaker, max_turns=3, options=TurnOptions(audience=to)) as pieces:
                for found in pieces.turns():
                    turn = Said(made[-1] if made else before.parent, None if made else line, heard)
                    made.append(turn)
                    self.spoken_by(found)
                    self.know(turn, found)
        except ChatError as error:
            failed = error.turn_id or ""
        except BudgetError:
            if not made:
                raise
        if failed:
            turn = Said(made[-1] if made else before.parent, None if made else line, heard)
            self.know(turn, self.session.turn(failed))
            made.append(turn)
        assert len(self.model.bodies) == was + len(made)
        for body, turn in zip(self.model.bodies[was:], made, strict=True):
            self.check_request(body, turn, None, "")

    def spoken_by(self, found: Any) -> None:
        """Put what a turn of a round says last; the next turn may have been spoken already."""
        for one in self.spoken:
            if found.reply and found.reply.text.strip() in one[0]:
                self.spoken.remove(one)
                self.spoken.append(one)
                return

    def do_speak(self, step: Step) -> None:
        to = self.audience(step) if step.how % 2 else None
        models = self.here(by_model=True)
        who = models[step.who % (len(models) + 1) - 1].seat if step.who % (len(models) + 1) else None
        heard = None if to is None else frozenset({*to, *([who] if who else [])})
        hint = f"⟬{next(self.house.numbers)}⟭ Say it." if step.how % 3 == 0 else ""
        turn = Said(self.head, None, heard)
        options = TurnOptions(audience=to)
        self.attempt(turn, lambda: self.session.speak(who, hint=hint, options=options), step, hint=hint)
        assert who is None or turn.speaker == who

    def do_add(self, step: Step) -> None:
        here = self.here()
        who = here[step.who % len(here)]
        self.added(step, who, who.seat, None)

    def do_narrate(self, step: Step) -> None:
        self.added(step, self.here(by_model=False)[0], NARRATOR, "Narrator")

    def added(self, step: Step, who: Sitter, speaker: int | str, name: str | None) -> None:
        to = self.audience(step) if step.how % 2 else None
        heard = None if to is None else frozenset({*to, *([] if name else [who.seat])})  # a narrator has no seat
        line = self.line(self.words(step.how // 2), who, heard, name)
        is_reply = who.by_model
        turn = Said(self.head, None if is_reply else line, heard, reply=line if is_reply else None, complete=True)
        turn.moment = line.moment
        turn.id = self.session.add(line.text, speaker=speaker, options=TurnOptions(audience=to)).id
        self.turns.append(turn)
        self.move(turn)

    def do_regenerate(self, step: Step) -> None:
        old = self.pick(step.who)
        hint = f"⟬{next(self.house.numbers)}⟭ Shorter." if step.how % 3 == 0 else ""
        turn = Said(old.parent, old.line, old.audience)
        self.attempt(
            turn,
            lambda: self.session.regenerate(old.id, hint=hint),
            step,
            fails=step.how % 7 == 0,
            stops=step.how % 7 == 1,
            hint=hint,
        )

    def do_retry(self, step: Step) -> None:
        if all(one.complete for one in self.turns):
            self.do_fail(step)
            return
        turn = self.pick(step.who, complete=False)
        self.attempt(turn, lambda: self.session.retry(turn.id), step, fails=step.how % 7 == 0, stops=step.how % 7 == 1)

    def do_resume(self, step: Step) -> None:
        if all(one.complete for one in self.turns) and step.how % 2:
            self.do_cut_short(step)
            return
        old = self.pick(step.who, complete=False if step.how % 3 else None)
        turn = Said(old.parent, old.line, old.audience) if old.complete else old
        fails, stops, so_far = step.how % 7 == 0, step.how % 7 == 1, old.reply
        self.attempt(turn, lambda: self.session.resume(old.id), step, fails=fails, stops=stops, so_far=so_far)
        assert so_far is not None

    def do_accept(self, step: Step) -> None:
        if all(one.complete for one in self.turns):
            self.do_cut_short(step)
            return
        turn = self.pick(step.who, complete=False)
        self.session.accept(turn.id)
        turn.complete = True
        self.move(turn)

    def do_fork(self, step: Step) -> None:
        turn = self.pick(step.who, complete=True)
        (self.session.tree.fork if step.how % 2 else self.session.tree.choose)(turn.id)
        self.move(turn)

    def do_rewind(self, step: Step) -> None:
        steps = step.who % 3 + 1
        self.session.tree.rewind(steps)
        path = self.path(self.head)
        self.move(path[-steps - 1] if steps < len(path) else None)

    def do_undo(self, _step: Step) -> None:
        self.session.tree.undo()
        self.head = self.heads.pop()

    def do_edit(self, step: Step) -> None:
        old = self.pick(step.who, complete=True)
        text = self.words(step.how)
        turn_id = self.session.tree.edit(old.id, text).id
        assert old.reply is not None
        reply = Line(text, old.reply.seat, old.reply.name, old.audience, len(self.there) - 1)
        turn = Said(old.parent, old.line, old.audience, turn_id, reply, complete=True)
        turn.moment = reply.moment
        self.turns.append(turn)
        self.move(turn)

    def do_hide(self, step: Step) -> None:
        turn = self.pick(step.who, complete=True)
        self.session.tree.hide(turn.id)
        turn.hidden = self.was_hidden = True

    def do_show(self, step: Step) -> None:
        turn = self.pick(step.who, complete=True)
        self.session.tree.show(turn.id)
        turn.hidden = False

    def do_join(self, step: Step) -> None:
        if not self.later or len(self.here()) >= 8:
            raise InvalidInputError("seat", "is one too many")
        member = self.later.pop()
        by_model = member.persona >= 0 and step.how % 2 == 0
        self.join(member, by_model=by_model)

    def join(self, member: Member, *, by_model: bool) -> None:
        one = self.session.cast.join(self.seat_of(member), played_by="model" if by_model else "human")
        back = self.seats.get(one.seat)
        if back is not None:  # the seat of somebody of that name and persona, who left
            assert not back.here
            assert (back.by_model, back.member.persona) == (by_model, member.persona)
            assert back.name == one.display_name
        self.sit(one, member)
        self.note_cast()

    def do_leave(self, step: Step) -> None:
        here = self.here()
        who = here[step.who % len(here)]
        self.session.cast.leave(who.seat)
        who.here, who.left = False, len(self.there)
        self.note_cast()

    def do_rejoin(self, step: Step) -> None:
        gone = [one for one in self.seats.values() if not one.here]
        if not gone:
            self.do_leave(step)
            return
        who = gone[step.who % len(gone)]
        member = who.member._replace(name=who.name)
        self.join(member, by_model=who.by_model)

    def do_mute(self, step: Step) -> None:
        here = self.here(by_model=True)
        self.session.cast.mute(here[step.who % len(here)].seat, muted=step.how % 2 == 0)

    def do_move(self, step: Step) -> None:
        here = self.here()
        who = here[step.who % len(here)]
        who.order = self.session.cast.move(who.seat, step.how % 9).order

    def do_use(self, step: Step) -> None:
        here = self.here(by_model=True)
        who, persona = here[step.who % len(here)], step.how % len(self.house.personas)
        one = self.session.cast.use(who.seat, self.house.personas[persona])
        who.name, who.member = one.display_name, who.member._replace(persona=persona)

    # What must hold.

    def check_request(self, body: bytes, turn: Said, so_far: Line | None, hint: str) -> None:
        """A request has the lines of its path that its seat may see, oldest first, each as its speaker's, no other."""
        self.checks += 1
        seat, messages = turn.speaker, json.loads(body)["messages"]
        turns = self.seen(seat, turn.parent)
        newest = [turn.line] if turn.line else []
        assert all(self.may_see(seat, one) for one in newest), "it answers what it may not see"
        newest += [so_far] if so_far else []
        found = [
            (mark[1], message, mark.start()) for message in messages for mark in _LINE.finditer(message["content"])
        ]
        marks = [mark for mark, _, _ in found]
        assert len(set(marks)) == len(marks), "a line is there twice"
        first = self.first_kept(turns, newest, marks)
        sent = [line for lines in turns[first:] for line in lines] + newest
        assert marks == [mark for line in sent for mark in line.marks], (seat, marks, [one.text for one in sent])
        places = {mark: (message, at) for mark, message, at in found}
        for line in sent:
            if line.marks:
                message, at = places[line.marks[0]]
                self.check_name(seat, line, message, at - line.text.index(f"⟦{line.marks[0]}⟧"))
        self.shortened += first > 0
        if first and not self.was_hidden:
            assert self.plot.budget, "lines are left out, though the budget is large"
            held = sum(len(message["content"]) + len(message.get("name", "")) for message in messages)
            held += sum(len(one.text) + 2 * len(one.name) for one in turns[first - 1])  # it goes by whole turns
            assert held / CHARS_A_TOKEN > SMALL_SHARE * self.plot.budget, "more is left out than has to be"
        self.check_front(seat, body.decode(), hint)

    def first_kept(self, turns: list[list[Line]], newest: list[Line], marks: list[str]) -> int:
        """Where a request begins: with a small budget, at a turn."""
        if not self.plot.budget:
            return 0
        count_ = len(marks) - sum(len(one.marks) for one in newest)
        first = len(turns)
        while first and count_ > 0:
            first -= 1
            count_ -= sum(len(one.marks) for one in turns[first])
        while first and not any(one.marks for one in turns[first - 1]):
            first -= 1
        return first

    def check_name(self, seat: int, line: Line, message: dict[str, str], at: int) -> None:
        """A line stands as its speaker's: the seat's own as the model's, another's as a user's behind its name."""
        content, why = message["content"], (seat, line, message)
        assert content.startswith(line.text, at), why
        before = content[:at]
        if (line.seat == seat and line.name != "Narrator") or (line.seat == seat and self.seats[seat].by_model):
            assert message["role"] == "assistant", why
            assert not before or before.endswith("\n\n"), why
            return
        assert message["role"] == "user", why
        label = f"{' '.join(line.name.splitlines())}: "
        if not self.was_group:
            label = f"{sent_as(line.name)}: "
        if before.endswith(label):
            start = before.removesuffix(label)
            assert not start or start.endswith("\n\n"), why
            return
        assert not self.was_group, why
        assert not before or before.endswith("\n\n"), why
        if "name" in message:
            assert message["name"] == sent_as(line.name), why
        else:  # of two who are alone, what a narrator says has a name, unless he says the first line of all
            [human] = [one for one in self.seats.values() if not one.by_model]
            assert line.seat == human.seat, why
            assert line.name == human.name or human.member.persona < 0, why

    def check_front(self, seat: int, body: str, hint: str) -> None:
        """A request has no hint of another's and no sheet but its seat's and the humans'."""
        assert _HINT.findall(body) == _HINT.findall(hint)
        sheets = {int(one) for one in _SHEET.findall(body)}
        humans = {one.member.persona for one in self.here(by_model=False)}
        allowed = {self.seats[seat].member.persona, *humans}
        assert sheets <= allowed, (sheets, allowed)
        assert self.seats[seat].member.persona in sheets

    def check_path(self, seat: int) -> list[Any]:
        """A seat is shown the lines of the path that it may see, in order; gives all turns that it is shown there."""
        self.views += 1
        view = self.session.seen_by(seat)
        path = self.path(self.head)
        known = {one.id: one for one in self.turns}
        shown = view.turns(limit=100).items
        on_path = [one for one in shown if known[one.id] in path]
        wanted = [(one.id, self.lines_for(seat, one)) for one in path if self.may_see(seat, one)]
        got = [(one.id, lines_of(one)) for one in on_path]
        assert got == wanted, f"seat {seat}: {got} != {wanted}"
        return list(shown)

    def check_view(self, seat: int, number: int) -> None:
        """A seat is shown no line that it may not see, and none of what others cost, thought or were cut for."""
        view = self.session.seen_by(seat)
        known = {one.id: one for one in self.turns}
        others = [*self.check_path(seat), *view.tree.branches()]
        if self.turns:
            some = self.turns[number % len(self.turns)]
            lines = self.lines_for(seat, some)
            try:
                turn = view.turn(some.id)
                assert lines_of(turn) == lines, f"seat {seat}: {lines_of(turn)} != {lines}, {some}"
                others += [turn, *view.tree.variants(some.id)]
            except NotFoundError:
                assert not self.may_see(seat, some)
        for turn in others:
            said = known[turn.id]
            allowed = {mark for one in said.lines if self.may_see(seat, one) for mark in one.marks}
            dumped = turn.model_dump_json() if turn.speaker != seat else str(lines_of(turn))
            assert set(_LINE.findall(dumped)) <= allowed, (seat, dumped)
            assert turn.speaker == seat or turn.calls == ()

    def lines_for(self, seat: int, one: Said) -> list[tuple[str, str]]:
        """What a seat is shown of a turn: none of it, where it is not there when the turn is spoken at last."""
        if not self.may_see(seat, one):
            return []
        return [(line.name, line.text) for line in one.lines if self.may_see(seat, line)]

    def check_rebuilt(self) -> None:
        """Every request comes back from the rows as it was received, at the end as at the beginning."""
        received = self.model.bodies[self.begun :]
        rebuilt = [self.rp.replay.request(self.session.id, call) for one in self.turns for call in one.calls]
        assert sorted(rebuilt) == sorted(received)


def lines_of(turn: Any) -> list[tuple[str, str]]:
    """What a turn shows."""
    return [(one.name, one.text) for one in (turn.human, turn.reply) if one is not None]


def plain(name: str) -> str:
    """A name as it is compared."""
    return unicodedata.normalize("NFD", name).casefold().strip()


def sent_as(name: str) -> str:
    """A name as a field of its own takes it: in one line, and without what cannot be seen."""
    seen = (" " if one.isspace() else one for one in name if one.isprintable() or one.isspace() or is_kept(one))
    return "".join(seen).strip()


def is_kept(char: str) -> bool:
    """Whether a character that is not printed is sent nevertheless."""
    return unicodedata.category(char) not in {"Cf", "Cc"}


def play(house: House, plot: Plot) -> Company:
    """Let a cast do what its plot says, and check it after every step."""
    company = Company(house, plot)
    seats = sorted(company.seats)
    for number, step in enumerate(plot.steps):
        company.perform(step)
        seats = sorted(company.seats)
        if number % 4 == 3:  # a view costs more than a step
            company.check_view(seats[number // 4 % len(seats)], step.how)
    for seat in seats[:: max(len(seats) - 1, 1)]:
        company.check_path(seat)
    company.check_rebuilt()
    return company


def is_name(name: str) -> bool:
    """Whether a seat may have this name."""
    try:
        Seat(name=name)
    except InvalidInputError:
        return False
    return True


def drawn(chance: random.Random, steps: int) -> Plot:
    """Draw a cast and what becomes of it."""

    def name() -> str:
        if chance.random() < 0.75:
            return chance.choice(NAMES)
        made = "".join(chance.choices(PARTS, k=chance.randint(1, 4)))
        return made if is_name(made) else "Ann"

    def member(*, human: bool) -> Member:
        persona = chance.choice([-1, -1, 3]) if human else chance.randrange(4)
        called = None if chance.random() < 0.2 and not human else name()
        return Member(persona, called, tuple(name() for _ in range(chance.choice([0, 0, 1, 2]))))

    models = chance.randint(1, 5)
    humans = chance.randint(1, 8 - max(models, 5))
    return Plot(
        dialect=chance.choice(DIALECTS),
        budget=chance.choice([None, None, SMALL_BUDGET]),
        everything=chance.random() < 0.4,
        speaking=chance.choice(SPEAKING),
        models=[member(human=False) for _ in range(models)],
        humans=[member(human=True) for _ in range(humans)],
        later=[member(human=chance.random() < 0.3) for _ in range(4)],
        steps=[
            Step(chance.choice(DOORS), chance.randrange(24), chance.randrange(256), chance.randrange(840))
            for _ in range(chance.randint(steps // 3, steps))
        ],
    )


@dataclass
class Found:
    """What was seen of many casts."""

    casts: int = 0
    requests: int = 0
    shortened: int = 0
    views: int = 0
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, company: Company) -> None:
        """Count one more."""
        self.casts += 1
        self.requests += company.checks
        self.shortened += company.shortened
        self.views += company.views
        self.done += company.done
        self.refused += company.refused


class Houses:
    """Engines over databases in memory, one for each dialect, of which each serves many casts."""

    def __init__(self, casts: int = 100) -> None:
        self._casts, self._left = casts, 0
        self._open: dict[str, House] = {}

    def house(self, dialect: str) -> House:
        """Give the house of a dialect; a new one now and then, since nothing is ever taken out of a database."""
        if not self._left:
            self.close()
            self._left = self._casts
        self._left -= 1
        if dialect not in self._open:
            model = ScriptedModel(piece_chars=12)
            rp = Roleplay.open("sqlite://", model=endpoint(dialect), chat=model)
            self._open[dialect] = House(rp.__enter__(), model)
        return self._open[dialect]

    def close(self) -> None:
        """Close all of them."""
        for house in self._open.values():
            house.close()
        self._open = {}
        self._left = 0


def tell(what: str) -> None:
    """Say something at once."""
    print(what, flush=True)  # noqa: T201 - the answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, play, print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--casts", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--steps", type=int, default=12, help="how many things are done in each at most")
    options = parser.parse_args(arguments)
    found, houses, failed, began = Found(), Houses(), 0, time.perf_counter()
    for number in range(options.first, options.first + options.casts):
        plot = drawn(random.Random(number), options.steps)  # noqa: S311 - the same cast each time
        try:
            found.add(play(houses.house(plot.dialect), plot))
        except Exception:  # noqa: BLE001 - the others are tried, too
            failed += 1
            tell(f"cast {number} failed: {plot}\n{traceback.format_exc()}")
            houses.close()
        if (number + 1) % 500 == 0:
            tell(f"{number + 1}: {found.requests:,} requests, {time.perf_counter() - began:.0f} s")
    houses.close()
    tell(f"{options.casts:,} casts, {failed} of them failed; {found.views:,} views and {found.requests:,} requests,")
    tell(f"{found.shortened:,} of these with less than the whole path")
    for door in sorted(found.done | found.refused):
        tell(f"  {door}: {found.done[door]:,} done, {found.refused[door]:,} refused")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

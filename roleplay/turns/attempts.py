"""What is asked next after an attempt at a reply failed: the same in another form, less, the same again, or another
endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from roleplay.chat.retry import pause_before_next
from roleplay.context.builder import Load
from roleplay.domain.context import Role
from roleplay.domain.endpoint import Endpoint, Form
from roleplay.errors import BudgetError, ChatError, ChatUnavailableError
from roleplay.turns.effects import Steps
from roleplay.turns.plan import Plan, reformed, shrunk, turned_to
from roleplay.turns.scope import SessionScope
from roleplay.wire.codes import blames_the_prompt, is_too_long
from roleplay.wire.forms import Refused, refused_form
from roleplay.wire.lengths import named_limit
from roleplay.wire.request import reply_cap

FORMS_TRIED = 3
ROLE_PLAY_ROLES = frozenset({Role.USER_SYSTEM, Role.GROUP, Role.SAMPLE_USER, Role.SAMPLE_AI})
ROOM_SHARE = 0.95
LEAST_ROOM = 0.25


class NextAttempt(NamedTuple):
    """The next attempt: what is sent to whom, and the seconds until then."""

    plan: Plan
    pause_s: float


@dataclass(slots=True)
class Attempts:
    """The attempts at one reply so far, and what follows them.

    ``first`` and ``began`` are the number and the time of the first attempt that counts as one of the endpoint's retry
    policy. ``refused`` are the forms that this endpoint refused, ``understood`` is the one that its words ask for.
    ``shrunk``: the request was shortened.
    """

    scope: SessionScope
    first: int
    began: float
    refused: list[Form] = field(init=False, default_factory=list)
    understood: Form | None = field(init=False, default=None)
    shrunk: bool = field(init=False, default=False)

    def after(self, error: ChatError, plan: Plan, attempt: int) -> Steps[NextAttempt | None]:
        """Plan what follows an attempt at ``plan`` that failed; ``None`` where nothing does."""
        pause = self._pause(error, plan, attempt)
        if (found := self._other_form(error, plan)) is not None:
            return NextAttempt((yield from self._in_form(plan, found)), 0.0)
        if (shorter := self._shorter(error, plan)) is not None:
            self.shrunk, plan = True, shorter
        elif pause is None and plan.others and isinstance(error, ChatUnavailableError):
            self.refused, self.understood, self.shrunk = [], None, False
            plan = yield from turned_to(plan, self.scope)
        else:
            return None if pause is None else NextAttempt(plan, pause)
        self.first, self.began = attempt + 1, self.scope.ports.monotonic()
        return NextAttempt(plan, 0.0)

    def remember_form(self, endpoint: Endpoint) -> None:
        """Remember the form that was taken after others were refused in words; a bare 1000 may also pass."""
        if self.understood is not None:
            self.scope.tenant_scope.forms[endpoint.host, endpoint.model] = self.understood

    def _pause(self, error: ChatError, plan: Plan, attempt: int) -> float | None:
        ports = self.scope.ports
        return pause_before_next(
            plan.endpoint.retry,
            error,
            attempt=attempt - self.first + 1,
            elapsed_s=ports.monotonic() - self.began,
            draw=ports.draw(),
        )

    def _other_form(self, error: ChatError, plan: Plan) -> Refused | None:
        """Give the form to try next where ``error`` refuses the one that was sent; each is tried once."""
        if len(self.refused) >= FORMS_TRIED:
            return None
        role_play = any(message.role in ROLE_PLAY_ROLES for message in plan.draft.messages)
        found = refused_form(plan.form, error, role_play=role_play)
        return None if found is None or found.other in self.refused else found

    def _in_form(self, plan: Plan, found: Refused) -> Steps[Plan]:
        """Plan the same request in another form, which counts as no retry; what was said in words is remembered."""
        sent, other = plan.form, found.other
        if found.in_words:
            known = self.understood or self.scope.tenant_scope.form_of(plan.endpoint)
            self.understood = Form(
                other.dialect if other.dialect is not sent.dialect else known.dialect,
                other.cap_name if other.cap_name != sent.cap_name else known.cap_name,
            )
        self.first += 1
        self.refused.append(sent)
        return (yield from reformed(plan, self.scope, other))

    def _shorter(self, error: ChatError, plan: Plan) -> Plan | None:
        """Plan a shorter request, once, where the service found this one too long; ``None`` where there is none.

        What was refused is learned, so that later requests are shorter from the beginning. Of a refusal that counts the
        reply it is learned only when the shorter request was refused too: else no later turn could be spoken.
        """
        if not is_too_long(error):
            return None
        if self.shrunk:
            observe(self.scope, plan, None)
            return None
        room = _room(error, plan)
        try:
            shorter = shrunk(plan, room)
        except BudgetError:
            return None
        if blames_the_prompt(error):
            observe(self.scope, plan, None, room)
        return shorter


def observe(scope: SessionScope, plan: Plan, reported: int | None, room: int | None = None) -> None:
    """Learn from what the service reported of the prompt (``None``: that it was too long; ``room``: for how many
    tokens there is room, where it said so).

    A prompt with counts of another counter would teach rates that are wrong once all is counted by this one.
    """
    draft = plan.draft
    known = scope.tenant_scope.calibrations.get(plan.subject)
    if known is not None and not draft.foreign:
        known.observe(_part(draft.load, room, draft.prompt_tokens), reported, scope.session_id)


def _part(load: Load, room: int | None, tokens: int) -> Load:
    """Give the part of what a prompt held that there is room for; a number that is far off teaches no less."""
    share = 1.0 if room is None else min(max(room / max(tokens, 1), LEAST_ROOM), 1.0)
    return load if share == 1.0 else Load(*(int(one * share) for one in load))


def _room(error: ChatError, plan: Plan) -> int | None:
    """Give the tokens that a prompt may have, where a refusal as too long names the limit."""
    limit = named_limit(error.message)
    if limit is None:
        return None
    if not blames_the_prompt(error):
        limit -= reply_cap(plan.endpoint, plan.sampling)
    return int(limit * ROOM_SHARE)

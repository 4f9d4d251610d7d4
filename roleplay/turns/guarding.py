"""Guards: what is asked of them, and what becomes of a text on its way through them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from roleplay.domain.guards import Checked, Verdict, name_of
from roleplay.domain.values import text_problem
from roleplay.errors import RefusedError
from roleplay.store.records.new_rows import NewVerdict
from roleplay.turns.effects import Ask, Steps
from roleplay.turns.scope import SessionScope

HELD_CHARS = 400
_END = re.compile("[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019\u300d\uff09)*]*(?=\\s|[^\\x00-\\x7f])\\s*|\n+")


@dataclass(frozen=True, slots=True)
class GuardedText:
    """What guards left of a text, what is to be kept of their verdicts, and the error where one refused."""

    text: str
    verdicts: tuple[NewVerdict, ...] = ()
    refused: RefusedError | None = None


def ask_guards(scope: SessionScope, checked: Checked) -> Steps[GuardedText]:
    """Ask every guard about a text, each about what those before it left; who fails or takes too long refuses."""
    kept: list[NewVerdict] = []
    for guard in scope.tenant_scope.watch.guards:
        name = name_of(guard)
        try:
            verdict: Verdict | None = yield Ask(guard, checked, scope.tenant_scope.watch.guard_timeout_s)
        except TimeoutError:
            verdict = Verdict.refuse(f"the guard took longer than {scope.tenant_scope.watch.guard_timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - whatever a product's code raises
            verdict = Verdict.refuse(f"the guard failed: {type(error).__name__}")
        if verdict is None or verdict.action == "allow":
            continue
        if verdict.action == "replace" and (
            text_problem(verdict.text) or (checked.side == "human" and not verdict.text)
        ):
            verdict = Verdict.refuse("the guard gave a text that cannot be said")
        original = checked.text if scope.tenant_scope.watch.keep_originals else None
        kept.append(NewVerdict(checked.side, name, verdict.action, verdict.reason, original))
        if verdict.action == "refuse":
            return GuardedText("", tuple(kept), RefusedError(name, checked.side, verdict.reason))
        checked = checked.model_copy(update={"text": verdict.text})
    return GuardedText(checked.text, tuple(kept))


@dataclass(slots=True)
class GuardedSpeech:
    """The speech of a streamed reply on its way through the guards: what they passed, what is no sentence yet."""

    passed: str = ""
    held: str = ""
    verdicts: list[NewVerdict] = field(default_factory=list)

    def sentences(self, text: str, *, last: bool = False) -> Iterator[str]:
        """Give what can be asked about now: whole sentences, and what is held for too long; at last everything."""
        self.held += text
        while self.held:
            found = _END.search(self.held)
            if found and (found.end() < len(self.held) or last):
                cut = found.end()
            elif len(self.held) >= HELD_CHARS:
                cut = self.held.rfind(" ", 1, HELD_CHARS) + 1 or HELD_CHARS
            elif last:
                cut = len(self.held)
            else:
                return
            sentence, self.held = self.held[:cut], self.held[cut:]
            yield sentence

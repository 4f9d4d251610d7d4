"""What comes of a reply in one attempt, and how an attempt is written down when it has ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from roleplay.domain.conversation import Cut, DeltaKind, TurnStatus
from roleplay.domain.guards import Checked
from roleplay.errors import ChatError, EmptyReplyError, RefusedError, RoleplayError
from roleplay.store.records import audience
from roleplay.store.records.new_rows import CallEnding
from roleplay.turns.effects import Interrupt, Steps
from roleplay.turns.guarding import GuardedSpeech, ask_guards
from roleplay.turns.in_role import NOBODY, InRole
from roleplay.turns.plan import Plan
from roleplay.turns.scope import SessionScope
from roleplay.wire.heads import Head
from roleplay.wire.reply import ReplyDecoder, Said
from roleplay.wire.secrets import NONE, Secrets, secrets_of

SPEECH: Final = DeltaKind.SPEECH


@dataclass(slots=True)
class IncomingReply:
    """What has come in one attempt at a reply. ``began`` is in seconds of ``Ports.monotonic``; ``speech_chars`` counts
    what was handed on of the speech, ``restarts`` how often some of it proved to be reasoning, ``role`` has what of it
    is the speaker's."""

    scope: SessionScope
    plan: Plan
    turn_id: str
    began: float = 0.0
    guarded: GuardedSpeech | None = None
    decoder: ReplyDecoder | None = None
    role: InRole = field(default_factory=lambda: InRole(NOBODY))
    secrets: Secrets = NONE
    first_token_s: float | None = None
    speech_chars: int = 0
    restarts: int = 0

    @classmethod
    def beginning(cls, scope: SessionScope, plan: Plan, turn_id: str, began: float) -> IncomingReply:
        """Begin an attempt."""
        return cls(scope, plan, turn_id, began, GuardedSpeech() if scope.tenant_scope.watch.guards else None)

    def decode(self, head: Head) -> ReplyDecoder:
        """Begin to read an answer."""
        self.role = InRole(self.plan.names, self.plan.basis.so_far)
        self.secrets = secrets_of(self.plan.endpoint)
        self.decoder = ReplyDecoder(
            head,
            streamed=self.plan.stream,
            now=self.scope.ports.now(),
            so_far=self.plan.basis.so_far,
            secrets=self.secrets,
        )
        return self.decoder

    def note_times(self, said: Sequence[Said]) -> None:
        """Note when the first words came."""
        if said and self.first_token_s is None:
            self.first_token_s = self.scope.ports.monotonic() - self.began

    @property
    def took_back(self) -> bool:
        """Whether some of the speech that was handed on has proved to be reasoning since this was last asked."""
        return self.decoder is not None and self.decoder.restarts != self.restarts

    def anew(self, said: Sequence[Said]) -> Sequence[Said]:
        """Count and guard anew what is left of the speech after some was taken back; gives what there is to hand on.

        What the caller of a stream was given stays given.
        """
        assert self.decoder is not None
        self.restarts = self.decoder.restarts
        self.role = InRole(self.plan.names, self.plan.basis.so_far)
        if self.guarded is None:
            speech = self.decoder.speech
            self.speech_chars = len(self.role.feed(speech[: len(speech) - speech_chars(said)]))
            return said
        self.guarded, self.speech_chars = GuardedSpeech(verdicts=self.guarded.verdicts), 0
        return [Said(SPEECH, self.decoder.speech)] if self.decoder.speech else []

    def in_role(self, said: Sequence[Said], *, last: bool) -> Sequence[Said]:
        """Give what of some pieces is the speaker's, and reasoning as it is."""
        role = self.role
        if role.inside and not last and len(said) == 1:  # as it is for most pieces of a stream
            [(kind, text)] = said
            if kind is SPEECH and "\n" not in text:
                role.kept.append(text)
                return said
        kept = []
        if role.goes_on and self.decoder is not None and self.decoder.breaks_line:
            role.break_line()
        for piece in said:
            kind, text = piece
            stays = role.feed(text) if kind is SPEECH else text
            if stays is text:
                kept.append(piece)
            elif stays:
                kept.append(Said(kind, stays))
        if last and (text := role.finish()):
            kept.append(Said(SPEECH, text))
        return kept

    def check_it_speaks(self) -> None:
        """Raise ``EmptyReplyError`` where the whole answer holds nothing that the speaker says."""
        if self.role.text and not self.role.text.isspace():
            return
        went_on = f"it speaks as {self.role.cut.name}" if self.role.cut else "it is the speaker's name alone"
        raise EmptyReplyError(f"the reply holds nothing that the speaker says: {went_on}")

    def settle(self) -> None:
        """Take what came with an error. What was held back of a line is no name yet and is left out."""
        if self.decoder is None or self.guarded is not None:
            return
        said: Sequence[Said] = self.decoder.left()
        self.in_role(self.anew(said) if self.took_back else said, last=False)

    @property
    def speech(self) -> str:
        """What the model said in this attempt, as far as it may be shown and stored."""
        if self.guarded is not None:
            return self.guarded.passed
        return self.secrets.in_speech(self.role.text)  # what is put together may make a secret

    @property
    def cut(self) -> Cut | None:
        """What was cut from the reply, since it goes on as somebody else there."""
        cut = self.role.cut
        if cut is None:
            return None
        return cut.model_copy(update={"text": self.secrets.in_speech(cut.text)})

    def through_guards(self, guarded: GuardedSpeech, said: Sequence[Said], *, last: bool) -> Steps[list[Said]]:
        """Give what the guards pass of the speech: sentence by sentence where it is shown as it comes, else at the end.

        Reasoning is not shown, since no guard sees it. Raises ``RefusedError``.
        """
        text = "".join(text for kind, text in said if kind is SPEECH)
        if not self.plan.stream:
            guarded.held += text
            sentences, guarded.held = ([guarded.held], "") if last and guarded.held else ([], guarded.held)
        else:
            sentences = list(guarded.sentences(text, last=last))
        passed = []
        for sentence in sentences:
            guarded_text = yield from ask_guards(self.scope, self._checked(sentence))
            guarded.verdicts += guarded_text.verdicts
            if guarded_text.refused is not None:
                raise guarded_text.refused
            guarded.passed += guarded_text.text
            passed.append(Said(SPEECH, guarded_text.text))
        if last and not guarded.passed.strip():
            raise RefusedError("guards", "reply", "nothing is left of it")
        return [one for one in passed if one.text]

    def _checked(self, text: str) -> Checked:
        return Checked(
            side="reply",
            text=text,
            before=self.plan.basis.so_far + self.speech,
            speaker=self.plan.speaker.display_name,
            tenant=self.scope.tenant,
            session_id=self.scope.session_id,
            turn_id=self.turn_id,
            audience=audience.read(self.plan.basis.audience),
        )

    def ending(self, error: BaseException | None) -> CallEnding:
        """Give how the model call of this attempt ended, ``error`` with it."""
        total_s = self.scope.ports.monotonic() - self.began
        error_text = error_json(error)
        if self.decoder is None:
            return CallEnding(error=error_text, total_s=total_s)
        facts = self.decoder.facts
        return CallEnding(
            model_answered=facts.model_answered,
            response_id=facts.response_id,
            response_created=facts.response_created,
            finish_reason=facts.finish_reason,
            usage=facts.usage,
            sensitivity=facts.sensitivity,
            base_resp=facts.base_resp,
            reasoning=self.decoder.reasoning or None,
            error=error_text,
            first_token_s=self.first_token_s,
            total_s=total_s,
            cut=self.cut,
        )


def speech_chars(said: Sequence[Said]) -> int:
    """Count the characters of the speech in some pieces."""
    return sum(len(text) for kind, text in said if kind is SPEECH)


def status_of(error: BaseException | None, *, has_text: bool) -> TurnStatus:
    """Say how a turn stands that ends with ``error``, or with its reply."""
    if error is None:
        return TurnStatus.COMPLETED
    failed = isinstance(error, ChatError | RefusedError) and not has_text
    return TurnStatus.FAILED if failed else TurnStatus.INTERRUPTED


def error_json(error: BaseException | None) -> str | None:
    """Write an error as it is stored with its call; what is not ours is named, never quoted."""
    if error is None:
        return None
    if isinstance(error, RoleplayError):
        return json.dumps(error.to_dict(), ensure_ascii=False)
    name = type(error).__name__[:100]
    if isinstance(error, Exception):  # such as one of a library; who leaves throws another kind
        message, slug = f"the engine failed: {name}", name
    else:
        message, slug = "the caller ended the reply", "interrupted" if isinstance(error, Interrupt) else name
    return json.dumps({"slug": slug, "message": message, "retryable": True})

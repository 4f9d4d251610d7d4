"""The operation of a line that needs no model: narration, what was said elsewhere, what a product says for somebody."""

from __future__ import annotations

import json
from typing import NamedTuple

from roleplay.domain.conversation import Turn, TurnKind
from roleplay.domain.settings import TurnOptions
from roleplay.store import Connection
from roleplay.store.records import sessions, transcript
from roleplay.store.records import turns as store
from roleplay.store.records.new_rows import AddedTurn, CallerFields, NewMessage, NewVerdict
from roleplay.turns.arguments import Speaker, line_text, options_of, speaker_of_line
from roleplay.turns.effects import Operation, write
from roleplay.turns.queue import Queue, read_situation
from roleplay.turns.revisions import RenderedRevision
from roleplay.turns.scope import SessionScope, render_revision
from roleplay.turns.speaking import body_digest, guarded_line, of_same_body


class AddedLine(NamedTuple):
    """A line, whose it is, and what guards said of it."""

    text: str
    speaker: Speaker
    verdicts: tuple[NewVerdict, ...]


def add(scope: SessionScope, text: str, speaker: Speaker, options: TurnOptions) -> Operation:
    """Write a line after what was said last, and stand on it; no model is called.

    Raises ``InvalidInputError``, ``NotFoundError``, ``ConflictError`` and ``IdempotencyError`` with nothing written.
    """
    words = line_text(text)
    speaker_of_line(speaker)
    key = options_of(options).idempotency_key
    digest = None if key is None else body_digest({"do": "add", "text": words, "speaker": speaker}, options)
    metadata = json.dumps(dict(options.metadata), ensure_ascii=False) if options.metadata else None
    queue = Queue(scope, options.on_conflict, options.wait_s)
    verdicts: tuple[NewVerdict, ...] | None = None
    while True:
        position, found, live, gone, _ = yield from read_situation(scope, key)
        mine = None if found is None else of_same_body(*found, digest, key)
        if mine is not None:
            return mine
        if gone or (live is not None and not (yield from queue.may_pass(live, None))):
            continue
        queue.check(position)
        rendered = yield from render_revision(scope, position.revision, position.seat)
        if verdicts is None and speaker == "user":
            guarded_text = yield from guarded_line(scope, rendered, words)
            if guarded_text.refused is not None:
                raise guarded_text.refused
            words, verdicts = line_text(guarded_text.text), guarded_text.verdicts
        caller = CallerFields(key, digest, metadata, moves_head=live is None)
        new, at = (
            _added_turn(scope, position, rendered, AddedLine(words, speaker, verdicts or ()), caller),
            scope.ports.now(),
        )

        def work(db: Connection) -> Turn | None:
            place = db, scope.tenant, scope.session_id
            if not store.add_complete(*place, position.version, new, at):  # noqa: B023 - written at once
                return None
            return transcript.by_id(*place, new.turn.id)  # noqa: B023 - likewise

        if (turn := (yield from write("add", work))) is not None:
            return turn
        yield from queue.lost_claim(position)


def _added_turn(
    scope: SessionScope, position: sessions.Position, rendered: RenderedRevision, said: AddedLine, caller: CallerFields
) -> AddedTurn:
    text, speaker, verdicts = said
    seq, by_human = position.last_seq + 1, speaker != "model"
    who = (rendered.pair.human if by_human else rendered.pair.speaker).participant
    narrator = scope.tenant_scope.words(rendered.in_force.language or rendered.language).narrator
    name = narrator if speaker == "narrator" else who.display_name
    message = NewMessage.after(
        position.end, seq, (who.seat, name), text, scope.counter, by_human=by_human, revision=position.revision
    )
    turn = position.new_turn(
        scope.ports.new_id(),
        TurnKind.NARRATION if speaker == "narrator" else TurnKind.IMPORTED,
        who.seat,
        parent_turn=position.head_turn,
        states=position.states,
        human_seq=seq if by_human else None,
        reply_seq=None if by_human else seq,
        caller=caller,
    )
    return AddedTurn(turn, message, verdicts)

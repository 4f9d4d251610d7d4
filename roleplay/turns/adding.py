"""The operation of a line that needs no model: narration, what was said elsewhere, what a product says for somebody."""

from __future__ import annotations

import json
from typing import NamedTuple

from roleplay.domain.conversation import Participant, PlayedBy, Turn, TurnKind
from roleplay.domain.settings import TurnOptions
from roleplay.errors import InvalidInputError
from roleplay.store import Connection
from roleplay.store.records import sessions, transcript
from roleplay.store.records import turns as store
from roleplay.store.records.new_rows import AddedTurn, CallerFields, NewMessage, NewVerdict
from roleplay.store.records.path_states import map_with, read_state
from roleplay.turns.arguments import Speaker, line_text, options_of
from roleplay.turns.claim import speech_row
from roleplay.turns.effects import Operation, write
from roleplay.turns.queue import Queue, read_situation
from roleplay.turns.revisions import RenderedRevision, listed
from roleplay.turns.scope import SessionScope, render_revision
from roleplay.turns.speaking import arguments_of, audience_of, body_digest, guarded_line, human_of, of_same_body


class AddedLine(NamedTuple):
    """A line: its text, whose seat says it and whether as the narrator, to whom, and what guards said of it."""

    text: str
    speaker: Participant
    narrates: bool
    audience: str | None
    verdicts: tuple[NewVerdict, ...]


def add(scope: SessionScope, text: str, speaker: Speaker, options: TurnOptions) -> Operation:
    """Write a line after what was said last, and stand on it; no model is called.

    Raises ``InvalidInputError``, ``NotFoundError``, ``ConflictError`` and ``IdempotencyError`` with nothing written.
    """
    words = line_text(text)
    key = options_of(options).idempotency_key
    arguments = arguments_of("add", options, text=words, speaker=speaker)
    digest = None if key is None else body_digest(arguments, options)
    metadata = json.dumps(dict(options.metadata), ensure_ascii=False) if options.metadata else None
    queue = Queue(scope, options.on_conflict, options.wait_s)
    verdicts: tuple[NewVerdict, ...] | None = None
    while True:
        position, found, live, gone, _ = yield from read_situation(scope, key)
        mine = of_same_body(found, digest, key)
        if mine is not None:
            return mine
        rendered = yield from render_revision(scope, position.revision)
        who = speaker_of(rendered, speaker)
        narrates = speaker == "narrator"
        heard = audience_of(rendered, None if narrates else who, options)  # the narrator has no seat that hears it
        if gone or (live is not None and not (yield from queue.may_pass(live, None, position.revision))):
            continue
        queue.check(position)
        if verdicts is None and who.played_by is PlayedBy.HUMAN and not narrates:
            guarded_text = yield from guarded_line(scope, who, words, heard)
            if guarded_text.refused is not None:
                raise guarded_text.refused
            words, verdicts = line_text(guarded_text.text), guarded_text.verdicts
        caller = CallerFields(key, digest, metadata, moves_head=live is None, audience=heard)
        line = AddedLine(words, who, narrates, heard, verdicts or ())
        new, at = _added_turn(scope, position, rendered, line, caller), scope.ports.now()

        def work(db: Connection) -> Turn | None:
            place = db, scope.tenant, scope.session_id
            if not store.add_complete(*place, position.version, new, at):  # noqa: B023 - written at once
                return None
            return transcript.by_id(*place, new.turn.id)  # noqa: B023 - likewise

        if (turn := (yield from write("add", work))) is not None:
            return turn
        yield from queue.lost_claim(position)


def speaker_of(rendered: RenderedRevision, speaker: Speaker) -> Participant:
    """Give the seat that says a line: a human's for the ``user`` and for the ``narrator``, who has none, the first of
    the model's for the ``model``, or the one that is named. Raises ``InvalidInputError``."""
    if speaker == "user":
        return human_of(rendered, None)
    if speaker == "narrator":
        return rendered.humans[0]
    if speaker == "model":
        if len(rendered.models) > 1:
            allowed = listed(rendered.models)
            raise InvalidInputError("speaker", "is 'model', and the model plays several", allowed=allowed)
        return rendered.models[0]
    return rendered.participant("speaker", speaker)


def _added_turn(
    scope: SessionScope, position: sessions.Position, rendered: RenderedRevision, said: AddedLine, caller: CallerFields
) -> AddedTurn:
    who, seq, by_human = said.speaker, position.last_seq + 1, said.speaker.played_by is PlayedBy.HUMAN
    first = rendered.first
    narrator = scope.tenant_scope.words(first.in_force.language or first.language).narrator
    message = NewMessage.after(
        position.end,
        seq,
        (who.seat, narrator if said.narrates else who.display_name),
        said.text,
        scope.counter,
        by_human=by_human,
        revision=position.revision,
        audience=said.audience,
    )
    changes_order = len(rendered.models) > 1 and said.audience is None and not said.narrates
    shared = read_state(position.shared)
    rows = speech_row(shared, None if by_human else who.seat, anew=False) if changes_order else {}
    turn = position.new_turn(
        scope.ports.new_id(),
        TurnKind.NARRATION if said.narrates else TurnKind.IMPORTED,
        who.seat,
        parent_turn=position.head_turn,
        states=map_with(position.states, rows, position.last_turn + 1),
        human_seq=seq if by_human else None,
        reply_seq=None if by_human else seq,
        caller=caller,
    )
    return AddedTurn(turn, message, said.verdicts, rows)

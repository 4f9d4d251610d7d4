"""The course of a line that needs no model: narration, what was said elsewhere, what a product says for somebody."""

from __future__ import annotations

import json
from typing import Literal, NamedTuple

from roleplay.domain.conversation import Turn, TurnKind
from roleplay.domain.settings import TurnOptions
from roleplay.errors import InvalidInputError
from roleplay.store import Connection, sessions, transcript
from roleplay.store import turns as store
from roleplay.store.entries import NewMessage, NewVerdict, Terms, Uttered
from roleplay.turns.asked import options_of
from roleplay.turns.effects import Course, write
from roleplay.turns.ground import Queue, look
from roleplay.turns.plan import words_of
from roleplay.turns.scene import Rehearsed, Scene, rehearse
from roleplay.turns.speaking import body_digest, checked, judged_line, of_same_body

Speaker = Literal["user", "model", "narrator"]
SPEAKERS = ("user", "model", "narrator")


class Said(NamedTuple):
    """A line, whose it is, and what guards said of it."""

    text: str
    speaker: Speaker
    verdicts: tuple[NewVerdict, ...]


def add(scene: Scene, text: str, speaker: Speaker, options: TurnOptions) -> Course:
    """Write a line after what was said last, and stand on it; no model is called.

    Raises ``InvalidInputError``, ``NotFoundError``, ``ConflictError`` and ``IdempotencyError`` with nothing written.
    """
    words = checked(text)
    if speaker not in SPEAKERS:
        raise InvalidInputError("speaker", f"is {speaker!r}", allowed=", ".join(SPEAKERS))
    key = options_of(options).idempotency_key
    digest = None if key is None else body_digest({"do": "add", "text": words, "speaker": speaker}, options)
    metadata = json.dumps(dict(options.metadata), ensure_ascii=False) if options.metadata else None
    queue = Queue(scene, options.on_conflict, options.wait_s)
    verdicts: tuple[NewVerdict, ...] | None = None
    while True:
        stand, found, live, gone, _ = yield from look(scene, key)
        mine = None if found is None else of_same_body(*found, digest, key)
        if mine is not None:
            return mine
        if gone or (live is not None and not (yield from queue.may_pass(live, None))):
            continue
        queue.check(stand)
        known = yield from rehearse(scene, stand.revision, stand.seat)
        if verdicts is None and speaker == "user":
            judged = yield from judged_line(scene, known, words)
            if judged.refused is not None:
                raise judged.refused
            words, verdicts = checked(judged.text), judged.verdicts
        terms = Terms(key, digest, metadata, moves_head=live is None)
        new, at = _uttered(scene, stand, known, Said(words, speaker, verdicts or ()), terms), scene.ports.now()

        def work(db: Connection) -> Turn | None:
            place = db, scene.tenant, scene.session_id
            if not store.utter(*place, stand.version, new, at):  # noqa: B023 - written at once
                return None
            return transcript.by_id(*place, new.turn.id)  # noqa: B023 - likewise

        if (turn := (yield from write("add", work))) is not None:
            return turn
        yield from queue.lost_claim(stand)


def _uttered(scene: Scene, stand: sessions.Stand, known: Rehearsed, said: Said, terms: Terms) -> Uttered:
    text, speaker, verdicts = said
    seq, by_human = stand.last_seq + 1, speaker != "model"
    who = (known.pair.human if by_human else known.pair.speaker).participant
    narrator = words_of(scene, known.in_force.language or known.language).narrator
    name = narrator if speaker == "narrator" else who.display_name
    message = NewMessage.after(
        stand.end, seq, (who.seat, name), text, scene.counter, by_human=by_human, revision=stand.revision
    )
    turn = stand.new_turn(
        scene.ports.new_id(),
        TurnKind.NARRATION if speaker == "narrator" else TurnKind.IMPORTED,
        who.seat,
        parent_turn=stand.head_turn,
        states=stand.states,
        human_seq=seq if by_human else None,
        reply_seq=None if by_human else seq,
        terms=terms,
    )
    return Uttered(turn, message, verdicts)
